"""Idea sheets as people and programs read them."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

from orchard.studies.propose.run import Candidate, Proposal
from orchard.studies.propose.sheet import Falsifier, Sheet

WIDTH = 80


def proposal_record(p: Proposal) -> dict[str, Any]:
    """`orchard.proposal/1`."""
    return {
        "schema": "orchard.proposal/1", "model": p.model, "chips": list(p.chips), "combinations": p.combinations, "seen": p.seen,
        "fresh": p.fresh, "versions": dict(p.versions),
        "fronts": [
            {
                "chip": c.chip, "engine": c.engine, "what": c.what, "technique": c.technique, "latency_s": c.seconds,
                "loss_nats": c.loss, "acceptance": c.acceptance,
            }
            for c in p.fronts
        ],
        "sheets": [_sheet(s) for s in p.sheets],
    }  # fmt: skip


def _sheet(s: Sheet) -> dict[str, Any]:
    return {
        "id": s.id, "title": s.title, "origin": s.origin, "verdict": s.verdict, "hypothesis": s.hypothesis, "formula": s.formula,
        "prediction": s.prediction, "experiment": s.experiment, "result": s.result, "scale": s.scale,
        "falsifiers": [{"text": f.text, "found": f.found, "struck": f.struck} for f in s.falsifiers],
        "figures": [{"name": f.name, "value": f.value, "unit": f.unit, "kind": f.kind} for f in s.figures],
    }  # fmt: skip


def render_proposal(p: Proposal) -> str:
    """Fronts, then a line or two per idea."""
    lines = [f"{p.model}: {p.combinations} combinations priced on {', '.join(p.chips)}"]
    for chip, engine in dict.fromkeys((c.chip, c.engine) for c in p.fronts):
        lines += ["", *_front(f"{chip} {engine}", [c for c in p.fronts if (c.chip, c.engine) == (chip, engine)])]
    lines += ["", "ideas:"]
    for s in p.sheets:
        lines += textwrap.wrap(f"{s.verdict:<10} {s.id}  {s.title}", WIDTH, subsequent_indent=" " * 15)
        lines += textwrap.wrap(s.result, WIDTH, initial_indent=" " * 15, subsequent_indent=" " * 15)
    lines += ["", *textwrap.wrap(f"seen: {p.seen}", WIDTH), *textwrap.wrap(f"confirmed on: {p.fresh}", WIDTH)]
    return "\n".join(lines)


def _front(name: str, candidates: Sequence[Candidate]) -> list[str]:
    lines = [f"{name:<52}{'ms/token':>10}{'loss, nats':>13}"]
    for c in candidates:
        wrapped = textwrap.wrap(c.what, 50)
        lines += wrapped[:-1]
        lines.append(f"{wrapped[-1]:<52}{c.seconds * 1e3:>10.2f}{c.loss:>13.4f}")
    return lines


def page(s: Sheet) -> str:
    """A sheet in Markdown."""
    rows = [f"| {f.name} | {f.value:.4g} | {f.unit} | {f.kind} |" for f in s.figures]
    parts = [
        f"# {s.id}: {s.title}", f"**Verdict: {s.verdict}.** Origin: {s.origin}. Scale: {s.scale}.",
        f"**Hypothesis.** {s.hypothesis}", f"**Formula.** `{s.formula}`", f"**Prediction.** {s.prediction}",
        f"**Experiment.** {s.experiment}", f"**Result.** {s.result}", "**What would show it wrong**",
        "\n".join(f"- {f.text}: {_struck(f)} ({f.found})" for f in s.falsifiers),
        "\n".join(["| figure | value | unit | kind |", "|---|---:|---|---|", *rows]),
    ]  # fmt: skip
    return "\n\n".join(parts) + "\n"


def _struck(f: Falsifier) -> str:
    return "cannot be tried here" if f.struck is None else "it did" if f.struck else "it did not"


def pages(p: Proposal) -> dict[str, str]:
    """File names and texts: one page per sheet and a list of them."""
    rows = [f"| [{s.id}]({s.id}.md) | {s.title} | {s.origin} | {s.verdict} |" for s in p.sheets]
    head = (
        f"# Ideas for {p.model}\n\nFound on {p.seen}; confirmed on {p.fresh}. {p.combinations} combinations priced on "
        f"{', '.join(p.chips)}.\n\n"
    )
    table = "\n".join(["| id | idea | origin | verdict |", "|---|---|---|---|", *rows]) + "\n"
    return {"README.md": head + table, **{f"{s.id}.md": page(s) for s in p.sheets}}
