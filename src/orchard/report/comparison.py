"""A comparison as one table."""

from __future__ import annotations

import itertools

from rich.console import Group, RenderableType
from rich.text import Text

from orchard.report.layout import FirstThatFits, heading, number, percent, stacked, table
from orchard.studies.compare import Comparison, Row
from orchard.units import format_joules

_SHORT = {"prefill": "prefill", "decode": "decode", "inference": "runs"}


def render_comparison(c: Comparison) -> RenderableType:
    """One line per combination: what differs, tokens/s of each phase with the ratio to the first row, energy, memory.

    Where the terminal is too narrow for every label, the slowest-changing ones become headings over groups of lines.
    """
    labels = list(c.varied) or ["chip"]
    reference = c.rows[c.reference].prediction
    assert reference is not None
    fixed = [f"{axis} {value}" for axis, value in _chosen(c.rows[c.reference]).items() if axis not in labels]
    about = Text(" · ".join([*fixed, f"batch {reference.request.batch}"]), style="dim")
    last = c.shown[-1]
    unit = "J/token" if last == "decode" else "J"
    legend = (
        f"* best that fits; x: ratio to the first row; energy in {unit} of {last}; "
        f"memory: share of what the engine may use, over 100 % does not fit"
    )
    refused = [
        Text(f"{' '.join(_names(row, labels))}: {row.refusal}", style="yellow")
        for row in c.rows
        if row.refusal is not None
    ]
    tables = FirstThatFits([_table(c, labels[:cut], labels[cut:]) for cut in range(len(labels))])
    return stacked(about, tables, Text(), *refused, Text(legend, style="dim"))


def _table(c: Comparison, grouped: list[str], labels: list[str]) -> RenderableType:
    """Lines under a heading for each value of the `grouped` labels."""
    headers = list(labels)
    for phase in c.shown:
        headers += [f"{_SHORT.get(phase, phase)}/s", "x"]
    headers += ["energy", "memory"]
    lines = [_line(c, index, row, labels, c.shown[-1]) for index, row in enumerate(c.rows)]
    widths = [max(len(str(cell)) for cell in column) for column in zip(headers, *lines)]
    parts: list[RenderableType] = []
    groups = itertools.groupby(zip(c.rows, lines), key=lambda pair: _names(pair[0], grouped))
    for names, members in groups:
        made = table(headers, [line for _, line in members], left=tuple(range(len(labels))))
        for column, width in zip(made.columns, widths):
            column.no_wrap, column.min_width = True, width
        made.show_header = not parts
        parts += [made] if not grouped else [heading(" ".join(names)), made]
    return Group(*parts)


def _chosen(row: Row) -> dict[str, str]:
    """What the row is about, the defaults resolved."""
    p = row.prediction
    assert p is not None
    return {
        "model": p.model.name, "chip": p.soc.id, "runtime": p.profile.runtime, "engine": p.profile.engine,
        "weights": p.weights,
    }  # fmt: skip


def _names(row: Row, labels: list[str]) -> list[str]:
    if row.prediction is None:
        return [str(row.choice.get(label) or "-") for label in labels]
    chosen = _chosen(row)
    # a model as the user wrote it: short names line up, full names do not
    return [str(row.choice["model"]) if label == "model" else chosen[label] for label in labels]


def _line(c: Comparison, index: int, row: Row, labels: list[str], last: str) -> list[str | Text]:
    cells: list[str | Text] = list(_names(row, labels))
    if row.prediction is None:
        return [*cells, *(["-", ""] * len(c.shown)), "-", Text("no answer", style="yellow")]
    for phase in c.shown:
        rate, ratio = row.figure(phase, "tokens_per_s"), c.ratio(index, phase, "tokens_per_s")
        is_best = c.best(phase, "tokens_per_s") == index
        shown = "-" if rate is None else number(rate) + ("*" if is_best else " ")
        cells.append(Text(shown, style="bold green" if is_best else ""))
        cells.append("" if ratio is None else f"{ratio:.2f}")
    energy = row.figure(last, "energy_j")
    memory = row.prediction.memory
    cells.append(
        "-" if energy is None else format_joules(energy / (row.prediction.request.batch if last == "decode" else 1))
    )
    cells.append(Text(percent(memory.total / memory.limit), style="" if memory.fits else "bold red"))
    return cells
