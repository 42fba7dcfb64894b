"""Times of a workload with every product at its best mapping, on many variants of a chip: the fidelity `mapped`.

Only figures that change the engine's machine (copies, capacities, rates in words per cycle) make a new variant; designs that
agree in those share one answer. For a product and a variant the answer is the first of these that is within `GAP` of a lower
bound for that very variant:

1. a mapping from the product's portfolio: what the mapper found with every figure at its most, and at its least, its loops over
   copies dealt out anew over the copies that the variant has;
2. the mapper's answers for the most and the least generous machine with the variant's copies (every capacity and bandwidth as
   large, or as small, as the study lets it be). What bounds the former bounds the variant, since whatever fits the variant
   fits it, no slower; what fits the latter fits the variant;
3. the mapper's own answer for the variant, or the best of the above where that is better.

A lower bound is the MACs over all copies at full rate, the words that have to cross the outermost port once, and from step 2 the
mapper's. Portfolio and generous machines are fixed by the study, so an answer depends on the variant alone: not on which variants
came before, nor on workers, nor on what a cache holds. The mapper runs without a time limit for the same reason.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from orchard.cost.evaluate import phase_time
from orchard.cost.nest import count
from orchard.hw import HardwareArrays, SoC, load_chip
from orchard.hw.arch import Architecture, FanOut, Level
from orchard.mapping.errors import ImpossibleSpace, MappingError
from orchard.mapping.footprint import axis_footprint
from orchard.mapping.nest import Keep, Loop, Nest, nest_errors
from orchard.mapping.problem import Problem
from orchard.studies.explore.space import Floats, Knob
from orchard.studies.map_cache import MappingCache, Question, default_folder
from orchard.studies.map_machine import engine_machine
from orchard.studies.map_many import solve, solve_all
from orchard.studies.map_model import on_chip_bytes, parts_of, products_of, thinned
from orchard.studies.predict import Plan

GAP = 0.01
"""Share by which an answer may exceed its lower bound; the gap at which `orchard map` stops a proof on a chip."""
_ROUNDING = 1e-9
"""Relative; two times closer than this are equal."""
_MOST_CORNERS = 10
"""Figures that change the machine, beyond which its most generous form is not looked for (2 to that power of corners)."""
_MOST_KEPT = 200_000
"""Answers per phase that a process remembers."""

Shape = tuple[Any, ...]
Setting = tuple[float, ...]


@dataclass(frozen=True)
class Product:
    """One product of a workload, without a machine: what is multiplied, in how many bits, which share of it is needed."""

    problem: Problem
    bits: int
    density: float

    @cached_property
    def key(self) -> str:
        p = self.problem
        return repr((str(p.einsum), sorted(p.sizes.items()), sorted(p.bits.items()), sorted(p.resident), self.bits, self.density))

    @cached_property
    def root_words(self) -> tuple[float, float]:
        """Elements' bits that have to cross the outermost port at least once: (read, written)."""
        p = self.problem
        moved = [0.0, 0.0]
        for tensor in p.tensors:
            if p.pays_root(tensor):
                axes = [axis_footprint(axis, tuple(p.sizes[d] for d in axis.dims)) for axis in p.access(tensor)]
                moved[tensor == p.output] += float(np.prod([float(a) for a in axes])) * p.bits.get(tensor, 16.0)
        return moved[0], moved[1]


@dataclass(frozen=True)
class Machines:
    """Machines of one shape side by side: [variants, levels] in words and cycles; infinite where there is no limit."""

    archs: Sequence[Architecture]
    capacity: Floats
    shared: Floats
    read: Floats
    write: Floats
    clock: Floats

    @classmethod
    def of(cls, archs: Sequence[Architecture]) -> Machines:
        assert all(level.buffering == "overlap" and not level.is_partitioned for a in archs for level in a.levels)

        def table(get: Any) -> Floats:
            rows = [[np.inf if (v := get(level)) is None else float(v) for level in a.levels] for a in archs]
            return np.array(rows, dtype=np.float64)

        return cls(
            archs, table(lambda level: level.capacity_words), table(lambda level: level.bandwidth),
            table(lambda level: level.read_bandwidth), table(lambda level: level.write_bandwidth),
            np.array([a.clock_hz for a in archs]),
        )  # fmt: skip

    def some(self, rows: NDArray[np.int64]) -> Machines:
        return Machines(
            [self.archs[i] for i in rows], self.capacity[rows], self.shared[rows], self.read[rows], self.write[rows],
            self.clock[rows],
        )  # fmt: skip

    def within(self, other: Architecture) -> NDArray[np.bool_]:
        """Variants that are nowhere larger or faster than `other`."""
        roof = Machines.of([other])
        pairs = ((self.capacity, roof.capacity), (self.shared, roof.shared), (self.read, roof.read), (self.write, roof.write))
        found: NDArray[np.bool_] = np.logical_and.reduce([(mine <= its * (1 + _ROUNDING)).all(axis=1) for mine, its in pairs])
        return found


@dataclass(frozen=True)
class Fleet:
    """Variants of one shape, and where they stand among all."""

    shape: Shape
    rows: NDArray[np.int64]
    machines: Machines


def shape_of(arch: Architecture) -> Shape:
    """What decides a nest's counts and steps: levels, copies, and the rate of a lane."""
    nodes = tuple(
        (n.name, tuple(n.axes.items()), n.multicast, n.reduce) if isinstance(n, FanOut) else (n.name, n.keep) for n in arch.nodes
    )
    return (*nodes, float(f"{arch.compute.macs_per_cycle:.12g}"))


@dataclass(frozen=True)
class Counted:
    """What a nest does on machines of one shape, in words of the busiest copy: steps, and per level read, written, held."""

    steps: float
    words: tuple[tuple[float, float, float], ...]

    @classmethod
    def of(cls, nest: Nest, problem: Problem, arch: Architecture) -> Counted | None:
        """None where the nest is no mapping for this shape."""
        try:
            nest_errors(nest, problem, arch)
        except MappingError:
            return None
        counts = count(nest, problem, arch)
        found = []
        for level in arch.levels:
            reads = writes = held = 0.0
            for tensor in problem.tensors:
                width = problem.words(tensor, arch.word_bits)
                held += counts.footprint.get((level.name, tensor), 0) * width
                traffic = counts.traffic.get((level.name, tensor))
                if traffic is not None and (level is not arch.levels[0] or problem.pays_root(tensor)):
                    reads, writes = reads + width * traffic.copy_reads, writes + width * traffic.copy_writes
            found.append((reads, writes, held))
        return cls(float(counts.steps), tuple(found))

    def cycles(self, machines: Machines, rate: float) -> tuple[Floats, NDArray[np.bool_]]:
        """Cycles on every variant (infinite where a tile does not fit), as `cost.mapped.estimate` has them; and whether the
        arithmetic sets them."""
        compute = self.steps / rate
        ports = np.zeros(len(machines.archs))
        fits = np.ones(len(machines.archs), dtype=bool)
        for i, (reads, writes, held) in enumerate(self.words):
            for words, limit in ((reads + writes, machines.shared), (reads, machines.read), (writes, machines.write)):
                ports = np.maximum(ports, words / limit[:, i])
            fits &= held <= machines.capacity[:, i]
        return np.where(fits, np.maximum(compute, ports), np.inf), compute >= ports


def dealt_out(nest: Nest, problem: Problem, arch: Architecture) -> Iterator[Nest]:
    """The nest as it is; then, for each loop over copies, with that loop walking as many blocks as `arch` has copies: those
    that other loops over the same axis leave, and all of them while the others walk one block."""
    yield nest
    copies = {axis: size for fan in arch.fan_outs for axis, size in fan.axes.items()}
    across = [(at, n) for at, n in enumerate(nest.nodes) if isinstance(n, Loop) and n.axis in copies]
    for at, loop in across:
        others = _blocks_of_others(nest, loop, problem)
        if others <= copies[str(loop.axis)]:
            yield _dealt(nest, at, copies[str(loop.axis)] // others, problem, frozenset())
        if others > 1:
            idle = frozenset(i for i, n in across if n.axis == loop.axis and i != at)
            yield _dealt(nest, at, copies[str(loop.axis)], problem, idle)


def _blocks_of_others(nest: Nest, loop: Loop, problem: Problem) -> int:
    """Copies that the other loops over the axis of `loop` use."""
    tile, blocks = dict(problem.sizes), 1
    for node in nest.nodes:
        if isinstance(node, Loop):
            blocks *= -(-tile[node.dim] // node.tile) if node.axis == loop.axis and node is not loop else 1
            tile[node.dim] = node.tile
    return blocks


def _dealt(nest: Nest, at: int, blocks: int, problem: Problem, idle: frozenset[int]) -> Nest:
    """`nest` with the loop at `at` in so many blocks, those at `idle` in one, no tile larger than the one around it, and what
    is then left of a block walked innermost."""
    tile = dict(problem.sizes)
    nodes: list[Loop | Keep] = []
    for position, node in enumerate(nest.nodes):
        if isinstance(node, Loop):
            around = tile[node.dim]
            size = around if position in idle else -(-around // blocks) if position == at else min(node.tile, around)
            tile[node.dim] = size
            nodes.append(replace(node, tile=size))
        else:
            nodes.append(node)
    return Nest((*nodes, *(Loop(dim, 1) for dim, size in tile.items() if size > 1)))


@dataclass(frozen=True)
class Answer:
    """A mapping from the mapper: the nest and what no mapping of its machine beats, in cycles."""

    nest: Nest
    bound: float
    cycles: float
    computes: bool


@dataclass(frozen=True)
class PhaseSeconds:
    """Seconds of one run of a phase on each variant by cause; they sum to the mapped time."""

    compute: Floats
    memory: Floats
    dispatch: Floats

    @property
    def total(self) -> Floats:
        return self.compute + self.memory + self.dispatch


class MappedTimes:
    """Best mappings of one planned workload on variants of a chip. `knobs`: the study's knobs that are figures."""

    def __init__(self, plan: Plan, chip: str, overrides: Sequence[str], knobs: Sequence[Knob]) -> None:
        self.plan, self.chip, self.overrides = plan, chip, tuple(overrides)
        self.engine = plan.profile.engine
        self.int8 = bool(plan.profile.rules.get("int8_products"))
        self.cache = MappingCache(default_folder())
        self._chips: dict[Setting, SoC] = {}
        self._archs: dict[tuple[Setting, int], Architecture] = {}
        self.knobs = tuple(k for k in knobs if self._matters(k, knobs))
        self._parts: dict[tuple[str, float, bool], list[tuple[int, Product, float]]] = {}
        self._answers: dict[str, Answer | None] = {}
        self._portfolios: dict[str, tuple[Nest, ...]] = {}
        self._counted: dict[tuple[Nest, str, Shape], Counted | None] = {}
        self._known: dict[str, dict[Setting, tuple[float, float, NDArray[np.bool_]]]] = {}
        self._generous: dict[tuple[Shape, int, float], tuple[Architecture, ...]] = {}

    @property
    def figures(self) -> tuple[str, ...]:
        """Figures among the knobs that change the engine's machine, or what stays on the chip between calls."""
        return tuple(k.name for k in self.knobs)

    def _matters(self, knob: Knob, every: Sequence[Knob]) -> bool:
        """Whether a figure moves the machine, with the others at their least and at their most."""
        for pick in ("least", "most"):
            rest = {k.name: float(getattr(k, pick)) for k in every}
            ends = [self._load({**rest, knob.name: float(end)}) for end in (knob.least, knob.most)]
            if len({repr((engine_machine(c, self.engine).arch, c.get("slc.size"))) for c in ends}) > 1:
                return True
        return False

    def _load(self, values: Mapping[str, float]) -> SoC:
        return load_chip(self.chip, [*self.overrides, *(f"{name}={value!r}" for name, value in values.items())])

    def _soc(self, setting: Setting) -> SoC:
        if setting not in self._chips:
            if len(self._chips) > _MOST_KEPT:
                self._chips.clear()
            self._chips[setting] = self._load(dict(zip(self.figures, setting, strict=True)))
        return self._chips[setting]

    # ------------------------------------------------------------------------------------------------ what is multiplied

    def _wanted(self, phase: str, soc: SoC) -> list[tuple[int, Product, float]]:
        """(kernel, product, runs of it in the phase) on one variant: what stays on the chip depends on its capacities."""
        graph, table = self.plan.graph_of(phase), self.plan.table_of(phase)
        on_chip = on_chip_bytes(engine_machine(soc, self.engine).arch)
        products = products_of(graph, soc, on_chip)
        key = (phase, on_chip, products.weights_stay)
        if key not in self._parts:
            self._parts[key] = [
                (i, Product(replace(part.problem, name="product"), bits, part.density), runs * kernel.count)
                for i, kernel in enumerate(table.kernels)
                for part, bits, runs in parts_of(products, kernel, self.plan.phases[phase], int8=self.int8)
            ]
        return self._parts[key]

    def _machine(self, setting: Setting, bits: int, density: float) -> Architecture:
        key = (setting, bits)
        if key not in self._archs:
            if len(self._archs) > _MOST_KEPT:
                self._archs.clear()
            self._archs[key] = engine_machine(self._soc(setting), self.engine, bits).arch
        return thinned(self._archs[key], density)

    def _fleets(self, settings: Sequence[Setting], bits: int, density: float) -> list[Fleet]:
        """The machines of these variants by shape."""
        archs = [self._machine(s, bits, density) for s in settings]
        groups: dict[Shape, list[int]] = {}
        for i, arch in enumerate(archs):
            groups.setdefault(shape_of(arch), []).append(i)
        return [Fleet(shape, np.array(rows), Machines.of([archs[i] for i in rows])) for shape, rows in groups.items()]

    # ------------------------------------------------------------------------------------------------ what the mapper said

    def _question(self, product: Product, arch: Architecture) -> Question:
        return Question(product.problem, arch, "latency", "imperfect", None, GAP)

    def _ask(self, question: Question) -> Answer | None:
        """The mapper's answer, None where no mapping fits."""
        key = question.key
        if key not in self._answers:
            try:
                self._answers[key] = _answer(solve(question, self.cache)[0])
            except ImpossibleSpace:
                self._answers[key] = None
        return self._answers[key]

    def prepare(self, workers: int) -> None:
        """Portfolios of all products as they are at the study's two corners, on several processes. Others come when met."""
        for corner in self._corners:
            questions = []
            for product in self._at_corners():
                arch = self._machine(corner, product.bits, product.density)
                if not self._covers(product, self._started(product, corner), arch):
                    questions.append(self._question(product, arch))
            found = solve_all(questions, self.cache, workers=workers)
            self._answers |= {key: _answer(mapped) for key, mapped in found.found.items()}
            self._answers |= dict.fromkeys(found.refused)

    def _at_corners(self) -> list[Product]:
        """Every product as it is at one of the corners."""
        every = [self._wanted(phase, self._soc(corner)) for phase in self.plan.phases for corner in self._corners]
        return list({product.key: product for wanted in every for _, product, _ in wanted}.values())

    @cached_property
    def _corners(self) -> tuple[Setting, ...]:
        most = tuple(float(k.most) for k in self.knobs)
        least = tuple(float(k.least) for k in self.knobs)
        return tuple(dict.fromkeys((most, least)))

    def _portfolio(self, product: Product) -> tuple[Nest, ...]:
        key = product.key
        if key not in self._portfolios:
            self._portfolios[key] = self._started(product, None)
        return self._portfolios[key]

    def _started(self, product: Product, until: Setting | None) -> tuple[Nest, ...]:
        """Nests found at the corners before `until`, each only where those before it do not do."""
        nests: list[Nest] = []
        for corner in self._corners:
            if corner == until:
                break
            arch = self._machine(corner, product.bits, product.density)
            if not self._covers(product, tuple(nests), arch):
                answer = self._ask(self._question(product, arch))
                nests += [answer.nest] if answer is not None else []
        return tuple(nests)

    def _covers(self, product: Product, nests: tuple[Nest, ...], arch: Architecture) -> bool:
        machines, shape = Machines.of([arch]), shape_of(arch)
        cycles, _, _ = self._first_close(product, nests, machines, shape, _floor(product, machines, shape))
        return bool(np.isfinite(cycles[0]))

    # ------------------------------------------------------------------------------------------------ cycles on variants

    def _each(self, product: Product, fleets: Sequence[Fleet]) -> tuple[Floats, NDArray[np.bool_]]:
        """Seconds of a product on each machine, infinite where nothing fits; and whether the arithmetic sets them."""
        size = sum(len(fleet.rows) for fleet in fleets)
        seconds, computes = np.full(size, np.inf), np.zeros(size, dtype=bool)
        for fleet in fleets:
            cycles, computes[fleet.rows] = self._of_shape(product, fleet.machines, fleet.shape)
            seconds[fleet.rows] = cycles / fleet.machines.clock
        return seconds, computes

    def _of_shape(self, product: Product, machines: Machines, shape: Shape) -> tuple[Floats, NDArray[np.bool_]]:
        floor = _floor(product, machines, shape)
        found, computes, best = self._first_close(product, self._portfolio(product), machines, shape, floor)
        left = np.flatnonzero(~np.isfinite(found))
        if not len(left):
            return found, computes
        ends = self._ends(machines.archs[0], shape, product)
        answers = [self._ask(self._question(product, end)) for end in ends]
        if ends and (roof := answers[0]) is not None:
            some = machines.some(left)
            floor_here = np.where(some.within(ends[0]), np.maximum(floor[left], roof.bound), floor[left])
            nests = (*self._portfolio(product), *(a.nest for a in answers if a is not None))
            found[left], computes[left], best[left] = self._first_close(product, nests, some, shape, floor_here)
            left = np.flatnonzero(~np.isfinite(found))
        for i in left.tolist():
            own = self._ask(self._question(product, machines.archs[i]))
            if own is not None and own.cycles <= best[i]:
                found[i], computes[i] = own.cycles, own.computes
            else:
                found[i], computes[i] = best[i], best[i] > floor[i]
        return found, computes

    def _first_close(
        self, product: Product, nests: tuple[Nest, ...], machines: Machines, shape: Shape, floor: Floats
    ) -> tuple[Floats, NDArray[np.bool_], Floats]:
        """Of the first nest within the gap of `floor`: cycles (infinite where none is) and whether the arithmetic sets them;
        and the best cycles seen on the way."""
        rate = shape[-1]
        found, best = np.full(len(floor), np.inf), np.full(len(floor), np.inf)
        computes = np.zeros(len(floor), dtype=bool)
        for nest in dict.fromkeys(n for first in nests for n in dealt_out(first, product.problem, machines.archs[0])):
            left = np.flatnonzero(~np.isfinite(found))
            if not len(left):
                break
            counted = self._count(nest, product, machines.archs[0], shape)
            if counted is None:
                continue
            cycles, by_arithmetic = counted.cycles(machines.some(left), rate)
            close = cycles <= floor[left] * (1 + GAP)
            found[left[close]], computes[left[close]] = cycles[close], by_arithmetic[close]
            best[left] = np.minimum(best[left], cycles)
        return found, computes, best

    def _count(self, nest: Nest, product: Product, arch: Architecture, shape: Shape) -> Counted | None:
        key = (nest, product.key, shape)
        if key not in self._counted:
            self._counted[key] = Counted.of(nest, product.problem, arch)
        return self._counted[key]

    def _ends(self, arch: Architecture, shape: Shape, product: Product) -> tuple[Architecture, ...]:
        """The most and the least generous machine of a shape: every capacity and bandwidth the largest, or the smallest, at
        any corner of the study. () where there are too many corners, or none has these levels."""
        key = (shape, product.bits, product.density)
        if key not in self._generous:
            alike = self._alike_corners([level.name for level in arch.levels], product)
            self._generous[key] = tuple(_extreme(arch, shape, alike, pick) for pick in (max, min) if alike)
        return self._generous[key]

    def _alike_corners(self, levels: list[str], product: Product) -> list[Architecture]:
        if len(self.knobs) > _MOST_CORNERS:
            return []
        ends = itertools.product(*(dict.fromkeys((float(k.least), float(k.most))) for k in self.knobs))
        corners = [self._machine(tuple(end), product.bits, product.density) for end in ends]
        return [c for c in corners if [level.name for level in c.levels] == levels]

    # ------------------------------------------------------------------------------------------------ seconds of a phase

    def seconds(self, phase: str, hw: HardwareArrays, floor: Floats) -> PhaseSeconds:
        """One run of a phase on every variant of `hw`: products at their best mappings, the rest as estimated, never below
        `floor`, the physical bound. A kernel with a product that no mapping fits keeps its estimate."""
        size = hw.shape[0] if hw.shape else 1
        columns = [np.broadcast_to(np.asarray(hw[f], dtype=np.float64), (size,)) for f in self.figures]
        settings = [tuple(float(c[i]) for c in columns) for i in range(size)]
        known = self._settled(phase, settings)
        plan = self.plan
        time = phase_time(plan.table_of(phase), plan.phases[phase], hw, plan.profile, plan.profile.values())
        total = np.broadcast_to(time.total, (size,))
        scale = np.maximum(total, floor) / total
        kept = np.stack([known[s][2] for s in settings])
        parts = [np.broadcast_to(t, kept.shape) for t in (time.kernels.compute, time.kernels.memory, time.kernels.dispatch)]
        rest = [np.where(kept, part, 0.0).sum(axis=-1) * scale for part in parts]
        submission = (total - np.broadcast_to(time.kernels.total, kept.shape).sum(axis=-1)) * scale
        found = PhaseSeconds(
            rest[0] + np.array([known[s][0] for s in settings]), rest[1] + np.array([known[s][1] for s in settings]),
            rest[2] + np.maximum(submission, 0.0),
        )  # fmt: skip
        lift = np.maximum(floor / found.total, 1.0)
        return PhaseSeconds(found.compute * lift, found.memory * lift, found.dispatch * lift)

    def _settled(self, phase: str, settings: Sequence[Setting]) -> Mapping[Setting, tuple[float, float, NDArray[np.bool_]]]:
        """Seconds of the mapped kernels (bound by arithmetic, by a memory) and which kernels are not mapped, per setting."""
        known = self._known.setdefault(phase, {})
        if len(known) > _MOST_KEPT:
            known.clear()
        groups: dict[int, tuple[list[tuple[int, Product, float]], list[Setting]]] = {}
        for setting in dict.fromkeys(settings):
            if setting not in known:
                wanted = self._wanted(phase, self._soc(setting))
                groups.setdefault(id(wanted), (wanted, []))[1].append(setting)
        for wanted, new in groups.values():
            known.update(zip(new, self._map_all(phase, wanted, new), strict=True))
        return known

    def _map_all(
        self, phase: str, wanted: list[tuple[int, Product, float]], settings: list[Setting]
    ) -> Iterator[tuple[float, float, NDArray[np.bool_]]]:
        kernels = len(self.plan.table_of(phase).kernels)
        seconds = np.zeros((2, len(settings), kernels))
        mapped = np.zeros(kernels, dtype=bool)
        fleets: dict[tuple[int, float], list[Fleet]] = {}
        answers: dict[str, tuple[Floats, NDArray[np.bool_]]] = {}
        for i, product, runs in wanted:
            kind = (product.bits, product.density)
            if kind not in fleets:
                fleets[kind] = self._fleets(settings, *kind)
            if product.key not in answers:
                answers[product.key] = self._each(product, fleets[kind])
            each, computes = answers[product.key]
            seconds[0, :, i] += np.where(computes, runs * each, 0.0)
            seconds[1, :, i] += np.where(computes, 0.0, runs * each)
            mapped[i] = True
        kept = ~mapped[None, :] | ~np.isfinite(seconds).all(axis=0)
        seconds = np.where(kept[None], 0.0, seconds)
        for row in range(len(settings)):
            yield float(seconds[0, row].sum()), float(seconds[1, row].sum()), kept[row]


def _answer(mapped: Any) -> Answer:
    bound_by_arithmetic = mapped.estimate.bound_by == mapped.arch.compute.name
    return Answer(mapped.nest, float(mapped.bound), float(mapped.estimate.latency_cycles), bound_by_arithmetic)


def _floor(product: Product, machines: Machines, shape: Shape) -> Floats:
    """Cycles that no mapping beats: MACs over all copies, and what has to cross the outermost port once."""
    arch = machines.archs[0]
    reads, writes = (bits / arch.word_bits for bits in product.root_words)
    ports = np.maximum((reads + writes) / machines.shared[:, 0], reads / machines.read[:, 0])
    ports = np.maximum(ports, writes / machines.write[:, 0])
    floor: Floats = np.maximum(product.problem.macs / (arch.lanes * shape[-1]), ports)
    return floor


Pick = Callable[[list[float]], float]


def _extreme(arch: Architecture, shape: Shape, corners: Sequence[Architecture], pick: Pick) -> Architecture:
    """A machine of a shape whose levels have the largest (or smallest) figures of the corners'."""
    nodes = tuple(
        FanOut(name=n.name, axes=n.axes, multicast=n.multicast, reduce=n.reduce)
        if isinstance(n, FanOut)
        else _extreme_level([c.level(n.name) for c in corners], pick)
        for n in arch.nodes
    )
    compute = replace(corners[0].compute, macs_per_cycle=shape[-1])
    return Architecture(name=arch.name, nodes=nodes, compute=compute, word_bits=arch.word_bits)


def _extreme_level(levels: Sequence[Level], pick: Pick) -> Level:
    """One level with the picked capacity and bandwidths of these; no limit counts as infinite."""

    def of(values: list[Any]) -> Any:
        found = pick([np.inf if v is None else v for v in values])
        return None if found == np.inf else found

    return replace(
        levels[0], capacity_words=of([v.capacity_words for v in levels]), bandwidth=of([v.bandwidth for v in levels]),
        read_bandwidth=of([v.read_bandwidth for v in levels]), write_bandwidth=of([v.write_bandwidth for v in levels]),
    )  # fmt: skip
