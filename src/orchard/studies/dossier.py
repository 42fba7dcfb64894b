"""Everything a report says about one prediction: the answer, where the time goes, what runs when, memory, energy, what matters,
how sure it is, and what it rests on. Records only; `orchard.report` draws them.
"""

from __future__ import annotations

import math
import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from orchard.cost.bound import peak_ops_per_s
from orchard.cost.energy import energy_terms
from orchard.hw import HardwareArrays, SoC, sources
from orchard.hw.figure import Figure
from orchard.sim.program import PS
from orchard.studies.advice.commands import predict_command
from orchard.studies.memory import live_bytes, state_bytes
from orchard.studies.predict import (
    DEFAULT_ERROR,
    KernelShare,
    Plan,
    Prediction,
    answer,
    chip_of,
    make_plan,
    stored_in_low_bits,
)
from orchard.studies.programs import Programs
from orchard.studies.request import Request
from orchard.studies.techniques import run_request
from orchard.units import OrchardError

if TYPE_CHECKING:
    from orchard.studies.explore.sensitivity import Elasticity

CAUSES = ("compute", "memory", "dispatch")
MOST_SLICES = 240
MOST_MEMORY_POINTS = 200
MOST_FIGURES = 10
DEVICE_PREFIXES = {"gpu": ("gpu.",), "ane": ("ane.",), "cpu": ("cpu.",)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Slice:
    """A piece of the timeline: what ran, from when, for how long, and what its time went to most."""

    label: str
    start_s: float
    seconds: float
    cause: str
    dram_bytes: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeline:
    """One forward pass of a phase: submission by the host, then the ops on the engine in order. `sizes`: of this pass."""

    phase: str
    engine: str
    sizes: Mapping[str, int]
    host_s: float
    slices: tuple[Slice, ...]
    launches: int

    @property
    def seconds(self) -> float:
        return self.host_s + sum(s.seconds for s in self.slices)


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryCurve:
    """Bytes over a request. `axis`: what `at` counts (seconds, or ops in program order)."""

    axis: str
    at: tuple[float, ...]
    weights: tuple[float, ...]
    cache: tuple[float, ...]
    activations: tuple[float, ...]
    limit: float


@dataclass(frozen=True, slots=True, kw_only=True)
class EnergyParts:
    """Joules of one phase (decode: of one step) by cause."""

    phase: str
    compute_j: float
    dram_j: float
    active_j: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Confidence:
    """How well a phase is known: 80 % of measured / predicted on rows whose chip or model family the fit did not see. `rows` is
    0 where no measurement backs the interval."""

    phase: str
    stratum: str
    low: float
    high: float
    rows: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Sensitive:
    """1 % more of a figure of the chip makes the request `elasticity` per cent faster."""

    figure: str
    value: float
    elasticity: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ChipFigure:
    """A figure of the chip that the answer rests on, as stated, with its source."""

    path: str
    value: str
    unit: str
    kind: str
    source: str


@dataclass(frozen=True, kw_only=True)
class Dossier:
    """`prediction` is an `orchard.prediction/1` mapping, with the breakdown where it is known. Parts that a record of an earlier
    prediction cannot give are empty, and `notes` say so. `peak_ops_per_s` and `bytes_per_s` are 0 where not known."""

    prediction: Mapping[str, Any]
    kernels: Mapping[str, tuple[KernelShare, ...]]
    command: str
    peak_ops_per_s: float = 0.0
    bytes_per_s: float = 0.0
    timelines: tuple[Timeline, ...] = ()
    memory: MemoryCurve | None = None
    energy: tuple[EnergyParts, ...] = ()
    confidence: tuple[Confidence, ...] = ()
    sensitive: tuple[Sensitive, ...] = ()
    figures: tuple[ChipFigure, ...] = ()
    versions: Mapping[str, str]
    notes: tuple[str, ...] = ()


def dossier(request: Request) -> Dossier:
    """Everything about a request. Raises an OrchardError for what the user must correct."""
    prediction = answer(request)
    plan = make_plan(run_request(request))
    soc = chip_of(request)
    hw = HardwareArrays.of(soc)
    sensitive, note = _sensitive(request)
    return Dossier(
        prediction=prediction.to_dict(breakdown=True),
        kernels={name: phase.kernels for name, phase in prediction.phases.items()},
        command=predict_command(request), peak_ops_per_s=_peak(plan, hw),
        bytes_per_s=float(hw["dram.bandwidth"]), timelines=tuple(_timelines(plan, hw)),
        memory=_memory(prediction, plan), energy=tuple(_energy(prediction, plan, hw)),
        confidence=tuple(_confidence(plan)), sensitive=sensitive, figures=tuple(_figures(soc, plan.profile.engine)),
        versions=versions(), notes=(*_approximations(prediction), *note),
    )  # fmt: skip


def dossier_of_record(record: Mapping[str, Any]) -> Dossier:
    """What an `orchard.prediction/1` mapping tells by itself."""
    names = list(KernelShare.__slots__)
    kernels = {
        phase: tuple(KernelShare(**{n: k[n] for n in names}) for k in found.get("breakdown", ()))
        for phase, found in record["phases"].items()
    }
    missing = (
        "made from a stored prediction: timeline, memory over time, energy by cause and sensitivities need the model"
    )
    return Dossier(
        prediction=record, kernels=kernels, command="", versions=versions(),
        notes=(missing, *(() if any(kernels.values()) else ("without --breakdown the record has no kernels",))),
    )  # fmt: skip


def versions() -> dict[str, str]:
    """Of what made the report."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        own = version("orchard")
    except PackageNotFoundError:
        own = "source"
    return {"orchard": own, "python": platform.python_version(), "numpy": np.__version__}


def _peak(plan: Plan, hw: HardwareArrays) -> float:
    """The highest peak rate that the first call of any phase may use on the engine."""
    found = [
        float(np.max(peak_ops_per_s(plan.table_of(name).evaluate(calls[0].bindings), hw, plan.profile.engine)))
        for name, calls in plan.phases.items()
    ]
    return max(found)


def _timelines(plan: Plan, hw: HardwareArrays) -> Iterator[Timeline]:
    programs = Programs(plan, hw, plan.model.name)
    for phase in plan.phases:
        call, cost = programs.calls(phase)[-1], plan.phases[phase][-1]
        program = call.program
        parts = np.asarray(program.parts_ps) / PS
        ends = np.asarray(program.ends_ps) / PS
        raw = [
            Slice(
                label=program.labels[i] if program.labels else "op", start_s=float(ends[i] - program.work_ps[i] / PS),
                seconds=float(program.work_ps[i] / PS), cause=CAUSES[int(np.argmax(parts[:, i]))],
                dram_bytes=float(program.dram_bytes[i]),
            )
            for i in range(len(program))
        ]  # fmt: skip
        yield Timeline(
            phase=phase, engine=plan.profile.engine, sizes=dict(cost.bindings), host_s=call.host_ps / PS,
            slices=tuple(_merged(raw)), launches=len(raw),
        )  # fmt: skip


def _merged(slices: Sequence[Slice]) -> Iterator[Slice]:
    """At most about MOST_SLICES pieces: neighbours are joined until a piece is long enough to be seen."""
    shortest = sum(s.seconds for s in slices) / MOST_SLICES
    held: list[Slice] = []
    for s in slices:
        held.append(s)
        if sum(h.seconds for h in held) >= shortest:
            yield _joined(held)
            held = []
    if held:
        yield _joined(held)


def _joined(held: Sequence[Slice]) -> Slice:
    if len(held) == 1:
        return held[0]
    by_cause = {c: sum(h.seconds for h in held if h.cause == c) for c in CAUSES}
    return Slice(
        label=f"{held[0].label} to {held[-1].label} ({len(held)} ops)", start_s=held[0].start_s,
        seconds=sum(h.seconds for h in held), cause=max(by_cause, key=lambda c: by_cause[c]),
        dram_bytes=sum(h.dram_bytes for h in held),
    )  # fmt: skip


def _memory(p: Prediction, plan: Plan) -> MemoryCurve | None:
    if plan.model.family == "decoder":
        return _memory_of_tokens(p, plan)
    phase = max(plan.phases, key=lambda name: p.phases[name].latency_s)
    alive = list(live_bytes(plan.graph_of(phase), plan.phases[phase][-1].bindings))
    step = max(1, math.ceil(len(alive) / MOST_MEMORY_POINTS))
    shown = [max(alive[i : i + step]) for i in range(0, len(alive), step)]
    return MemoryCurve(
        axis=f"op of {phase}, in program order", at=tuple(float(i * step) for i in range(len(shown))),
        weights=(float(p.memory.weights),) * len(shown), cache=(float(p.memory.kv_cache),) * len(shown),
        activations=tuple(shown), limit=float(p.memory.limit),
    )  # fmt: skip


def _memory_of_tokens(p: Prediction, plan: Plan) -> MemoryCurve:
    """Over the seconds of a request: the cache grows with every token, activations are those of a pass."""
    request, points = p.request, []
    clock, filled = 0.0, request.depth
    for name, tokens in (("prefill", request.prompt), ("decode", request.generate)):
        if name not in plan.phases:
            continue
        phase = p.phases[name]
        seconds = phase.latency_s * (phase.tokens if name == "decode" else 1)
        graph = plan.graph_of(name)
        peak = max(live_bytes(graph, plan.phases[name][-1].bindings), default=0.0)
        for i in range(9):
            sizes = {**plan.phases[name][-1].bindings, "S": max(1, filled + round(tokens * i / 8))}
            points.append((clock + seconds * i / 8, state_bytes(graph, sizes), peak))
        clock, filled = clock + seconds, filled + tokens
    return MemoryCurve(
        axis="seconds of the request", at=tuple(t for t, _, _ in points),
        weights=(float(p.memory.weights),) * len(points), cache=tuple(c for _, c, _ in points),
        activations=tuple(a for _, _, a in points), limit=float(p.memory.limit),
    )  # fmt: skip


def _energy(p: Prediction, plan: Plan, hw: HardwareArrays) -> Iterator[EnergyParts]:
    low_bits = bool(plan.profile.rules.get("int8_products")) and stored_in_low_bits(plan.table)
    for name, phase in p.phases.items():
        terms = energy_terms(
            plan.profile.engine, ops=phase.ops, dram_bytes=phase.dram_bytes, seconds=phase.latency_s, hw=hw,
            low_bits=low_bits,
        )  # fmt: skip
        total = sum(float(t) for t in terms.values())
        scale = phase.energy_j / total if total else 0.0
        yield EnergyParts(
            phase=name, compute_j=float(terms["compute"]) * scale, dram_j=float(terms["dram"]) * scale,
            active_j=float(terms["active"]) * scale,
        )  # fmt: skip


def _confidence(plan: Plan) -> Iterator[Confidence]:
    for phase, stratum in plan.strata.items():
        error = plan.profile.errors.get(stratum)
        known = error or DEFAULT_ERROR
        yield Confidence(
            phase=phase,
            stratum=stratum,
            low=math.exp(known.low),
            high=math.exp(known.high),
            rows=error.rows if error else 0,
        )


def _sensitive(request: Request) -> tuple[tuple[Sensitive, ...], tuple[str, ...]]:
    from orchard.studies.explore.sensitivity import sensitivity
    from orchard.studies.explore.study import Workload

    workload = Workload(name="w0", request=request, weight=1.0)
    try:
        found = sensitivity(request.chip, (workload,), overrides=request.overrides)
    except OrchardError as error:
        return (), (f"no sensitivities: {error}",)
    return tuple(_plain(e) for e in found.elasticities if not e.derived)[:MOST_FIGURES], ()


def _plain(e: Elasticity) -> Sensitive:
    return Sensitive(figure=e.figure, value=e.value, elasticity=e.basket)


def _figures(soc: SoC, engine: str) -> Iterator[ChipFigure]:
    """The known figures of the engine and the memory, with sources."""
    wanted = (*DEVICE_PREFIXES[engine], "dram.", "slc.")
    titles = {name: s.title for name, s in sources().items()}
    for f in soc.known_figures():
        if f.path.startswith(wanted) and f.value is not None:
            value = f"{f.value:,.6g}" if isinstance(f.value, int | float) else str(f.value)
            yield _figure(f, value, titles)


def _figure(f: Figure, value: str, titles: Mapping[str, str]) -> ChipFigure:
    source = f.source or ""
    return ChipFigure(path=f.path, value=value, unit=f.unit, kind=f.kind or "", source=titles.get(source, source))


def _approximations(p: Prediction) -> Iterator[str]:
    if p.techniques:
        yield "techniques that change the run (drafts, offload, caches of features) are in the times, not in the timeline"
    if p.request.fidelity == "simulation":
        yield "the timeline shows the estimate of one pass; the times come from the simulator"
