"""Who sets operating points: every tick, the fastest clocks whose predicted power the package limit and the heat allow.

All engines get one cap on their relative clock and run the fastest of their own points below it. The prediction takes the
last tick as it was and scales it: switching energy with clock x voltage^2, memory traffic with the clock, the rest not at all.
Where the slowest points are still too much, engines are gated for a part of the time: the clock falls on, the voltage stays.
"""

from __future__ import annotations

from dataclasses import dataclass

from orchard.sim.heat import Heat
from orchard.sim.machine import EngineSpec, Machine, OperatingPoint

GATED = (0.75, 0.5, 0.35, 0.25, 0.15)
"""Parts of the slowest clock that gating gives. Fine enough that the governor settles within a sixth of a step."""


@dataclass(slots=True)
class Usage:
    """Energy of one engine in one tick, joules: switching at the present point, traffic, and what does not scale."""

    switching_j: float = 0.0
    traffic_j: float = 0.0
    fixed_j: float = 0.0


class Governor:
    """Holds the heat and the present cap of a machine."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.heat = Heat(machine.chassis, machine.tick_s) if machine.chassis else None
        slowest = min(machine.ladder())
        self.caps = (*machine.ladder(), *(slowest * part for part in GATED))
        self.points = [tuple(_point(e, cap) for e in machine.engines) for cap in self.caps]
        self.level = 0

    @property
    def now(self) -> tuple[OperatingPoint, ...]:
        """Point of each engine."""
        return self.points[self.level]

    @property
    def allowed_w(self) -> float | None:
        """Power that heat and limit allow at this moment."""
        limits = [x for x in (self.machine.limit_w, self.heat.allowed_w if self.heat else None) if x is not None]
        return min(limits) if limits else None

    def tick(self, usage: list[Usage], other_j: float) -> float:
        """Account for a tick, move temperatures and choose the next points. Returns the power of the tick (W)."""
        length = self.machine.tick_s
        total = other_j + sum(u.switching_j + u.traffic_j + u.fixed_j for u in usage)
        if self.heat:
            self.heat.step(total / length)
        allowed = self.allowed_w
        if allowed is not None:
            self.level = self._choose(usage, other_j, allowed * length)
        return total / length

    def _choose(self, usage: list[Usage], other_j: float, budget_j: float) -> int:
        """The first level from the top within the budget. The slowest one may be above it."""
        before = self.now
        for level, points in enumerate(self.points):
            predicted = other_j
            for used, old, new in zip(usage, before, points):
                pace = new.clock / old.clock
                switching = used.switching_j * pace * (new.voltage / old.voltage) ** 2
                predicted += switching + used.traffic_j * pace + used.fixed_j
            if predicted <= budget_j:
                return level
        return len(self.points) - 1


def _point(engine: EngineSpec, cap: float) -> OperatingPoint:
    found = engine.at_most(cap)
    return found if found.clock <= cap else OperatingPoint(cap, found.voltage)
