"""ML program rules: layout."""

from __future__ import annotations

from orchard.ir import Size, product
from orchard.workloads.importers.coreml.program import Op, Program, rule
from orchard.workloads.importers.lowering import Value
from orchard.workloads.importers.protowire import Message

# ---- layout


@rule("reshape")
def _reshape(c: Program, op: Op) -> Value:
    declared = c.declared(op)
    if declared is not None:
        return c.low.reshape(op["x"], declared)
    wanted = op.literal("shape")
    if wanted is None:
        raise c.low.fail("the target shape is computed at run time; convert with fixed shapes")
    return c.low.reshape(op["x"], [op["x"].shape[i] if s == 0 else s for i, s in enumerate(wanted)])


@rule("reshape_like")
def _reshape_like(c: Program, op: Op) -> Value:
    return c.low.reshape(op["x"], c.need_shape(op, "the shape"))


@rule("transpose")
def _transpose(c: Program, op: Op) -> Value:
    return c.low.transpose(op["x"], op.ints("perm") or [])


@rule("expand_dims")
def _expand_dims(c: Program, op: Op) -> Value:
    return c.low.unsqueeze(op["x"], op.ints("axes") or [0])


@rule("squeeze")
def _squeeze(c: Program, op: Op) -> Value:
    return c.low.squeeze(op["x"], op.ints("axes"))


@rule("flatten2d")
def _flatten(c: Program, op: Op) -> Value:
    axis = op.int("axis", 1)
    x = op["x"]
    return c.low.reshape(x, [product(x.shape[:axis]), product(x.shape[axis:])])


@rule("concat")
def _concat(c: Program, op: Op) -> Value:
    return c.low.concat(op.values("values"), op.int("axis", 0))


@rule("stack")
def _stack(c: Program, op: Op) -> Value:
    values = op.values("values")
    axis = op.int("axis", 0) % (values[0].ndim + 1)
    return c.low.concat([c.low.unsqueeze(v, [axis]) for v in values], axis)


@rule("split")
def _split(c: Program, op: Op) -> tuple[Value, ...]:
    axis = c.low.axis(op["x"], op.int("axis", 0))
    sizes: list[Size] = list(op.ints("split_sizes") or [])
    if not sizes:
        count = max(op.int("num_splits", len(op.outputs)), 1)
        sizes = [c.low.divide(op["x"].shape[axis], count)] * count
    return c.low.split(op["x"], axis, sizes)


@rule("slice_by_index")
def _slice(c: Program, op: Op) -> Value:
    x = op["x"]
    begin, end = op.literal("begin"), op.literal("end")
    if begin is None or end is None or len(begin) != x.ndim or len(end) != x.ndim:
        return c.low.one("move", [x], c.need_shape(op, "the slice"), fn="slice")
    stride = op.ints("stride") or [1] * x.ndim
    masks = [op.ints(n) or [0] * x.ndim for n in ("begin_mask", "end_mask", "squeeze_mask")]
    gone = [i for i in range(x.ndim) if masks[2][i]]
    for i in range(x.ndim):
        size = x.shape[i]
        if i in gone:
            stop: Size = size if begin[i] == -1 else begin[i] + 1
            x = c.low.slice(x, i, begin[i], stop)
        elif stride[i] > 0:
            x = c.low.slice(x, i, 0 if masks[0][i] else begin[i], size if masks[1][i] else end[i], stride[i])
        else:
            x = c.low.one("move", [x], x.shape, fn="flip", axis=i)
    return c.low.squeeze(x, gone) if gone else x


@rule("slice_by_size")
def _slice_by_size(c: Program, op: Op) -> Value:
    x, begin, size = op["x"], op.literal("begin"), op.ints("size")
    if begin is None or size is None:
        return c.low.one("move", [x], c.need_shape(op, "the slice"), fn="slice")
    for i, (start, count) in enumerate(zip(begin, size)):
        x = c.low.slice(x, i, start, x.shape[i] if count == -1 else start + count)
    return x


@rule("slice_update")
def _slice_update(c: Program, op: Op) -> Value:
    x, update = op["x"], op["update"]
    if x.ndim == update.ndim:
        return c.low.one("update", [x, update], x.shape)
    return c.low.one("move", [x, update], x.shape, fn="scatter")


@rule("read_state")
def _read_state(c: Program, op: Op) -> Value:
    return op["input"]


@rule("coreml_update_state")
def _update_state(c: Program, op: Op) -> Value:
    c.write_state(op["state"], op["value"])
    return op["value"]


@rule("write_state")
def _write_state(c: Program, op: Op) -> list[Value]:
    c.write_state(op["input"], op["data"])
    return []


@rule("pad")
def _pad(c: Program, op: Op) -> Value:
    x, amounts = op["x"], op.ints("pad")
    if amounts is None or min(amounts, default=0) < 0 or len(amounts) > 2 * x.ndim:
        return c.low.one("move", [x], c.need_shape(op, "the padding"), fn="pad")
    pairs = [(0, 0)] * (x.ndim - len(amounts) // 2) + list(zip(amounts[::2], amounts[1::2]))
    return c.low.pad(x, [b for b, _ in pairs], [a for _, a in pairs])


@rule("tile")
def _tile(c: Program, op: Op) -> Value:
    x, reps = op["x"], op.literal("reps")
    if reps is None:
        return c.low.one("move", [x], c.need_shape(op, "the repeats"), fn="tile")
    shape = [s * r for s, r in zip(x.shape, reps)]
    if all(r == 1 or s == 1 for s, r in zip(x.shape, reps)):
        return c.low.expand(x, shape)
    return c.low.one("move", [x], shape, fn="tile")


@rule("gather")
def _gather(c: Program, op: Op) -> Value:
    if op.int("batch_dims", 0):
        return c.low.one("move", [op["x"], op["indices"]], c.need_shape(op, "the gather"), fn="gather")
    return c.low.take(op["x"], op["indices"], op.int("axis", 0))


@rule("gather_along_axis", "gather_nd", "one_hot", "non_zero", "scatter", "scatter_along_axis", "scatter_nd", "reverse",
      "reverse_sequence", "band_part", "sliding_windows", "space_to_batch", "batch_to_space", "crop", "argsort",
      "non_maximum_suppression", "classify", "complex_stft", "complex_fft", "complex_rfft", "complex_irfft", "complex_abs",
      "complex", "complex_real", "complex_imag", "list_gather")  # fmt: skip
def _move(c: Program, op: Op) -> list[Value]:
    fn = {"gather_along_axis": "gather", "gather_nd": "gather", "reverse": "flip"}.get(op.type, op.type.split("_")[0])
    tensors = [
        v
        for k, v in op.operands.items()
        if isinstance(v, Value)
        and k in ("x", "data", "indices", "updates", "boxes", "scores", "input", "real_data", "imag_data")
    ]
    made = []
    for index, declared in enumerate(op.outputs):
        shape, format = self_type(c, declared)
        if shape is None:
            shape = (
                tensors[0].shape
                if op.type
                in (
                    "reverse",
                    "band_part",
                    "scatter",
                    "scatter_along_axis",
                    "scatter_nd",
                    "argsort",
                    "reverse_sequence",
                )
                else c.need_shape(op, "the result", index)
            )
        made.append(c.low.one("move", tensors, shape, format, fn=fn))
    return made


def self_type(c: Program, declared: Message) -> tuple[tuple[Size, ...] | None, str]:
    return c.type_of(declared.type, declared.name)


@rule("pixel_shuffle", "pixel_unshuffle", "depth_to_space", "space_to_depth")
def _shuffle(c: Program, op: Op) -> Value:
    x = op["x"]
    n, ch, h, w = x.shape
    r = op.int("upscale_factor", op.int("downscale_factor", op.int("block_size", 1)))
    if op.type in ("pixel_shuffle", "depth_to_space"):
        k = c.low.divide(ch, r * r)
        y = c.low.reshape(x, [n, k, r, r, h, w])
        return c.low.reshape(c.low.transpose(y, [0, 1, 4, 2, 5, 3]), [n, k, h * r, w * r])
    y = c.low.reshape(x, [n, ch, c.low.divide(h, r), r, c.low.divide(w, r), r])
    return c.low.reshape(
        c.low.transpose(y, [0, 1, 3, 5, 2, 4]), [n, ch * (r * r), c.low.divide(h, r), c.low.divide(w, r)]
    )
