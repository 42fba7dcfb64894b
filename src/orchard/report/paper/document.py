"""The document model: what a report says, whatever its form. Values stay numbers in SI until a form prints them."""

from __future__ import annotations

from dataclasses import dataclass

from orchard.units import (
    format_bytes,
    format_joules,
    format_ops,
    format_ops_rate,
    format_rate,
    format_seconds,
)

Cell = str | float | int | None
UNITS = {
    "text": "", "s": "s", "bytes": "bytes", "j": "J", "ops": "ops", "ops_per_s": "ops/s", "bytes_per_s": "bytes/s",
    "share": "fraction", "number": "",
}  # fmt: skip
"""Dimensions of columns and axes, and what a file of raw values calls their unit."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column: its heading, and the dimension of its cells."""

    name: str
    dimension: str = "text"


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Rows of raw cells; None prints as a dash."""

    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    note: str = ""


@dataclass(frozen=True, slots=True)
class Bar:
    """A row of a bar chart: parts by series name."""

    label: str
    parts: tuple[tuple[str, float], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Bars:
    """Stacked horizontal bars, one per row."""

    rows: tuple[Bar, ...]
    dimension: str


@dataclass(frozen=True, slots=True)
class Dot:
    """A point of a scatter chart. `weight` from 0 to 1 sets its size; a label is drawn where there is room."""

    x: float
    y: float
    series: str
    label: str
    weight: float = 0.2
    named: bool = False


@dataclass(frozen=True, slots=True)
class Line:
    """A named line through points."""

    label: str
    points: tuple[tuple[float, float], ...]
    kind: str = "limit"


@dataclass(frozen=True, slots=True, kw_only=True)
class Scatter:
    """Points and lines over two axes, each logarithmic or not."""

    dots: tuple[Dot, ...]
    lines: tuple[Line, ...]
    x_title: str
    y_title: str
    x_dimension: str
    y_dimension: str
    log: bool = True


@dataclass(frozen=True, slots=True)
class Piece:
    """Something that runs on a lane from `start` for `length` seconds."""

    start: float
    length: float
    series: str
    label: str
    rate: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Lanes:
    """A timeline: lanes of pieces over seconds; `rate_title` names the curve of their rates (bytes per second), below `most`."""

    lanes: tuple[tuple[str, tuple[Piece, ...]], ...]
    seconds: float
    rate_title: str = ""
    most: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Areas:
    """Stacked areas over an axis, and a limit line."""

    at: tuple[float, ...]
    series: tuple[tuple[str, tuple[float, ...]], ...]
    x_title: str
    x_dimension: str
    dimension: str
    limit: float
    limit_label: str


Chart = Bars | Scatter | Lanes | Areas


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """A chart with its words: `about` says what it shows for whoever cannot see it, `data` holds the same values."""

    id: str
    title: str
    about: str
    chart: Chart
    data: Table


@dataclass(frozen=True, slots=True)
class Fact:
    """A number of the headline."""

    label: str
    value: str
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """A part of the document with a place in its table of contents."""

    id: str
    title: str
    text: tuple[str, ...] = ()
    items: tuple[Figure | Table, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """A whole report. `summary`: the sentences a reader with one minute needs."""

    title: str
    subtitle: str
    summary: tuple[str, ...]
    facts: tuple[Fact, ...]
    sections: tuple[Section, ...]
    made_by: str


def shown(value: Cell, dimension: str) -> str:
    """A cell as people read it."""
    if value is None:
        return "–"
    if isinstance(value, str):
        return value
    writers = {
        "s": format_seconds, "bytes": format_bytes, "j": format_joules, "ops": format_ops, "ops_per_s": format_ops_rate,
        "bytes_per_s": format_rate,
    }  # fmt: skip
    if dimension in writers:
        return writers[dimension](float(value))
    if dimension == "share":
        digits = 0 if abs(value) >= 0.1 or value == 0 else 1 if abs(value) >= 0.01 else 2
        return f"{value * 100:.{digits}f} %"
    return f"{value:,}" if isinstance(value, int) else f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
