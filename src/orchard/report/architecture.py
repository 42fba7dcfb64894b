"""The history test as text and as a record."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from rich.console import RenderableType
from rich.text import Text

from orchard.report.layout import heading, stacked, table
from orchard.studies.architecture import ArchitectureReport

SCHEMA = "orchard.architecture/1"
_TITLE = {"generation": "next generation, same tier", "tier": "next tier, same generation"}


def architecture_record(report: ArchitectureReport) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "kind": "estimate",
        "rankings": [asdict(r) for r in report.rankings],
        "steps": [asdict(s) for s in report.steps],
    }


def render_architecture(report: ArchitectureReport) -> RenderableType:
    """Rankings first, then every step; gains are time before over time after."""
    rankings = [
        (r.kind, r.group, str(r.steps), str(r.pairs), _number(r.rank_correlation), _number(r.data_sheet_rank),
         f"{r.median_error * 100:.1f}", f"{r.data_sheet_error * 100:.1f}", _share(r.direction))
        for r in report.rankings
    ]  # fmt: skip
    head = ("step", "workloads", "steps", "pairs", "rank", "sheet", "error %", "sheet %", "right")
    parts: list[RenderableType] = [
        heading("Do predictions rank real design changes as measurements do?"),
        Text("Each chip is priced by a fit that did not see its generation; 'sheet' is the data sheet's ratio."),
        Text(),
        table(head, rankings, left=(0, 1), gap=1),
    ]
    for kind, title in _TITLE.items():
        rows = [
            (f"{s.first} > {s.second}", s.group, str(s.pairs), f"{s.measured:.2f}", f"{s.predicted:.2f}", f"{s.data_sheet:.2f}")
            for s in report.steps
            if s.kind == kind
        ]
        if rows:
            columns = ("chips", "workloads", "pairs", "measured", "predicted", "sheet")
            parts += [Text(), heading(title), table(columns, rows, left=(0, 1))]
    return stacked(*parts)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _share(value: float | None) -> str:
    return "" if value is None else f"{value * 100:.0f} %"
