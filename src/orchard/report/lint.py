"""Findings of `orchard lint` as text and record."""

from __future__ import annotations

import textwrap
from dataclasses import asdict
from typing import Any

from orchard.studies.lint import LintGroup, LintReport
from orchard.units import format_seconds

SCHEMA = "orchard.lint/1"
WIDTH = 80


def render_lint(report: LintReport) -> str:
    """Headline, then each group: how many ops, what is wrong, what to change, what that saves."""
    lines = [f"{report.model} on {report.chip} {report.target}: {report.ops} ops"]
    if report.now_s is not None and report.then_s is not None:
        where = f", ops it does not take on the {report.fallback}" if report.fallback else ""
        lines += textwrap.wrap(
            f"one pass {format_seconds(report.now_s)} as it is{where}; {format_seconds(report.then_s)} with every change "
            f"(estimates; savings add up in this order)",
            WIDTH,
        )
    for title, blocks in ((f"leaves the {report.target}", True), ("slower there", False)):
        groups = [g for g in report.groups if g.blocks == blocks]
        lines += ["", title, *(line for g in groups for line in _group(g))] if groups else []
    if not report.groups:
        lines.append("  nothing to change")
    return "\n".join([*lines, *(f"note: {n}" for n in report.notes)])


def _group(g: LintGroup) -> list[str]:
    saves = "" if g.gain_s is None else f"; saves {format_seconds(g.gain_s)}" if g.gain_s > 1e-9 else "; saves no time"
    if g.gain_s is not None and g.gain_s < -1e-9:
        saves = f"; costs {format_seconds(-g.gain_s)} (it is faster elsewhere)"
    text = f"{g.ops} ops  {g.rule}: {g.reason}: {g.change}{saves} (first: {g.first}) [{g.source}]"
    return textwrap.wrap(text, WIDTH, initial_indent="  ", subsequent_indent="      ")


def lint_record(report: LintReport) -> dict[str, Any]:
    """`orchard.lint/1`."""
    return {"schema": SCHEMA, **asdict(report), "groups": [asdict(g) for g in report.groups], "notes": list(report.notes)}
