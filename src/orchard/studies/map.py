"""Map one op on one machine: wire the lattice, the word counts and the exact search, and check the answer by the nest's counts.

The proof has two passes. The first ignores that memory ports may be slower than the MACs: a smaller problem whose optimum bounds
the true one from below. If its answer, with port time counted, reaches that bound or the best known answer, the proof is done.
Otherwise the second pass compares port words as well.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from math import factorial
from typing import Any

import numpy as np

from orchard.cost.mapped import Estimate, check_capacity, estimate
from orchard.cost.nest import Counts, count
from orchard.hw.arch import Architecture
from orchard.mapping.constraints import (
    FREE,
    Constraints,
    constrained_arch,
    refuse_tiles,
    violation,
)
from orchard.mapping.errors import ImpossibleSpace, MappingError
from orchard.mapping.lattice import Factors, Lattice, lattice_of, spreads
from orchard.mapping.nest import Nest, nest_errors
from orchard.mapping.problem import Problem
from orchard.search.layered import Outcome, Slot, solve
from orchard.studies.nest_search import NestModel, Objective, Pattern

OBJECTIVES = ("edp", "energy", "latency", "traffic")
_BEAMS = {"latency": ((16, False), (64, True), (100, False))}
_BEAM = ((100, False),)
"""Width of each pass that looks for a good answer, and whether it spreads. A narrow one often meets the floor of latency; then
nothing is left to do."""
_WIDER = (300, 1000, 3000)
"""Beams tried in turn before the full pass: the better the answer known, the less the proof has to look at."""
_AGREE = 1e-5  # relative, and absolute where the value is 0: ties are broken by up to 1e-9 of a second criterion
_ROUNDING = 1e-9


class _OutOfTime(Exception):  # noqa: N818 - a signal, not an error
    """Raised inside a search whose time is up; never leaves this module."""


@dataclass(frozen=True)
class MappedOp:
    """The best mapping of one op, what it does and costs, and how far the proof goes."""

    problem: Problem
    arch: Architecture
    objective: Objective
    nest: Nest
    counts: Counts
    estimate: Estimate
    optimal: bool
    bound: float  # of the objective
    mappings_considered: int
    mappings_in_space: int
    search_s: float

    @property
    def value(self) -> float:
        return objective_value(self.objective, self.estimate, self.counts, self.arch, self.problem)


def objective_value(objective: str, cost: Estimate, counts: Counts, arch: Architecture, problem: Problem) -> float:
    """EDP in pJ x cycles, energy in pJ, latency in cycles, or traffic in words at the outermost memory."""
    if objective == "traffic":
        root = arch.levels[0].name
        return sum(
            (counts.traffic[root, t].reads + counts.traffic[root, t].writes) * problem.words(t, arch.word_bits)
            for t in problem.tensors
            if problem.pays_root(t)
        )
    return {"edp": cost.edp, "energy": cost.energy_pj, "latency": cost.latency_cycles}[objective]


def patterns(problem: Problem, arch: Architecture, rules: Constraints = FREE) -> list[Pattern]:
    """Every choice of which tensors stay in which levels, most residency first."""
    per_level: list[list[tuple[str, ...]]] = []
    for level in arch.levels[1:]:
        rule = rules.level(level.name)
        must = [t for t in problem.tensors if level.must_hold(problem.role(t)) or t in rule.keep]
        may = [t for t in problem.tensors if level.may_hold(problem.role(t)) and t not in (*must, *rule.bypass)]
        choices = [[t for t, on in zip(may, bits) if on] for bits in product((True, False), repeat=len(may))]
        per_level.append([tuple(t for t in problem.tensors if t in must or t in some) for some in choices])
    names = [level.name for level in arch.levels[1:]]
    return [Pattern(dict(zip(names, held))) for held in product(*per_level)]


def map_op(
    problem: Problem,
    arch: Architecture,
    objective: Objective = "edp",
    *,
    factors: Factors = "perfect",
    constraints: Constraints = FREE,
    time_limit_s: float | None = None,
    gap: float = 0.0,
    say: Callable[[str], None] = lambda _: None,
) -> MappedOp:
    """Best mapping of `problem` on `arch`, of those that obey `constraints`. Raises ImpossibleSpace where nothing fits.

    `factors` opens ragged tiles ("imperfect"). `gap` stops the proof where no mapping is better by more than that share
    (`bound` says how far it got; `optimal` is then only True where it got all the way). With `time_limit_s` the proof may stay
    open: `optimal` is then False. So it is for ragged tiles on a machine with several fan-outs, where the search is not exact.
    """
    if objective not in OBJECTIVES:
        raise MappingError(f"objective is {objective!r}, expected one of {', '.join(OBJECTIVES)}")
    started = time.perf_counter()
    lanes = tuple(sorted({size for fan in arch.fan_outs for size in fan.axes.values()}))
    lattice = lattice_of(problem, factors, lanes)
    refuse_tiles(constraints, lattice.dims, lattice.tiles, problem, factors)
    machine = constrained_arch(arch, constraints)
    search = _Search(problem, machine, lattice, objective, factors == "imperfect", constraints, started, time_limit_s, gap)
    candidates, refused = patterns(problem, arch, constraints), None
    for pattern in candidates:
        try:
            search.beam(pattern)
        except ImpossibleSpace as error:
            refused = error
    if search.best is None and refused is not None:
        raise refused
    for pattern in candidates:
        say(f"proving {problem.name}: pattern {candidates.index(pattern) + 1} of {len(candidates)}")
        search.prove(pattern)
    if search.best is None:
        remedy = "enlarge the innermost level" if constraints == FREE else "loosen a constraint: each fits by itself"
        raise ImpossibleSpace(f"{problem.name} on {arch.name}: no mapping fits all levels at once; {remedy}")
    _, nest = search.best
    nest_errors(nest, problem, machine)
    broken = violation(nest, constraints, problem, arch)
    assert broken is None, f"the search broke a constraint: {broken}"
    counts = count(nest, problem, arch)
    check_capacity(counts, problem, arch)
    cost = estimate(counts, problem, arch)
    value = objective_value(objective, cost, counts, arch, problem)
    space = sum(space_size(problem, machine, lattice, pattern) for pattern in candidates)
    bound = min(search.bound, value)
    # Ragged tiles over several fan-outs share words between copies unevenly, which the search does not count exactly.
    exact = factors == "perfect" or len(arch.fan_outs) < 2
    # Nor is a proof worth anything where the search charged its answer more than the nest's own counts say.
    exact = exact and search.best[0] <= value * (1 + _AGREE) + _AGREE
    return MappedOp(
        problem, arch, objective, nest, counts, cost, exact and search.proven and bound >= value * (1 - 1e-6), bound,
        search.considered, space, time.perf_counter() - started,
    )  # fmt: skip


class _Search:
    """Best answer, bound and counts over all patterns of residency."""

    def __init__(
        self, problem: Problem, arch: Architecture, lattice: Lattice, objective: Objective, ragged: bool,
        rules: Constraints, started: float, time_limit_s: float | None, gap: float,
    ) -> None:  # fmt: skip
        self.problem, self.arch, self.lattice, self.objective, self.ragged = problem, arch, lattice, objective, ragged
        self.rules = rules
        self.best: tuple[float, Nest] | None = None
        self.bound = float("inf")
        self.considered = 0
        self.proven = True
        self.least = 1.0 - max(gap, _ROUNDING)  # only what is better than this share of the best is looked for
        self.deadline = None if time_limit_s is None else started + time_limit_s

    def model(self, pattern: Pattern, compare_time: bool) -> NestModel:
        return NestModel(
            self.problem,
            self.arch,
            self.lattice,
            pattern,
            self.objective,
            compare_time=compare_time,
            ragged=self.ragged,
            rules=self.rules,
        )

    def beam(self, pattern: Pattern) -> None:
        """A good answer soon."""
        model = self.model(pattern, compare_time=True)
        for width, spread in _BEAMS.get(self.objective, _BEAM):
            if self._worst() > self._floor(pattern) * (1 + _ROUNDING):
                self._take(model, solve(model, beam=width, spread=spread, incumbent=self._worst()))

    def prove(self, pattern: Pattern) -> None:
        """Everything that could beat the best answer, in at most two passes."""
        try:
            for width in _WIDER:
                model = self.model(pattern, compare_time=True)
                limit = self._worst()
                outcome = solve(model, beam=width, incumbent=limit * self.least, progress=self._watch)
                self._take(model, outcome)
                if outcome.exact:
                    self.bound = min(
                        self.bound, outcome.score if outcome.trail is not None else self._reached(limit, pattern)
                    )
                    return
            for compare_time in (False, True):
                model = self.model(pattern, compare_time)
                limit = self._worst()
                outcome = solve(model, incumbent=limit * self.least, progress=self._watch)
                self._take(model, outcome)
                relaxed = outcome.score if outcome.trail is not None else self._reached(limit, pattern)
                if compare_time or self._worst() * self.least <= relaxed:
                    self.bound = min(self.bound, relaxed)
                    return
        except ImpossibleSpace:
            return
        except _OutOfTime:
            self.proven = False
            self.bound = min(self.bound, self._floor(pattern))

    def _reached(self, limit: float, pattern: Pattern) -> float:
        """The bound when nothing below `limit * least` was found: that, or the floor where it is higher."""
        if self.least >= 1.0 - _ROUNDING:
            return limit
        return min(limit, max(limit * self.least, self._floor(pattern)))

    def _floor(self, pattern: Pattern) -> float:
        model = self.model(pattern, compare_time=True)
        slot, batch = model.first()
        return float(model.lower_bound(slot, batch)[0])

    def _worst(self) -> float:
        return float("inf") if self.best is None else self.best[0]

    def _watch(self, slot: Slot, came: int, kept: int) -> None:
        del slot, came, kept
        if self.deadline is not None and time.perf_counter() > self.deadline:
            raise _OutOfTime

    def _take(self, model: NestModel, outcome: Outcome) -> None:
        self.considered += outcome.considered
        if outcome.trail is None:
            return
        nest = model.nest(outcome.trail)
        score = self._true_score(model, outcome.trail.steps[-1][2])
        if score < self._worst():
            self.best = (score, nest)

    def _true_score(self, model: NestModel, row: dict[str, Any]) -> float:
        """Score with port time counted, whatever the pass compared."""
        energy, steps = np.array([row["energy"]]), np.array([row["steps"]])
        return float(model.score_with_time(energy, steps, row["words"][None, :])[0])


def space_size(problem: Problem, arch: Architecture, lattice: Lattice, pattern: Pattern) -> int:
    """Mappings in the space: orders of the tensors in every level x chains of tiles per dim x ways to use the copies.

    Between k tensor marks each dim has k tiles that divide one another: chains in its divisor lattice, counted exactly.
    """
    marks = sum(len(held) for held in pattern.held.values())
    total = 1
    for held in pattern.held.values():
        total *= factorial(len(held))
    for raises, tiles in zip(lattice.raises, lattice.tiles):
        starts, counts, flat = raises
        ways = [1] * len(tiles)
        for _ in range(marks):
            ways = [sum(ways[int(j)] for j in flat[starts[i] : starts[i] + counts[i]]) for i in range(len(tiles))]
        total *= ways[0]
    for fan in arch.fan_outs:
        total *= len(spreads(problem, fan, lattice).splits)
    return total
