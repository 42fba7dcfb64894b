"""ONNX rules: constants, shape arithmetic, layout."""

from __future__ import annotations

from typing import Any

from orchard.ir import Size, ceildiv, product, symbol
from orchard.workloads.importers.lowering import SMALL, Value, array, clean_symbol
from orchard.workloads.importers.onnx.reader import Op, Reader, rule
from orchard.workloads.importers.onnx.schema import FORMATS
from orchard.workloads.importers.protowire import Message

# ---- constants and shape arithmetic


@rule("Constant")
def _constant(c: Reader, op: Op) -> Value:
    for key, value in op.attributes.items():
        if key == "value" and isinstance(value, Message):
            return c.initializer(value)
        if key in ("value_int", "value_ints"):
            return c.low.constant(array(value) if isinstance(value, list) else value, "int64")
        if key in ("value_float", "value_floats"):
            return c.low.constant(array(value) if isinstance(value, list) else float(value), "f32")
    raise c.low.fail("a constant that holds no numbers")


@rule("ConstantOfShape")
def _constant_of_shape(c: Reader, op: Op) -> Value:
    shape = c.low.checked(c.sizes(op, 0, "the shape"))
    fill = op.attributes.get("value")
    content = c.initializer(fill) if isinstance(fill, Message) else c.low.constant(0.0, "f32")
    count = product(shape)
    if content.data is not None and isinstance(count, int) and count <= 64:
        item = content.data.reshape(-1)[0]
        return c.low.constant(array([item] * count, [int(s) for s in shape if isinstance(s, int)]), content.format)
    return c.low.emit("fill", [], [shape], [content.format], fn="constant")[0]


@rule("Shape")
def _shape(c: Reader, op: Op) -> Value:
    start = op.number("start")
    end = op.number("end", op[0].ndim)
    return c.low.constant(array(list(op[0].shape)[start:end]), "int64", name="shape")


@rule("Size")
def _size(c: Reader, op: Op) -> Value:
    return c.low.constant(op[0].elements, "int64")


@rule("Range")
def _range(c: Reader, op: Op) -> Value:
    start, limit, step = (op[i].data.reshape(-1)[0] if op[i].data is not None else None for i in range(3))  # type: ignore[union-attr]
    if start is None or limit is None or not isinstance(step, (int, float)) or not step:
        shape = c.declared_shape(op)
        if shape is None:
            raise c.low.fail("a range whose length is computed at run time")
        return c.low.emit("fill", [], [shape], [op[0].format], fn="arange")[0]
    if isinstance(start, (int, float)) and isinstance(limit, (int, float)):
        count = max(int(-(-(limit - start) // step)), 0)
        if count <= SMALL:
            return c.low.constant(array([start + step * i for i in range(count)]), op[0].format)
        return c.low.emit("fill", [], [[count]], [op[0].format], fn="arange")[0]
    return c.low.emit("fill", [], [[ceildiv(limit - start, int(step))]], [op[0].format], fn="arange")[0]


@rule("EyeLike", "RandomNormalLike", "RandomUniformLike", "Multinomial", "Bernoulli")
def _like(c: Reader, op: Op) -> Value:
    fn = "random" if op.type != "EyeLike" else "constant"
    return c.low.emit("fill", [], [op[0].shape], [op[0].format], fn=fn)[0]


@rule("RandomNormal", "RandomUniform")
def _random(c: Reader, op: Op) -> Value:
    return c.low.emit("fill", [], [op.ints("shape") or []], ["f32"], fn="random")[0]


# ---- layout


@rule("Reshape")
def _reshape(c: Reader, op: Op) -> Value:
    x = op[0]
    if op[1].data is None:
        shape = c.declared_shape(op)
        if shape is None:
            raise c.low.fail("the target shape is computed at run time; give fixed input shapes")
        return c.low.reshape(x, shape)
    wanted = c.sizes(op, 1, "the shape")
    zero = op.number("allowzero")
    target = [
        x.shape[i] if isinstance(s, int) and s == 0 and not zero and i < x.ndim else s for i, s in enumerate(wanted)
    ]
    return c.low.reshape(x, target)


@rule("Flatten")
def _flatten(c: Reader, op: Op) -> Value:
    axis = op.number("axis", 1)
    axis = axis + op[0].ndim if axis < 0 else axis
    return c.low.reshape(op[0], [product(op[0].shape[:axis]), product(op[0].shape[axis:])])


@rule("Squeeze")
def _squeeze(c: Reader, op: Op) -> Value:
    return c.low.squeeze(op[0], c.axes(op))


@rule("Unsqueeze")
def _unsqueeze(c: Reader, op: Op) -> Value:
    return c.low.unsqueeze(op[0], c.axes(op) or [])


@rule("Transpose")
def _transpose(c: Reader, op: Op) -> Value:
    perm = op.ints("perm") or list(range(op[0].ndim))[::-1]
    return c.low.transpose(op[0], perm)


@rule("Expand")
def _expand(c: Reader, op: Op) -> Value:
    if op[1].data is None:
        shape = c.declared_shape(op)
        if shape is None:
            raise c.low.fail("the target shape is computed at run time; give fixed input shapes")
        return c.low.expand(op[0], shape)
    wanted = c.sizes(op, 1, "the shape")
    return c.low.expand(op[0], [1 if isinstance(s, int) and s == -1 else s for s in wanted])


@rule("Tile")
def _tile(c: Reader, op: Op) -> Value:
    repeats = c.sizes(op, 1, "repeats")
    shape = [s * r for s, r in zip(op[0].shape, repeats)]
    return op[0] if tuple(shape) == op[0].shape else c.low.one("move", [op[0]], shape, fn="tile")


@rule("Concat")
def _concat(c: Reader, op: Op) -> Value:
    return c.low.concat(op.given(), op.number("axis"))


@rule("Split")
def _split(c: Reader, op: Op) -> tuple[Value, ...]:
    axis = c.low.axis(op[0], op.number("axis"))
    sizes: list[Size] | None = list(op.ints("split") or []) or None
    if sizes is None and op.get(1) is not None:
        sizes = c.sizes(op, 1, "the split")
    if sizes is None:
        count = op.number("num_outputs", len(op.outputs))
        part = ceildiv(op[0].shape[axis], count)
        sizes = [part] * (count - 1)
        rest = op[0].shape[axis]
        for size in sizes:
            rest = rest - size
        sizes.append(rest)
    return c.low.split(op[0], axis, sizes)


@rule("Slice")
def _slice(c: Reader, op: Op) -> Value:
    x = op[0]
    if op.ints("starts") is not None:
        starts: list[Size] = list(op.ints("starts") or [])
        ends: list[Size] = list(op.ints("ends") or [])
        axes = op.ints("axes") or list(range(len(starts)))
        steps = [1] * len(starts)
    else:
        if any(v is not None and v.data is None for v in op.inputs[1:3]):
            shape = c.declared_shape(op)
            if shape is None:
                raise c.low.fail("a slice whose bounds are computed at run time; give fixed input shapes")
            return c.low.one("move", [x], shape, fn="slice")
        starts, ends = c.sizes(op, 1, "starts"), c.sizes(op, 2, "ends")
        axes = c.ints(op, 3, "axes") if op.get(3) is not None else list(range(len(starts)))
        steps = c.ints(op, 4, "steps") if op.get(4) is not None else [1] * len(starts)
    for axis, start, end, step in zip(axes, starts, ends, steps):
        x = c.low.slice(x, axis, start, end, step)
    return x


@rule("Gather")
def _gather(c: Reader, op: Op) -> Value:
    return c.low.take(op[0], op[1], op.number("axis"))


@rule("GatherElements", "ScatterElements", "ScatterND", "Scatter", "ReverseSequence", "Trilu", "TensorScatter")
def _like_operand(c: Reader, op: Op) -> Value:
    shape = op[1].shape if op.type == "GatherElements" else op[0].shape
    fn = "gather" if op.type == "GatherElements" else "tril" if op.type == "Trilu" else "scatter"
    return c.low.one("move", op.given(), shape, fn=fn)


@rule("GatherND")
def _gather_nd(c: Reader, op: Op) -> Value:
    x, indices, batch = op[0], op[1], op.number("batch_dims")
    depth = indices.shape[-1]
    if not isinstance(depth, int):
        raise c.low.fail("GatherND with a symbolic index depth")
    return c.low.one("move", [x, indices], [*indices.shape[:-1], *x.shape[batch + depth :]], fn="gather")


@rule("Pad")
def _pad(c: Reader, op: Op) -> Value:
    x = op[0]
    pads = op.ints("pads") or c.ints(op, 1, "pads")
    axes = c.ints(op, 3, "axes") if op.get(3) is not None else list(range(x.ndim))
    before, after = [0] * x.ndim, [0] * x.ndim
    if len(pads) != 2 * len(axes):
        raise c.low.fail(f"{len(pads)} pads for {len(axes)} axes")
    for i, axis in enumerate(axes):
        before[c.low.axis(x, axis)], after[c.low.axis(x, axis)] = pads[i], pads[i + len(axes)]
    return c.low.pad(x, before, after)


@rule("DepthToSpace", "SpaceToDepth")
def _depth(c: Reader, op: Op) -> Value:
    n, ch, h, w = op[0].shape
    r = op.number("blocksize", 1)
    if op.type == "DepthToSpace":
        y = c.low.reshape(op[0], [n, c.low.divide(ch, r * r), r, r, h, w])
        return c.low.reshape(c.low.transpose(y, [0, 1, 4, 2, 5, 3]), [n, c.low.divide(ch, r * r), h * r, w * r])
    y = c.low.reshape(op[0], [n, ch, c.low.divide(h, r), r, c.low.divide(w, r), r])
    return c.low.reshape(
        c.low.transpose(y, [0, 3, 5, 1, 2, 4]), [n, ch * (r * r), c.low.divide(h, r), c.low.divide(w, r)]
    )


@rule("OneHot")
def _one_hot(c: Reader, op: Op) -> Value:
    depth = c.sizes(op, 1, "depth")[0]
    return c.low.one("move", [op[0]], [*op[0].shape, depth], op[2].format, fn="one_hot")


@rule("NonZero", "Unique", "NonMaxSuppression", "Compress")
def _data_dependent(c: Reader, op: Op) -> Any:
    shape = c.declared_shape(op) or (op[0].ndim, symbol(clean_symbol(f"{op.type.lower()}_{len(c.low.nodes)}")))
    if op.type == "NonMaxSuppression":
        shape = (symbol("selected"), 3)
    if op.type in ("Unique", "Compress"):
        free = symbol(clean_symbol(f"{op.type.lower()}_{len(c.low.nodes)}"))
        axis = c.low.axis(op[0], op.number("axis")) if "axis" in op.attributes else None
        shape = (free,) if axis is None else tuple(free if i == axis else s for i, s in enumerate(op[0].shape))
    c.low.warn(f"{op.type} has a result whose size depends on contents; it is a free symbol")
    format = "int64" if op.type in ("NonZero", "NonMaxSuppression") else op[0].format
    first = c.low.one("move", op.given()[:2], shape, format, fn=op.type.lower())
    rest = [c.low.one("move", [first], [symbol("selected")], "int64", fn="unique") for _ in op.outputs[1:]]
    return [first, *rest]


@rule("CenterCropPad")
def _center_crop_pad(c: Reader, op: Op) -> Value:
    axes = op.ints("axes") or list(range(op[0].ndim))
    shape = list(op[0].shape)
    for axis, size in zip(axes, c.sizes(op, 1, "the shape")):
        shape[c.low.axis(op[0], axis)] = size
    return op[0] if tuple(shape) == op[0].shape else c.low.one("move", [op[0]], shape, fn="pad")


@rule("Col2Im")
def _col2im(c: Reader, op: Op) -> Value:
    """Blocks [n, channels * taps, positions] summed where they overlap."""
    image, block = c.sizes(op, 1, "the image"), c.sizes(op, 2, "the block")
    channels = c.low.divide(op[0].shape[1], product(block))
    return c.low.one("reduce", [op[0]], [op[0].shape[0], channels, *image], fn="sum", window="col2im")


@rule("MaxUnpool")
def _max_unpool(c: Reader, op: Op) -> Value:
    kernel = op.ints("kernel_shape") or []
    stride, pads = op.ints("strides") or [1] * len(kernel), op.ints("pads") or [0] * (2 * len(kernel))
    sizes: list[Size] = [
        (s - 1) * st + k - pads[i] - pads[i + len(kernel)]
        for i, (s, st, k) in enumerate(zip(op[0].shape[2:], stride, kernel))
    ]
    shape = c.sizes(op, 2, "the shape") if op.get(2) is not None else [*op[0].shape[:2], *sizes]
    return c.low.one("move", [op[0], op[1]], shape, fn="scatter")


@rule("BitCast")
def _bit_cast(c: Reader, op: Op) -> Value:
    return c.low.one("move", [op[0]], op[0].shape, FORMATS.get(op.number("to"), op[0].format), fn="cast")
