"""Exact search over layered choices: grow partial answers slot by slot, drop what a bound or a better twin rules out.

The engine knows nothing of hardware. A `Model` gives a first batch, expands a batch of one slot into batches of later slots,
bounds what any completion can reach, and scores finished answers. Two rules prune, both keep at least one optimal answer:

* Dominance. Two partial answers of one slot with the same key have the same completions, and a completion adds the same amounts
  to the cost columns of both. If one is no larger in every column, the other can be dropped. This needs: columns only matter
  through the score, and the score never falls when a column grows. (`Model` promises both.)
* Bound. `bound` is never above the score of any completion. A partial answer whose bound reaches the best known score
  (the incumbent) cannot beat it.

`solve` runs twice: a narrow beam finds a good incumbent, then the full pass proves that nothing beats it.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Batch:
    """Partial answers of one slot, one per row. `columns` are compared, `carried` are not; `move` says how a row came about."""

    key: Ints  # (rows, parts)
    columns: Floats  # (rows, columns), smaller is better
    carried: dict[str, NDArray[Any]]
    origin: Ints  # row of the parent in its slot's kept batch
    move: str = ""

    def __len__(self) -> int:
        return len(self.key)

    def take(self, rows: Ints | NDArray[np.bool_]) -> Batch:
        carried = {name: values[rows] for name, values in self.carried.items()}
        return replace(self, key=self.key[rows], columns=self.columns[rows], carried=carried, origin=self.origin[rows])


Slot = tuple[Hashable, ...]
_ALIKE = 1e-6  # relative difference of bounds that says nothing about which row is better
_CROWD = 50  # rows per beam width that a narrow pass compares with each other
Progress = Callable[[Slot, int, int], None]
"""Told after each slot, and after each piece that grows from one: the slot, rows that came in, rows kept. May raise to stop."""


class Model(Protocol):
    """What the engine is given: choices and their costs, never inspected here."""

    def first(self) -> tuple[Slot, Batch]: ...
    def rank(self, slot: Slot) -> int:
        """Expansion only leads to slots of higher rank."""
        ...

    def is_final(self, slot: Slot) -> bool: ...
    def expand(self, slot: Slot, batch: Batch, best: float) -> Iterable[tuple[Slot, Batch]]:
        """Partial answers that grow from `batch`. Those whose every completion scores `best` or more may be left out."""
        ...

    def lower_bound(self, slot: Slot, batch: Batch) -> Floats: ...
    def evaluate(self, slot: Slot, batch: Batch) -> Floats: ...


@dataclass(frozen=True)
class Trail:
    """One finished answer: (slot, row, move that led here) from first to last, with the carried values of each row."""

    steps: tuple[tuple[Slot, str, dict[str, Any]], ...]


@dataclass(frozen=True)
class Outcome:
    score: float
    trail: Trail | None
    considered: int
    kept: int
    exact: bool  # False where the beam cut something that no rule allows to cut


def solve(
    model: Model, *, beam: int | None = None, spread: bool = False, incumbent: float = np.inf, progress: Progress | None = None
) -> Outcome:
    """Best answer with a score below `incumbent` (or no trail). `beam` keeps that many rows per slot: fast, not exact. With
    `spread` they are taken from all over those that the bound cannot tell apart, not from its low end."""
    slot, batch = model.first()
    waiting: dict[Slot, list[tuple[Slot | None, Batch]]] = {slot: [(None, batch)]}
    kept: dict[Slot, tuple[Batch, Ints, list[tuple[Slot | None, str]]]] = {}
    best, best_at = incumbent, None
    considered = kept_rows = 0
    exact = True
    while waiting:
        slot = min(waiting, key=lambda s: (model.rank(s), str(s)))
        pieces = [(source, piece) for source, piece in waiting.pop(slot) if len(piece)]
        if not pieces:
            continue
        merged, source_of = _merge([piece for _, piece in pieces])
        sources = [(source, piece.move) for source, piece in pieces]
        considered += len(merged)
        if model.is_final(slot):
            scores = model.evaluate(slot, merged)
            row = int(np.argmin(scores))
            if scores[row] < best:
                best, best_at = float(scores[row]), (slot, row)
                kept[slot] = (merged, source_of, sources)
            continue
        bounds = model.lower_bound(slot, merged)
        rows = np.flatnonzero(bounds < best)
        if beam is not None and len(rows) > _CROWD * beam:  # dominance over a crowd costs more than a beam is worth
            rows = rows[_narrow(bounds[rows], _CROWD * beam, spread)]
            exact = False
        rows = rows[undominated(merged.key[rows], merged.columns[rows])]
        if beam is not None and len(rows) > beam:
            rows = rows[_narrow(bounds[rows], beam, spread)]
            exact = False
        merged, source_of = merged.take(rows), source_of[rows]
        kept[slot] = (merged, source_of, sources)
        kept_rows += len(merged)
        if progress is not None:
            progress(slot, len(bounds), len(merged))
        for next_slot, piece in model.expand(slot, merged, best):
            waiting.setdefault(next_slot, []).append((slot, piece))
            if progress is not None:
                progress(next_slot, len(piece), len(piece))
    trail = _trace(kept, best_at) if best_at is not None else None
    return Outcome(best, trail, considered, kept_rows, exact)


@dataclass(frozen=True)
class Fronts:
    """Finished answers that nothing rules out, by final slot. `trail` tells how one came about."""

    finals: dict[Slot, Batch]
    considered: int
    exact: bool
    _kept: dict[Slot, tuple[Batch, Ints, list[tuple[Slot | None, str]]]]

    def trail(self, slot: Slot, row: int) -> Trail:
        return _trace(self._kept, (slot, row))


def fronts(
    model: Model, *, limit: float = np.inf, beam: int | None = None, progress: Progress | None = None
) -> Fronts:
    """Every finished answer whose bound is below `limit` and that no other with the same key beats in all columns: what a search
    over several such problems joins. `beam` as in `solve`."""
    slot, batch = model.first()
    waiting: dict[Slot, list[tuple[Slot | None, Batch]]] = {slot: [(None, batch)]}
    kept: dict[Slot, tuple[Batch, Ints, list[tuple[Slot | None, str]]]] = {}
    finals: dict[Slot, Batch] = {}
    considered, exact = 0, True
    while waiting:
        slot = min(waiting, key=lambda s: (model.rank(s), str(s)))
        pieces = [(source, piece) for source, piece in waiting.pop(slot) if len(piece)]
        if not pieces:
            continue
        merged, source_of = _merge([piece for _, piece in pieces])
        considered += len(merged)
        bounds = model.lower_bound(slot, merged)
        rows = np.flatnonzero(bounds < limit)
        if beam is not None and len(rows) > _CROWD * beam:
            rows = rows[_narrow(bounds[rows], _CROWD * beam, spread=False)]
            exact = False
        rows = rows[undominated(merged.key[rows], merged.columns[rows])]
        if beam is not None and len(rows) > beam:
            rows = rows[np.argpartition(bounds[rows], beam)[:beam]]
            exact = False
        merged, source_of = merged.take(rows), source_of[rows]
        kept[slot] = (merged, source_of, [(source, piece.move) for source, piece in pieces])
        if progress is not None:
            progress(slot, len(bounds), len(merged))
        if model.is_final(slot):
            finals[slot] = merged
            continue
        for next_slot, piece in model.expand(slot, merged, limit):
            waiting.setdefault(next_slot, []).append((slot, piece))
            if progress is not None:
                progress(next_slot, len(piece), len(piece))
    return Fronts(finals, considered, exact, kept)


def _narrow(bounds: Floats, width: int, spread: bool) -> Ints:
    """Positions of `width` rows: those with the lowest bounds, or evenly from those whose bounds are as good as equal."""
    if not spread:
        return np.argpartition(bounds, width)[:width]
    order = np.argsort(bounds, kind="stable")
    alike = int(np.searchsorted(bounds[order], bounds[order[0]] * (1 + _ALIKE), side="right"))
    if alike <= width:
        return order[:width]
    return order[np.linspace(0, alike - 1, width).astype(np.int64)]


def _merge(pieces: list[Batch]) -> tuple[Batch, Ints]:
    source_of = np.concatenate([np.full(len(p), i, dtype=np.int64) for i, p in enumerate(pieces)])
    if len(pieces) == 1:
        return pieces[0], source_of
    carried = {name: np.concatenate([p.carried[name] for p in pieces]) for name in pieces[0].carried}
    return (
        Batch(
            np.concatenate([p.key for p in pieces]),
            np.concatenate([p.columns for p in pieces]),
            carried,
            np.concatenate([p.origin for p in pieces]),
        ),
        source_of,
    )


def _trace(kept: dict[Slot, tuple[Batch, Ints, list[tuple[Slot | None, str]]]], at: tuple[Slot, int]) -> Trail:
    steps: list[tuple[Slot, str, dict[str, Any]]] = []
    slot: Slot | None = at[0]
    row = at[1]
    while slot is not None:
        batch, source_of, sources = kept[slot]
        source, move = sources[int(source_of[row])]
        steps.append((slot, move, {name: values[row] for name, values in batch.carried.items()}))
        row = int(batch.origin[row])
        slot = source
    return Trail(tuple(reversed(steps)))


def undominated(key: Ints, columns: Floats) -> Ints:
    """Rows that no other row with the same key beats or equals in every column (of equals, one stays). With three and more
    columns some beaten rows may stay: that costs time, never an answer."""
    if len(key) == 0:
        return np.zeros(0, dtype=np.int64)
    columns = columns[:, [c for c in range(columns.shape[1]) if not np.all(columns[:, c] == columns[0, c])]]
    if columns.shape[1] == 0:
        columns = np.zeros((len(key), 1))
    width = columns.shape[1]
    parts = [key[:, c] for c in range(key.shape[1]) if not np.all(key[:, c] == key[0, c])]
    order = np.lexsort((*(columns[:, c] for c in reversed(range(width))), *parts))
    starts = np.zeros(len(order), dtype=bool)
    starts[0] = True
    for part in parts:
        starts[1:] |= part[order][1:] != part[order][:-1]
    values = columns[order]
    if width == 1:
        return order[starts]
    group = np.cumsum(starts) - 1
    if width == 2:
        # Rows of a group come with rising first column: a row stays iff its second column is a new minimum of the group.
        _, dense = np.unique(values[:, 1], return_inverse=True)
        shifted = dense.reshape(-1) - group * (int(dense.max()) + 1)
        floor = np.minimum.accumulate(shifted)
        alive = np.ones(len(order), dtype=bool)
        alive[1:] = (shifted[1:] < floor[:-1]) | starts[1:]
        return order[alive]
    first = np.flatnonzero(starts)[group]
    beaten = (first != np.arange(len(order))) & np.all(values[first] <= values, axis=1)
    kept = np.flatnonzero(~beaten)
    for step in (1, 2, 3, 4, 6, 8, 12, 16, 24, 32):
        if len(kept) <= step:
            break
        same = group[kept[step:]] == group[kept[:-step]]
        worse = same & np.all(values[kept[:-step]] <= values[kept[step:]], axis=1)
        kept = np.concatenate([kept[:step], kept[step:][~worse]])
    return order[kept]
