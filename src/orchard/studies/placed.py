"""What a placement means for one phase: its time and energy, its launches in order, what is handed over, and its memory."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from orchard.cost.bound import compulsory_bytes, phase_bound
from orchard.cost.energy import SPREAD as ENERGY_SPREAD
from orchard.cost.handover import SPREAD as HANDOVER_SPREAD
from orchard.cost.handover import HandOverPrices
from orchard.cost.lower import KernelTable, merged
from orchard.cost.units import view_roots
from orchard.ir import Graph, Role, value_of
from orchard.mapping.arena import Arena, Buffer, plan_arena
from orchard.mapping.engine_plan import ENGINES, EnginePlan, HandOver, LaunchGroup
from orchard.search.placement import Net, net_cost
from orchard.studies.place_overlap import Overlap, overlap
from orchard.studies.place_problem import Option, Part, Placing
from orchard.studies.predict import DEFAULT_ERROR, phase_of
from orchard.units import number_format

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One launch of a phase, in the order of the plan's groups that launch; seconds and joules over all calls of the phase."""

    group: int
    engine: str
    compute_s: float
    memory_s: float
    dispatch_s: float
    ops: float
    dram_bytes: float
    joules: float

    @property
    def seconds(self) -> float:
        return self.compute_s + self.memory_s + self.dispatch_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A segment with what it costs: its own launches, and the hand-overs into it. `why`: what made the engine change here."""

    engine: str
    launches: int
    ops: int
    first: str
    last: str
    seconds: float
    handover_s: float
    why: str = ""
    forced: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacedPhase:
    """One phase; times per pass (decode: per token). `latency_s` = engine seconds + hand-overs + calls, one launch at a time.

    times        passes a request (decode: tokens; the U-Net of a pipeline: steps)
    engine_s     seconds of launches by engine
    casts_s      changes of number format, part of `handover_s`
    call_s       what runtimes add per pass
    """

    name: str
    times: float
    latency_s: float
    interval_s: tuple[float, float]
    bound_s: float
    energy_j: float
    energy_interval_j: tuple[float, float]
    engine_s: Mapping[str, float]
    handover_s: float
    casts_s: float
    call_s: float
    plan: EnginePlan
    steps: tuple[Step, ...]
    runs: tuple[Run, ...]
    overlap: Overlap
    arena: Arena

    def to_dict(self) -> dict[str, Any]:
        return {
            "times": self.times,
            "latency_s": self.latency_s,
            "interval_s": list(self.interval_s),
            "bound_s": self.bound_s,
            "energy_j": self.energy_j,
            "energy_interval_j": list(self.energy_interval_j),
            "engine_s": dict(self.engine_s),
            "handover_s": self.handover_s,
            "casts_s": self.casts_s,
            "call_s": self.call_s,
            "overlap": {name: getattr(self.overlap, name) for name in Overlap.__slots__},
            "arena_bytes": self.arena.bytes,
            "arena_bound_bytes": self.arena.bound,
            "segments": [{name: getattr(run, name) for name in Run.__slots__} for run in self.runs],
            "groups": [
                {"ops": list(g.ops), "engine": g.engine, "precision": g.precision, "launches": g.launches}
                for g in self.plan.groups
            ],
            "handovers": [
                {"tensor": h.tensor, "source": h.source, "target": h.target, "bytes": h.bytes} for h in self.plan.handovers
            ],
        }  # fmt: skip


def placed_phase(placing: Placing, index: int, choice: Ints) -> PlacedPhase:
    """Phase `index` under a full choice."""
    part = placing.parts[index]
    options = [placing.options[int(choice[n])] for n in part.nodes]
    plan, steps = _plan(placing, part, index, options, choice)
    seconds = _Seconds(placing, index, choice)
    latency, interval, bound, joules = _totals(placing, part, options, seconds)
    return PlacedPhase(
        name=part.name, times=part.times, latency_s=latency, interval_s=interval, bound_s=bound, energy_j=joules,
        energy_interval_j=(joules * ENERGY_SPREAD[0], joules * ENERGY_SPREAD[1]),
        engine_s=seconds.engines, handover_s=seconds.crossings + seconds.casts, casts_s=seconds.casts,
        call_s=sum(seconds.calls.values()), plan=plan, steps=steps, runs=_runs(placing, index, plan, steps, choice),
        overlap=overlap(placing, index, choice),
        arena=plan_arena(list(buffers(part, plan, HandOverPrices(placing.hw)))),
    )  # fmt: skip


class _Seconds:
    """Seconds per pass of one phase, by cause."""

    def __init__(self, placing: Placing, index: int, choice: Ints) -> None:
        part = placing.parts[index]
        self.engines = dict.fromkeys((e for e in ENGINES if any(o.engine == e for o in placing.options)), 0.0)
        for node in part.nodes:
            option = placing.options[int(choice[node])]
            self.engines[option.engine] += float(placing.free_seconds[node, choice[node]]) / part.times
        self.engines = {e: s for e, s in self.engines.items() if s > 0}
        self.calls = {
            e: next(p.call_s for o, p in part.prices.items() if o.engine == e)
            for e in self._charged(placing, part, choice)
        }
        self.crossings = self.casts = 0.0
        for info, net in zip(placing.nets, placing.seconds.nets):
            if info.part == index and info.kind != "cache":
                cost = net_cost(net, choice) / part.times
                self.casts += cost if info.kind == "cast" else 0.0
                self.crossings += cost if info.kind != "cast" else 0.0

    @staticmethod
    def _charged(placing: Placing, part: Part, choice: Ints) -> Iterator[str]:
        """Engines that pay their call: those that any unit of the phase was given, as the problem charges them."""
        yield from dict.fromkeys(placing.options[int(choice[n])].engine for n in part.nodes)

    @property
    def total(self) -> float:
        return sum(self.engines.values()) + sum(self.calls.values()) + self.crossings + self.casts


def _totals(
    placing: Placing, part: Part, options: list[Option], seconds: _Seconds
) -> tuple[float, tuple[float, float], float, float]:
    """(latency, interval, bound, joules) per pass. A phase on one engine as stored is `predict`'s, to the last digit."""
    if len(set(options)) == 1 and options[0].precision == "stored":
        phase = phase_of(placing.plans[options[0].engine], part.name, placing.hw, placing.request)
        return phase.latency_s, phase.interval_s, phase.bound_s, phase.energy_j
    bound = _bound(placing, part, options)
    latency = max(seconds.total, bound)
    ends = []
    for end, factor in zip(("low", "high"), HANDOVER_SPREAD):
        found = (seconds.crossings + seconds.casts) * factor
        for engine, own in seconds.engines.items():
            plan = placing.plans[engine]
            error = plan.profile.errors.get(plan.strata[part.name], DEFAULT_ERROR)
            found += (own + seconds.calls.get(engine, 0.0)) * math.exp(getattr(error, end))
        ends.append(max(found, bound))
    joules = 0.0
    for node, option in zip(part.nodes, options):
        joules += float(placing.free_joules[node, placing.options.index(option)])
    return latency, (ends[0], ends[1]), bound, joules / part.times + _other_joules(placing, part, options)


def _other_joules(placing: Placing, part: Part, options: list[Option]) -> float:
    index = placing.parts.index(part)
    choice = np.zeros(len(placing.free_seconds), dtype=np.int64)
    choice[part.first : part.first + len(options)] = [placing.options.index(o) for o in options]
    crossing = sum(
        net_cost(net, choice)
        for info, net in zip(placing.nets, placing.joules.nets)
        if info.part == index and info.kind != "cache"
    )
    calls = sum(next(p.call_j for o, p in part.prices.items() if o.engine == e) for e in {o.engine for o in options})
    return crossing / part.times + calls


def _bound(placing: Placing, part: Part, options: list[Option]) -> float:
    """Engines may overlap, so: the slowest engine's own bound, or all compulsory bytes at the DRAM's peak."""
    cache = float(placing.hw.get("slc.size", 0.0) or 0.0)
    bound = 0.0
    for option in dict.fromkeys(options):
        prices = part.prices[option]
        mine = [k for k, u in zip(prices.launches, part.launch_units[option]) if options[int(u)] == option]
        calls = placing.plans[option.engine].phases[part.name]
        table = KernelTable(kernels=merged(mine), depth=0)
        if mine:
            bound = max(bound, float(phase_bound(table, calls, placing.hw, option.engine, cache)))
    option = options[0]
    calls = placing.plans[option.engine].phases[part.name]
    whole = placing.plans[option.engine].table_of(part.name)
    if any(o.precision != "stored" for o in options):
        return bound  # the bytes of a mix of formats are no phase's compulsory bytes
    moved = sum(c.weight * max(compulsory_bytes(whole.evaluate(c.bindings)) - cache, 0.0) for c in calls)
    return max(bound, moved / float(placing.hw["dram.bandwidth"]))


def _plan(
    placing: Placing, part: Part, index: int, options: list[Option], choice: Ints
) -> tuple[EnginePlan, tuple[Step, ...]]:
    at = {op.name: i for i, op in enumerate(part.graph.ops)}
    by_unit: dict[int, list[tuple[int, tuple[str, ...], int]]] = {u: [] for u in range(len(options))}
    covered: set[str] = set()
    for option in dict.fromkeys(options):
        for launch, unit in enumerate(part.launch_units[option]):
            if options[int(unit)] == option:
                ops = part.prices[option].launches[launch].ops
                covered.update(ops)
                by_unit[int(unit)].append((max(at[o] for o in ops), ops, launch))
    for unit, names in enumerate(part.units.ops):
        by_unit[unit].extend((at[name], (name,), -1) for name in names if name not in covered)
    formats = {p: _result_formats(g) for p, g in part.graphs.items()}
    groups: list[LaunchGroup] = []
    steps: list[Step] = []
    for unit, option in enumerate(options):
        for _, ops, launch in sorted(by_unit[unit]):
            if launch >= 0:
                steps.append(_step(part, option, launch, len(groups)))
            groups.append(
                LaunchGroup(
                    ops=ops, engine=option.engine, precision=formats[option.precision][ops[-1]], launches=launch >= 0
                )
            )  # fmt: skip
    handovers = tuple(_handovers(placing, part, index, choice, groups))
    return EnginePlan(graph=part.graph.name, phase=part.name, groups=tuple(groups), handovers=handovers), tuple(steps)


def _step(part: Part, option: Option, launch: int, group: int) -> Step:
    p = part.prices[option]
    return Step(
        group=group, engine=option.engine, compute_s=float(p.compute_s[launch]), memory_s=float(p.memory_s[launch]),
        dispatch_s=float(p.dispatch_s[launch]), ops=float(p.ops[launch]), dram_bytes=float(p.dram_bytes[launch]),
        joules=float(p.joules[launch]),
    )  # fmt: skip


def _result_formats(graph: Graph) -> dict[str, str]:
    """Number format of each op's first result."""
    return {op.name: graph.tensors[op.outputs[0]].format for op in graph.ops}


def _handovers(placing: Placing, part: Part, index: int, choice: Ints, groups: list[LaunchGroup]) -> Iterator[HandOver]:
    readers = _reading_groups(part.graph, groups)
    for info, net in zip(placing.nets, placing.seconds.nets):
        if info.part != index or info.kind not in ("flow", "state"):
            continue
        source = placing.options[int(choice[net.source])].engine
        for target in _targets(placing, net, choice):
            first = min((g for g in readers.get(info.tensor, ()) if groups[g].engine == target), default=0)
            yield HandOver(
                tensor=info.tensor, source=source, target=target, bytes=info.dense / max(info.times, 1e-300), reader=first,
                state=info.kind == "state",
            )  # fmt: skip


def _targets(placing: Placing, net: Net, choice: Ints) -> list[str]:
    """Engines other than the source's that read a net."""
    source = placing.options[int(choice[net.source])].engine
    return [e for e in dict.fromkeys(placing.options[int(choice[r])].engine for r in net.readers) if e != source]


def _reading_groups(graph: Graph, groups: list[LaunchGroup]) -> dict[str, list[int]]:
    """Groups that read each tensor or a view of it, in order."""
    roots = view_roots(graph)
    inputs = {op.name: op.inputs for op in graph.ops}
    found: dict[str, list[int]] = {}
    for at, group in enumerate(groups):
        for name in dict.fromkeys(roots.get(n, n) for op in group.ops for n in inputs[op]):
            found.setdefault(name, []).append(at)
    return found


def _runs(placing: Placing, index: int, plan: EnginePlan, steps: tuple[Step, ...], choice: Ints) -> tuple[Run, ...]:
    part = placing.parts[index]
    seconds = np.zeros(len(plan.groups))
    for step in steps:
        seconds[step.group] = step.seconds
    entering = np.zeros(len(plan.groups))
    crossing = [
        (net_cost(net, choice) / part.times, info, net)
        for info, net in zip(placing.nets, placing.seconds.nets)
        if info.part == index and info.kind in ("flow", "state") and net_cost(net, choice) > 0
    ]
    targets = {(h.tensor, h.target): h.reader for h in plan.handovers}
    for cost, info, net in crossing:
        first = min(targets[info.tensor, t] for t in _targets(placing, net, choice))
        entering[first] += cost
    found = []
    for segment in plan.segments:
        groups = plan.groups[segment.first : segment.last + 1]
        names = [o for g in groups if g.launches for o in g.ops] or [o for g in groups for o in g.ops]
        found.append(
            Run(
                engine=segment.engine, launches=sum(g.launches for g in groups), ops=sum(len(g.ops) for g in groups),
                first=names[0], last=names[-1], seconds=float(seconds[segment.first : segment.last + 1].sum()),
                handover_s=float(entering[segment.first : segment.last + 1].sum()),
            )
        )  # fmt: skip
    return tuple(found)


def buffers(part: Part, plan: EnginePlan, prices: HandOverPrices) -> Iterator[Buffer]:
    """Activations that outlive their launch, at the sizes of the phase's largest call; hand-overs to or from the Neural Engine
    add a copy in its form. Views share storage, caches live elsewhere, inputs belong to the caller."""
    call = max(part.calls, key=lambda c: (c.bindings.get("T", 1), c.bindings.get("S", 1)))
    roots = view_roots(part.graph)
    group_of = {op: at for at, g in enumerate(plan.groups) for op in g.ops}
    readers = _reading_groups(part.graph, list(plan.groups))
    keeps = {roots.get(n, n) for n in part.graph.outputs}
    states = {n for op in part.graph.ops if op.kind == "update" for n in op.outputs}
    end = len(plan.groups) - 1
    copies = {(h.tensor, e) for h in plan.handovers for e in (h.source, h.target) if e == "ane" and not h.state}
    for op in part.graph.ops:
        made = group_of[op.name]
        for name in op.outputs:
            tensor = part.graph.tensors[name]
            if op.kind == "view" or tensor.role is not Role.ACTIVATION or name in states:
                continue
            used = readers.get(name, [])
            if name not in keeps and all(u == made for u in used) and used:
                continue  # it never leaves its launch
            last = end if name in keeps else max([made, *used])
            width = number_format(tensor.format).bytes_per_element
            shape = tuple(int(value_of(s, call.bindings)) for s in tensor.shape)
            yield Buffer(name, math.ceil(math.prod(shape) * width), made, last)
            if (name, "ane") in copies:
                yield Buffer(f"{name}@ane", math.ceil(prices.padded(shape, width)), made, last)
