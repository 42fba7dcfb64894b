"""A comparison as one table."""

from __future__ import annotations

from rich.console import RenderableType
from rich.text import Text

from orchard.report.layout import number, percent, stacked, table
from orchard.studies.compare import Comparison, Row
from orchard.units import format_joules

_SHORT = {"prefill": "prefill", "decode": "decode", "inference": "runs"}


def render_comparison(c: Comparison) -> RenderableType:
    """One line per combination: what differs, tokens/s of each phase with the ratio to the first row, energy, memory."""
    labels = list(c.varied) or ["chip"]
    headers = list(labels)
    for phase in c.phases:
        headers += [f"{_SHORT.get(phase, phase)}/s", "x"]
    headers += ["energy", "memory"]
    last = c.phases[-1]
    rows = [_line(c, index, row, labels, last) for index, row in enumerate(c.rows)]
    reference = c.rows[c.reference].prediction
    assert reference is not None
    fixed = [f"{axis} {value}" for axis, value in _chosen(c.rows[c.reference]).items() if axis not in labels]
    about = Text(" · ".join([*fixed, f"batch {reference.request.batch}"]), style="dim")
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
    made = table(headers, rows, left=tuple(range(len(labels))))
    for column in made.columns:
        column.no_wrap = True
    return stacked(about, made, Text(), *refused, Text(legend, style="dim"))


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
        return [*cells, *(["-", ""] * len(c.phases)), "-", Text("no answer", style="yellow")]
    for phase in c.phases:
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
