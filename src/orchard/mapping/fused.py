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
again, or kept (`orchard.mapping.halo`). A dim that follows a shared loop has its own block at the loop's first step and at
later ones, so its op has a nest for each.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from math import prod

from orchard.hw.arch import Architecture
from orchard.ir.einsum import Axis
from orchard.mapping.chain import Chain, VectorOp, extent
from orchard.mapping.errors import MappingError
from orchard.mapping.halo import Blocks, Links, links, windowed
from orchard.mapping.nest import Keep, Nest, nest_errors, print_nest
from orchard.mapping.problem import Problem

Kept = frozenset[tuple[str, str]]
"""(intermediate, shared dim) whose overlap along that dim stays in the fusion level."""
Phase = frozenset[str]
"""Shared dims that windows follow and whose loops are past their first step."""


@dataclass(frozen=True, slots=True)
class SharedLoop:
    """Walk `dim` in blocks of `tile`, for all ops of a group."""

    dim: str
    tile: int


@dataclass(frozen=True)
class Group:
    """Ops `first` … `last` under shared `loops` (outermost first). `pins` gives, for external tensors that stay in the fusion
    level across iterations, the number of shared loops above their tile. `nests` holds what each Einsum does inside, at the first
    step of every loop that windows follow. `kept`: (intermediate, shared dim) whose overlap from step to step stays in the fusion
    level. `later`: nests at later steps of the loops over the dims named, where the op's tile is another one there."""

    first: int
    last: int
    loops: tuple[SharedLoop, ...] = ()
    pins: Mapping[str, int] = field(default_factory=dict)
    nests: Mapping[int, Nest] = field(default_factory=dict)
    kept: Kept = frozenset()
    later: Mapping[tuple[int, Phase], Nest] = field(default_factory=dict)

    def nest(self, index: int, phase: Phase) -> Nest:
        return self.later[index, phase] if phase else self.nests[index]

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

    def __init__(
        self, chain: Chain, first: int, last: int, loops: tuple[SharedLoop, ...],
        kept: Kept = frozenset(),
    ) -> None:  # fmt: skip
        self.chain, self.ops, self.loops, self.kept = chain, range(first, last + 1), loops, kept
        self.own = internal(chain, first, last)
        self.links = _links(chain, first, last)
        self.tiles = {loop.dim: loop.tile for loop in loops}
        self.trips = {d: -(-chain.sizes[d] // t) for d, t in self.tiles.items()}
        self.iterations = prod(self.trips.values())
        self.blocks = Blocks[int](chain, self.links, lambda d: self.tiles.get(d, chain.sizes[d]), kept)

    @staticmethod
    def of(chain: Chain, group: Group) -> Shape:
        return Shape(chain, group.first, group.last, group.loops, group.kept)

    def inside(self, tensor: str) -> bool:
        """Whether a tensor is made and last read in this group."""
        return tensor in self.own

    # -- what an op works on at one iteration ------------------------------------------------------------------------------
    @cached_property
    def phases(self) -> dict[Phase, int]:
        """Iterations in each phase: at the first or at later steps of every loop that windows follow."""
        found: dict[Phase, int] = {frozenset(): 1}
        followed = set(self.links.base.values())
        for dim, trips in self.trips.items():
            if dim in followed and trips > 1:
                at_first = dict(found)
                found = at_first | {phase | {dim}: n * (trips - 1) for phase, n in at_first.items()}
            else:
                found = {phase: n * trips for phase, n in found.items()}
        return found

    def block(self, index: int, dim: str, phase: Phase) -> int:
        made = self.blocks.made(index, dim)
        return made.later if self.links.of(dim) in phase else made.first

    def sizes(self, index: int, phase: Phase = frozenset()) -> dict[str, int]:
        """Sizes of op `index` at one iteration."""
        return {d: self.block(index, d, phase) for d in self.chain.ops[index].dims}

    def phase_of(self, index: int, phase: Phase) -> Phase:
        """The part of a phase that makes a difference to this op's sizes."""
        made = {self.links.of(d): self.blocks.made(index, d) for d in self.chain.ops[index].dims if d in self.links.base}
        return frozenset(d for d in phase if d in made and made[d].first != made[d].later)

    def variants(self, index: int) -> dict[Phase, int]:
        """Iterations that op `index` spends on each of its tiles."""
        found: dict[Phase, int] = {}
        for phase, n in self.phases.items():
            mine = self.phase_of(index, phase)
            found[mine] = found.get(mine, 0) + n
        return found

    def computed(self, index: int) -> int:
        """Results that the op computes over all iterations."""
        access = self.chain.ops[index].access(self.chain.output(index))
        return sum(n * prod(self.block(index, a.dims[0], p) for a in access) for p, n in self.variants(index).items())

    def stored(self, tensor: str, phase: Phase) -> int:
        """Elements of an intermediate's tile: what its readers read at one iteration."""
        total = 1
        for axis in self.chain.ops[self.chain.writers[tensor]].access(tensor):
            read = self.blocks.read(tensor, axis.dims[0])
            total *= read.later if self.links.of(axis.dims[0]) in phase else read.first
        return total

    def left_over(self, tensor: str, dim: str, phase: Phase) -> tuple[int, bool]:
        """(elements of a kept intermediate that wait for the next step of the loop over `dim`, whether they are part of its
        tile). They are, where that loop is the innermost that moves the tensor; one further out comes back only after those
        inside it have walked all of their dims, so the elements are that many, beside the tile."""
        access = self.chain.ops[self.chain.writers[tensor]].access(tensor)
        walked = self.links.walked(a.dims[0] for a in access)
        movers = [x.dim for x in self.loops if x.dim in walked and self.trips[x.dim] > 1]
        inside = set(movers[movers.index(dim) + 1 :])
        total = 1
        for axis in access:
            (d,) = axis.dims
            read, base = self.blocks.read(tensor, d), self.links.of(d)
            if base == dim:
                total *= self.blocks.overlap(tensor, d)
            elif base in inside:
                total *= self.chain.sizes[d]
            else:
                total *= read.later if base in phase else read.first
        return total, not inside

    def keeps(self, tensor: str) -> tuple[str, ...]:
        """Shared dims along which an intermediate's overlap is kept, where there is any."""
        return tuple(d for t, d in sorted(self.kept) if t == tensor and self.trips.get(d, 1) > 1)

    # -- tensors from outside ----------------------------------------------------------------------------------------------
    def tile(self, tensor: str, index: int, depth: int | None = None) -> int:
        """Elements of `tensor` as op `index` reads or writes it inside the first `depth` shared loops (all: None), at most."""
        above = {loop.dim for loop in self.loops[:depth]}
        total = 1
        for axis in self.chain.ops[index].access(tensor):
            sizes = [(c, self._above(index, d, above)) for c, d in axis.terms]
            total *= 1 + sum(c * (n - 1) for c, n in sizes)
        return total

    def _above(self, index: int, dim: str, above: set[str]) -> int:
        return self.blocks.made(index, dim).first if self.links.of(dim) in above else self.chain.sizes[dim]

    def streamed(self, tensor: str, index: int, phase: Phase) -> int:
        """Elements of `tensor` that op `index` touches at one iteration."""
        sizes = self.sizes(index, phase)
        return prod(1 + sum(c * (sizes[d] - 1) for c, d in axis.terms) for axis in self.chain.ops[index].access(tensor))

    def repeats(self, index: int) -> int:
        """How often the op computes each of its results because of shared loops over dims that it does not have (nor follows)."""
        own = self.links.walked(self.chain.ops[index].dims)
        return prod(n for d, n in self.trips.items() if d not in own)

    def partial_runs(self, index: int) -> int:
        """Iterations that add to one tile of the op's result."""
        return prod(n for d, n in self.trips.items() if d in self.chain.reduced(index))

    def moved(self, tensor: str, index: int, depth: int) -> int:
        """Elements that are brought for a pinned tile over all iterations: at every step of the innermost loop that moves it,
        only what the step before did not have; whole tiles at loops further out; all again at loops over dims that it lacks."""
        own = self.links.walked(self.chain.dims_of(tensor, index))
        movers = [k for k, loop in enumerate(self.loops[:depth]) if loop.dim in own and self.trips[loop.dim] > 1]
        last = self.loops[movers[-1]].dim if movers else ""
        above = {self.loops[k].dim for k in movers}
        total = prod(self.trips[loop.dim] for loop in self.loops[: movers[-1] if movers else 0] if loop.dim not in own)
        for axis in self.chain.ops[index].access(tensor):
            moving = [d for d in axis.dims if self.links.of(d) in above]
            total *= self._brought(index, axis, self.links.of(moving[0]), last) if moving else extent(axis, self.chain.sizes)
        return total

    def _brought(self, index: int, axis: Axis, loop: str, last: str) -> int:
        sizes = self.chain.sizes
        blocks = [(c, self.blocks.made(index, d) if self.links.of(d) == loop else None, sizes[d]) for c, d in axis.terms]
        first = 1 + sum(c * ((n if b is None else b.first) - 1) for c, b, n in blocks)
        later = 1 + sum(c * ((n if b is None else b.later) - 1) for c, b, n in blocks)
        step = sum(c * b.step for c, b, _ in blocks if b is not None)
        return first + (self.trips[loop] - 1) * (min(later, step) if loop == last else later)

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


_MOST_LINKS = 1000
_LINKS: dict[tuple[int, int, int], tuple[Chain, Links]] = {}


def _links(chain: Chain, first: int, last: int) -> Links:
    """`links` of a group; a search asks for them thousands of times."""
    key = (id(chain), first, last)
    if key not in _LINKS or _LINKS[key][0] is not chain:
        if len(_LINKS) > _MOST_LINKS:
            _LINKS.clear()
        _LINKS[key] = (chain, links(chain, range(first, last + 1), internal(chain, first, last)))
    return _LINKS[key][1]


def outside(chain: Chain, first: int, last: int) -> tuple[str, ...]:
    """Tensors of ops first … last that come from, or go to, somewhere else."""
    own = internal(chain, first, last)
    return tuple(dict.fromkeys(t for i in range(first, last + 1) for t in chain.ops[i].tensors if t not in own))


def shared_dims(chain: Chain, first: int, last: int) -> tuple[str, ...]:
    """Dims that may be walked by shared loops of ops first … last.

    Not: dims that an op sums over when its result is read inside the group (a partial sum is no value), dims of an elementwise
    op that hang together, unless it is a softmax whose reader sums over that dim (its result can be rescaled), dims that an op
    neither has nor follows whose result leaves the group (it would be written again), taps of windows and other dims that an op
    sums over in an affine index, dims that follow others, and dims that others follow in a way that `orchard.mapping.halo` does
    not know.
    """
    shape = Shape(chain, first, last, ())
    linked, own = shape.links, shape.own
    found = dict.fromkeys(d for i in range(first, last + 1) for d in chain.ops[i].dims if chain.sizes[d] > 1)
    for i in range(first, last + 1):
        op, output = chain.ops[i], chain.output(i)
        read_inside = output in chain.intermediates and any(r <= last for r in chain.readers[output])
        walked = linked.walked(op.dims)
        affine = {d for t in op.tensors for axis in op.access(t) if len(axis.terms) > 1 for d in _still(chain, i, axis)}
        for d in list(found):
            summed = d in chain.reduced(i) and read_inside
            lacking = d not in walked and output not in own
            hangs = isinstance(op, VectorOp) and op.over == d and not (op.kind == "softmax" and shape.rescalable(i))
            if summed or lacking or hangs or d in affine or d in linked.stuck:
                del found[d]
    return tuple(found)


def _still(chain: Chain, index: int, axis: Axis) -> tuple[str, ...]:
    """Dims of an affine index that no shared loop may walk: those that are summed, or all where several are kept."""
    kept = [d for d in axis.dims if d not in chain.reduced(index) and chain.sizes[d] > 1]
    return tuple(d for d in axis.dims if len(kept) != 1 or d not in kept)


def keepable(chain: Chain, first: int, last: int) -> tuple[tuple[str, str], ...]:
    """(intermediate, shared dim) whose overlap from step to step may stay in the fusion level."""
    walked = shared_dims(chain, first, last)
    own = internal(chain, first, last)
    pairs = windowed(chain, range(first, last + 1), own, _links(chain, first, last))
    return tuple((t, d) for t, d in pairs if d in walked)


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


def fused_errors(mapping: FusedMapping, chain: Chain, arch: Architecture) -> None:
    """Raise MappingError at the first rule that a mapping breaks: groups that are not the chain, loops, pins or kept rows that a
    group may not have, nests that are missing or not nests of the op's tile."""
    if [i for group in mapping.groups for i in group.ops] != list(range(len(chain.ops))):
        raise MappingError(f"{chain.name}: the groups are not the chain's ops in order")
    at_root = mapping.level is not None and arch.level(mapping.level) is arch.levels[0]
    if at_root or not mapping.whole <= set(chain.intermediates):
        raise MappingError(f"{chain.name}: only intermediates stay on the chip")
    for group in mapping.groups:
        _group_errors(mapping, group, chain, arch)


def _group_errors(mapping: FusedMapping, group: Group, chain: Chain, arch: Architecture) -> None:
    walked = [loop.dim for loop in group.loops]
    alone = len(group.ops) == 1 and not isinstance(chain.ops[group.first], VectorOp)
    allowed = () if alone else shared_dims(chain, group.first, group.last)
    if len(set(walked)) < len(walked) or not set(walked) <= set(allowed):
        raise MappingError(f"{chain.name}: loops over {walked} are not shared by ops {group.first} to {group.last}")
    if any(loop.tile < 1 or chain.sizes[loop.dim] % loop.tile for loop in group.loops):
        raise MappingError(f"{chain.name}: a shared tile does not divide its dim")
    around = set(outside(chain, group.first, group.last)) - mapping.whole
    if not set(group.pins) <= around or not all(0 <= depth <= len(group.loops) for depth in group.pins.values()):
        raise MappingError(f"{chain.name}: {sorted(group.pins)} may not be pinned by ops {group.first} to {group.last}")
    if not group.kept <= set(keepable(chain, group.first, group.last)):
        raise MappingError(f"{chain.name}: {sorted(group.kept)} are no rows that can be kept")
    if mapping.level is None and (group.loops or group.pins or len(group.ops) > 1):
        raise MappingError(f"{chain.name}: nothing is shared without a level")
    shape = Shape.of(chain, group)
    near = (shape.own | set(group.pins) | mapping.whole) if mapping.level is not None else frozenset()
    for i in group.ops:
        op = chain.ops[i]
        if isinstance(op, Problem):
            for phase in shape.variants(i):
                if (i, phase) not in group.later if phase else i not in group.nests:
                    raise MappingError(f"{chain.name}: {op.name} has no nest")
                tile = Problem(op.name, op.einsum, shape.sizes(i, phase), op.tensors, op.bits)
                there = tuple(Keep(mapping.level or "", t) for t in op.tensors if t in near)
                nest_errors(Nest((*there, *group.nest(i, phase).nodes)), tile, arch)


def print_fused(mapping: FusedMapping, chain: Chain, arch: Architecture) -> str:
    """The groups as indented text."""
    lines: list[str] = []
    for group in mapping.groups:
        shape = Shape.of(chain, group)
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
                lines.append(f"{'  ' * depth}{_print_loop(loop, group, shape)}")
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
    near = [t for t in op.tensors if shape.inside(t) or t in group.pins or t in mapping.whole]
    lines = []
    for phase in shape.variants(i):
        tile = Problem(op.name, op.einsum, shape.sizes(i, phase), op.tensors, op.bits)
        steps = f" at later steps of {' '.join(sorted(phase))}" if phase else ""
        lines.append(f"{pad}{op.output}{steps}:" + (f" ({' '.join(near)} in {mapping.level})" if near else ""))
        lines += [f"{pad}  {line}" for line in print_nest(group.nest(i, phase), tile, arch).splitlines()[1:]]
    return lines


def _print_loop(loop: SharedLoop, group: Group, shape: Shape) -> str:
    """A shared loop, and the rows of the windows that follow it: made, or kept from the step before."""
    text = f"for {loop.dim} in {shape.trips[loop.dim]} x {loop.tile}"
    notes = []
    for tensor in (shape.chain.output(i) for i in group.ops):
        access = shape.chain.ops[shape.chain.writers[tensor]].access(tensor)
        follows = [a.dims[0] for a in access if shape.links.base.get(a.dims[0]) == loop.dim]
        if follows and tensor in shape.own and shape.trips[loop.dim] > 1:
            rows, kept = shape.blocks.read(tensor, follows[0]), shape.blocks.overlap(tensor, follows[0])
            is_kept = loop.dim in shape.keeps(tensor)
            notes.append(f"{rows.first} of {tensor}" + (f", {kept} kept" if is_kept and kept else ""))
    return text + (f"  ({'; '.join(notes)})" if notes else "")
