"""torch rules: norms, softmax, reductions, pooling, resizing, recurrence."""

from __future__ import annotations

from typing import Any

from orchard.workloads.importers.lowering import Value
from orchard.workloads.importers.torch_export.layout import ints, move, spread
from orchard.workloads.importers.torch_export.program import Args, Program, rule

# ---- rules: norms, softmax, reductions


@rule("aten.layer_norm", "aten.native_layer_norm", "aten.rms_norm", "aten._fused_rms_norm")
def _layer_norm(p: Program, a: Args) -> Any:
    x = a["input"]
    fn = "rmsnorm" if "rms" in p.kind(p.node) else "layernorm"
    shape = a["normalized_shape"]
    attrs: dict[str, Any] = {}
    if len(shape) > 1:
        attrs["axes"] = tuple(range(x.ndim - len(shape), x.ndim))
    y = p.low.norm(fn, x, a.get("weight"), a.get("bias"), **attrs)
    return (y, None, None) if isinstance(p.node.meta["val"], (tuple, list)) else y


@rule("aten.group_norm", "aten.native_group_norm")
def _group_norm(p: Program, a: Args) -> Any:
    groups: Any = a.get("num_groups", a.get("group"))
    y = p.low.norm("groupnorm", a["input"], a.get("weight"), a.get("bias"), groups=int(groups))
    return (y, None, None) if isinstance(p.node.meta["val"], (tuple, list)) else y


@rule("aten.batch_norm", "aten._native_batch_norm_legit_no_training", "aten.native_batch_norm", "aten.cudnn_batch_norm")
def _batch_norm(p: Program, a: Args) -> Any:
    y = p.low.norm("batchnorm", a["input"], a["weight"], a["bias"], a.get("running_mean"), a.get("running_var"))
    return (y, None, None) if isinstance(p.node.meta["val"], (tuple, list)) else y


@rule("aten.instance_norm")
def _instance_norm(p: Program, a: Args) -> Value:
    return p.low.norm("instancenorm", a["input"], a["weight"], a["bias"])


@rule(
    "aten.softmax",
    "aten._softmax",
    "aten.log_softmax",
    "aten._log_softmax",
    "aten._safe_softmax",
    "aten.special_softmax",
)
def _softmax(p: Program, a: Args) -> Value:
    fn = "log_softmax" if "log" in p.kind(p.node) else "softmax"
    return p.low.softmax(p.low.cast(a["self"], p.out_format()), a["dim"], fn)


@rule("aten.sum", "aten.mean", "aten.amax", "aten.amin", "aten.prod", "aten.any", "aten.all", "aten.logsumexp",
      "aten.norm",
      "aten.linalg_vector_norm", "aten.var", "aten.std", "aten.argmax", "aten.argmin", "aten.max", "aten.min",
      "aten.var_mean", "aten.std_mean", "aten.median", "aten.count_nonzero", "aten.nansum")  # fmt: skip
def _reduce(p: Program, a: Args) -> Any:
    name = p.kind(p.node).split(".")[-1]
    fn = {"amax": "max", "amin": "min", "linalg_vector_norm": "l2", "norm": "l2"}.get(name, name)
    if fn in ("max", "min") and isinstance(a.get("other"), Value):
        return p.low.elementwise(fn, a["self"], a["other"], format=p.out_format())
    x = a["self"]
    dims = a.get("dim")
    axes = None if dims in (None, []) else ints(dims)
    keep = bool(a.get("keepdim", False))
    results = p.node.meta["val"]
    if isinstance(results, (tuple, list)):
        return tuple(p.low.reduce(fn, x, axes, keep, p.out_format(i)) for i in range(len(results)))
    return p.low.reduce(fn, x, axes, keep, p.out_format())


@rule("aten.normalize")
def _normalize(p: Program, a: Args) -> Value:
    return p.low.norm("l2norm", a["self"])


@rule("aten.cumsum", "aten.cumprod", "aten.diff", "aten.cummax", "aten.logcumsumexp")
def _cumulative(p: Program, a: Args) -> Value:
    return p.low.one("reduce", [a["self"]], p.out_shape(), p.out_format(), fn=p.kind(p.node).split(".")[-1])


@rule("aten.topk", "aten.sort", "aten.kthvalue")
def _topk(p: Program, a: Args) -> tuple[Value, ...]:
    x = a["self"]
    k = a.get("k") if p.kind(p.node) == "aten.topk" else x.shape[-1]
    shapes = [p.out_shape(i) for i in range(2)]
    formats = [p.out_format(i) for i in range(2)]
    if isinstance(k, int) and shapes[0] == (*x.shape[:-1], k):
        return p.low.emit("topk", [x], shapes, formats, k=k)
    return p.low.emit("move", [x], shapes, formats, fn="sort")


@rule("aten.argsort")
def _argsort(p: Program, a: Args) -> Value:
    return move(p, "sort", a["self"])


# ---- rules: pooling, resizing, recurrence


@rule("aten.max_pool1d", "aten.max_pool2d", "aten.max_pool3d", "aten.avg_pool1d", "aten.avg_pool2d", "aten.avg_pool3d",
      "aten.max_pool2d_with_indices")  # fmt: skip
def _pool(p: Program, a: Args) -> Any:
    name = p.kind(p.node)
    d = int(name.split("pool")[1][0])
    kernel = spread(a["kernel_size"], d)
    stride = spread(a.get("stride"), d) or kernel
    pads = [(n, n) for n in (spread(a.get("padding"), d) or [0] * d)]
    dilation = spread(a.get("dilation"), d) or [1] * d
    y = p.low.pool(
        "max" if "max" in name else "avg", a["self"], kernel, stride, pads, dilation, ceil=bool(a.get("ceil_mode"))
    )
    return (y, None) if isinstance(p.node.meta["val"], (tuple, list)) else y


@rule("aten.adaptive_avg_pool1d", "aten.adaptive_avg_pool2d", "aten.adaptive_max_pool2d", "aten._adaptive_avg_pool2d",
      "aten.adaptive_max_pool1d", "aten.adaptive_avg_pool3d")  # fmt: skip
def _adaptive_pool(p: Program, a: Args) -> Any:
    x = a["self"]
    pair = isinstance(p.node.meta["val"], (tuple, list))
    shape = p.out_shape(0) if pair else p.out_shape()
    fn = "max" if "max" in p.kind(p.node) else "mean"
    d = int(p.kind(p.node)[-2])
    if all(s == 1 for s in shape[-d:]):
        y = p.low.reduce(fn, x, list(range(x.ndim - d, x.ndim)), True)
    else:
        kernel = tuple(
            -(-i // o) if isinstance(i, int) and isinstance(o, int) else 1 for i, o in zip(x.shape[-d:], shape[-d:])
        )
        y = p.low.one("pool", [x], shape, fn="max" if fn == "max" else "avg", kernel=kernel, stride=kernel)
    return (y, None) if pair else y


@rule("aten.upsample_nearest1d", "aten.upsample_nearest2d", "aten.upsample_bilinear2d", "aten.upsample_bicubic2d",
      "aten._upsample_bicubic2d_aa", "aten._upsample_bilinear2d_aa", "aten.upsample_nearest3d",
      "aten.upsample_linear1d",
      "aten.grid_sampler", "aten.grid_sampler_2d", "aten.upsample_trilinear3d",
      "aten._upsample_nearest_exact2d")  # fmt: skip
def _resize(p: Program, a: Args) -> Value:
    name = p.kind(p.node)
    x = p.value(next(iter(a.values())))
    fn = next((f for f in ("nearest", "bilinear", "bicubic", "trilinear", "linear") if f in name), "grid_sample")
    if fn == "grid_sample":
        return p.low.one("resize", [x, a["grid"]], p.out_shape(), fn=fn)
    return p.low.resize(x, p.out_shape(), fn)


@rule("aten.lstm", "aten.gru", "aten.rnn_tanh", "aten.rnn_relu")
def _recurrent(p: Program, a: Args) -> tuple[Any, ...]:
    fn = p.kind(p.node).split(".")[-1].split("_")[0]
    x = a["input"]
    if a.get("batch_first"):
        x = p.low.swap(x, 0, 1)
    step = (4 if a["has_biases"] else 2) + (1 if fn == "lstm" and _projects(a) else 0)
    directions = 2 if a["bidirectional"] else 1
    hidden = a["params"][1].shape[1]
    if not isinstance(hidden, int):
        raise p.low.fail("a recurrent layer of symbolic width")
    lasts = []
    y = x
    for layer in range(a["num_layers"]):
        parameters = a["params"][layer * directions * step : (layer + 1) * directions * step]
        sets = [parameters[i * step : (i + 1) * step] for i in range(directions)]
        y, last = p.low.recurrent(
            fn, y, [(s[0], s[1]) for s in sets], [s[2] for s in sets] if a["has_biases"] else [], hidden
        )
        lasts.append(last)
    state = p.low.concat(lasts, 0)
    if a.get("batch_first"):
        y = p.low.swap(y, 0, 1)
    return (y, state, state) if fn == "lstm" else (y, state)


def _projects(a: Args) -> bool:
    per_direction = len(a["params"]) // (a["num_layers"] * (2 if a["bidirectional"] else 1))
    return bool(per_direction % 2)


@rule(
    "aten.stft",
    "aten.fft_rfft",
    "aten.fft_fft",
    "aten._fft_r2c",
    "aten.view_as_real",
    "aten.view_as_complex",
    "aten.fft_irfft",
)
def _fft(p: Program, a: Args) -> Value:
    x = p.value(next(iter(a.values())))
    return p.low.one("move", [x], p.out_shape(), p.out_format(), fn=p.kind(p.node).split(".")[-1])


@rule("aten.glu")
def _glu(p: Program, a: Args) -> Value:
    x = a["self"]
    axis = p.low.axis(x, a["dim"])
    half = p.low.divide(x.shape[axis], 2)
    value, gate = p.low.split(x, axis, [half, half])
    return p.low.elementwise("mul", value, p.low.elementwise("sigmoid", gate))


@rule("aten.cdist", "aten.pairwise_distance")
def _cdist(p: Program, a: Args) -> Value:
    x, y = list(a.values())[:2]
    return p.low.matmul(x, y, transpose_b=True)


@rule("aten._weight_norm", "aten._weight_norm_interface")
def _weight_norm(p: Program, a: Args) -> Any:
    """g * v / |v|: a weight made of two parameters, as the old reparametrisation stores it."""
    y = p.low.one("elementwise", [a["v"], a["g"]], a["v"].shape, fn="weight_norm")
    return (y, a["g"]) if p.kind(p.node).endswith("interface") else y
