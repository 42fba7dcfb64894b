"""Sensitivities and single changes as text and as records."""

from __future__ import annotations

from typing import Any

from rich.console import RenderableType
from rich.text import Text

from orchard.report.explore import knob_text
from orchard.report.layout import heading, indented, number, stacked, table
from orchard.studies.explore.sensitivity import Sensitivity
from orchard.studies.explore.study import Workload
from orchard.studies.explore.whatif import State, WhatIf
from orchard.units import format_seconds

SENSITIVITY_SCHEMA = "orchard.sensitivity/1"
WHATIF_SCHEMA = "orchard.what-if/1"


def _labels(workloads: tuple[Workload, ...]) -> dict[str, str]:
    """A workload given as a model is shown by its model."""
    named = {w.name: w.name if not _is_generated(w.name) else w.request.model for w in workloads}
    return named if len(set(named.values())) == len(named) else {w.name: w.name for w in workloads}


def _is_generated(name: str) -> bool:
    return name.startswith("w") and name[1:].isdigit()


def sensitivity_record(found: Sensitivity) -> dict[str, Any]:
    labels = _labels(found.workloads)
    return {
        "schema": SENSITIVITY_SCHEMA,
        "chip": found.chip,
        "kind": "estimate",
        "latency_s": {labels[name]: value for name, value in found.latency_s.items()},
        "elasticities": [
            {
                "figure": e.figure, "value": e.value, "derived": e.derived, "basket": e.basket, "below": e.below,
                "above": e.above, "by_workload": {labels[n]: v for n, v in e.by_workload.items()},
            }
            for e in found.elasticities
        ],
        "samples": found.samples,
        "sobol": [
            {
                "figure": s.figure, "low": s.low, "high": s.high, "first": s.first, "first_interval": s.first_interval,
                "total": s.total, "total_interval": s.total_interval,
            }
            for s in found.sobol
        ],
    }  # fmt: skip


def render_sensitivity(found: Sensitivity) -> RenderableType:
    """1 % more of a figure gives so many % more speed."""
    labels = _labels(found.workloads)
    several = len(labels) > 1
    shown = list(labels)[:4] if several else []
    rows = [
        (
            e.figure + (" *" if e.derived else "") + (" ~" if e.kinked else ""),
            _value(e.figure, e.value),
            _slope(e.basket), *(_slope(e.by_workload[name]) for name in shown),
        )
        for e in found.elasticities
    ]  # fmt: skip
    head = ("figure", "now", "basket" if several else "speed", *(labels[name][:12] for name in shown))
    notes = ["1 % more of a figure gives so many % more speed. * follows from other figures."]
    if any(e.kinked for e in found.elasticities):
        notes.append("~ the slope differs on the two sides of today's value.")
    parts: list[RenderableType] = [
        heading(f"{found.chip}  local elasticities, estimate"), indented(table(head, rows)), *(Text(n) for n in notes)
    ]  # fmt: skip
    if found.sobol:
        sobol = [
            (s.figure, f"{s.first:.3f} ± {s.first_interval:.3f}", f"{s.total:.3f} ± {s.total_interval:.3f}")
            for s in found.sobol
        ]  # fmt: skip
        parts += [
            Text(""), heading(f"Sobol indices of ln latency, each figure from {_span(found)} of today's, N = {found.samples}"),
            indented(table(("figure", "alone", "with interactions"), sobol)),
        ]  # fmt: skip
    return stacked(*parts)


def _span(found: Sensitivity) -> str:
    first = found.sobol[0]
    own = next(e.value for e in found.elasticities if e.figure == first.figure)
    return f"{first.low / own:.3g} to {first.high / own:.3g}"


def _slope(value: float) -> str:
    return "0" if abs(value) < 5e-4 else f"{value:+.3f}"


def _value(figure: str, value: float) -> str:
    return knob_text(figure, value).removeprefix(figure).strip()


def what_if_record(found: WhatIf, workloads: tuple[Workload, ...]) -> dict[str, Any]:
    labels = _labels(workloads)
    return {
        "schema": WHATIF_SCHEMA, "chip": found.chip, "kind": "estimate", "before": _state(found.before, labels),
        "alone": [_state(s, labels) for s in found.alone], "after": _state(found.after, labels),
        "synergy": found.synergy,
    }  # fmt: skip


def _state(state: State, labels: dict[str, str]) -> dict[str, Any]:
    return {
        "label": state.label,
        "terms": {_relabel(phase, labels): dict(parts) for phase, parts in state.terms.items()},
        "latency_s": {labels[n]: v for n, v in state.latency_s.items()},
        "energy_j": {labels[n]: v for n, v in state.energy_j.items()},
        "area_mm2": state.area_mm2,
        "price_usd": state.price_usd,
    }


def _relabel(phase: str, labels: dict[str, str]) -> str:
    name, _, rest = phase.partition(".")
    return f"{labels[name]}.{rest}"


def render_what_if(found: WhatIf, workloads: tuple[Workload, ...]) -> RenderableType:
    """Requests before and after, then where the time of each phase went."""
    labels = _labels(workloads)
    rows = [_summary(found.before, s) for s in (found.before, *found.alone, found.after)]
    parts: list[RenderableType] = [
        heading(f"{found.chip}  what if, estimate"),
        indented(table(("change", "latency", "speed", "energy", "area mm2", "USD"), rows)),
    ]
    if found.alone:
        parts.append(Text(f"together {found.synergy:.3f} x the product of each alone"))
    terms = []
    for phase, before in found.before.terms.items():
        after = found.after.terms[phase]
        cells = [f"{format_seconds(before[t])} > {format_seconds(after[t])}" for t in before]
        terms.append((_relabel(phase, labels)[:26], *cells))
    head = ("phase", *next(iter(found.before.terms.values())))
    return stacked(*parts, Text(""), indented(table(head, terms)))


def _summary(before: State, state: State) -> tuple[str, ...]:
    energy = sum(state.energy_j.values())
    return (
        state.label if len(state.label) <= 30 else "all of these",
        format_seconds(state.basket_s),
        f"{before.basket_s / state.basket_s:.3f} x",
        f"{number(energy)} J",
        "" if state.area_mm2 is None else number(state.area_mm2),
        "" if state.price_usd is None else number(state.price_usd),
    )
