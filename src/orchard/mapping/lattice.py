"""The tile sizes a search may use for each dim, which may stand inside which, and the ways to spread dims over copies.

Tiles of one dim form a chain from the inside out: each divides the next one, except that the whole dim may follow any tile (the
outermost loop of a dim may end with a shorter step). So the number of steps with tile `t` is ceil(size / t), whatever loops lie
between. `perfect` tiles divide the dim. `imperfect` tiles may be any of the listed sizes; dims of sliding windows stay perfect.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from orchard.hw.arch import FanOut
from orchard.mapping.problem import Problem

Factors = Literal["perfect", "imperfect"]
Indices = NDArray[np.int16]
Ints = NDArray[np.int64]


def divisors(size: int) -> list[int]:
    """All divisors, ascending."""
    low = [d for d in range(1, int(size**0.5) + 1) if size % d == 0]
    return sorted({*low, *(size // d for d in low)})


def imperfect_tiles(size: int, lanes: tuple[int, ...], most: int = 40) -> list[int]:
    """Divisors, plus tiles that cover the dim in few ragged steps: ceil(size / j), and their products with lane counts."""
    wanted = set(divisors(size))
    small = list(range(1, min(size, 16) + 1))
    extra = {*small, *lanes, *(a * t for a in lanes for t in small[:8]), *(-(-size // j) for j in range(1, 17))}
    for tile in sorted(t for t in extra if t <= size):
        if len(wanted) >= most:
            break
        wanted.add(tile)
    return sorted(wanted)


@dataclass(frozen=True)
class Lattice:
    """Candidate tiles per dim (dims of size 1 are left out) and the raises that are allowed."""

    dims: tuple[str, ...]
    sizes: tuple[int, ...]
    tiles: tuple[Ints, ...]

    @cached_property
    def radix(self) -> Ints:
        """Multipliers that turn a row of candidate indices into one integer key."""
        lengths = np.array([len(t) for t in self.tiles], dtype=np.int64)
        return np.concatenate([np.ones(1, dtype=np.int64), np.cumprod(lengths)[:-1]]) if len(lengths) else lengths

    @cached_property
    def raises(self) -> tuple[tuple[Ints, Ints, Ints], ...]:
        """Per dim: (start, count, flat): `flat[start[i]:start[i]+count[i]]` are the indices reachable from i, i included."""
        tables = []
        for tiles, size in zip(self.tiles, self.sizes):
            options = [
                [j for j in range(i, len(tiles)) if tiles[j] % tiles[i] == 0 or tiles[j] == size]
                for i in range(len(tiles))
            ]
            counts = np.array([len(o) for o in options], dtype=np.int64)
            flat = np.array([j for o in options for j in o], dtype=np.int64)
            tables.append((np.concatenate([[0], np.cumsum(counts)[:-1]]).astype(np.int64), counts, flat))
        return tuple(tables)

    @cached_property
    def lookup(self) -> tuple[dict[int, int], ...]:
        return tuple({int(t): i for i, t in enumerate(tiles)} for tiles in self.tiles)

    def values(self, indices: Indices) -> Ints:
        """Tile sizes of rows of candidate indices."""
        return (
            np.stack([t[indices[:, i]] for i, t in enumerate(self.tiles)], axis=1)
            if self.dims
            else np.zeros((len(indices), 0), np.int64)
        )

    def keys(self, indices: Indices) -> Ints:
        return indices.astype(np.int64) @ self.radix if self.dims else np.zeros(len(indices), np.int64)

    @property
    def points(self) -> int:
        total = 1
        for tiles in self.tiles:
            total *= len(tiles)
        return total


def lattice_of(problem: Problem, factors: Factors, lanes: tuple[int, ...]) -> Lattice:
    """Candidates for every dim larger than 1."""
    windowed = {d for t in problem.tensors for axis in problem.access(t) if len(axis.terms) > 1 for d in axis.dims}
    dims = tuple(d for d in problem.dims if problem.sizes[d] > 1)
    tiles = []
    for dim in dims:
        size = problem.sizes[dim]
        ragged = factors == "imperfect" and dim not in windowed
        tiles.append(np.array(imperfect_tiles(size, lanes) if ragged else divisors(size), dtype=np.int64))
    return Lattice(dims, tuple(problem.sizes[d] for d in dims), tuple(tiles))


@dataclass(frozen=True)
class Spread:
    """All ways to unroll dims over the axes of one fan-out: copies per dim (rows), and one split over axes for each row."""

    copies: Ints  # (ways, dims)
    splits: tuple[dict[str, tuple[int, ...]], ...]  # axis -> copies per dim


def spreads(problem: Problem, fan: FanOut, lattice: Lattice) -> Spread:
    """Distinct vectors of copies per dim that fit the axes. Vectors that two splits produce cost the same: the first split
    stands for both (all axes of a fan-out share its multicast and reduction)."""
    sizes = np.array(lattice.sizes, dtype=np.int64)
    found = np.ones((1, len(sizes)), dtype=np.int64)
    picked: list[tuple[str, list[tuple[int, ...]], Ints]] = []  # axis, its options, option of every vector
    for axis, size in fan.axes.items():
        options = _axis_options(problem, fan, axis, size, lattice)
        table = np.array(options, dtype=np.int64).reshape(len(options), len(sizes))
        joined = (found[:, None, :] * table[None, :, :]).reshape(len(found) * len(table), len(sizes))
        rows = np.flatnonzero((joined <= sizes).all(axis=1))
        rows = rows[_first_of_each(joined[rows])]
        picked = [(name, some, at[rows // len(table)]) for name, some, at in picked]
        picked.append((axis, options, rows % len(table)))
        found = joined[rows]
    order = np.lexsort((*(found[:, d] for d in reversed(range(len(sizes)))), -found.prod(axis=1)))
    splits = tuple({axis: options[at[i]] for axis, options, at in picked} for i in order)
    return Spread(found[order], splits)


def alike(columns: Sequence[Ints], rows: int) -> Ints:
    """One number per row, the same where all columns (integers from 0 up) are."""
    found, most = np.zeros(rows, dtype=np.int64), 1
    for column in columns:
        width = int(column.max(initial=0)) + 1
        if most * width >= 2**62:
            values, found = np.unique(found, return_inverse=True)
            found, most = found.reshape(-1), len(values)
        found, most = found * width + column, most * width
    return found


def _first_of_each(rows: Ints) -> Ints:
    """Positions of the first of equal rows, ascending."""
    _, first = np.unique(alike(list(rows.T), len(rows)), return_index=True)
    return np.sort(first).astype(np.int64)


def _axis_options(problem: Problem, fan: FanOut, axis: str, size: int, lattice: Lattice) -> list[tuple[int, ...]]:
    allowed = fan.dims.get(axis)
    per_dim = []
    for dim, tiles in zip(lattice.dims, lattice.tiles):
        free = allowed is None or dim in allowed or problem.dim_class(dim) in allowed
        per_dim.append([int(t) for t in tiles if t <= size] if free else [1])
    options: list[tuple[int, ...]] = []

    def grow(prefix: tuple[int, ...], room: int) -> None:
        if len(prefix) == len(per_dim):
            options.append(prefix)
            return
        for copies in per_dim[len(prefix)]:
            if copies > room:
                break
            grow((*prefix, copies), room // copies)

    grow((), size)
    return options


def all_points(lattice: Lattice) -> list[tuple[int, ...]]:
    """Every vector of tiles: for exhaustive enumeration in tests."""
    return list(product(*(tuple(int(x) for x in t) for t in lattice.tiles)))
