"""Closed forms of a model's work in batch B, new tokens T and context S, and where the bound changes on a chip.

Counts come from the op rules of `orchard.cost.work` over the symbolic graph: each op by itself, every operand once. A phase
is the same graph with other sizes: prefill of an empty cache is S = T, decode is T = 1, an encoder has one pass.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from orchard.cost.work import Work, tensor_bytes, work_of_graph
from orchard.ir import Graph, Role, Size, Tensor, substitute, symbol, symbols_of, to_sympy, value_of
from orchard.studies.request import Request

if TYPE_CHECKING:
    from orchard.studies.predict import Plan

SCHEMA = "orchard.complexity/1"
LARGEST_BATCH = 4096
LARGEST_LENGTH = 2**20
MEANING = {
    "ops": "operations; a multiply-accumulate is two",
    "weight_bytes": "weights read once per call; of experts those that the tokens are expected to choose",
    "state_bytes": "key/value cache and recurrent state, read and written",
    "activation_bytes": "activations read and written when every op goes to memory (nothing fused)",
    "cache_bytes": "size of the cache and recurrent state at context S",
    "intensity": "ops per byte of weights and state: what a machine has to touch once",
}


@dataclass(frozen=True, kw_only=True)
class Forms:
    """Counts of one call of a phase, exact, over `symbols`; `intensity` is ops / (weight_bytes + state_bytes)."""

    phase: str
    symbols: tuple[str, ...]
    ops: Size
    weight_bytes: Size
    state_bytes: Size
    activation_bytes: Size
    cache_bytes: Size

    def counts(self) -> dict[str, Size]:
        return {name: getattr(self, name) for name in MEANING if name != "intensity"}

    @property
    def touched_bytes(self) -> Size:
        return self.weight_bytes + self.state_bytes

    def intensity(self, **bindings: int) -> float:
        """Ops per byte with every symbol bound."""
        return value_of(self.ops, bindings) / value_of(self.touched_bytes, bindings)

    def sympy_text(self) -> dict[str, str]:
        """Every form as text that sympy reads, the intensity as a ratio (imports sympy)."""
        texts = {name: str(to_sympy(form)) for name, form in self.counts().items()}
        return {**texts, "intensity": f"({texts['ops']})/({to_sympy(self.touched_bytes)})"}


@dataclass(frozen=True, kw_only=True)
class Crossing:
    """Where compute starts to take longer than memory as `symbol` grows, the others held at `at`.

    `bound` and `estimate`: the first such size by the physical bound and by the calibrated estimate; None: not up to `limit`.
    """

    phase: str
    symbol: str
    at: Mapping[str, int]
    limit: int
    bound: int | None
    estimate: int | None


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What the crossings refer to. `ridge`: ops per byte at which peak compute and peak DRAM rate meet."""

    chip: str
    runtime: str
    engine: str
    peak_ops_per_s: float
    bytes_per_s: float
    crossings: tuple[Crossing, ...]
    cache_equals_weights: int | None

    @property
    def ridge(self) -> float:
        return self.peak_ops_per_s / self.bytes_per_s


@dataclass(frozen=True, kw_only=True)
class Complexity:
    """Closed forms per phase, the cache per token, and (with a chip) where the bound changes."""

    model: str
    params: int
    weights: str
    kv: str
    cache_bytes_per_token: float
    phases: tuple[Forms, ...]
    machine: Machine | None = None

    def to_dict(self) -> dict[str, Any]:
        phases = {
            f.phase: {
                "symbols": list(f.symbols),
                "forms": {n: str(s) for n, s in f.counts().items()},
                "sympy": f.sympy_text(),
            }
            for f in self.phases
        }
        machine = self.machine
        return {
            "schema": SCHEMA,
            "model": {"name": self.model, "params": self.params},
            "weights": self.weights,
            "kv": self.kv,
            "cache_bytes_per_token": self.cache_bytes_per_token,
            "phases": phases,
            "machine": None
            if machine is None
            else {
                "chip": machine.chip,
                "runtime": machine.runtime,
                "engine": machine.engine,
                "peak_ops_per_s": machine.peak_ops_per_s,
                "bytes_per_s": machine.bytes_per_s,
                "ridge_ops_per_byte": machine.ridge,
                "cache_equals_weights_tokens": machine.cache_equals_weights,
                "crossings": [
                    {
                        "phase": c.phase, "symbol": c.symbol, "at": dict(c.at), "limit": c.limit, "bound": c.bound,
                        "estimate": c.estimate,
                    }
                    for c in machine.crossings
                ],
            },
        }  # fmt: skip


def complexity(request: Request, *, with_chip: bool = True) -> Complexity:
    """Closed forms of the model of `request` in its weight and cache formats; its chip decides the crossings.

    Without `with_chip` the chip of the request is not looked at, and the answer has no machine.
    The crossing in batch is searched at the request's prompt and depth, the one in prompt length at its batch.
    """
    from orchard.studies.predict import make_plan

    plan = make_plan(request)
    graph = plan.graph
    return Complexity(
        model=plan.model.name,
        params=plan.model.params,
        weights=plan.weights,
        kv=request.kv,
        cache_bytes_per_token=_growth_per_token(graph),
        phases=phase_forms(graph),
        machine=_machine(request, plan) if with_chip else None,
    )


def phase_forms(graph: Graph) -> tuple[Forms, ...]:
    """Forms of each phase the graph has: prefill and decode with symbols T and S, else one inference."""
    whole = _forms("inference", graph)
    if not {"T", "S"} <= set(graph.symbols):
        return (whole,)
    return (_bound("prefill", whole, {"S": symbol("T")}), _bound("decode", whole, {"T": 1}))


def _forms(phase: str, graph: Graph) -> Forms:
    work, read = work_of_graph(graph), _cached_reads(graph)
    return _with_symbols(
        phase, work.ops, work.weight_bytes, work.state_bytes + read, _activations(work, read), _cache_bytes(graph)
    )


def _activations(work: Work, read: Size) -> Size:
    moved: Size = work.input_bytes + work.output_bytes
    return moved + read * -1


def _bound(phase: str, forms: Forms, sizes: Mapping[str, Size]) -> Forms:
    return _with_symbols(phase, *(substitute(form, sizes) for form in forms.counts().values()))


def _with_symbols(phase: str, ops: Size, weights: Size, state: Size, activations: Size, cache: Size) -> Forms:
    used = {name for form in (ops, weights, state, activations, cache) for name in symbols_of(form)}
    return Forms(
        phase=phase, symbols=tuple(sorted(used)), ops=ops, weight_bytes=weights, state_bytes=state,
        activation_bytes=activations, cache_bytes=cache,
    )  # fmt: skip


def _cached_reads(graph: Graph) -> Size:
    """Bytes ops read of caches after they were updated: in the graph these are values like any other."""
    cached: set[str] = set()
    total: Any = 0
    for op in graph.ops:
        if op.kind == "update" or (op.kind == "view" and op.inputs[0] in cached):
            cached.update(op.outputs)
        elif op.kind != "update":
            for name in dict.fromkeys(op.inputs):
                if name in cached:
                    total = total + tensor_bytes(graph.tensors[name])
    return total  # type: ignore[no-any-return]


def _cache_bytes(graph: Graph) -> Size:
    total: Any = 0
    for tensor in graph.of_role(Role.STATE):
        total = total + tensor_bytes(tensor)
    return total  # type: ignore[no-any-return]


def _growth_per_token(graph: Graph) -> float:
    """Bytes the cache grows by per token and sequence while no window is full."""
    growing: list[Tensor] = [t for t in graph.of_role(Role.STATE) if any("S" in symbols_of(s) for s in t.shape)]
    one, two = ({"B": 1, "T": 1, "S": s} for s in (1024, 1025))
    growth: Fraction | float = 0
    for tensor in growing:
        size = tensor_bytes(tensor)
        growth += value_of(size, two) - value_of(size, one)
    return float(growth)


# --------------------------------------------------------------------------------------------------- on a machine


def _machine(request: Request, plan: Plan) -> Machine:
    from orchard.cost.bound import peak_ops_per_s
    from orchard.hw import HardwareArrays, load_chip

    soc = load_chip(request.chip, list(request.overrides))
    hw = HardwareArrays.of(soc)
    probe = plan.table.evaluate(_sizes(request, plan.graph, 1, 1, 1))
    peak, rate = float(peak_ops_per_s(probe, hw, plan.profile.engine)), float(hw["dram.bandwidth"])
    sides = _Sides(plan, hw, peak, rate)
    return Machine(
        chip=soc.id,
        runtime=plan.profile.runtime,
        engine=plan.profile.engine,
        peak_ops_per_s=peak,
        bytes_per_s=rate,
        crossings=tuple(_crossings(request, plan, sides)),
        cache_equals_weights=_cache_equals_weights(plan, request),
    )


def _sizes(request: Request, graph: Graph, batch: int, tokens: int, context: int) -> dict[str, int]:
    """Values of all symbols; those of a model file have names of their own, which --batch and --prompt fill."""
    from orchard.studies.sources import bind_symbols

    known = {"B": batch, "T": tokens, "S": context}
    if not set(graph.symbols) <= set(known):
        return dict(bind_symbols(graph, replace(request, batch=batch, prompt=tokens)))
    return {name: known[name] for name in graph.symbols}


class _Sides:
    """Is a call bound by compute, by the physical bound and by the estimate?"""

    def __init__(self, plan: Plan, hw: Any, peak: float, rate: float) -> None:
        self.plan, self.hw, self.peak, self.rate = plan, hw, peak, rate
        self.values = plan.profile.values()

    def by_bound(self, sizes: dict[str, int]) -> bool:
        from orchard.cost.bound import call_ops, compulsory_bytes

        counts = self.plan.table.evaluate(sizes)
        return call_ops(counts) / self.peak >= compulsory_bytes(counts) / self.rate

    def by_estimate(self, sizes: dict[str, int]) -> bool:
        from orchard.cost.evaluate import Call, phase_time

        time = phase_time(self.plan.table, [Call(sizes)], self.hw, self.plan.profile, self.values)
        return float(time.compute) >= float(time.memory)


def _crossings(request: Request, plan: Plan, sides: _Sides) -> list[Crossing]:
    graph = plan.graph
    found = []
    if {"T", "S"} <= set(graph.symbols):
        context = max(1, request.depth + request.prompt)
        found.append(
            _crossing(
                "decode",
                "B",
                {"T": 1, "S": context},
                LARGEST_BATCH,
                sides,
                lambda b: _sizes(request, graph, b, 1, context),
            )
        )
        batch, depth = request.batch, request.depth
        found.append(
            _crossing(
                "prefill", "T", {"B": batch, "depth": depth}, LARGEST_LENGTH, sides,
                lambda t: _sizes(request, graph, batch, t, depth + t),
            )
        )  # fmt: skip
    elif graph.symbols:
        tokens = request.prompt or 1
        found.append(
            _crossing(
                "inference",
                "B",
                {"T": tokens},
                LARGEST_BATCH,
                sides,
                lambda b: _sizes(request, graph, b, tokens, tokens),
            )
        )
    return found


def _crossing(
    phase: str, name: str, at: Mapping[str, int], limit: int, sides: _Sides, sizes: Callable[[int], dict[str, int]]
) -> Crossing:
    return Crossing(
        phase=phase, symbol=name, at=at, limit=limit,
        bound=_first(lambda n: sides.by_bound(sizes(n)), limit),
        estimate=_first(lambda n: sides.by_estimate(sizes(n)), limit),
    )  # fmt: skip


def _first(holds: Callable[[int], bool], limit: int) -> int | None:
    """The smallest n found by doubling, then halving the step; exact where `holds` switches once."""
    high = 1
    while not holds(high):
        if high >= limit:
            return None
        high = min(high * 2, limit)
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        if holds(middle):
            high = middle
        else:
            low = middle
    return high


def _cache_equals_weights(plan: Plan, request: Request) -> int | None:
    """Context at which decode reads as many cache bytes as weight bytes; None where it never does up to the limit."""
    forms = phase_forms(plan.graph)[-1]
    if "S" not in forms.symbols:
        return None

    def more_cache(length: int) -> bool:
        sizes = {"B": request.batch, "S": length}
        return value_of(forms.state_bytes, sizes) >= value_of(forms.weight_bytes, sizes)

    return _first(more_cache, 2**24)
