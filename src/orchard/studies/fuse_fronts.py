"""What each op of a chain can do below shared loops: one search per op, all tiles of the shared loops at once.

The op's nest below the fusion level is searched by the moves of `orchard.studies.nest_search` on the whole op, with three
differences. Any tensor may be left out of the fusion level's placing: it is then there already (an intermediate, or pinned by
the shared loops). Tiles do not wait across the fusion level, because other ops run in between. And the search stops there: a
finished row says which tiles the nest needs at least (`reach`), and stands for every tile of the shared loops that these divide.
With tiles that divide one another the words of a flow depend on the tiles below it and on the dims' whole sizes only, so a row
costs the same (over all iterations) under every one of these shared tiles; `orchard.cost.chain` counts it, and a test compares.

Dims that follow windows have blocks that do not divide the dim, and blocks that overlap. But words and steps of a row are also
proportional to every dim that the op does not sum over, as long as the row's tiles divide it. So such an op is searched on a
problem whose following dims are a common multiple of all their blocks, with the blocks' divisors as tiles (`op_space`); a row
stands for every block that its tiles divide, at the block's share of the cost.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import combinations
from math import lcm
from typing import Any

import numpy as np
from numpy.typing import NDArray

from orchard.hw.arch import Architecture
from orchard.mapping.chain import Chain
from orchard.mapping.fused import Shape, keepable, shared_dims
from orchard.mapping.halo import Blocks, least_rows
from orchard.mapping.lattice import Lattice, Spread, divisors, lattice_of
from orchard.mapping.nest import Nest
from orchard.mapping.problem import Problem
from orchard.search.layered import Batch, Fronts, Progress, Slot, fronts
from orchard.studies.nest_search import NestModel, Objective, Pattern, _parts

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Rest:
    """What the rest of the chain costs at the very least, to bound one op's partial answers."""

    energy: float = 0.0  # pJ (or words of the outermost memory, for traffic)
    mac_cycles: float = 0.0  # adds to the op's MAC cycles
    floor_cycles: float = 0.0  # of any other resource
    own_moved: float = 0.0  # of the op's external tensors, between the outermost memory and the fusion level
    moved: Mapping[str, float] = field(default_factory=dict)  # the same by tensor


class OpModel(NestModel):
    """`orchard.search.layered.Model` for one op of a chain, down from the fusion level."""

    keeps_room = True  # a finished row says what its tiles take

    def __init__(
        self,
        problem: Problem,
        arch: Architecture,
        lattice: Lattice,
        pattern: Pattern,
        objective: Objective,
        rest: Rest,
        *,
        compare_time: bool,
        part: float = 1.0,
        like: OpModel | None = None,
    ) -> None:
        """`part`: of the problem's iterations, those that any mapping of the chain needs. `like`: a model of the same op on the
        same machine, whose tables serve again."""
        self.rest, self.part, self.like = rest, part, like
        super().__init__(problem, arch, lattice, pattern, objective, compare_time=compare_time, ragged=False)
        self.fusion = arch.levels[1]
        self.fusion_stage = self.depth[self.fusion.name]
        for i, flow in enumerate(self.flows):
            if flow.child == self.fusion.name:
                self.least_ends[i] = (0.0, 0.0)  # the tensor may be there already

    def _spreads(self) -> dict[str, Spread]:
        return super()._spreads() if self.like is None else self.like.spread

    def is_final(self, slot: Slot) -> bool:
        return slot[0] == self.fusion_stage + 1

    def expand(self, slot: Slot, batch: Batch, best: float) -> Iterable[tuple[Slot, Batch]]:
        stage, mask, waiting = _parts(slot)
        if stage != self.fusion_stage:
            yield from super().expand(slot, batch, best)
            return
        if waiting < 0:
            onward: Slot = (stage + 1, mask, -1)
            yield onward, self._batch(onward, batch.carried, np.arange(len(batch)), "done")
        yield from self._place(slot, batch, self.fusion)  # while inner tiles wait, too; what is not placed is there already

    def _nothing_outside(self, stage: int) -> bool:  # noqa: ARG002 - shared tiles bound every dim
        return False

    def _may_wait(self, stage: int) -> bool:
        return stage < self.fusion_stage

    def _score(self, energy: Floats, steps: Floats, words: Floats | None) -> Floats:
        total = np.maximum(steps * self.part + self.rest.mac_cycles, self.rest.floor_cycles)
        if words is not None and self.compare_time:
            for column, (level, _, rate) in enumerate(self.limits):
                if level.buffering != "single":
                    total = np.maximum(total, self.part * words[..., column] / rate)
        return self._combine(energy * self.part + self.rest.energy, total)

    def _closed_rest(self, slot: Slot, carried: dict[str, NDArray[Any]]) -> Floats:
        stage, mask, _ = _parts(slot)
        held = self.held[self.fusion.name]
        paid = [t for bit, t in enumerate(held) if mask >> bit & 1] if stage >= self.fusion_stage else []
        moved = self.rest.own_moved - sum(self.rest.moved.get(t, 0.0) for t in paid)
        return super()._closed_rest(slot, carried) + moved / self.part

    def energy_floor(self) -> float:
        """Energy that no mapping of the op beats with all its tensors on the chip already; no search."""
        slot, batch = self.first()
        return float((batch.carried["energy"] + self._rest(slot, batch.carried))[0]) * self.part

    def placed(self, slot: Slot) -> frozenset[str]:
        """Tensors that a finished row loads into the fusion level itself."""
        held = self.held[self.fusion.name]
        return frozenset(t for bit, t in enumerate(held) if _parts(slot)[1] >> bit & 1)


@dataclass(frozen=True)
class OpSpace:
    """What one op of a chain is searched on. `part`: of the problem's iterations, those that any mapping needs."""

    problem: Problem
    lattice: Lattice
    part: float


_MOST_MULTIPLE = 2**40


def tile_options(chain: Chain) -> tuple[dict[str, tuple[int, ...]], bool]:
    """(tiles that shared loops may have, by dim; whether these are all divisors). Followed dims may have to do without some, so
    that the common multiple of all blocks stays a number that arrays can hold."""
    found, complete = {}, True
    for dim, size in chain.sizes.items():
        chosen = [size]
        for tile in reversed(divisors(size)[:-1]):
            if all(lcm(*rows) <= _MOST_MULTIPLE for rows in _blocks_of(chain, dim, (*chosen, tile)).values()):
                chosen.append(tile)
            else:
                complete = False
        found[dim] = tuple(sorted(chosen))
    return found, complete


def _blocks_of(chain: Chain, base: str, tiles: tuple[int, ...]) -> dict[tuple[int, str], set[int]]:
    """By op and dim that follows `base` in some group: the blocks that shared loops with these tiles can ask for."""
    found: dict[tuple[int, str], set[int]] = {}
    if not any(base in w.axis.dims or w.dim == base for w in chain.windows) and not chain.windows:
        return found
    for first, last in combinations(range(len(chain.ops)), 2):
        if base not in shared_dims(chain, first, last):
            continue
        pairs = [pair for pair in keepable(chain, first, last) if pair[1] == base]
        linked = Shape(chain, first, last, ()).links
        for kept in (frozenset(c) for n in range(len(pairs) + 1) for c in combinations(pairs, n)):
            for tile in tiles:
                blocks = Blocks[int](chain, linked, {**chain.sizes, base: tile}.__getitem__, kept)
                for i in range(first, last + 1):
                    for d in chain.ops[i].dims:
                        if linked.base.get(d) == base:
                            made = blocks.made(i, d)
                            later = {made.later} if tile < chain.sizes[base] else set()
                            found.setdefault((i, d), {chain.sizes[d]}).update({made.first, *later})
    return found


def op_spaces(chain: Chain, options: Mapping[str, tuple[int, ...]], lanes: tuple[int, ...]) -> dict[int, OpSpace]:
    """The space of every Einsum of a chain."""
    wanted: dict[tuple[int, str], set[int]] = {}
    for base, tiles in options.items():
        for key, rows in _blocks_of(chain, base, tiles).items():
            wanted.setdefault(key, set()).update(rows)
    return {i: _op_space(chain, i, op, wanted, lanes) for i, op in enumerate(chain.ops) if isinstance(op, Problem)}


def _op_space(
    chain: Chain, index: int, op: Problem, wanted: dict[tuple[int, str], set[int]], lanes: tuple[int, ...]
) -> OpSpace:
    plain = lattice_of(op, "perfect", lanes)
    sizes, tiles, part = dict(op.sizes), [], 1.0
    for dim, divided in zip(plain.dims, plain.tiles):
        rows = wanted.get((index, dim))
        if rows is not None:
            sizes[dim] = lcm(*rows)
            divided = np.array(sorted({d for n in rows for d in divisors(n)}), dtype=np.int64)
            part *= least_rows(chain, dim) / sizes[dim]
        tiles.append(divided)
    problem = Problem(op.name, op.einsum, sizes, op.tensors, op.bits)
    return OpSpace(problem, Lattice(plain.dims, tuple(sizes[d] for d in plain.dims), tuple(tiles)), part)


@dataclass(frozen=True)
class Rows:
    """Finished rows of one op with the same tensors placed: all arrays by row."""

    placed: frozenset[str]
    reach: NDArray[np.int16]  # least tile (index of the lattice) per dim
    energy: Floats  # pJ over the whole op, computed once
    steps: Floats  # MAC steps
    room: Floats  # words of the placed tiles in the fusion level
    words: Floats  # (rows, port limits)
    slot: Slot
    source: Ints  # row in the search
    model: OpModel
    found: Fronts


@dataclass(frozen=True)
class OpFronts:
    """All rows of one op, and how to turn one into a nest."""

    model: OpModel
    considered: int
    rows: tuple[Rows, ...]

    @property
    def least_energy(self) -> float:
        return min((float(rows.energy.min()) for rows in self.rows), default=float("inf"))

    def nest(self, rows: Rows, row: int, tiles: dict[str, int]) -> Nest:
        """The nest on tiles of these sizes."""
        trail = rows.found.trail(rows.slot, int(rows.source[row]))
        lattice = rows.model.lattice
        top = [lattice.lookup[d][tiles[dim]] for d, dim in enumerate(lattice.dims)]
        return rows.model.nest(trail, np.array(top, dtype=np.int64))


def op_fronts(
    model: OpModel, *, limit: float, beam: int | None = None, progress: Progress | None = None
) -> OpFronts:
    """Rows that can be part of an answer below `limit`."""
    found = fronts(model, limit=limit, beam=beam, progress=progress)
    rows = []
    for slot, batch in found.finals.items():
        if len(batch) == 0:
            continue
        c = batch.carried
        words = c["words"] if model.compare_time else np.zeros((len(batch), len(model.limits)))
        columns = np.column_stack([c["energy"], c["steps"], c["room"], words])
        came = len(columns)
        best = _undivided(model.lattice, c["idx"], columns, lambda: progress and progress(slot, came, came))  # noqa: B023
        rows.append(
            Rows(model.placed(slot), c["idx"][best], c["energy"][best], c["steps"][best], c["room"][best],
                 c["words"][best], slot, best, model, found)
        )  # fmt: skip
    return OpFronts(model, found.considered, tuple(rows))


def together(parts: list[OpFronts]) -> OpFronts:
    """Fronts of one op from models that differ in which tensors the inner levels hold."""
    rows = tuple(r for part in parts for r in part.rows)
    return OpFronts(parts[0].model, sum(part.considered for part in parts), rows)


_PIECE = 256  # rows that are compared at once
_CHAMPIONS = 4000  # kept rows of the least energy that every other row is compared with


def _undivided(lattice: Lattice, reach: NDArray[np.int16], columns: Floats, watch: Callable[[], None]) -> Ints:
    """Rows that none of the champions beats or equals in every column with tiles that divide theirs: where the row can stand,
    the other can. Of many rows some beaten ones stay: that costs time, never an answer. `watch` may raise to stop."""
    order = np.lexsort(columns.T[::-1])
    differing = [c for c in range(1, columns.shape[1]) if np.any(columns[:, c] != columns[0, c])]
    tables = [divides(lattice, d) for d in range(len(lattice.dims))]

    def beaten(by: Ints, rows: Ints) -> NDArray[np.bool_]:
        """(by, rows), the first column is sorted already."""
        found = np.ones((len(by), len(rows)), dtype=bool)
        for c in differing:
            found &= columns[by, c][:, None] <= columns[rows, c][None, :]
        for d, table in enumerate(tables):
            found &= table[np.ix_(reach[by, d], reach[rows, d])]
        return found

    kept = np.zeros(0, dtype=np.int64)
    for start in range(0, len(order), _PIECE):
        watch()
        rows = order[start : start + _PIECE]
        rows = rows[~beaten(kept[:_CHAMPIONS], rows).any(axis=0)]
        among = np.triu(beaten(rows, rows), 1)  # earlier ones only: of equals the first stays
        kept = np.concatenate([kept, rows[~among.any(axis=0)]])
    return kept


def divides(lattice: Lattice, d: int) -> NDArray[np.bool_]:
    """(i, j): whether tile i of dim d may stand inside tile j."""
    tiles = lattice.tiles[d]
    return np.asarray((tiles[None, :] % tiles[:, None] == 0) | (tiles[None, :] == lattice.sizes[d]))

