"""A fused mapping: groups of ops that share outer loops, with the intermediates between them in one memory level.

    group S P O, in GLB
      for h in 12 x 1          shared loops: every op of the group runs once per iteration, one after the other
        keep K                 a pinned tensor: its tile stays while the loops inside go round, beside all ops
        for m in 32 x 64
          S: a nest of its own on the tile [1, 64, 2048]; its result stays in GLB
          P: the vector unit, in place
          O: …

Where a shared loop walks a dim that an op does not have, the op runs again (recomputation). A loop over a dim that a producer
sums over is not shared, because a partial sum is no value, except where only a softmax stands between: see `rescaled`.
A window's producer makes, at each iteration, all rows that the consumer's tile touches; rows of the previous tile are made
again, or kept (`retained`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod

from orchard.hw.arch import Architecture
from orchard.mapping.chain import Chain, VectorOp, extent
from orchard.mapping.nest import Nest, print_nest
from orchard.mapping.problem import Problem


@dataclass(frozen=True, slots=True)
class SharedLoop:
    """Walk `dim` in blocks of `tile`, for all ops of a group."""

    dim: str
    tile: int


@dataclass(frozen=True)
class Group:
    """Ops `first` … `last` under shared `loops` (outermost first). `pins` gives, for external tensors that stay in the fusion
    level across iterations, the number of shared loops above their tile. `nests` holds what each Einsum does inside."""

    first: int
    last: int
    loops: tuple[SharedLoop, ...] = ()
    pins: Mapping[str, int] = field(default_factory=dict)
    nests: Mapping[int, Nest] = field(default_factory=dict)

    @property
    def ops(self) -> range:
        return range(self.first, self.last + 1)


@dataclass(frozen=True)
class FusedMapping:
    """Groups in order; `level` holds fused intermediates; `whole` are intermediates between groups that stay there entire
    (others between groups go through the outermost memory)."""

    groups: tuple[Group, ...]
    level: str | None
    whole: frozenset[str] = frozenset()


class Shape:
    """Sizes, trips and liveness of one group: geometry without any cost."""

    def __init__(self, chain: Chain, first: int, last: int, loops: tuple[SharedLoop, ...]) -> None:
        self.chain, self.ops, self.loops = chain, range(first, last + 1), loops
        self.tiles = {loop.dim: loop.tile for loop in loops}
        self.trips = {d: -(-chain.sizes[d] // t) for d, t in self.tiles.items()}
        self.iterations = prod(self.trips.values())

    def inside(self, tensor: str) -> bool:
        """Whether a tensor is made and last read in this group."""
        return tensor in internal(self.chain, self.ops[0], self.ops[-1])

    def sizes(self, index: int) -> dict[str, int]:
        """Sizes of op `index` at one iteration."""
        return {d: self.tiles.get(d, self.chain.sizes[d]) for d in self.chain.ops[index].dims}

    def tile(self, tensor: str, index: int, depth: int | None = None) -> int:
        """Elements of `tensor` as op `index` reads or writes it inside the first `depth` shared loops (all: None)."""
        above = {loop.dim: loop.tile for loop in self.loops[:depth]}
        sizes = {d: above.get(d, s) for d, s in self.chain.sizes.items()}
        return prod(extent(axis, sizes) for axis in self.chain.ops[index].access(tensor))

    def repeats(self, index: int) -> int:
        """How often the op computes each of its results: trips of shared loops over dims that it does not have."""
        own = self.chain.ops[index].dims
        return prod(n for d, n in self.trips.items() if d not in own)

    def partial_runs(self, index: int) -> int:
        """Iterations that add to one tile of the op's result."""
        return prod(n for d, n in self.trips.items() if d in self.chain.reduced(index))

    def visits(self, tensor: str, index: int, depth: int) -> int:
        """Times that a pinned tile is brought again: trips of the loops above its innermost mover over dims that it lacks."""
        own = self.chain.dims_of(tensor, index)
        movers = [k for k, loop in enumerate(self.loops[:depth]) if loop.dim in own and self.trips[loop.dim] > 1]
        above = self.loops[: movers[-1]] if movers else ()
        return prod(self.trips[loop.dim] for loop in above if loop.dim not in own)

    def rescaled(self, index: int) -> int:
        """For a softmax whose dim is walked by a shared loop: steps of that loop (1 where the dim is whole)."""
        op = self.chain.ops[index]
        return self.trips.get(op.over, 1) if isinstance(op, VectorOp) and op.over else 1

    def statistics(self, index: int) -> int:
        """Rows of a softmax whose running maximum and sum live on: dims of loops outside the softmax's loop are at their tile,
        those inside are walked in full at each step."""
        op = self.chain.ops[index]
        if not isinstance(op, VectorOp) or self.rescaled(index) == 1:
            return 0
        outside = [loop.dim for loop in self.loops]
        outside = outside[: outside.index(op.over or "")]
        sizes = {d: self.tiles[d] if d in outside else self.chain.sizes[d] for d in op.dims if d != op.over}
        return prod(sizes.values())

    def followers(self, index: int) -> tuple[int, ...]:
        """The ops whose results a running softmax rescales: they read the softmax."""
        return self.chain.readers[self.chain.output(index)]

    def rescalable(self, index: int) -> bool:
        """Whether all that reads the softmax stands in this group and sums over its dim."""
        op = self.chain.ops[index]
        readers = self.followers(index)
        return bool(readers) and isinstance(op, VectorOp) and all(
            r in self.ops and op.over in self.chain.reduced(r) for r in readers
        )


def internal(chain: Chain, first: int, last: int) -> frozenset[str]:
    """Intermediates that ops first … last make and that nobody else reads."""
    ops = range(first, last + 1)
    return frozenset(t for t in chain.intermediates if chain.writers[t] in ops and chain.readers[t][-1] <= last)


def outside(chain: Chain, first: int, last: int) -> tuple[str, ...]:
    """Tensors of ops first … last that come from, or go to, somewhere else."""
    own = internal(chain, first, last)
    return tuple(dict.fromkeys(t for i in range(first, last + 1) for t in chain.ops[i].tensors if t not in own))


def shared_dims(chain: Chain, first: int, last: int) -> tuple[str, ...]:
    """Dims that may be walked by shared loops of ops first … last.

    Not: dims that an op sums over when its result is read inside the group (a partial sum is no value), dims of an elementwise
    op that hang together, unless it is a softmax whose reader sums over that dim (its result can be rescaled), dims that an op
    lacks whose result leaves the group (it would be written again), dims of sliding windows.
    """
    own = internal(chain, first, last)
    whole = {t for t in chain.intermediates if chain.writers[t] in range(first, last + 1)}
    found = dict.fromkeys(d for i in range(first, last + 1) for d in chain.ops[i].dims if chain.sizes[d] > 1)
    shape = Shape(chain, first, last, ())
    for i in range(first, last + 1):
        op, output = chain.ops[i], chain.output(i)
        read_inside = output in whole and any(r <= last for r in chain.readers[output])
        for d in list(found):
            summed = d in chain.reduced(i) and read_inside
            lacking = d not in op.dims and output not in own
            hangs = isinstance(op, VectorOp) and op.over == d and not (op.kind == "softmax" and shape.rescalable(i))
            window = any(d == w.dim or d in w.axis.dims for w in chain.windows if w.tensor in own)
            if summed or lacking or hangs or window:
                del found[d]
    return tuple(found)


def in_place(chain: Chain, first: int, last: int) -> dict[str, str]:
    """Results of elementwise ops that take the place of an input inside the group: output -> input."""
    own = internal(chain, first, last)
    found = {}
    for i in range(first, last + 1):
        op = chain.ops[i]
        if isinstance(op, VectorOp):
            for t, access in zip(op.inputs, op.accesses):
                if t in own and chain.readers[t][-1] == i and access == op.accesses[-1] and op.output not in found:
                    found[op.output] = t
    return found


def print_fused(mapping: FusedMapping, chain: Chain, arch: Architecture) -> str:
    """The groups as indented text."""
    lines: list[str] = []
    for group in mapping.groups:
        shape = Shape(chain, group.first, group.last, group.loops)
        names = " ".join(chain.output(i) for i in group.ops)
        held = [t for t in chain.intermediates if t in internal(chain, group.first, group.last)]
        lines.append(f"group {names}" + (f": {' '.join(held)} in {mapping.level}" if held else ""))
        depth = 1
        for position in range(len(group.loops) + 1):
            pinned = [t for t, at in group.pins.items() if at == position]
            if pinned:
                lines.append(f"{'  ' * depth}keep {mapping.level} {' '.join(pinned)}")
            if position < len(group.loops):
                loop = group.loops[position]
                lines.append(f"{'  ' * depth}for {loop.dim} in {shape.trips[loop.dim]} x {loop.tile}")
                depth += 1
        for i in group.ops:
            lines += _print_op(i, group, shape, mapping, chain, arch, "  " * depth)
    return "\n".join(lines)


def _print_op(
    i: int, group: Group, shape: Shape, mapping: FusedMapping, chain: Chain, arch: Architecture, pad: str
) -> list[str]:
    op = chain.ops[i]
    if isinstance(op, VectorOp):
        note = f", running over {op.over}" if shape.rescaled(i) > 1 else ""
        return [f"{pad}{op}{note}"]
    tile = Problem(op.name, op.einsum, shape.sizes(i), op.tensors, op.bits)
    text = print_nest(group.nests[i], tile, arch).splitlines()[1:]
    near = [t for t in op.tensors if shape.inside(t) or t in group.pins or t in mapping.whole]
    start = f"{pad}{op.output}:" + (f" ({' '.join(near)} in {mapping.level})" if near else "")
    return [start, *(f"{pad}  {line}" for line in text)]
