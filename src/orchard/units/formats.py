"""Number formats with their exact size: element bits plus scales, zero points, per-row data and look-up tables.

`bits` counts everything that grows with the number of elements (4.5 for q4_0: 32 4-bit values and one f16 scale).
What grows with rows (a scale per output channel) or with tables (palettes) is kept apart, because its share depends on
the shape; `bytes_of` adds it all up for one tensor.

Families and where their sizes come from:
- plain   IEEE and integer types.
- ggml    block structs of ggml-common.h (llama.cpp); checked in the tests against the gguf package's own table.
- ik      extra types of ik_llama.cpp, from its ggml-common.h; `_r4`/`_r8`/`_r16` forms interleave rows, same bits.
- mlx     affine groups: an f16 scale and an f16 bias per group; mx modes: one 8-bit scale per group, no bias.
- coreml  palettes (look-up tables with 2^n f16 entries), linear int with f16 scales (and zero points), bit-mask sparse.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import lru_cache
from typing import Literal

from orchard.units.errors import FormatError
from orchard.units.suggest import did_you_mean

Family = Literal["plain", "ggml", "ik", "mlx", "coreml"]
Kind = Literal["float", "int", "block", "palette", "sparse"]


@dataclass(frozen=True, slots=True, kw_only=True)
class NumberFormat:
    """How one tensor is stored.

    name           canonical name; `number_format(name)` gives it back
    family, kind   who defines it; what it is (block = elements share scales)
    element_bits   bits of one element's code, without scales
    block          elements along the last dim that share one scale (1 = no blocks)
    bits           exact bits per element, scales included, without per-row data and tables
    pads           a short last block is stored whole; False: the last dim must be a multiple of `block`
    row_bits       bits per row (product of all dims but the last) on top, e.g. an f16 scale per output channel
    table_bits     bits of one look-up table, 0 without tables
    rows_per_table output channels that share a table; 0 = one table for the tensor
    """

    name: str
    family: Family
    kind: Kind
    element_bits: Fraction
    bits: Fraction
    block: int = 1
    pads: bool = False
    row_bits: int = 0
    table_bits: int = 0
    rows_per_table: int = 0

    def __post_init__(self) -> None:
        assert self.bits > 0, self.name
        assert self.block >= 1, self.name
        assert self.bits * self.block == int(self.bits * self.block), self.name

    @property
    def is_float(self) -> bool:
        return self.kind == "float"

    @property
    def bytes_per_element(self) -> float:
        """`bits` / 8 as a float, for estimates; `bytes_of` is exact."""
        return float(self.bits) / 8

    def __str__(self) -> str:
        return self.name


def bytes_of(fmt: NumberFormat, shape: Sequence[int]) -> int:
    """Exact bytes of a tensor of `shape` (last dim contiguous; shape () is a scalar).

    Rows are whole bytes. A last dim that is no multiple of a ggml or MLX block raises FormatError (a scheme picks a
    fallback before that); Core ML formats store the short block whole. One table per `rows_per_table` rows.
    """
    for size in shape:
        if not isinstance(size, int) or isinstance(size, bool) or size < 0:
            raise FormatError(f"{fmt.name}: shape {tuple(shape)} has size {size!r}, expected whole numbers >= 0")
    rows = 1
    for size in shape[:-1]:
        rows *= size
    columns = shape[-1] if shape else 1
    if rows == 0 or columns == 0:
        return 0
    if columns % fmt.block and not fmt.pads:
        raise FormatError(
            f"{fmt.name}: last dim of shape {tuple(shape)} is {columns}, expected a multiple of {fmt.block}; "
            f"choose a format with a smaller block"
        )
    if fmt.kind == "sparse":  # mask and survivors are two runs for the whole tensor: nothing is padded
        return -(-int(rows * columns * fmt.bits + rows * fmt.row_bits + fmt.table_bits) // 8)
    blocks = -(-columns // fmt.block)
    row_bytes = -(-int(blocks * fmt.block * fmt.bits + fmt.row_bits) // 8)
    tables = 0 if not fmt.table_bits else 1 if not fmt.rows_per_table else -(-rows // fmt.rows_per_table)
    return rows * row_bytes + -(-tables * fmt.table_bits // 8)


def average_bits(fmt: NumberFormat, shape: Sequence[int]) -> float:
    """Bits per element of one tensor, everything included. Raises FormatError as `bytes_of` does."""
    elements = 1
    for size in shape:
        elements *= size
    return 8 * bytes_of(fmt, shape) / elements if elements else 0.0


def _plain() -> list[NumberFormat]:
    def one(name: str, kind: Kind, bits: int) -> NumberFormat:
        return NumberFormat(name=name, family="plain", kind=kind, element_bits=Fraction(bits), bits=Fraction(bits))

    floats = {"f64": 64, "f32": 32, "tf32": 32, "f16": 16, "bf16": 16, "f8": 8, "f8_e4m3": 8, "f8_e5m2": 8, "f4": 4}
    ints = {"int64": 64, "int32": 32, "int16": 16, "int8": 8, "int6": 6, "int5": 5, "int4": 4, "int3": 3, "int2": 2}
    unsigned = {"uint8": 8, "uint4": 4, "bool": 8, "int1": 1}
    return [one(n, "float", b) for n, b in floats.items()] + [one(n, "int", b) for n, b in {**ints, **unsigned}.items()]


# name: (elements per block, bytes per block, bits of a code)
_GGML: dict[str, tuple[int, int, str]] = {
    "q1_0": (128, 18, "1"), "q2_0": (64, 18, "2"),
    "q4_0": (32, 18, "4"), "q4_1": (32, 20, "4"), "q5_0": (32, 22, "5"), "q5_1": (32, 24, "5"),
    "q8_0": (32, 34, "8"), "q8_1": (32, 36, "8"),
    "q2_k": (256, 84, "2"), "q3_k": (256, 110, "3"), "q4_k": (256, 144, "4"), "q5_k": (256, 176, "5"),
    "q6_k": (256, 210, "6"), "q8_k": (256, 292, "8"),
    "iq1_s": (256, 50, "1.5"), "iq1_m": (256, 56, "1.5"), "iq2_xxs": (256, 66, "2"), "iq2_xs": (256, 74, "2"),
    "iq2_s": (256, 82, "2"), "iq3_xxs": (256, 98, "3"), "iq3_s": (256, 110, "3"), "iq4_nl": (32, 18, "4"),
    "iq4_xs": (256, 136, "4"), "tq1_0": (256, 54, "1.6"), "tq2_0": (256, 66, "2"),
}  # fmt: skip

# name: (elements per block, bytes per block, bytes per row, bits of a code)
_IK: dict[str, tuple[int, int, int, str]] = {
    "q6_0": (32, 26, 0, "6"), "q8_k_r8": (256, 258, 0, "8"), "q8_k_r16": (256, 258, 0, "8"), "q8_kv": (32, 32, 8, "8"),
    "q8_kv_r8": (32, 32, 4, "8"),
    "iq1_s_r4": (32, 6, 2, "1.5"), "iq1_m_r4": (32, 7, 2, "1.5"),
    "iq1_bn": (64, 13, 2, "1.6"), "iq2_bn": (64, 16, 4, "2"),
    "iq2_k": (256, 76, 0, "2"), "iq3_k": (256, 110, 0, "3"), "iq4_k": (256, 144, 0, "4"),
    "iq5_k": (256, 176, 0, "5"), "iq6_k": (256, 212, 0, "6"),
    "iq2_ks": (256, 70, 2, "2"), "iq2_kl": (256, 86, 2, "2.5"), "iq3_ks": (256, 102, 2, "3"),
    "iq4_ks": (256, 136, 4, "4"), "iq4_kss": (256, 128, 4, "4"), "iq5_ks": (256, 168, 4, "5"),
    "iq1_kt": (256, 56, 4, "1.5"), "iq2_kt": (256, 68, 4, "2"), "iq3_kt": (256, 100, 4, "3"),
    "iq4_kt": (256, 128, 4, "4"),
}  # fmt: skip


def _ggml() -> list[NumberFormat]:
    formats = [
        _block(name, "ggml", block, Fraction(size * 8, block), Fraction(code))
        for name, (block, size, code) in _GGML.items()
    ]
    for name, (block, size, row, code) in _IK.items():
        formats.append(_block(name, "ik", block, Fraction(size * 8, block), Fraction(code), row_bits=row * 8))
    # one 8-bit shared exponent per 32 (mxfp4); one 8-bit scale per 16 (nvfp4: ggml packs four in a block of 64)
    formats.append(_block("mxfp4", "ggml", 32, Fraction(17, 4), Fraction(4)))
    formats.append(_block("nvfp4", "ggml", 16, Fraction(9, 2), Fraction(4)))
    formats.append(_block("mxfp8", "mlx", 32, Fraction(33, 4), Fraction(8)))
    return formats


def _block(name: str, family: Family, block: int, bits: Fraction, code: Fraction, *, row_bits: int = 0) -> NumberFormat:
    return NumberFormat(
        name=name, family=family, kind="block", element_bits=code, bits=bits, block=block, row_bits=row_bits
    )


_FIXED: dict[str, NumberFormat] = {f.name: f for f in _plain() + _ggml()}

_ALIASES = {
    "fp64": "f64", "float64": "f64", "double": "f64", "fp32": "f32", "float32": "f32", "float": "f32", "single": "f32",
    "fp16": "f16", "float16": "f16", "half": "f16", "bfloat16": "bf16", "fp8": "f8", "float8": "f8", "fp4": "f4",
    "f8_e4m3fn": "f8_e4m3", "float8_e4m3fn": "f8_e4m3", "float8_e4m3": "f8_e4m3", "float8_e5m2": "f8_e5m2",
    "fp8_e4m3": "f8_e4m3", "fp8_e5m2": "f8_e5m2", "tfloat32": "tf32",
    "i64": "int64", "i32": "int32", "i16": "int16", "i8": "int8", "i4": "int4", "u8": "uint8", "u4": "uint4",
}  # fmt: skip

_MLX_BITS, _MLX_GROUPS = (2, 3, 4, 5, 6, 8), (16, 32, 64, 128)


def _mlx_affine(match: re.Match[str]) -> NumberFormat | None:
    bits, group = int(match["bits"]), int(match["group"] or 64)
    if bits not in _MLX_BITS or group not in _MLX_GROUPS:
        return None
    size = bits + Fraction(32, group)  # f16 scale and f16 bias per group
    return _block(f"int{bits}-g{group}", "mlx", group, size, Fraction(bits))


def _mlx_mx(match: re.Match[str]) -> NumberFormat | None:
    return _FIXED["mxfp8" if match["mode"] == "fp8" else match["mode"]]


def _palette(match: re.Match[str]) -> NumberFormat | None:
    """2^bits table entries of `vector` f16 values each; one index stands for `vector` neighbours along the row.

    `-scale`: and an f16 scale per output channel. `-tN`: N tables in the whole tensor, however they lie (Core ML has tables per
    input channel and tap); `-s`: with an f16 scale per table.
    """
    bits, vector = int(match["bits"]), int(match["vector"] or 1)
    rows, tables = 1 if match["channel"] else int(match["group"] or 0), int(match["tables"] or 1)
    if bits not in (1, 2, 3, 4, 6, 8) or not 1 <= vector <= 16 or rows > 2**20:
        return None
    suffix = "-channel" if rows == 1 else f"-g{rows}" if rows else f"-t{tables}" if match["tables"] else ""
    suffix += (f"-v{vector}" if vector > 1 else "") + (match["scale"] or "") + (match["scaled"] or "")
    size, table = Fraction(bits, vector), 2**bits * vector * 16 + (16 if match["scaled"] else 0)
    return NumberFormat(
        name=f"pal{bits}{suffix}", family="coreml", kind="palette", element_bits=size, bits=size, block=vector,
        pads=True, table_bits=tables * table, rows_per_table=rows, row_bits=16 if match["scale"] else 0,
    )  # fmt: skip


def _linear_channel(match: re.Match[str]) -> NumberFormat | None:
    """Integers with one f16 scale per output channel (w8 is the same thing in Core ML's words); `asym`: a zero point too."""
    bits, asym = int(match["bits"]), match["asym"] is not None
    if bits not in (2, 3, 4, 6, 8):
        return None
    return NumberFormat(
        name=f"int{bits}-channel{'-asym' if asym else ''}", family="coreml", kind="block", element_bits=Fraction(bits),
        bits=Fraction(bits), pads=True, row_bits=16 + (bits if asym else 0),
    )  # fmt: skip


def _linear_block(match: re.Match[str]) -> NumberFormat | None:
    """Integers with one f16 scale per block along the input channels; `asym`: a zero point as wide as the codes too."""
    bits, block, asym = int(match["bits"]), int(match["block"]), match["asym"] is not None
    if bits not in (2, 3, 4, 8) or not 2 <= block <= 65536:
        return None
    size = bits + Fraction(16 + (bits if asym else 0), block)
    fmt = _block(f"int{bits}-b{block}{'-asym' if asym else ''}", "coreml", block, size, Fraction(bits))
    return replace(fmt, pads=True)


def _sparse(match: re.Match[str]) -> NumberFormat | None:
    """A 1-bit mask per element and the survivors: f16, indices into a table, or integers with a scale per channel.

    `sparse75-f16` has 75 % zeros.
    """
    zeros, stored = int(match["zeros"]), match["stored"] or "f16"
    width = 16 if stored == "f16" else int(stored[-1])
    if not 0 < zeros < 100 or width not in (1, 2, 3, 4, 6, 8, 16):
        return None
    bits = 1 + Fraction(100 - zeros, 100) * width
    return NumberFormat(
        name=f"sparse{zeros}-{stored}", family="coreml", kind="sparse", element_bits=Fraction(width), bits=bits,
        block=bits.denominator, pads=True, row_bits=16 if stored.startswith("int") else 0,
        table_bits=2**width * 16 if stored.startswith("pal") else 0,
    )  # fmt: skip


def _interleaved(match: re.Match[str]) -> NumberFormat | None:
    base = _FIXED.get(match["base"])
    if base is None or base.family not in ("ggml", "ik") or not re.fullmatch(r"(i?q|tq|mxfp)\d.*", base.name):
        return None
    return replace(base, name=f"{base.name}_r{match['rows']}", family="ik")


_PATTERNS: tuple[tuple[re.Pattern[str], Callable[[re.Match[str]], NumberFormat | None]], ...] = (
    (re.compile(r"int_?(?P<bits>\d)-g(?P<group>\d{2,3})"), _mlx_affine),
    (re.compile(r"(?:mlx-)?(?P<bits>\d)-?bit(?:-g(?P<group>\d{2,3}))?"), _mlx_affine),
    (re.compile(r"mlx-int(?P<bits>\d)(?:-g(?P<group>\d{2,3}))?"), _mlx_affine),
    (re.compile(r"mlx-(?P<mode>mxfp4|nvfp4|mxfp8|fp8)"), _mlx_mx),
    (
        re.compile(
            r"(?:pal|lut)(?P<bits>\d)(?:-(?:(?P<channel>channel)|g(?P<group>[1-9]\d{0,6})|t(?P<tables>[1-9]\d{0,6})))?"
            r"(?:-v(?P<vector>\d{1,2}))?(?P<scale>-scale)?(?P<scaled>-s)?"
        ),
        _palette,
    ),
    (re.compile(r"(?:int(?P<bits>\d)-channel)(?P<asym>-asym)?"), _linear_channel),
    (re.compile(r"w(?P<bits>\d)(?:-channel)?(?P<asym>-asym)?"), _linear_channel),
    (re.compile(r"(?:int|w)(?P<bits>\d)-b(?P<block>[1-9]\d{0,4})(?P<asym>-asym)?"), _linear_block),
    (re.compile(r"sparse(?P<zeros>\d{1,2})(?:-(?P<stored>f16|(?:pal|int)\d))?"), _sparse),
    (re.compile(r"(?P<base>[a-z0-9_]+?)_r(?P<rows>4|8|16)"), _interleaved),
)  # fmt: skip


def canonical_spelling(name: str) -> str:
    """Lower case, fp16 for float16 and the like, one kind of dash: the spelling the tables of this module use."""
    text = name.strip().lower().replace(" ", "-")
    text = _ALIASES.get(text.replace("-", "_"), text)
    text = re.sub(r"(?<![a-z0-9])fp(16|32)(?![0-9])", r"f\1", text.replace("_fp", "-fp"))
    if re.fullmatch(r"i?q\d-.*|tq\d-.*", text):
        text = text.replace("-", "_")
    return text


@lru_cache(maxsize=1024)
def find_format(name: str) -> NumberFormat | None:
    """The format called `name`, or None. Case does not matter; fp16, float16 and f16 are one."""
    if len(name) > 64:
        return None
    text = canonical_spelling(name)
    if text in _FIXED:
        return _FIXED[text]
    for pattern, build in _PATTERNS:
        match = pattern.fullmatch(text)
        if match is not None and (fmt := build(match)) is not None:
            return fmt
    return None


def number_format(name: str) -> NumberFormat:
    """The format called `name` ("q4_0", "int4-g64", "pal6-g8", "bf16"). Raises FormatError with the nearest names."""
    if not isinstance(name, str):
        raise FormatError(f"number format {name!r} is not a name, expected one such as f16, q4_0, int4-g64 or pal4")
    fmt = find_format(name)
    if fmt is None:
        shown = name if len(name) <= 40 else name[:36] + "..."
        hint = did_you_mean(name, format_names()) or "; expected one such as f16, q4_0, int4-g64 or pal4"
        raise FormatError(f"number format {shown!r} is not known{hint}")
    return fmt


def format_names() -> list[str]:
    """Names to list and to suggest from: every fixed format, and the usual members of the open families."""
    mlx = [f"int{bits}-g{group}" for bits in (2, 3, 4, 6, 8) for group in (32, 64, 128)]
    palettes = [f"pal{bits}" for bits in (1, 2, 3, 4, 6, 8)] + ["pal4-g16", "pal4-channel"]
    others = ["int8-channel", "w8", "int4-b32", "sparse50-f16", "sparse75-f16"]
    return sorted({*_FIXED, *mlx, *palettes, *others})


F32, F16, BF16, INT8 = (_FIXED[n] for n in ("f32", "f16", "bf16", "int8"))
