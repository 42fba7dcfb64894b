"""Rules of the old Core ML format: layers that move or rename axes, constants, gathers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from orchard.ir import Size, product
from orchard.workloads.importers.coreml.network import Layer, Network, rule
from orchard.workloads.importers.lowering import Value, array, show


def _sizes(value: Value) -> list[Size] | None:
    """Known contents of a tensor of sizes."""
    if value.data is None:
        return None
    return [int(v) if isinstance(v, float) else v for v in value.data.reshape(-1)]


# ---- layouts of the rank-5 mapping: values are [N, C, H, W]


@rule("reshape")
def _reshape(n: Network, layer: Layer) -> Value:
    """targetShape is [C, H, W] or [sequence, C, H, W]; CHANNEL_LAST orders the elements H, W, C."""
    p, x = layer.params, layer.x
    shape = [int(s) for s in p.shape]
    if p.mode == 1 and x.ndim >= 3:
        x = n.low.transpose(x, [*range(x.ndim - 3), x.ndim - 2, x.ndim - 1, x.ndim - 3])
    return n.low.reshape(x, shape if len(shape) >= 4 else [*x.shape[:-3], *shape])


@rule("flatten")
def _flatten(n: Network, layer: Layer) -> Value:
    x = layer.x
    if layer.params.mode == 1 and x.ndim >= 3:
        x = n.low.transpose(x, [*range(x.ndim - 3), x.ndim - 2, x.ndim - 1, x.ndim - 3])
    return n.low.reshape(x, [*x.shape[:-3], product(x.shape[-3:]), 1, 1])


@rule("permute")
def _permute(n: Network, layer: Layer) -> Value:
    """Axes are sequence, C, H, W; with five axes the batch, the second, stays."""
    axes, x = [int(a) for a in layer.params.axes], layer.x
    if x.ndim == 5 and len(axes) == 4:
        place = (0, 2, 3, 4)
        order = [place[a] if 0 <= a < 4 else -1 for a in axes]
        return n.low.transpose(x, [order[0], 1, *order[1:]])
    return n.low.transpose(x, axes)


@rule("concat")
def _concat(n: Network, layer: Layer) -> Value:
    return n.low.concat(layer.inputs, 0 if layer.params.sequence else -3 if layer.x.ndim >= 3 else -1)


@rule("split")
def _split(n: Network, layer: Layer) -> tuple[Value, ...]:
    axis = n.low.axis(layer.x, -3)
    count = max(layer.params.count, 1)
    return n.low.split(layer.x, axis, [n.low.divide(layer.x.shape[axis], count)] * count)


@rule("slice")
def _slice(n: Network, layer: Layer) -> Value:
    """Axis 0, 1, 2: channels, height, width. A negative end counts from behind, and includes what it names."""
    p = layer.params
    axis = {0: -3, 1: -2, 2: -1}.get(p.axis, -3)
    size = layer.x.shape[n.low.axis(layer.x, axis)]
    end: Size = p.end if p.end >= 0 else size + (p.end + 1)
    return n.low.slice(layer.x, axis, p.start, end, max(p.stride, 1))


@rule("crop")
def _crop(n: Network, layer: Layer) -> Value:
    p, y = layer.params, layer.x
    if len(layer.inputs) > 1:
        offset = [int(o) for o in p.offset] or [0, 0]
        for axis, start in zip((-2, -1), offset):
            y = n.low.slice(y, axis, start, start + layer.inputs[1].shape[axis])
        return y
    edges = p.amounts.edges if p.amounts is not None else []
    for axis, edge in zip((-2, -1), edges):
        size = y.shape[axis]
        y = n.low.slice(y, axis, edge.start, size - edge.end)
    return y


@rule("padding")
def _padding(n: Network, layer: Layer) -> Value:
    edges = layer.params.amounts.edges if layer.params.amounts is not None else []
    lead = [0] * (layer.x.ndim - len(edges))
    return n.low.pad(layer.x, [*lead, *(e.start for e in edges)], [*lead, *(e.end for e in edges)])


@rule("sequenceRepeat")
def _repeat(n: Network, layer: Layer) -> Value:
    count = max(int(layer.params.count), 1)
    x = layer.x
    return x if count == 1 else n.low.one("move", [x], [x.shape[0] * count, *x.shape[1:]], fn="tile")


@rule("reorganizeData")
def _reorganize(n: Network, layer: Layer) -> Value:
    """Space to depth, depth to space, pixel shuffle."""
    x, r = layer.x, max(int(layer.params.block), 1)
    *lead, c, h, w = x.shape
    a = len(lead)
    if layer.params.mode == 0:
        y = n.low.reshape(x, [*lead, c, n.low.divide(h, r), r, n.low.divide(w, r), r])
        y = n.low.transpose(y, [*range(a), a + 2, a + 4, a, a + 1, a + 3])
        return n.low.reshape(y, [*lead, c * (r * r), n.low.divide(h, r), n.low.divide(w, r)])
    k = n.low.divide(c, r * r)
    y = n.low.reshape(x, [*lead, k, r, r, h, w])
    y = n.low.transpose(y, [*range(a), a, a + 3, a + 1, a + 4, a + 2])
    return n.low.reshape(y, [*lead, k, h * r, w * r])


# ---- any number of axes


@rule("transpose")
def _transpose(n: Network, layer: Layer) -> Value:
    return n.low.transpose(layer.x, [int(a) for a in layer.params.axes])


@rule("concatND")
def _concat_nd(n: Network, layer: Layer) -> Value:
    return n.low.concat(layer.inputs, layer.params.axis)


@rule("stack")
def _stack(n: Network, layer: Layer) -> Value:
    axis = layer.params.axis % (layer.x.ndim + 1)
    return n.low.concat([n.low.unsqueeze(v, [axis]) for v in layer.inputs], axis)


@rule("splitND")
def _split_nd(n: Network, layer: Layer) -> tuple[Value, ...]:
    p, axis = layer.params, n.low.axis(layer.x, layer.params.axis)
    count = max(p.count or len(layer.outputs), 1)
    sizes: list[Size] = [int(s) for s in p.sizes] or [n.low.divide(layer.x.shape[axis], count)] * count
    return n.low.split(layer.x, axis, sizes)


@rule("sliceStatic", "sliceDynamic")
def _slice_nd(n: Network, layer: Layer) -> Value:
    p, x = layer.params, layer.x
    begin: Sequence[Size] | None = list(p.begin)
    end: Sequence[Size] | None = list(p.end)
    if layer.type == "sliceDynamic":
        known = [_sizes(v) for v in layer.inputs[1:3]]
        begin = known[0] if known else None
        end = known[1] if len(known) > 1 else list(p.end) or None
    if begin is None or end is None or not len(begin) == len(end) == x.ndim:
        return n.low.one("move", [x], n.declared(layer, "the slice"), fn="slice")
    masks = [
        [bool(m[i]) if i < len(m) else False for i in range(x.ndim)] for m in (p.begin_mask, p.end_mask, p.squeeze)
    ]
    steps = [int(p.stride[i]) if i < len(p.stride) else 1 for i in range(x.ndim)]
    gone = [i for i in range(x.ndim) if masks[2][i]]
    for i in range(x.ndim):
        size = x.shape[i]
        if i in gone:
            x = n.low.slice(x, i, begin[i], size if begin[i] == -1 else begin[i] + 1)
        elif steps[i] > 0:
            x = n.low.slice(x, i, 0 if masks[0][i] else begin[i], size if masks[1][i] else end[i], steps[i])
        else:
            x = n.low.one("move", [x], x.shape, fn="flip", axis=i)
    return n.low.squeeze(x, gone) if gone else x


@rule("sliceBySize")
def _slice_by_size(n: Network, layer: Layer) -> Value:
    p, x = layer.params, layer.x
    axis = n.low.axis(x, p.axis)
    return n.low.one("move", [x], [*x.shape[:axis], int(p.size), *x.shape[axis + 1 :]], fn="slice", axis=axis)


@rule("squeeze")
def _squeeze(n: Network, layer: Layer) -> Value:
    return n.low.squeeze(layer.x, None if layer.params.all else [int(a) for a in layer.params.axes])


@rule("expandDims")
def _expand_dims(n: Network, layer: Layer) -> Value:
    return n.low.unsqueeze(layer.x, [int(a) for a in layer.params.axes])


@rule("flattenTo2D")
def _flatten2d(n: Network, layer: Layer) -> Value:
    axis = layer.params.axis
    axis = axis + layer.x.ndim if axis < 0 else axis
    return n.low.reshape(layer.x, [product(layer.x.shape[:axis]), product(layer.x.shape[axis:])])


@rule("reshapeStatic", "rankPreservingReshape")
def _reshape_static(n: Network, layer: Layer) -> Value:
    shape = [int(s) for s in layer.params.shape]
    return n.low.reshape(layer.x, [layer.x.shape[i] if s == 0 and i < layer.x.ndim else s for i, s in enumerate(shape)])


@rule("reshapeLike")
def _reshape_like(n: Network, layer: Layer) -> Value:
    return n.low.reshape(layer.x, layer.inputs[1].shape)


@rule("reshapeDynamic")
def _reshape_dynamic(n: Network, layer: Layer) -> Value:
    wanted = _sizes(layer.inputs[1]) if len(layer.inputs) > 1 else None
    if wanted is None:
        return n.low.reshape(layer.x, n.declared(layer, "the target shape"))
    return n.low.reshape(
        layer.x, [layer.x.shape[i] if s == 0 and i < layer.x.ndim else s for i, s in enumerate(wanted)]
    )


@rule("broadcastToStatic", "broadcastToLike", "broadcastToDynamic")
def _broadcast(n: Network, layer: Layer) -> Value:
    if layer.type == "broadcastToLike":
        return n.low.expand(layer.x, layer.inputs[1].shape)
    static = layer.type == "broadcastToStatic"
    shape: Sequence[Size] | None = [int(s) for s in layer.params.shape] if static else _sizes(layer.inputs[1])
    return n.low.expand(layer.x, shape if shape is not None else n.declared(layer, "the target shape"))


@rule("tile")
def _tile(n: Network, layer: Layer) -> Value:
    reps = [int(r) for r in layer.params.reps] or [1] * layer.x.ndim
    if len(reps) != layer.x.ndim:
        raise n.low.fail(f"{len(reps)} repeats for {layer.x.ndim} axes")
    shape = [s * r for s, r in zip(layer.x.shape, reps)]
    if all(r == 1 or s == 1 for s, r in zip(layer.x.shape, reps)):
        return n.low.expand(layer.x, shape)
    return n.low.one("move", [layer.x], shape, fn="tile")


@rule("constantPad")
def _constant_pad(n: Network, layer: Layer) -> Value:
    amounts = [int(a) for a in layer.params.amounts]
    if layer.params.to_size or len(layer.inputs) > 1 or len(amounts) != 2 * layer.x.ndim:
        return n.low.one("move", [layer.x], n.declared(layer, "the padding"), fn="pad")
    return n.low.pad(layer.x, amounts[::2], amounts[1::2])


# ---- constants and shapes


@rule("loadConstant", "loadConstantND")
def _constant(n: Network, layer: Layer) -> Value:
    shape = [int(s) for s in layer.params.shape]
    value = n.weight(layer, "data", layer.params.data, shape, parameter=False)
    return value if layer.type == "loadConstantND" or len(shape) != 3 else n.low.reshape(value, [1, *shape])


@rule("getShape")
def _get_shape(n: Network, layer: Layer) -> Value:
    return n.low.constant(array(list(layer.x.shape)), "int32")


@rule("fillLike", "randomNormalLike", "randomUniformLike", "randomBernoulliLike")
def _fill_like(n: Network, layer: Layer) -> Value:
    return n.low.emit("fill", [], [layer.x.shape], ["f32"], fn="random" if "random" in layer.type else "constant")[0]


@rule("fillStatic", "randomNormalStatic", "randomUniformStatic", "randomBernoulliStatic", "fillDynamic",
      "randomNormalDynamic", "randomUniformDynamic", "randomBernoulliDynamic")  # fmt: skip
def _fill(n: Network, layer: Layer) -> Value:
    known: Sequence[Size] | None = (
        [int(s) for s in layer.params.shape] if layer.type.endswith("Static") else _sizes(layer.x)
    )
    shape = known if known is not None else n.declared(layer, "the shape")
    return n.low.emit("fill", [], [shape], ["f32"], fn="random" if "random" in layer.type else "constant")[0]


@rule("rangeStatic", "rangeDynamic")
def _range(n: Network, layer: Layer) -> Value:
    p = layer.params
    known = _sizes(layer.x) if layer.type == "rangeDynamic" else None
    end: Any = known[0] if known else p.end if layer.type == "rangeStatic" else None
    step = float(p.step) or 1.0
    if not isinstance(end, (int, float)):
        return n.low.emit("fill", [], [n.declared(layer, "the range")], ["f32"], fn="arange")[0]
    count = max(int(-(-(end - float(p.start)) // step)), 0)
    if count > 4096:
        return n.low.emit("fill", [], [[count]], ["f32"], fn="arange")[0]
    return n.low.constant(array([float(p.start) + step * i for i in range(count)]), "f32")


# ---- gathers and moves


@rule("gather")
def _gather(n: Network, layer: Layer) -> Value:
    return n.low.take(layer.x, layer.inputs[1], layer.params.axis)


@rule("gatherND")
def _gather_nd(n: Network, layer: Layer) -> Value:
    x, indices = layer.inputs[:2]
    depth = indices.shape[-1]
    if not isinstance(depth, int):
        raise n.low.fail(f"indices of {show(indices.shape)}")
    return n.low.one("move", [x, indices], [*indices.shape[:-1], *x.shape[depth:]], fn="gather")


@rule("gatherAlongAxis")
def _gather_along(n: Network, layer: Layer) -> Value:
    return n.low.one("move", layer.inputs[:2], layer.inputs[1].shape, layer.x.format, fn="gather")


@rule("scatter", "scatterND", "scatterAlongAxis", "reverse", "reverseSeq", "matrixBandPart", "lowerTriangular",
      "upperTriangular", "argSort")  # fmt: skip
def _move(n: Network, layer: Layer) -> Value:
    kept = {"reverse": "flip", "reverseSeq": "flip", "argSort": "sort"}
    triangles = ("matrixBandPart", "lowerTriangular", "upperTriangular")
    fn = kept.get(layer.type, "tril" if layer.type in triangles else "scatter")
    return n.low.one("move", layer.inputs, layer.x.shape, layer.x.format, fn=fn)


@rule("oneHot")
def _one_hot(n: Network, layer: Layer) -> Value:
    p, x = layer.params, layer.x
    depth: Size = int(p.depth) if p.depth else (_sizes(layer.inputs[1]) or [1])[0] if len(layer.inputs) > 1 else 1
    axis = p.axis % (x.ndim + 1)
    return n.low.one("move", [x], [*x.shape[:axis], depth, *x.shape[axis:]], "f32", fn="one_hot")


@rule("slidingWindows")
def _sliding(n: Network, layer: Layer) -> Value:
    p, x = layer.params, layer.x
    axis, size = n.low.axis(x, p.axis), layer.x.shape[n.low.axis(layer.x, p.axis)]
    count = n.low.conv_size(size, max(p.window, 1), max(p.step, 1), (0, 0), 1)
    return n.low.one("move", [x], [*x.shape[:axis], count, int(p.window), *x.shape[axis + 1 :]], fn="gather")


@rule("whereNonZero", "NonMaximumSuppression", "categoricalDistribution")
def _dependent(n: Network, layer: Layer) -> list[Value]:
    return [
        n.low.one("move", layer.inputs[:2], n.declared(layer, "the result", i), fn=layer.type.lower())
        for i in range(len(layer.outputs))
    ]


@rule("copy")
def _copy(n: Network, layer: Layer) -> Value:
    return layer.x
