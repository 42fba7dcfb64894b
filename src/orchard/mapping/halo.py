"""Shared loops over the dims of sliding windows: which rows each op makes, reads and keeps at every step.

    Z[k,p] = Y[c,p+r] * W[k,c,r]        a shared loop walks p in blocks of 4: Z needs 4 + (r - 1) rows of Y at each step
    Y[c,y] = X[b,y+s] * V[c,b,s]        y follows p: it is never a loop of its own

Blocks of y overlap. The rows that two steps share are made again (recomputation), or Y keeps them (`kept`) and its op makes only
what is new: all rows at the first step, `step` rows at later ones. A block of an op's dim is thus (first, later, step). The
functions work on plain integers and on arrays of tiles alike.

What follows what, from the last op to the first: an op makes the rows that its readers read; a reader that computes n rows of p
reads s*(n-1) + 1 + (taps' span) rows of y, and moves on by s times its own step. Rows between two blocks that nobody reads
(stride beyond the window) are not made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from orchard.ir.einsum import Axis
from orchard.mapping.chain import Chain, VectorOp

Rows = TypeVar("Rows", int, NDArray[np.int64])


@dataclass(frozen=True)
class Block(Generic[Rows]):
    """Extent of a dim at the first step of its loop and at later ones, and how far it moves per step."""

    first: Rows
    later: Rows
    step: Rows


@dataclass(frozen=True)
class Links:
    """Windows inside a group of ops: `axis` gives, for a dim that follows, the axis that its readers slide over; `base` the
    shared dim that it follows in the end; `taps` the dims of filters; `stuck` what no shared loop may walk."""

    axis: dict[str, Axis]
    base: dict[str, str]
    taps: frozenset[str]
    stuck: frozenset[str]

    def of(self, dim: str) -> str:
        """The dim whose loop moves `dim`."""
        return self.base.get(dim, dim)

    def walked(self, dims: Iterable[str]) -> frozenset[str]:
        return frozenset(self.of(d) for d in dims)


def links(chain: Chain, ops: range, own: frozenset[str]) -> Links:
    """What follows what among `ops`, whose own intermediates are `own`. Dims that follow in a way that is not supported (see
    `_follows`) have no base; neither they nor what they would follow may be walked."""
    axis: dict[str, Axis] = {}
    taps: set[str] = set()
    wrong: set[str] = set()
    for window in chain.windows:
        if window.tensor in own:
            if axis.setdefault(window.dim, window.axis) != window.axis:
                wrong.add(window.dim)
            taps |= {d for d in window.axis.dims if d in chain.reduced(window.consumer)}
    base = {}
    for dim in axis:
        found = _base(axis, dim, taps)
        if found is not None and dim not in wrong and _follows(chain, ops, own, axis, found, taps):
            base[dim] = found
    loose = {d for w in chain.windows if w.tensor in own and w.dim not in base for d in w.axis.dims}
    return Links(axis, base, frozenset(taps), frozenset({*axis, *taps, *loose}))


def _base(axis: dict[str, Axis], dim: str, taps: set[str]) -> str | None:
    while dim in axis:
        kept = [d for d in axis[dim].dims if d not in taps]
        if len(kept) != 1:
            return None
        dim = kept[0]
    return None if dim in taps else dim


def _follows(chain: Chain, ops: range, own: frozenset[str], axis: dict[str, Axis], base: str, taps: set[str]) -> bool:
    """Whether all dims that follow `base` do so in one way: no op has two of them; an op that has one makes an intermediate of
    the group that keeps it, and no softmax; all readers see one window, or none; taps are summed wherever they occur."""
    family = {d for d in axis if _base(axis, d, taps) == base}
    for i in ops:
        op = chain.ops[i]
        mine = [d for d in op.dims if d in family or d == base]
        if len(mine) > 1 or any(t in op.dims and t not in chain.reduced(i) for t in taps):
            return False
        if not mine or mine[0] == base:
            continue
        output = chain.output(i)
        if output not in own or mine[0] in chain.reduced(i) or (isinstance(op, VectorOp) and op.over is not None):
            return False
        at = [a.dims for a in op.access(output)].index((mine[0],))
        views = {chain.ops[r].access(output)[at] for r in chain.readers[output]}
        if len(views) > 1:
            return False
    return True


class Blocks(Generic[Rows]):
    """Blocks of every op's dims under given tiles of the shared dims (whole sizes elsewhere)."""

    def __init__(
        self, chain: Chain, linked: Links, tile: Callable[[str], Rows], kept: frozenset[tuple[str, str]]
    ) -> None:
        """`kept`: (intermediate, shared dim) whose overlap along that dim stays in the fusion level."""
        self.chain, self.linked, self.kept = chain, linked, kept
        self.tile: Callable[[str], Rows] = tile

    def made(self, index: int, dim: str) -> Block[Rows]:
        """What op `index` computes along one of its dims."""
        if dim not in self.linked.base:
            tile = self.tile(dim)
            return Block(tile, tile, tile)
        tensor = self.chain.output(index)
        read = self.read(tensor, dim)
        if (tensor, self.linked.base[dim]) in self.kept:
            return Block(read.first, _least(read.later, read.step), read.step)
        return read

    def read(self, tensor: str, dim: str) -> Block[Rows]:
        """What the readers of an intermediate together read along one of its dims at a step: its tile in the fusion level."""
        if dim not in self.linked.base:
            return self.made(self.chain.writers[tensor], dim)
        found = [self._read_by(r, tensor, dim) for r in self.chain.readers[tensor]]
        first, later = found[0].first, found[0].later
        for block in found[1:]:
            first, later = _most(first, block.first), _most(later, block.later)
        return Block(first, later, found[0].step)

    def _read_by(self, reader: int, tensor: str, dim: str) -> Block[Rows]:
        writer = self.chain.ops[self.chain.writers[tensor]]
        at = [a.dims for a in writer.access(tensor)].index((dim,))
        axis = self.chain.ops[reader].access(tensor)[at]
        return self.touched(reader, axis)

    def touched(self, index: int, axis: Axis) -> Block[Rows]:
        """Extent of an axis that op `index` reads or writes, for what it computes at a step."""
        moving = [(c, d) for c, d in axis.terms if d not in self.linked.taps]
        span = sum(c * (self.chain.sizes[d] - 1) for c, d in axis.terms if d in self.linked.taps)
        blocks = [(c, self.made(index, d)) for c, d in moving]
        first: Rows = 1 + span + sum(c * (b.first - 1) for c, b in blocks)  # type: ignore[assignment]
        later: Rows = 1 + span + sum(c * (b.later - 1) for c, b in blocks)  # type: ignore[assignment]
        step: Rows = sum(c * b.step for c, b in blocks)  # type: ignore[assignment]
        return Block(first, later, step)

    def overlap(self, tensor: str, dim: str) -> Rows:
        """Rows that one step of the loop and the next both read."""
        read = self.read(tensor, dim)
        return _most(read.later - read.step, read.step * 0)


def _least(a: Rows, b: Rows) -> Rows:
    return min(a, b) if isinstance(a, int) and isinstance(b, int) else np.minimum(a, b)


def _most(a: Rows, b: Rows) -> Rows:
    return max(a, b) if isinstance(a, int) and isinstance(b, int) else np.maximum(a, b)


def windowed(chain: Chain, ops: range, own: frozenset[str], linked: Links) -> tuple[tuple[str, str], ...]:
    """(intermediate, shared dim) whose blocks can overlap: what may be kept."""
    inside = [w for w in chain.windows if w.tensor in own and w.consumer in ops and w.dim in linked.base]
    return tuple(dict.fromkeys((w.tensor, linked.base[w.dim]) for w in inside))


def least_rows(chain: Chain, dim: str) -> int:
    """Of a dim that windows slide over, the rows that any way to run the chain makes at the least: all, unless strides leave
    gaps. A window that moves by s and spans w brings min(s, w) new rows per row of its reader."""
    size = chain.sizes[dim]
    found = [w for w in chain.windows if w.dim == dim]
    if not found:
        return size
    return min(size, min(least_extent(chain, w.axis, chain.reduced(w.consumer)) for w in found))


def least_extent(chain: Chain, axis: Axis, taps: frozenset[str]) -> int:
    """The same for an axis of a tensor that is read through a window."""
    whole = 1 + sum(c * (chain.sizes[d] - 1) for c, d in axis.terms)
    moving = [(c, d) for c, d in axis.terms if d not in taps]
    if len(moving) != 1:
        return whole if all(least_rows(chain, d) == chain.sizes[d] for _, d in moving) else 1
    (stride, dim), span = moving[0], 1 + sum(c * (chain.sizes[d] - 1) for c, d in axis.terms if d in taps)
    rows = least_rows(chain, dim)
    if rows == chain.sizes[dim] and stride <= span:
        return whole
    return min(whole, rows * min(stride, span))


def least_elements(chain: Chain, tensor: str) -> int:
    """Elements of a tensor that are read or written at the least."""
    user = next(i for i, op in enumerate(chain.ops) if tensor in op.tensors)
    total = 1
    for axis in chain.ops[user].access(tensor):
        total *= least_extent(chain, axis, chain.reduced(user)) if len(axis.terms) > 1 else least_rows(chain, axis.dims[0])
    return total
