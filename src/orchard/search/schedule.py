"""Start times for work whose machine is chosen: list scheduling by longest remaining path, beside what no schedule can beat.

Each machine does one thing at a time. A task starts when the tasks it waits for have ended, each plus the delay of that edge.
Among tasks that could start, the one with the longest path of work and delays behind it goes first (ties: the lower number).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Edge:
    """`after` may start `delay_s` seconds after `before` ended."""

    before: int
    after: int
    delay_s: float = 0.0


@dataclass(frozen=True)
class Schedule:
    """`bound_s`: the longest path, or the busiest machine. No schedule of this choice of machines ends earlier."""

    start_s: tuple[float, ...]
    end_s: float
    bound_s: float
    busy_s: dict[str, float]

    @property
    def gap(self) -> float:
        return (self.end_s - self.bound_s) / self.end_s if self.end_s else 0.0


def list_schedule(seconds: Sequence[float], machine: Sequence[str], edges: Sequence[Edge]) -> Schedule:
    """A schedule of tasks 0, 1, ... `edges` must lead from lower to higher numbers."""
    count = len(seconds)
    follows: list[list[Edge]] = [[] for _ in range(count)]
    waits = [0] * count
    for edge in edges:
        assert edge.before < edge.after, "edges lead forward"
        follows[edge.before].append(edge)
        waits[edge.after] += 1
    tail = [0.0] * count
    for task in reversed(range(count)):
        tail[task] = seconds[task] + max((e.delay_s + tail[e.after] for e in follows[task]), default=0.0)
    start = _dispatch(seconds, machine, follows, waits, tail)
    busy: dict[str, float] = {}
    for task in range(count):
        busy[machine[task]] = busy.get(machine[task], 0.0) + seconds[task]
    end = max((s + d for s, d in zip(start, seconds)), default=0.0)
    return Schedule(tuple(start), end, max([*tail, *busy.values()], default=0.0), busy)


def _dispatch(
    seconds: Sequence[float], machine: Sequence[str], follows: list[list[Edge]], waits: list[int], tail: list[float]
) -> list[float]:
    """Start times. Each machine takes, when it is free, the ready task of longest tail; if none is ready, the next to be."""
    import heapq

    ready_at = [0.0] * len(seconds)
    start = [0.0] * len(seconds)
    arriving: dict[str, list[tuple[float, int]]] = {m: [] for m in machine}
    waiting: dict[str, list[tuple[float, int]]] = {m: [] for m in machine}
    free = dict.fromkeys(machine, 0.0)
    for task in range(len(seconds)):
        if waits[task] == 0:
            heapq.heappush(arriving[machine[task]], (0.0, task))
    for _ in range(len(seconds)):
        name = min(
            (m for m in free if arriving[m] or waiting[m]), key=lambda m: (_next_start(m, free, arriving, waiting), m)
        )
        now = _next_start(name, free, arriving, waiting)
        while arriving[name] and arriving[name][0][0] <= now:
            _, task = heapq.heappop(arriving[name])
            heapq.heappush(waiting[name], (-tail[task], task))
        _, task = heapq.heappop(waiting[name])
        start[task] = now
        free[name] = now + seconds[task]
        for edge in follows[task]:
            after = edge.after
            ready_at[after] = max(ready_at[after], free[name] + edge.delay_s)
            waits[after] -= 1
            if waits[after] == 0:
                heapq.heappush(arriving[machine[after]], (ready_at[after], after))
    return start


def _next_start(
    name: str,
    free: dict[str, float],
    arriving: dict[str, list[tuple[float, int]]],
    waiting: dict[str, list[tuple[float, int]]],
) -> float:
    if waiting[name]:
        return free[name]
    return max(free[name], arriving[name][0][0])
