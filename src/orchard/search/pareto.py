"""Pareto fronts of points that are to be small in every column: filter, hypervolume, knee."""

from __future__ import annotations

from bisect import bisect_right

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
_BLOCK = 512


def front(points: Floats) -> Ints:
    """Rows of `points` [n, objectives] that no other row dominates, ascending. Of equal rows the first stays.

    A row with a NaN or an infinity is never on the front. Rows are visited by rising sum of ranks, so whatever dominates a row
    has been seen before it: one pass, each block compared with the front so far and then within itself.
    """
    usable = np.flatnonzero(np.isfinite(points).all(axis=1))
    if len(usable) == 0:
        return usable
    values = points[usable]
    if values.shape[1] == 1:
        return usable[[int(np.argmin(values[:, 0]))]]
    if values.shape[1] == 2:
        return np.sort(usable[_front_of_two(values)])
    if values.shape[1] == 3:
        return np.sort(usable[_front_of_three(values)])
    # Lexicographic within equal sums: an equal row comes after the first of its kind, a dominated one after its dominator.
    order = np.lexsort((*values.T[::-1], _sum_of_ranks(values)))
    values = values[order]
    kept = np.empty((0, values.shape[1]))
    rows: list[Ints] = []
    for start in range(0, len(values), _BLOCK):
        block = values[start : start + _BLOCK]
        alive = np.flatnonzero(~_covered(block, kept))
        alive = alive[~_covered_earlier(block[alive])]
        kept = np.concatenate([kept, block[alive]])
        rows.append(order[start + alive])
    return np.sort(usable[np.concatenate(rows)])


def _front_of_two(values: Floats) -> Ints:
    """By the first column, then the second, then row: a row stays where its second column is a new minimum."""
    order = np.lexsort((values[:, 1], values[:, 0]))
    second = values[order, 1]
    best = np.minimum.accumulate(second)
    new = np.ones(len(order), dtype=bool)
    new[1:] = second[1:] < best[:-1]
    return order[new]


def _front_of_three(values: Floats) -> list[int]:
    """A sweep by rising first column (then second, third, row): O(n log n) on fronts of any size.

    Behind the sweep lies a staircase, the front of the second and third columns so far: `second` rises, `third` falls. A row is
    covered when the step at or left of its second column is not above its third; whatever dominates a row comes before it.
    """
    order = np.lexsort((values[:, 2], values[:, 1], values[:, 0]))
    second: list[float] = []
    third: list[float] = []
    kept: list[int] = []
    for row, y, z in zip(order.tolist(), values[order, 1].tolist(), values[order, 2].tolist(), strict=True):
        place = bisect_right(second, y)
        if place and third[place - 1] <= z:
            continue
        kept.append(row)
        first = place - 1 if place and second[place - 1] == y else place
        last = place
        while last < len(third) and third[last] >= z:
            last += 1
        second[first:last] = [y]
        third[first:last] = [z]
    return kept


def _sum_of_ranks(values: Floats) -> Ints:
    ranks = [np.unique(column, return_inverse=True)[1].reshape(-1) for column in values.T]
    total: Ints = np.sum(ranks, axis=0)
    return total


def _covered(block: Floats, kept: Floats) -> NDArray[np.bool_]:
    """Rows of `block` that some row of `kept` is nowhere worse than."""
    covered = np.zeros(len(block), dtype=bool)
    for start in range(0, len(kept), _BLOCK):
        left = np.flatnonzero(~covered)
        if not len(left):
            break
        part = kept[start : start + _BLOCK]
        covered[left] |= (part[None, :, :] <= block[left][:, None, :]).all(-1).any(-1)
    return covered


def _covered_earlier(block: Floats) -> NDArray[np.bool_]:
    """Rows that an earlier row of the same block is nowhere worse than."""
    no_worse = (block[:, None, :] <= block[None, :, :]).all(-1)
    return np.asarray(np.triu(no_worse, k=1).any(axis=0), dtype=np.bool_)


def hypervolume(points: Floats, reference: Floats) -> float:
    """Volume that `points` dominate up to `reference`: exact, by slicing along the last objective.

    Sizes to expect: hundreds of points in up to four objectives. Points beyond the reference add nothing.
    """
    inside = points[np.isfinite(points).all(axis=1) & (points < reference).all(axis=1)]
    return _volume(inside[front(inside)], reference) if len(inside) else 0.0


def _volume(points: Floats, reference: Floats) -> float:
    if points.shape[1] == 1:
        return float(reference[0] - points[:, 0].min())
    if points.shape[1] == 2:
        ordered = points[np.argsort(points[:, 0])]
        heights = np.concatenate([[reference[1]], ordered[:-1, 1]]) - ordered[:, 1]
        return float(((reference[0] - ordered[:, 0]) * heights).sum())
    ordered = points[np.argsort(points[:, -1])]
    depths = np.append(ordered[1:, -1], reference[-1]) - ordered[:, -1]
    total = 0.0
    for count, depth in enumerate(depths, start=1):
        if depth > 0:
            slice_ = ordered[:count, :-1]
            total += depth * _volume(slice_[front(slice_)], reference[:-1])
    return float(total)


def normalised(points: Floats) -> Floats:
    """Points with each column scaled from its smallest to its largest value: 0 to 1 (0 where a column does not vary)."""
    low, high = points.min(axis=0), points.max(axis=0)
    scaled: Floats = (points - low) / np.where(high > low, high - low, 1.0)
    return scaled


def knee(points: Floats) -> int:
    """Row of a front nearest to its ideal corner, each objective scaled to the front's range. Ties: the first row."""
    return int(np.argmin(np.sqrt((normalised(points) ** 2).sum(axis=1))))
