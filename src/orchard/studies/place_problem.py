"""From a request to a placement problem: units, options, what each costs, what crosses, and what an engine does not take.

An option is an engine with a precision: `stored` keeps the number formats of the model, `f16` runs 32-bit activations and
weights in FP16, as Core ML does by default. A node of the problem is a unit of one phase. All phases of a request are one
problem: the passes of a language model share their cache, and a cache filled on one engine has to be handed to another that
decodes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from orchard.cost.eligibility import Finding
from orchard.cost.engine_prices import EnginePrices, price_launches
from orchard.cost.evaluate import Call
from orchard.cost.handover import HandOverPrices
from orchard.cost.lower import Kernel, cached_tensors, launched
from orchard.cost.units import Flow, Units, make_units, view_roots
from orchard.hw import HardwareArrays, SoC
from orchard.ir import Graph, Role, value_of
from orchard.search.placement import Capacity, Charge, Net, PlacementProblem
from orchard.studies.errors import StudyError
from orchard.studies.inspect import engine_findings
from orchard.studies.memory import memory_limit
from orchard.studies.predict import Plan, chip_of, lowered, make_plan, stored_in_low_bits
from orchard.studies.request import Request
from orchard.studies.runtimes import choose_profile
from orchard.units import number_format

WIDE = ("f32", "f64", "bf16")
"""Formats that the precision `f16` replaces."""
FALLBACK = "llama.cpp"
"""Runtime whose kernels price an engine that no profile of the model's own kind serves."""
TAKEN = {"coreml": ("update",)}
"""Op kinds that a runtime runs on the Neural Engine though the engine has no such op: Core ML passes a cache in and out as one
buffer [coreml-llm, maderix-ane], and the profile prices those passes with the attention that reads it."""


@dataclass(frozen=True, slots=True)
class Option:
    engine: str
    precision: str  # "stored" or "f16"


@dataclass(frozen=True)
class Part:
    """One phase: its graph, its units as nodes `first`, `first` + 1, ... and how often a request runs it.

    `prices` by option; `blocked`: for each option the units it does not take, and why.
    """

    name: str
    graphs: Mapping[str, Graph]
    units: Units
    first: int
    times: float
    calls: tuple[Call, ...]
    prices: Mapping[Option, EnginePrices]
    launch_units: Mapping[Option, NDArray[np.int64]]
    blocked: Mapping[Option, Mapping[int, tuple[Finding, ...]]]

    @property
    def graph(self) -> Graph:
        """As stored."""
        return self.graphs["stored"]

    @property
    def nodes(self) -> range:
        return range(self.first, self.first + len(self.units))

    def unit_sums(self, option: Option, per_launch: NDArray[np.float64]) -> NDArray[np.float64]:
        """Sum of a quantity of launches over each unit."""
        found = np.bincount(self.launch_units[option], weights=per_launch, minlength=len(self.units))
        return np.asarray(found, dtype=np.float64)


@dataclass(frozen=True, slots=True)
class NetInfo:
    """What a net of the problem stands for. `kind`: `flow` between units, `state` within a phase, `cache` between phases, `cast`.
    `dense` and `padded`: bytes over a whole request; `times`: events over a whole request."""

    tensor: str
    kind: str
    part: int
    dense: float
    padded: float
    times: float


@dataclass(frozen=True)
class Placing:
    """Everything the solvers and the explanation need. `seconds` and `joules` are the same problem with two kinds of cost, summed
    over the whole request. `free_*`: the same with every op allowed everywhere (what a restriction costs)."""

    request: Request
    soc: SoC
    hw: HardwareArrays
    plans: Mapping[str, Plan]
    options: tuple[Option, ...]
    parts: tuple[Part, ...]
    seconds: PlacementProblem
    joules: PlacementProblem
    nets: tuple[NetInfo, ...]
    free_seconds: NDArray[np.float64]
    free_joules: NDArray[np.float64]
    unplaceable: frozenset[int]
    warnings: tuple[str, ...]

    def part_of(self, node: int) -> Part:
        return next(p for p in self.parts if node in p.nodes)

    def reasons(self, node: int, option: Option) -> tuple[Finding, ...]:
        """Why a node may not take an option."""
        part = self.part_of(node)
        return part.blocked[option].get(node - part.first, ())


def build(request: Request, engines: Sequence[str], precision: str) -> Placing:
    """The problem of a request on some engines. Raises an OrchardError for what cannot be opened or priced."""
    soc = chip_of(request)
    hw = HardwareArrays.of(soc)
    plans, warnings = _plans(request, engines)
    _check_engines(soc, hw, engines)
    lead = plans[engines[0]]
    precisions = _precisions(lead, precision, len(engines))
    options = tuple(Option(e, p) for p in precisions for e in engines)
    parts: list[Part] = []
    for name in lead.phases:
        first = sum(len(p.units) for p in parts)
        times = float(request.generate) if name == "decode" else lead.runs.get(name, 1.0)
        parts.append(_part(name, plans, options, hw, soc, first, times))
    return _assemble(request, soc, hw, plans, options, tuple(parts), warnings)


def _plans(request: Request, engines: Sequence[str]) -> tuple[dict[str, Plan], list[str]]:
    """How `predict` would run the request on each engine, all on one graph. A runtime that was asked for prices the engines it
    has a profile for; at least one, else it is refused as in `predict`."""
    plans: dict[str, Plan] = {}
    warnings: list[str] = []
    served = [e for e in engines if _serves(request, e)] if request.runtime else list(engines)
    if not served:
        make_plan(replace(request, engine=engines[0]))  # says why not
    for engine in engines:
        mine = replace(request, engine=engine, runtime=request.runtime if engine in served else None)
        try:
            plans[engine] = make_plan(mine)
        except StudyError:
            plans[engine] = make_plan(replace(mine, runtime=FALLBACK))
            warnings.append(
                f"no profile of this kind of model on {engine}: priced by {plans[engine].profile.name}, an extrapolation"
            )
    lead = plans[engines[0]]
    for engine in engines[1:]:
        plans[engine] = _on_graph_of(lead, plans[engine])
    return plans, warnings


def _serves(request: Request, engine: str) -> bool:
    try:
        choose_profile(request.runtime, engine, request.weights)
    except StudyError:
        return False
    return True


def _on_graph_of(lead: Plan, plan: Plan) -> Plan:
    """A plan whose phases run the graphs of `lead`, lowered by its own rules."""
    rules = plan.profile.lowering
    others = {phase: (graph, lowered(graph, rules)) for phase, (graph, _) in lead.others.items()}
    return replace(plan, graph=lead.graph, table=lowered(lead.graph, rules), others=others)


def _check_engines(soc: SoC, hw: HardwareArrays, engines: Sequence[str]) -> None:
    for engine, figure in (("ane", "ane.cores"), ("gpu", "gpu.cores")):
        if engine in engines and not float(hw.get(figure, 0.0) or 0.0) > 0:
            raise StudyError(f"{soc.id} describes no {engine}; place it on other engines with --engines")


def _precisions(plan: Plan, precision: str, engines: int) -> tuple[str, ...]:
    graphs = [plan.graph, *(graph for graph, _ in plan.others.values())]
    wide = any(t.format in WIDE for g in graphs for t in g.tensors.values() if t.role is not Role.WEIGHT)
    if precision == "stored" or not wide or (precision == "auto" and engines == 1):
        return ("stored",)
    return ("f16",) if precision == "f16" else ("stored", "f16")


def graph_of(plan: Plan, phase: str) -> Graph:
    """The graph that a phase runs."""
    return plan.graph_of(phase)


def in_f16(graph: Graph) -> Graph:
    """The same graph with 32-bit and bfloat16 activations, inputs and weights in FP16."""
    return graph.with_formats({t.name: "f16" for t in graph.tensors.values() if t.format in WIDE})


def _part(
    name: str, plans: Mapping[str, Plan], options: Sequence[Option], hw: HardwareArrays, soc: SoC, first: int, times: float,
) -> Part:  # fmt: skip
    lead = next(iter(plans.values()))
    stored = graph_of(lead, name)
    graphs = {"stored": stored}
    if any(o.precision == "f16" for o in options):
        graphs["f16"] = in_f16(stored)
    prices: dict[Option, EnginePrices] = {}
    launches: dict[Option, tuple[Kernel, ...]] = {}
    for option in options:
        plan = plans[option.engine]
        graph = graphs[option.precision]
        launches[option] = launched(graph, plan.profile.lowering)
        table = lowered(graph, plan.profile.lowering)
        low = bool(plan.profile.rules.get("int8_products")) and stored_in_low_bits(plan.table)
        prices[option] = price_launches(launches[option], table, plan.phases[name], hw, plan.profile, low)
    units = make_units(stored, launches.values())
    return Part(
        name=name, graphs=graphs, units=units, first=first, times=times, prices=prices,
        calls=max((tuple(plans[o.engine].phases[name]) for o in options), key=lambda calls: len(calls)),
        launch_units={o: np.array([units.unit_of[k.ops[0]] for k in ks], dtype=np.int64) for o, ks in launches.items()},
        blocked=_blocked(graphs, units, plans, options, soc, name),
    )  # fmt: skip


def _blocked(
    graphs: Mapping[str, Graph], units: Units, plans: Mapping[str, Plan], options: Sequence[Option], soc: SoC, phase: str
) -> dict[Option, dict[int, tuple[Finding, ...]]]:
    """For each option the units that findings keep off its engine, sizes fixed to those of the phase's largest call."""
    calls = next(iter(plans.values())).phases[phase]
    largest = max(calls, key=lambda c: (c.bindings.get("T", 1), c.bindings.get("S", 1))).bindings
    found: dict[Option, dict[int, tuple[Finding, ...]]] = {}
    for precision, graph in graphs.items():
        bound = graph.bind({k: v for k, v in largest.items() if k in graph.symbols})
        by_engine = engine_findings(bound, soc)
        for option in (o for o in options if o.precision == precision):
            taken = TAKEN.get(plans[option.engine].profile.runtime, ())
            units_of: dict[int, list[Finding]] = {}
            for finding in by_engine[option.engine]:
                if finding.blocks and finding.kind not in taken:
                    units_of.setdefault(units.unit_of[finding.op], []).append(finding)
            found[option] = {unit: tuple(reasons) for unit, reasons in units_of.items()}
    return found


def _assemble(
    request: Request, soc: SoC, hw: HardwareArrays, plans: Mapping[str, Plan], options: tuple[Option, ...],
    parts: tuple[Part, ...], warnings: list[str],
) -> Placing:  # fmt: skip
    seconds = np.concatenate([_costs(p, options, joules=False) for p in parts])
    joules = np.concatenate([_costs(p, options, joules=True) for p in parts])
    allowed = np.concatenate([_allowed(p, options) for p in parts])
    stuck = np.flatnonzero(~allowed.any(axis=1))
    allowed[stuck] = True
    warnings = [*warnings, *_stuck_warnings(parts, stuck, options)]
    pairs = list(_nets(parts, options, hw, request))
    capacities = _capacities(parts, options, soc)
    charges_s = [_charge(p, options, e, joules=False) for p in parts for e in dict.fromkeys(o.engine for o in options)]
    charges_j = [_charge(p, options, e, joules=True) for p in parts for e in dict.fromkeys(o.engine for o in options)]
    return Placing(
        request=request, soc=soc, hw=hw, plans=plans, options=options, parts=parts,
        seconds=PlacementProblem(
            np.where(allowed, seconds, np.inf), tuple(n for _, n, _ in pairs), tuple(charges_s), capacities
        ),
        joules=PlacementProblem(
            np.where(allowed, joules, np.inf), tuple(n for _, _, n in pairs), tuple(charges_j), capacities
        ),
        nets=tuple(info for info, _, _ in pairs), free_seconds=seconds, free_joules=joules,
        unplaceable=frozenset(int(n) for n in stuck), warnings=tuple(warnings),
    )  # fmt: skip


def _costs(part: Part, options: Sequence[Option], *, joules: bool) -> NDArray[np.float64]:
    columns = [
        part.unit_sums(o, part.prices[o].joules if joules else part.prices[o].seconds) * part.times for o in options
    ]
    return np.stack(columns, axis=1)


def _allowed(part: Part, options: Sequence[Option]) -> NDArray[np.bool_]:
    allowed = np.ones((len(part.units), len(options)), dtype=bool)
    for column, option in enumerate(options):
        allowed[list(part.blocked[option]), column] = False
    return allowed


def _stuck_warnings(parts: Sequence[Part], stuck: NDArray[np.int64], options: Sequence[Option]) -> Iterator[str]:
    if not len(stuck):
        return
    names = [op for p in parts for n in p.nodes if n in set(stuck.tolist()) for op in p.units.ops[n - p.first]]
    engines = ", ".join(dict.fromkeys(o.engine for o in options))
    yield (
        f"{len(names)} ops (first: {names[0]}) run on no engine of {engines}; they are priced as if they did, as in predict "
        f"(`orchard lint` says why)"
    )


def _charge(part: Part, options: Sequence[Option], engine: str, *, joules: bool) -> Charge:
    mine = tuple(i for i, o in enumerate(options) if o.engine == engine)
    prices = part.prices[options[mine[0]]]
    return Charge(tuple(part.nodes), mine, (prices.call_j if joules else prices.call_s) * part.times)


def _nets(
    parts: Sequence[Part], options: Sequence[Option], hw: HardwareArrays, request: Request
) -> Iterator[tuple[NetInfo, Net, Net]]:
    """(what it is, in seconds, in joules) of everything that may cross."""
    priced = _NetPrices(options, HandOverPrices(hw))
    for index, part in enumerate(parts):
        for flow in part.units.flows:
            yield from priced.of_flow(index, part, flow)
    for index, earlier in enumerate(parts[:-1]):
        for cache in _caches(earlier, parts[index + 1], request):
            yield priced.of_cache(index + 1, earlier, parts[index + 1], cache)


class _NetPrices:
    def __init__(self, options: Sequence[Option], prices: HandOverPrices) -> None:
        self.prices = prices
        self.engines = tuple(dict.fromkeys(o.engine for o in options))
        self.precisions = tuple(dict.fromkeys(o.precision for o in options))
        self.by_engine = tuple(self.engines.index(o.engine) for o in options)
        self.by_precision = tuple(self.precisions.index(o.precision) for o in options)

    def of_flow(self, index: int, part: Part, flow: Flow) -> Iterator[tuple[NetInfo, Net, Net]]:
        nodes = (part.first + flow.source, tuple(part.first + r for r in flow.readers))
        times = sum(c.weight for c in part.calls) * part.times
        dense, padded = (0.0, 0.0) if flow.state else self._bytes(part, flow.tensor)
        kind = "state" if flow.state else "flow"
        yield self._crossing(NetInfo(flow.tensor, kind, index, dense, padded, times), *nodes)
        wide = part.graph.tensors[flow.tensor].format
        if len(self.precisions) > 1 and wide in WIDE and not flow.state:
            short = dense * 2.0 / number_format(wide).bytes_per_element
            found = self.prices.cast(dense, short)
            cast = tuple(0.0 for _ in self.precisions)
            info = NetInfo(flow.tensor, "cast", index, dense + short, 0.0, times)
            yield (
                info,
                Net(*nodes, self.by_precision, cast, tuple(found.seconds for _ in cast)),
                Net(*nodes, self.by_precision, cast, tuple(found.joules for _ in cast)),
            )

    def of_cache(self, index: int, earlier: Part, later: Part, cache: Cache) -> tuple[NetInfo, Net, Net]:
        info = NetInfo(cache.tensor, "cache", index, cache.dense, cache.padded(self.prices), 1.0)
        return self._crossing(info, earlier.first + cache.source, tuple(later.first + r for r in cache.readers))

    def _crossing(self, info: NetInfo, source: int, readers: tuple[int, ...]) -> tuple[NetInfo, Net, Net]:
        leave = [self.prices.leave(e, info.dense, info.padded, info.times) for e in self.engines]
        enter = [self.prices.enter(e, info.dense, info.padded, info.times) for e in self.engines]
        nets = [
            Net(source, readers, self.by_engine, tuple(getattr(c, what) for c in leave), tuple(getattr(c, what) for c in enter))
            for what in ("seconds", "joules")
        ]  # fmt: skip
        return info, nets[0], nets[1]

    def _bytes(self, part: Part, name: str) -> tuple[float, float]:
        """(dense, padded) bytes of a tensor, summed over all calls of the phase in a request."""
        tensor = part.graph.tensors[name]
        width = number_format(tensor.format).bytes_per_element
        dense = padded = 0.0
        for call in part.calls:
            shape = tuple(int(value_of(s, call.bindings)) for s in tensor.shape)
            dense += call.weight * math.prod(shape) * width
            padded += call.weight * self.prices.padded(shape, width)
        return dense * part.times, padded * part.times


@dataclass(frozen=True, slots=True)
class Cache:
    """A state that one phase fills (unit `source`) and the next one reads (units `readers`)."""

    tensor: str
    source: int
    readers: tuple[int, ...]
    shape: tuple[int, ...]
    element_bytes: float

    @property
    def dense(self) -> float:
        return math.prod(self.shape) * self.element_bytes

    def padded(self, prices: HandOverPrices) -> float:
        return prices.padded(self.shape, self.element_bytes)


def _caches(earlier: Part, later: Part, request: Request) -> Iterator[Cache]:
    """Caches at the end of the earlier phase, as large as they are then."""
    if later.name != "decode":
        return
    bindings = dict(earlier.calls[-1].bindings)
    tokens = request.depth + (request.prompt if earlier.name == "prefill" else 0)
    bindings.update({k: max(1, tokens) for k in ("S",) if k in later.graph.symbols})
    bindings.update({k: 1 for k in ("T", "B") if k in later.graph.symbols and k not in bindings})
    same = earlier.graph is later.graph
    writers, readers = _state_units(earlier), _state_units(later)
    if not same:
        writers = dict(_made_states(earlier, later))
    for tensor in later.graph.of_role(Role.STATE):
        if tensor.name not in readers or tensor.name not in writers:
            continue  # nobody reads it, or it starts empty
        source = writers[tensor.name][0]
        shape = tuple(int(value_of(s, bindings)) for s in tensor.shape)
        yield Cache(tensor.name, source, readers[tensor.name], shape, number_format(tensor.format).bytes_per_element)


def _state_units(part: Part) -> dict[str, tuple[int, ...]]:
    """Units that touch each state or what it is called after an update, in order: the one that updates it first."""
    origin = {t.name: t.name for t in part.graph.of_role(Role.STATE)}
    cached = cached_tensors(part.graph)
    found: dict[str, dict[int, None]] = {}
    for op in part.graph.ops:
        for name in op.inputs:
            if name in origin:
                found.setdefault(origin[name], {})[part.units.unit_of[op.name]] = None
                for out in op.outputs:
                    if out in cached:
                        origin[out] = origin[name]
    return {name: tuple(units) for name, units in found.items()}


def _made_states(earlier: Part, later: Part) -> Iterator[tuple[str, tuple[int, ...]]]:
    """States that a decoder never updates are results of the encoder (keys and values of its cross attention): by name where
    the names agree, else of the encoder's last unit."""
    roots = view_roots(earlier.graph)
    maker = {name: op.name for op in earlier.graph.ops for name in op.outputs}
    made = {n: earlier.units.unit_of[maker[roots.get(n, n)]] for n in earlier.graph.outputs if roots.get(n, n) in maker}
    updated = {op.inputs[0] for op in later.graph.ops if op.kind == "update"}
    for tensor in later.graph.of_role(Role.STATE):
        if tensor.name not in updated and made:
            yield tensor.name, (made.get(tensor.name, max(made.values())),)


def _capacities(parts: Sequence[Part], options: Sequence[Option], soc: SoC) -> tuple[Capacity, ...]:
    """The GPU may wire only part of the memory: where the weights of a pass exceed that, a limit on what it is given."""
    limit = float(memory_limit(soc, "gpu")) if any(o.engine == "gpu" for o in options) else math.inf
    nodes = sum(len(p.units) for p in parts)
    found = []
    for part in parts:
        weights = _weight_bytes(part)
        if len({o.engine for o in options}) < 2 or weights.sum() <= limit:
            continue
        usage = np.zeros((nodes, len(options)))
        for column, option in enumerate(options):
            if option.engine == "gpu":
                usage[part.first : part.first + len(part.units), column] = weights
        found.append(Capacity(usage, limit))
    return tuple(found)


def _weight_bytes(part: Part) -> NDArray[np.float64]:
    """Stored bytes of the weights that each unit is the first to read."""
    found = np.zeros(len(part.units))
    seen: set[str] = set()
    for op in part.graph.ops:
        for tensor in part.graph.inputs_of(op):
            if tensor.role is Role.WEIGHT and tensor.name not in seen:
                seen.add(tensor.name)
                bits = float(number_format(tensor.format).bits)
                found[part.units.unit_of[op.name]] += value_of(tensor.elements, {}) * bits / 8.0
    return found
