"""Fit the chassis of src/orchard/hw/chassis.yaml to the `fit` rows of data/measurements/thermal.csv, and print the values.

    PYTHONPATH=src python tools/fit_chassis.py            # minutes

Every thermal value of a chassis may move, held by its first-principles value: resistances and capacities with a spread of x1.35,
temperatures of 5 K. Few rows and many values: the spread decides where the rows do not. The governor and the heat model
are those of the simulator; the workload is a saturated engine whose power and host share are read from a short simulation.
"""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.optimize import minimize

from orchard.hw import load_chip
from orchard.hw.chassis import Housing, ThermalNode, load_housing
from orchard.sim.governor import Governor, Usage
from orchard.sim.machine import Machine
from orchard.sim.program import PS
from orchard.studies.programs import chassis_of, machine_of
from orchard.studies.sustained import Row, read_rows, sustained_stream

PRIOR = {
    "phone": ((2.5, 16.0, 38.0, 52.0), (4.5, 170.0, 36.0, 48.0)),
    "fanless-laptop": ((1.5, 60.0, 75.0, 105.0), (1.8, 550.0, 38.0, 60.0)),
    "fan-laptop": ((0.5, 20.0, 80.0, 108.0), (1.0, 90.0, 90.0, 120.0)),
}
"""(K/W, J/K, cut from, cut to) of die and case, before any measurement: chassis.yaml says where each comes from. Skin limits of
41 to 45 deg C on phones; junctions that may reach 100 to 110 in laptops."""
TICK_S = 0.5
LOG_SPREAD, KELVIN = math.log(1.35), 5.0


@dataclass(frozen=True)
class Load:
    """Watts of a saturated engine at full clock, and the part of its time in which the host submits."""

    machine: Machine
    engine: int
    switching_w: float
    traffic_w: float
    fixed_w: float
    other_w: float
    host: float


def load_of(row: Row) -> Load:
    soc = load_chip(row.chip, [])
    machine = machine_of(soc, row.chassis)
    names = [e.name for e in machine.engines]
    at = names.index("gpu" if row.engine == "all" else row.engine)
    spec = machine.engines[at]
    calls = [c for w in sustained_stream(row, soc).workloads for stage in w.stages for c in stage.calls]
    work = sum(c.repeats * c.program.total_ps for c in calls) / PS
    host = sum(c.repeats * c.host_ps for c in calls) / PS
    joules = sum(c.repeats * c.program.sums[-1][4] for c in calls)
    moved = sum(c.repeats * c.program.sums[-1][5] for c in calls)
    whole = work + host
    return Load(
        machine, at, switching_w=(joules + spec.active_w * work) / whole, traffic_w=moved * machine.dram_j_per_byte / whole,
        fixed_w=(spec.host_w * whole + spec.active_w * host) / whole, other_w=machine.idle_w, host=host / whole,
    )  # fmt: skip


def curves(load: Load, housing: Housing, seconds: float) -> tuple[Any, Any]:
    """(relative rate, power) at every tick."""
    machine = replace(load.machine, chassis=chassis_of(housing), tick_s=TICK_S)
    governor, tick = Governor(machine), machine.tick_s
    rate, power = [], []
    for _ in range(round(seconds / tick)):
        point = governor.now[load.engine]
        pace = 1.0 / (load.host + (1.0 - load.host) / point.clock)
        share = pace / point.clock  # part of the time the engine is busy, relative to full clock
        usage = [Usage() for _ in machine.engines]
        usage[load.engine] = Usage(
            load.switching_w * point.clock * point.voltage**2 * share * tick,
            load.traffic_w * pace * tick,
            load.fixed_w * tick,
        )
        power.append(governor.tick(usage, load.other_w * tick))
        rate.append(pace)
    return np.array(rate), np.array(power)


def residuals(vector: Any, name: str, rows: list[Row], loads: dict[str, Load]) -> list[float]:
    housing = housing_from(name, vector)
    found = [float(v) for v in vector]
    cache: dict[str, tuple[Any, Any]] = {}
    for row in rows:
        if row.workload not in cache:
            cache[row.workload] = curves(loads[row.workload], housing, max(row.at_s, 600.0))
        rate, power = cache[row.workload]
        if row.metric == "retained":
            found.append((rate[-10:].mean() / rate[:10].mean() - row.value) / 0.04)
        elif row.metric == "retained_power":
            found.append((power[-10:].mean() / power[:10].mean() - row.value) / 0.04)
        else:
            lost = 1 - float(row.metric.rpartition("_")[2]) / 100
            smooth = np.convolve(rate, np.ones(10) / 10, "valid")
            below = np.flatnonzero(smooth <= lost * smooth[0])
            # where the level is never reached, the distance to it keeps the slope
            time = below[0] * TICK_S if below.size else 600.0 * (1 + 5 * (smooth.min() - lost))
            found.append(math.log(max(time, 1.0) / row.value) / 0.3)
    return found


def housing_from(name: str, vector: Any) -> Housing:
    """`vector` [8]: distances from the prior in spreads."""
    nodes = []
    for prior, v in zip(PRIOR[name], np.reshape(vector, (2, 4))):
        low = prior[2] + KELVIN * v[2]
        nodes.append(ThermalNode(
            resistance=prior[0] * math.exp(LOG_SPREAD * v[0]), capacity=prior[1] * math.exp(LOG_SPREAD * v[1]),
            cut_from=low, cut_to=max(low + 2.0, prior[3] + KELVIN * v[3]),
        ))  # fmt: skip
    return replace(load_housing(name), die=nodes[0], case=nodes[1])


def main() -> None:
    rows = [r for r in read_rows() if r.part == "fit"]
    for name in sys.argv[1:] or PRIOR:
        mine = [r for r in rows if r.chassis == name]
        loads = {r.workload: load_of(r) for r in mine}
        for workload, load in loads.items():
            watts = f"switching {load.switching_w:.2f} traffic {load.traffic_w:.2f} fixed {load.fixed_w:.2f} W"
            print(f"{name}: {workload}: {watts}, host {load.host:.3f}")
        best = None
        # operating points make the residuals steps, so no gradients: simplexes from three starts
        for start in (np.zeros(8), np.full(8, -0.5), np.array([0, 0, -1, 0.5, 0, 0, -1, 0.5])):
            simplex = np.vstack([start, start + 0.8 * np.eye(8)])
            found = minimize(
                lambda v: sum(r * r for r in residuals(v, name, mine, loads)), start, method="Nelder-Mead",  # noqa: B023
                options={"initial_simplex": simplex, "maxfev": 500, "xatol": 0.02, "fatol": 0.02},
            )  # fmt: skip
            best = found if best is None or found.fun < best.fun else best
        assert best is not None
        housing = housing_from(name, best.x)
        print(f"{name}: cost {best.fun:.3f}")
        for label, node in (("die", housing.die), ("case", housing.case)):
            print(f"  {label}: resistance {node.resistance:.2f} capacity {node.capacity:.0f} "
                  f"cut_from {node.cut_from:.1f} cut_to {node.cut_to:.1f}")  # fmt: skip
        print("  residuals of rows, in spreads:", np.round(residuals(best.x, name, mine, loads)[8:], 2))


if __name__ == "__main__":
    main()
