"""Why a placement looks as it does: what forced a switch, what a restriction costs, and what other sets of engines reach."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from orchard.cost.eligibility import Finding
from orchard.mapping.engine_plan import ENGINES
from orchard.search.errors import NoPlacement
from orchard.search.placement import PlacementProblem, lowest_product, solve
from orchard.studies.place_problem import Placing
from orchard.studies.placed import PlacedPhase, Run

Ints = NDArray[np.int64]
MOST_RESTRICTIONS = 5
MOST_EXPLAINED = 40
"""Segments that are priced on the engine before them; the rest only says whether an op forced them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Alternative:
    """The best on a set of engines; `value` in the objective's unit, None where the set has none. `lifted`: ops that no
    engine of the set takes, priced as if one did."""

    engines: tuple[str, ...]
    value: float | None
    total_s: float | None
    total_j: float | None
    proven: bool
    lifted: int

    def to_dict(self) -> dict[str, Any]:
        return {
            "engines": list(self.engines), "value": self.value, "total_s": self.total_s, "total_j": self.total_j,
            "proven": self.proven, "lifted_ops": self.lifted,
        }  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Restriction:
    """Ops that an engine does not take for one reason, and the best placement if it did. `saves`: value less that."""

    engine: str
    rule: str
    reason: str
    change: str
    source: str
    ops: int
    first: str
    value: float
    saves: float

    def to_dict(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(frozen=True, slots=True)
class Best:
    """A choice with its proof, in the objective's unit."""

    choice: Ints
    value: float
    bound: float
    gap: float
    method: str
    explored: int


def best_of(seconds: PlacementProblem, joules: PlacementProblem, objective: str, time_limit_s: float) -> Best:
    """The least seconds (`latency`), joules (`energy`) or product of both (`edp`). Raises NoPlacement."""
    if objective == "edp":
        product = lowest_product(seconds, joules, lambda p: solve(p, time_limit_s=time_limit_s))
        method = f"{product.solves} weighted sums"
        return Best(product.choice, product.value, product.bound, product.gap, method, product.solves)
    found = solve(seconds if objective == "latency" else joules, time_limit_s=time_limit_s)
    return Best(found.choice, found.value, found.bound, found.gap, found.method, found.explored)


def value_of_choice(placing: Placing, choice: Ints, objective: str) -> float:
    """The objective of any choice, restrictions ignored."""
    seconds = replace(placing.seconds, cost=placing.free_seconds, capacities=()).value(choice)
    joules = replace(placing.joules, cost=placing.free_joules, capacities=()).value(choice)
    return {"latency": seconds, "energy": joules, "edp": seconds * joules}[objective]


def alternatives(placing: Placing, best: Best, objective: str, time_limit_s: float) -> tuple[Alternative, ...]:
    """Every smaller set of the engines in question, single engines first. A set that holds every engine of the best has it."""
    engines = [e for e in ENGINES if any(o.engine == e for o in placing.options)]
    sets = [s for n in range(1, len(engines)) for s in itertools.combinations(engines, n)]
    used = {placing.options[int(o)].engine for o in np.unique(best.choice)}
    same = Alternative(
        engines=(), value=best.value, total_s=placing.seconds.value(best.choice),
        total_j=placing.joules.value(best.choice), proven=best.gap == 0.0, lifted=0,
    )  # fmt: skip
    reached = used if not placing.unplaceable and np.isfinite(same.total_s or 0.0) else set(ENGINES) | {""}
    return tuple(
        replace(same, engines=s) if reached <= set(s) else _on(placing, s, objective, time_limit_s) for s in sets
    )


def _on(placing: Placing, engines: tuple[str, ...], objective: str, time_limit_s: float) -> Alternative:
    allowed = np.array([o.engine in engines for o in placing.options])
    finite = np.isfinite(placing.seconds.cost) & allowed
    stuck = ~finite.any(axis=1)
    finite[stuck] = allowed
    lifted = set(np.flatnonzero(stuck).tolist()) | placing.unplaceable
    ops = len({f.op for n in lifted for o in placing.options for f in placing.reasons(n, o)})
    seconds = replace(placing.seconds, cost=np.where(finite, placing.free_seconds, np.inf))
    joules = replace(placing.joules, cost=np.where(finite, placing.free_joules, np.inf))
    if len(engines) == 1:
        seconds, joules = replace(seconds, capacities=()), replace(joules, capacities=())
    try:
        best = best_of(seconds, joules, objective, time_limit_s)
    except NoPlacement:
        return Alternative(engines=engines, value=None, total_s=None, total_j=None, proven=False, lifted=ops)
    return Alternative(
        engines=engines, value=best.value, total_s=seconds.value(best.choice), total_j=joules.value(best.choice),
        proven=best.gap == 0.0, lifted=ops,
    )  # fmt: skip


def restrictions(placing: Placing, objective: str, value: float, time_limit_s: float) -> tuple[Restriction, ...]:
    """The reasons that keep most ops off an engine, each lifted on its own, then all of them."""
    groups: dict[_Reason, list[tuple[int, Finding]]] = {}
    for engine, node, finding in _findings(placing):
        groups.setdefault((engine, finding.rule, finding.kind), []).append((node, finding))
    largest = sorted(groups, key=lambda g: (-len({f.op for _, f in groups[g]}), g))[:MOST_RESTRICTIONS]
    found = [_lifted(placing, objective, value, time_limit_s, {key}, groups[key]) for key in largest]
    if len(groups) > 1:
        everything = [m for members in groups.values() for m in members]
        every = _lifted(placing, objective, value, time_limit_s, set(groups), everything)
        found.append(replace(every, engine="", rule="all", reason="every reason together", change="", source=""))
    return tuple(sorted(found, key=lambda r: (r.rule == "all", -r.saves)))


_Reason = tuple[str, str, str]
"""Engine, rule and op kind."""


def _findings(placing: Placing) -> Iterator[tuple[str, int, Finding]]:
    """What keeps nodes off each engine in the precision that it takes most of."""
    for part in placing.parts:
        last = {o.engine: o for o in placing.options}  # FP16 comes after the stored formats
        for engine, option in last.items():
            for unit, reasons in part.blocked[option].items():
                yield from ((engine, part.first + unit, finding) for finding in reasons)


def _lifted(
    placing: Placing, objective: str, value: float, time_limit_s: float, lifted: set[_Reason],
    members: list[tuple[int, Finding]],
) -> Restriction:  # fmt: skip
    allowed = np.isfinite(placing.seconds.cost)
    for node in {n for n, _ in members}:
        for column, option in enumerate(placing.options):
            if all((option.engine, f.rule, f.kind) in lifted for f in placing.reasons(node, option)):
                allowed[node, column] = True
    seconds = replace(placing.seconds, cost=np.where(allowed, placing.free_seconds, np.inf))
    joules = replace(placing.joules, cost=np.where(allowed, placing.free_joules, np.inf))
    found = best_of(seconds, joules, objective, time_limit_s).value
    engine, (_, first) = next(iter(sorted(lifted)))[0], members[0]
    return Restriction(
        engine=engine, rule=first.rule, reason=f"{first.kind}: {first.reason}", change=first.change, source=first.source,
        ops=len({f.op for _, f in members}), first=first.op, value=min(found, value), saves=max(value - found, 0.0),
    )  # fmt: skip


def explained(placing: Placing, index: int, choice: Ints, phase: PlacedPhase, objective: str) -> PlacedPhase:
    """The phase with a reason for every switch."""
    runs = list(phase.runs)
    segments = phase.plan.segments
    part = placing.parts[index]
    base = value_of_choice(placing, choice, objective) if len(runs) > 1 else 0.0
    for at in range(1, len(runs)):
        segment = segments[at]
        names = [o for g in phase.plan.groups[segment.first : segment.last + 1] for o in g.ops]
        nodes = sorted({part.first + part.units.unit_of[o] for o in names})
        before = runs[at - 1].engine
        runs[at] = _with_reason(
            placing, choice, runs[at], before, nodes, base, objective if at <= MOST_EXPLAINED else None
        )
    return replace(phase, runs=tuple(runs))


def _with_reason(
    placing: Placing, choice: Ints, run: Run, before: str, nodes: list[int], base: float, objective: str | None
) -> Run:
    for node in nodes:
        mine = placing.options[int(choice[node])]
        reasons = placing.reasons(node, replace(mine, engine=before))
        if reasons:
            first = reasons[0]
            return replace(run, forced=True, why=f"{first.op}: {first.reason} ({first.source})")
    if objective is None:
        return replace(run, why="cheaper here")
    moved = choice.copy()
    for node in nodes:
        moved[node] = placing.options.index(replace(placing.options[int(choice[node])], engine=before))
    more = value_of_choice(placing, moved, objective) - base
    much = f"{more / base:.2%} more" if more < base else f"{1 + more / base:.3g} times"
    return replace(run, why=f"kept on {before}, the whole would cost {much}")
