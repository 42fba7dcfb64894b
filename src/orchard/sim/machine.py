"""The machine as the simulator sees it: engines with operating points, shared memory, a chassis and a power limit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from orchard.sim.errors import SimError
from orchard.sim.heat import Chassis


@dataclass(frozen=True, slots=True)
class OperatingPoint:
    """Relative clock and voltage, each a share of the highest; power of switching goes with clock x voltage^2."""

    clock: float
    voltage: float


FULL = OperatingPoint(1.0, 1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSpec:
    """An engine: `units` requests at once (two on a dual Neural Engine).

    active_w   clock tree and leakage while a unit works, at full clock and voltage
    host_w     a CPU thread that feeds it, while it works, whatever its clock
    points     operating points, fastest first
    """

    name: str
    units: int = 1
    active_w: float = 0.0
    host_w: float = 0.0
    points: tuple[OperatingPoint, ...] = (FULL,)

    def __post_init__(self) -> None:
        clocks = [p.clock for p in self.points]
        if not clocks or clocks != sorted(clocks, reverse=True) or clocks[0] != 1.0 or clocks[-1] <= 0:
            raise SimError(f"engine {self.name}: points must start at clock 1 and fall")

    def at_most(self, clock: float) -> OperatingPoint:
        """The fastest point that is not above `clock`, else the slowest."""
        return next((p for p in self.points if p.clock <= clock), self.points[-1])


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """`dram_bytes_per_s`, `port_bytes_per_s`: what all engines together can have (None: no limit). `limit_w`: package limit.

    A chassis or a limit makes a governor that sets operating points every `tick_s`.
    """

    name: str
    engines: tuple[EngineSpec, ...]
    dram_bytes_per_s: float | None = None
    port_bytes_per_s: float | None = None
    dram_j_per_byte: float = 0.0
    idle_w: float = 0.0
    chassis: Chassis | None = None
    limit_w: float | None = None
    tick_s: float = 0.1
    notes: Mapping[str, str] = field(default_factory=dict)

    @property
    def governed(self) -> bool:
        return self.chassis is not None or self.limit_w is not None

    def ladder(self) -> tuple[float, ...]:
        """Clock caps a governor may choose from, fastest first: every clock that some engine has."""
        return tuple(sorted({p.clock for e in self.engines for p in e.points}, reverse=True))
