"""A document as Markdown and as CSV. Charts become the tables of their data."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator

from orchard.report.paper.document import UNITS, Document, Figure, Section, Table, shown

MOST_ROWS = 40


def markdown(document: Document) -> str:
    """The words, the headline and the tables; long tables are cut, and say so."""
    lines = [f"# {document.title}", "", document.subtitle, "", *(f"{s}\n" for s in document.summary)]
    lines += [
        "| | | |",
        "|---|---:|---|",
        *(f"| {_cell(f.label)} | **{_cell(f.value)}** | {_cell(f.detail)} |" for f in document.facts),
    ]
    for section in document.sections:
        lines += ["", f"## {section.title}", "", *(f"{text}\n" for text in section.text)]
        for found in _tables(section):
            lines += _markdown_table(found)
    lines += ["", f"*{document.made_by}*", ""]
    return "\n".join(lines)


def _tables(section: Section) -> Iterator[Table]:
    for item in section.items:
        yield item.data if isinstance(item, Figure) else item


def _markdown_table(found: Table) -> Iterator[str]:
    yield f"**{found.title}**"
    yield ""
    yield "| " + " | ".join(_cell(c.name) for c in found.columns) + " |"
    yield "|" + "|".join("---" if c.dimension == "text" else "---:" for c in found.columns) + "|"
    for row in found.rows[:MOST_ROWS]:
        yield "| " + " | ".join(_cell(shown(v, c.dimension)) for v, c in zip(row, found.columns, strict=True)) + " |"
    hidden = len(found.rows) - MOST_ROWS
    yield ""
    if hidden > 0:
        yield f"{hidden:,} more rows.\n"
    if found.note:
        yield f"{found.note}\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def csv_text(document: Document) -> str:
    """Every cell of every table on a line of its own: section, table, row, column, unit, value (raw, in SI)."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["section", "table", "row", "column", "unit", "value"])
    for fact in document.facts:
        writer.writerow(["headline", "headline", fact.label, "value", "", fact.value])
    for section in document.sections:
        for found in _tables(section):
            for number, row in enumerate(found.rows):
                for column, value in zip(found.columns, row, strict=True):
                    cell = "" if value is None else _safe(value) if isinstance(value, str) else repr(value)
                    writer.writerow([section.id, found.title, number, column.name, UNITS[column.dimension], cell])
    return out.getvalue()


def _safe(text: str) -> str:
    """A cell that a spreadsheet would run as a formula gets a quote in front."""
    return f"'{text}" if text[:1] in ("=", "+", "-", "@") else text
