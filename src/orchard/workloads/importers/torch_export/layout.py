"""torch rules: layout."""

from __future__ import annotations

from typing import Any

from orchard.ir import Attribute, Size
from orchard.workloads.importers.lowering import Value, is_float
from orchard.workloads.importers.torch_export.program import LARGE_INDEX, Args, Program, rule

# ---- rules: layout


@rule(
    "aten.view", "aten.reshape", "aten._unsafe_view", "aten.unsqueeze", "aten.squeeze", "aten.flatten",
    "aten.unflatten",
    "aten._reshape_alias", "aten._reshape_copy", "aten.view_as", "aten.reshape_as", "aten.ravel", "aten.view_copy",
    "aten.atleast_1d", "aten.atleast_2d",
)  # fmt: skip
def _reshape(p: Program, a: Args) -> Value:
    x = p.value(next(iter(a.values())))
    if x.format != p.out_format():
        return (
            p.low.one("view", [x], p.out_shape(), p.out_format())
            if _bits(x) == _bits_of(p)
            else p.low.cast(x, p.out_format())
        )
    return p.low.reshape(x, p.out_shape())


def _bits(x: Value) -> int:
    from orchard.units import number_format

    return int(number_format(x.format).bits)


def _bits_of(p: Program) -> int:
    from orchard.units import number_format

    return int(number_format(p.out_format()).bits)


@rule(
    "aten.permute",
    "aten.transpose",
    "aten.t",
    "aten.movedim",
    "aten.numpy_T",
    "aten.swapaxes",
    "aten.swapdims",
    "aten.mT",
    "aten.moveaxis",
)
def _permute(p: Program, a: Args) -> Value:
    x = a["self"]
    if "dims" in a and a["dims"] is not None:
        return p.low.transpose(x, a["dims"])
    if "source" in a:
        source, destination = (ints(a[k]) for k in ("source", "destination"))
        order = [i for i in range(x.ndim) if i not in {s % x.ndim for s in source}]
        for to, what in sorted(zip((d % x.ndim for d in destination), (s % x.ndim for s in source))):
            order.insert(to, what)
        return p.low.transpose(x, order)
    if "dim0" in a or "axis0" in a:
        first, second = (a[f"dim{i}"] if f"dim{i}" in a else a[f"axis{i}"] for i in (0, 1))
        return p.low.swap(x, first, second)
    if x.ndim < 2:
        return x  # type: ignore[no-any-return]
    return p.low.transpose(x, list(range(x.ndim))[::-1]) if p.kind(p.node) != "aten.mT" else p.low.swap(x, -1, -2)


def ints(value: Any) -> list[int]:
    return [int(v) for v in value] if isinstance(value, (list, tuple)) else [int(value)]


def spread(value: Any, d: int) -> list[int]:
    items = ints(value) if value not in (None, []) else []
    return items * d if len(items) == 1 else items


@rule("aten.expand", "aten.broadcast_to", "aten.expand_as", "aten.expand_copy")
def _expand(p: Program, a: Args) -> Value:
    return p.low.expand(a["self"], p.out_shape())


@rule("aten.repeat", "aten.tile")
def _repeat(p: Program, a: Args) -> Value:
    return move(p, "tile", a["self"])


@rule("aten.repeat_interleave")
def _repeat_interleave(p: Program, a: Args) -> Value:
    """Heads repeated along an axis: expand on a new axis behind it, then merge; the same form repeat_kv has."""
    x, repeats, axis = a.get("self"), a.get("repeats"), a.get("dim")
    if not isinstance(repeats, int) or axis is None or not isinstance(x, Value):
        return move(p, "tile", *[v for v in (x, repeats) if isinstance(v, Value)])
    at = p.low.axis(x, axis)
    wide = p.low.expand(p.low.unsqueeze(x, [at + 1]), [*x.shape[: at + 1], repeats, *x.shape[at + 1 :]])
    return p.low.reshape(wide, p.out_shape())


def move(p: Program, fn: str, *inputs: Value, **attrs: Attribute) -> Value:
    return p.low.one("move", list(inputs), p.out_shape(), p.out_format(), fn=fn, **attrs)


@rule("aten.cat", "aten.concat", "aten.concatenate")
def _cat(p: Program, a: Args) -> Value:
    return p.low.concat([p.low.cast(v, p.out_format()) for v in a["tensors"]], a.get("dim") or 0)


@rule("aten.stack")
def _stack(p: Program, a: Args) -> Value:
    axis = a["dim"] % (a["tensors"][0].ndim + 1)
    return p.low.concat([p.low.unsqueeze(v, [axis]) for v in a["tensors"]], axis)


@rule("aten.hstack", "aten.vstack", "aten.block_diag", "aten.cartesian_prod", "aten.meshgrid_stack")
def _stack_any(p: Program, a: Args) -> Value:
    return move(p, "concat", *a["tensors"])


@rule("aten.slice", "aten.narrow", "aten.slice_copy")
def _slice(p: Program, a: Args) -> Value:
    x, axis = a["self"], a.get("dim", 0)
    size = x.shape[p.low.axis(x, axis)]
    start = a.get("start") or 0
    if a.get("length") is not None:
        return p.low.slice(x, axis, start, start + a["length"])
    end = a.get("end")
    stop = size if end is None or (isinstance(end, int) and end >= LARGE_INDEX) else end
    return p.low.slice(x, axis, start, stop, a.get("step") or 1)


@rule("aten.select")
def _select(p: Program, a: Args) -> Value:
    x, axis, index = a["self"], a["dim"], a["index"]
    stop = x.shape[p.low.axis(x, axis)] if index == -1 else index + 1
    return p.low.reshape(p.low.slice(x, axis, index, stop), p.out_shape())


@rule(
    "aten.split",
    "aten.split_with_sizes",
    "aten.chunk",
    "aten.tensor_split",
    "aten.split_copy",
    "aten.split_with_sizes_copy",
    "aten.unsafe_split",
    "aten.unsafe_chunk",
)
def _split(p: Program, a: Args) -> tuple[Value, ...]:
    axis = p.low.axis(a["self"], a.get("dim") or 0)
    return p.low.split(a["self"], axis, [p.out_shape(i)[axis] for i in range(len(p.node.meta["val"]))])


@rule("aten.unbind")
def _unbind(p: Program, a: Args) -> tuple[Value, ...]:
    axis = p.low.axis(a["self"], a.get("dim") or 0)
    parts = p.low.split(a["self"], axis, [1] * len(p.node.meta["val"]))
    return tuple(p.low.squeeze(v, [axis]) for v in parts)


@rule("aten.meshgrid")
def _meshgrid(p: Program, a: Args) -> tuple[Value, ...]:
    outs = []
    for i, tensor in enumerate(a["tensors"]):
        shape: list[Size] = [1] * len(a["tensors"])
        position = {0: 1, 1: 0}.get(i, i) if a.get("indexing") == "xy" else i
        shape[position] = tensor.elements
        outs.append(p.low.expand(p.low.reshape(tensor, shape), p.out_shape(i)))
    return tuple(outs)


@rule("aten.pad", "aten.constant_pad_nd", "aten.reflection_pad1d", "aten.reflection_pad2d", "aten.replication_pad1d",
      "aten.replication_pad2d", "aten.replication_pad3d", "aten.reflection_pad3d", "aten.zero_pad2d")  # fmt: skip
def _pad(p: Program, a: Args) -> Value:
    x = a["self"]
    if tuple(p.out_shape()) == x.shape:
        return x  # type: ignore[no-any-return]
    amounts = a.get("pad") or a.get("padding")
    if isinstance(amounts, list) and all(isinstance(v, int) for v in amounts):
        before, after = [0] * x.ndim, [0] * x.ndim
        for i in range(len(amounts) // 2):
            before[x.ndim - 1 - i], after[x.ndim - 1 - i] = amounts[2 * i], amounts[2 * i + 1]
        if min(*before, *after, 0) >= 0:
            return p.low.pad(x, before, after)
    return move(p, "pad", x)


@rule("aten.flip", "aten.roll", "aten.rot90")
def _roll(p: Program, a: Args) -> Value:
    return move(p, "roll" if p.kind(p.node) == "aten.roll" else "flip", a["self"])


@rule("aten.unfold", "aten.im2col", "aten.col2im", "aten.as_strided", "aten.diagonal", "aten.diag", "aten.diag_embed",
      "aten.pixel_shuffle", "aten.pixel_unshuffle", "aten.channel_shuffle", "aten.tril_",
      "aten.unfold_copy")  # fmt: skip
def _rearrange(p: Program, a: Args) -> Value:
    x = p.value(next(iter(a.values())))
    kind = p.kind(p.node).split(".")[-1]
    if kind == "pixel_shuffle":
        *lead, c, h, w = x.shape
        r = a["upscale_factor"]
        y = p.low.reshape(x, [*lead, p.low.divide(c, r * r), r, r, h, w])
        n = len(lead)
        return p.low.reshape(p.low.transpose(y, [*range(n + 1), n + 3, n + 1, n + 4, n + 2]), p.out_shape())
    return move(p, kind, x)


@rule("aten.index", "aten.index_select", "aten.gather", "aten.take_along_dim", "aten._unsafe_index",
      "aten.masked_select",
      "aten.take", "aten._index_put_impl", "aten.nonzero_static")  # fmt: skip
def _index(p: Program, a: Args) -> Value:
    x = a["self"]
    indices = a.get("indices", a.get("index"))
    listed = indices if isinstance(indices, list) else [indices]
    tensors = [v for v in listed if isinstance(v, Value)]
    axis = a.get("dim", 0) if p.kind(p.node) == "aten.index_select" else 0
    leading = (isinstance(indices, list) and len(listed) == 1) or p.kind(p.node) == "aten.index_select"
    rows = leading and len(tensors) == 1 and axis == 0 and is_int(tensors[0])
    if rows and p.out_shape() == (*tensors[0].shape, *x.shape[1:]):
        return p.low.take(x, tensors[0], 0)
    return move(p, "gather", x, *tensors)


def is_int(value: Value) -> bool:
    return not is_float(value.format) and value.format != "bool"


@rule("aten.index_put", "aten.scatter", "aten.scatter_add", "aten.index_copy", "aten.slice_scatter",
      "aten.select_scatter",
      "aten.index_add", "aten.scatter_reduce", "aten.masked_scatter", "aten.index_fill", "aten.diagonal_scatter",
      "aten._unsafe_index_put")  # fmt: skip
def _scatter(p: Program, a: Args) -> Value:
    tensors = [v for v in p._flatten(list(a.values())) if isinstance(v, Value)]
    return move(p, "scatter", *tensors)


@rule("aten.embedding")
def _embedding(p: Program, a: Args) -> Value:
    return p.low.take(a["weight"], a["indices"], 0)


@rule("aten.one_hot", "aten.bucketize", "aten.searchsorted")
def _one_hot(p: Program, a: Args) -> Value:
    return move(p, p.kind(p.node).split(".")[-1], *[v for v in a.values() if isinstance(v, Value)])
