"""Number formats: exact sizes, against the gguf package and against the definitions written out."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchard.units import FormatError, average_bits, bytes_of, format_names, number_format

# bits per weight as the formats' authors state them
_STATED = {
    "f32": 32, "f16": 16, "bf16": 16, "f8": 8, "int8": 8, "int4": 4, "q4_0": 4.5, "q4_1": 5.0, "q5_0": 5.5,
    "q5_1": 6.0, "q8_0": 8.5, "q2_k": 2.625, "q3_k": 3.4375, "q4_k": 4.5, "q5_k": 5.5, "q6_k": 6.5625,
    "iq1_s": 1.5625, "iq1_m": 1.75, "iq2_xxs": 2.0625, "iq2_xs": 2.3125, "iq2_s": 2.5625, "iq3_xxs": 3.0625,
    "iq3_s": 3.4375, "iq4_nl": 4.5, "iq4_xs": 4.25, "tq1_0": 1.6875, "tq2_0": 2.0625, "mxfp4": 4.25, "nvfp4": 4.5,
    "mxfp8": 8.25, "q6_0": 6.5, "q8_k_r8": 8.0625, "q4_k_r4": 4.5, "q8_0_r8": 8.5, "iq4_xs_r8": 4.25, "iq4_k": 4.5,
    "iq5_k": 5.5, "iq6_k": 6.625, "iq2_k": 2.375, "iq3_k": 3.4375, "iq4_ks": 4.25, "iq4_kss": 4.0, "int4-g64": 4.5,
    "int4-g32": 5.0, "int4-g128": 4.25, "int8-g64": 8.5, "int6-g64": 6.5, "int3-g64": 3.5, "int2-g64": 2.5, "pal4": 4,
    "pal6": 6, "pal1": 1, "pal3-g16": 3, "pal8-channel": 8, "w8": 8, "int8-channel": 8, "int4-b32": 4.5,
    "sparse50-f16": 9, "sparse75-f16": 5,
}  # fmt: skip


@pytest.mark.parametrize(("name", "bits"), _STATED.items())
def test_bits_per_weight(name, bits):
    assert number_format(name).bits == Fraction(bits)


def test_block_sizes_agree_with_the_gguf_package():
    constants = pytest.importorskip("gguf.constants")
    other_names = {"i8": "int8", "i16": "int16", "i32": "int32", "i64": "int64"}
    # gguf counts two f32 in q8_1; ggml's struct has held two f16 since 2023 (36 bytes). It is never a weight format.
    for kind, (block, size) in constants.GGML_QUANT_SIZES.items():
        if kind.name == "Q8_1":
            continue
        fmt = number_format(other_names.get(kind.name.lower(), kind.name))
        assert fmt.bits == Fraction(size * 8, block), kind.name
        assert block % fmt.block == 0, kind.name
        assert bytes_of(fmt, (3, 2 * block)) == 3 * 2 * size, kind.name


@pytest.mark.parametrize("name", format_names())
def test_a_name_gives_itself_back(name):
    fmt = number_format(name)
    assert number_format(fmt.name) is fmt or number_format(fmt.name) == fmt
    assert number_format(name.upper()) == fmt
    assert fmt.bits >= fmt.element_bits or fmt.kind == "sparse"


@pytest.mark.parametrize(
    ("alias", "name"),
    [
        ("fp16", "f16"), ("float16", "f16"), ("Half", "f16"), ("bfloat16", "bf16"), ("FP32", "f32"), ("fp8", "f8"),
        ("mlx-4bit-g64", "int4-g64"), ("mlx-4bit", "int4-g64"), ("4bit", "int4-g64"), ("mlx-8bit-g32", "int8-g32"),
        ("w8", "int8-channel"), ("w4", "int4-channel"), ("pal6", "pal6"), ("lut4", "pal4"),
        ("sparse50_fp16", "sparse50-f16"), ("pal4-g1", "pal4-channel"), ("q4-k", "q4_k"), ("i8", "int8"),
        ("mlx-mxfp4", "mxfp4"), ("mlx-fp8", "mxfp8"),
    ],
)  # fmt: skip
def test_other_spellings(alias, name):
    assert number_format(alias).name == name


@pytest.mark.parametrize(
    ("name", "shape", "size"),
    [
        ("q4_0", (4096, 4096), 4096 * 4096 // 32 * 18),
        ("q6_k", (10, 256), 10 * 210),
        ("f16", (), 2),
        ("f16", (7,), 14),
        ("f16", (0, 5), 0),
        ("int4", (3, 5), 3 * 3),  # a row of five 4-bit values takes three bytes
        ("int4-g64", (2, 128), 2 * (64 + 2 * 4)),  # codes, then scale and bias of two groups
        ("pal4", (64, 100), 64 * 50 + 16 * 2),  # one table of 16 f16 entries
        ("pal4-g16", (64, 100), 64 * 50 + 4 * 16 * 2),  # a table per 16 output channels
        ("pal4-g16", (65, 100), 65 * 50 + 5 * 16 * 2),
        ("pal4-channel", (64, 100), 64 * 50 + 64 * 16 * 2),
        ("pal4-v2", (4, 8), 4 * 2 + 16 * 2 * 2),  # an index per pair, a table of 16 pairs
        ("pal1", (8, 8), 8 + 2 * 2),
        ("int8-channel", (64, 100), 64 * (100 + 2)),
        ("int4-b32", (2, 40), 2 * 2 * (16 + 2)),  # two blocks per row, the second one short but stored whole
        ("sparse75-f16", (2, 16), 2 * 16 * 5 // 8),
        ("iq4_ks", (2, 256), 2 * (136 + 4)),  # the row's own scale
        ("pal6-g8", (128256, 4096), 396_054_528),  # the 396.06 MB head of the ANEMLL bandwidth test
    ],
)
def test_bytes_of_a_tensor(name, shape, size):
    assert bytes_of(number_format(name), shape) == size


def test_average_bits_counts_tables():
    assert average_bits(number_format("pal4-channel"), (64, 100)) == pytest.approx(4 + 256 / 100)
    assert average_bits(number_format("f16"), (0,)) == 0


@given(st.sampled_from(format_names()), st.integers(1, 40), st.integers(1, 8))
def test_bytes_are_at_least_the_bits(name, rows, blocks):
    fmt = number_format(name)
    columns = blocks * fmt.block
    size = bytes_of(fmt, (rows, columns))
    assert size * 8 >= rows * columns * fmt.bits
    tables = rows if fmt.rows_per_table else 1
    assert size * 8 < rows * (columns * fmt.bits + fmt.row_bits + 8) + tables * fmt.table_bits + 8
    assert bytes_of(fmt, (2, rows, columns)) >= size


def test_a_row_that_does_not_divide_is_refused():
    with pytest.raises(FormatError) as caught:
        bytes_of(number_format("q4_k"), (10, 2880))
    assert str(caught.value) == (
        "q4_k: last dim of shape (10, 2880) is 2880, expected a multiple of 256; choose a format with a smaller block"
    )


@pytest.mark.parametrize("shape", [(-1, 4), (2.0, 4), ("2", 4), (True, 4)])
def test_absurd_shapes_are_refused(shape):
    with pytest.raises(FormatError, match="whole numbers >= 0"):
        bytes_of(number_format("f16"), shape)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("q4_kk", "did you mean q4_k"),
        ("int4-g48", "number format 'int4-g48' is not known; did you mean"),
        ("f17", "did you mean"),
        ("", "expected one such as f16, q4_0, int4-g64 or pal4"),
        ("w" * 10_000, "expected one such as"),
        ("pal5", "not known"),
        ("sparse0", "not known"),
        ("f16_r4", "not known"),
        (None, "is not a name"),
    ],
)
def test_unknown_names(name, message):
    with pytest.raises(FormatError) as caught:
        number_format(name)
    assert message in str(caught.value)
    assert len(str(caught.value)) < 200
