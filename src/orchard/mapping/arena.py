"""Offsets for buffers whose lifetimes are known, in one arena as small as we can make it, beside what no planner can beat.

A buffer occupies [offset, offset + bytes) while it lives, from the step that makes it to the last step that reads it, both
inclusive. Buffers that live at one step may not overlap. The bound is the largest sum of bytes that live at one step.

Any packing can be had by placing buffers one after the other at the lowest offset that is free (sort the packing by offset: each
buffer then lands at or below its place). So planners here are orders: by size, by size x lifetime, by lifetime, by first
step, and a local search that moves the buffers under the peak forward. Up to EXACT_MOST buffers every order is tried (branch
and bound).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from orchard.mapping.errors import MappingError

Ints = NDArray[np.int64]
ALIGN = 64
"""Bytes that offsets and sizes are rounded up to: a cache line of these cores holds 128 or 64, ANE rows 64
[apple-ane-transformers]."""
EXACT_MOST = 9
IMPROVE_MOST = 60


@dataclass(frozen=True, slots=True)
class Buffer:
    """`first` and `last`: steps, inclusive."""

    name: str
    bytes: int
    first: int
    last: int

    def __post_init__(self) -> None:
        if self.bytes < 0 or self.last < self.first:
            raise MappingError(
                f"buffer {self.name}: {self.bytes} bytes from step {self.first} to {self.last}, expected bytes >= 0 and an end "
                f"not before its start"
            )


@dataclass(frozen=True)
class Arena:
    """`offsets` by buffer in the order given. `bound`: no planner needs less. `peak_step`: where most bytes live."""

    offsets: tuple[int, ...]
    bytes: int
    bound: int
    peak_step: int
    order: str

    @property
    def optimal(self) -> bool:
        """Proven: as small as the bound, or every order was tried."""
        return self.bytes == self.bound or self.order == "exact"


def plan_arena(buffers: Sequence[Buffer]) -> Arena:
    """The smallest arena found."""
    size = np.array([-(-b.bytes // ALIGN) * ALIGN for b in buffers], dtype=np.int64)
    first = np.array([b.first for b in buffers], dtype=np.int64)
    last = np.array([b.last for b in buffers], dtype=np.int64)
    if not len(size):
        return Arena((), 0, 0, 0, "empty")
    bound, step = _most_alive(size, first, last)
    span = last - first + 1
    orders = {
        "size": np.lexsort((first, -size)),
        "size x lifetime": np.lexsort((first, -size * span)),
        "lifetime": np.lexsort((-size, -span)),
        "first step": np.lexsort((-size, first)),
    }
    best: tuple[int, str, Ints] | None = None
    for name, order in orders.items():
        offsets = _packed(order, size, first, last)
        top = int((offsets + size).max())
        if best is None or top < best[0]:
            best = (top, name, offsets)
        if top == bound:
            break
    assert best is not None
    if best[0] > bound:
        best = (
            _exact(size, first, last, best)
            if len(size) <= EXACT_MOST
            else _improved(orders, size, first, last, bound, best)
        )
    return Arena(tuple(int(o) for o in best[2]), best[0], bound, step, best[1])


def _most_alive(size: Ints, first: Ints, last: Ints) -> tuple[int, int]:
    """(largest sum alive at a step, the first such step)."""
    change = np.zeros(int(last.max()) + 2, dtype=np.int64)
    np.add.at(change, first, size)
    np.add.at(change, last + 1, -size)
    alive = np.cumsum(change)
    return int(alive.max()), int(alive.argmax())


def _packed(order: Iterable[int], size: Ints, first: Ints, last: Ints) -> Ints:
    """Each buffer in turn at the lowest free offset."""
    offsets = np.full(len(size), -1, dtype=np.int64)
    for at in order:
        offsets[at] = _lowest(int(at), offsets, size, first, last)
    return offsets


def _lowest(at: int, offsets: Ints, size: Ints, first: Ints, last: Ints) -> int:
    beside = np.flatnonzero((offsets >= 0) & (first <= last[at]) & (last >= first[at]) & (size > 0))
    if not len(beside) or size[at] == 0:
        return 0
    beside = beside[np.argsort(offsets[beside], kind="stable")]
    ends = np.maximum.accumulate(offsets[beside] + size[beside])
    starts = np.concatenate([[0], ends])
    gaps = np.concatenate([offsets[beside], [np.iinfo(np.int64).max]]) - starts
    return int(starts[int(np.argmax(gaps >= size[at]))])


def _improved(
    orders: dict[str, Ints], size: Ints, first: Ints, last: Ints, bound: int, best: tuple[int, str, Ints]
) -> tuple[int, str, Ints]:
    """Place what ends at the top of the arena before everything else, and again, until it helps no more."""
    order = list(orders[best[1]])
    top, name, offsets = best
    current = offsets
    for _ in range(IMPROVE_MOST):
        peak = int((current + size).max())
        above = [i for i in order if current[i] + size[i] == peak]
        order = above + [i for i in order if i not in set(above)]
        current = _packed(order, size, first, last)
        reached = int((current + size).max())
        if reached < top:
            top, name, offsets = reached, f"{best[1]}, improved", current
        if top == bound:
            break
    return top, name, offsets


def _exact(size: Ints, first: Ints, last: Ints, best: tuple[int, str, Ints]) -> tuple[int, str, Ints]:
    """Every order of few buffers, cut where the arena is already as large as the best known."""
    top, offsets = best[0], best[2]
    current = np.full(len(size), -1, dtype=np.int64)

    def grow(left: frozenset[int], height: int) -> None:
        nonlocal top, offsets
        if not left:
            top, offsets = height, current.copy()
            return
        for at in sorted(left):
            place = _lowest(at, current, size, first, last)
            reached = max(height, place + int(size[at]))
            if reached < top:
                current[at] = place
                grow(left - {at}, reached)
                current[at] = -1

    grow(frozenset(range(len(size))), 0)
    return top, "exact", offsets


def overlaps(buffers: Sequence[Buffer], offsets: Sequence[int]) -> list[tuple[str, str]]:
    """Pairs of buffers that live at one step and share bytes: empty for a legal packing."""
    found = []
    for i, a in enumerate(buffers):
        for j in range(i):
            b = buffers[j]
            together = a.first <= b.last and b.first <= a.last
            if together and offsets[i] < offsets[j] + b.bytes and offsets[j] < offsets[i] + a.bytes:
                found.append((b.name, a.name))
    return found
