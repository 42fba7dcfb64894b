"""How much memory is worth having: the least words that must cross the outermost port, for every capacity of one level.

The machine is reduced to the outermost memory, the level in question and the MACs. Whatever stands further in only takes its
words from that level, so its traffic outwards cannot be lower than what a free choice of tiles there gives: the curve is a
floor for every machine with such a level, and exact for this one. Copies count together: what several hold, one could.
One search finds all of it: partial mappings are compared by words
moved and words held, without a limit on either, so what is left at the end are the corners of the staircase.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from orchard.hw.arch import Architecture, Compute, FanOut, Level
from orchard.mapping.errors import MappingError
from orchard.mapping.lattice import Factors, lattice_of
from orchard.mapping.nest import Nest
from orchard.mapping.problem import Problem
from orchard.search.layered import Batch, Slot, fronts
from orchard.studies.map import patterns
from orchard.studies.nest_search import NestModel
from orchard.units import did_you_mean

KNEE = 0.3
"""Exponent of capacity below which more memory is judged to bring little: doubling it saves less than 1 - 2^-0.3 = 19 %."""


@dataclass(frozen=True)
class Corner:
    """From `capacity_bytes` of the level up to the next corner, `traffic_bytes` cross the outermost port, and no fewer can."""

    capacity_bytes: float
    traffic_bytes: float
    nest: Nest


@dataclass(frozen=True)
class CapacityCurve:
    """The staircase, smallest capacity first; `compulsory_bytes` is every operand once, `has_bytes` what the machine has."""

    problem: Problem
    arch: Architecture
    reduced: Architecture
    level: str
    factors: Factors
    corners: tuple[Corner, ...]
    compulsory_bytes: float
    has_bytes: float | None
    considered: int

    @property
    def enough_bytes(self) -> float:
        """The capacity from which more memory brings nothing."""
        return self.corners[-1].capacity_bytes

    def traffic_at(self, capacity_bytes: float) -> float | None:
        """Least traffic with so much memory; None where not even one element of each operand fits."""
        fitting = [c.traffic_bytes for c in self.corners if c.capacity_bytes <= capacity_bytes * (1 + 1e-12)]
        return fitting[-1] if fitting else None

    @property
    def reaches_compulsory(self) -> bool:
        """False where an operand may not stay in the level and is read again and again."""
        return self.corners[-1].traffic_bytes <= self.compulsory_bytes * (1 + 1e-9)

    @property
    def knee(self) -> Corner:
        """The corner on the lower hull of log traffic over log capacity beyond which doubling the memory saves less than 19 %."""
        hull = _hull(self.corners)
        return next(a for a, b in zip(hull, [*hull[1:], None]) if _slope(a, b) > -KNEE)


def _slope(left: Corner, right: Corner | None) -> float:
    """Exponent of capacity between two corners; 0 beyond the last."""
    if right is None:
        return 0.0
    return math.log(right.traffic_bytes / left.traffic_bytes) / math.log(right.capacity_bytes / left.capacity_bytes)


def _hull(corners: tuple[Corner, ...]) -> list[Corner]:
    hull: list[Corner] = []
    for corner in corners:
        while len(hull) > 1 and _slope(hull[-2], hull[-1]) >= _slope(hull[-1], corner):
            hull.pop()
        hull.append(corner)
    return hull


class _FreeCapacity(NestModel):
    """The mapper's moves with the words held in the level as a cost to compare, not as a limit."""

    def expand(self, slot: Slot, batch: Batch, best: float) -> Iterable[tuple[Slot, Batch]]:
        for onward, piece in super().expand(slot, batch, best):
            if piece.move == "next":  # the level is left: what it holds stays known
                carried: dict[str, Any] = {**piece.carried, "room": batch.carried["room"]}
                yield onward, self._batch(onward, carried, piece.origin, "next")
            else:
                yield onward, piece


def capacity_curve(
    problem: Problem, arch: Architecture, level: str | None = None, *, factors: Factors = "perfect"
) -> CapacityCurve:
    """Least off-chip traffic against the capacity of `level` (the largest below the outermost memory where None).

    Exact over tiles that divide their dim, or over the listed ragged ones (`factors`). Raises MappingError for a level that the
    machine does not have, or that holds none of the operands.
    """
    chosen = _level(arch, level)
    if not any(chosen.may_hold(problem.role(t)) for t in problem.tensors):
        raise MappingError(f"level {chosen.name!r} of {arch.name} holds no operand of {problem.name}")
    per_word = arch.word_bits / 8
    whole = sum(_elements(problem, t) * problem.words(t, arch.word_bits) for t in problem.tensors)
    reduced = _reduced(arch, chosen, math.ceil(whole) + 1)
    lattice = lattice_of(problem, factors, ())
    found: list[tuple[float, float, Nest]] = []
    considered = 0
    for pattern in patterns(problem, reduced):
        model = _FreeCapacity(
            problem, reduced, lattice, pattern, "traffic", compare_time=False, ragged=factors == "imperfect"
        )
        done = fronts(model)
        considered += done.considered
        for slot, batch in done.finals.items():
            held, moved = batch.carried["room"], batch.carried["energy"]
            for row in _staircase(held, moved):
                found.append((float(held[row]), float(moved[row]), model.nest(done.trail(slot, row))))
    held, moved = np.array([f[0] for f in found]), np.array([f[1] for f in found])
    twice = 2 if chosen.buffering == "double" else 1
    corners = [
        Corner(found[i][0] * per_word * twice, found[i][1] * per_word, found[i][2]) for i in _staircase(held, moved)
    ]
    paid = sum(
        _elements(problem, t) * problem.words(t, arch.word_bits) for t in problem.tensors if problem.pays_root(t)
    )
    return CapacityCurve(
        problem,
        arch,
        reduced,
        chosen.name,
        factors,
        tuple(corners),
        paid * per_word,
        _has(arch, chosen, per_word),
        considered,
    )


def _staircase(held: Any, moved: Any) -> list[int]:
    """Rows that no other beats or equals in both, by rising capacity."""
    rows: list[int] = []
    for row in np.lexsort((moved, held)):
        if not rows or moved[row] < moved[rows[-1]] * (1 - 1e-12):
            rows.append(int(row))
    return rows


def _elements(problem: Problem, tensor: str) -> int:
    from orchard.mapping.footprint import axis_footprint

    total = 1
    for axis in problem.access(tensor):
        total *= axis_footprint(axis, tuple(problem.sizes[d] for d in axis.dims))
    return total


def _level(arch: Architecture, name: str | None) -> Level:
    inside = arch.levels[1:]
    if not inside:
        raise MappingError(f"{arch.name} has no memory below {arch.levels[0].name}")
    if name is None:
        return inside[0]
    for level in inside:
        if level.name.lower() == name.lower():
            return level
    known = [level.name for level in inside]
    raise MappingError(
        f"level {name[:40]!r} is not in {arch.name}{did_you_mean(name, known)}; it has {', '.join(known)}"
    )


def _has(arch: Architecture, level: Level, per_word: float) -> float | None:
    """Bytes of all copies of the level together."""
    words = level.capacity_words
    if words is None:
        return None
    copies = 1
    for node in arch.nodes[: arch.nodes.index(level)]:
        copies *= node.copies if isinstance(node, FanOut) else 1
    return float(words if isinstance(words, int) else sum(words.values())) * per_word * copies


def _reduced(arch: Architecture, level: Level, words: int) -> Architecture:
    """The outermost memory, one level that holds everything, and the MACs; what the level may hold stays as it is."""
    roles = ("I", "W", "O", *(f"I{i}" for i in range(3, 33)))
    must = frozenset(role for role in roles if level.must_hold(role))
    root = replace(
        arch.levels[0],
        read_energy_pj=0.0,
        write_energy_pj=0.0,
        bandwidth=None,
        read_bandwidth=None,
        write_bandwidth=None,
    )
    free = Level(name=level.name, capacity_words=words, keep=must, may_keep=level.may_keep, order=level.order)
    return Architecture(
        name=arch.name, nodes=(root, free), compute=Compute(), word_bits=arch.word_bits, clock_hz=arch.clock_hz
    )
