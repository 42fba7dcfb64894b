"""Physical quantities: text to SI floats with a dimension check, and SI floats to text.

A dimension is a product of powers of byte, op, second, joule, metre and kelvin. Counts, cycles, cores and transfers are
plain numbers, so FLOP/cycle x Hz is ops/s. 1 MAC = 2 ops, 1 KiB = 1,024 B, 1 kB = 1 KB = 1,000 B, 1 GB/s = 10^9 B/s.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from orchard.units.errors import UnitError
from orchard.units.suggest import did_you_mean

_MAX_TEXT = 64  # characters; a quantity is never longer
_BASES = ("byte", "op", "s", "J", "m", "K")
_Powers = tuple[int, int, int, int, int, int]

_NONE: _Powers = (0, 0, 0, 0, 0, 0)
_BYTE: _Powers = (1, 0, 0, 0, 0, 0)
_OP: _Powers = (0, 1, 0, 0, 0, 0)
_SECOND: _Powers = (0, 0, 1, 0, 0, 0)
_HERTZ: _Powers = (0, 0, -1, 0, 0, 0)
_JOULE: _Powers = (0, 0, 0, 1, 0, 0)
_WATT: _Powers = (0, 0, -1, 1, 0, 0)
_OPS_PER_S: _Powers = (0, 1, -1, 0, 0, 0)
_BYTES_PER_S: _Powers = (1, 0, -1, 0, 0, 0)
_AREA: _Powers = (0, 0, 0, 0, 2, 0)
_KELVIN: _Powers = (0, 0, 0, 0, 0, 1)


@dataclass(frozen=True, slots=True)
class Dimension:
    """A named dimension: what its SI value is called in names (`_bytes_per_s`), and a spelling people use."""

    name: str
    powers: _Powers
    example: str


DIMENSIONS: dict[str, Dimension] = {
    d.name: d
    for d in (
        Dimension("count", _NONE, "12"),
        Dimension("fraction", _NONE, "0.85 or 85%"),
        Dimension("bytes", _BYTE, "12MiB"),
        Dimension("ops", _OP, "256FLOP"),
        Dimension("s", _SECOND, "20us"),
        Dimension("hz", _HERTZ, "1.4GHz"),
        Dimension("j", _JOULE, "50pJ"),
        Dimension("w", _WATT, "40W"),
        Dimension("bytes_per_s", _BYTES_PER_S, "800GB/s"),
        Dimension("ops_per_s", _OPS_PER_S, "3.2TFLOPS"),
        Dimension("j_per_byte", (-1, 0, 0, 1, 0, 0), "50pJ/B"),
        Dimension("j_per_op", (0, -1, 0, 1, 0, 0), "0.3pJ/FLOP"),
        Dimension("ops_per_j", (0, 1, 0, -1, 0, 0), "200GFLOP/s/W"),
        Dimension("m2", _AREA, "120mm2"),
        Dimension("kelvin", _KELVIN, "300K"),
        Dimension("kelvin_per_w", (0, 0, 1, -1, 0, 1), "0.5K/W"),
        Dimension("j_per_kelvin", (0, 0, 0, 1, 0, -1), "40J/K"),
    )
}


def _unit_table() -> dict[str, tuple[float, _Powers]]:
    """Symbol -> (factor to SI, powers). Only prefixes people use, so that no two symbols differ in case alone."""
    kilo = {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15, "E": 1e18}
    kibi = {"Ki": 2.0**10, "Mi": 2.0**20, "Gi": 2.0**30, "Ti": 2.0**40, "Pi": 2.0**50}
    milli = {"": 1.0, "m": 1e-3, "u": 1e-6, "µ": 1e-6, "μ": 1e-6, "n": 1e-9, "p": 1e-12, "f": 1e-15}
    table: dict[str, tuple[float, _Powers]] = {}
    for prefix, factor in {**kilo, **kibi}.items():
        table[prefix + "B"] = (factor, _BYTE)
        table[prefix + "bit"] = (factor / 8, _BYTE)
    for prefix, factor in kilo.items():
        table[prefix + "Hz"] = (factor, _HERTZ)
        table[prefix + "T/s"] = (factor, _HERTZ)  # transfers; memory data rates are stated in MT/s
        for op, ops in {"FLOP": 1.0, "OP": 1.0, "MAC": 2.0}.items():
            table[prefix + op] = (factor * ops, _OP)
            table[prefix + op + "S"] = (factor * ops, _OPS_PER_S)
            table[prefix + op + "s"] = (factor * ops, _OP)
    for prefix, factor in milli.items():
        table[prefix + "s"] = (factor, _SECOND)
        table[prefix + "J"] = (factor, _JOULE)
        table[prefix + "W"] = (factor, _WATT)
    table |= {
        "kJ": (1e3, _JOULE), "kW": (1e3, _WATT), "Wh": (3600.0, _JOULE), "min": (60.0, _SECOND), "h": (3600.0, _SECOND),
        "mm2": (1e-6, _AREA), "mm²": (1e-6, _AREA), "m2": (1.0, _AREA), "K": (1.0, _KELVIN),
        "%": (0.01, _NONE), "x": (1.0, _NONE), "count": (1.0, _NONE), "cycle": (1.0, _NONE), "core": (1.0, _NONE),
        "core-cycle": (1.0, _NONE), "cores": (1.0, _NONE), "elements": (1.0, _NONE), "element": (1.0, _NONE),
        "fraction": (1.0, _NONE), "byte": (1.0, _BYTE), "bytes": (1.0, _BYTE), "op": (1.0, _OP), "ops": (1.0, _OP),
    }  # fmt: skip
    return table


UNITS: dict[str, tuple[float, _Powers]] = _unit_table()
# "flops" reads as a count in "flops/s" and as a rate alone: alone, any case means the rate FLOPS.
_ANY_CASE: dict[str, str] = {}
for _symbol in UNITS:
    _ANY_CASE.setdefault(_symbol.lower(), _symbol)
_ANY_CASE |= {f"{p.lower()}{op.lower()}s": f"{p}{op}S" for p in "kMGTPE" for op in ("FLOP", "OP", "MAC")}

_NUMBER = re.compile(r"\s*([+-]?(?:\d[\d_]*(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d{1,3})?)\s*(.*)", re.DOTALL)


def parse_quantity(text: str | float, dimension: str, *, where: str = "value", positive: bool = False) -> float:
    """SI value of `text`, which must have `dimension` (a key of DIMENSIONS). A number without a unit is already SI.

    `where` names the place in errors ("--set dram.bandwidth"). The value must be finite and >= 0, or > 0 with
    `positive`. Raises UnitError.
    """
    wanted = DIMENSIONS[dimension]
    value, powers = _parse(text, where, wanted)
    if powers is not None and powers != wanted.powers:
        raise UnitError(
            f"{where}: got {_shown(text)}, which is {_powers_text(powers)}, "
            f"expected {_powers_text(wanted.powers)} such as {wanted.example}"
        )
    if not math.isfinite(value):
        raise UnitError(f"{where}: got {_shown(text)}, expected a finite number such as {wanted.example}")
    if value < 0 or (positive and value == 0):
        bound = "> 0" if positive else ">= 0"
        raise UnitError(f"{where}: got {_shown(text)}, expected {bound} such as {wanted.example}")
    return value


def parse_bytes(text: str | float, *, where: str = "value", positive: bool = False) -> int:
    """Whole bytes: "12MiB" is 12,582,912. Raises UnitError for anything else, a broken byte included."""
    value = parse_quantity(text, "bytes", where=where, positive=positive)
    if value != int(value):
        raise UnitError(f"{where}: got {_shown(text)}, expected a whole number of bytes such as 12MiB")
    return int(value)


def parse_count(text: str | float, *, where: str = "value", positive: bool = False) -> int:
    """A whole number. Raises UnitError."""
    value = parse_quantity(text, "count", where=where, positive=positive)
    if value != int(value):
        raise UnitError(f"{where}: got {_shown(text)}, expected a whole number such as 12")
    return int(value)


def unit_to_si(unit: str, *, where: str = "unit") -> tuple[float, str]:
    """Factor to SI of a unit text such as "GB/s", and the name of its dimension. Raises UnitError."""
    factor, powers = _parse_unit(unit, where, unit, None)
    for dimension in DIMENSIONS.values():
        if dimension.powers == powers:
            return factor, dimension.name
    raise UnitError(f"{where}: unit {unit!r} is {_powers_text(powers)}, which no quantity here has")


def _parse(text: str | float, where: str, wanted: Dimension) -> tuple[float, _Powers | None]:
    if isinstance(text, bool) or not isinstance(text, str | int | float):
        raise UnitError(f"{where}: got {_shown(text)}, expected a quantity such as {wanted.example}")
    if not isinstance(text, str):
        try:
            return float(text), None
        except OverflowError:
            raise UnitError(f"{where}: got {_shown(text)}, expected a finite number such as {wanted.example}") from None
    if len(text) > _MAX_TEXT:
        raise UnitError(
            f"{where}: got {len(text)} characters ({_shown(text)}), expected a quantity such as {wanted.example}"
        )
    match = _NUMBER.fullmatch(text)
    if match is None:
        raise UnitError(f"{where}: got {_shown(text)}, expected a number with a unit such as {wanted.example}")
    number = float(match[1])
    unit = match[2].strip()
    if not unit:
        return number, None
    factor, powers = _parse_unit(unit, where, text, wanted)
    return number * factor, powers


def _parse_unit(unit: str, where: str, text: str, wanted: Dimension | None) -> tuple[float, _Powers]:
    """Factor and powers of "GB/s" or "GFLOP/s/W": the first symbol divided by the others."""
    whole = UNITS.get(unit) or UNITS.get(_ANY_CASE.get(unit.lower(), ""))
    if whole is not None:
        return whole
    factor, powers = 1.0, list(_NONE)
    parts = [part.strip() for part in unit.split("/")]
    for position, part in enumerate(parts):
        # in "flops/s" the s of flops is a plural, not "per second"
        plural = part[:-1] if len(parts) > 1 and part.lower().endswith(("flops", "ops", "macs")) else part
        found = UNITS.get(plural) or UNITS.get(_ANY_CASE.get(plural.lower(), ""))
        if found is None:
            known = [s for s, (_, p) in UNITS.items() if wanted is None or p == wanted.powers] or list(UNITS)
            such_as = f", expected a unit as in {wanted.example}" if wanted else ""
            hint = did_you_mean(part, known)
            raise UnitError(f"{where}: unit {part!r} in {_shown(text)} is not known{such_as}{hint}")
        sign = 1 if position == 0 else -1
        factor *= found[0] ** sign
        powers = [a + sign * b for a, b in zip(powers, found[1], strict=True)]
    a, b, c, d, e, f = powers
    return factor, (a, b, c, d, e, f)


def _shown(text: object) -> str:
    shown = repr(text)
    return shown if len(shown) <= 40 else shown[:36] + "..."


def _powers_text(powers: _Powers) -> str:
    if powers == _WATT:
        return "a power (W)"
    up = "·".join(_power(b, p) for b, p in zip(_BASES, powers, strict=True) if p > 0)
    down = "·".join(_power(b, -p) for b, p in zip(_BASES, powers, strict=True) if p < 0)
    if not up and not down:
        return "a plain number"
    return f"in {up or '1'}{'/' + down if down else ''}"


def _power(base: str, power: int) -> str:
    return base if power == 1 else f"{base}^{power}"


def format_bytes(value: float, *, binary: bool = True) -> str:
    """ "12.5 GiB", or "13.5 GB" with binary=False; whole bytes below 1 KiB (1 kB)."""
    if binary:
        return _scaled(value, (("TiB", 2.0**40), ("GiB", 2.0**30), ("MiB", 2.0**20), ("KiB", 2.0**10), ("B", 1.0)))
    return _scaled(value, (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3), ("B", 1.0)))


def format_seconds(value: float) -> str:
    """ "1.5 h", "12.3 s", "4.56 ms", "20 us", "3 ns"."""
    if value >= 7200:
        return f"{_digits(value / 3600)} h"
    return _scaled(value, (("s", 1.0), ("ms", 1e-3), ("us", 1e-6), ("ns", 1e-9), ("ps", 1e-12)))


def format_rate(value: float) -> str:
    """Bytes per second in powers of ten: "800 GB/s"."""
    return _scaled(value, (("TB/s", 1e12), ("GB/s", 1e9), ("MB/s", 1e6), ("kB/s", 1e3), ("B/s", 1.0)))


def format_ops(value: float) -> str:
    """A count of ops: "15.2 Gop"."""
    return _scaled(value, (("Pop", 1e15), ("Top", 1e12), ("Gop", 1e9), ("Mop", 1e6), ("kop", 1e3), ("op", 1.0)))


def format_ops_rate(value: float) -> str:
    """Ops per second: "10.6 Top/s"."""
    return _scaled(value, (("Pop/s", 1e15), ("Top/s", 1e12), ("Gop/s", 1e9), ("Mop/s", 1e6), ("op/s", 1.0)))


def format_hertz(value: float) -> str:
    return _scaled(value, (("GHz", 1e9), ("MHz", 1e6), ("kHz", 1e3), ("Hz", 1.0)))


def format_joules(value: float) -> str:
    return _scaled(value, (("kJ", 1e3), ("J", 1.0), ("mJ", 1e-3), ("uJ", 1e-6), ("nJ", 1e-9), ("pJ", 1e-12)))


def format_watts(value: float) -> str:
    return _scaled(value, (("kW", 1e3), ("W", 1.0), ("mW", 1e-3), ("uW", 1e-6)))


def format_count(value: float) -> str:
    """ "8.03 G", "151,936", "32": thousands separators below ten million, then a prefix."""
    if abs(value) < 1e7:
        return f"{value:,.0f}" if value == int(value) else _digits(value)
    return _scaled(value, (("T", 1e12), ("G", 1e9), ("M", 1e6)))


def format_quantity(value: float, dimension: str) -> str:
    """The reading for an SI value of `dimension` (a key of DIMENSIONS)."""
    writers = {
        "bytes": format_bytes, "s": format_seconds, "bytes_per_s": format_rate, "ops": format_ops, "hz": format_hertz,
        "ops_per_s": format_ops_rate, "j": format_joules, "w": format_watts, "count": format_count,
    }  # fmt: skip
    if dimension in writers:
        return writers[dimension](value)
    if dimension == "j_per_byte":
        return f"{_digits(value * 1e12)} pJ/B"
    if dimension == "j_per_op":
        return f"{_digits(value * 1e12)} pJ/op"
    if dimension == "m2":
        return f"{_digits(value * 1e6)} mm2"
    if dimension == "fraction":
        return _digits(value)
    return f"{_digits(value)} {dimension}"


def _scaled(value: float, steps: tuple[tuple[str, float], ...]) -> str:
    if value == 0 or not math.isfinite(value):
        base = next((name for name, factor in steps if factor == 1.0), steps[-1][0])
        return f"{value:g} {base}"
    for name, factor in steps:
        if abs(value) >= factor * 0.9995:
            return f"{_digits(value / factor)} {name}"
    name, factor = steps[-1]
    return f"{_digits(value / factor)} {name}"


def _digits(value: float) -> str:
    """Three significant digits, without an exponent where one reads better without, no trailing zeros."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    text = f"{value:.3g}"
    return text if "e" not in text else f"{value:.2e}"
