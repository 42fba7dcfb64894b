"""What each op of a chain can do below shared loops: one search per op, all tiles of the shared loops at once.

The op's nest below the fusion level is searched by the moves of `orchard.studies.nest_search` on the whole op, with three
differences. Any tensor may be left out of the fusion level's placing: it is then there already (an intermediate, or pinned by
the shared loops). Tiles do not wait across the fusion level, because other ops run in between. And the search stops there: a
finished row says which tiles the nest needs at least (`reach`), and stands for every tile of the shared loops that these divide.
With tiles that divide one another the words of a flow depend on the tiles below it and on the dims' whole sizes only, so a row
costs the same (over all iterations) under every one of these shared tiles; `orchard.cost.chain` counts it, and a test compares.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from orchard.hw.arch import Architecture
from orchard.mapping.lattice import Lattice, Spread
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
        like: OpModel | None = None,
    ) -> None:
        """`like`: a model of the same op on the same machine, whose tables serve again."""
        self.rest, self.like = rest, like
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
        total = np.maximum(steps + self.rest.mac_cycles, self.rest.floor_cycles)
        if words is not None and self.compare_time:
            for column, (level, _, rate) in enumerate(self.limits):
                if level.buffering != "single":
                    total = np.maximum(total, words[..., column] / rate)
        return self._combine(energy + self.rest.energy, total)

    def _closed_rest(self, slot: Slot, carried: dict[str, NDArray[Any]]) -> Floats:
        stage, mask, _ = _parts(slot)
        held = self.held[self.fusion.name]
        paid = [t for bit, t in enumerate(held) if mask >> bit & 1] if stage >= self.fusion_stage else []
        return super()._closed_rest(slot, carried) + self.rest.own_moved - sum(self.rest.moved.get(t, 0.0) for t in paid)

    def placed(self, slot: Slot) -> frozenset[str]:
        """Tensors that a finished row loads into the fusion level itself."""
        held = self.held[self.fusion.name]
        return frozenset(t for bit, t in enumerate(held) if _parts(slot)[1] >> bit & 1)


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
        """The nest on shared tiles `tiles` (whole sizes where a dim is not shared)."""
        trail = rows.found.trail(rows.slot, int(rows.source[row]))
        lattice = rows.model.lattice
        top = [lattice.lookup[d][tiles.get(dim, lattice.sizes[d])] for d, dim in enumerate(lattice.dims)]
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
        best = _undivided(model.lattice, c["idx"], columns)
        rows.append(
            Rows(model.placed(slot), c["idx"][best], c["energy"][best], c["steps"][best], c["room"][best],
                 c["words"][best], slot, best, model, found)
        )  # fmt: skip
    return OpFronts(model, found.considered, tuple(rows))


def together(parts: list[OpFronts]) -> OpFronts:
    """Fronts of one op from models that differ in which tensors the inner levels hold."""
    rows = tuple(r for part in parts for r in part.rows)
    return OpFronts(parts[0].model, sum(part.considered for part in parts), rows)


def _undivided(lattice: Lattice, reach: NDArray[np.int16], columns: Floats) -> Ints:
    """Rows that no other beats in every column with tiles that divide theirs: where the row can stand, the other can."""
    order = np.lexsort(columns.T[::-1])
    kept: list[int] = []
    tables = [divides(lattice, d) for d in range(len(lattice.dims))]
    for row in order:
        if kept:
            others = np.array(kept)
            beats = np.all(columns[others] <= columns[row], axis=1)
            for d, table in enumerate(tables):
                beats &= table[reach[others, d], reach[row, d]]
            if beats.any():
                continue
        kept.append(int(row))
    return np.array(kept, dtype=np.int64)


def divides(lattice: Lattice, d: int) -> NDArray[np.bool_]:
    """(i, j): whether tile i of dim d may stand inside tile j."""
    tiles = lattice.tiles[d]
    return np.asarray((tiles[None, :] % tiles[:, None] == 0) | (tiles[None, :] == lattice.sizes[d]))

