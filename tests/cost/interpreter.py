"""Executes a loop nest step by step with explicit buffers and real numbers, counting every word. Slow, small, independent of the
closed forms in `orchard.cost.nest`: it knows loops, blocks, buffers and where the program loads and drains, nothing else."""

from __future__ import annotations

import itertools
from collections import defaultdict

from orchard.hw.arch import Architecture
from orchard.mapping.nest import Keep, Loop, Nest
from orchard.mapping.problem import Problem

Element = tuple[int, ...]


class Machine:
    def __init__(
        self,
        nest: Nest,
        problem: Problem,
        arch: Architecture,
        inputs: dict[str, dict[Element, int]],
        roots: dict[str, str] | None = None,
        partial: dict[Element, int] | None = None,
    ):
        """`roots`: tensors that start in another level than the outermost; `partial`: the output's sums so far."""
        self.nest, self.problem, self.arch = nest, problem, arch
        self.reads: dict = defaultdict(int)  # (level, tensor, copy)
        self.writes: dict = defaultdict(int)
        self.largest: dict = defaultdict(int)
        self.steps = 0
        self.macs = 0
        root = arch.levels[0].name
        start = {t: (roots or {}).get(t, root) for t in problem.tensors}
        self.buffers: dict = {(start[t], t, ()): dict(v) for t, v in inputs.items()}
        self.buffers[start[problem.output], problem.output, ()] = dict(partial or {})
        for t in problem.tensors:
            self.largest[start[t], t] = len(self.buffers[start[t], t, ()])
        self.chain: dict[str, list[tuple[int, str]]] = {t: [(-1, start[t])] for t in problem.tensors}
        for i, node in enumerate(nest.nodes):
            if isinstance(node, Keep):
                self.chain[node.tensor].append((i, node.level))
        self.nominal = self._nominal_trips()
        self.step_of: dict[int, int] = {}

    # -- structure of the program ------------------------------------------------------------------------------------
    def _nominal_trips(self) -> dict[int, int]:
        size, trips = dict(self.problem.sizes), {}
        for i, node in enumerate(self.nest.nodes):
            if isinstance(node, Loop):
                trips[i] = -(-size[node.dim] // node.tile)
                size[node.dim] = node.tile
        return trips

    def mover(self, at: int, tensor: str) -> int | None:
        own, found = self.problem.dims_of(tensor), None
        for i, node in enumerate(self.nest.nodes[:at]):
            if isinstance(node, Loop) and node.axis is None and node.dim in own and self.nominal[i] > 1:
                found = i
        return found

    def slides(self, at: int, tensor: str, mover: int | None, parent_at: int) -> bool:
        if mover is None:
            return False
        dim = self.nest.nodes[mover].dim
        axis = next(a for a in self.problem.access(tensor) if dim in a.dims)
        if len(axis.terms) < 2:
            return False
        for i in range(max(0, min(mover + 1, parent_at)), at):
            node = self.nest.nodes[i]
            if isinstance(node, Loop) and node.axis and node.dim in axis.dims and self.nominal[i] > 1:
                return False
        return True

    # -- contexts: one per active copy; (lane per spatial loop, box per dim) ------------------------------------------
    @staticmethod
    def block(context, loop, step):
        lanes, boxes = context
        low, high = boxes[loop.dim]
        start = low + step * loop.tile
        if start >= high:
            return None
        return lanes, {**boxes, loop.dim: (start, min(start + loop.tile, high))}

    def spread(self, contexts, index, loop):
        out = []
        for lanes, boxes in contexts:
            low, high = boxes[loop.dim]
            for lane in range(-(-(high - low) // loop.tile)):
                inner = self.block((lanes, boxes), loop, lane)
                out.append((((*lanes, (index, lane))), inner[1]))
        return out

    def elements(self, tensor, boxes) -> set[Element]:
        axes = []
        for axis in self.problem.access(tensor):
            ranges = [range(*boxes[d]) for d in axis.dims]
            axes.append({sum(c * v for (c, _), v in zip(axis.terms, vs)) for vs in itertools.product(*ranges)})
        return set(itertools.product(*axes))

    def group(self, lanes, parent_at, is_output):
        """What tells apart copies that move their words separately: lanes above the parent, and lanes that do not share."""
        key = []
        for index, lane in lanes:
            fan = self.arch.fan_out_of(self.nest.nodes[index].axis)
            shared = fan.reduce if is_output else fan.multicast
            if index < parent_at or not shared:
                key.append((index, lane))
        return tuple(key)

    @staticmethod
    def copy_of(lanes, at):
        return tuple((i, lane) for i, lane in lanes if i < at)

    # -- execution ----------------------------------------------------------------------------------------------------
    def run(self):
        boxes = {d: (0, s) for d, s in self.problem.sizes.items()}
        self.body(None, [((), boxes)], lambda: self.walk(0, [((), boxes)]))

    def walk(self, index, contexts):
        if index == len(self.nest.nodes):
            self.compute(contexts)
            return
        node = self.nest.nodes[index]
        if isinstance(node, Keep):
            self.walk(index + 1, contexts)
        elif node.axis is not None:
            self.walk(index + 1, self.spread(contexts, index, node))
        else:
            trips = max(-(-(b[node.dim][1] - b[node.dim][0]) // node.tile) for _, b in contexts)
            for step in range(trips):
                self.step_of[index] = step
                inner = [c for c in (self.block(context, node, step) for context in contexts) if c is not None]
                self.body(index, inner, lambda inner=inner: self.walk(index + 1, inner))

    def body(self, mover, contexts, inside):
        moved = [
            (at, level, tensor, self.chain[tensor][k])
            for tensor in self.problem.tensors
            for k, (at, level) in enumerate(self.chain[tensor][1:])
            if self.mover(at, tensor) == mover
        ]
        moved.sort()
        for at, level, tensor, parent in moved:
            self.load(at, level, tensor, parent, self.descend(contexts, mover, at), mover)
        inside()
        for at, level, tensor, parent in reversed(moved):
            if tensor == self.problem.output:
                self.drain(at, level, tensor, parent, self.descend(contexts, mover, at))

    def descend(self, contexts, mover, at):
        """Contexts at node `at`, from those in the body of `mover`: loops on the way leave the tile alone."""
        for i in range(0 if mover is None else mover + 1, at):
            node = self.nest.nodes[i]
            if isinstance(node, Loop) and node.axis is not None:
                contexts = self.spread(contexts, i, node)
            elif isinstance(node, Loop):
                contexts = [self.block(c, node, 0) for c in contexts]
        return contexts

    def load(self, at, level, tensor, parent, contexts, mover):
        parent_at, parent_level = parent
        is_output = tensor == self.problem.output
        keep_overlap = self.slides(at, tensor, mover, parent_at) and self.step_of[mover] > 0
        wanted = defaultdict(set)
        first_of_group = {}
        for lanes, boxes in contexts:
            copy = self.copy_of(lanes, at)
            source = self.buffers[parent_level, tensor, self.copy_of(lanes, parent_at)]
            tile = self.elements(tensor, boxes)
            old = self.buffers.get((level, tensor, copy), {}) if keep_overlap else {}
            if is_output:
                known = tile & source.keys()
                leader = first_of_group.setdefault(self.copy_of(lanes, parent_at), {})
                fresh = {}
                for e in known:  # one copy takes the partial sum, the others start from zero
                    fresh[e] = 0 if e in leader else source[e]
                    leader[e] = True
                self.buffers[level, tensor, copy] = fresh
                new = known
            else:
                assert tile <= source.keys(), "the level above does not hold what is asked of it"
                new = tile - old.keys()
                self.buffers[level, tensor, copy] = {e: source[e] for e in tile}
            self.writes[level, tensor, copy] += len(new)
            self.largest[level, tensor] = max(self.largest[level, tensor], len(tile))
            wanted[self.copy_of(lanes, parent_at), self.group(lanes, parent_at, is_output)] |= new
        for (copy, _), words in wanted.items():
            self.reads[parent_level, tensor, copy] += len(words)

    def drain(self, at, level, tensor, parent, contexts):
        parent_at, parent_level = parent
        sums, groups = {}, defaultdict(set)
        for lanes, boxes in contexts:
            tile = self.buffers[level, tensor, self.copy_of(lanes, at)]
            assert set(tile) == self.elements(tensor, boxes)
            self.reads[level, tensor, self.copy_of(lanes, at)] += len(tile)
            up = self.copy_of(lanes, parent_at)
            into = sums.setdefault(up, {})
            group = groups[up, self.group(lanes, parent_at, True)]
            for e, value in tile.items():
                first_visit = (
                    e not in self.buffers[parent_level, tensor, up]
                )  # at others, `load` has read for every copy
                if first_visit and e in into and e not in group:  # no reduction network: read, add, write
                    self.reads[parent_level, tensor, up] += 1
                into[e] = into.get(e, 0) + value
                group.add(e)
        for (up, _), group in groups.items():
            self.writes[parent_level, tensor, up] += len(group)
        for up, values in sums.items():
            self.buffers[parent_level, tensor, up].update(values)

    def compute(self, contexts):
        self.steps += 1
        self.macs += len(contexts)
        reads = defaultdict(set)
        added, groups = defaultdict(int), defaultdict(set)
        for lanes, boxes in contexts:
            product = 1
            for tensor in self.problem.inputs:
                at, level = self.chain[tensor][-1]
                (element,) = self.elements(tensor, boxes)
                copy = self.copy_of(lanes, at)
                product *= self.buffers[level, tensor, copy][element]
                reads[level, tensor, copy, self.group(lanes, at, False)].add(element)
            tensor = self.problem.output
            at, level = self.chain[tensor][-1]
            (element,) = self.elements(tensor, boxes)
            copy = self.copy_of(lanes, at)
            added[level, copy, element] += product
            groups[level, copy, element].add(self.group(lanes, at, True))
        for (level, tensor, copy, _), words in reads.items():
            self.reads[level, tensor, copy] += len(words)
        for (level, copy, element), value in added.items():
            buffer = self.buffers[level, self.problem.output, copy]
            separate = len(groups[level, copy, element])
            self.reads[level, self.problem.output, copy] += separate - (element not in buffer)
            self.writes[level, self.problem.output, copy] += separate
            buffer[element] = buffer.get(element, 0) + value
