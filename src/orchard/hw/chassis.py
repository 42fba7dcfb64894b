"""Housings and operating points: what limits a chip over minutes, each number with unit, source and kind."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from orchard.hw.errors import HardwareError
from orchard.hw.soc import SoC
from orchard.hw.yamlfile import read_trusted
from orchard.units import did_you_mean

DRAM_SHARE = 0.94
"""Part of the DRAM's data-sheet rate that all engines together reach: refresh, bank conflicts and read-write turns take the rest.
The largest share seen from one engine: 288 of 307 GB/s, GPU of an M5 Pro [agxforge]; others 0.87 to 0.90 [kth]."""

PORT_RATIO = 1.7
"""Rate of the system-level cache over the DRAM peak: 524 / 307 GB/s on M5 Pro [agxforge], 300 / 170.5 on M6 [bergach-m6]."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ThermalNode:
    """K/W to the next node, J/K, and the temperatures (deg C) between which power is cut."""

    resistance: float
    capacity: float
    cut_from: float
    cut_to: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Housing:
    """A chassis: power it allows when cold, other heat in the case, two thermal nodes."""

    name: str
    about: str
    burst_w: float
    case_w: float
    die: ThermalNode
    case: ThermalNode


def housing_names() -> tuple[str, ...]:
    return tuple(_housings())


def load_housing(name: str) -> Housing:
    """Raises HardwareError for an unknown name."""
    found = _housings()
    if name not in found:
        known = ", ".join(found)
        raise HardwareError(f"chassis {name!r} is not known{did_you_mean(name, list(found))}; expected {known} or none")
    return found[name]


@lru_cache(maxsize=1)
def _housings() -> Mapping[str, Housing]:
    data = read_trusted(Path(str(files("orchard.hw").joinpath("chassis.yaml"))))
    return {name: _housing(name, entry) for name, entry in data.items()}


def _housing(name: str, entry: Mapping[str, Any]) -> Housing:
    def node(part: Mapping[str, Any]) -> ThermalNode:
        return ThermalNode(**{key: float(figure["value"]) for key, figure in part.items()})

    return Housing(
        name=name, about=entry["about"], burst_w=float(entry["burst_w"]["value"]),
        case_w=float(entry["case_w"]["value"]), die=node(entry["die"]), case=node(entry["case"]),
    )  # fmt: skip


def usual_housing(soc: SoC) -> str:
    """The chassis a chip is usually sold in: phones for A chips, laptops with fans for Pro and Max, desktops for Ultra.

    A base M chip is sold in all three others; the fanless laptop is the one whose limits matter.
    """
    if soc.family.startswith("A"):
        return "phone"
    name = soc.name.lower()
    if "ultra" in name:
        return "desktop"
    return "fan-laptop" if "pro" in name or "max" in name else "fanless-laptop"


def operating_points(soc: SoC, engine: str) -> tuple[tuple[float, float], ...]:
    """(relative clock, relative voltage) of an engine, fastest first; (1, 1) alone for an engine without a table."""
    for shape in _points()["shapes"]:
        if any(soc.family.startswith(prefix) for prefix in shape["families"]) and engine in shape:
            rows = sorted(_points()["tables"][shape[engine]]["points"], reverse=True)
            top_mhz, top_mv = rows[0]
            return tuple((mhz / top_mhz, mv / top_mv) for mhz, mv in rows)
    return ((1.0, 1.0),)


@lru_cache(maxsize=1)
def _points() -> Mapping[str, Any]:
    return read_trusted(Path(str(files("orchard.hw").joinpath("operating_points.yaml"))))
