"""The mapper's cost model: what placing one tensor tile costs, as array functions over many partial mappings.

A mapping is built from the inside out. The state is the tile of every dim that the machine works on so far. Three moves grow it:

* place a tensor in a level: its tile is what the current tile touches. Before that, dims that leave the tensor alone may be
  raised (more reuse at no cost for this tensor); dims of a sliding window may be raised too (less halo);
* cross a fan-out: multiply dims by copies;
* leave a tensor waiting: its tile is fixed, but loops further out that leave it alone still count as reuse (stationarity
  across levels). While it waits, its own dims stay as they are.

Why this loses nothing: a loop's place only matters through which tiles stand inside it. Raising a dim that a tensor has makes
its tile larger and never saves words (halos aside), so such loops can wait until another tensor wants them.

Words follow the rules of `orchard.cost.nest`; the tests hold both equal.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from orchard.ir.einsum import Axis
from orchard.mapping.footprint import axis_footprint, axis_set, box, spread, sumset
from orchard.mapping.lattice import Lattice
from orchard.mapping.problem import Problem

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Objective = Literal["edp", "energy", "latency", "traffic"]


@dataclass(frozen=True, slots=True)
class Flow:
    """Words of one tensor between a level and what it feeds: an inner level, or the MACs (`child` None)."""

    tensor: str
    parent: str
    child: str | None


def footprints(axis: Axis, sizes: Ints) -> Ints:
    """`axis_footprint` over rows of sizes (columns in term order)."""
    if len(axis.terms) == 1:
        return sizes[:, 0]
    if len(axis.terms) == 2:
        (a, _), (b, _) = axis.terms
        common = int(np.gcd(a, b))
        a, b = a // common, b // common
        x, y = sizes[:, 0], sizes[:, 1]
        return np.asarray(x * y - np.maximum(0, x - b) * np.maximum(0, y - a), dtype=np.int64)
    unique, inverse = np.unique(sizes, axis=0, return_inverse=True)
    values = np.array([axis_footprint(axis, tuple(int(v) for v in row)) for row in unique], dtype=np.int64)
    return values[inverse.reshape(-1)]


def axis_columns(axis: Axis, lattice: Lattice, tiles: Ints) -> Ints:
    """Tile columns of an axis' dims; dims of size 1 are not in the lattice and count 1."""
    ones = np.ones(len(tiles), dtype=np.int64)
    return np.stack([tiles[:, lattice.dims.index(d)] if d in lattice.dims else ones for d in axis.dims], axis=1)


def tile_words(problem: Problem, lattice: Lattice, tensor: str, tiles: Ints, word_bits: int) -> Floats:
    """Words of `tensor`'s tile for rows of tile sizes."""
    total = np.ones(len(tiles), dtype=np.float64)
    for axis in problem.access(tensor):
        total *= footprints(axis, axis_columns(axis, lattice, tiles))
    return total * problem.words(tensor, word_bits)


@dataclass(frozen=True, slots=True)
class Crossing:
    """A fan-out seen by rows: tile per copy below it, copies per dim, and whether copies share words."""

    tiles: Ints  # (rows, dims) tile of one copy
    copies: Ints  # (rows, dims)
    shared: bool


class FlowWords:
    """Words of one problem's flows for rows of tiles; see the module text for the rules."""

    def __init__(self, problem: Problem, lattice: Lattice, word_bits: int) -> None:
        self.problem, self.lattice, self.word_bits = problem, lattice, word_bits
        self.sizes = np.array(lattice.sizes, dtype=np.int64)
        own = {t: problem.dims_of(t) for t in problem.tensors}
        self.relevant = {t: [i for i, d in enumerate(lattice.dims) if d in own[t]] for t in problem.tensors}
        self.irrelevant = {t: [i for i, d in enumerate(lattice.dims) if d not in own[t]] for t in problem.tensors}
        self.windows = {
            t: [
                (axis, [lattice.dims.index(d) if d in lattice.dims else None for d in axis.dims])
                for axis in problem.access(t)
                if len(axis.terms) > 1 and sum(d in lattice.dims for d in axis.dims) > 1
            ]
            for t in problem.tensors
        }
        """Axes whose tiles overlap: two or more dims larger than 1 meet there."""
        windowed = {t: {i for _, at in self.windows[t] for i in at if i is not None} for t in problem.tensors}
        self.window_dims = {t: sorted(windowed[t]) for t in problem.tensors}
        self.scale = {t: problem.words(t, word_bits) for t in problem.tensors}
        self.plain = {
            t: float(np.prod([lattice.sizes[i] for i in self.relevant[t] if i not in windowed[t]], initial=1.0))
            for t in problem.tensors
        }
        self.whole = {
            t: float(tile_words(problem, lattice, t, self.sizes[None, :], word_bits)[0]) for t in problem.tensors
        }

    def visits(self, tensor: str, tiles: Ints) -> Floats:
        """Times that all copies together (re)load a tile because of loops over dims that the tensor does not have."""
        total = np.ones(len(tiles))
        for i in self.irrelevant[tensor]:
            total *= -(-self.sizes[i] // tiles[:, i])
        return total

    def shared_visits(self, tensor: str, tiles: Ints, crossings: list[Crossing]) -> Floats:
        """The same as seen from above the fan-outs: copies that share words count once, in lockstep with the first copy."""
        sharing = [c for c in crossings if c.shared]
        total = np.ones(len(tiles))
        for i in self.irrelevant[tensor]:
            size = self.sizes[i]
            if len(sharing) == 1:
                below, copies = sharing[0].tiles[:, i], sharing[0].copies[:, i]
                full, rest = np.divmod(size, below * copies)
                total *= full * -(-below // tiles[:, i]) + -(-np.minimum(rest, below) // tiles[:, i])
            else:
                lanes = np.prod([c.copies[:, i] for c in sharing], axis=0) if sharing else 1
                total *= -(-size // (tiles[:, i] * lanes))
        return total

    def volume(self, tensor: str, tiles: Ints, slide: int | None = None, run: Ints | None = None) -> Floats:
        """Words of one sweep over the tensor's own dims, tile by tile. With `slide`, the loop right outside walks that dim over
        `run` indices and brings only what the previous tile did not have."""
        total = np.full(len(tiles), self.plain[tensor] * self.scale[tensor])
        for axis, at in self.windows[tensor]:
            blocks = axis_columns(axis, self.lattice, tiles)
            sweep = np.ones(len(tiles))
            for column, i in enumerate(at):
                if i is not None:
                    sweep *= self.sizes[i] // blocks[:, column]
            once = footprints(axis, blocks).astype(np.float64)
            if slide is not None and slide in at:
                assert run is not None
                column = at.index(slide)
                twice = blocks.copy()
                twice[:, column] *= 2
                trips = run // blocks[:, column]
                once = (once + (trips - 1) * (footprints(axis, twice) - once)) / trips
            total *= sweep * once
        return total

    def shared_volume(self, tensor: str, tiles: Ints, crossings: list[Crossing]) -> Floats:
        """`volume` as seen from above fan-outs: each distinct word of a step once, where copies share."""
        if not self.windows[tensor] or not any(c.shared for c in crossings):
            return self.volume(tensor, tiles)
        total = np.full(len(tiles), self.plain[tensor] * self.scale[tensor])
        for axis, at in self.windows[tensor]:
            dims = [i for i in at if i is not None]
            columns = [tiles[:, i] for i in dims]
            sweep = np.ones(len(tiles))
            for i in dims:
                lanes = np.prod([c.copies[:, i] for c in crossings if c.shared], axis=0)
                sweep *= self.sizes[i] // (tiles[:, i] * lanes)
            for c in crossings:
                if c.shared:
                    columns += [x for i in dims for x in (c.tiles[:, i], c.copies[:, i])]
            unique, inverse = np.unique(np.stack(columns, axis=1), axis=0, return_inverse=True)
            unions = np.array([self._union(axis, at, [int(v) for v in row]) for row in unique], dtype=np.float64)
            total *= sweep * unions[inverse.reshape(-1)]
        return total

    def _union(self, axis: Axis, at: list[int | None], row: list[int]) -> int:
        present = [k for k, i in enumerate(at) if i is not None]
        blocks = [(1, 1, 1)] * len(at)
        masks = dict.fromkeys(axis.dims, 1)
        n = len(present)
        for k, position in enumerate(present):
            mask = box(row[k])
            rest = row[n:]
            contiguous = True
            size = row[k]
            for c in range(len(rest) // (2 * n)):
                pitch, copies = rest[c * 2 * n + 2 * k], rest[c * 2 * n + 2 * k + 1]
                contiguous = contiguous and (copies == 1 or pitch == size)
                if copies > 1:
                    mask = sumset(mask, spread(box(copies), pitch))
                    size *= copies
            masks[axis.dims[position]] = mask
            blocks[position] = (size if contiguous else -1, 0, 1)
        if all(b[0] > 0 for b in blocks):
            return axis_footprint(axis, tuple(b[0] for b in blocks))
        return axis_set(axis, masks).bit_count()
