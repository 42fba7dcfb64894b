"""Dollars and carbon of a die.

    dies    n = pi (d/2)^2 / A - pi d / sqrt(2 A), d = 300 mm                                        [cost.dies_per_wafer]
    yield   Y = (1 + A D0 / 3)^-3, usable = Y + (1 - Y) h                               [cost.yield_model, cost.harvest]
    die     wafer price / (n usable)
    carbon  (energy per area x grid + gases + materials) A / Y                                                    [carbon]

Wafer prices are press figures that spread by 20 %, defect densities of N3E and later are assumptions: a price is an estimate for
comparing designs, not a quotation. Package and test are not in (no figure was found; `package_usd` takes yours).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from orchard.cost.silicon.area import Area
from orchard.cost.silicon.coefficients import coefficient

_WAFER_MM = 300.0
_ALPHA = 3.0
HARVEST = 0.4
"""Share of defects that land in cores the maker can switch off and still sell the die [cost.harvest]."""
_WAFER = {"n5": "n5", "n5p": "n5", "n4p": "n5", "n3b": "n3", "n3e": "n3", "n3p": "n3", "n2": "n2"}
_DEFECTS = {
    "n5": "n5_mature", "n5p": "n5_mature", "n4p": "n5_mature", "n3b": "n3b_2023", "n3e": "n3e", "n3p": "n3e", "n2": "n2_2026",
}  # fmt: skip
_CARBON = {"n5": "n5", "n5p": "n5", "n4p": "n5", "n3b": "n3", "n3e": "n3", "n3p": "n3", "n2": "n3"}
GRID_G_PER_KWH = 500.0
"""Carbon of the fab's electricity. Judgement: between the world average and Taiwan's mix; pass your own."""


@dataclass(frozen=True, slots=True)
class Price:
    """USD arrays over variants; `die_usd` sums over dies."""

    die_usd: Any
    memory_usd: Any
    package_usd: float

    @property
    def total_usd(self) -> Any:
        return self.die_usd + self.memory_usd + self.package_usd


def dies_per_wafer(area_mm2: Any) -> Any:
    """Whole dies on a 300 mm wafer, before yield; 0 where a die does not fit."""
    area = np.asarray(area_mm2, dtype=np.float64)
    gross = np.pi * (_WAFER_MM / 2) ** 2 / area - np.pi * _WAFER_MM / np.sqrt(2 * area)
    return np.maximum(np.floor(gross), 0.0)


def die_yield(area_mm2: Any, defects_per_cm2: float) -> Any:
    """Share of dies without a defect, negative binomial with clustering 3."""
    return (1.0 + np.asarray(area_mm2) / 100.0 * defects_per_cm2 / _ALPHA) ** -_ALPHA


def die_price_usd(area_mm2: Any, node: str, *, harvest: float = HARVEST) -> Any:
    """USD per usable die; infinite where none fits a wafer."""
    wafer = float(coefficient(f"cost.wafer_price.{_WAFER[node]}"))
    good = die_yield(area_mm2, float(coefficient(f"cost.defect_density.{_DEFECTS[node]}")))
    count = dies_per_wafer(area_mm2)
    with np.errstate(divide="ignore"):
        return wafer / (count * (good + (1.0 - good) * harvest))


def price(
    area: Area, *, dies: Any = 1.0, memory_bytes: Any = 0.0, usd_per_gb: float | None = None, package_usd: float = 0.0
) -> Price:
    """Price of a SoC of `dies` equal dies with its DRAM. `usd_per_gb` defaults to the end of 2025 (LPDDR5X, a press figure)."""
    per_gb = float(coefficient("cost.lpddr5x_price.end_2025")) if usd_per_gb is None else usd_per_gb
    each = die_price_usd(np.asarray(area.total_mm2) / dies, area.node)
    return Price(each * dies, memory_bytes / 1e9 * per_gb, package_usd)


def carbon_g(area: Area, *, dies: Any = 1.0, memory_bytes: Any = 0.0, grid_g_per_kwh: float = GRID_G_PER_KWH) -> Any:
    """Embodied gCO2e of die and DRAM [carbon, after ACT]. N2 is counted as N3 (no row)."""
    key = _CARBON[area.node]
    per_cm2 = (
        float(coefficient(f"carbon.epa.{key}")) * grid_g_per_kwh
        + float(coefficient(f"carbon.gas_95.{key}"))
        + float(coefficient("carbon.materials"))
    )
    each = np.asarray(area.total_mm2) / dies
    good = die_yield(each, float(coefficient(f"cost.defect_density.{_DEFECTS[area.node]}")))
    return per_cm2 * each / 100.0 / good * dies + memory_bytes / 1e9 * float(coefficient("carbon.dram"))
