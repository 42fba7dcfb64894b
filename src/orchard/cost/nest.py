"""Counts from a loop nest: words read and written per tensor and memory level, footprints, steps. Exact integers.

What the nest means, as a program:

* A tensor's tile in a level is (re)loaded in the body of the innermost *temporal* loop above its mark that moves the tile (a
  loop over one of its dims). Loops between that one and the mark leave the tile alone: it is stationary there.
* If that loop walks a dim of a sliding window, the load brings the whole tile at the loop's first step and only the indices
  that the previous tile did not have at the others, unless copies of the hardware share that window's dims
  below the loop or below the level above.
* A load reads each distinct word once from the level above, whichever copies want it (multicast), and writes it into each
  copy. Without multicast every copy reads for itself.
* Outputs move the other way: after the body the tile is read out of every copy, summed on the way (reduction) and written
  once to the level above. If the tile was there before, it is first read from above and written into every copy; the first
  visit starts from nothing and costs nothing.
* Each MAC reads its inputs from the innermost level that holds them and updates the output there; the first update of an
  element does not read. Copies work in lockstep: a copy without work waits.

The functions walk each dim by itself, since the loops over different dims are independent: a count is a product over axes (and
over dims that the tensor does not have) of sums over the nested, possibly ragged, blocks of one dim.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Literal

from orchard.hw.arch import Architecture
from orchard.ir.einsum import Axis
from orchard.mapping.footprint import axis_footprint, axis_set, box
from orchard.mapping.nest import Keep, Loop, Nest
from orchard.mapping.problem import Problem

Walk = Literal["all", "first", "merge"]
"""How a count sees a loop: every block; only the first block; blocks side by side in lockstep, seen as one set of indices."""
Step = tuple[Walk, int]


@dataclass(frozen=True, slots=True)
class Traffic:
    """Words that cross one level's port for one tensor: over all copies of the level, and in its busiest copy."""

    reads: int = 0
    writes: int = 0
    copy_reads: int = 0
    copy_writes: int = 0

    def __add__(self, other: Traffic) -> Traffic:
        return Traffic(
            self.reads + other.reads,
            self.writes + other.writes,
            self.copy_reads + other.copy_reads,
            self.copy_writes + other.copy_writes,
        )


@dataclass(frozen=True, slots=True)
class Counts:
    """What a nest does, without any hardware rate: elements, not words of a machine."""

    traffic: Mapping[tuple[str, str], Traffic]  # by (level, tensor)
    footprint: Mapping[tuple[str, str], int]  # largest tile, per copy
    macs: int
    steps: int  # MACs of the busiest copy, one after the other
    lanes_used: int
    copies: Mapping[str, int]  # copies of each level that hold something


def count(
    nest: Nest,
    problem: Problem,
    arch: Architecture,
    *,
    roots: Mapping[str, str] | None = None,
    resumed: bool = False,
) -> Counts:
    """Counts of a legal nest (see `nest_errors`). `roots` names tensors that start (and end) entire in another level than the
    outermost. `resumed`: the output holds partial sums already, so no visit is a first one."""
    traffic: dict[tuple[str, str], Traffic] = {}
    footprint: dict[tuple[str, str], int] = {}
    for tensor in problem.tensors:
        marks = [(-1, (roots or {}).get(tensor, arch.levels[0].name))]
        marks += [(i, n.level) for i, n in enumerate(nest.nodes) if isinstance(n, Keep) and n.tensor == tensor]
        for position, level in marks:
            traffic[level, tensor] = Traffic()
            footprint[level, tensor] = _tile(nest, problem, tensor, position)
        chain = [*marks, (len(nest.nodes), None)]
        for (parent_at, parent), (child_at, child) in zip(chain, chain[1:]):
            assert parent is not None
            flow = _Flow(nest, problem, arch, tensor, parent_at, child_at, resumed)
            above, below = flow.exchange(is_output=tensor == problem.output)
            traffic[parent, tensor] += above
            if child is not None:
                traffic[child, tensor] += below
    spatial = [(i, n) for i, n in nest.loops_above(len(nest.nodes)) if n.axis is not None]
    steps, lanes = 1, 1
    for dim in problem.dims:
        walks = [("first" if n.axis else "all", n.tile) for _, n in nest.loops_above(len(nest.nodes)) if n.dim == dim]
        steps *= _blocks(problem.sizes[dim], tuple(walks))
    for index, loop in spatial:
        lanes *= -(-_size_above(nest, problem, loop.dim, index) // loop.tile)
    copies = {level.name: _copies(nest, problem, arch, level.name) for level in arch.levels}
    return Counts(traffic, footprint, problem.macs, steps, lanes, copies)


@dataclass(frozen=True)
class _Flow:
    """One tensor between a level (its mark at `parent_at`) and the next inner one, or the MACs, at `child_at`."""

    nest: Nest
    problem: Problem
    arch: Architecture
    tensor: str
    parent_at: int
    child_at: int
    resumed: bool = False

    def exchange(self, is_output: bool) -> tuple[Traffic, Traffic]:
        """Traffic at the parent's port and at the child's port."""
        up = self._volume(parent_side=True, one_copy=False, first_visits=False)
        up_copy = self._volume(parent_side=True, one_copy=True, first_visits=False)
        down = self._volume(parent_side=False, one_copy=False, first_visits=False)
        down_copy = self._volume(parent_side=False, one_copy=True, first_visits=False)
        if not is_output:
            return Traffic(reads=up, copy_reads=up_copy), Traffic(writes=down, copy_writes=down_copy)
        if self.resumed:
            return Traffic(up, up, up_copy, up_copy), Traffic(down, down, down_copy, down_copy)
        up_new = self._volume(parent_side=True, one_copy=False, first_visits=True)
        up_copy_new = self._volume(parent_side=True, one_copy=True, first_visits=True)
        down_new = self._volume(parent_side=False, one_copy=False, first_visits=True)
        down_copy_new = self._volume(parent_side=False, one_copy=True, first_visits=True)
        return (
            Traffic(reads=up - up_new, writes=up, copy_reads=up_copy - up_copy_new, copy_writes=up_copy),
            Traffic(
                reads=down, writes=down - down_new, copy_reads=down_copy, copy_writes=down_copy - down_copy_new
            ),
        )  # fmt: skip

    def _volume(self, *, parent_side: bool, one_copy: bool, first_visits: bool) -> int:
        """Words moved over all visits.

        `parent_side` merges the copies between parent and child; otherwise each copy's own words count. `one_copy` looks at the
        first copy of the parent (or of the child). `first_visits` counts only the first visit of each output tile.
        """
        mover, own = self.mover, self.problem.dims_of(self.tensor)
        walks: dict[str, list[Step]] = {dim: [] for dim in self.problem.dims}
        run_at: int | None = None
        for index, loop in self.loops:
            if loop.axis is not None:
                walk: Walk = self._spatial_walk(
                    index, loop, parent_side, one_copy, first_visits and loop.dim not in own
                )
            elif mover is None or index > mover:
                walk = "first"  # the tile stays; what it costs was paid at the loop's first step
            elif loop.dim not in own and first_visits:
                walk = "first"
            else:
                walk = "all"
                if index == mover:
                    run_at = len(walks[loop.dim])
            walks[loop.dim].append((walk, loop.tile))
        total = 1
        for dim, steps in walks.items():
            if dim not in own:
                total *= _blocks(self.problem.sizes[dim], tuple(("first" if w == "merge" else w, t) for w, t in steps))
        slide = self.slide
        for axis in self.problem.access(self.tensor):
            sizes = tuple(self.problem.sizes[dim] for dim in axis.dims)
            chains = tuple(tuple(walks[dim]) for dim in axis.dims)
            sliding = axis.dims.index(slide) if slide in axis.dims else None
            total *= _axis_volume(axis, sizes, chains, sliding, run_at if sliding is not None else None)
        return total

    def _spatial_walk(self, index: int, loop: Loop, parent_side: bool, one_copy: bool, first: bool) -> Walk:
        between = index > self.parent_at
        fan = self.arch.fan_out_of(loop.axis or "")
        shared = fan.reduce if self.tensor == self.problem.output else fan.multicast
        if not between:
            return "first" if one_copy else "all"
        if parent_side:
            if shared:
                return "merge"
            return "first" if first else "all"
        return "first" if one_copy else "all"

    @cached_property
    def loops(self) -> list[tuple[int, Loop]]:
        return list(self.nest.loops_above(self.child_at))

    @cached_property
    def mover(self) -> int | None:
        """Index of the innermost temporal loop whose body (re)loads the tile; None: loaded once. MACs reload at every step."""
        own = self.problem.dims_of(self.tensor)
        at_mac = self.child_at == len(self.nest.nodes)
        movers = [
            index
            for index, loop in self.loops
            if loop.axis is None and (at_mac or loop.dim in own) and self._trips(index, loop) > 1
        ]
        return movers[-1] if movers else None

    def _trips(self, index: int, loop: Loop) -> int:
        return -(-_size_above(self.nest, self.problem, loop.dim, index) // loop.tile)

    @cached_property
    def slide(self) -> str | None:
        """The dim whose loop brings only what is new of a sliding window."""
        mover = self.mover
        if mover is None or self.child_at == len(self.nest.nodes):
            return None
        loop = self.nest.nodes[mover]
        assert isinstance(loop, Loop)
        for axis in self.problem.access(self.tensor):
            if loop.dim in axis.dims and len(axis.terms) > 1:
                start = min(mover, self.parent_at)
                later = [(i, n) for i, n in self.loops if i > start and n.dim in axis.dims]
                if all(n.axis is None or self._trips(i, n) == 1 for i, n in later):
                    return loop.dim
        return None


def _size_above(nest: Nest, problem: Problem, dim: str, position: int) -> int:
    size = problem.sizes[dim]
    for _, loop in nest.loops_above(position):
        if loop.dim == dim:
            size = loop.tile
    return size


def _tile(nest: Nest, problem: Problem, tensor: str, position: int) -> int:
    """Distinct elements in the largest tile at a mark (position -1: the whole tensor)."""
    total = 1
    for axis in problem.access(tensor):
        total *= axis_footprint(axis, tuple(_size_above(nest, problem, d, max(position, 0)) for d in axis.dims))
    return total


def _copies(nest: Nest, problem: Problem, arch: Architecture, level: str) -> int:
    """Copies of `level` that the nest's spatial loops reach."""
    order = [node.name for node in arch.nodes]
    total = 1
    for index, loop in nest.loops_above(len(nest.nodes)):
        if loop.axis is not None and order.index(arch.fan_out_of(loop.axis).name) < order.index(level):
            total *= -(-_size_above(nest, problem, loop.dim, index) // loop.tile)
    return total


@lru_cache(maxsize=65536)
def _blocks(size: int, steps: tuple[Step, ...]) -> int:
    """Number of innermost blocks that nested walks of one dim visit."""
    if not steps:
        return 1
    (walk, tile), rest = steps[0], steps[1:]
    if walk == "first":
        return _blocks(min(size, tile), rest)
    full, last = divmod(size, tile)
    return (full * _blocks(tile, rest) if full else 0) + (_blocks(last, rest) if last else 0)


@lru_cache(maxsize=65536)
def _axis_volume(
    axis: Axis, sizes: tuple[int, ...], chains: tuple[tuple[Step, ...], ...], sliding: int | None, run_at: int | None
) -> int:
    """Indices of one tensor axis that are moved, summed over all visits of its dims' blocks.

    `sliding` is the position of the dim whose loop (entry `run_at` of its chain, the last temporal one) keeps the overlap.
    """
    if len(axis.terms) == 1:
        return _covered(sizes[0], chains[0])
    runs = [_runs(size, chain, run_at if i == sliding else None) for i, (size, chain) in enumerate(zip(sizes, chains))]
    total = 0
    for combination, times in _products(runs):
        before = 0
        first = sliding is None
        tiles = combination[sliding] if sliding is not None else (0,)
        for index, tile in enumerate(tiles):
            masks = {d: combination[i][0] for i, d in enumerate(axis.dims)}
            if sliding is not None:
                masks[axis.dims[sliding]] = tile
                first = index == 0
            touched = axis_set(axis, masks)
            total += times * (touched if first else touched & ~before).bit_count()
            before = touched
    return total


def _covered(size: int, steps: tuple[Step, ...]) -> int:
    """Sum of block lengths along one plain dim: blocks partition it; a `first` walk sees one block."""
    if not steps:
        return size
    (walk, tile), rest = steps[0], steps[1:]
    if walk == "first":
        return _covered(min(size, tile), rest)
    full, last = divmod(size, tile)
    return full * _covered(tile, rest) + (_covered(last, rest) if last else 0)


Run = tuple[int, ...]


def _products(runs: list[dict[Run, int]]) -> Iterable[tuple[tuple[Run, ...], int]]:
    combos: list[tuple[tuple[Run, ...], int]] = [((), 1)]
    for table in runs:
        combos = [((*head, run), times * n) for head, times in combos for run, n in table.items()]
    return combos


@lru_cache(maxsize=65536)
def _runs(size: int, steps: tuple[Step, ...], run_at: int | None) -> dict[Run, int]:
    """How often each run of index sets occurs. Without a sliding loop a run is one set, moved to start at 0."""
    table: dict[Run, int] = {}
    for run in _visits(size, steps, run_at, 0):
        low = run[0] & -run[0]
        shifted = tuple(mask >> (low.bit_length() - 1) for mask in run)
        table[shifted] = table.get(shifted, 0) + 1
    return table


def _visits(size: int, steps: tuple[Step, ...], run_at: int | None, start: int) -> list[Run]:
    """Every visit in order; each is the run of bit sets that the sliding loop walks, or a single set."""
    if not steps:
        return [(box(size) << start,)]
    (walk, tile), rest = steps[0], steps[1:]
    inner = None if run_at is None else run_at - 1
    if walk == "first":
        return _visits(min(size, tile), rest, inner, start)
    blocks = [(offset, min(tile, size - offset)) for offset in range(0, size, tile)]
    per_block = [_visits(length, rest, inner if run_at != 0 else None, start + offset) for offset, length in blocks]
    if walk == "merge":
        longest = max(len(visits) for visits in per_block)
        return [_union([v[i] for v in per_block if i < len(v)]) for i in range(longest)]
    if run_at == 0:
        assert all(len(visits) == 1 for visits in per_block)
        return [tuple(visits[0][0] for visits in per_block)]
    return [run for visits in per_block for run in visits]


def _union(runs: list[Run]) -> Run:
    """Side by side, step by step. Runs of different length cannot meet here: a sliding loop has no copies below it."""
    longest = max(len(run) for run in runs)
    merged = [0] * longest
    for run in runs:
        for index, mask in enumerate(run):
            merged[index] |= mask
    return tuple(merged)
