"""What keeps a model off an engine, grouped: `orchard lint`."""

from __future__ import annotations

from dataclasses import dataclass

from orchard.cost.eligibility import ane_findings
from orchard.hw import load_chip
from orchard.studies.errors import StudyError
from orchard.studies.request import Request
from orchard.studies.sources import open_model

TARGETS = ("ane",)


@dataclass(frozen=True, slots=True, kw_only=True)
class LintGroup:
    """Equal findings: how many ops, and the first of them."""

    rule: str
    reason: str
    change: str
    blocks: bool
    source: str
    ops: int
    first: str


@dataclass(frozen=True, kw_only=True)
class LintReport:
    model: str
    chip: str
    target: str
    ops: int
    groups: tuple[LintGroup, ...]


def lint(model: str, chip: str, *, target: str = "ane", inputs: tuple[str, ...] = ()) -> LintReport:
    """Findings of a model against an engine, those that block first. Raises an OrchardError for what cannot be opened."""
    if target not in TARGETS:
        raise StudyError(f"target {target!r} is not known; expected {', '.join(TARGETS)}")
    soc = load_chip(chip)
    graph = open_model(Request(model=model, chip=chip, inputs=inputs)).graph()
    grouped: dict[tuple[str, str], LintGroup] = {}
    for f in ane_findings(graph, max_dim=int(soc.get("ane.max_dim") or 16384)):
        before = grouped.get((f.rule, f.reason))
        grouped[f.rule, f.reason] = LintGroup(
            rule=f.rule, reason=f.reason, change=f.change, blocks=f.blocks, source=f.source,
            ops=1 + (before.ops if before else 0), first=before.first if before else f.op,
        )  # fmt: skip
    groups = sorted(grouped.values(), key=lambda g: (not g.blocks, -g.ops))
    return LintReport(model=model, chip=soc.id, target=target, ops=len(graph.ops), groups=tuple(groups))
