"""Prices of techniques that change the run. Speculation uses the engine model's own verification curve: a pass of r rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import cast

from orchard.cost.evaluate import Call
from orchard.cost.lower import KernelTable
from orchard.hw import HardwareArrays, SoC
from orchard.ir import Graph
from orchard.studies.errors import StudyError
from orchard.studies.memory import Memory
from orchard.studies.predict import (
    KernelShare,
    Phase,
    Plan,
    Prediction,
    answer,
    lowered,
    make_plan,
    memory_of,
    phase_of,
)
from orchard.studies.request import Request
from orchard.studies.techniques import parsed, refuse_simulation
from orchard.techniques import Technique, TechniqueError
from orchard.techniques.rewrite import all_logits, layer_count
from orchard.techniques.runs import (
    ActivationSparsity,
    Eagle,
    EarlyExit,
    ExpertOffload,
    FeatureCache,
    FlashOffload,
    MultiTokenHeads,
    ParallelDraft,
    PrefillDecodeSplit,
    PromptLookup,
    ReDrafter,
    Speculation,
    Speculative,
)
from orchard.techniques.structure import drop_layers
from orchard.units import number_format

PRICED_HERE = (ActivationSparsity, ExpertOffload, FeatureCache, FlashOffload, PrefillDecodeSplit, Speculation)


@dataclass(frozen=True)
class Run:
    """A request with its plan on one chip."""

    plan: Plan
    request: Request
    soc: SoC
    hw: HardwareArrays

    def decode_of(self, graph: Graph, rows: int = 1) -> Phase:
        """A decode pass of `rows` new tokens per sequence over another graph, kernels lowered by the plan's rules."""
        calls = tuple(Call(with_rows(c.bindings, rows), c.weight) for c in self.plan.phases["decode"])
        plan = replace(
            self.plan,
            graph=graph,
            table=lowered(graph, self.plan.profile.lowering),
            others={},
            phases={"decode": calls},
        )
        return phase_of(plan, "decode", self.hw, self.request)


def with_rows(bindings: Mapping[str, int], rows: int) -> dict[str, int]:
    """`rows` new tokens instead of one: the context grows by the others."""
    return {**bindings, "T": rows, "S": bindings["S"] + rows - 1}


def verification(plan: Plan, request: Request, soc: SoC, rows: Sequence[int]) -> dict[int, float]:
    """v(r): seconds of a decode pass of r rows, all of whose logits are needed, over those of one row."""
    run = Run(plan, request, soc, HardwareArrays.of(soc))
    graph = all_logits(plan.graph)
    one = run.decode_of(plan.graph).latency_s
    return {r: run.decode_of(graph, r).latency_s / one if r > 1 else 1.0 for r in rows}


def changed(
    plan: Plan, request: Request, soc: SoC, hw: HardwareArrays, phases: Mapping[str, Phase], memory: Memory
) -> tuple[dict[str, Phase], Memory, tuple[str, ...]]:
    """(phases, memory, warnings) after the run techniques of a request. Raises TechniqueError where one does not apply."""
    found = [t for t in parsed(request.apply) if isinstance(t, PRICED_HERE)]
    refuse_simulation(request, [t.name for t in found])
    run, result, warnings = Run(plan, request, soc, hw), dict(phases), []
    for technique in found:
        if isinstance(technique, FeatureCache):
            result = _feature_cache(run, technique, result)
            continue
        if plan.model.family != "decoder":
            raise TechniqueError(
                f"{technique.name}: {plan.model.name} is no language model that decodes token by token"
            )
        if isinstance(technique, PrefillDecodeSplit):
            result, memory = _split(run, result, memory)
            continue
        if "decode" not in result:
            raise TechniqueError(f"{technique.name}: the request generates no token; --generate is 0")
        if isinstance(technique, Speculation):
            decode, extra = _speculated(run, technique, result["decode"])
            memory = replace(memory, weights=memory.weights + extra)
        elif isinstance(technique, ActivationSparsity):
            decode = _sparse(run, technique)
        else:
            decode, memory = _offloaded(run, technique, result["decode"], memory)
            warnings.append(f"{technique.name}: the energy of flash reads is not known and not counted")
        result["decode"] = decode
    return result, memory, tuple(warnings)


def mixed(name: str, parts: Sequence[tuple[Phase, float, str]], whole: Phase) -> Phase:
    """Passes one after the other as one phase: (phase, how often, group of its kernels, "" for their own)."""

    def each(term: str) -> float:
        return sum(float(getattr(part, term)) * w for part, w, _ in parts)

    latency = each("latency_s")
    causes = {c: sum(p.bound_by[c] * p.latency_s * w for p, w, _ in parts) / latency for c in whole.bound_by}
    kernels = [_scaled(k, w, group) for p, w, group in parts for k in p.kernels]
    low, high = (sum(p.interval_s[i] * w for p, w, _ in parts) for i in (0, 1))
    least, most = (sum(p.energy_interval_j[i] * w for p, w, _ in parts) for i in (0, 1))
    return Phase(
        name=name, tokens=whole.tokens, latency_s=latency, interval_s=(low, high), bound_s=each("bound_s"),
        tokens_per_s=whole.tokens_per_s * whole.latency_s / latency, energy_j=each("energy_j"), energy_interval_j=(least, most),
        ops=each("ops"), dram_bytes=each("dram_bytes"), bound_by=causes, kernels=tuple(sorted(kernels, key=lambda k: -k.seconds)),
    )  # fmt: skip


def _scaled(kernel: KernelShare, by: float, group: str) -> KernelShare:
    terms = ("seconds", "compute_s", "memory_s", "dispatch_s", "ops", "bytes")
    return replace(kernel, group=group or kernel.group, **{t: getattr(kernel, t) * by for t in terms})


def _speculated(run: Run, technique: Speculation, one: Phase) -> tuple[Phase, int]:
    """(decode per token under speculation, bytes of weights on top). A round drafts, verifies, and yields E tokens."""
    if run.request.batch > 1:
        raise TechniqueError(
            f"{technique.name} with batch {run.request.batch}: sequences accept different numbers of tokens; price one"
        )
    graph = all_logits(run.plan.graph)
    verify = run.decode_of(graph, technique.rows)
    drafts, extra = _drafts(run, technique, one)
    tokens = technique.tokens_per_round
    if isinstance(technique, PromptLookup):
        tokens = technique.match * tokens + (1.0 - technique.match)
        parts = [(verify, technique.match / tokens, "verify"), (one, (1.0 - technique.match) / tokens, "")]
    elif isinstance(technique, ParallelDraft):
        return _in_parallel(one, verify, drafts, tokens), extra
    else:
        parts = [(verify, 1.0 / tokens, "verify"), *((p, w / tokens, "draft") for p, w in drafts)]
    return mixed("decode", parts, one), extra


def _drafts(run: Run, technique: Speculation, one: Phase) -> tuple[list[tuple[Phase, float]], int]:
    """((draft pass, passes per round), bytes of weights on top)."""
    layers = layer_count(run.plan.graph)
    if isinstance(technique, Speculative | ParallelDraft):
        draft = _draft_model(run, technique)
        return [(draft.phases["decode"], float(technique.tokens))], draft.memory.weights + draft.memory.kv_cache
    if isinstance(technique, EarlyExit):
        if technique.exit >= layers:
            raise TechniqueError(
                f"early-exit: exit={technique.exit}, {run.plan.model.name} has {layers} layers; expected fewer"
            )
        short = drop_layers(technique.name, run.plan.graph, range(technique.exit, layers))
        return [(run.decode_of(short), float(technique.tokens))], 0
    if isinstance(technique, Eagle):
        short = drop_layers(technique.name, run.plan.graph, range(1, layers))
        return [(run.decode_of(short), float(technique.tokens))], 0
    if isinstance(technique, MultiTokenHeads):
        return [(one, technique.cost * technique.tokens)], 0
    if isinstance(technique, ReDrafter):
        # the recurrent head is two square products and the vocabulary's: a pass over no layer at all, per position
        short = drop_layers(technique.name, run.plan.graph, range(1, layers))
        return [(run.decode_of(short, technique.beams), float(technique.length - 1))], 0
    return [], 0


def _draft_model(run: Run, technique: Speculative | ParallelDraft) -> Prediction:
    parallel = isinstance(technique, ParallelDraft)
    weights = technique.weights or ("coreml-lut4" if parallel else run.request.weights)
    request = replace(
        run.request, model=technique.draft, weights=weights, apply=(), engine="ane" if parallel else run.request.engine,
        runtime="coreml" if parallel else run.request.runtime,
    )  # fmt: skip
    draft = answer(request)
    if draft.model.family != "decoder":
        raise TechniqueError(f"{technique.name}: draft={technique.draft} is no language model")
    return draft


def _in_parallel(one: Phase, verify: Phase, drafts: Sequence[tuple[Phase, float]], tokens: float) -> Phase:
    """The slower of drafting and verifying sets the time; both cost energy."""
    draft, passes = drafts[0]
    parts = [(verify, 1.0 / tokens, "verify"), (draft, passes / tokens, "draft")]
    both = mixed("decode", parts, one)
    sides = (
        [(verify, 1.0 / tokens, "verify")]
        if verify.latency_s >= draft.latency_s * passes
        else [(draft, passes / tokens, "draft")]
    )
    slower = mixed("decode", sides, one)
    return replace(
        slower,
        energy_j=both.energy_j,
        energy_interval_j=both.energy_interval_j,
        ops=both.ops,
        dram_bytes=both.dram_bytes,
    )


def _sparse(run: Run, technique: ActivationSparsity) -> Phase:
    """One row: every product with a weight reads and multiplies the share of its inputs that is not zero."""
    if run.request.batch > 1:
        raise TechniqueError(
            f"activation-sparsity with batch {run.request.batch}: 1 - s^r of the weights are read; price one sequence"
        )
    left = Fraction(1.0 - technique.sparsity).limit_denominator(1000)
    table = run.plan.table_of("decode")
    kernels = tuple(
        replace(
            k, weight_bytes=k.weight_bytes * left, macs=k.macs * left, weight_elements=k.weight_elements * left,
            depth=k.depth * left, launches=k.launches * 2,
        )
        if k.kind in ("linear", "expert") and k.part not in ("head", "embedding", "router") and k.weight_elements
        else k
        for k in table.kernels
    )  # fmt: skip
    plan = replace(run.plan, table=KernelTable(kernels=kernels, depth=table.depth), others={})
    return phase_of(plan, "decode", run.hw, run.request)


def _offloaded(run: Run, technique: Technique, one: Phase, memory: Memory) -> tuple[Phase, Memory]:
    """Flash reads overlap the pass; the slower of the two sets the time."""
    if isinstance(technique, ExpertOffload):
        experts = sum(_bytes(run.plan.graph, w.name) for w in run.plan.graph.weights if w.part.startswith("expert"))
        if not experts:
            raise TechniqueError(f"expert-offload: {run.plan.model.name} has no experts")
        calls = run.plan.phases["decode"]
        counts = [(c.weight, run.plan.table_of("decode").evaluate(c.bindings)) for c in calls]
        active = sum(w * float((k.weight_bytes * k.count)[k.mask("expert")].sum()) for w, k in counts)
        read, left = (1.0 - technique.hit) * active, experts * (1.0 - technique.hit)
        seconds = read / (technique.ssd * 1e9)
    else:
        flash = cast(FlashOffload, technique)
        left = memory.weights * (1.0 - flash.resident)
        seconds = left * (1.0 - flash.sparsity) / (flash.ssd * 1e9)
    kept = replace(memory, weights=int(memory.weights - left))
    if seconds <= one.latency_s:
        return one, kept
    grown = seconds / one.latency_s
    return replace(
        one, latency_s=seconds, interval_s=(one.interval_s[0] * grown, one.interval_s[1] * grown),
        tokens_per_s=one.tokens_per_s / grown, bound_s=max(one.bound_s, seconds),
        bound_by={"compute": 0.0, "memory": 1.0, "dispatch": 0.0},
        kernels=tuple(_scaled(k, grown, "") for k in one.kernels),
    ), kept  # fmt: skip


def _bytes(graph: Graph, name: str) -> float:
    tensor = graph.tensors[name]
    return float(cast(int, tensor.elements)) * number_format(tensor.format).bytes_per_element


def _feature_cache(run: Run, technique: FeatureCache, phases: Mapping[str, Phase]) -> dict[str, Phase]:
    """Between whole passes only the outermost resolution level of the denoiser runs (DeepCache, arXiv 2312.00858, branch 1)."""
    denoiser = getattr(getattr(run.plan.model, "config", None), "denoiser", None)
    if denoiser is None or denoiser.part not in phases:
        raise TechniqueError(f"feature-cache: {run.plan.model.name} has no denoiser that runs in steps")
    whole = phases[denoiser.part]
    levels = sorted({g for g in (k.group for k in whole.kernels) if g.startswith(("down", "up")) and g[-1:].isdigit()})
    if not levels:
        raise TechniqueError(f"feature-cache: the denoiser of {run.plan.model.name} has no resolution levels to skip")
    last_up = max(g for g in levels if g.startswith("up"))
    outer = {"in", "out", "time", "down0", last_up, "other"}
    parts = [k for k in whole.kernels if k.group in outer]
    share = sum(k.seconds for k in parts) / sum(k.seconds for k in whole.kernels)
    scale = 1.0 / technique.interval + (1.0 - 1.0 / technique.interval) * share
    return {**phases, denoiser.part: mixed(denoiser.part, [(whole, scale, "")], whole)}


def _split(run: Run, phases: Mapping[str, Phase], memory: Memory) -> tuple[dict[str, Phase], Memory]:
    """The prompt on the Neural Engine, then a copy of the cache at its activation rate: one read, one write."""
    if run.plan.profile.engine != "gpu":
        raise TechniqueError(f"prefill-decode-split: {run.plan.profile.engine} generates; expected --engine gpu")
    if "prefill" not in phases or "decode" not in phases:
        raise TechniqueError("prefill-decode-split: give a prompt and tokens to generate")
    request = replace(run.request, engine="ane", runtime="coreml", weights="f16", apply=(), generate=0)
    try:
        other = make_plan(request)
    except StudyError as error:
        raise TechniqueError(f"prefill-decode-split: {error}") from None
    prompt = phase_of(other, "prefill", run.hw, request)
    cache = memory.kv_cache * run.request.prompt / max(1, run.request.prompt + run.request.generate + run.request.depth)
    copy = 2.0 * cache / float(run.hw["ane.activation_bandwidth"])
    grown = (prompt.latency_s + copy) / prompt.latency_s
    both = replace(
        prompt, latency_s=prompt.latency_s + copy, interval_s=(prompt.interval_s[0] + copy, prompt.interval_s[1] + copy),
        tokens_per_s=prompt.tokens_per_s / grown, kernels=tuple(_scaled(k, grown, "") for k in prompt.kernels),
    )  # fmt: skip
    return {**phases, "prefill": both}, replace(
        memory, weights=memory.weights + memory_of(other, run.soc, request).weights
    )
