"""Counts, energy and time of a fused mapping. Exact integers from the loop nests; the rules on top of `orchard.cost.nest`:

* The shared loops of a group run its ops one after the other at every iteration. An op's own nest is a nest on the tile of that
  iteration, counted as `orchard.cost.nest` says; nothing below the fusion level survives from one iteration to the next.
* A tensor of the group that stays in the fusion level (an intermediate, or pinned) is there when the nest starts: no load.
  Any other tensor is loaded by the nest, at every iteration again. A pinned tile is (re)loaded in the body of the innermost
  shared loop above its mark that moves it, as any tile is. Results that come back for more (a shared loop over a dim that the
  op sums over) read their partial sums at every visit but the first, pinned or not.
* A shared loop over a dim that an op lacks runs the op again: all its counts are multiplied.
* A dim that windows slide over follows the shared loop of its reader (`orchard.mapping.halo`): an op works on one tile at the
  loop's first step and on another at later ones, each with a nest of its own; rows that overlap are made again or kept.
* A pinned tile that slides brings at each step of its innermost loop only what the step before did not have.
* The vector unit reads each word of its inputs once from the level it stands beside and writes each result once, at
  `ops_per_element` operations per result; operations cost energy, and `lanes` of them are done per cycle. An elementwise result
  takes the place of its input. Words that live elsewhere pass through the unit's level (write and read there).
* A softmax whose dim is walked by a shared loop keeps a running maximum and sum per row. From the second step on each row costs
  two operations more (the factor exp(old maximum - new), the sum's multiply-add) and two words read and written; and each
  element that its reader accumulates is multiplied by the row's factor: one operation, one word read and written, per step.
* Capacity of the fusion level, at each op: pinned tiles of the whole group, intermediates kept whole, running statistics, the
  tiles of intermediates that are live (made, and still to be read), and the op's own tiles. With an overlapping vector unit the
  tiles that it reads and writes are there twice, since it works on one while the MACs work on the other. Rows kept for the next
  step are part of the intermediate's tile if that step is the next to move it, and held between its uses; rows kept along a loop
  further out (a line buffer) stand beside the tile all the time.
* Time of a group: every resource adds up its cycles over the ops; the slowest sets the time. The vector unit overlaps with the
  MACs (`overlap`) from tile to tile: max(MAC, vector) + min(MAC, vector) / iterations; or they take turns: the sum. Groups run
  one after the other.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from orchard.cost.mapped import Estimate, level_cycles
from orchard.cost.nest import Traffic, count
from orchard.hw.arch import Architecture, VectorUnit
from orchard.mapping.chain import ONE_OP_KINDS, Chain, VectorOp
from orchard.mapping.errors import MappingError
from orchard.mapping.fused import FusedMapping, Group, Phase, Shape, in_place, internal
from orchard.mapping.nest import refuse
from orchard.mapping.problem import Problem

SOFTMAX_OPS = 4
"""max, exp, sum, divide: where a machine does not say otherwise."""
RESCALE_OPS_PER_ROW = 2
"""Per further step of a running softmax: exp(old maximum - new maximum), and sum x factor + new sum."""

Side = Literal["read", "write"]


@dataclass(frozen=True, slots=True)
class GroupCounts:
    """Words per (level, tensor), MAC steps per op, vector operations, words held in the fusion level."""

    traffic: Mapping[tuple[str, str], Traffic]
    steps: Mapping[int, int]
    macs: Mapping[int, int]
    vector_ops: int
    held_words: Mapping[int, int]  # by op: words in the fusion level while it runs
    iterations: int


def vector_unit(chain: Chain, arch: Architecture, kind: str) -> VectorUnit:
    if arch.vector is None:
        raise MappingError(
            f"{chain.name}: {kind} needs a vector unit, {arch.name} has none; describe one under 'vector', or leave {kind} out"
        )
    return arch.vector


def ops_per_element(chain: Chain, arch: Architecture, kind: str) -> int:
    """Vector operations per result of an elementwise op. Raises MappingError for a kind that nobody has counted."""
    unit = vector_unit(chain, arch, kind)
    listed = {**dict.fromkeys(ONE_OP_KINDS, 1), "softmax": SOFTMAX_OPS, **unit.ops_per_element}
    if kind not in listed:
        raise MappingError(
            f"{chain.name}: {arch.name} does not say how many vector operations {kind!r} needs; list it under "
            f"vector.ops_per_element (known: {', '.join(sorted(listed))})"
        )
    return listed[kind]


class _Counter:
    """Traffic of one group."""

    def __init__(self, chain: Chain, arch: Architecture, mapping: FusedMapping, group: Group) -> None:
        self.chain, self.arch, self.mapping, self.group = chain, arch, mapping, group
        self.shape = Shape.of(chain, group)
        self.root = arch.levels[0].name
        self.own = internal(chain, group.first, group.last)
        self.traffic: dict[tuple[str, str], Traffic] = defaultdict(Traffic)
        self.steps: dict[int, int] = {}
        self.macs: dict[int, int] = {}
        self.tiles_of_op: dict[tuple[int, Phase], int] = {}
        self.vector_ops = 0

    def near(self, tensor: str) -> bool:
        """Whether the tensor is in the fusion level when a nest starts."""
        return tensor in self.own or tensor in self.group.pins or tensor in self.mapping.whole

    def einsum(self, index: int, op: Problem) -> None:
        self.steps[index] = self.macs[index] = 0
        for phase, iterations in self.shape.variants(index).items():
            self._einsum(index, op, phase, iterations)

    def _einsum(self, index: int, op: Problem, phase: Phase, iterations: int) -> None:
        shape = self.shape
        tile = Problem(op.name, op.einsum, shape.sizes(index, phase), op.tensors, op.bits)
        roots = {t: self.mapping.level for t in op.tensors if self.near(t) and self.mapping.level}
        nest, again = self.group.nest(index, phase), shape.partial_runs(index)
        first = iterations // again
        fresh = count(nest, tile, self.arch, roots=roots)
        counts = [(first, fresh)]
        if again > 1:
            counts.append((iterations - first, count(nest, tile, self.arch, roots=roots, resumed=True)))
        for times, counted in counts:
            for key, words in counted.traffic.items():
                self.traffic[key] += _times(words, times)
        self.steps[index] += iterations * fresh.steps
        self.macs[index] += iterations * fresh.macs
        held = [t for t in op.tensors if not self.near(t) and (self.mapping.level, t) in fresh.footprint]
        self.tiles_of_op[index, phase] = sum(fresh.footprint[self.mapping.level or "", t] for t in held)

    def pinned(self, tensor: str, depth: int) -> None:
        index = next(i for i in self.group.ops if tensor in self.chain.ops[i].tensors)
        moved = self.shape.moved(tensor, index, depth)
        written = self.chain.writers.get(tensor) in self.group.ops
        self._exchange(tensor, self.root, self.mapping.level or "", moved, written)

    def _exchange(self, tensor: str, above: str, below: str, moved: int, written: bool) -> None:
        back = moved - self.chain.elements(tensor) if written else 0
        up = Traffic(back, moved, back, moved) if written else Traffic(moved, 0, moved, 0)
        down = Traffic(moved, back, moved, back) if written else Traffic(0, moved, 0, moved)
        self.traffic[above, tensor] += up
        self.traffic[below, tensor] += down

    def vector(self, index: int, op: VectorOp) -> None:
        shape = self.shape
        results = shape.computed(index)
        self.vector_ops += results * ops_per_element(self.chain, self.arch, op.kind)
        variants = shape.variants(index)
        for tensor in dict.fromkeys(op.inputs):
            self._stream(tensor, sum(n * shape.streamed(tensor, index, phase) for phase, n in variants.items()), "read")
        self._stream(op.output, results, "write")
        for phase in variants:
            self.tiles_of_op[index, phase] = self.vector_tiles(index, op, phase)
        steps = shape.rescaled(index)
        if steps > 1:
            rows = results // self.chain.sizes[op.over or ""] * (steps - 1)
            self.vector_ops += RESCALE_OPS_PER_ROW * rows
            self._both_ways(op.output, 2 * rows)
            for reader in shape.followers(index):
                output = self.chain.output(reader)
                moved = (steps - 1) * self.chain.elements(output)
                self.vector_ops += moved
                self._both_ways(output, moved)

    def vector_tiles(self, index: int, op: VectorOp, phase: Phase) -> int:
        """Words of the op's own tiles of tensors from outside, on their way to the unit and back."""
        if self._home() == self.root:
            return 0
        own = [t for t in dict.fromkeys(op.inputs) if not self.near(t)]
        if not self.near(op.output) and op.output not in in_place(self.chain, self.group.first, self.group.last):
            own.append(op.output)
        return sum(self.shape.streamed(t, index, phase) for t in own)

    def _both_ways(self, tensor: str, words: int) -> None:
        """Words that the unit reads and writes back in the fusion level."""
        home = self.mapping.level or self.root
        for side in ("read", "write"):
            self._port(tensor, home, words, side)

    def _stream(self, tensor: str, words: int, side: Side) -> None:
        """Words between where the tensor lives and the vector unit."""
        assert self.arch.vector is not None
        home = self._home()
        if not self.near(tensor) and home != self.root:
            self._hop(tensor, self.root, home, words, side)
        self._port(tensor, home, words, side)

    def _home(self) -> str:
        """Where the unit's words stop on their way: the fusion level, if the unit stands there or further in."""
        return self.mapping.level if self.mapping.level and reaches(self.arch, self.mapping.level) else self.root

    def _hop(self, tensor: str, above: str, below: str, words: int, side: Side) -> None:
        reads, writes = Traffic(words, 0, words, 0), Traffic(0, words, 0, words)
        self.traffic[above, tensor] += reads if side == "read" else writes
        self.traffic[below, tensor] += writes if side == "read" else reads

    def _port(self, tensor: str, home: str, words: int, side: Side) -> None:
        assert self.arch.vector is not None
        beside = self.arch.vector.beside
        if beside != home:
            self._hop(tensor, home, beside, words, side)
        self.traffic[beside, tensor] += Traffic(words, 0, words, 0) if side == "read" else Traffic(0, words, 0, words)


def reaches(arch: Architecture, level: str) -> bool:
    """Whether the vector unit stands at `level` or further in, so that words in that level need not leave it."""
    order = [node.name for node in arch.levels]
    return arch.vector is not None and order.index(arch.vector.beside) >= order.index(level)


def _times(words: Traffic, n: int) -> Traffic:
    return Traffic(words.reads * n, words.writes * n, words.copy_reads * n, words.copy_writes * n)


Held = Mapping[tuple[int, Phase], int]
"""Words in the fusion level by op and phase of the shared loops."""


def live_tiles(chain: Chain, group: Group, arch: Architecture, whole: frozenset[str]) -> Held:
    """Words of the group's intermediates in the fusion level while each op runs."""
    shape = Shape.of(chain, group)
    own = internal(chain, group.first, group.last) - whole
    placed = in_place(chain, group.first, group.last)
    vectored = {t for i in group.ops if isinstance(chain.ops[i], VectorOp) for t in chain.ops[i].tensors}
    mixed = any(isinstance(chain.ops[i], Problem) for i in group.ops)
    twice = arch.vector is not None and arch.vector.overlap and mixed and shape.iterations > 1
    held = {}
    for i in group.ops:
        live = [t for t in own if chain.writers[t] <= i <= chain.readers[t][-1]]
        output = chain.output(i)
        if output in placed and placed[output] in live:
            live = [t for t in live if t != placed[output]] if output in live else live
        for phase in shape.phases:
            words = sum(shape.stored(t, phase) * (2 if twice and t in vectored else 1) for t in live)
            held[i, phase] = words + sum(_kept(shape, t, i, phase) for t in own)
    return held


def _kept(shape: Shape, tensor: str, index: int, phase: Phase) -> int:
    """Words of an intermediate that wait for later steps, beside its tile, while op `index` runs."""
    writer, reader = shape.chain.writers[tensor], shape.chain.readers[tensor][-1]
    total = 0
    for dim in shape.keeps(tensor):
        words, in_tile = shape.left_over(tensor, dim, phase)
        nothing_yet = in_tile and index < writer and dim not in phase
        if not (in_tile and writer <= index <= reader) and not nothing_yet:
            total += words
    return total


def count_group(chain: Chain, arch: Architecture, mapping: FusedMapping, group: Group) -> GroupCounts:
    """Counts of one group. Elements count as words: a chain has one width."""
    counter = _Counter(chain, arch, mapping, group)
    for tensor, depth in group.pins.items():
        counter.pinned(tensor, depth)
    for i in group.ops:
        op = chain.ops[i]
        if isinstance(op, VectorOp):
            counter.vector(i, op)
        else:
            counter.einsum(i, op)
    held: dict[int, int] = {}
    if mapping.level is not None:
        always = _always_held(chain, mapping, group)
        tiles = live_tiles(chain, group, arch, mapping.whole)
        held = dict.fromkeys(group.ops, 0)
        for (i, phase), words in tiles.items():
            own = counter.tiles_of_op.get((i, counter.shape.phase_of(i, phase)), 0)
            held[i] = max(held[i], always + words + own)
    iterations = counter.shape.iterations
    return GroupCounts(dict(counter.traffic), counter.steps, counter.macs, counter.vector_ops, held, iterations)


def count_vector(chain: Chain, arch: Architecture, mapping: FusedMapping, group: Group) -> GroupCounts:
    """Counts of a group's elementwise ops alone; `held_words` are their own tiles of tensors from outside."""
    counter = _Counter(chain, arch, mapping, group)
    for i in group.ops:
        op = chain.ops[i]
        if isinstance(op, VectorOp):
            counter.vector(i, op)
    traffic, iterations = dict(counter.traffic), counter.shape.iterations
    held = {i: max(n for (j, _), n in counter.tiles_of_op.items() if j == i) for i, _ in counter.tiles_of_op}
    return GroupCounts(traffic, {}, {}, counter.vector_ops, held, iterations)


def vector_room(chain: Chain, arch: Architecture, mapping: FusedMapping, group: Group) -> int:
    """Most words in the fusion level beside pinned tiles, whole intermediates and statistics while an elementwise op runs."""
    counter = _Counter(chain, arch, mapping, group)
    most = 0
    for (i, phase), words in live_tiles(chain, group, arch, mapping.whole).items():
        op = chain.ops[i]
        if isinstance(op, VectorOp):
            most = max(most, words + counter.vector_tiles(i, op, counter.shape.phase_of(i, phase)))
    return most


def _always_held(chain: Chain, mapping: FusedMapping, group: Group) -> int:
    """Words in the fusion level during the whole group: pinned tiles, whole intermediates that live across it, statistics."""
    shape = Shape.of(chain, group)
    total = sum(shape.statistics(i) * 2 for i in group.ops)
    for tensor, depth in group.pins.items():
        index = next(i for i in group.ops if tensor in chain.ops[i].tensors)
        total += shape.tile(tensor, index, depth)
    for tensor in mapping.whole:
        if chain.writers[tensor] <= group.last and chain.readers[tensor][-1] >= group.first:
            total += chain.elements(tensor)
    return total


def estimate_group(counts: GroupCounts, chain: Chain, arch: Architecture) -> Estimate:
    """Time and energy of one group."""
    terms: dict[str, float] = {arch.compute.name: 0.0}
    mac_cycles = 0.0
    for i, steps in counts.steps.items():
        op = chain.ops[i]
        assert isinstance(op, Problem)
        bits = max(op.bits.get(t, arch.word_bits) for t in op.inputs)
        terms[arch.compute.name] += counts.macs[i] * arch.compute.energy(bits)
        mac_cycles += steps / arch.compute.rate(bits)
    vector_cycles, cycles = 0.0, {arch.compute.name: mac_cycles}
    if arch.vector is not None:
        vector_cycles = counts.vector_ops / arch.vector.lanes
        terms["vector"] = counts.vector_ops * arch.vector.energy_pj
        cycles["vector"] = vector_cycles
    core = core_cycles(mac_cycles, vector_cycles, counts.iterations, arch)
    bound_by, total, serial = ("vector" if vector_cycles > mac_cycles else arch.compute.name), core, 0.0
    for level in arch.levels:
        words = [t for (name, _), t in counts.traffic.items() if name == level.name]
        terms[level.name] = sum(t.reads * level.read_energy_pj + t.writes * level.write_energy_pj for t in words)
        busy = float(level_cycles(level, sum(t.copy_reads for t in words), sum(t.copy_writes for t in words)))
        cycles[level.name] = busy
        if level.buffering == "single":
            serial += busy
        elif busy > total:
            bound_by, total = level.name, busy
    return Estimate(terms, cycles, total + serial, bound_by)


def core_cycles(mac: float, vector: float, iterations: int, arch: Architecture) -> float:
    """Cycles of MACs and vector unit together; see the module text."""
    if arch.vector is None or not arch.vector.overlap:
        return mac + vector
    return max(mac, vector) + min(mac, vector) / iterations


@dataclass(frozen=True, slots=True)
class ChainEstimate:
    """Groups one after the other."""

    groups: tuple[Estimate, ...]
    counts: tuple[GroupCounts, ...]

    @property
    def energy_terms_pj(self) -> dict[str, float]:
        names = dict.fromkeys(name for g in self.groups for name in g.energy_terms_pj)
        return {name: sum(g.energy_terms_pj.get(name, 0.0) for g in self.groups) for name in names}

    @property
    def cycles_by(self) -> dict[str, float]:
        names = dict.fromkeys(name for g in self.groups for name in g.cycles_by)
        return {name: sum(g.cycles_by.get(name, 0.0) for g in self.groups) for name in names}

    @property
    def energy_pj(self) -> float:
        return sum(g.energy_pj for g in self.groups)

    @property
    def latency_cycles(self) -> float:
        return sum(g.latency_cycles for g in self.groups)

    @property
    def edp(self) -> float:
        return self.energy_pj * self.latency_cycles


def estimate_chain(mapping: FusedMapping, chain: Chain, arch: Architecture) -> ChainEstimate:
    """Counts and costs of every group. Raises ImpossibleSpace where the fusion level overflows."""
    counts = tuple(count_group(chain, arch, mapping, group) for group in mapping.groups)
    if mapping.level is not None:
        have = arch.level(mapping.level).words_for("I")
        for group, counted in zip(mapping.groups, counts):
            for i in group.ops:
                if have is not None and counted.held_words[i] > have:
                    where = f"{chain.output(i)} on {mapping.level}"
                    raise refuse(where, counted.held_words[i], have, "Make the shared tiles smaller.")
    return ChainEstimate(tuple(estimate_group(c, chain, arch) for c in counts), counts)

