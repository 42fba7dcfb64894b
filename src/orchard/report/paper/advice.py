"""Advice as a document: today, the goals, what to change in order of worth, and the best combination."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from orchard.report.paper.content import ENGINE, made_by
from orchard.report.paper.document import Bar, Bars, Column, Document, Fact, Figure, Section, Table
from orchard.studies.advice.figures import FIGURES, shown

MOST_DETAILED = 10


def advice_document(record: Mapping[str, Any], versions: Mapping[str, str]) -> Document:
    """From an `orchard.advice/1` mapping."""
    found = record["recommendations"]
    best = record["combination"] or next(iter(found), None)
    summary = [f"{record['tried']} changes and combinations were predicted; {len(found)} of the changes pay."]
    if best is not None:
        g = best["gain"]
        summary.append(
            f"Best to begin with: {best['title']}; {g['figure']} {shown(g['figure'], g['before'])} becomes "
            f"{shown(g['figure'], g['after'])} ({g['factor']:.2f} times better)."
        )
    sections = [*_goals(record), *_ranking(record), *_details(record)]
    return Document(
        title=f"Advice: {record['model']} on {record['chip']['name'] or record['chip']['id']}",
        subtitle=f"as it runs today: {record['runtime']} on the {ENGINE[record['engine']]}", summary=tuple(summary),
        facts=tuple(Fact(name, shown(name, value), FIGURES[name].about) for name, value in record["figures"].items()),
        sections=tuple(sections), made_by=made_by(versions),
    )  # fmt: skip


def _goals(record: Mapping[str, Any]) -> Iterator[Section]:
    goals = record["goals"]
    if not goals:
        return
    rows = tuple(
        (g["text"], shown(g["figure"], g["before"]), shown(g["figure"], g["after"]), g["verdict"], g["sentence"])
        for g in goals
    )
    columns = tuple(Column(c) for c in ("goal", "today", "best found", "verdict", "why"))
    yield Section(id="goals", title="Goals", items=(Table(title="Goals", columns=columns, rows=rows),))


def _ranking(record: Mapping[str, Any]) -> Iterator[Section]:
    found = [*record["recommendations"], *([record["combination"]] if record["combination"] else [])]
    if not found:
        yield Section(id="changes", title="What to change", text=("Nothing tried makes it better by 1 % or more.",))
        return
    rows = []
    for r in found:
        ends = r["gain"]["factor_interval"] or (None, None)
        rows.append(
            (r["title"], r["gain"]["figure"], r["gain"]["factor"], ends[0], ends[1], r["quality"]["risk"], r["effort"],
             r["gain"]["basis"])
        )  # fmt: skip
    data = Table(
        title="Changes in order of worth", rows=tuple(rows),
        columns=(
            Column("change"), Column("figure"), Column("times better", "number"), Column("from", "number"),
            Column("to", "number"), Column("quality risk"), Column("effort"), Column("interval from"),
        ),
    )  # fmt: skip
    bars = tuple(Bar((r["apply"] or [r["title"]])[0], (("times better", r["gain"]["factor"]),)) for r in found)
    yield Section(
        id="changes", title="What to change", items=(
            Figure(
                id="fig-changes", title="How many times better", chart=Bars(rows=bars, dimension="number"), data=data,
                about="In order of worth: the gain, less for what risks quality or asks for work. A combination comes last.",
            ),
            data,
        ),
    )  # fmt: skip


def _details(record: Mapping[str, Any]) -> Iterator[Section]:
    text: list[str] = []
    for number, r in enumerate(record["recommendations"][:MOST_DETAILED], 1):
        effects = "".join(f" But {e}." for e in r["side_effects"])
        how = " ".join(f"`{h}`" for h in r["how"])
        text.append(
            f"{number}. {r['title']}: {r['reason']}.{effects} Quality: {r['quality']['text']} How: {how} "
            f"Shown by: `{r['predict']}`"
        )
    if record["combination"]:
        r = record["combination"]
        text.append(f"Together: {r['title']}: {r['reason']}. Shown by: `{r['predict']}`")
    text += [f"Note: {n}." for n in record["notes"]]
    if text:
        yield Section(id="details", title="Why, and how", text=tuple(text))
