"""An exploration's run as a document: the Pareto front, the designs on it, and what was asked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from orchard.report.explore import knob_text
from orchard.report.paper.content import made_by
from orchard.report.paper.document import Cell, Column, Document, Dot, Fact, Figure, Line, Scatter, Section, Table
from orchard.studies.explore.metrics import metric
from orchard.studies.explore.runs import RunFront, read_front
from orchard.studies.explore.space import Knob
from orchard.studies.explore.study import Study

MOST_BEHIND = 1500
MOST_DESIGNS = 60
DIMENSIONS = {"s": "s", "J": "j", "B": "bytes"}
"""Dimensions of metrics by their unit; others are plain numbers with the unit in the title."""


def run_document(folder: Path, versions: Mapping[str, str]) -> Document:
    """The report of a finished run. Raises StudyError where the folder holds none."""
    found = read_front(folder)
    study, manifest = found.study, found.manifest
    best = [f"{o.text}: {_best(found, i)}" for i, o in enumerate(study.objectives)]
    return Document(
        title=f"Exploration: {study.name}",
        subtitle=f"designs around {study.chip}; {study.method}, {manifest['designs']:,} designs, seed {study.seed}",
        summary=(
            f"{len(found.front):,} designs are on the front: no other design of the run is better in every objective.",
            "Best of each objective: " + "; ".join(best) + ".",
        ),
        facts=(
            Fact("Designs", f"{manifest['designs']:,}", study.method),
            Fact("On the front", f"{len(found.front):,}", "not dominated"),
            Fact("Objectives", str(len(study.objectives)), ", ".join(o.text for o in study.objectives)),
            Fact("State", str(manifest["state"]), "of the run"),
        ),
        sections=(*_fronts(found), _designs(found), _asked(found, versions)), made_by=made_by(versions),
    )  # fmt: skip


def _dimension(study: Study, name: str) -> str:
    known = metric(name, [w.name for w in study.workloads])
    return DIMENSIONS.get("" if known is None else known.unit, "number")


def _title(study: Study, name: str) -> str:
    known = metric(name, [w.name for w in study.workloads])
    unit = "" if known is None or _dimension(study, name) != "number" else known.unit
    return f"{name} ({unit})" if unit and unit not in ("count", "fraction") else name


def _best(found: RunFront, objective: int) -> str:
    name = found.study.objectives[objective].metric
    values = np.asarray(found.rows[name], dtype=float)[found.front]
    value = values.max() if found.study.objectives[objective].larger else values.min()
    return f"{value:.4g}"


def _fronts(found: RunFront) -> Iterator[Section]:
    """The first objective against each other one."""
    objectives = found.study.objectives
    if len(objectives) < 2:
        return
    first = objectives[0].metric
    figures = tuple(_front(found, first, other.metric) for other in objectives[1:])
    yield Section(id="front", title="Pareto front", items=figures)


def _front(found: RunFront, x: str, y: str) -> Figure:
    study, rows = found.study, found.rows
    xs, ys = (np.asarray(rows[n], dtype=float) for n in (x, y))
    on = set(found.front.tolist())
    others = [i for i in range(len(xs)) if i not in on and np.isfinite(xs[i]) and np.isfinite(ys[i])]
    step = max(1, len(others) // MOST_BEHIND)
    index = np.asarray(rows["index"])
    dots = [Dot(float(xs[i]), float(ys[i]), "other designs", f"design {int(index[i])}", 0.0) for i in others[::step]]
    dots += [Dot(float(xs[i]), float(ys[i]), "front", f"design {int(index[i])}", 0.04) for i in found.front]
    ordered = sorted((float(xs[i]), float(ys[i])) for i in found.front)
    line = Line("", tuple(ordered), kind="front")
    data = Table(
        title=f"Front: {x} and {y}",
        columns=(Column("design"), Column(x, _dimension(study, x)), Column(y, _dimension(study, y))),
        rows=tuple((f"{int(index[i])}", float(xs[i]), float(ys[i])) for i in found.front),
    )
    return Figure(
        id=f"fig-{x}-{y}".replace(".", "-").replace("_", "-"), title=f"{y} against {x}", data=data,
        about=f"{len(found.front)} designs on the front of all objectives, before {len(dots) - len(found.front)} others.",
        chart=Scatter(
            dots=tuple(dots), lines=(line,) if len(ordered) > 1 and len(study.objectives) == 2 else (),
            x_title=_title(study, x), y_title=_title(study, y), x_dimension=_dimension(study, x),
            y_dimension=_dimension(study, y),
            log=False,
        ),
    )  # fmt: skip


def _designs(found: RunFront) -> Section:
    study = found.study
    names = [k.name for k in study.space.knobs]
    metrics = [o.metric for o in study.objectives]
    ordered = sorted(found.front.tolist(), key=lambda i: float(found.rows[metrics[0]][i]))
    rows: list[tuple[Cell, ...]] = []
    for i in ordered[:MOST_DESIGNS]:
        knobs = tuple(_shown(n, found.rows[n][i]) for n in names)
        rows.append((f"{int(found.rows['index'][i])}", *knobs, *(float(found.rows[m][i]) for m in metrics)))
    hidden = len(ordered) - MOST_DESIGNS
    table = Table(
        title="Designs on the front", rows=tuple(rows),
        columns=(
            Column("design"), *(Column(n) for n in names),
            *(Column(m, _dimension(study, m)) for m in metrics),
        ),
        note=f"{hidden:,} more designs: `orchard runs export`." if hidden > 0 else "",
    )  # fmt: skip
    return Section(id="designs", title="Designs", items=(table,))


def _shown(name: str, value: object) -> str:
    """A knob's value in its usual unit, without its name."""
    return knob_text(name, value).removeprefix(f"{name} ")


def _range(knob: Knob) -> str:
    if knob.values:
        return ", ".join(_shown(knob.name, v) for v in knob.values)
    return f"{_shown(knob.name, knob.low)} to {_shown(knob.name, knob.high)}{', by factors' if knob.log else ''}"


def _asked(found: RunFront, versions: Mapping[str, str]) -> Section:
    study, manifest = found.study, found.manifest
    rows: list[tuple[Cell, ...]] = [
        ("chip", study.chip), ("changes of the chip", ", ".join(study.overrides) or "none"),
        *((f"knob {k.name}", _range(k)) for k in study.space.knobs),
        *((f"workload {w.name}", f"{w.request.model}, weight {w.weight:g}") for w in study.workloads),
        *(("objective", o.text) for o in study.objectives), *(("constraint", c.text) for c in study.constraints),
        ("made", str(manifest["created"])), ("digest of the result", str(manifest.get("digest") or "none yet")),
    ]  # fmt: skip
    made = {**manifest.get("versions", {})}
    tables = (
        Table(title="What was asked", columns=(Column("input"), Column("value")), rows=tuple(rows)),
        Table(
            title="Versions", columns=(Column("program"), Column("of the run"), Column("of this report")),
            rows=tuple((n, str(made.get(n, "–")), str(versions.get(n, "–"))) for n in dict.fromkeys([*made, *versions])),
        ),
    )  # fmt: skip
    return Section(id="inputs", title="Inputs and versions", items=tables)
