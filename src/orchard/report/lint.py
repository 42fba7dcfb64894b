"""Findings of `orchard lint` as text and record."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from orchard.studies.lint import LintReport

SCHEMA = "orchard.lint/1"


def render_lint(report: LintReport) -> str:
    lines = [f"{report.model} on {report.chip} {report.target}: {report.ops} ops"]
    for g in report.groups:
        word = "leaves the engine" if g.blocks else "slower there"
        lines.append(f"  {g.ops:>5} ops  {word:17}  {g.rule}: {g.reason}; {g.change} (first: {g.first}; {g.source})")
    return "\n".join(lines if report.groups else [*lines, "  nothing to change"])


def lint_record(report: LintReport) -> dict[str, Any]:
    """`orchard.lint/1`."""
    return {"schema": SCHEMA, **asdict(report), "groups": [asdict(g) for g in report.groups]}
