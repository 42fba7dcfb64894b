"""One figure of a chip: value, unit, source, kind, note."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from orchard.hw.errors import HardwareError
from orchard.hw.schema import FigureSpec
from orchard.units import DIMENSIONS, UnitError, format_quantity, parse_quantity, unit_to_si

Kind = Literal["vendor", "measured", "derived", "estimate", "user"]
KINDS: tuple[str, ...] = ("vendor", "measured", "derived", "estimate", "user")

# Beyond these a number is a slip of unit or hostile, whatever the figure: (least when positive, most), SI.
_SANE: dict[str, tuple[float, float]] = {
    "count": (1e-9, 1e9), "fraction": (1e-6, 1.0), "hz": (1e6, 1e12), "bytes": (1.0, 2.0**60),
    "bytes_per_s": (1e6, 1e18), "ops": (1e-3, 1e9), "ops_per_s": (1e3, 1e21), "s": (0.0, 1e6), "w": (0.0, 1e6),
    "j_per_byte": (0.0, 1e-3),
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """A value in the unit it was stated in, and where it comes from.

    value   number, text (unit "name") or None: not known, then `note` says why
    kind    vendor = published; measured = read or timed on hardware; derived = calculated by a rule named in `note`;
            estimate = analogy, press report or an assumption named in `note`; user = set by the user
    """

    path: str
    value: float | str | None
    unit: str
    source: str | None = None
    kind: str | None = None
    note: str | None = None

    @property
    def known(self) -> bool:
        return self.value is not None

    @property
    def si(self) -> float:
        """The value in SI. Only for known numbers."""
        assert isinstance(self.value, int | float), self.path
        return self.value * si_factor(self.unit)

    @property
    def text(self) -> str:
        """The value as people read it: "409.6 GB/s", "TSMC N5", "not known"."""
        if self.value is None:
            return "not known"
        if isinstance(self.value, str):
            return self.value
        return (
            f"{self.value:,.6g}" if self.unit in ("count", "elements", "fraction") else f"{self.value:,.6g} {self.unit}"
        )


@lru_cache(maxsize=256)
def si_factor(unit: str) -> float:
    if unit in ("count", "elements", "fraction", "name"):
        return 1.0
    return unit_to_si(unit)[0]


def figure_from_text(spec: FigureSpec, given: object, *, where: str, source: str, kind: str = "user") -> Figure:
    """A figure from what a user wrote: "60", "800GB/s", 60, 1.4e9 (a bare number is SI). Raises HardwareError."""
    if spec.is_text:
        return Figure(path=spec.path, value=_text_value(spec, given, where), unit="name", source=source, kind=kind)
    if not isinstance(given, str | int | float):
        raise HardwareError(f"{where}: got {given!r:.40}, expected {spec.about}, such as {_example(spec)}")
    try:
        value = parse_quantity(given, spec.dimension, where=where, positive=spec.positive)
    except UnitError as error:
        raise HardwareError(str(error)) from None
    check_sane(spec, value, where)
    return Figure(path=spec.path, value=value / si_factor(spec.unit), unit=spec.unit, source=source, kind=kind)


def check_sane(spec: FigureSpec, si: float, where: str) -> None:
    """Raise HardwareError for a number that no chip can have: a slip of unit, mostly."""
    least, most = _SANE[spec.dimension]
    if not math.isfinite(si) or si < 0 or (spec.positive and si == 0):
        raise HardwareError(f"{where}: got {si:g}, expected a finite number {'> 0' if spec.positive else '>= 0'}")
    if si > most or (spec.positive and si < least):
        got, low, high = (format_quantity(x, spec.dimension) for x in (si, least, most))
        raise HardwareError(
            f"{where}: got {got}, expected {spec.about} between {low} and {high}; a bare number is SI, so give a unit "
            f"such as {_example(spec)}"
        )
    if spec.unit == "count" and si != int(si):
        raise HardwareError(f"{where}: got {si:g}, expected a whole number")


def _text_value(spec: FigureSpec, given: object, where: str) -> str:
    if not isinstance(given, str) or not 0 < len(given) <= 64 or not given.isprintable():
        raise HardwareError(f"{where}: got {given!r:.40}, expected a short text ({spec.about})")
    return given


def _example(spec: FigureSpec) -> str:
    return DIMENSIONS[spec.dimension].example if spec.dimension in DIMENSIONS else "60"
