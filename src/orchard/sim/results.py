"""What a simulation found. Seconds, joules, watts and bytes; counts of requests."""

from __future__ import annotations

from dataclasses import dataclass, field

from orchard.sim.stats import Quantiles, Series

CAUSES = ("queue", "preempted", "host", "compute", "memory", "dispatch", "contention", "clock")
"""Where the time of a request goes; the eight sum to its latency.

queue       waiting for an engine before a call; preempted: waiting inside a call while a higher priority ran
host        the CPU submits the call
compute, memory, dispatch   the op's own time at full clock, as the estimate splits it
contention  slower because others use the memory; clock: slower because the clock is below its highest
"""


@dataclass(slots=True)
class StreamStats:
    """One stream. `late`: ended after the deadline; `overdue`: unfinished at the end although the deadline has passed."""

    name: str
    arrived: int = 0
    completed: int = 0
    dropped: int = 0
    late: int = 0
    overdue: int = 0
    passes: int = 0
    energy_j: float = 0.0
    latency: Quantiles = field(default_factory=Quantiles)
    first: Quantiles = field(default_factory=Quantiles)
    causes_s: dict[str, float] = field(default_factory=lambda: dict.fromkeys(CAUSES, 0.0))


@dataclass(slots=True)
class EngineStats:
    """One engine over all its units. `busy_s` sums over units; `clock_s` is the integral of the relative clock while busy."""

    name: str
    units: int
    busy_s: float = 0.0
    clock_s: float = 0.0
    ops: int = 0
    waiting_s: float = 0.0
    most_waiting: int = 0
    energy_j: float = 0.0


@dataclass(slots=True)
class Outcome:
    """A whole run. `passes`: forward passes run; `ops`: op executions; `energy_j` sums engines, memory users and idle power."""

    seconds: float
    streams: list[StreamStats]
    engines: list[EngineStats]
    dram_bytes: float
    user_bytes: float
    energy_j: float
    idle_j: float
    user_j: float
    peak_dram_bytes_per_s: float
    series: Series
    most_die_c: float | None
    most_case_c: float | None
    peak_w: float
    throttled_s: float
    pending: int

    @property
    def ops(self) -> int:
        return sum(e.ops for e in self.engines)
