"""Heat by closed forms, the governor, and energy as the integral of power."""

from __future__ import annotations

import math
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from scipy.integrate import solve_ivp

from orchard.sim import Chassis, Closed, EngineSpec, Heat, Machine, Node, OperatingPoint, Periodic
from orchard.sim.program import PS

sys.path.insert(0, str(Path(__file__).parent))
from toys import program, run, stream

BOX = Chassis(
    name="box", burst_w=20.0, case_w=1.0,
    die=Node(kelvin_per_w=2.0, joule_per_kelvin=10.0, cut_from_c=60.0, cut_to_c=90.0),
    case=Node(kelvin_per_w=4.0, joule_per_kelvin=100.0, cut_from_c=40.0, cut_to_c=50.0),
)  # fmt: skip
POINTS = (OperatingPoint(1.0, 1.0), OperatingPoint(0.7, 0.8), OperatingPoint(0.4, 0.7))


def test_temperatures_follow_the_differential_equation() -> None:
    """Against an independent integrator, 8 W for 50 s then 2 W for 100 s."""

    def flow(t: float, state: list[float]) -> list[float]:
        die, case = state
        watts = 8.0 if t < 50 else 2.0
        inward = (die - case) / 2.0
        return [(watts - inward) / 10.0, (inward + 1.0 - (case - 25.0) / 4.0) / 100.0]

    start = BOX.steady_c(0.0)
    expected = solve_ivp(flow, (0, 150), start, rtol=1e-9, atol=1e-9, max_step=1.0).y[:, -1]
    heat = Heat(BOX, 0.5)
    for tick in range(300):
        heat.step(8.0 if tick < 100 else 2.0)
    assert (heat.die_c, heat.case_c) == pytest.approx(tuple(expected), abs=1e-4)


def test_the_step_does_not_depend_on_its_length() -> None:
    fine, coarse = Heat(BOX, 0.1), Heat(BOX, 10.0)
    for _ in range(100):
        fine.step(5.0)
    coarse.step(5.0)
    assert (fine.die_c, fine.case_c) == pytest.approx((coarse.die_c, coarse.case_c), rel=1e-9)


def test_allowed_power_falls_linearly_and_the_hotter_limit_counts() -> None:
    assert BOX.allowed_w(50.0, 30.0) == 20.0
    assert BOX.allowed_w(75.0, 30.0) == pytest.approx(10.0)
    assert BOX.allowed_w(75.0, 49.0) == pytest.approx(2.0)
    assert BOX.allowed_w(500.0, 30.0) == pytest.approx(0.4)


def hot(chassis: Chassis | None, limit: float | None = None, points: tuple[OperatingPoint, ...] = POINTS) -> Machine:
    engine = EngineSpec(name="e", active_w=4.0, host_w=1.0, points=points)
    return Machine(
        name="toy", engines=(engine,), dram_bytes_per_s=100e9, port_bytes_per_s=170e9, dram_j_per_byte=50e-12, idle_w=0.5,
        chassis=chassis, limit_w=limit, tick_s=0.5,
    )  # fmt: skip


BUSY = program("p", [(1e-3, 40e6)], watts=6.0)
"""0.5 idle + 1 host + 4 + 6 switching + 2 traffic = 13.5 W at full clock."""


LONG = program("p", [(1.0, 40e9)], watts=6.0)


def test_energy_is_the_integral_of_power() -> None:
    """Power written out by hand from what ran: idle, engine while busy, arithmetic, traffic."""
    found = run(hot(None), [stream("s", "e", BUSY, Periodic(round(4e-3 * PS)))], 10.0)
    assert found.energy_j == pytest.approx(0.5 * 10 + 0.25 * 10 * (1 + 4 + 6 + 2), rel=1e-6)
    integral = sum(row[0] for row in found.series.rows) * found.series.step_s
    assert integral == pytest.approx(found.energy_j, rel=1e-6)


def test_heat_lowers_the_clock_until_power_meets_what_the_chassis_sheds() -> None:
    points = tuple(OperatingPoint(1.0 - 0.05 * i, 1.0 - 0.03 * i) for i in range(16))
    found = run(hot(BOX, points=points), [stream("s", "e", LONG, Closed())], 4000.0)
    columns = found.series.columns
    power, clock = ([row[columns.index(c)] for row in found.series.rows] for c in ("power_w", "clock.e"))
    assert clock[0] > 0.9
    settled = sum(power[-20:]) / 20
    die, case = BOX.steady_c(settled)  # points are discrete, so it dithers around the balance
    assert settled == pytest.approx(BOX.allowed_w(die, case), rel=0.1)
    assert found.streams[0].causes_s["clock"] > 0
    assert sum(found.streams[0].causes_s.values()) == pytest.approx(found.streams[0].latency.total, rel=1e-6)
    integral = sum(power) * found.series.step_s
    assert integral == pytest.approx(found.energy_j, rel=2e-2)  # the series keeps whole intervals only


def test_switching_energy_falls_with_the_square_of_the_voltage() -> None:
    """A limit that only the middle point keeps: 0.5 + 1 + (4 + 6) x 0.7 x 0.8^2 + 2 x 0.7 = 7.38 W."""
    found = run(hot(None, limit=8.0), [stream("s", "e", BUSY, Closed())], 20.0)
    columns = found.series.columns
    assert found.series.rows[-1][columns.index("clock.e")] == pytest.approx(0.7)
    assert found.series.rows[-1][columns.index("power_w")] == pytest.approx(7.38, rel=1e-3)


def test_below_the_slowest_point_the_engine_is_gated() -> None:
    found = run(hot(None, limit=3.5), [stream("s", "e", BUSY, Closed())], 20.0)
    last = found.series.rows[-1]
    assert last[found.series.columns.index("clock.e")] < 0.4
    assert last[0] <= 3.5


def test_without_load_nothing_is_throttled() -> None:
    found = run(hot(replace(BOX, burst_w=20.0)), [stream("s", "e", BUSY, Periodic(PS))], 30.0)
    assert found.throttled_s == 0.0
    assert math.isclose(found.streams[0].causes_s["clock"], 0.0)
