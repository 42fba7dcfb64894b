"""Advice whose gain another study prices: engines op by op (`place`) and changes of the model's code (`lint`).

Both for Core ML only, the runtime that splits a program over engines; llama.cpp and MLX run a whole pass on one.
"""

from __future__ import annotations

from collections.abc import Iterator

from orchard.studies.advice.changes import Effort, Risk
from orchard.studies.advice.commands import predict_command
from orchard.studies.advice.figures import figures_of
from orchard.studies.advice.ratios import spread
from orchard.studies.advice.record import Gain, Recommendation
from orchard.studies.predict import Prediction
from orchard.studies.sources import ImportedModel
from orchard.units import OrchardError, format_seconds
from orchard.workloads import Model

TIME_LIMIT_S = 3.0


def _gain(p: Prediction, before: float, after: float, study: str) -> Gain:
    """The study's own ratio, on the predicted time."""
    now = figures_of(p)["latency"]
    error = spread(study, p.profile.engine)  # no pair is measured: all kinds together
    factor = before / after
    ends = (factor * 2.718281828 ** -error.high, factor * 2.718281828 ** -error.low)
    return Gain(
        figure="latency", before=now, after=now / factor, factor=factor, factor_interval=ends,
        basis=f"ratio of two times of `orchard {study}`; {error.pairs} measured pairs ({error.basis})",
    )  # fmt: skip


def placement(p: Prediction, loaded: ImportedModel | None) -> Iterator[Recommendation]:
    """The best placement over all engines, against the engine that does the work today."""
    if loaded is not None or p.request.apply or p.profile.runtime != "coreml":
        return
    from orchard.studies.place import answer_placement

    try:
        found = answer_placement(
            p.request, objective="latency", engines="cpu,gpu,ane", precision="auto", time_limit_s=TIME_LIMIT_S
        )
    except OrchardError:
        return
    alone = next((a for a in found.alternatives if a.engines == (p.profile.engine,) and a.total_s), None)
    used = sorted({run.engine for phase in found.phases for run in phase.runs})
    if alone is None or alone.total_s is None or used in ([p.profile.engine], []) or found.total_s >= alone.total_s:
        return
    gain = _gain(p, alone.total_s, found.total_s, "place")
    command = predict_command(p.request, "place")
    yield Recommendation(
        kind="placement", title=f"spread the ops over {' and '.join(used)}", gain=gain, figures={"latency": gain.after},
        side_effects=(), risk=Risk.LOW, quality="Precision differs by engine.", effort=Effort.REWRITE,
        reason=(
            f"each op runs where it is fastest, hand-overs counted: {format_seconds(alone.total_s)} on the "
            f"{p.profile.engine} alone, {format_seconds(found.total_s)} spread, both priced op by op"
        ),
        how=(f"{command} shows the segments; build one Core ML model per segment, each with its compute unit",),
        predict=command, priced_by="place", fields={},
    )  # fmt: skip


def rewrites(p: Prediction, loaded: ImportedModel | None) -> Iterator[Recommendation]:
    """The groups of `orchard lint` for the engine in use, the one that saves most."""
    if loaded is not None or p.request.apply or p.profile.engine != "ane":
        return
    from orchard.studies.lint import lint

    request = p.request
    try:
        report = lint(
            request.model, request.chip, target="ane", inputs=request.inputs, assume_elementwise=request.assume_elementwise,
            weights=request.weights, batch=request.batch, prompt=request.prompt,
        )
    except OrchardError:
        return
    # a built-in model has open sizes only because Orchard keeps them as symbols
    groups = [g for g in report.groups if g.rule != "dynamic" or not isinstance(p.model, Model)]
    groups = [g for g in groups if g.gain_s and report.now_s and g.gain_s > 0.01 * report.now_s]
    if not groups or report.now_s is None:
        return
    best = max(groups, key=lambda g: g.gain_s or 0.0)
    gain = _gain(p, report.now_s, report.now_s - (best.gain_s or 0.0), "lint")
    command = predict_command(request, "lint").replace(" --engine ane", "").replace(" --runtime coreml", "")
    yield Recommendation(
        kind="code", title=f"{best.change} ({best.ops} ops, first {best.first})", gain=gain,
        figures={"latency": gain.after}, side_effects=(), risk=Risk.NONE, quality="Exact.", effort=Effort.REWRITE,
        reason=f"{best.reason}: one pass of {format_seconds(report.now_s)} loses {format_seconds(best.gain_s or 0.0)}",
        how=(f"{best.change} in the model's code; {command} lists the ops",), predict=command, priced_by="lint", fields={},
    )  # fmt: skip
