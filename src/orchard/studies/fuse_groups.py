"""The best ways to run one group of a chain: shared tiles, loop orders, pinned tensors, and a nest for every op.

For every vector of shared tiles (divisors of the shared dims) a bound adds up what each op costs there at the least. Vectors are
then opened in the order of their bounds until the bound reaches the limit. An opened vector is resolved exactly: every order of
its loops, every depth at which each external tensor may be pinned (or not pinned: its op loads it), and every row of the ops'
fronts that fits beside. What can be left out, and why:

* A pinned tile just below a loop that leaves it alone is the same tile with the same visits as above that loop, so marks stand
  at the top or right below a loop that moves the tile. Of two marks, one that is no larger and no more often visited stands for
  both: nothing else sees the difference.
* Orders that offer the same footprints and visits to every tensor cost the same.
* Rows of an op compete only through energy, MAC steps, port words and room in the fusion level: ops take turns, so a row must
  fit beside the pinned tiles and the live intermediates, and a row beaten in all four is never needed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import permutations

import numpy as np
from numpy.typing import NDArray

from orchard.cost.chain import GroupCounts, core_cycles, count_vector, live_tiles, reaches
from orchard.cost.nest import Traffic
from orchard.hw.arch import Architecture, Level
from orchard.mapping.chain import Chain, VectorOp
from orchard.mapping.fused import FusedMapping, Group, Shape, SharedLoop, in_place, internal, outside, shared_dims
from orchard.mapping.lattice import divisors
from orchard.mapping.problem import Problem
from orchard.studies.fuse_fronts import OpFronts, Rows, divides
from orchard.studies.nest_search import Objective

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
_TIE = 1e-9


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


@dataclass(frozen=True)
class Recipe:
    """One way to run a group, from which its nests can be built."""

    group: Group
    rows: dict[int, tuple[Rows, int]]


@dataclass(frozen=True)
class Point:
    energy: float
    cycles: float
    recipe: Recipe


@dataclass(frozen=True)
class Choice:
    """A mark of a pinned tensor: depth among the shared loops, words held, times brought."""

    depth: int
    words: int
    visits: int
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
    ) -> None:
        self.chain, self.arch, self.first, self.last, self.whole = chain, arch, first, last, whole
        self.fronts, self.prices, self.floor = fronts, prices, floor
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
    def tiles(self) -> Ints:
        """(vectors, dims): shared tiles whose live intermediates can fit."""
        grown = np.zeros((1, 0), dtype=np.int64)
        for position, dim in enumerate(self.dims):
            options = np.array(divisors(self.chain.sizes[dim]), dtype=np.int64)
            grown = np.concatenate(
                [np.repeat(grown, len(options), axis=0), np.tile(options, len(grown))[:, None]], axis=1
            )
            rest = np.ones((len(grown), len(self.dims) - position - 1), dtype=np.int64)
            least = np.max([self._live(i, np.concatenate([grown, rest], axis=1)) for i in self.ops], axis=0)
            grown = grown[least + self.reserved <= self.capacity]
        if not self.dims:
            grown = grown[[max(self._live(i, grown)[0] for i in self.ops) + self.reserved <= self.capacity]]
        return grown

    def _size(self, dim: str, tiles: Ints) -> Ints:
        if dim in self.dims:
            return tiles[:, self.dims.index(dim)]
        return np.full(len(tiles), self.chain.sizes[dim], dtype=np.int64)

    def _tile_words(self, tensor: str, index: int, tiles: Ints) -> Floats:
        total = np.ones(len(tiles))
        for axis in self.chain.ops[index].access(tensor):
            total *= 1 + sum(c * (self._size(d, tiles) - 1) for c, d in axis.terms)
        return total

    def _live(self, index: int, tiles: Ints) -> Floats:
        """Words of live intermediates at op `index` (each once: overlap may double them later)."""
        placed = in_place(self.chain, self.first, self.last)
        live = [t for t in self.own if self.chain.writers[t] <= index <= self.chain.readers[t][-1]]
        replaced = placed.get(self.chain.output(index))
        total = np.zeros(len(tiles))
        for t in live:
            if t != replaced or self.chain.output(index) not in live:
                total += self._tile_words(t, self.chain.writers[t], tiles)
        return total

    def _trips(self, dims: Iterator[str], tiles: Ints) -> Floats:
        total = np.ones(len(tiles))
        for d in dims:
            total *= self.chain.sizes[d] / tiles[:, self.dims.index(d)]
        return total

    def bounds(self, tiles: Ints) -> tuple[Floats, Floats]:
        """Energy and cycles that no way to run the group with these shared tiles can beat."""
        energy, mac = np.zeros(len(tiles)), np.zeros(len(tiles))
        charged: set[str] = set()
        for i in self.einsums:
            op = self.chain.ops[i]
            assert isinstance(op, Problem)
            repeats = self._trips((d for d in self.dims if d not in op.dims), tiles)
            least, steps = self._least(i, tiles, repeats, charged)
            charged |= set(op.tensors)
            energy, mac = energy + least, mac + steps
        vector_energy, vector_cycles = self._vector_floor(tiles)
        core = np.maximum(mac, vector_cycles)
        if self.arch.vector is not None and not self.arch.vector.overlap:
            core = mac + vector_cycles
        return energy + vector_energy, core

    def _least(self, i: int, tiles: Ints, repeats: Floats, charged: set[str]) -> tuple[Floats, Floats]:
        op, model = self.chain.ops[i], self.fronts[i].model
        assert isinstance(op, Problem)
        energy, steps = np.full(len(tiles), np.inf), np.full(len(tiles), np.inf)
        room = self.capacity - self.reserved - self._live(i, tiles)
        at = self._positions(i, tiles)
        for rows in self.allowed[i]:
            pinned = [t for t in op.tensors if t in self.externals and t not in rows.placed]
            extra = sum(self._pin_floor(t) for t in pinned if t not in charged)
            left = room - sum((self._tile_words(t, i, tiles) for t in pinned), np.zeros(len(tiles)))
            fits = np.ones((len(rows.energy), len(tiles)), dtype=bool)
            for d in range(len(model.lattice.dims)):
                fits &= divides(model.lattice, d)[rows.reach[:, d]][:, at[d]]
            fits &= rows.room[:, None] <= left[None, :]
            energy = np.minimum(energy, np.where(fits, rows.energy[:, None], np.inf).min(axis=0) * repeats + extra)
            steps = np.minimum(steps, np.where(fits, rows.steps[:, None], np.inf).min(axis=0) * repeats)
        return energy, steps / model.mac_rate

    def _positions(self, i: int, tiles: Ints) -> list[Ints]:
        """Per dim of the op's lattice: which of its tiles each vector of shared tiles asks for."""
        lattice = self.fronts[i].model.lattice
        return [np.searchsorted(lattice.tiles[d], self._size(dim, tiles)) for d, dim in enumerate(lattice.dims)]

    def _pin_floor(self, tensor: str) -> float:
        """Energy to bring, or take away, every word of an external tensor once."""
        root = self.arch.levels[0].name
        kinds = ("write", "read") if self.chain.writers.get(tensor) in self.ops else ("read", "write")
        return self.chain.elements(tensor) * (self.prices.word(root, kinds[0]) + self.prices.word(self.level, kinds[1]))

    def _vector_floor(self, tiles: Ints) -> tuple[Floats, Floats]:
        """Least energy and cycles of elementwise work, the rescaling of a running softmax included."""
        energy, cycles = np.zeros(len(tiles)), np.zeros(len(tiles))
        if not any(isinstance(self.chain.ops[i], VectorOp) for i in self.ops):
            return energy, cycles
        assert self.arch.vector is not None
        over = [op.over for i in self.ops if isinstance(op := self.chain.ops[i], VectorOp) and op.over in self.dims]
        walked = over[0] if over else None
        column = self._size(walked, tiles) if walked else np.zeros(len(tiles), dtype=np.int64)
        for tile in np.unique(column):
            loops = (SharedLoop(walked, int(tile)),) if walked else ()
            pins = dict.fromkeys((t for t in self.externals if self._streamed(t)), 0)
            counts = self._vector_counts(loops, pins)
            cost, _ = self.prices.exchange(dict(counts.traffic))
            rows = column == tile
            energy[rows] = cost + counts.vector_ops * self.prices.vector_op
            cycles[rows] = counts.vector_ops / self.arch.vector.lanes
        return energy + sum(self._pin_floor(t) for t in self.externals if self._only_streamed(t)), cycles

    def _streamed(self, tensor: str) -> bool:
        """Whether an elementwise op of the group uses this external tensor."""
        return any(isinstance(op := self.chain.ops[i], VectorOp) and tensor in op.tensors for i in self.ops)

    def _only_streamed(self, tensor: str) -> bool:
        return self._streamed(tensor) and not any(tensor in self.chain.ops[i].tensors for i in self.einsums)

    def _vector_counts(self, loops: tuple[SharedLoop, ...], pins: dict[str, int]) -> GroupCounts:
        """Counts of the elementwise ops alone."""
        group = Group(self.first, self.last, loops, pins)
        mapping = FusedMapping((group,), self.level, self.whole)
        return count_vector(self.chain, self.arch, mapping, group)

    # -- one vector of shared tiles, exactly -------------------------------------------------------------------------------
    def points(self, limit: float) -> list[Point]:
        """Ways to run the group that nothing beats in both energy and cycles and that can score below `limit`."""
        tiles = self.tiles()
        if len(tiles) == 0:
            return []
        energy, cycles = self.bounds(tiles)
        score = np.array([self._score(e, c) if np.isfinite(e) else np.inf for e, c in zip(energy, cycles)])
        front = _Front(self, limit)
        for row in np.argsort(score, kind="stable"):
            if score[row] >= front.limit:
                break
            if not front.beaten(float(energy[row]), float(cycles[row])):
                self.opened += 1
                self._resolve({d: int(t) for d, t in zip(self.dims, tiles[row])}, front)
        return front.points

    def _score(self, energy: float, cycles: float) -> float:
        return self.prices.score(energy + self.floor.energy, cycles + self.floor.cycles)

    def _resolve(self, tiles: dict[str, int], front: _Front) -> None:
        walked = [d for d in self.dims if tiles[d] < self.chain.sizes[d]]
        here = _Here(self, tiles, walked)
        seen: set[tuple[object, ...]] = set()
        for order in permutations(walked):
            loops = tuple(SharedLoop(d, tiles[d]) for d in order)
            shape = Shape(self.chain, self.first, self.last, loops)
            choices = [self._choices(shape, t) if self.may_pin else [] for t in self.externals]
            statistics = 2 * sum(shape.statistics(i) for i in self.ops)
            mark = (tuple(tuple((c.words, c.visits) for c in some) for some in choices), statistics)
            if mark in seen:
                continue
            seen.add(mark)
            here.assign(loops, choices, statistics, front)


    def _choices(self, shape: Shape, tensor: str) -> list[Choice]:
        """Marks of a pinned tensor that no other mark equals or beats."""
        index = self.user[tensor]
        own = self.chain.dims_of(tensor, index)
        depths = [0, *(k + 1 for k, loop in enumerate(shape.loops) if loop.dim in own)]
        found = sorted((shape.tile(tensor, index, k), shape.visits(tensor, index, k), k) for k in depths)
        kept: list[Choice] = []
        for words, visits, depth in found:
            if words <= self.capacity and not any(c.words <= words and c.visits <= visits for c in kept):
                kept.append(Choice(depth, words, visits, *self._moving(tensor, visits)))
        return kept

    def _moving(self, tensor: str, visits: int) -> tuple[float, Floats]:
        """Energy and port words of bringing a pinned tile so often."""
        if (tensor, visits) not in self.moving:
            root, elements = self.arch.levels[0].name, self.chain.elements(tensor)
            moved, back = visits * elements, (visits - 1) * elements
            if self.chain.writers.get(tensor) in self.ops:
                up, down = Traffic(back, moved, back, moved), Traffic(moved, back, moved, back)
            else:
                up, down = Traffic(moved, 0, moved, 0), Traffic(0, moved, 0, moved)
            self.moving[tensor, visits] = self.prices.exchange({(root, tensor): up, (self.level, tensor): down})
        return self.moving[tensor, visits]


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

    def __init__(self, search: GroupSearch, tiles: dict[str, int], walked: list[str]) -> None:
        self.s, self.tiles = search, tiles
        loops = tuple(SharedLoop(d, tiles[d]) for d in walked)
        self.shape = Shape(search.chain, search.first, search.last, loops)
        group = Group(search.first, search.last, loops)
        self.live = live_tiles(search.chain, group, search.arch, search.whole)
        self.rows = {(i, r.placed): self._fitting(i, r) for i in search.einsums for r in search.allowed[i]}
        self.repeats = {i: self.shape.repeats(i) for i in search.ops}
        self.vector_memo: dict[frozenset[str], tuple[float, tuple[float, float, Floats]]] = {}
        self.loops = loops
        rates = {i: search.fronts[i].model.mac_rate for i in search.einsums}
        least = {key: float(rows.energy[at].min()) * self.repeats[key[0]] for key, (rows, at) in self.rows.items() if len(at)}
        self.least = least
        self.mac = sum(
            min((float(rows.steps[at].min()) for (j, _), (rows, at) in self.rows.items() if j == i and len(at)), default=0.0)
            * self.repeats[i] / rates[i]
            for i in search.einsums
        )  # fmt: skip
        self.at_best = {i: min((e for (j, _), e in least.items() if j == i), default=float("inf")) for i in search.einsums}
        self.complete = self._complete()

    def _complete(self) -> list[list[int]]:
        """Per external tensor: the ops whose last external tensor it is."""
        order = self.s.externals
        found: list[list[int]] = [[] for _ in order]
        for i in self.s.einsums:
            mine = [order.index(t) for t in self.s.chain.ops[i].tensors if t in order]
            if mine:
                found[max(mine)].append(i)
        return found

    def _fitting(self, i: int, rows: Rows) -> tuple[Rows, Ints]:
        lattice = self.s.fronts[i].model.lattice
        fits = np.ones(len(rows.energy), dtype=bool)
        for d, dim in enumerate(lattice.dims):
            at = lattice.lookup[d][self.tiles.get(dim, lattice.sizes[d])]
            fits &= divides(lattice, d)[rows.reach[:, d], at]
        return rows, np.flatnonzero(fits)

    def assign(
        self, loops: tuple[SharedLoop, ...], choices: list[list[Choice]], statistics: int, front: _Front
    ) -> None:
        """Every pinned or loaded choice for every external tensor that fits. The least of ops that are not decided bounds the
        energy on the way."""
        s = self.s
        chosen: dict[str, Choice | None] = {}

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
        vector = self._vector(chosen, held)
        if vector is None:
            return
        vector_energy, vector_cycles, vector_words = vector
        energy, words = energy + vector_energy, moved + vector_words
        sides: list[tuple[int, Rows, Ints]] = []
        least, mac = energy, 0.0
        for i in s.einsums:
            rows, fitting = self.rows[i, self._placed(i, chosen)]
            fitting = fitting[rows.room[fitting] <= s.capacity - held - self.live[i]]
            if len(fitting) == 0:
                return
            least += float(rows.energy[fitting].min()) * self.repeats[i]
            mac += float(rows.steps[fitting].min()) * self.repeats[i] / s.fronts[i].model.mac_rate
            sides.append((i, rows, fitting))
        if front.hopeless(least, s.prices.cycles(self._core(mac, vector_cycles), words)):
            return
        group = Group(s.first, s.last, loops, {t: c.depth for t, c in chosen.items() if c is not None})
        for e, m, w, picked in self._join(sides):
            cycles = s.prices.cycles(self._core(m, vector_cycles), words + w)
            if not front.hopeless(energy + e, cycles):
                front.add(Point(energy + e, cycles, Recipe(group, picked)))

    def _core(self, mac: float, vector: float) -> float:
        return core_cycles(mac, vector, self.shape.iterations, self.s.arch)

    def _join(
        self, sides: list[tuple[int, Rows, Ints]]
    ) -> list[tuple[float, float, Floats, dict[int, tuple[Rows, int]]]]:
        """Sums of one row per op, beaten ones left out on the way."""
        zero = np.zeros(len(self.s.prices.limits))
        sums: list[tuple[float, float, Floats, dict[int, tuple[Rows, int]]]] = [(0.0, 0.0, zero, {})]
        for i, rows, fitting in sides:
            n, rate = self.repeats[i], self.s.fronts[i].model.mac_rate
            grown = [
                (e + float(rows.energy[r]) * n, m + float(rows.steps[r]) * n / rate, w + rows.words[r] * n,
                 {**picked, i: (rows, int(r))})
                for e, m, w, picked in sums for r in fitting
            ]  # fmt: skip
            sums = []
            for new in sorted(grown, key=lambda x: (x[0], x[1])):
                if not any(o[1] <= new[1] and self._fewer(o[2], new[2]) for o in sums):
                    sums.append(new)
        return sums

    def _fewer(self, left: Floats, right: Floats) -> bool:
        return not self.s.prices.compare_time or bool((left <= right).all())

    def _vector(self, chosen: dict[str, Choice | None], held: float) -> tuple[float, float, Floats] | None:
        """Energy, cycles and port words of elementwise work; None where it does not fit."""
        s = self.s
        if not any(isinstance(s.chain.ops[i], VectorOp) for i in s.ops):
            return 0.0, 0.0, np.zeros(len(s.prices.limits))
        pinned = frozenset(t for t, c in chosen.items() if c is not None)
        key = pinned & frozenset(t for t in s.externals if s._streamed(t))
        if key not in self.vector_memo:
            assert s.arch.vector is not None
            counts = s._vector_counts(self.loops, dict.fromkeys(key, 0))
            cost, words = s.prices.exchange(dict(counts.traffic))
            energy = cost + counts.vector_ops * s.prices.vector_op
            room = float(max(self.live[i] + counts.held_words[i] for i in s.ops if i not in s.einsums))
            self.vector_memo[key] = (room, (energy, counts.vector_ops / s.arch.vector.lanes, words))
        room, found = self.vector_memo[key]
        return None if held + room > s.capacity else found
