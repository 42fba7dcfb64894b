"""Quantities: what is read, what is refused and with which words, and what is printed."""

import contextlib
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchard.units import (
    DIMENSIONS,
    UnitError,
    format_bytes,
    format_count,
    format_hertz,
    format_joules,
    format_ops_rate,
    format_quantity,
    format_rate,
    format_seconds,
    format_watts,
    parse_bytes,
    parse_count,
    parse_quantity,
    unit_to_si,
)  # fmt: skip


@pytest.mark.parametrize(
    ("text", "dimension", "value"),
    [
        ("800GB/s", "bytes_per_s", 800e9),
        ("800 gb/s", "bytes_per_s", 800e9),
        ("1GiB/s", "bytes_per_s", 2**30),
        ("1.4GHz", "hz", 1.4e9),
        ("6400MT/s", "hz", 6.4e9),
        ("96GiB", "bytes", 96 * 2**30),
        ("12 MiB", "bytes", 12 * 2**20),
        ("1kB", "bytes", 1000),
        ("512bit", "bytes", 64),
        ("20us", "s", 20e-6),
        ("20 µs", "s", 20e-6),
        ("50pJ", "j", 50e-12),
        ("50pJ/B", "j_per_byte", 50e-12),
        ("0.6pJ/MAC", "j_per_op", 0.3e-12),  # 1 MAC = 2 ops
        ("200GFLOP/s/W", "ops_per_j", 200e9),
        ("3.2TFLOPS", "ops_per_s", 3.2e12),
        ("3.2TFLOP/s", "ops_per_s", 3.2e12),
        ("38 TOPS", "ops_per_s", 38e12),
        ("256 FLOP/cycle", "ops", 256),
        ("256MAC/cycle", "ops", 512),
        ("85%", "fraction", 0.85),
        ("120mm2", "m2", 120e-6),
        ("1_000", "count", 1000),
        ("1e3", "count", 1000),
        (40, "count", 40),
        (1.5e9, "hz", 1.5e9),
    ],
)
def test_reads(text, dimension, value):
    assert parse_quantity(text, dimension) == pytest.approx(value, rel=1e-12)


@pytest.mark.parametrize(
    ("text", "dimension", "message"),
    [
        ("80 GBs", "bytes_per_s", "x: unit 'GBs' in '80 GBs' is not known, expected a unit as in 800GB/s"),
        ("1.4GHy", "hz", "did you mean GHz"),
        ("5GHz", "bytes", "x: got '5GHz', which is in 1/s, expected in byte such as 12MiB"),
        ("40W", "j", "x: got '40W', which is a power (W), expected in J such as 50pJ"),
        ("nan", "hz", "x: got 'nan', expected a number with a unit such as 1.4GHz"),
        ("inf", "hz", "expected a number"),
        ("1e999", "s", "x: got '1e999', expected a finite number"),
        (math.nan, "s", "x: got nan, expected a finite number"),
        (math.inf, "s", "expected a finite number"),
        (10**400, "s", "expected a finite number"),
        ("1e1000000000", "s", "is not known"),
        ("-3s", "s", "x: got '-3s', expected >= 0 such as 20us"),
        ("", "s", "x: got '', expected a number"),
        ("GB", "bytes", "expected a number"),
        ("x" * 100_000, "s", "x: got 100000 characters"),
        ("9" * 64 + "9", "s", "65 characters"),
        (True, "count", "x: got True, expected a quantity"),
        (None, "count", "x: got None, expected a quantity"),
        ([1], "count", "expected a quantity"),
        ("1GiB/s/s", "bytes", "byte/s^2"),
    ],
)
def test_refuses(text, dimension, message):
    with pytest.raises(UnitError) as caught:
        parse_quantity(text, dimension, where="x")
    assert message in str(caught.value)
    assert len(str(caught.value)) < 200
    assert "\n" not in str(caught.value)


def test_zero_is_refused_where_it_makes_no_sense():
    assert parse_quantity("0GHz", "hz") == 0
    with pytest.raises(UnitError, match="expected > 0"):
        parse_quantity("0GHz", "hz", positive=True)


def test_whole_numbers():
    assert parse_bytes("1.5KiB") == 1536
    assert parse_count("40") == 40
    with pytest.raises(UnitError, match="whole number of bytes"):
        parse_bytes("1.3B")
    with pytest.raises(UnitError, match="whole number"):
        parse_count("1.5")


def test_units_of_the_chip_files():
    assert unit_to_si("GB/s") == (1e9, "bytes_per_s")
    assert unit_to_si("TFLOPS") == (1e12, "ops_per_s")
    assert unit_to_si("FLOP/cycle") == (1.0, "ops")
    assert unit_to_si("MT/s") == (1e6, "hz")
    with pytest.raises(UnitError, match="which no quantity here has"):
        unit_to_si("GB/s/s")


@pytest.mark.parametrize(
    ("got", "expected"),
    [
        (format_bytes(12.55 * 2**30), "12.6 GiB"),
        (format_bytes(1023), "1,023 B"),
        (format_bytes(0), "0 B"),
        (format_bytes(18.557e9, binary=False), "18.6 GB"),
        (format_seconds(20e-6), "20 us"),
        (format_seconds(0.00456), "4.56 ms"),
        (format_seconds(5400), "5,400 s"),
        (format_seconds(7200 * 3), "6 h"),
        (format_rate(819.2e9), "819 GB/s"),
        (format_rate(1.2288e12), "1.23 TB/s"),
        (format_ops_rate(10.6e12), "10.6 Top/s"),
        (format_hertz(1.398e9), "1.4 GHz"),
        (format_joules(0.98), "980 mJ"),
        (format_watts(6.579), "6.58 W"),
        (format_count(151936), "151,936"),
        (format_count(8.03e9), "8.03 G"),
        (format_quantity(50e-12, "j_per_byte"), "50 pJ/B"),
    ],
)
def test_prints(got, expected):
    assert got == expected


@given(st.floats(min_value=0, max_value=1e30, allow_nan=False), st.sampled_from(sorted(DIMENSIONS)))
def test_a_plain_number_is_already_si(value, dimension):
    assert parse_quantity(value, dimension) == value
    assert parse_quantity(repr(value), dimension) == pytest.approx(value)


@given(st.text(max_size=80))
def test_any_text_is_a_value_or_a_unit_error(text):
    with contextlib.suppress(UnitError):
        value = parse_quantity(text, "bytes_per_s")
        assert math.isfinite(value)
        assert value >= 0


@given(st.floats(min_value=1e-9, max_value=1e15))
def test_printed_bytes_are_within_half_a_percent(value):
    number, unit = format_bytes(value).split()
    assert parse_quantity(number.replace(",", "") + unit, "bytes") == pytest.approx(value, rel=5e-3)
