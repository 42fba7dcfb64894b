"""One prediction, end to end: model and chip in; time, energy, memory and what bounds them out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from orchard.cost.bound import all_ops, dram_bytes, phase_bound, phase_bound_terms
from orchard.cost.energy import SPREAD, energy_j
from orchard.cost.evaluate import Call, PhaseTime, phase_time
from orchard.cost.lower import KernelTable, Lowering, layer_group, lower
from orchard.cost.profile import ErrorModel, Profile
from orchard.hw import HardwareArrays, SoC, load_chip
from orchard.ir import Graph
from orchard.studies.errors import StudyError
from orchard.studies.memory import Memory, memory_need
from orchard.studies.phases import decode_calls, encoder_calls, prefill_calls
from orchard.studies.request import Request
from orchard.studies.runtimes import choose_profile, machine_profile, network_runtime
from orchard.studies.sources import ImportedModel, bind_symbols, live_model, open_model, served_as, shape_text
from orchard.studies.techniques import applied, check_family, parsed, profile_of, run_request, runtime_hint
from orchard.units import scheme
from orchard.workloads import Model, weight_bytes
from orchard.workloads.diffusion.pipelines import PipelineConfig

if TYPE_CHECKING:
    from numpy.typing import NDArray

SCHEMA = "orchard.prediction/1"
AS_STORED = "as stored"
"""Weights of a model file that keep the formats the file holds."""
DEFAULT_ERROR = ErrorModel(low=math.log(0.6), high=math.log(1.6))
"""Interval of a stratum without left-out measurements: a judgement, and the prediction says so in a warning."""


@dataclass(frozen=True, kw_only=True)
class Phase:
    """One phase. `latency_s` is the whole phase, for decode one step; `tokens_per_s` sums over the batch.

    `bound_by` are shares of the time and sum to 1; `kernels` lists the same time per kernel, largest first.
    """

    name: str
    tokens: int
    latency_s: float
    interval_s: tuple[float, float]
    bound_s: float
    tokens_per_s: float
    energy_j: float
    energy_interval_j: tuple[float, float]
    ops: float
    dram_bytes: float
    bound_by: Mapping[str, float]
    kernels: tuple[KernelShare, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        return {
            "tokens": self.tokens,
            "latency_s": self.latency_s,
            "interval_s": list(self.interval_s),
            "bound_s": self.bound_s,
            "tokens_per_s": self.tokens_per_s,
            "energy_j": self.energy_j,
            "energy_interval_j": list(self.energy_interval_j),
            "ops": self.ops,
            "dram_bytes": self.dram_bytes,
            "bound_by": dict(self.bound_by),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelShare:
    """Time of one kind of kernel within a phase, its multiplicity included."""

    group: str
    name: str
    kind: str
    format: str
    count: int
    seconds: float
    compute_s: float
    memory_s: float
    dispatch_s: float
    ops: float
    bytes: float

    def to_dict(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """The answer to a request. `to_dict` gives the JSON contract `orchard.prediction/1`."""

    request: Request
    model: Model | ImportedModel
    weight_bytes: int
    soc: SoC
    profile: Profile
    weights: str
    phases: Mapping[str, Phase]
    memory: Memory
    warnings: tuple[str, ...] = ()
    techniques: tuple[str, ...] = ()
    kinds: Mapping[str, str] = field(default_factory=dict)

    @property
    def denoiser(self) -> str | None:
        """The phase of a pipeline that runs in every step; None for other models."""
        config = getattr(self.model, "config", None)
        return config.denoiser.part if isinstance(config, PipelineConfig) else None

    @property
    def steps(self) -> int | None:
        """Denoising steps of a pipeline; None for other models."""
        config = getattr(self.model, "config", None)
        return (self.request.steps or config.steps) if isinstance(config, PipelineConfig) else None

    @property
    def bits_per_weight(self) -> float:
        """Of what the graph holds, scales and tables included."""
        elements = self.model.base.parameters if isinstance(self.model, ImportedModel) else self.model.params
        return self.weight_bytes * 8 / max(1, elements)

    @property
    def ttft_s(self) -> float | None:
        """Time to first token of one request on an idle machine: the prompt phase. None without a prompt."""
        phase = self.phases.get("prefill")
        return phase.latency_s if phase else None

    def to_dict(self, *, breakdown: bool = False) -> dict[str, Any]:
        phases = {name: phase.to_dict() for name, phase in self.phases.items()}
        if breakdown:
            for name, phase in self.phases.items():
                phases[name]["breakdown"] = [k.to_dict() for k in phase.kernels]
        return {
            "schema": SCHEMA,
            "model": {"name": self.model.name, "params": self.model.params, "weight_bytes": self.weight_bytes},
            "chip": {"id": self.soc.id, "name": self.soc.name, "overrides": _override_map(self.request.overrides)},
            "runtime": self.profile.runtime,
            "runtime_builds": self.profile.version,
            "engine": self.profile.engine,
            "fidelity": self.request.fidelity,
            "weights": self.weights,
            "kv": self.request.kv,
            "batch": self.request.batch,
            "depth": self.request.depth,
            "steps": self.steps,
            "techniques": list(self.techniques),
            "ttft_s": self.ttft_s,
            "phases": phases,
            "memory": self.memory.to_dict(),
            "warnings": list(self.warnings),
        }


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Everything about a request that does not depend on hardware numbers."""

    model: Model | ImportedModel
    graph: Graph
    table: KernelTable
    profile: Profile
    weights: str
    phases: Mapping[str, tuple[Call, ...]]
    tokens: Mapping[str, int]
    strata: Mapping[str, str]
    others: Mapping[str, tuple[Graph, KernelTable]] = field(default_factory=dict)
    """Phases that run another graph than `graph`: a decoder's `decode`, the components of a pipeline."""
    runs: Mapping[str, float] = field(default_factory=dict)
    """How often each phase runs in the whole `inference` of a pipeline; empty for other models."""

    def table_of(self, phase: str) -> KernelTable:
        """Kernels of the graph that a phase runs."""
        return self.others[phase][1] if phase in self.others else self.table

    def graph_of(self, phase: str) -> Graph:
        return self.others[phase][0] if phase in self.others else self.graph


def predict(
    model: object,
    chip: str,
    *,
    runtime: str | None = None,
    engine: str = "auto",
    weights: str | None = None,
    activations: str = "f16",
    kv: str = "f16",
    batch: int = 1,
    prompt: int = 512,
    generate: int = 128,
    depth: int = 0,
    threads: int | None = None,
    fidelity: str = "estimate",
    inputs: Sequence[str] | Mapping[str, Sequence[int | str]] = (),
    steps: int | None = None,
    assume_elementwise: Sequence[str] = (),
    overrides: Sequence[str] | Mapping[str, object] = (),
    apply: Sequence[str] = (),
) -> Prediction:
    """Predict one model on one chip. Fields as in `Request`; raises an OrchardError for what the user must correct.

    `model` may also be a live torch.nn.Module (weights on the meta device are enough), an exported program or an MLX
    function; `inputs` then maps argument names to shapes, with names for open sizes: {"input_ids": (1, "seq")}.
    """
    loaded = None
    if not isinstance(model, (str, Path)):
        loaded = live_model(model, inputs, assume_elementwise)
        model = loaded.name
    texts = [f"{k}={v}" for k, v in overrides.items()] if isinstance(overrides, Mapping) else list(overrides)
    shapes = (
        [f"{k}={shape_text(v)}" for k, v in inputs.items()] if isinstance(inputs, Mapping) else inputs
    )
    request = Request(
        inputs=tuple(shapes), model=str(model), assume_elementwise=tuple(assume_elementwise),
        chip=chip, runtime=runtime, engine=engine, weights=weights,
        activations=activations, kv=kv,
        batch=batch, prompt=prompt, generate=generate, depth=depth, threads=threads, fidelity=fidelity,
        overrides=tuple(texts), steps=steps, apply=tuple(apply),
    )  # fmt: skip
    return answer(request, loaded)


def answer(request: Request, loaded: ImportedModel | None = None) -> Prediction:
    """The prediction of a request; `loaded` is its model where that is no name or file but a live object."""
    request = run_request(request)
    soc = chip_of(request)
    plan = make_plan(request, loaded)
    hw = HardwareArrays.of(soc)
    memory = memory_of(plan, soc, request)
    phases = {name: phase_of(plan, name, hw, request) for name in plan.phases}
    if request.fidelity == "simulation":
        phases = _simulated(plan, soc, hw, phases)
    warnings = _warnings(plan, request, soc, memory)
    if request.apply:
        from orchard.studies.technique_runs import changed

        phases, memory, more = changed(plan, request, soc, hw, phases, memory)
        warnings = (*(w for w in warnings if not w.startswith("does not fit") or not memory.fits), *more)
    if plan.runs:
        phases = {"inference": _whole(phases, plan.runs, request.batch), **phases}
    return Prediction(
        request=request,
        model=plan.model,
        weight_bytes=memory.weights,
        soc=soc,
        profile=plan.profile,
        weights=plan.weights,
        phases=phases,
        memory=memory,
        warnings=warnings,
        techniques=tuple(str(t) for t in parsed(request.apply)),
    )


def predict_variants(request: Request, variants: Mapping[str, NDArray[np.float64]]) -> dict[str, PhaseTime]:
    """Phase times of one request on many variants of its chip at once.

    `variants` maps hardware parameters (`dram.bandwidth`, `gpu.cores`, ... in SI units) to arrays of one shape [variants].
    `total` never undercuts the physical bound, as in `predict`; the terms are the estimate's. Each is [variants], also where
    the engine does not read what varies.
    """
    request = run_request(request)
    soc = chip_of(request)
    plan = make_plan(request)
    hw = HardwareArrays.of(soc, variants)
    values = plan.profile.values()
    found = {}
    for name, calls in plan.phases.items():
        table = plan.table_of(name)
        time = phase_time(table, calls, hw, plan.profile, values)
        bound = phase_bound(table, calls, hw, plan.profile.engine, hw.get("slc.size", 0.0))
        found[name] = PhaseTime(
            total=np.broadcast_to(np.maximum(time.total, bound), hw.shape),
            compute=np.broadcast_to(time.compute, hw.shape),
            memory=np.broadcast_to(time.memory, hw.shape),
            dispatch=np.broadcast_to(time.dispatch, hw.shape),
            kernels=time.kernels,
        )
    if plan.runs:
        found = {"inference": _whole_time(found, plan.runs), **found}
    return found


def _whole_time(parts: Mapping[str, PhaseTime], runs: Mapping[str, float]) -> PhaseTime:
    """The phases of a pipeline one after the other; `kernels` are those of the phase that takes longest in all."""
    longest = max(parts, key=lambda name: float(np.max(parts[name].total)) * runs[name])

    def summed(term: str) -> Any:
        return sum(getattr(part, term) * runs[name] for name, part in parts.items())

    return PhaseTime(
        total=summed("total"), compute=summed("compute"), memory=summed("memory"), dispatch=summed("dispatch"),
        kernels=parts[longest].kernels,
    )  # fmt: skip


def make_plan(request: Request, live: ImportedModel | None = None) -> Plan:
    """Model, kernels and calls of a request."""
    weights = request.weights
    loaded = live or open_model(request)
    runtime = request.runtime
    serves = served_as(loaded)
    if runtime is None:
        runtime = runtime_hint(request)
    own = machine_profile(chip_of(request), runtime, request.engine) if request.chip else None  # counts alone need no chip
    if own is not None:
        return _plan(loaded, own, weights, request)
    if runtime is None and (loaded.family == "imported" or serves == "network"):
        runtime = network_runtime(request.engine, serves)
    profile = choose_profile(runtime, request.engine, weights or loaded.default_weights, serves)
    return _plan(loaded, profile, weights, request)


def _plan(model: Model | ImportedModel, profile: Profile, weights: str | None, request: Request) -> Plan:
    as_stored = weights is None and isinstance(model, ImportedModel)
    chosen = None if as_stored else weights or model.default_weights or "f16"
    skip = bool(profile.rules.get("skip_shared_prefill", False))
    if request.threads:
        profile = _with_threads(profile, request.threads)
    if request.apply:
        check_family(request, model.family, model.name)
    profile = profile_of(profile, request)
    graph = model.graph(weights=chosen, kv_format=request.kv, activations=request.activations, skip_shared_prefill=skip)
    if model.family != "pipeline":
        graph = applied(graph, request)
    table = lowered(graph, profile.lowering)
    if request.steps is not None and model.family != "pipeline":
        raise StudyError(
            f"--steps {request.steps}: {model.name} takes no steps; pipelines such as stable-diffusion-1.5 do"
        )
    if isinstance(model, Model) and isinstance(model.config, PipelineConfig):
        return _pipeline(model, model.config, profile, chosen or AS_STORED, request)
    if isinstance(model, Model) and "decoder" in model.parts[1:]:
        return _encoder_decoder(model, profile, chosen or AS_STORED, request, graph, table)
    if model.family != "decoder":
        tokens = request.prompt if "T" in graph.symbols else None
        if isinstance(model, ImportedModel):
            calls = [Call(bind_symbols(graph, request))]
        else:
            calls = encoder_calls(batch=request.batch, tokens=tokens, symbols=graph.symbols)
        return Plan(
            model=model, graph=graph, table=table, profile=profile, weights=chosen or AS_STORED,
            phases={"inference": tuple(calls)}, tokens={"inference": tokens or 1}, strata={"inference": "inference"},
        )  # fmt: skip
    phases: dict[str, tuple[Call, ...]] = {}
    chunk = int(profile.rules.get("prefill_chunk", 512))
    if request.prompt:
        phases["prefill"] = tuple(
            prefill_calls(prompt=request.prompt, depth=request.depth, batch=request.batch, chunk=chunk)
        )
    if request.generate:
        phases["decode"] = tuple(
            decode_calls(generate=request.generate, context=request.depth + request.prompt, batch=request.batch)
        )
    is_moe = any(k.kind == "expert" for k in table.kernels)
    strata = {
        phase: stratum(
            phase,
            is_moe=is_moe,
            batch=request.batch,
            depth=request.depth if phase == "prefill" else _mean_context(request),
            tokens=request.prompt,
        )
        for phase in phases
    }
    return Plan(
        model=model, graph=graph, table=table, profile=profile, weights=chosen or AS_STORED, phases=phases,
        tokens={"prefill": request.prompt, "decode": request.generate}, strata=strata,
    )  # fmt: skip


def _mean_context(request: Request) -> int:
    """Tokens cached before the middle one of the generated tokens."""
    return request.depth + request.prompt + request.generate // 2


def _encoder_decoder(
    model: Model, profile: Profile, weights: str, request: Request, graph: Graph, table: KernelTable
) -> Plan:
    """One encoder pass over the audio (Whisper) or the prompt (T5), then `generate` steps of the decoder after `depth`
    tokens of text."""
    tokens = max(1, request.prompt) if "T" in graph.symbols else None
    calls = encoder_calls(batch=request.batch, tokens=tokens, symbols=graph.symbols)
    phases: dict[str, tuple[Call, ...]] = {"inference": tuple(calls)}
    others: dict[str, tuple[Graph, KernelTable]] = {}
    if request.generate:
        steps = model.graph(weights=weights, kv_format=request.kv, activations=request.activations, part="decoder")
        steps = applied(steps, request)
        others["decode"] = (steps, lowered(steps, profile.lowering))
        made = decode_calls(generate=request.generate, context=request.depth, batch=request.batch)
        source = {"E": tokens or 1} if "E" in steps.symbols else {}
        phases["decode"] = tuple(Call({**c.bindings, **source}, c.weight) for c in made)
    return Plan(
        model=model, graph=graph, table=table, profile=profile, weights=weights, phases=phases, others=others,
        tokens={"inference": tokens or 1, "decode": request.generate},
        strata={"inference": "inference", "decode": "inference"},
    )  # fmt: skip


def _pipeline(model: Model, config: PipelineConfig, profile: Profile, weights: str, request: Request) -> Plan:
    """Components in the order they run. A phase is one pass: the denoiser's is one step of all pictures of the batch."""
    phases: dict[str, tuple[Call, ...]] = {}
    others: dict[str, tuple[Graph, KernelTable]] = {}
    for component in config.components:
        graph = model.graph(weights=weights, activations=request.activations, part=component.part)
        graph = applied(graph, request, optional=component.part != config.denoiser.part)
        others[component.part] = (graph, lowered(graph, profile.lowering))
        inputs = request.batch * component.inputs
        phases[component.part] = tuple(encoder_calls(batch=inputs, tokens=component.tokens, symbols=graph.symbols))
    graph, table = others[config.denoiser.part]
    steps = request.steps or config.steps
    return Plan(
        model=model, graph=graph, table=table, profile=profile, weights=weights, phases=phases, others=others,
        runs={c.part: float(steps if c.per_step else 1) for c in config.components},
        tokens=dict.fromkeys(phases, 1), strata=dict.fromkeys(phases, "inference"),
    )  # fmt: skip


def stratum(phase: str, *, is_moe: bool, batch: int = 1, depth: int = 0, tokens: int = 512) -> str:
    """The group of measurements whose left-out error speaks for a prediction."""
    if is_moe:
        return f"{phase}-moe"
    if batch > 1 or (phase == "prefill" and tokens <= 16):
        return "small-batch"
    return f"{phase}-deep" if depth >= 1024 else phase


def _with_threads(profile: Profile, threads: int) -> Profile:
    return replace(profile, rules={**profile.rules, "threads": threads})


_TABLES: dict[tuple[int, Lowering], tuple[Graph, KernelTable]] = {}


def lowered(graph: Graph, rules: Lowering) -> KernelTable:
    """Lower once per live graph and rule set."""
    key = (id(graph), rules)
    found = _TABLES.get(key)
    if found is None or found[0] is not graph:
        if len(_TABLES) > 512:
            _TABLES.clear()
        found = (graph, lower(graph, rules))
        _TABLES[key] = found
    return found[1]


@lru_cache(maxsize=256)
def _load(chip: str, overrides: tuple[str, ...]) -> SoC:
    return load_chip(chip, list(overrides))


def chip_of(request: Request) -> SoC:
    """The chip of a request with its overrides."""
    return _load(request.chip, request.overrides)


def phase_of(plan: Plan, name: str, hw: HardwareArrays, request: Request) -> Phase:
    """One phase of a plan on one chip."""
    calls, engine, table = plan.phases[name], plan.profile.engine, plan.table_of(name)
    bound = float(phase_bound(table, calls, hw, engine, _cache_bytes(hw)))
    time = phase_time(table, calls, hw, plan.profile, plan.profile.values())
    latency = max(float(time.total), bound)
    shares = {"compute": float(time.compute), "memory": float(time.memory), "dispatch": float(time.dispatch)}
    if request.fidelity == "bound":
        latency = bound
        compute, memory = phase_bound_terms(table, calls, hw, engine, _cache_bytes(hw))
        shares = {"compute": float(compute), "memory": float(memory), "dispatch": 0.0}
    error = plan.profile.errors.get(plan.strata[name], DEFAULT_ERROR)
    low, high = latency * math.exp(error.low), latency * math.exp(error.high)
    tokens = plan.tokens[name]
    produced = request.batch if name == "decode" else tokens * request.batch
    evaluated = [(call.weight, table.evaluate(call.bindings)) for call in calls]
    ops = sum(w * all_ops(c) for w, c in evaluated)
    moved = sum(w * dram_bytes(c) for w, c in evaluated)
    low_bits = bool(plan.profile.rules.get("int8_products")) and stored_in_low_bits(plan.table)
    joules = float(energy_j(engine, ops=ops, dram_bytes=moved, seconds=latency, hw=hw, low_bits=low_bits))
    total = float(time.total)
    return Phase(
        name=name,
        tokens=tokens,
        latency_s=latency,
        interval_s=(bound, bound) if request.fidelity == "bound" else (max(low, bound), max(high, bound)),
        bound_s=bound,
        tokens_per_s=produced / latency,
        energy_j=joules,
        energy_interval_j=(joules * SPREAD[0], joules * SPREAD[1]),
        ops=ops,
        dram_bytes=moved,
        bound_by={name: seconds / sum(shares.values()) for name, seconds in shares.items()},
        kernels=() if request.fidelity == "bound" else _shares(table, time, calls, latency / total),
    )


def _whole(parts: Mapping[str, Phase], runs: Mapping[str, float], batch: int) -> Phase:
    """The phases of a pipeline one after the other. Their errors are taken to go the same way, so intervals add."""

    def summed(values: Mapping[str, float]) -> float:
        return sum(values[name] * runs[name] for name in parts)

    def each(term: str) -> float:
        return summed({name: getattr(part, term) for name, part in parts.items()})

    def ends(term: str) -> tuple[float, float]:
        low, high = (summed({name: getattr(part, term)[i] for name, part in parts.items()}) for i in (0, 1))
        return low, high

    latency = each("latency_s")
    causes = {
        cause: summed({n: p.bound_by[cause] * p.latency_s for n, p in parts.items()}) / latency
        for cause in next(iter(parts.values())).bound_by
    }
    kernels = [_repeated(k, name, runs[name]) for name, part in parts.items() for k in part.kernels]
    return Phase(
        name="inference", tokens=1, latency_s=latency, interval_s=ends("interval_s"), bound_s=each("bound_s"),
        tokens_per_s=batch / latency, energy_j=each("energy_j"), energy_interval_j=ends("energy_interval_j"),
        ops=each("ops"), dram_bytes=each("dram_bytes"), bound_by=causes,
        kernels=tuple(sorted(kernels, key=lambda k: -k.seconds)),
    )  # fmt: skip


def _repeated(kernel: KernelShare, part: str, runs: float) -> KernelShare:
    """A kernel of a part, over all runs of it."""
    terms = ("seconds", "compute_s", "memory_s", "dispatch_s", "ops", "bytes")
    return replace(
        kernel, group=part, count=round(kernel.count * runs), **{t: getattr(kernel, t) * runs for t in terms}
    )  # fmt: skip


def _simulated(plan: Plan, soc: SoC, hw: HardwareArrays, phases: Mapping[str, Phase]) -> dict[str, Phase]:
    """The phases as one request goes through the simulator: alone, without limits of power or heat. The interval is the
    estimate's, moved along; `dram_bytes` are those that DRAM served, not what the system-level cache did."""
    from orchard.studies.simulate import simulate_phases

    found = {}
    for name, run in simulate_phases(plan, soc, hw).items():
        phase = phases[name]
        steps = phase.tokens if name == "decode" else 1
        latency = max(run.seconds / steps, phase.bound_s)
        moved = latency / phase.latency_s
        parts = {"compute": ("compute", "clock"), "memory": ("memory", "contention"), "dispatch": ("dispatch", "host")}
        shares = {part: sum(run.causes_s[c] for c in causes) for part, causes in parts.items()}
        joules = run.energy_j / steps
        found[name] = replace(
            phase, latency_s=latency, interval_s=(max(phase.interval_s[0] * moved, phase.bound_s), phase.interval_s[1] * moved),
            tokens_per_s=phase.tokens_per_s / moved, energy_j=joules,
            energy_interval_j=(joules * SPREAD[0], joules * SPREAD[1]), dram_bytes=run.dram_bytes / steps,
            bound_by={part: seconds / sum(shares.values()) for part, seconds in shares.items()},
        )  # fmt: skip
    return found


def stored_in_low_bits(table: KernelTable) -> bool:
    """Whether most products use weights of 8 bits or fewer (a runtime with `int8_products` multiplies those as INT8)."""
    floats = ("", "f32", "f16", "bf16")
    products = [k for k in table.kernels if k.kind in ("linear", "expert")]
    return sum(k.count for k in products if k.format not in floats) > sum(k.count for k in products) / 2


def _cache_bytes(hw: HardwareArrays) -> float:
    """Weights a last-level cache could keep between calls; 0 where its size is not known."""
    value = hw.get("slc.size", 0.0)
    return float(value) if isinstance(value, (int, float)) else 0.0


def _shares(table: KernelTable, time: PhaseTime, calls: Sequence[Call], scale: float) -> tuple[KernelShare, ...]:
    counts = [(call.weight, table.evaluate(call.bindings)) for call in calls]
    shares = []
    for i, kernel in enumerate(table.kernels):
        seconds = [
            float(part[i]) * scale for part in (time.kernels.compute, time.kernels.memory, time.kernels.dispatch)
        ]
        ops = sum(w * float((2 * c.macs[i] + c.vector_ops[i]) * c.count[i]) for w, c in counts)
        moved = sum(
            w * float((c.weight_bytes[i] + c.state_bytes[i] + c.input_bytes[i] + c.output_bytes[i]) * c.count[i])
            for w, c in counts
        )
        shares.append(
            KernelShare(
                group=layer_group(kernel.scope), name=kernel.name.rpartition(".")[2], kind=kernel.kind,
                format=kernel.format, count=kernel.count, seconds=sum(seconds), compute_s=seconds[0],
                memory_s=seconds[1], dispatch_s=seconds[2], ops=ops, bytes=moved,
            )
        )  # fmt: skip
    return tuple(sorted(shares, key=lambda s: -s.seconds))


def memory_of(plan: Plan, soc: SoC, request: Request) -> Memory:
    """Memory that the calls of a plan need at once."""
    if plan.others:
        return _memory_of_all(plan, soc, request)
    calls = [c for phase in plan.phases.values() for c in phase]
    largest = max(calls, key=lambda c: c.bindings.get("T", 1) * c.bindings.get("B", 1)).bindings
    final = dict(largest)
    if "S" in plan.graph.symbols:
        final["S"] = max(1, request.depth + request.prompt + request.generate)
    return memory_need(plan.graph, soc, plan.profile.engine, largest=largest, final=final)


def _memory_of_all(plan: Plan, soc: SoC, request: Request) -> Memory:
    """Weights of all graphs (what several hold once), the caches, and the largest of the activation peaks."""
    found = []
    for phase in plan.phases:
        sizes = dict(plan.phases[phase][-1].bindings)
        if "S" in sizes:
            sizes["S"] = request.depth + request.generate
        graph = plan.graph_of(phase)
        found.append((graph, memory_need(graph, soc, plan.profile.engine, largest=sizes, final=sizes)))
    shared = plan.model.shared if isinstance(plan.model, Model) else frozenset()
    twice = sum(weight_bytes(g) - weight_bytes(g, shared) for g, _ in found[1:]) if shared else 0
    return Memory(
        weights=sum(m.weights for _, m in found) - twice,
        kv_cache=sum(m.kv_cache for _, m in found),
        activation_peak=max(m.activation_peak for _, m in found),
        limit=found[0][1].limit,
    )


def _warnings(plan: Plan, request: Request, soc: SoC, memory: Memory) -> tuple[str, ...]:
    found = list(plan.model.warnings)
    if isinstance(plan.model, Model) and "decoder" in plan.model.parts[1:] and "decode" not in plan.phases:
        found.append("generate is 0: the decoder's time and memory are not part of this answer")
    if isinstance(plan.model, ImportedModel) and plan.model.family == "imported" and plan.graph.symbols:
        sizes = ", ".join(f"{name}={size}" for name, size in bind_symbols(plan.graph, request).items())
        found.append(f"the model leaves sizes open; priced at {sizes} (--batch and --prompt choose, or --input name=shape)")
    missing = [name for name in plan.phases if plan.strata[name] not in plan.profile.errors]
    missing = ["inference"] if missing and plan.runs else missing
    if missing and request.fidelity != "bound":
        found.append(
            f"no measurement of {plan.profile.runtime} on {plan.profile.engine} backs the {' and '.join(missing)} "
            f"interval; it is a judgement (x0.6 to x1.6)"
        )
    found.extend(_mismatches(plan, request))
    if not memory.fits:
        found.append(_does_not_fit(plan, soc, memory))
    return tuple(found)


LOADS = {
    "llama.cpp": ("llama.cpp",),
    "ik_llama.cpp": ("llama.cpp",),
    "mlx": ("mlx",),
    "rapid-mlx": ("mlx",),
    "coreml": ("coreml",),
}
"""Families of weight formats whose files each runtime loads."""


def _mismatches(plan: Plan, request: Request) -> list[str]:
    """Options that together describe nothing anyone can run as stated."""
    found = []
    runtime = plan.profile.runtime
    if plan.weights != AS_STORED and not _loads(runtime, plan.weights):
        found.append(
            f"{runtime} does not load {plan.weights} weights; the time is what its kernels would need if it did"
        )
    if runtime == "llama.cpp" and served_as(plan.model) == "network":
        found.append(
            "no profile of a runtime that serves networks on the CPU yet: these are llama.cpp's matrix kernels"
        )
    if plan.profile.model == "eager":
        found += _stand_ins(plan)
    if request.threads and plan.profile.engine != "cpu":
        found.append(f"--threads {request.threads} changes nothing: {plan.profile.engine} does the work")
    if request.activations not in ("f16", "bf16", "f32") and runtime != "coreml":
        found.append(f"{runtime} computes with 16- or 32-bit activations; {request.activations} changes only the bytes")
    asked, longest = _positions(plan, request)
    if longest and asked > longest:
        found.append(f"{asked:,} tokens of context, the model was made for {longest:,}")
    return found


def _stand_ins(plan: Plan) -> list[str]:
    """Number formats that a measured machine has no figures for, and what they are counted as."""
    from orchard.cost.engines.eager import counted_as

    tables = [plan.table_of(name) for name in plan.phases]
    stored = dict.fromkeys(k.format for table in tables for k in table.kernels if k.kind in ("linear", "expert", "attention"))
    told = [f"{name} as {counted_as(name)}" for name in stored if name and counted_as(name) != name]
    return [f"this machine was not measured with these number formats, which are counted: {', '.join(told)}"] if told else []


def _loads(runtime: str, weights: str) -> bool:
    """Plain formats and the FP4 block formats go everywhere; the others only to the runtimes of their family."""
    chosen = scheme(weights)
    everywhere = chosen.default.family == "plain" or "fp4" in weights.lower()
    return everywhere or chosen.family in LOADS.get(runtime, (chosen.family,))


def _positions(plan: Plan, request: Request) -> tuple[int, int | None]:
    """(tokens of the longest sequence of a request, positions the model was made for; None where it does not say)."""
    config = getattr(plan.model, "config", None)
    if plan.model.family == "decoder":
        return request.depth + request.prompt + request.generate, getattr(config, "max_positions", None)
    if "decode" in plan.phases:
        decoder = getattr(config, "decoder", None)
        return request.depth + request.generate, getattr(decoder, "positions", None)
    sources = [getattr(c, "source", None) for c in (config, getattr(config, "partner", None))]
    found = [n for n in (getattr(source, "positions", None) for source in sources) if n is not None]
    return plan.tokens.get("inference", 1), min(found, default=None)


def _does_not_fit(plan: Plan, soc: SoC, memory: Memory) -> str:
    from orchard.units import format_bytes

    return (
        f"does not fit: needs {format_bytes(memory.total)}, {plan.profile.engine} may use {format_bytes(memory.limit)} of "
        f"{soc.id}; times assume it did"
    )


def _override_map(texts: Sequence[str]) -> dict[str, str]:
    return {key.strip(): value.strip() for key, _, value in (t.partition("=") for t in texts)}
