"""ML program rules: contractions, norms, reductions, pooling, recurrence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from orchard.ir import Size
from orchard.workloads.importers.coreml.program import Op, Program, rule
from orchard.workloads.importers.lowering import Value, show
from orchard.workloads.importers.lowering.contract import contract

# ---- contractions


@rule("linear")
def _linear(c: Program, op: Op) -> Value:
    return c.low.linear(op["x"], op["weight"], _bias(op))


def _bias(op: Op) -> Value | None:
    """A bias; converters put zeros there when the source had none, which stay a bias of the file."""
    return op.get("bias")


@rule("matmul")
def _matmul(c: Program, op: Op) -> Value:
    return c.low.matmul(op["x"], op["y"], transpose_a=op.flag("transpose_x"), transpose_b=op.flag("transpose_y"))


@rule("einsum")
def _einsum(c: Program, op: Op) -> Value:
    return contract(c.low, op.text("equation"), op.values("values"), c.need_shape(op, "the einsum"))


def _window(
    c: Program, op: Op, x: Value, taps: Sequence[Size], d: int
) -> tuple[list[int], list[int], list[tuple[int, int]]]:
    stride, dilation = op.ints("strides") or [1] * d, op.ints("dilations") or [1] * d
    kind = op.text("pad_type", "valid")
    listed = op.ints("pad") or [0] * (2 * d)
    pads = list(zip(listed[::2], listed[1::2])) if kind == "custom" else [(0, 0)] * d
    if kind.startswith("same"):
        pads = []
        for size, tap, st, di in zip(x.shape[-d:], taps, stride, dilation):
            span = (tap - 1) * di + 1
            total = (
                max((-(-size // st) - 1) * st + span - size, 0)
                if isinstance(size, int) and isinstance(span, int) and st > 0  # what is below 1, the convolution refuses
                else 0
            )
            pads.append((total // 2, total - total // 2))
    return stride, dilation, pads


@rule("conv", "conv_quantized")
def _conv(c: Program, op: Op) -> Value:
    x, w = op["x"], op["weight"]
    stride, dilation, pads = _window(c, op, x, w.shape[2:], w.ndim - 2)
    return c.low.conv(x, w, _bias(op), stride=stride, pad=pads, dilation=dilation, groups=op.int("groups", 1))


@rule("conv_transpose")
def _conv_transpose(c: Program, op: Op) -> Value:
    x, w = op["x"], op["weight"]
    d = w.ndim - 2
    stride, dilation, pads = _window(c, op, x, w.shape[2:], d)
    extra = [0] * d
    declared = c.declared(op)
    if declared is not None and len(stride) == len(dilation) == len(pads) == d:
        full = [(s - 1) * st + (t - 1) * di + 1 for s, st, t, di in zip(x.shape[2:], stride, w.shape[2:], dilation)]
        extra = [
            o - (f - p[0] - p[1]) if isinstance(f, int) and isinstance(o, int) else 0
            for o, f, p in zip(declared[2:], full, pads)
        ]
    return c.low.conv_transpose(
        x, w, _bias(op), stride=stride, pad=pads, dilation=dilation, output_pad=extra, groups=op.int("groups", 1)
    )


@rule("scaled_dot_product_attention")
def _sdpa(c: Program, op: Op) -> Value:
    q = op["query"]
    width = q.shape[-1]
    scale = float(width) ** -0.5 if isinstance(width, int) else None
    return c.low.attention(q, op["key"], op["value"], op.get("attn_mask"), scale=scale)


# ---- norms, softmax, reductions


@rule("layer_norm")
def _layer_norm(c: Program, op: Op) -> Value:
    x = op["x"]
    axes = sorted(c.low.axis(x, a) for a in op.ints("axes") or [-1])
    attrs: dict[str, Any] = {} if axes == [x.ndim - 1] else {"axes": tuple(axes)}
    return c.low.norm("layernorm", x, op.get("gamma"), op.get("beta"), **attrs)


@rule("batch_norm")
def _batch_norm(c: Program, op: Op) -> Value:
    for name in ("mean", "variance"):
        statistics = op.get(name)
        if statistics is not None and id(statistics) in c.stored:
            value, size, _ = c.stored[id(statistics)]
            statistics.part = "constant"
            c.stored[id(statistics)] = (value, size, False)
    gamma = op.get("gamma") or op["variance"]
    return c.low.norm("batchnorm", op["x"], gamma, op.get("beta"), op["mean"], op["variance"])


@rule("instance_norm", "l2_norm", "local_response_norm")
def _norm(c: Program, op: Op) -> Value:
    fn = {"instance_norm": "instancenorm", "l2_norm": "l2norm"}.get(op.type, "lrn")
    return c.low.norm(fn, op["x"], op.get("gamma"), op.get("beta"))


@rule("softmax")
def _softmax(c: Program, op: Op) -> Value:
    return c.low.softmax(op["x"], op.int("axis", -1))


@rule(
    *(
        f"reduce_{n}"
        for n in ("mean", "sum", "max", "min", "prod", "l1_norm", "l2_norm", "log_sum", "log_sum_exp", "sum_square")
    )
)
def _reduce(c: Program, op: Op) -> Value:
    fn = {"log_sum_exp": "logsumexp", "l2_norm": "l2", "l1_norm": "l1"}.get(op.type[7:], op.type[7:])
    return c.low.reduce(fn, op["x"], op.ints("axes"), op.flag("keep_dims"))


@rule("reduce_argmax", "reduce_argmin")
def _argmax(c: Program, op: Op) -> Value:
    return c.low.reduce(op.type[7:], op["x"], [op.int("axis", -1)], op.flag("keep_dims"), "int32")


@rule("cumsum")
def _cumsum(c: Program, op: Op) -> Value:
    return c.low.one("reduce", [op["x"]], op["x"].shape, fn="cumsum")


@rule("topk")
def _topk(c: Program, op: Op) -> tuple[Value, ...]:
    x, k = op["x"], op.int("k", 1)
    axis = c.low.axis(x, op.int("axis", -1))
    shape = [k if i == axis else s for i, s in enumerate(x.shape)]
    kind: dict[str, Any] = {"k": k} if axis == x.ndim - 1 else {"fn": "sort"}
    return c.low.emit("topk" if "k" in kind else "move", [x], [shape, shape], [x.format, "int32"], **kind)


# ---- pooling, resizing, recurrence


@rule("max_pool", "avg_pool", "l2_pool")
def _pool(c: Program, op: Op) -> Value:
    x, kernel = op["x"], op.ints("kernel_sizes") or []
    stride, dilation, pads = _window(c, op, x, kernel, len(kernel))
    fn = "max" if op.type == "max_pool" else "avg"
    return c.low.pool(fn, x, kernel, stride, pads, dilation, ceil=op.flag("ceil_mode"))


@rule("upsample_nearest_neighbor", "upsample_bilinear", "resize_nearest_neighbor", "resize_bilinear", "resize", "resample",
      "crop_resize", "affine")  # fmt: skip
def _resize(c: Program, op: Op) -> Value:
    x = op["x"]
    fn = "nearest" if "nearest" in op.type else "bilinear"
    shape = c.declared(op)
    if shape is None:
        factors = [op.real("scale_factor_height", 1.0), op.real("scale_factor_width", 1.0)]
        if not op.type.startswith("upsample") or any(f != int(f) for f in factors):
            shape = c.need_shape(op, "the target size")
        else:
            shape = (*x.shape[:-2], x.shape[-2] * int(factors[0]), x.shape[-1] * int(factors[1]))
    return c.low.resize(x, shape, fn)


@rule("lstm", "gru", "rnn")
def _recurrent(c: Program, op: Op) -> list[Value]:
    pairs = [(op["weight_ih"], op["weight_hh"])]
    biases = [b for b in (op.get("bias"), op.get("bias_back")) if b is not None]
    if op.get("weight_ih_back") is not None:
        pairs.append((op["weight_ih_back"], op["weight_hh_back"]))
    hidden = pairs[0][1].shape[-1]
    if not isinstance(hidden, int) or op["x"].ndim != 3:
        raise c.low.fail(f"a recurrent layer on {show(op['x'].shape)}")
    y, last = c.low.recurrent(op.type, op["x"], pairs, biases, hidden)
    b, width = op["x"].shape[1], hidden * len(pairs)
    if not op.flag("output_sequence"):
        y = c.low.slice(y, 0, -1, y.shape[0])
    state = c.low.reshape(last, [b, width])
    return [y, state, state]
