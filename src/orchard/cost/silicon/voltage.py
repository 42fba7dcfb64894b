"""Voltage by clock, and what a clock does to energy.

Dynamic energy goes with the square of the voltage, and the voltage a clock needs rises along a measured table per domain
[dvfs]. A design whose clock differs from its chip's therefore spends (V(f) / V(f_chip))^2 of the chip's energy per op:
+10 % on M4 Pro's performance cores costs 38 %, +27 % on M5 Max's GPU 49 %. Between the steps of a table the voltage is
interpolated, beyond its ends it follows the slope of its last three steps (the top steps are steep, so this is not kind).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from orchard.cost.silicon.area import node_of
from orchard.cost.silicon.coefficients import coefficient
from orchard.hw import HardwareArrays, SoC

VOLTAGE_DOMAINS = {name: f"{name}.clock" for name in ("gpu", "ane", "cpu.s", "cpu.p", "cpu.e")}

_TABLES = {
    ("gpu", "n5"): "m2max_gpu", ("gpu", "n3"): "m5max_gpu", ("gpu", "phone"): "a18pro_gpu",
    ("cpu.p", "n5"): "m2max_p", ("cpu.p", "n3"): "m4pro_p", ("cpu.p", "phone"): "a18pro_p",
    ("cpu.e", "n5"): "m2max_e", ("cpu.e", "n3"): "m4pro_e", ("cpu.s", "n3"): "m5max_super",
    ("ane", "n5"): "m2ultra_domain8",
}  # fmt: skip
"""Tables measured on one chip of each class. The ANE's is a candidate (domain 8 of M2 Ultra), the only one there is."""


def voltage_v(soc: SoC, domain: str, clock_hz: Any) -> Any:
    """Volts that `domain` (a key of VOLTAGE_DOMAINS) needs at `clock_hz`, an estimate from the table of its class."""
    steps = np.asarray(coefficient(f"dvfs.{_table_for(soc, domain)}").value, dtype=np.float64)
    return _along(steps[:, 0] * 1e6, steps[:, 1] * 1e-3, np.asarray(clock_hz, dtype=np.float64))


def energy_factor(hw: HardwareArrays, domain: str) -> Any:
    """Energy per op of each variant over that of the chip it varies: (V(f) / V(f_chip))^2. 1 where the clock is unchanged.

    The chip's own table is not known for every chip, so the table's clocks are stretched so that its top meets the chip's own.
    """
    path = VOLTAGE_DOMAINS[domain]
    own = hw.soc[path]
    steps = np.asarray(coefficient(f"dvfs.{_table_for(hw.soc, domain)}").value, dtype=np.float64)
    clocks = steps[:, 0] / steps[-1, 0] * own
    volts = steps[:, 1]
    return (_along(clocks, volts, np.asarray(hw[path])) / _along(clocks, volts, np.asarray(own))) ** 2


def _table_for(soc: SoC, domain: str) -> str:
    group = "n5" if node_of(soc) in ("n5", "n5p", "n4p") else "n3"
    if soc.identity.tier == "phone" and group == "n3":
        group = "phone"
    for key in ((domain, group), (domain, "n3"), (domain, "n5"), ("cpu.p", group)):
        if key in _TABLES:
            return _TABLES[key]
    raise AssertionError(domain)


def _along(clocks: npt.NDArray[np.float64], volts: npt.NDArray[np.float64], at: npt.NDArray[np.float64]) -> Any:
    """`volts` at `at`: highest voltage of a step with several, linear between, last-three-steps slope above, flat below."""
    clocks, index = np.unique(clocks, return_inverse=True)
    highest = np.zeros(len(clocks))
    np.maximum.at(highest, index, volts)
    highest = np.maximum.accumulate(highest)
    reach = min(3, len(clocks) - 1)
    slope = (highest[-1] - highest[-1 - reach]) / (clocks[-1] - clocks[-1 - reach])
    return np.interp(at, clocks, highest) + np.maximum(at - clocks[-1], 0.0) * slope
