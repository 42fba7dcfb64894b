"""Independent branches on different engines at the same time: what a placement reaches then, and what moving branches adds.

One launch at a time per engine; a hand-over delays its readers and occupies no engine; the call floors of all engines in use come
first. Units start by list scheduling, longest remaining path first. Nothing slows down for sharing the memory: that is the
simulator's work. The objective of a placement does not see any of this (it is a sum), so `overlap` also tries to move whole
branches (chains of units with one reader each) to other engines while that ends the pass earlier, and says how far the result
is from what no placement and no order can beat:

* the longest path with every unit on its fastest engine and no hand-overs, and
* the least load of the busiest engine when units may be split among engines (a linear programme),

each plus the smallest call floor.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from orchard.search.placement import Net
from orchard.search.schedule import Edge, Schedule, list_schedule
from orchard.studies.place_problem import Part, Placing

Ints = NDArray[np.int64]
MOST_STEPS = 40_000
"""Units scheduled in all while branches are moved (a step is about 10 us): the search looks at this many, however fast the
machine."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Overlap:
    """Seconds per pass with branches side by side.

    latency_s, bound_s   of the placement; no order of its units ends before `bound_s`
    per_s                passes per second when inputs follow without waiting: one over the busiest engine's time
    moved_s, moved_ops   after moving branches (`moved_ops` ops changed engine; 0: none helped), with the first of them and
    where to least_s              no placement and no order ends earlier
    """

    latency_s: float
    bound_s: float
    per_s: float
    moved_s: float
    moved_ops: int
    moved_first: str
    least_s: float


def overlap(placing: Placing, index: int, choice: Ints) -> Overlap:
    """Phase `index` under a full choice."""
    phase = _Phase(placing, index)
    mine = np.asarray(choice[phase.part.first : phase.part.first + len(phase.part.units)])
    start, calls = phase.schedule(mine)
    moved, reached = phase.improved(mine)
    changed = [u for u in range(len(mine)) if phase.engine(moved[u]) != phase.engine(mine[u])]
    first = f"{phase.part.units.ops[changed[0]][0]} to {phase.engine(moved[changed[0]])}" if changed else ""
    busiest = max((s + phase.calls.get(e, 0.0) for e, s in start.busy_s.items()), default=0.0)
    return Overlap(
        latency_s=start.end_s + calls, bound_s=start.bound_s + calls, per_s=1.0 / busiest if busiest > 0 else 0.0,
        moved_s=reached, moved_ops=sum(len(phase.part.units.ops[u]) for u in changed), moved_first=first,
        least_s=min(phase.least(), reached),
    )  # fmt: skip


class _Phase:
    def __init__(self, placing: Placing, index: int) -> None:
        self.placing = placing
        self.part: Part = placing.parts[index]
        rows = slice(self.part.first, self.part.first + len(self.part.units))
        self.seconds = placing.free_seconds[rows] / self.part.times
        self.allowed = np.isfinite(placing.seconds.cost[rows])
        self.calls = {o.engine: p.call_s for o, p in self.part.prices.items()}
        self.nets = [
            net
            for info, net in zip(placing.nets, placing.seconds.nets)
            if info.part == index and info.kind in ("flow", "state", "cast")
        ]

    def engine(self, option: int) -> str:
        return self.placing.options[int(option)].engine

    def schedule(self, choice: Ints) -> tuple[Schedule, float]:
        """(schedule of units, call floors)."""
        edges: dict[tuple[int, int], float] = {}
        for net in self.nets:
            before = net.source - self.part.first
            for reader in net.readers:
                at = (before, reader - self.part.first)
                edges[at] = edges.get(at, 0.0) + self._delay(net, choice, at)
        engines = [self.engine(o) for o in choice]
        own = self.seconds[np.arange(len(choice)), choice]
        found = list_schedule([float(s) for s in own], engines, [Edge(a, b, d) for (a, b), d in edges.items()])
        return found, sum(self.calls[e] for e in dict.fromkeys(engines))

    def _delay(self, net: Net, choice: Ints, at: tuple[int, int]) -> float:
        home, there = net.labels[int(choice[at[0]])], net.labels[int(choice[at[1]])]
        return 0.0 if home == there else (net.leave[home] + net.enter[there]) / self.part.times

    def _end(self, choice: Ints) -> float:
        found, calls = self.schedule(choice)
        return found.end_s + calls

    def improved(self, choice: Ints) -> tuple[Ints, float]:
        """(choice, seconds) after moving branches while it helps, the longest branches first."""
        best, reached = choice.copy(), self._end(choice)
        chains = sorted(self.chains(), key=lambda c: (-float(self.seconds[c].min(axis=1).sum()), c[0]))
        left = MOST_STEPS // max(1, len(choice))
        helped = len(chains) > 1 and self.seconds.shape[1] > 1
        while helped and left > 0:
            helped = False
            for chain in chains:
                for option in range(self.seconds.shape[1]):
                    moved = best.copy()
                    moved[[u for u in chain if self.allowed[u, option]]] = option
                    if left <= 0 or np.array_equal(moved, best):
                        continue
                    left -= 1
                    end = self._end(moved)
                    if end < reached * (1 - 1e-9):
                        best, reached, helped = moved, end, True
        return best, reached

    def chains(self) -> list[list[int]]:
        """Units in runs where each has one reader and each but the first one source."""
        after: dict[int, set[int]] = {u: set() for u in range(len(self.part.units))}
        before: dict[int, set[int]] = {u: set() for u in after}
        for net in self.nets:
            for reader in net.readers:
                after[net.source - self.part.first].add(reader - self.part.first)
                before[reader - self.part.first].add(net.source - self.part.first)
        found: list[list[int]] = []
        place: dict[int, list[int]] = {}
        for unit in after:
            sources = before[unit]
            only = next(iter(sources)) if len(sources) == 1 else -1
            if only >= 0 and len(after[only]) == 1:
                place[unit] = place[only]
                place[unit].append(unit)
            else:
                place[unit] = [unit]
                found.append(place[unit])
        return found

    def least(self) -> float:
        fastest = np.where(self.allowed, self.seconds, np.inf).min(axis=1)
        tail = np.array(fastest)
        for net in reversed(self.nets):
            source = net.source - self.part.first
            reach = max(tail[r - self.part.first] for r in net.readers)
            tail[source] = max(tail[source], fastest[source] + reach)
        return float(max(tail.max(), self._split_load())) + min(self.calls.values())

    def _split_load(self) -> float:
        """Least time of the busiest engine if units could be split among engines."""
        from scipy.optimize import linprog
        from scipy.sparse import coo_matrix

        engines = list(dict.fromkeys(o.engine for o in self.placing.options))
        units, options = np.nonzero(self.allowed)
        count = len(units)
        scale = float(self.seconds[self.seconds > 0].max()) if (self.seconds > 0).any() else 1.0
        of = np.array([engines.index(self.engine(o)) for o in range(self.seconds.shape[1])])
        load = coo_matrix(
            (self.seconds[units, options] / scale, (of[options], np.arange(count))), shape=(len(engines), count)
        )
        upper = np.hstack([load.toarray(), -np.ones((len(engines), 1))])
        whole: Any = coo_matrix((np.ones(count), (units, np.arange(count))), shape=(len(self.seconds), count + 1))
        cost = np.zeros(count + 1)
        cost[-1] = 1.0
        found = linprog(
            cost, A_ub=upper, b_ub=np.zeros(len(engines)), A_eq=whole.tocsr(), b_eq=np.ones(len(self.seconds))
        )
        return float(found.fun or 0.0) * scale * (1 - 1e-9) if found.status == 0 else 0.0
