"""Rules of the old Core ML format: contractions, norms, pooling, elementwise layers. Axes of pixels count from the end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from orchard.ir import Size, product
from orchard.workloads.importers.coreml.network import Layer, Network, rule
from orchard.workloads.importers.lowering import Value, show
from orchard.workloads.importers.protowire import Message


def images(n: Network, x: Value, axes: int = 2) -> Value:
    """`x` as [batch, C, pixels...]: leading axes fold into one batch."""
    if x.ndim < axes + 1:
        raise n.low.fail(f"works on channels and {axes} axes of pixels, got {show(x.shape)}")
    lead = x.shape[: x.ndim - axes - 1]
    return x if len(lead) == 1 else n.low.reshape(x, [product(lead), *x.shape[len(lead) :]])


def back(n: Network, y: Value, x: Value, axes: int = 2) -> Value:
    """`y`, computed on `images(x)`, with the leading axes of `x` again."""
    lead = x.shape[: x.ndim - axes - 1]
    return y if len(lead) == 1 else n.low.reshape(y, [*lead, *y.shape[1:]])


def _pads(params: Message, x: Value, taps: Sequence[int], stride: Sequence[int], dilation: Sequence[int]) -> Any:
    if params.same is not None:
        return [_same(s, t, st, d) for s, t, st, d in zip(x.shape[-2:], taps, stride, dilation)]
    edges = params.valid.amounts.edges if params.valid is not None and params.valid.amounts is not None else []
    return [(e.start, e.end) for e in edges][:2] if len(edges) >= 2 else [(0, 0), (0, 0)]


def _same(size: Size, tap: int, stride: int, dilation: int) -> tuple[int, int]:
    if stride < 1:
        return 0, 0  # the convolution or pool itself refuses it
    span = (tap - 1) * dilation + 1
    total = max((-(-size // stride) - 1) * stride + span - size, 0) if isinstance(size, int) else max(span - stride, 0)
    return total // 2, total - total // 2


def _pair(values: Sequence[int], default: int) -> list[int]:
    return [int(v) for v in values] if len(values) == 2 else [default, default]


@rule("convolution")
def _convolution(n: Network, layer: Layer) -> Value:
    p, x = layer.params, images(n, layer.x)
    kernel, stride, dilation = _pair(p.kernel, 3), _pair(p.stride, 1), _pair(p.dilation, 1)
    groups = max(p.groups, 1)
    bias = n.weight(layer, "bias", p.bias, [p.out_channels]) if p.bias is not None else None
    if len(layer.inputs) > 1:  # weights made by another layer
        w: Value = layer.inputs[1]
    elif p.transposed:
        w = n.weight(layer, "weight", p.weights, [p.kernel_channels, n.low.divide(p.out_channels, groups), *kernel])  # type: ignore[list-item]
    else:
        w = n.weight(layer, "weight", p.weights, [p.out_channels, p.kernel_channels, *kernel])
    if not p.transposed:
        pads = _pads(p, x, kernel, stride, dilation)
        y = n.low.conv(x, w, bias, stride=stride, pad=pads, dilation=dilation, groups=groups)
        return back(n, y, layer.x)
    pads, extra = _transposed_pads(p, x, kernel, stride, dilation)
    y = n.low.conv_transpose(
        x, w, bias, stride=stride, pad=pads, dilation=dilation, output_pad=extra, groups=groups
    )  # fmt: skip
    return back(n, y, layer.x)


def _transposed_pads(
    p: Message, x: Value, kernel: Sequence[int], stride: Sequence[int], dilation: Sequence[int]
) -> tuple[list[tuple[int, int]], list[int]]:
    """What a transposed convolution cuts: the file's padding, or what makes the output stride times (or exactly) as big."""
    spans = [(k - 1) * d + 1 for k, d in zip(kernel, dilation)]
    wanted: list[int | None] = [int(s) for s in p.output_shape[-2:]] if len(p.output_shape) >= 2 else [None, None]
    if p.same is not None:
        wanted = [s * st if w is None and isinstance(s, int) else w for s, st, w in zip(x.shape[-2:], stride, wanted)]
    pads, extra = _pads(p, x, kernel, stride, dilation) if p.same is None else [(0, 0)] * 2, [0, 0]
    for axis, (size, want) in enumerate(zip(x.shape[-2:], wanted)):
        if want is None or not isinstance(size, int):
            continue
        cut = (size - 1) * stride[axis] + spans[axis] - want
        pads[axis] = (max(cut, 0) // 2, max(cut, 0) - max(cut, 0) // 2)
        extra[axis] = max(-cut, 0)
    return list(pads), extra


@rule("convolution3d")
def _convolution3d(n: Network, layer: Layer) -> Value:
    p, x = layer.params, images(n, layer.x, 3)
    kernel = [p.kernel_d or 1, p.kernel_h or 1, p.kernel_w or 1]
    stride = [p.stride_d or 1, p.stride_h or 1, p.stride_w or 1]
    dilation = [p.dilation_d or 1, p.dilation_h or 1, p.dilation_w or 1]
    groups = max(p.groups, 1)
    bias = n.weight(layer, "bias", p.bias, [p.out_channels]) if p.bias is not None else None
    pads = _pads3d(p, x, kernel, stride)
    if p.transposed:
        w = n.weight(layer, "weight", p.weights, [p.in_channels, p.out_channels // groups, *kernel])
        y = n.low.conv_transpose(
            x, w, bias, stride=stride, pad=pads, dilation=dilation, output_pad=[0, 0, 0], groups=groups
        )  # fmt: skip
    else:
        w = n.weight(layer, "weight", p.weights, [p.out_channels, p.in_channels // groups, *kernel])
        y = n.low.conv(x, w, bias, stride=stride, pad=pads, dilation=dilation, groups=groups)
    return back(n, y, layer.x, 3)


def _pads3d(p: Message, x: Value, kernel: Sequence[int], stride: Sequence[int]) -> list[tuple[int, int]]:
    """paddingType: 0 as listed, 1 none, 2 same."""
    if p.padding == 2:
        return [_same(s, t, st, 1) for s, t, st in zip(x.shape[-3:], kernel, stride)]
    return [(p.front, p.back), (p.top, p.bottom), (p.left, p.right)] if p.padding == 0 else [(0, 0)] * 3


@rule("innerProduct")
def _inner_product(n: Network, layer: Layer) -> Value:
    """Channels in, channels out: the last axis, or the axis before two of size 1."""
    p, x = layer.params, layer.x
    w = n.weight(layer, "weight", p.weights, [p.out_channels, p.in_channels])
    bias = n.weight(layer, "bias", p.bias, [p.out_channels]) if p.bias is not None else None
    pixels = x.ndim >= 3 and x.shape[-2:] == (1, 1) and (not n.exact or x.shape[-3] == p.in_channels)
    if pixels:
        y = n.low.linear(n.low.reshape(x, x.shape[:-2]), w, bias)
        return n.low.reshape(y, [*y.shape, 1, 1])
    return n.low.linear(x, w, bias)


@rule("batchedMatmul")
def _batched_matmul(n: Network, layer: Layer) -> Value:
    p = layer.params
    if len(layer.inputs) > 1:
        return n.low.matmul(layer.x, layer.inputs[1], transpose_a=p.transpose_a, transpose_b=p.transpose_b)
    w = n.weight(layer, "weight", p.weights, [p.rows, p.columns])
    bias = n.weight(layer, "bias", p.bias, [p.columns]) if p.bias is not None else None
    return n.low.linear(layer.x, w, bias, out_first=False)


@rule("dot")
def _dot(n: Network, layer: Layer) -> Value:
    """A scalar product of two vectors of channels."""
    width = product(layer.x.shape[1:] if not n.exact else layer.x.shape)
    a, b = (n.low.reshape(v, [1, width]) for v in layer.inputs[:2])
    y = n.low.matmul(a, b, transpose_b=True)
    return n.low.reshape(y, [1, 1, 1, 1] if not n.exact else [1])


@rule("embedding", "embeddingND")
def _embedding(n: Network, layer: Layer) -> Value:
    p, ids = layer.params, layer.x
    table = n.weight(layer, "weight", p.weights, [p.in_channels, p.out_channels])
    table.part = "embedding"
    if layer.type == "embeddingND":
        if ids.ndim and ids.shape[-1] == 1:
            ids = n.low.reshape(ids, ids.shape[:-1])
        y = n.low.take(table, ids, 0)
    else:
        lead = ids.shape[:-3]
        y = n.low.reshape(n.low.take(table, n.low.reshape(ids, lead), 0), [*lead, p.out_channels, 1, 1])
    if p.bias is None:
        return y
    bias = n.weight(layer, "bias", p.bias, [p.out_channels])
    shaped = bias if layer.type == "embeddingND" else n.low.reshape(bias, [p.out_channels, 1, 1])
    return n.low.elementwise("add", y, shaped)


# ---- norms, softmax


@rule("batchnorm")
def _batchnorm(n: Network, layer: Layer) -> Value:
    p = layer.params
    gamma = n.weight(layer, "gamma", p.gamma, [p.channels])
    beta = n.weight(layer, "beta", p.beta, [p.channels])
    x = images(n, layer.x)
    if p.instance:
        return back(n, n.low.norm("instancenorm", x, gamma, beta), layer.x)
    mean = n.weight(layer, "mean", p.mean, [p.channels], parameter=False)
    variance = n.weight(layer, "variance", p.variance, [p.channels], parameter=False)
    return back(n, n.low.norm("batchnorm", x, gamma, beta, mean, variance), layer.x)


@rule("mvn", "l2normalize", "lrn")
def _norm(n: Network, layer: Layer) -> Value:
    return n.low.norm({"mvn": "instancenorm", "l2normalize": "l2norm"}.get(layer.type, "lrn"), layer.x)


@rule("layerNormalization")
def _layer_norm(n: Network, layer: Layer) -> Value:
    p, x = layer.params, layer.x
    shape = [int(s) for s in p.shape]
    gamma, beta = n.weight(layer, "gamma", p.gamma, shape), n.weight(layer, "beta", p.beta, shape)
    axes = tuple(range(x.ndim - len(shape), x.ndim))
    attrs: dict[str, Any] = {} if len(shape) == 1 else {"axes": axes}
    return n.low.norm("layernorm", x, gamma, beta, **attrs)


@rule("softmax")
def _softmax(n: Network, layer: Layer) -> Value:
    return n.low.softmax(layer.x, -3 if layer.x.ndim >= 3 else -1)


@rule("softmaxND")
def _softmax_nd(n: Network, layer: Layer) -> Value:
    return n.low.softmax(layer.x, layer.params.axis)


# ---- pooling, resizing


@rule("pooling")
def _pooling(n: Network, layer: Layer) -> Value:
    p, x = layer.params, images(n, layer.x)
    fn = "max" if p.kind == 0 else "avg"
    if p.whole:
        y = n.low.reduce("max" if p.kind == 0 else "mean", x, [2, 3], True)
        return back(n, y, layer.x)
    kernel, stride = _pair(p.kernel, 3), _pair(p.stride, 1)
    ceil = p.include_last is not None
    pads = [(a, a) for a in _pair(p.include_last.amounts, 0)] if ceil else _pads(p, x, kernel, stride, [1, 1])
    return back(n, n.low.pool(fn, x, kernel, stride, pads, ceil=ceil), layer.x)


@rule("pooling3d")
def _pooling3d(n: Network, layer: Layer) -> Value:
    p, x = layer.params, images(n, layer.x, 3)
    kernel = [p.kernel_d or 1, p.kernel_h or 1, p.kernel_w or 1]
    stride = [p.stride_d or 1, p.stride_h or 1, p.stride_w or 1]
    y = n.low.pool("max" if p.kind == 0 else "avg", x, kernel, stride, _pads3d(p, x, kernel, stride))
    return back(n, y, layer.x, 3)


@rule("globalPooling3d")
def _global_pooling3d(n: Network, layer: Layer) -> Value:
    return n.low.reduce("max" if layer.params.kind == 0 else "mean", layer.x, [-3, -2, -1], True)


@rule("upsample")
def _upsample(n: Network, layer: Layer) -> Value:
    p, x = layer.params, layer.x
    factors: list[float] = [float(f) for f in (p.factor or p.fraction or [1, 1])]
    if len(factors) != 2 or min(factors) <= 0 or x.ndim < 2:
        raise n.low.fail(f"an upsampling of {show(x.shape)} by {factors}")
    sizes = [
        s * int(f) if f == int(f) else int(s * f) if isinstance(s, int) else s for s, f in zip(x.shape[-2:], factors)
    ]
    return n.low.resize(x, [*x.shape[:-2], *sizes], "bilinear" if p.mode else "nearest")


@rule("resizeBilinear")
def _resize(n: Network, layer: Layer) -> Value:
    size = [int(s) for s in layer.params.size] or [1, 1]
    return n.low.resize(layer.x, [*layer.x.shape[:-2], *size], "bilinear")


@rule("cropResize")
def _crop_resize(n: Network, layer: Layer) -> Value:
    x, boxes = layer.inputs[0], layer.inputs[1]
    size = [int(s) for s in layer.params.size] or [1, 1]
    count = boxes.shape[0]
    return n.low.one("resize", [x, boxes], [count, *x.shape[1:-2], *size], fn="crop_resize")


# ---- elementwise

_UNARY = {
    "ceil": "ceil", "floor": "floor", "sign": "sign", "round": "round", "exp2": "exp", "sin": "sin", "cos": "cos",
    "tan": "tan", "asin": "asin", "acos": "acos", "atan": "atan", "sinh": "sinh", "cosh": "cosh", "tanh": "tanh",
    "asinh": "asin", "acosh": "acos", "atanh": "atan", "erf": "erf", "logicalNot": "not",
}  # fmt: skip
_BINARY = {
    "logicalOr": "or", "logicalXor": "xor", "logicalAnd": "and", "modBroadcastable": "mod", "minBroadcastable": "min",
    "maxBroadcastable": "max", "addBroadcastable": "add", "powBroadcastable": "pow", "divideBroadcastable": "div",
    "floorDivBroadcastable": "floordiv", "multiplyBroadcastable": "mul", "subtractBroadcastable": "sub",
    "add": "add", "multiply": "mul", "average": "add", "max": "max", "min": "min", "equal": "equal",
    "notEqual": "not_equal", "lessThan": "less", "lessEqual": "less_equal", "greaterThan": "greater",
    "greaterEqual": "greater_equal",
}  # fmt: skip


@rule(*_UNARY)
def _unary_layer(n: Network, layer: Layer) -> Value:
    return n.low.elementwise(_UNARY[layer.type], layer.x)


@rule(*_BINARY)
def _binary_layer(n: Network, layer: Layer) -> Value:
    """Two or more operands, or one and the constant `alpha`."""
    fn, result = _BINARY[layer.type], layer.x
    if len(layer.inputs) == 1:
        alpha = float(getattr(layer.params, "alpha", 0.0))
        return n.low.elementwise(fn, result, n.low.constant(alpha, "f32"))
    for other in layer.inputs[1:]:
        result = n.low.elementwise(fn, result, other)
    return result


@rule("unary")
def _unary(n: Network, layer: Layer) -> Value:
    """f(scale * x + shift); scale is 1 where the file has none."""
    p = layer.params
    names = ("sqrt", "rsqrt", "reciprocal", "pow", "exp", "log", "abs", "max")
    if not 0 <= p.kind < len(names):
        raise n.low.fail(f"unary function {p.kind}, expected 0 to {len(names) - 1}")
    x = _linear(n, layer.x, float(p.scale) or 1.0, float(p.shift))
    if names[p.kind] in ("pow", "max"):
        return n.low.elementwise(names[p.kind], x, n.low.constant(float(p.alpha), "f32"))
    return n.low.elementwise(names[p.kind], x)


def _linear(n: Network, x: Value, alpha: float, beta: float) -> Value:
    y = x if alpha == 1.0 else n.low.elementwise("mul", x, n.low.constant(alpha, "f32"))
    return y if beta == 0.0 else n.low.elementwise("add", y, n.low.constant(beta, "f32"))


@rule("activation")
def _activation(n: Network, layer: Layer) -> Value:
    kind = next(iter(layer.params.fields), "")
    if kind == "prelu":
        return _prelu(n, layer)
    if kind == "linear":
        return _linear(n, layer.x, float(layer.params.linear.alpha), float(layer.params.linear.beta))
    names = {
        "relu": "relu", "leaky_relu": "leaky_relu", "thresholded_relu": "relu", "tanh": "tanh", "scaled_tanh": "tanh",
        "sigmoid": "sigmoid", "sigmoid_hard": "hardsigmoid", "elu": "elu", "softsign": "softsign", "softplus": "softplus",
        "parametric_softplus": "softplus",
    }  # fmt: skip
    if kind not in names:
        raise n.low.fail("an activation without a function")
    return n.low.elementwise(names[kind], layer.x)


def _prelu(n: Network, layer: Layer) -> Value:
    """One slope for all channels, or one per channel."""
    stored, pixels = layer.params.prelu.alpha, layer.x.ndim >= 3
    channels = layer.x.shape[-3 if pixels else -1]
    count = channels if isinstance(channels, int) and stored is not None and len(stored.f32) != 4 else 1
    return n.low.elementwise("prelu", layer.x, n.weight(layer, "alpha", stored, [count, 1, 1] if pixels else [count]))


@rule("clip", "clampedReLU")
def _clip(n: Network, layer: Layer) -> Value:
    p = layer.params
    if layer.type == "clip":
        return n.low.clamp(layer.x, float(p.low), float(p.high))
    return (
        n.low.clamp(layer.x, 0.0, float(p.beta))
        if not p.alpha
        else n.low.elementwise("clamp", layer.x, high=float(p.beta))
    )


@rule("gelu")
def _gelu(n: Network, layer: Layer) -> Value:
    return n.low.elementwise({1: "gelu_tanh", 2: "quick_gelu"}.get(layer.params.mode, "gelu"), layer.x)


@rule("scale", "bias")
def _scale(n: Network, layer: Layer) -> Value:
    p, y = layer.params, layer.x
    if layer.type == "scale":
        y = n.low.elementwise("mul", y, _aligned(n, layer, "scale", p.scale, p.shape))
        return y if p.bias is None else n.low.elementwise("add", y, _aligned(n, layer, "bias", p.bias, p.bias_shape))
    return n.low.elementwise("add", y, _aligned(n, layer, "bias", p.bias, p.shape))


def _aligned(n: Network, layer: Layer, name: str, stored: Message | None, shape: Sequence[int]) -> Value:
    """A stored [C] or [C, H, W] beside channels: [C] means one number per channel."""
    sizes = [int(s) for s in shape] or [1]
    value = n.weight(layer, name, stored, sizes)
    return n.low.reshape(value, [*sizes, 1, 1]) if len(sizes) == 1 and layer.x.ndim >= 3 else value


@rule("whereBroadcastable")
def _where(n: Network, layer: Layer) -> Value:
    return n.low.elementwise("where", *layer.inputs[:3])


# ---- reductions


@rule("reduce")
def _reduce(n: Network, layer: Layer) -> Value:
    axes = {0: [-3, -2, -1], 1: [-2, -1], 2: [-3], 3: [-2], 4: [-1]}.get(layer.params.axis, [-3, -2, -1])
    fn = ("sum", "mean", "prod", "logsum", "sumsquare", "l1", "l2", "max", "min", "argmax")[min(layer.params.mode, 9)]
    return n.low.reduce(fn, layer.x, axes, True)


@rule("reduceL1", "reduceL2", "reduceMax", "reduceMin", "reduceSum", "reduceProd", "reduceMean", "reduceLogSum",
      "reduceSumSquare", "reduceLogSumExp")  # fmt: skip
def _reduce_nd(n: Network, layer: Layer) -> Value:
    p = layer.params
    axes = None if p.all or not p.axes else [int(a) for a in p.axes]
    return n.low.reduce(layer.type[6:].lower(), layer.x, axes, p.keep)


@rule("argMax", "argMin")
def _arg(n: Network, layer: Layer) -> Value:
    p = layer.params
    return n.low.reduce(layer.type.lower(), layer.x, [p.axis], not p.remove, "int32")


@rule("topK")
def _topk(n: Network, layer: Layer) -> tuple[Value, ...]:
    p, x = layer.params, layer.x
    axis, k = n.low.axis(x, p.axis), max(int(p.k), 1)
    shape = [k if i == axis else s for i, s in enumerate(x.shape)]
    if axis == x.ndim - 1:
        return n.low.emit("topk", [x], [shape, shape], [x.format, "int32"], k=k)
    return n.low.emit("move", [x], [shape, shape], [x.format, "int32"], fn="sort")


@rule("cumSum")
def _cumsum(n: Network, layer: Layer) -> Value:
    return n.low.one("reduce", [layer.x], layer.x.shape, fn="cumsum")


# ---- recurrence

_GATES = {
    "simpleRecurrent": ("rnn", [("w", "r", "bias")]),
    "gru": ("gru", [("w_z", "r_z", "b_z"), ("w_r", "r_r", "b_r"), ("w_o", "r_o", "b_o")]),
    "uniDirectionalLSTM": ("lstm", [(f"w_{g}", f"r_{g}", f"b_{g}") for g in "ifgo"]),
    "biDirectionalLSTM": ("lstm", [(f"w_{g}", f"r_{g}", f"b_{g}") for g in "ifgo"]),
}


@rule("simpleRecurrent", "gru", "uniDirectionalLSTM", "biDirectionalLSTM")
def _recurrent(n: Network, layer: Layer) -> list[Value]:
    """Gates are stored one matrix each; they are stacked, as one product computes them."""
    p, x = layer.params, layer.x
    fn, gates = _GATES[layer.type]
    if x.ndim not in (4, 5) or p.hidden < 1:
        raise n.low.fail(f"a recurrent layer of width {p.hidden} on {show(x.shape)}")
    lead = x.shape[:2] if x.ndim == 5 else (x.shape[0], 1)
    flat = n.low.reshape(x, [*lead, product(x.shape[-3:])])
    sets = list(p.weights) if fn == "lstm" else [p]
    if len(sets) != (2 if layer.type == "biDirectionalLSTM" else 1):
        raise n.low.fail(f"{len(sets)} sets of weights, expected {2 if layer.type == 'biDirectionalLSTM' else 1}")
    pairs, biases = [], []
    for number, part in enumerate(sets):
        w, r, b = ([(k[i], getattr(part, k[i]), k) for k in gates if getattr(part, k[i]) is not None] for i in range(3))
        stack = [
            _stacked(n, layer, number, found, p.inputs if i == 0 else p.hidden, p.hidden)
            for i, found in enumerate((w, r))
        ]
        pairs.append((stack[0], stack[1]))
        if b:
            biases.append(_stacked(n, layer, number, b, 0, p.hidden))
        for peephole in ("p_i", "p_f", "p_o"):
            if fn == "lstm" and getattr(part, peephole) is not None:
                n.weight(layer, f"{peephole}_{number}", getattr(part, peephole), [p.hidden])
    y, last = n.low.recurrent(fn, flat, pairs, biases, p.hidden)
    sequence = p.params.sequence if fn == "lstm" and p.params is not None else p.sequence if fn != "lstm" else False
    if not sequence:
        y = n.low.slice(y, 0, -1, y.shape[0])
    y = n.low.reshape(
        y, [y.shape[0], y.shape[1], y.shape[2], 1, 1] if x.ndim == 5 else [y.shape[0] * y.shape[1], y.shape[2], 1, 1]
    )
    states = [n.low.reshape(s, _state_shape(x, s)) for s in _directions(n, last, len(sets))]
    return [y, *(s for state in states for s in ([state, state] if fn == "lstm" else [state]))]


def _directions(n: Network, last: Value, count: int) -> list[Value]:
    return [last] if count == 1 else [n.low.slice(last, 0, i, i + 1) for i in range(count)]


def _state_shape(x: Value, state: Value) -> list[Size]:
    _, b, hidden = state.shape
    return [1, b, hidden, 1, 1] if x.ndim == 5 else [b, hidden, 1, 1]


def _stacked(n: Network, layer: Layer, number: int, found: Sequence[Any], width: int, hidden: int) -> Value:
    """Matrices of one kind for all gates as one stored weight; each is checked and counted as the file stores it."""
    parts = [
        n.weight(layer, f"{name}_{number}", stored, [hidden, width] if width else [hidden]) for name, stored, _ in found
    ]
    if not parts:
        raise n.low.fail("a recurrent layer without weights")
    for part in parts:
        n.low.leaves.remove(part)
    shape = [hidden * len(parts), width] if width else [hidden * len(parts)]
    return n.low.weight(f"{layer.name}.{found[0][0]}_{number}", shape, parts[0].format)
