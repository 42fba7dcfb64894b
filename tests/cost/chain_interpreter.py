"""Executes a fused mapping step by step with real numbers and explicit buffers, counting every word. It knows loops, tiles and
buffers; each op's nest runs on the interpreter of single ops. Independent of the closed forms in `orchard.cost.chain`."""

from __future__ import annotations

import itertools
import math
import sys
from collections import defaultdict
from pathlib import Path

from orchard.mapping.chain import VectorOp
from orchard.mapping.problem import Problem

sys.path.insert(0, str(Path(__file__).parent))
from interpreter import Machine


def box(access, ranges):
    """Elements that an access touches when its dims run over `ranges`."""
    axes = []
    for axis in access:
        dims = [range(*ranges[d]) for d in axis.dims]
        touched = {sum(c * v for (c, _), v in zip(axis.terms, vs)) for vs in itertools.product(*dims)}
        axes.append(range(min(touched), max(touched) + 1))
    return list(itertools.product(*axes))


def touched(access, ranges):
    """Elements that an op uses, without the holes between them."""
    axes = []
    for axis in access:
        dims = [range(*ranges[d]) for d in axis.dims]
        axes.append({sum(c * v for (c, _), v in zip(axis.terms, vs)) for vs in itertools.product(*dims)})
    return list(itertools.product(*axes))


class ChainMachine:
    def __init__(self, chain, arch, mapping, inputs):
        self.chain, self.arch, self.mapping = chain, arch, mapping
        self.root, self.level = arch.levels[0].name, mapping.level
        self.values = {t: dict(v) for t, v in inputs.items()}  # every tensor's current values, wherever they are
        self.reads, self.writes = defaultdict(int), defaultdict(int)
        self.vector_ops = 0
        self.steps, self.macs = defaultdict(int), defaultdict(int)
        self.stats: dict = {}  # (op, row, recomputation) -> [maximum, sum]
        self.fullest = defaultdict(int)  # (group, op) -> words in the fusion level
        self.done: dict = {}
        self.waiting: dict = {}  # (group, op) -> words of intermediates that must be held at the least

    def run(self):
        for number, group in enumerate(self.mapping.groups):
            self.group, self.number = group, number
            self.resident: dict = {}  # pinned tensor -> its box
            self.here: dict = {}  # intermediates in the fusion level -> words
            self.time, self.made_at, self.log = 0, defaultdict(list), []
            self.iterations = math.prod(-(-self.chain.sizes[x.dim] // x.tile) for x in group.loops)
            self.walk(0, {d: (0, s) for d, s in self.chain.sizes.items()}, ())
            for tensor in list(self.resident):
                self.evict(tensor)
            for i, words in self.least_held().items():
                self.waiting[number, i] = words
            self.normalise()

    def walk(self, position, ranges, trail):
        if position == len(self.group.loops):
            self.iterate(ranges, trail)
            self.time += 1
            return
        loop = self.group.loops[position]
        low, high = ranges[loop.dim]
        for step, start in enumerate(range(low, high, loop.tile)):
            self.walk(position + 1, {**ranges, loop.dim: (start, start + loop.tile)}, (*trail, (loop.dim, step)))

    # -- what stays in the fusion level -----------------------------------------------------------------------------------
    def inside(self, tensor):
        ops = self.group.ops
        return (tensor in self.chain.intermediates and self.chain.writers[tensor] in ops
                and all(r in ops for r in self.chain.readers[tensor]))  # fmt: skip

    def near(self, tensor):
        return self.inside(tensor) or tensor in self.group.pins or tensor in self.mapping.whole

    # -- windows: a dim that only windows of the group move follows the loop of its readers ------------------------------------
    def rows(self, index, dim, steps):
        """(low, high) of a dim of op `index`, at these steps of the shared loops."""
        loop = next((x for x in self.group.loops if x.dim == dim), None)
        if loop is not None:
            start = steps[dim] * loop.tile
            return start, min(start + loop.tile, self.chain.sizes[dim])
        tensor = self.chain.output(index)
        if not self.follows(index, dim) or not self.inside(tensor):
            return 0, self.chain.sizes[dim]
        low, high = self.wanted(tensor, dim, steps)
        for kept, loop_dim in self.group.kept:
            if kept == tensor and loop_dim == self.leader(index, dim) and steps.get(loop_dim, 0) > 0:
                low = max(low, self.rows(index, dim, {**steps, loop_dim: steps[loop_dim] - 1})[1])
        return low, high

    def views(self, index, dim):
        """How the readers of op `index` see the axis that is `dim`: (reader, axis)."""
        tensor = self.chain.output(index)
        at = [a.dims for a in self.chain.ops[index].access(tensor)].index((dim,))
        return [(r, self.chain.ops[r].access(tensor)[at]) for r in self.chain.readers[tensor] if r in self.group.ops]

    def leader(self, index, dim):
        """The dim of a shared loop that moves `dim`, if any."""
        if any(x.dim == dim for x in self.group.loops):
            return dim
        tensor = self.chain.output(index)
        if not self.inside(tensor) or (dim,) not in [a.dims for a in self.chain.ops[index].access(tensor)]:
            return None
        found = {self.leader(r, d) for r, axis in self.views(index, dim) for d in axis.dims}
        return next((d for d in found if d), None)

    def follows(self, index, dim):
        return not any(x.dim == dim for x in self.group.loops) and self.leader(index, dim) is not None

    def wanted(self, tensor, dim, steps):
        """What the readers read of an axis of an intermediate."""
        ends = []
        for r, axis in self.views(self.chain.writers[tensor], dim):
            spans = [(c, self.rows(r, d, steps)) for c, d in axis.terms]
            ends.append((sum(c * low for c, (low, _) in spans), 1 + sum(c * (high - 1) for c, (_, high) in spans)))
        return min(low for low, _ in ends), max(high for _, high in ends)

    def ranges(self, index, trail, depth=None):
        """Ranges of an op's dims at an iteration, inside the first `depth` shared loops."""
        op, steps = self.chain.ops[index], dict(trail)
        above = {x.dim for x in self.group.loops[:depth]}
        return {d: self.rows(index, d, steps) if self.leader(index, d) in above else (0, self.chain.sizes[d]) for d in op.dims}

    def stored(self, tensor, trail):
        """Elements that the readers of an intermediate read at this iteration."""
        writer = self.chain.writers[tensor]
        op = self.chain.ops[writer]
        axes = []
        for axis in op.access(tensor):
            (d,) = axis.dims
            ends = self.wanted(tensor, d, dict(trail)) if self.follows(writer, d) else self.rows(writer, d, dict(trail))
            axes.append(range(*ends))
        return list(itertools.product(*axes))

    def make(self, index, out, trail):
        tensor = self.chain.output(index)
        for e in out:
            self.made_at[tensor, e].append((dict(trail), self.time))

    def read(self, index, tensor, elements, trail):
        """Every element read is there: made at this iteration, or at one that differs in loops along which it is kept."""
        if not self.inside(tensor):
            return
        kept = {d for t, d in self.group.kept if t == tensor}
        for e in elements:
            last = [at for steps, at in self.made_at[tensor, e] if all(steps[d] == s for d, s in trail if d not in kept)]
            assert last, (tensor, e)
            self.log.append((tensor, e, last[-1], self.time, index))

    def least_held(self):
        """By op: most elements of intermediates that wait for a later read while it runs, over all iterations."""
        held = defaultdict(set)
        for tensor, e, made, read, reader in self.log:
            writer = self.chain.writers[tensor]
            for time in range(made, read + 1):
                for i in self.group.ops:
                    until = reader - (tensor == self.placed(reader))  # its result takes its place
                    if (time > made or i >= writer) and (time < read or i <= until):
                        held[time, i].add((tensor, e))
        return {i: max((len(v) for (_, j), v in held.items() if j == i), default=0) for i in self.group.ops}

    def pin(self, trail):
        for tensor, depth in self.group.pins.items():
            index = next(i for i in self.group.ops if tensor in self.chain.ops[i].tensors)
            tile = frozenset(box(self.chain.ops[index].access(tensor), self.ranges(index, trail, depth)))
            if self.resident.get(tensor) == tile:
                continue
            old = self.resident.get(tensor, frozenset())
            own = {self.leader(index, d) for axis in self.chain.ops[index].access(tensor) for d in axis.dims}
            movers = [x.dim for x in self.group.loops[:depth] if x.dim in own and x.tile < self.chain.sizes[x.dim]]
            slid = bool(movers) and dict(trail)[movers[-1]] > 0
            self.evict(tensor)
            self.resident[tensor] = tile
            if self.made_here(tensor):
                again = sum(e in self.values.get(tensor, {}) for e in tile)
                self.count(self.root, tensor, reads=again)
                self.count(self.level, tensor, writes=again)
            else:
                new = tile - old if slid else tile
                self.count(self.root, tensor, reads=len(new))
                self.count(self.level, tensor, writes=len(new))

    def made_here(self, tensor):
        return self.chain.writers.get(tensor) in self.group.ops

    def evict(self, tensor):
        tile = self.resident.pop(tensor, None)
        if tile is not None and self.made_here(tensor):
            self.count(self.level, tensor, reads=len(tile))
            self.count(self.root, tensor, writes=len(tile))

    def count(self, level, tensor, reads=0, writes=0):
        self.reads[level, tensor] += reads
        self.writes[level, tensor] += writes

    # -- one iteration -------------------------------------------------------------------------------------------------------
    def iterate(self, ranges, trail):
        self.pin(trail)
        for index in self.group.ops:
            op = self.chain.ops[index]
            ranges = self.ranges(index, trail)
            if isinstance(op, VectorOp):
                self.elementwise(index, op, ranges, trail)
            else:
                self.einsum(index, op, ranges, trail)
            for tensor in [t for t in self.here if self.chain.readers[t][-1] == index]:
                del self.here[tensor]

    def note(self, index, own):
        """Words in the fusion level while op `index` runs."""
        vectored = {t for i in self.group.ops for t in self.chain.ops[i].tensors if isinstance(self.chain.ops[i], VectorOp)}
        mixed = any(isinstance(self.chain.ops[i], Problem) for i in self.group.ops)
        twice = self.arch.vector and self.arch.vector.overlap and mixed and self.iterations > 1
        total = own + sum(len(tile) for tile in self.resident.values()) + 2 * self.rows_kept
        total += sum(n * (2 if twice and t in vectored else 1) for t, n in self.here.items() if t not in self.mapping.whole)
        for t in self.mapping.whole:
            if self.chain.writers[t] <= self.group.last and self.chain.readers[t][-1] >= self.group.first:
                total += self.chain.elements(t)
        self.fullest[self.number, index] = max(self.fullest[self.number, index], total)

    @property
    def rows_kept(self):
        """Rows with running statistics: those that the softmax's loop comes back to."""
        total = 0
        for i in self.group.ops:
            op = self.chain.ops[i]
            dims = [x.dim for x in self.group.loops]
            if not isinstance(op, VectorOp) or op.over not in dims:
                continue
            if self.group.loops[dims.index(op.over)].tile < self.chain.sizes[op.over]:
                outer = {x.dim: x.tile for x in self.group.loops[: dims.index(op.over)]}
                total += math.prod(outer.get(d, self.chain.sizes[d]) for d in op.dims if d != op.over)
        return total

    def nest(self, index, op, own, trail):
        """The nest of this iteration: which loops are past their first step, where that makes the op's tile another one."""
        steps, later = dict(trail), set()
        for d in op.dims:
            loop = self.leader(index, d)
            if self.follows(index, d) and steps.get(loop, 0) > 0:
                first = self.rows(index, d, {**steps, loop: 0})
                if first[1] - first[0] != own[d][1] - own[d][0]:
                    later.add(loop)
        return self.group.nest(index, frozenset(later))

    def einsum(self, index, op, ranges, trail):
        own = {d: ranges[d] for d in op.dims}
        tile = Problem(op.name, op.einsum, {d: h - low for d, (low, h) in own.items()}, op.tensors)
        base = {t: tuple(sum(c * own[d][0] for c, d in axis.terms) for axis in op.access(t)) for t in op.tensors}
        local = {}
        for t in op.inputs:
            local[t] = {tuple(a - b for a, b in zip(e, base[t])): self.values[t][e] for e in box(op.access(t), own)}
            self.read(index, t, touched(op.access(t), own), trail)
        out = box(op.access(op.output), own)
        redo = tuple(step for step in trail if step[0] not in op.dims)
        fresh = self.done.setdefault((self.number, index, redo), set())
        if redo and not fresh & set(out):
            for e in out:
                self.values.get(op.output, {}).pop(e, None)
        sums = self.values.setdefault(op.output, {})
        partial = {tuple(a - b for a, b in zip(e, base[op.output])): sums[e] for e in out if e in sums}
        self.make(index, out, trail)
        if self.inside(op.output):
            self.here[op.output] = len(self.stored(op.output, trail))
        roots = {t: self.level for t in op.tensors if self.near(t) and self.level}
        machine = Machine(self.nest(index, op, own, trail), tile, self.arch, local, roots, partial)
        machine.run()
        for (level, tensor, _), n in machine.reads.items():
            self.reads[level, tensor] += n
        for (level, tensor, _), n in machine.writes.items():
            self.writes[level, tensor] += n
        home = roots.get(op.output, self.root)
        for e, value in machine.buffers[home, op.output, ()].items():
            sums[tuple(a + b for a, b in zip(e, base[op.output]))] = value
        fresh |= set(out)
        self.steps[index] += machine.steps
        self.macs[index] += machine.macs
        loaded = [t for t in op.tensors if not self.near(t)]
        self.note(index, sum(machine.largest.get((self.level, t), 0) for t in loaded))

    # -- elementwise ---------------------------------------------------------------------------------------------------------
    def stream(self, tensor, words, side):
        read = side == "read"
        if self.level and not self.near(tensor):
            self.count(self.root, tensor, *((words, 0) if read else (0, words)))
            self.count(self.level, tensor, *((0, words) if read else (words, 0)))
        at = self.level or self.root
        self.count(at, tensor, *((words, 0) if read else (0, words)))

    def placed(self, index):
        """The input whose place an elementwise op's result takes."""
        op = self.chain.ops[index]
        if isinstance(op, VectorOp):
            for t, access in zip(op.inputs, op.accesses):
                if self.inside(t) and self.chain.readers[t][-1] == index and access == op.accesses[-1]:
                    return t
        return None

    def elementwise(self, index, op, ranges, trail):
        own, placed = 0, self.placed(index)
        out = box(op.access(op.output), ranges)
        for t in dict.fromkeys(op.inputs):
            n = len(box(op.access(t), ranges))
            self.read(index, t, box(op.access(t), ranges), trail)
            self.stream(t, n, "read")
            own += 0 if self.near(t) else n
        if placed is None and not self.near(op.output):
            own += len(out)
        self.make(index, out, trail)
        if self.inside(op.output):
            self.here[op.output] = len(self.stored(op.output, trail))
            if placed:
                del self.here[placed]
        self.note(index, own if self.level else 0)
        self.stream(op.output, len(out), "write")
        self.vector_ops += len(out) * (4 if op.kind == "softmax" else 1)
        if op.kind == "softmax":
            self.softmax(index, op, out, trail)
        else:
            self.values.setdefault(op.output, {})
            for e in out:
                at = dict(zip([a.dims[0] for a in op.accesses[-1]], e))
                args = [self.values[t][tuple(at[a.dims[0]] for a in access)] for t, access in zip(op.inputs, op.accesses)]
                self.values[op.output][e] = {"relu": lambda x: max(x, 0), "add": lambda *x: sum(x), "mul": math.prod}[
                    op.kind
                ](*([args] if op.kind == "mul" else args))

    def softmax(self, index, op, out, trail):
        (source,) = op.inputs
        dims = [a.dims[0] for a in op.accesses[-1]]
        at = dims.index(op.over)
        rows = defaultdict(list)
        for e in out:
            rows[e[:at] + e[at + 1 :]].append(e)
        redo = tuple(step for step in trail if step[0] not in op.dims)
        self.values.setdefault(op.output, {})
        for row, elements in rows.items():
            scores = [self.values[source][e] for e in elements]
            old = self.stats.get((index, row, redo))
            high = max(scores) if old is None else max(old[0], *scores)
            weights = [math.exp(s - high) for s in scores]
            total = sum(weights)
            if old is not None:
                factor = math.exp(old[0] - high)
                total += old[1] * factor
                self.vector_ops += 2
                self.count(self.level, op.output, reads=2, writes=2)
                for reader in self.chain.readers[op.output]:
                    self.rescale(reader, dict(zip(dims[:at] + dims[at + 1 :], row)), factor, trail)
            self.stats[index, row, redo] = [high, total]
            for e, w in zip(elements, weights):
                self.values[op.output][e] = w

    def rescale(self, reader, row, factor, trail):
        """Multiply what the reader has summed for this row, in the block that this iteration works on."""
        output = self.chain.output(reader)
        dims = [a.dims[0] for a in self.chain.ops[reader].access(output)]
        blocks = {d: (s * self.tile_of(d), (s + 1) * self.tile_of(d)) for d, s in trail}
        for e in list(self.values.get(output, {})):
            at = dict(zip(dims, e))
            same = all(at[d] == v for d, v in row.items() if d in at)
            if same and all(blocks[d][0] <= v < blocks[d][1] for d, v in at.items() if d in blocks):
                self.values[output][e] *= factor
                self.vector_ops += 1
                self.count(self.level, output, reads=1, writes=1)

    def tile_of(self, dim):
        return next(x.tile for x in self.group.loops if x.dim == dim)

    def normalise(self):
        """Divide by the sums: the op's division, put off to the end."""
        for (index, row, redo), (_, total) in self.stats.items():
            if index not in self.group.ops:
                continue
            op = self.chain.ops[index]
            dims = [a.dims[0] for a in op.accesses[-1]]
            names = [d for d in dims if d != op.over]
            for tensor, at in [(op.output, index), *((self.chain.output(r), r) for r in self.chain.readers[op.output])]:
                if at not in self.group.ops:
                    continue
                axes = [a.dims[0] for a in self.chain.ops[at].access(tensor)]
                for e in self.values.get(tensor, {}):
                    where = dict(zip(axes, e))
                    mine = all(where.get(d, v) == v for d, v in zip(names, row))
                    steps = all(where[d] // self.tile_of(d) == s for d, s in redo if d in where)
                    if mine and steps:
                        self.values[tensor][e] /= total
