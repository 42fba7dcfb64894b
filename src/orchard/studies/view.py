"""One prediction with what its pictures need: rooflines, the timeline in program order, memory over a pass and over the context.

The numbers are those of `answer`; this module only lays the same counts and times out for drawing.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, fields
from typing import Any

from orchard.cost.bound import peak_ops_per_s
from orchard.cost.lower import KernelTable, layer_group
from orchard.hw import HardwareArrays
from orchard.studies.memory import activation_curve, state_bytes
from orchard.studies.predict import KernelShare, Phase, Plan, Prediction, answer, make_plan
from orchard.studies.remedies import Remedies, remedies
from orchard.studies.request import Request
from orchard.studies.techniques import run_request
from orchard.studies.view_why import Why, reasons

SCHEMA = "orchard.view/1"
MOST_STEPS = 120
"""Points of the memory curve; each holds the largest value of the ops it stands for."""
CONTEXT_POINTS = 9


@dataclass(frozen=True, slots=True, kw_only=True)
class RooflinePoint:
    """A kernel group: `intensity` ops per DRAM byte and the rate it reaches; `seconds` in the phase."""

    name: str
    intensity: float
    ops_per_s: float
    seconds: float
    bound_by: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Roofline:
    """`peak_ops_per_s` is the engine's highest rate for the phase's formats, `bytes_per_s` the DRAM peak."""

    peak_ops_per_s: float
    bytes_per_s: float
    points: tuple[RooflinePoint, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Slice:
    """A stretch of one phase in program order; layers of one kind are drawn together (`count` launches)."""

    name: str
    kind: str
    count: int
    start_s: float
    seconds: float
    bound_by: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryPass:
    """Activation bytes alive over one pass of a phase's largest call, in program order, `ops` ops in all."""

    ops: int
    activation_bytes: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ContextPoint:
    tokens: int
    cache_bytes: int


@dataclass(frozen=True, kw_only=True)
class View:
    """Everything a page draws for one configuration. Maps are by phase; `context` is empty without a cache."""

    prediction: Prediction
    remedies: Remedies | None
    command: str
    rooflines: Mapping[str, Roofline]
    timelines: Mapping[str, tuple[Slice, ...]]
    passes: Mapping[str, MemoryPass]
    context: tuple[ContextPoint, ...]
    why: Mapping[str, Why]

    def to_dict(self) -> dict[str, Any]:
        """`orchard.view/1`."""
        return {
            "schema": SCHEMA,
            "prediction": prediction_record(self.prediction, self.remedies, breakdown=True),
            "command": self.command,
            "rooflines": {name: asdict(r) for name, r in self.rooflines.items()},
            "timelines": {name: [asdict(s) for s in slices] for name, slices in self.timelines.items()},
            "passes": {name: asdict(p) for name, p in self.passes.items()},
            "context": [asdict(p) for p in self.context],
            "why": {name: asdict(w) for name, w in self.why.items()},
        }


def answered(request: Request) -> tuple[Prediction, Remedies | None]:
    """A prediction, and what would make it fit when it does not."""
    prediction = answer(request)
    return prediction, None if prediction.memory.fits else remedies(prediction)


def prediction_record(prediction: Prediction, remedy: Remedies | None, *, breakdown: bool) -> dict[str, Any]:
    """`orchard.prediction/1` as the command line prints it."""
    record = prediction.to_dict(breakdown=breakdown)
    return record if remedy is None else {**record, "remedies": remedy.to_dict()}


def view(request: Request) -> View:
    """The view of a request. Raises an OrchardError for what the user must correct."""
    prediction, remedy = answered(request)
    plan = make_plan(run_request(request))
    hw = HardwareArrays.of(prediction.soc)
    phases = {name: prediction.phases[name] for name in plan.phases if name in prediction.phases}
    return View(
        prediction=prediction,
        remedies=remedy,
        command=command_line(request),
        rooflines={name: _roofline(plan, phase, hw) for name, phase in phases.items()},
        timelines={name: tuple(_slices(plan.table_of(name), phase)) for name, phase in phases.items()},
        passes={name: _memory_pass(plan, name) for name in phases},
        context=_context(plan, request),
        why=reasons(prediction, plan),
    )


def command_line(request: Request, command: str = "predict") -> str:
    """The command that gives the same numbers: only what differs from the defaults is written."""
    words = ["orchard", command, request.model, "--chip", request.chip]
    flags = {"overrides": "--set", "inputs": "--input", "assume_elementwise": "--assume-elementwise"}
    for field in fields(request):
        value = getattr(request, field.name)
        if field.default is MISSING or value == field.default:
            continue
        flag = flags.get(field.name, f"--{field.name}")
        for each in value if isinstance(value, tuple) else (value,):
            words += [flag, str(each)]
    return shlex.join(words)


def _roofline(plan: Plan, phase: Phase, hw: HardwareArrays) -> Roofline:
    last = plan.phases[phase.name][-1]
    peak = peak_ops_per_s(plan.table_of(phase.name).evaluate(last.bindings), hw, plan.profile.engine)
    points = [_point(k) for k in phase.kernels if k.seconds > 0 and k.bytes > 0 and k.ops > 0]
    return Roofline(peak_ops_per_s=float(peak), bytes_per_s=float(hw["dram.bandwidth"]), points=tuple(points))


def _point(kernel: KernelShare) -> RooflinePoint:
    return RooflinePoint(
        name=_label(kernel), intensity=kernel.ops / kernel.bytes, ops_per_s=kernel.ops / kernel.seconds,
        seconds=kernel.seconds, bound_by=_cause(kernel),
    )  # fmt: skip


def _label(kernel: KernelShare) -> str:
    return kernel.group if kernel.name in ("", kernel.group) else f"{kernel.group}.{kernel.name}"


def _cause(kernel: KernelShare) -> str:
    terms = {"compute": kernel.compute_s, "memory": kernel.memory_s, "dispatch": kernel.dispatch_s}
    return max(terms, key=lambda name: terms[name])


def _slices(table: KernelTable, phase: Phase) -> Iterator[Slice]:
    """Kernels in the order of the program; what is left of the phase is the submission of calls."""
    order: dict[tuple[str, str, str, str], int] = {}
    for index, kernel in enumerate(table.kernels):
        key = (layer_group(kernel.scope), kernel.name.rpartition(".")[2], kernel.kind, kernel.format)
        order.setdefault(key, index)
    start = 0.0
    last = len(order)
    for share in sorted(phase.kernels, key=lambda k: order.get((k.group, k.name, k.kind, k.format), last)):
        if share.seconds > 0:
            yield Slice(
                name=_label(share), kind=share.kind, count=share.count, start_s=start, seconds=share.seconds,
                bound_by=_cause(share),
            )  # fmt: skip
            start += share.seconds
    if phase.kernels and phase.latency_s - start > 1e-9 * phase.latency_s:
        rest = phase.latency_s - start
        yield Slice(name="submission", kind="call", count=1, start_s=start, seconds=rest, bound_by="dispatch")


def _memory_pass(plan: Plan, name: str) -> MemoryPass:
    calls = plan.phases[name]
    largest = max(calls, key=lambda c: c.bindings.get("T", 1) * c.bindings.get("B", 1)).bindings
    curve = activation_curve(plan.graph_of(name), tuple(sorted(largest.items())))
    return MemoryPass(ops=len(curve), activation_bytes=tuple(_thinned(curve)))


def _thinned(curve: Sequence[float]) -> Iterator[int]:
    step = max(1, -(-len(curve) // MOST_STEPS))
    for start in range(0, len(curve), step):
        yield int(max(curve[start : start + step]))


def _context(plan: Plan, request: Request) -> tuple[ContextPoint, ...]:
    """Bytes of the cache from the first token to the last, at evenly spread lengths."""
    if "S" not in plan.graph.symbols or plan.others:
        return ()
    sizes = dict(next(iter(plan.phases.values()))[-1].bindings)
    longest = max(1, request.depth + request.prompt + request.generate)
    lengths = sorted({max(1, round(longest * i / (CONTEXT_POINTS - 1))) for i in range(CONTEXT_POINTS)})
    return tuple(
        ContextPoint(tokens=n, cache_bytes=int(state_bytes(plan.graph, {**sizes, "S": n}))) for n in lengths
    )
