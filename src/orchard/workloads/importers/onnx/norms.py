"""ONNX rules: norms, softmax, reductions, pooling, resizing, recurrence."""

from __future__ import annotations

from typing import Any

from orchard.ir import Size, product
from orchard.workloads.importers.lowering import Value, show
from orchard.workloads.importers.onnx.contractions import same_padding
from orchard.workloads.importers.onnx.reader import Op, Reader, rule

# ---- norms, softmax, reductions


@rule("Softmax", "LogSoftmax", "Hardmax")
def _softmax(c: Reader, op: Op) -> Value:
    fn = "log_softmax" if op.type == "LogSoftmax" else "softmax"
    axis = op.number("axis", -1 if c.opset >= 13 else 1)
    if c.opset < 13 and op[0].ndim and axis % op[0].ndim != op[0].ndim - 1:
        flat = c.low.reshape(op[0], [product(op[0].shape[:axis]), product(op[0].shape[axis:])])
        return c.low.reshape(c.low.softmax(flat, -1, fn), op[0].shape)
    return c.low.softmax(op[0], axis, fn)


@rule("BatchNormalization", "SpatialBN")
def _batchnorm(c: Reader, op: Op) -> list[Value]:
    for statistics in op.given()[3:5]:
        if statistics.producer is None:
            statistics.part = "constant"
    return [c.low.norm("batchnorm", op[0], *op.given()[1:5]), *op.given()[3:5]]


@rule("InstanceNormalization")
def _instancenorm(c: Reader, op: Op) -> Value:
    return c.low.norm("instancenorm", op[0], op.get(1), op.get(2))


@rule("LayerNormalization", "SimplifiedLayerNormalization", "RMSNormalization")
def _layernorm(c: Reader, op: Op) -> list[Value]:
    fn = "layernorm" if op.type == "LayerNormalization" else "rmsnorm"
    axis = c.low.axis(op[0], op.number("axis", -1))
    attrs: dict[str, Any] = {} if axis == op[0].ndim - 1 else {"axes": tuple(range(axis, op[0].ndim))}
    y = c.low.norm(fn, op[0], op.get(1), op.get(2), **attrs)
    axes = list(range(axis, op[0].ndim))
    return [y, *(c.low.reduce("mean", op[0], axes, True) for name in op.outputs[1:] if name)]


@rule("SkipLayerNormalization", "SkipSimplifiedLayerNormalization")
def _skip_layernorm(c: Reader, op: Op) -> list[Value | None]:
    simple = "Simplified" in op.type
    x = c.low.elementwise("add", op[0], op[1])
    bias = op.get(3 if simple else 4)
    if bias is not None:
        x = c.low.elementwise("add", x, bias)
    y = c.low.norm("rmsnorm" if simple else "layernorm", x, op.get(2), None if simple else op.get(3))
    return [y, None, None, x]


@rule("EmbedLayerNormalization")
def _embed_layernorm(c: Reader, op: Op) -> list[Value | None]:
    ids, segments, words, positions, types, gamma, beta = (op.get(i) for i in range(7))
    if ids is None or words is None or positions is None:
        raise c.low.fail("an embedding without ids or tables")
    x = c.low.take(words, ids, 0)
    rows = c.low.slice(positions, 0, 0, ids.shape[-1])
    x = c.low.elementwise("add", x, c.low.unsqueeze(rows, [0]))
    if segments is not None and types is not None:
        x = c.low.elementwise("add", x, c.low.take(types, segments, 0))
    y = c.low.norm("layernorm", x, gamma, beta)
    return [y, c.low.constant(0, "int32"), x]


@rule("GroupNormalization", "GroupNorm", "SkipGroupNorm")
def _groupnorm(c: Reader, op: Op) -> Value:
    groups = op.number("num_groups", op.number("groups", 32))
    return c.low.norm("groupnorm", op[0], op.get(1), op.get(2), groups=groups)


@rule("LpNormalization", "MeanVarianceNormalization", "LRN")
def _other_norm(c: Reader, op: Op) -> Value:
    return c.low.norm({"LpNormalization": "l2norm", "LRN": "lrn"}.get(op.type, "instancenorm"), op[0])


@rule(
    "ReduceMean",
    "ReduceSum",
    "ReduceMax",
    "ReduceMin",
    "ReduceProd",
    "ReduceL2",
    "ReduceL1",
    "ReduceLogSumExp",
    "ReduceSumSquare",
    "ReduceLogSum",
)
def _reduce(c: Reader, op: Op) -> Value:
    axes = c.axes(op)
    if not axes and op.number("noop_with_empty_axes"):
        return op[0]
    return c.low.reduce(op.type[6:].lower(), op[0], axes, bool(op.number("keepdims", 1)))


@rule("ArgMax", "ArgMin")
def _argmax(c: Reader, op: Op) -> Value:
    return c.low.reduce(op.type.lower(), op[0], [op.number("axis")], bool(op.number("keepdims", 1)), "int64")


@rule("TopK")
def _topk(c: Reader, op: Op) -> tuple[Value, ...]:
    k = c.sizes(op, 1, "k")[0] if len(op.inputs) > 1 else op.number("k")
    axis = c.low.axis(op[0], op.number("axis", -1))
    shape = [k if i == axis else s for i, s in enumerate(op[0].shape)]
    formats = [op[0].format, "int64"]
    if axis == op[0].ndim - 1 and isinstance(k, int):
        return c.low.emit("topk", [op[0]], [shape, shape], formats, k=k)
    return c.low.emit("move", [op[0]], [shape, shape], formats, fn="sort")


# ---- pooling, resizing, recurrence


@rule("MaxPool", "AveragePool", "LpPool")
def pool(c: Reader, op: Op) -> list[Value]:
    kernel = op.ints("kernel_shape") or []
    d = len(kernel)
    stride, dilation = op.ints("strides") or [1] * d, op.ints("dilations") or [1] * d
    listed = op.ints("pads") or [0] * (2 * d)
    pads = [(listed[i], listed[i + d]) for i in range(d)] if len(listed) == 2 * d else []
    if op.text("auto_pad").startswith("SAME"):
        pads = [same_padding(s, k, st, 1) for s, k, st in zip(op[0].shape[2:], kernel, stride)]
    fn = "max" if op.type == "MaxPool" else "avg"
    y = c.low.pool(fn, op[0], kernel, stride, pads, dilation, ceil=bool(op.number("ceil_mode")))
    picked = [c.low.one("move", [y], y.shape, "int64", fn="argmax")] if len(op.outputs) > 1 else []
    return [y, *picked]


@rule("GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool")
def global_pool(c: Reader, op: Op) -> Value:
    return c.low.reduce("max" if "Max" in op.type else "mean", op[0], list(range(2, op[0].ndim)), True)


@rule("Resize", "Upsample")
def _resize(c: Reader, op: Op) -> Value:
    x = op[0]
    mode = {"linear": "bilinear", "cubic": "bicubic"}.get(op.text("mode", "nearest"), "nearest")
    sizes = op.get(3)
    if sizes is not None and sizes.data is not None and sizes.data.size == x.ndim:
        return c.low.resize(x, list(sizes.data.reshape(-1)), mode)
    scales = op.get(2) if op.type == "Resize" else op.get(1)
    factors: Any = op.attributes.get("scales")
    if scales is not None and scales.data is not None:
        factors = list(scales.data.reshape(-1))
    if isinstance(factors, list) and len(factors) == x.ndim:
        if not all(0 < float(f) < 1e6 for f in factors):
            raise c.low.fail(f"a resize by {', '.join(map(str, factors))}")
        return c.low.resize(x, [_scaled(s, float(f)) for s, f in zip(x.shape, factors)], mode)
    shape = c.declared_shape(op)
    if shape is None:
        raise c.low.fail("a resize whose target is computed at run time; give fixed input shapes")
    return c.low.resize(x, shape, mode)


def _scaled(size: Size, factor: float) -> Size:
    if isinstance(size, int):
        return int(size * factor + 1e-6)
    return size * int(factor) if factor == int(factor) else size * int(factor * 16) // 16


@rule("GridSample", "RoiAlign", "MaxRoiPool", "AffineGrid")
def _grid_sample(c: Reader, op: Op) -> Value:
    if op.type == "AffineGrid":
        n, _, *space = c.sizes(op, 1, "the size")
        return c.low.one("resize", [op[0]], [n, *space, len(space)], fn="affine_grid")
    if op.type == "GridSample":
        return c.low.one("resize", op.given(), [*op[0].shape[:2], *op[1].shape[1:-1]], fn="grid_sample")
    size = [op.number("output_height", 1), op.number("output_width", 1)]
    return c.low.one("resize", op.given(), [op[1].shape[0], op[0].shape[1], *size], fn=op.type.lower())


@rule("LSTM", "GRU", "RNN")
def _recurrent(c: Reader, op: Op) -> list[Value]:
    x, w, r, bias = op[0], op[1], op[2], op.get(3)
    if op.number("layout"):
        x = c.low.swap(x, 0, 1)
    directions, hidden = w.shape[0], r.shape[-1]
    if not isinstance(directions, int) or not isinstance(hidden, int) or not 1 <= directions <= 2:
        raise c.low.fail(f"a recurrent layer with weight {show(w.shape)}")

    def part(value: Value, i: int) -> Value:
        return c.low.squeeze(c.low.slice(value, 0, i, i + 1), [0])

    gates = {"LSTM": 4, "GRU": 3}.get(op.type, 1) * hidden
    biases = [c.low.slice(part(bias, i), 0, 0, gates) for i in range(directions)] if bias is not None else []
    y, last = c.low.recurrent(op.type.lower(), x, [(part(w, i), part(r, i)) for i in range(directions)], biases, hidden)
    t, b = x.shape[:2]
    y = c.low.reshape(y, [t, b, directions, hidden])
    if op.number("layout"):  # batch first, in results and states too
        last = c.low.swap(last, 0, 1)
        return [c.low.transpose(y, [1, 0, 2, 3]), last, last]
    return [c.low.transpose(y, [0, 2, 1, 3]), last, last]


@rule("NegativeLogLikelihoodLoss", "SoftmaxCrossEntropyLoss")
def _loss(c: Reader, op: Op) -> list[Value]:
    """One log probability per target, picked and averaged."""
    x, target = op[0], op[1]
    logs = c.low.softmax(x, 1, "log_softmax") if op.type == "SoftmaxCrossEntropyLoss" else x
    picked = c.low.one("move", [logs, target], target.shape, fn="gather")
    mean = op.text("reduction", "mean") != "none"
    return [c.low.reduce("mean", picked, None, False) if mean else picked, logs]
