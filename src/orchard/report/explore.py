"""An exploration as text and as a record."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from rich.console import RenderableType
from rich.text import Text

from orchard.hw import FIGURES
from orchard.report.layout import heading, number, percent, stacked, table
from orchard.studies.explore.metrics import metric
from orchard.studies.explore.run import Outcome
from orchard.studies.explore.runs import Comparison, RunSummary
from orchard.studies.explore.study import Study
from orchard.units import format_joules, format_seconds, unit_to_si

_PLAIN_UNITS = ("count", "fraction", "elements")
SCHEMA = "orchard.exploration/1"
RUNS_SCHEMA = "orchard.runs/1"
COMPARISON_SCHEMA = "orchard.run-comparison/1"


_KINDS = {"estimate": "estimate", "mapped": "estimate with every product at its best mapping"}


def exploration_record(outcome: Outcome) -> dict[str, Any]:
    study = outcome.study
    return {
        "schema": SCHEMA,
        "name": study.name,
        "chip": study.chip,
        "kind": "estimate",
        "fidelity": study.fidelity,
        "folder": str(outcome.folder),
        "method": study.method,
        "seed": study.seed,
        "objectives": [o.text for o in study.objectives],
        "constraints": [c.text for c in study.constraints],
        "evaluated": outcome.evaluated,
        "feasible": outcome.feasible,
        "seconds": outcome.seconds,
        "hypervolume": None if np.isnan(outcome.hypervolume) else outcome.hypervolume,
        "reference": list(outcome.reference),
        "digest": outcome.digest,
        "knee": outcome.knee if outcome.knee >= 0 else None,
        "front": [_design(outcome, row) for row in range(_size(outcome))],
        "warnings": list(outcome.warnings),
    }


def _size(outcome: Outcome) -> int:
    return len(outcome.front["index"]) if outcome.front else 0


def _design(outcome: Outcome, row: int) -> dict[str, Any]:
    names = [k.name for k in outcome.study.space.knobs]
    hidden = {"index", "feasible", "broken", *names}
    shares = outcome.shares[row] if row < len(outcome.shares) else {}
    return {
        "index": int(outcome.front["index"][row]),
        "knobs": {name: _plain(outcome.front[name][row]) for name in names},
        "metrics": {
            name: _plain(column[row])
            for name, column in outcome.front.items()
            if name not in hidden and not name.startswith("_") and _plain(column[row]) is not None
        },
        "bound_by": {phase: dict(parts) for phase, parts in shares.items()},
    }


def _plain(value: Any) -> Any:
    found = value.item() if isinstance(value, np.generic) else value
    return None if isinstance(found, float) and not np.isfinite(found) else found


def render_exploration(outcome: Outcome, *, points: int = 8) -> RenderableType:
    """Headline, then front points along the first objective: objectives, knobs, why."""
    study = outcome.study
    size = _size(outcome)
    rate = outcome.evaluated / outcome.seconds if outcome.seconds else 0.0
    lines = [
        heading(f"{study.name}  {study.chip}  {study.method}, {_KINDS[study.fidelity]}"),
        Text(f"designs  {outcome.evaluated:,} evaluated, {outcome.feasible:,} feasible, {number(rate)} per second"),
        Text(f"goal     {', '.join(o.text for o in study.objectives)}"),
    ]
    if study.constraints:
        lines.append(Text(f"limits   {', '.join(c.text for c in study.constraints)}"))
    if not np.isnan(outcome.hypervolume) and size:
        lines.append(Text(f"front    {size:,} designs, hypervolume {number(outcome.hypervolume)} of its box"))
    if not size:
        lines.append(Text("front    empty: no design keeps every limit and fits in memory"))
        lines.append(Text("         (in a script: --fail-if 'feasible<1' ends with exit code 4)"))
    lines.append(Text(f"stored   {outcome.folder}"))
    for row in chosen_rows(outcome, points):
        lines += ["", *_point(outcome, row)]  # type: ignore[list-item]
    if size > points:
        lines += [Text(""), Text(f"{size - points:,} more on the front: --points {size}, or --json")]
    return stacked(*(Text(line) if isinstance(line, str) else line for line in lines))


def chosen_rows(outcome: Outcome, points: int) -> list[int]:
    """Rows spread evenly along the first objective, the ends and the knee among them."""
    size = _size(outcome)
    if size <= points:
        rows = set(range(size))
    else:
        spread = np.linspace(0, size - 1, max(points, 2)).round().astype(int)
        order = np.argsort(outcome.front[outcome.study.objectives[0].metric], kind="stable")
        rows = {int(order[i]) for i in spread[:points]}
        if outcome.knee not in rows and points > 2:
            rows.discard(int(order[spread[len(spread) // 2]]))
            rows.add(outcome.knee)
    return sorted(rows, key=lambda r: (float(outcome.front[outcome.study.objectives[0].metric][r]), r))


def _point(outcome: Outcome, row: int) -> list[Text]:
    study = outcome.study
    goals = "  ".join(f"{o.metric} {_measure(study, o.metric, outcome.front[o.metric][row])}" for o in study.objectives)
    lines = [Text(goals + ("   <- knee" if row == outcome.knee else ""), style="bold")]
    lines += _wrapped([knob_text(k.name, outcome.front[k.name][row]) for k in study.space.knobs])
    if row < len(outcome.shares):
        why = []
        for phase, parts in outcome.shares[row].items():
            cause = max(parts, key=lambda c: parts[c])
            why.append(f"{phase} {cause} {percent(parts[cause])}")
        lines += _wrapped(why, lead="bound by ")
    return lines


_FORMATS = {"s": format_seconds, "J": format_joules}


def _measure(study: Study, name: str, value: float) -> str:
    known = metric(name, [w.name for w in study.workloads])
    if known is not None and known.unit in _FORMATS:
        return _FORMATS[known.unit](float(value))
    return f"{number(float(value))} {known.unit if known else ''}".strip()


def knob_text(name: str, value: Any) -> str:
    """ "gpu.clock 1.9 GHz": figures in their usual unit, options as written."""
    if name not in FIGURES:
        return f"{name} {_plain(value)}"
    unit = FIGURES[name].unit
    shown = f"{float(value) / unit_to_si(unit)[0]:,.4g}" if unit not in _PLAIN_UNITS else f"{float(value):,.4g}"
    return f"{name} {shown}" + ("" if unit in _PLAIN_UNITS else f" {unit}")


def _wrapped(pieces: Sequence[str], lead: str = "", width: int = 76) -> list[Text]:
    lines = [lead]
    for piece in pieces:
        joined = f"{lines[-1]}{', ' if lines[-1] not in ('', lead) else ''}{piece}"
        if len(joined) > width and lines[-1] not in ("", lead):
            lines[-1] += ","
            lines.append(" " * len(lead) + piece)
        else:
            lines[-1] = joined
    return [Text("  " + line) for line in lines]


def runs_record(found: Sequence[RunSummary]) -> dict[str, Any]:
    return {"schema": RUNS_SCHEMA, "runs": [_run(r) for r in found]}


def _run(run: RunSummary) -> dict[str, Any]:
    return {
        "folder": str(run.folder), "name": run.name, "state": run.state, "created": run.created, "chip": run.chip,
        "method": run.method, "designs": run.designs, "parts": run.parts, "front_size": run.front_size,
    }  # fmt: skip


def render_runs(found: Sequence[RunSummary]) -> RenderableType:
    rows = [(str(r.folder), r.state, r.method, f"{r.designs:,}", r.created[:16].replace("T", " ")) for r in found]
    return table(("run", "state", "method", "designs", "created"), rows, left=(0, 1, 2))


def comparison_record(found: Comparison) -> dict[str, Any]:
    return {
        "schema": COMPARISON_SCHEMA, "first": str(found.first), "second": str(found.second),
        "same_study": found.same_study, "same_result": found.same_result, "objectives": list(found.objectives),
        "best": {name: list(pair) for name, pair in found.best.items()},
        "covered": list(found.covered), "hypervolume": list(found.hypervolume),
    }  # fmt: skip


def render_comparison(found: Comparison) -> RenderableType:
    rows = [(name, number(a), number(b), f"{b / a:.3f}" if a else "") for name, (a, b) in found.best.items()]
    verdict = "the same numbers, bit for bit" if found.same_result else "different numbers"
    study = "the same study" if found.same_study else "different studies"
    return stacked(
        Text(f"first   {found.first}"),
        Text(f"second  {found.second}"),
        Text(f"{study}, {verdict}"),
        Text(f"covered by the other: {percent(found.covered[0])} of the first front, {percent(found.covered[1])} of the second"),
        Text(f"hypervolume in one box: {number(found.hypervolume[0])} and {number(found.hypervolume[1])}"),
        table(("best", "first", "second", "ratio"), rows),
    )
