"""The best ways to run one group of a chain: shared tiles, loop orders, pinned tensors, and a nest for every op.

For every vector of shared tiles (divisors of the shared dims) a bound adds up what each op costs there at the least. Vectors are
then opened in the order of their bounds until the bound reaches the limit. An opened vector is resolved exactly: every order of
its loops, every depth at which each external tensor may be pinned (or not pinned: its op loads it), and every row of the ops'
fronts that fits beside. What can be left out, and why:

* A pinned tile just below a loop that leaves it alone is the same tile with the same visits as above that loop, so marks stand
  at the top or right below a loop that moves the tile. Of two marks, one that is no larger and brings no more words stands for
  both: nothing else sees the difference.
* Orders that offer the same footprints and words to every tensor, and the same room to what is kept, cost the same.
* Where windows follow a shared loop (`orchard.mapping.halo`), every set of intermediates that keep their overlapping rows is a
  vector of its own; what keeps nothing there (no overlap, or one step only) is left to the vector without it.
* Rows of an op compete only through energy, MAC steps, port words and room in the fusion level: ops take turns, so a row must
  fit beside the pinned tiles and the live intermediates, and a row beaten in all four is never needed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import combinations, permutations
from math import prod

import numpy as np
from numpy.typing import NDArray

from orchard.cost.chain import GroupCounts, Held, core_cycles, count_vector, live_tiles, reaches, vector_room
from orchard.cost.nest import Traffic
from orchard.hw.arch import Architecture, Level
from orchard.mapping.chain import Chain, VectorOp
from orchard.mapping.fused import (
    FusedMapping,
    Group,
    Kept,
    Phase,
    Shape,
    SharedLoop,
    in_place,
    internal,
    keepable,
    outside,
    shared_dims,
)  # fmt: skip
from orchard.mapping.halo import Block, Blocks, least_elements
from orchard.mapping.lattice import alike
from orchard.mapping.problem import Problem
from orchard.studies.fuse_fronts import OpFronts, OpModel, Rows, divides
from orchard.studies.nest_search import Objective

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
_TIE = 1e-9
_PIECE = 4096  # rows that are looked at at once


@dataclass(frozen=True)
class Prices:
    """What a word, an operation and a cycle cost under one objective. `limits` are the ports: (level, kind, words per cycle)."""

    arch: Architecture
    objective: Objective
    limits: tuple[tuple[Level, str, float], ...]
    compare_time: bool

    def word(self, level: str, kind: str) -> float:
        node = self.arch.level(level)
        real = node.read_energy_pj if kind == "read" else node.write_energy_pj
        if self.objective == "traffic":
            return (1.0 if level == self.arch.levels[0].name else 0.0) + _TIE * real
        return real

    @property
    def vector_op(self) -> float:
        real = self.arch.vector.energy_pj if self.arch.vector is not None else 0.0
        return real * (_TIE if self.objective == "traffic" else 1.0)

    def score(self, energy: float, cycles: float) -> float:
        if self.objective in ("energy", "traffic"):
            return energy
        if self.objective == "latency":
            return cycles * (1 + _TIE * energy / (energy + 1.0))
        return energy * cycles

    def exchange(self, traffic: dict[tuple[str, str], Traffic]) -> tuple[float, Floats]:
        """Energy, and words per port limit."""
        energy, words = 0.0, np.zeros(len(self.limits))
        for (level, _), t in traffic.items():
            energy += t.reads * self.word(level, "read") + t.writes * self.word(level, "write")
            for column, (limit, kind, _) in enumerate(self.limits):
                if limit.name == level:
                    words[column] += t.copy_reads * (kind != "write") + t.copy_writes * (kind != "read")
        return energy, words

    def cycles(self, core: float, words: Floats) -> float:
        """Latency of a group from its MAC and vector cycles and its port words."""
        if not self.compare_time:
            return core
        total, serial = core, dict[str, float]()
        for column, (level, _, rate) in enumerate(self.limits):
            busy = float(words[column]) / rate
            if level.buffering == "single":
                serial[level.name] = max(serial.get(level.name, 0.0), busy)
            else:
                total = max(total, busy)
        return total + sum(serial.values())


@dataclass(frozen=True)
class Floor:
    """What the rest of the chain needs at least, whatever is done with it."""

    energy: float
    cycles: float


Part = tuple[int, Phase]
"""An op, at the steps of the shared loops where it works on one and the same tile."""


@dataclass(frozen=True)
class Recipe:
    """One way to run a group, from which its nests can be built."""

    group: Group
    rows: dict[Part, tuple[Rows, int]]


@dataclass(frozen=True)
class Point:
    energy: float
    cycles: float
    recipe: Recipe


@dataclass(frozen=True)
class Choice:
    """A mark of a pinned tensor: depth among the shared loops, words held, words brought over all iterations."""

    depth: int
    words: int
    brought: int
    energy: float
    moved: Floats  # words per port limit


class GroupSearch:
    """Ops `first` … `last` with `whole` intermediates of the chain kept in the fusion level entire."""

    def __init__(
        self,
        chain: Chain,
        arch: Architecture,
        first: int,
        last: int,
        whole: frozenset[str],
        fronts: dict[int, OpFronts],
        prices: Prices,
        floor: Floor,
        options: Mapping[str, tuple[int, ...]],
        check_time: Callable[[], None] = lambda: None,
    ) -> None:
        """`options`: tiles of shared dims that the fronts know. `check_time` may raise to stop."""
        self.check_time = check_time
        self.chain, self.arch, self.first, self.last, self.whole = chain, arch, first, last, whole
        self.fronts, self.prices, self.floor, self.options = fronts, prices, floor, options
        self.level = arch.levels[1].name
        have = arch.levels[1].words_for("I")
        self.capacity = float("inf") if have is None else float(have)
        self.ops = range(first, last + 1)
        self.einsums = [i for i in self.ops if isinstance(chain.ops[i], Problem)]
        self.own = internal(chain, first, last)
        self.reserved = sum(
            chain.elements(t) for t in whole if chain.writers[t] <= last and chain.readers[t][-1] >= first
        )
        self.externals = [t for t in outside(chain, first, last) if t not in whole]
        self.user = {t: next(i for i in self.ops if t in chain.ops[i].tensors) for t in self.externals}
        alone = len(self.ops) == 1 and bool(self.einsums)
        self.dims = () if alone else shared_dims(chain, first, last)
        self.linked = Shape(chain, first, last, ()).links
        self.pairs = () if alone else keepable(chain, first, last)
        vectored = any(isinstance(chain.ops[i], VectorOp) for i in self.ops)
        self.may_pin = not vectored or reaches(arch, self.level)
        self.moving: dict[tuple[str, int], tuple[float, Floats]] = {}
        self.opened = 0
        self.joined = 0
        self.allowed = {i: self._allowed(i) for i in self.einsums}

    def _allowed(self, index: int) -> list[Rows]:
        """Row sets that do not load what is in the fusion level already."""
        near = self.own | self.whole
        return [rows for rows in self.fronts[index].rows if not rows.placed & near]

    # -- all shared tiles at once ----------------------------------------------------------------------------------------
    def tiles(self, kept: Kept) -> Ints:
        """(vectors, dims): shared tiles whose live intermediates can fit, and under which everything of `kept` overlaps."""
        grown = np.zeros((1, 0), dtype=np.int64)
        for position, dim in enumerate(self.dims):
            options = np.array(self.options[dim], dtype=np.int64)
            grown = np.concatenate(
                [np.repeat(grown, len(options), axis=0), np.tile(options, len(grown))[:, None]], axis=1
            )
            rest = np.ones((len(grown), len(self.dims) - position - 1), dtype=np.int64)
            blocks = self._blocks(np.concatenate([grown, rest], axis=1), kept)
            least = np.max([self._live(i, blocks) for i in self.ops], axis=0)
            grown = grown[least + self.reserved <= self.capacity]
        blocks = self._blocks(grown, kept)
        good = np.max([self._live(i, blocks) for i in self.ops], axis=0) + self.reserved <= self.capacity
        for tensor, dim in kept:
            follower = next(d for d in self._dims_of(tensor) if self.linked.base.get(d) == dim)
            good &= (blocks.overlap(tensor, follower) > 0) & (self._trips([dim], grown) > 1)
        return np.asarray(grown[good])

    def _dims_of(self, tensor: str) -> list[str]:
        """Dims of an intermediate where it is written."""
        return [axis.dims[0] for axis in self.chain.ops[self.chain.writers[tensor]].access(tensor)]

    def _blocks(self, tiles: Ints, kept: Kept) -> Blocks[Ints]:
        return Blocks[Ints](self.chain, self.linked, lambda d: self._size(d, tiles), kept)

    def _size(self, dim: str, tiles: Ints) -> Ints:
        if dim in self.dims:
            return tiles[:, self.dims.index(dim)]
        return np.full(len(tiles), self.chain.sizes[dim], dtype=np.int64)

    def _tile_words(self, tensor: str, index: int, blocks: Blocks[Ints]) -> Floats:
        """Words of an external tensor's tile inside all shared loops, at the first steps."""
        total = self._ones(blocks)
        for axis in self.chain.ops[index].access(tensor):
            total = total * blocks.touched(index, axis).first
        return total

    def _live(self, index: int, blocks: Blocks[Ints], tiles: Ints | None = None) -> Floats:
        """Words of live intermediates at op `index`: at the first steps, or with `tiles` at the steps where they are fewest
        (each once: overlap may double them later; rows kept are left out)."""
        placed = in_place(self.chain, self.first, self.last)
        live = [t for t in self.own if self.chain.writers[t] <= index <= self.chain.readers[t][-1]]
        replaced = placed.get(self.chain.output(index))
        total = 0.0 * self._ones(blocks)
        for t in live:
            if t != replaced or self.chain.output(index) not in live:
                words = self._ones(blocks)
                for d in self._dims_of(t):
                    read = blocks.read(t, d)
                    words = words * (read.first if tiles is None else self._fewest(d, read, tiles))
                total = total + words
        return total

    def _ones(self, blocks: Blocks[Ints]) -> Floats:
        return np.ones(len(blocks.tile(next(iter(self.chain.sizes)))))

    def _fewest(self, dim: str, block: Block[Ints], tiles: Ints) -> Ints:
        return np.where(self._trips([self.linked.of(dim)], tiles) > 1, block.later, block.first)

    def _trips(self, dims: Iterable[str], tiles: Ints) -> Floats:
        total = np.ones(len(tiles))
        for d in dims:
            total *= self.chain.sizes[d] / self._size(d, tiles)
        return total

    def _computed(self, index: int, blocks: Blocks[Ints], tiles: Ints) -> dict[str, Floats]:
        """Per dim of an op that follows a shared loop: how much of it is computed over all steps."""
        found = {}
        for d in self.chain.ops[index].dims:
            if d in self.linked.base:
                made = blocks.made(index, d)
                found[d] = made.first + (self._trips([self.linked.base[d]], tiles) - 1) * made.later
        return found

    def bounds(self, tiles: Ints, kept: Kept) -> tuple[Floats, Floats]:
        """Energy and cycles that no way to run the group with these shared tiles can beat."""
        energy, mac = np.zeros(len(tiles)), np.zeros(len(tiles))
        charged: set[str] = set()
        blocks = self._blocks(tiles, kept)
        for i in self.einsums:
            least, steps = self._least(i, tiles, blocks, charged)
            charged |= set(self.chain.ops[i].tensors)
            energy, mac = energy + least, mac + steps
        vector_energy, vector_cycles = self._vector_floor(tiles, blocks)
        core = np.maximum(mac, vector_cycles)
        if self.arch.vector is not None and not self.arch.vector.overlap:
            core = mac + vector_cycles
        return energy + vector_energy, core

    def _least(self, i: int, tiles: Ints, blocks: Blocks[Ints], charged: set[str]) -> tuple[Floats, Floats]:
        op, model = self.chain.ops[i], self.fronts[i].model
        energy, steps = np.full(len(tiles), np.inf), np.full(len(tiles), np.inf)
        room = self.capacity - self.reserved - self._live(i, blocks, tiles)
        own = self.linked.walked(op.dims)
        times = self._trips((d for d in self.dims if d not in own), tiles)
        computed = self._computed(i, blocks, tiles)
        for d in op.dims:
            times = times * computed.get(d, self.chain.sizes[d]) / model.problem.sizes[d]
        at = [self._positions(i, d, tiles, blocks) for d in model.lattice.dims]
        asked = alike([place for places in at for place in places], len(tiles))
        for rows in self.allowed[i]:
            pinned = [t for t in op.tensors if t in self.externals and t not in rows.placed]
            extra = sum(self._pin_floor(t) for t in pinned if t not in charged)
            left = room - sum((self._tile_words(t, i, blocks) for t in pinned), np.zeros(len(tiles)))
            energies, fewest = self._least_of(rows, model, at, asked, left)
            energy = np.minimum(energy, energies * times + extra)
            steps = np.minimum(steps, fewest * times)
        return energy, steps / model.mac_rate

    def _least_of(
        self, rows: Rows, model: OpModel, at: list[list[Ints]], asked: Ints, left: Floats
    ) -> tuple[Floats, Floats]:
        """Least energy and steps of the rows that fit, per vector of shared tiles. Vectors that ask the op for the same tiles
        (`asked` is the same) and leave it the same room are looked at once: most shared dims are none of the op's."""
        key = alike([asked, np.unique(left, return_inverse=True)[1].reshape(-1)], len(left))
        _, first, back = np.unique(key, return_index=True, return_inverse=True)
        energy, steps = np.full(len(first), np.inf), np.full(len(first), np.inf)
        tables = [divides(model.lattice, d) for d in range(len(at))]
        for start in range(0, len(rows.energy), _PIECE):
            self.check_time()
            piece = slice(start, start + _PIECE)
            fits = rows.room[piece, None] <= left[None, first]
            for d, places in enumerate(at):
                table = tables[d][rows.reach[piece, d]]
                fits &= np.any([table[:, place[first]] for place in places], axis=0)
            energy = np.minimum(energy, np.where(fits, rows.energy[piece, None], np.inf).min(axis=0, initial=np.inf))
            steps = np.minimum(steps, np.where(fits, rows.steps[piece, None], np.inf).min(axis=0, initial=np.inf))
        return energy[back.reshape(-1)], steps[back.reshape(-1)]

    def _positions(self, i: int, dim: str, tiles: Ints, blocks: Blocks[Ints]) -> list[Ints]:
        """Which tiles of the op's lattice the vectors of shared tiles ask for along a dim: at first and at later steps."""
        lattice = self.fronts[i].model.lattice
        made = blocks.made(i, dim)
        wanted = [made.first, self._fewest(dim, made, tiles)] if dim in self.linked.base else [made.first]
        return [np.searchsorted(lattice.tiles[lattice.dims.index(dim)], rows) for rows in wanted]

    def _pin_floor(self, tensor: str) -> float:
        """Energy to bring, or take away, every word of an external tensor once."""
        root = self.arch.levels[0].name
        kinds = ("write", "read") if self.chain.writers.get(tensor) in self.ops else ("read", "write")
        return least_elements(self.chain, tensor) * (
            self.prices.word(root, kinds[0]) + self.prices.word(self.level, kinds[1])
        )

    def _vector_floor(self, tiles: Ints, blocks: Blocks[Ints]) -> tuple[Floats, Floats]:
        """Least energy and cycles of elementwise work, the rescaling of a running softmax included."""
        energy, cycles = np.zeros(len(tiles)), np.zeros(len(tiles))
        vectors = [i for i in self.ops if isinstance(self.chain.ops[i], VectorOp)]
        if not vectors:
            return energy, cycles
        assert self.arch.vector is not None
        over = [op.over for i in vectors if isinstance(op := self.chain.ops[i], VectorOp) and op.over in self.dims]
        walked = over[0] if over else None
        column = self._size(walked, tiles) if walked else np.zeros(len(tiles), dtype=np.int64)
        for tile in np.unique(column):
            loops = (SharedLoop(walked, int(tile)),) if walked else ()
            pins = dict.fromkeys((t for t in self.externals if self._streamed(t)), 0)
            counts = self._vector_counts(loops, pins, frozenset())
            cost, _ = self.prices.exchange(dict(counts.traffic))
            rows = column == tile
            energy[rows] = cost + counts.vector_ops * self.prices.vector_op
            cycles[rows] = counts.vector_ops / self.arch.vector.lanes
        part = np.min([self._part_computed(i, tiles, blocks) for i in vectors], axis=0)
        return energy * part + sum(self._pin_floor(t) for t in self.externals if self._only_streamed(t)), cycles * part

    def _part_computed(self, index: int, tiles: Ints, blocks: Blocks[Ints]) -> Floats:
        """Results that an op computes over all steps, as a multiple of its results."""
        part = np.ones(len(tiles))
        for d, total in self._computed(index, blocks, tiles).items():
            part *= total / self.chain.sizes[d]
        return part

    def _streamed(self, tensor: str) -> bool:
        """Whether an elementwise op of the group uses this external tensor."""
        return any(isinstance(op := self.chain.ops[i], VectorOp) and tensor in op.tensors for i in self.ops)

    def _only_streamed(self, tensor: str) -> bool:
        return self._streamed(tensor) and not any(tensor in self.chain.ops[i].tensors for i in self.einsums)

    def _vector_counts(self, loops: tuple[SharedLoop, ...], pins: dict[str, int], kept: Kept) -> GroupCounts:
        """Counts of the elementwise ops alone."""
        group = Group(self.first, self.last, loops, pins, kept=kept)
        mapping = FusedMapping((group,), self.level, self.whole)
        return count_vector(self.chain, self.arch, mapping, group)

    # -- one vector of shared tiles, exactly -------------------------------------------------------------------------------
    def points(self, limit: float) -> list[Point]:
        """Ways to run the group that nothing beats in both energy and cycles and that can score below `limit`."""
        found: list[tuple[float, float, float, tuple[int, ...], Kept]] = []
        for count in range(len(self.pairs) + 1):
            for kept in map(frozenset, combinations(self.pairs, count)):
                self.check_time()
                tiles = self.tiles(kept)
                if len(tiles):
                    energy, cycles = self.bounds(tiles, kept)
                    found += [
                        (self._score(e, c), float(e), float(c), tuple(map(int, row)), kept)
                        for e, c, row in zip(energy, cycles, tiles) if np.isfinite(e)
                    ]  # fmt: skip
        front = _Front(self, limit)
        for score, least, time, row, kept in sorted(found, key=lambda x: x[0]):
            if score >= front.limit:
                break
            if not front.beaten(least, time):
                self.opened += 1
                self._resolve(dict(zip(self.dims, row)), kept, front)
        return front.points

    def _score(self, energy: float, cycles: float) -> float:
        return self.prices.score(energy + self.floor.energy, cycles + self.floor.cycles)

    def _resolve(self, tiles: dict[str, int], kept: Kept, front: _Front) -> None:
        walked = [d for d in self.dims if tiles[d] < self.chain.sizes[d]]
        here = _Here(self, tiles, walked, kept)
        seen: set[tuple[object, ...]] = set()
        for order in permutations(walked):
            self.check_time()
            loops = tuple(SharedLoop(d, tiles[d]) for d in order)
            shape = Shape(self.chain, self.first, self.last, loops, kept)
            choices = [self._choices(shape, t) if self.may_pin else [] for t in self.externals]
            statistics = 2 * sum(shape.statistics(i) for i in self.ops)
            live = here.live_in(loops)
            mark = (tuple(tuple((c.words, c.brought) for c in some) for some in choices), statistics, tuple(live.items()))
            if mark in seen:
                continue
            seen.add(mark)
            here.assign(loops, choices, statistics, front)

    def _choices(self, shape: Shape, tensor: str) -> list[Choice]:
        """Marks of a pinned tensor that no other mark equals or beats."""
        index = self.user[tensor]
        own = shape.links.walked(self.chain.dims_of(tensor, index))
        depths = [0, *(k + 1 for k, loop in enumerate(shape.loops) if loop.dim in own)]
        found = sorted((shape.tile(tensor, index, k), shape.moved(tensor, index, k), k) for k in depths)
        kept: list[Choice] = []
        for words, moved, depth in found:
            if words <= self.capacity and not any(c.words <= words and c.brought <= moved for c in kept):
                kept.append(Choice(depth, words, moved, *self._moving(tensor, moved)))
        return kept

    def _moving(self, tensor: str, moved: int) -> tuple[float, Floats]:
        """Energy and port words of bringing so many words of a pinned tensor."""
        if (tensor, moved) not in self.moving:
            root, back = self.arch.levels[0].name, moved - self.chain.elements(tensor)
            if self.chain.writers.get(tensor) in self.ops:
                up, down = Traffic(back, moved, back, moved), Traffic(moved, back, moved, back)
            else:
                up, down = Traffic(moved, 0, moved, 0), Traffic(0, moved, 0, moved)
            self.moving[tensor, moved] = self.prices.exchange({(root, tensor): up, (self.level, tensor): down})
        return self.moving[tensor, moved]


class _Front:
    """Points found so far. `limit` falls to the best score, where only one answer is wanted."""

    def __init__(self, search: GroupSearch, limit: float) -> None:
        self.search, self.limit = search, limit
        self.points: list[Point] = []
        self.single = search.first == 0 and search.last == len(search.chain.ops) - 1

    def beaten(self, energy: float, cycles: float) -> bool:
        return any(p.energy <= energy and p.cycles <= cycles for p in self.points)

    def hopeless(self, energy: float, cycles: float) -> bool:
        return self.search._score(energy, cycles) >= self.limit or self.beaten(energy, cycles)

    def add(self, point: Point) -> None:
        self.points = [p for p in self.points if p.energy < point.energy or p.cycles < point.cycles]
        self.points.append(point)
        if self.single:
            self.limit = min(self.limit, self.search._score(point.energy, point.cycles))


class _Here:
    """The joins at one vector of shared tiles."""

    def __init__(self, search: GroupSearch, tiles: dict[str, int], walked: list[str], kept: Kept) -> None:
        self.s, self.kept = search, kept
        self.loops = tuple(SharedLoop(d, tiles[d]) for d in walked)
        self.shape = Shape(search.chain, search.first, search.last, self.loops, kept)
        self.parts: list[Part] = [(i, phase) for i in search.einsums for phase in self.shape.variants(i)]
        self.scale = {part: self._scale(*part) for part in self.parts}
        self.rows = {(part, r.placed): self._fitting(part, r) for part in self.parts for r in search.allowed[part[0]]}
        self.vector_memo: dict[tuple[object, ...], tuple[float, tuple[float, float, Floats]]] = {}
        self.live_memo: dict[tuple[SharedLoop, ...], Held] = {}
        self.live: dict[Part, int] = {}
        self.least = self._sums("energy")
        rates = {i: search.fronts[i].model.mac_rate for i in search.einsums}
        steps = self._sums("steps")
        self.mac = sum(
            min((n for (j, _), n in steps.items() if j == i), default=0.0) / rates[i] for i in search.einsums
        )  # fmt: skip
        self.at_best = {
            i: min((e for (j, _), e in self.least.items() if j == i), default=float("inf")) for i in search.einsums
        }
        self.complete = self._complete()

    def _scale(self, index: int, phase: Phase) -> float:
        """A row's costs over all these iterations, as a multiple of what it costs on the problem that was searched."""
        sizes, model = self.shape.sizes(index, phase), self.s.fronts[index].model
        whole = prod(model.problem.sizes[d] for d in sizes)
        return self.shape.variants(index)[phase] * prod(sizes.values()) / whole

    def _sums(self, column: str) -> dict[tuple[int, frozenset[str]], float]:
        """Least sum of a column over an op's parts, by op and tensors that it loads; missing where a part has no row."""
        found: dict[tuple[int, frozenset[str]], float] = {}
        for i in self.s.einsums:
            parts = [part for part in self.parts if part[0] == i]
            for r in self.s.allowed[i]:
                sides = [(self.scale[part], *self.rows[part, r.placed]) for part in parts]
                if all(len(at) for _, _, at in sides):
                    least = sum(n * float(getattr(rows, column)[at].min()) for n, rows, at in sides)
                    found[i, r.placed] = min(least, found.get((i, r.placed), float("inf")))
        return found

    def live_in(self, loops: tuple[SharedLoop, ...]) -> Held:
        """Live intermediates under this order of the loops, which matters for rows that are kept."""
        key = loops if self.kept else ()
        if key not in self.live_memo:
            s = self.s
            group = Group(s.first, s.last, loops, kept=self.kept)
            self.live_memo[key] = live_tiles(s.chain, group, s.arch, s.whole)
        return self.live_memo[key]

    def _complete(self) -> list[list[int]]:
        """Per external tensor: the ops whose last external tensor it is."""
        order = self.s.externals
        found: list[list[int]] = [[] for _ in order]
        for i in self.s.einsums:
            mine = [order.index(t) for t in self.s.chain.ops[i].tensors if t in order]
            if mine:
                found[max(mine)].append(i)
        return found

    def _fitting(self, part: Part, rows: Rows) -> tuple[Rows, Ints]:
        lattice = self.s.fronts[part[0]].model.lattice
        sizes = self.shape.sizes(*part)
        fits = np.ones(len(rows.energy), dtype=bool)
        for d, dim in enumerate(lattice.dims):
            fits &= divides(lattice, d)[rows.reach[:, d], lattice.lookup[d][sizes[dim]]]
        return rows, np.flatnonzero(fits)

    def assign(
        self, loops: tuple[SharedLoop, ...], choices: list[list[Choice]], statistics: int, front: _Front
    ) -> None:
        """Every pinned or loaded choice for every external tensor that fits. The least of ops that are not decided bounds the
        energy on the way."""
        s = self.s
        chosen: dict[str, Choice | None] = {}
        self.live = dict.fromkeys(self.parts, 0)
        for (i, phase), words in self.live_in(loops).items():
            part = (i, self.shape.phase_of(i, phase))
            if part in self.live:
                self.live[part] = max(self.live[part], words)

        def grow(position: int, held: float, energy: float, moved: Floats, rest: float) -> None:
            if held > s.capacity or not np.isfinite(rest) or front.hopeless(energy + rest, self.mac):
                return
            if position == len(choices):
                self._leaf(loops, chosen, held, energy, moved, front)
                return
            tensor = s.externals[position]
            for choice in (None, *choices[position]):
                chosen[tensor] = choice
                left = rest
                for i in self.complete[position]:
                    left += self.least.get((i, self._placed(i, chosen)), float("inf")) - self.at_best[i]
                if choice is None:
                    grow(position + 1, held, energy, moved, left)
                else:
                    grow(position + 1, held + choice.words, energy + choice.energy, moved + choice.moved, left)
            del chosen[tensor]

        rest = sum(self.at_best.values())
        grow(0, float(statistics + s.reserved), 0.0, np.zeros(len(s.prices.limits)), rest)

    def _placed(self, i: int, chosen: dict[str, Choice | None]) -> frozenset[str]:
        """External tensors that op `i` loads itself."""
        return frozenset(t for t in self.s.chain.ops[i].tensors if t in chosen and chosen[t] is None)

    def _leaf(
        self, loops: tuple[SharedLoop, ...], chosen: dict[str, Choice | None], held: float, energy: float, moved: Floats,
        front: _Front,
    ) -> None:  # fmt: skip
        s = self.s
        s.joined += 1
        s.check_time()
        vector = self._vector(loops, chosen, held)
        if vector is None:
            return
        vector_energy, vector_cycles, vector_words = vector
        energy, words = energy + vector_energy, moved + vector_words
        sides: list[tuple[Part, Rows, Ints]] = []
        least, mac = energy, 0.0
        for part in self.parts:
            rows, fitting = self.rows[part, self._placed(part[0], chosen)]
            fitting = fitting[rows.room[fitting] <= s.capacity - held - self.live[part]]
            if len(fitting) == 0:
                return
            least += float(rows.energy[fitting].min()) * self.scale[part]
            mac += float(rows.steps[fitting].min()) * self.scale[part] / s.fronts[part[0]].model.mac_rate
            sides.append((part, rows, fitting))
        if front.hopeless(least, s.prices.cycles(self._core(mac, vector_cycles), words)):
            return
        pins = {t: c.depth for t, c in chosen.items() if c is not None}
        group = Group(s.first, s.last, loops, pins, kept=self.kept)
        for e, m, w, picked in self._join(sides):
            cycles = s.prices.cycles(self._core(m, vector_cycles), words + w)
            if not front.hopeless(energy + e, cycles):
                front.add(Point(energy + e, cycles, Recipe(group, picked)))

    def _core(self, mac: float, vector: float) -> float:
        return core_cycles(mac, vector, self.shape.iterations, self.s.arch)

    def _join(
        self, sides: list[tuple[Part, Rows, Ints]]
    ) -> list[tuple[float, float, Floats, dict[Part, tuple[Rows, int]]]]:
        """Sums of one row per part, beaten ones left out on the way."""
        zero = np.zeros(len(self.s.prices.limits))
        sums: list[tuple[float, float, Floats, dict[Part, tuple[Rows, int]]]] = [(0.0, 0.0, zero, {})]
        for part, rows, fitting in sides:
            n, rate = self.scale[part], self.s.fronts[part[0]].model.mac_rate
            grown = [
                (e + float(rows.energy[r]) * n, m + float(rows.steps[r]) * n / rate, w + rows.words[r] * n,
                 {**picked, part: (rows, int(r))})
                for e, m, w, picked in sums for r in fitting
            ]  # fmt: skip
            sums = []
            for new in sorted(grown, key=lambda x: (x[0], x[1])):
                if not any(o[1] <= new[1] and self._fewer(o[2], new[2]) for o in sums):
                    sums.append(new)
        return sums

    def _fewer(self, left: Floats, right: Floats) -> bool:
        return not self.s.prices.compare_time or bool((left <= right).all())

    def _vector(
        self, loops: tuple[SharedLoop, ...], chosen: dict[str, Choice | None], held: float
    ) -> tuple[float, float, Floats] | None:
        """Energy, cycles and port words of elementwise work; None where it does not fit."""
        s = self.s
        if not any(isinstance(s.chain.ops[i], VectorOp) for i in s.ops):
            return 0.0, 0.0, np.zeros(len(s.prices.limits))
        pinned = frozenset(t for t, c in chosen.items() if c is not None)
        near = pinned & frozenset(t for t in s.externals if s._streamed(t))
        key = (near, loops if self.kept else ())
        if key not in self.vector_memo:
            assert s.arch.vector is not None
            counts = s._vector_counts(self.loops, dict.fromkeys(near, 0), self.kept)
            cost, words = s.prices.exchange(dict(counts.traffic))
            energy = cost + counts.vector_ops * s.prices.vector_op
            group = Group(s.first, s.last, loops, dict.fromkeys(near, 0), kept=self.kept)
            room = float(vector_room(s.chain, s.arch, FusedMapping((group,), s.level, s.whole), group))
            self.vector_memo[key] = (room, (energy, counts.vector_ops / s.arch.vector.lanes, words))
        room, found = self.vector_memo[key]
        return None if held + room > s.capacity else found
