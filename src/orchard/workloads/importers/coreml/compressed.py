"""Rules of compressed weights: constexpr_* ops end as one weight with its stored format."""

from __future__ import annotations

from collections.abc import Sequence

from orchard.ir import Size, product
from orchard.workloads.importers.coreml.program import Op, Program, rule
from orchard.workloads.importers.lowering import Value, show

# ---- compressed weights


@rule("constexpr_lut_to_dense")
def _lut(c: Program, op: Op) -> Value:
    """Indices into look-up tables. iOS16: flat indices and a shape; iOS18: tables [groups..., 2^bits, vector]."""
    lut = op["lut"]
    given = op.ints("shape")
    if given is not None:
        entries = lut.elements
        bits = log2(entries)
        return c.compressed(op, f"pal{bits}", given, "indices", "lut")
    indices = op["indices"]
    vector = lut.shape[-1] if isinstance(lut.shape[-1], int) else 1
    if lut.ndim < 2:
        raise c.low.fail(f"a look-up table of shape {show(lut.shape)}, expected entries and vector last")
    bits = log2(lut.shape[-2])
    shape = c.declared(op) or indices.shape
    groups = product(lut.shape[:-2])
    by_rows = lut.ndim < 3 or groups == lut.shape[0]
    suffix = group_suffix(shape, groups) if by_rows else f"-t{groups}"
    name = f"pal{bits}{suffix}" + (f"-v{vector}" if vector > 1 else "") + ("-s" if _scaled(c, lut) else "")
    return c.compressed(op, name, shape, "indices", "lut")


def _scaled(c: Program, lut: Value) -> bool:
    """Whether the tables of f16 have a scale of their own, as `enable_per_channel_scale` writes them."""
    known = c.stored.get(id(lut))
    elements = lut.elements
    return known is not None and isinstance(elements, int) and known[1] > 2 * elements


def log2(entries: Size) -> int:
    bits = max(int(entries).bit_length() - 1, 1) if isinstance(entries, int) else 4
    return bits if bits in (1, 2, 3, 4, 6, 8) else 8


def group_suffix(shape: Sequence[Size], groups: Size) -> str:
    rows = shape[0] if shape else 1
    if not isinstance(groups, int) or not isinstance(rows, int) or groups <= 1:
        return ""
    return "-channel" if groups >= rows else f"-g{rows // groups}"


@rule("constexpr_blockwise_shift_scale")
def _blockwise(c: Program, op: Op) -> Value:
    data, scale = op["data"], op["scale"]
    bits = {"int4": 4, "uint4": 4, "int2": 2, "int3": 3, "int6": 6, "int1": 1}.get(data.format, 8)
    if data.producer is None and data.format.startswith(("pal", "sparse")):  # a palette whose table is scaled again
        return c.compressed(op, data.format, data.shape, "data", "scale", "offset")
    return c.compressed(op, linear_format(bits, data, scale, op.get("offset")), data.shape, "data", "scale", "offset")


def linear_format(bits: int, data: Value, scale: Value, offset: Value | None) -> str:
    """The number format of integers with scales: one, one per output channel, or one per block of inputs.

    A block of a convolution spans all its taps, so its length is the product over all axes but the first.
    """
    asym = "-asym" if offset is not None and offset.elements != 1 else ""
    blocks = [a // b for a, b in zip(data.shape, scale.shape) if isinstance(a, int) and isinstance(b, int) and b]
    inner = product(blocks[1:])
    grouped = any(isinstance(s, int) and s > 1 for s in scale.shape[1:])
    if grouped and isinstance(inner, int) and 1 < inner <= 65536 and bits in (2, 3, 4, 8):
        return f"int{bits}-b{inner}{asym}"
    if scale.elements == 1 or bits not in (2, 3, 4, 6, 8):
        return f"int{bits}"
    return f"int{bits}-channel{asym}"


@rule("constexpr_affine_dequantize")
def _affine(c: Program, op: Op) -> Value:
    data, scale = op["quantized_data"], op.get("scale")
    channel, zero = scale is not None and scale.elements != 1, op.get("zero_point")
    asym = "-asym" if zero is not None and zero.elements != 1 else ""
    format = f"int8-channel{asym}" if channel else "int8"
    return c.compressed(op, format, data.shape, "quantized_data", "scale", "zero_point")


@rule("constexpr_sparse_to_dense")
def _sparse(c: Program, op: Op) -> Value:
    values = op["nonzero_data"]
    mask = op["mask"]
    shape = op.ints("shape") or c.declared(op) or mask.shape
    total, kept = product(shape), values.elements
    share = 1 - kept / total if isinstance(total, int) and isinstance(kept, int) and total else 0.5
    kind = values.format.split("-")[0]
    stored = kind if kind.startswith(("pal", "int")) and kind[3:] in ("1", "2", "3", "4", "6", "8") else "f16"
    return c.compressed(op, f"sparse{min(max(round(100 * share), 1), 99)}-{stored}", shape, "nonzero_data", "mask")


@rule("constexpr_lut_to_sparse")
def _lut_sparse(c: Program, op: Op) -> tuple[Value, Value]:
    """Palettized survivors of pruning: (mask, indices) in, (mask, values) out."""
    lut, values = op["lut"], op["indices_nonzero_data"]
    bits = log2(lut.shape[-2] if lut.ndim >= 2 else lut.elements)
    mask = op["indices_mask"]
    return mask, c.compressed(op, f"pal{bits}", values.shape, "indices_nonzero_data", "lut")


@rule("constexpr_sparse_blockwise_shift_scale")
def _sparse_blockwise(c: Program, op: Op) -> tuple[Value, Value]:
    values = op["nonzero_data"]
    bits = 4 if values.format in ("int4", "uint4") else 8
    kept = values.format if values.format.startswith("pal") else f"int{bits}-channel"
    return op["data_mask"], c.compressed(op, kept, values.shape, "nonzero_data", "scale", "offset")


@rule("constexpr_cast")
def _constexpr_cast(c: Program, op: Op) -> Value:
    source: Value | None = op.get("source_val")
    if source is None:
        raise c.low.fail("a constexpr_cast without a source")
    return c.low.cast(source, c.type_of(op.outputs[0].type, "cast")[1])
