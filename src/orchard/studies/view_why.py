"""What each number of a prediction is: its kind, how it comes about, and where it comes from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from orchard.cost.energy import SPREAD
from orchard.hw import SoC, sources
from orchard.studies.predict import Phase, Plan, Prediction


@dataclass(frozen=True, slots=True, kw_only=True)
class Why:
    """kind: bound, estimate, simulation, measurement, count (exact), or a chip figure's own kind (vendor, measured, ...)."""

    kind: str
    text: str
    source: str


def reasons(prediction: Prediction, plan: Plan) -> Mapping[str, Why]:
    """By dotted name: `<phase>.latency_s`, `memory.weights_bytes`, `ttft_s`, and the chip figures a roofline rests on."""
    found = dict(_memory(prediction, plan))
    for name, phase in prediction.phases.items():
        found.update(_phase(prediction, plan, name, phase))
    if prediction.ttft_s is not None:
        found["ttft_s"] = Why(
            kind=prediction.request.fidelity,
            text="Time from the request to the first token on an idle machine: the whole prompt phase.",
            source=_profile(plan),
        )
    engine = plan.profile.engine
    for path in ("dram.bandwidth", "dram.capacity", "slc.size", f"{engine}.cores", f"{engine}.clock"):
        if path in prediction.soc.figures and prediction.soc.figure(path).known:
            found[path] = figure_why(prediction.soc, path)
    return found


def figure_why(soc: SoC, path: str) -> Why:
    """A figure of a chip with its kind and source as the catalogue has them."""
    figure = soc.figure(path)
    known = sources().get(figure.source or "")
    title = figure.source or "not stated"
    if known is not None:
        title = f"{known.title} ({known.url})" if known.url else known.title
    note = f" {figure.note}." if figure.note else ""
    return Why(kind=figure.kind or "not known", text=f"{path} = {figure.text}.{note}", source=title)


def _profile(plan: Plan) -> str:
    profile = plan.profile
    rows = f"fitted to {len(profile.rows)} measurements" if profile.rows else "not fitted to measurements of its own"
    return f"runtime profile {profile.name}, {rows}; builds {profile.version}"


def _interval(plan: Plan, name: str) -> str:
    error = plan.profile.errors.get(plan.strata.get(name, ""))
    if error is None:
        return "a judgement (x0.6 to x1.6): no measurement of this kind backs it"
    return f"80 % of {error.rows} left-out measurements ({plan.strata[name]}) lie inside"


def _phase(prediction: Prediction, plan: Plan, name: str, phase: Phase) -> Iterator[tuple[str, Why]]:
    kind, profile = prediction.request.fidelity, _profile(plan)
    what = "one step (one token of each sequence)" if name == "decode" else "the whole phase"
    cause = max(phase.bound_by, key=lambda c: phase.bound_by[c])
    time = f"Time of {what}; {phase.bound_by[cause]:.0%} of it is {cause}."
    yield f"{name}.latency_s", Why(kind=kind, text=time, source=profile)
    interval = f"80 % interval of the time: {_interval(plan, name)}."
    yield f"{name}.interval_s", Why(kind=kind, text=interval, source=profile)
    rate = "Tokens (or passes) per second, summed over the batch: what the phase makes over its time."
    yield f"{name}.tokens_per_s", Why(kind=kind, text=rate, source=profile)
    bound = "No run of the phase can be faster: all operations at the engine's peak, every compulsory byte once."
    yield f"{name}.bound_s", Why(kind="bound", text=bound, source=f"figures of {prediction.soc.id}, counts of the graph")
    low, high = SPREAD
    energy = f"Energy per operation, per DRAM byte and per second; its 80 % interval is x{low:g} to x{high:g}."
    yield f"{name}.energy_j", Why(kind="estimate", text=energy, source="coefficients from the literature, docs/method.md")
    counted = "counted from the graph by the rules of each op"
    yield f"{name}.ops", Why(kind="count", text="Operations; a multiply-accumulate is 2.", source=counted)
    moved = "Bytes to and from DRAM when nothing stays on chip between kernels."
    if kind == "simulation":
        moved = "Bytes that DRAM served in the simulation."
    yield f"{name}.dram_bytes", Why(kind="count" if kind != "simulation" else kind, text=moved, source=counted)
    shares = "Shares of the time: arithmetic, memory traffic, waiting for launches. They sum to 1."
    yield f"{name}.bound_by", Why(kind=kind, text=shares, source=profile)


def _memory(prediction: Prediction, plan: Plan) -> Iterator[tuple[str, Why]]:
    counted = "counted from the graph"
    yield "model.params", Why(kind="count", text="All weight elements, shared ones once.", source=prediction.model.source)
    weights = f"Weights in {prediction.weights}, scales and tables included."
    yield "memory.weights_bytes", Why(kind="count", text=weights, source=counted)
    cache = f"Keys and values in {prediction.request.kv} at the longest context of the request."
    yield "memory.kv_cache_bytes", Why(kind="count", text=cache, source=counted)
    peak = "Most activation bytes alive at once in program order; views and fused attention scores need none."
    yield "memory.activation_peak_bytes", Why(kind="estimate", text=peak, source=counted)
    yield "memory.total_bytes", Why(kind="estimate", text="Weights, cache and activations together.", source=counted)
    limit = f"What one process may use on {plan.profile.engine} by default."
    path = "dram.gpu_limit" if plan.profile.engine == "gpu" else "dram.capacity"
    yield "memory.limit_bytes", Why(kind="estimate", text=limit, source=figure_why(prediction.soc, path).source)
