"""The error table and its drawing, from a small report made by hand."""

from __future__ import annotations

import io
import math
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass
from typing import Any

from orchard.report.layout import bar, make_console, number, percent, span
from orchard.report.plot import scatter_svg
from orchard.report.schemas import Validation
from orchard.report.validation import markdown_table, render_validation, validation_record

SVG = "{http://www.w3.org/2000/svg}"


@dataclass(frozen=True)
class Stratum:
    name: str = "dense GPU, decode"
    part: str = "left-out chip"
    rows: int = 40
    median_error: float = 0.051
    p90_error: float = 0.18
    rank_correlation: float | None = 0.991
    coverage80: float = 0.78
    naive_median: float = 0.47
    public_median: float | None = 0.09
    bias: float = -0.012
    target_median: float | None = 0.06
    target_p90: float | None = 0.15


@dataclass(frozen=True)
class Point:
    id: str
    measured_s: float
    predicted_s: float
    runtime: str = "llama.cpp"
    engine: str = "gpu"
    stratum: str = "dense GPU, decode"
    chip: str = "m1"
    model: str = "a <model> & more"
    phase: str = "decode"
    low_s: float = 0.01
    high_s: float = 0.02
    trust: str = "A"


@dataclass(frozen=True)
class LeftOut:
    reason: str
    rows: int


@dataclass(frozen=True)
class Report:
    suite: str = "llm"
    strata: tuple[Stratum, ...] = (Stratum(), Stratum(part="fit", rank_correlation=None, public_median=None))
    points: tuple[Point, ...] = (
        Point("a", 0.01, 0.011), Point("b", 0.1, 0.2), Point("c", 1.0, 0.9, runtime="mlx"), Point("d", 1.0, math.nan),
    )  # fmt: skip
    left_out: tuple[LeftOut, ...] = (LeftOut("chip not named", 3),)
    notes: tuple[str, ...] = ("0 measured rows beat the bound",)


def text_of(content: Any, width: int = 80) -> str:
    out = io.StringIO()
    make_console(out, width=width).print(content)
    return out.getvalue()


def test_the_table_shows_every_figure_in_80_columns() -> None:
    text = text_of(render_validation(Report()))
    for part in ("left-out chip", "fit", "5.1", "18.0", "0.991", "78.0", "-1.2", "47.0", "9.0", "chip not named"):
        assert part in text, part
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= 80


def test_json_satisfies_the_schema_and_has_no_nan() -> None:
    record = validation_record(Report())
    assert record["points"][3]["predicted_s"] is None
    Validation.model_validate(record)


def test_markdown_lists_one_part() -> None:
    assert markdown_table(Report()).splitlines() == [
        "| stratum | rows | median error | 90 % of rows below | in the 80 % interval | naive roofline |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
        "| dense GPU, decode | 40 | 5.1 % | 18.0 % | 78.0 % | 47.0 % |",
    ]


def test_the_drawing_is_well_formed_and_described() -> None:
    root = ElementTree.fromstring(scatter_svg(Report().points, title="A & B"))
    assert root.get("role") == "img"
    assert root.findtext(f"{SVG}title") == "A & B"
    about = root.findtext(f"{SVG}desc") or ""
    assert "3 measured rows; 67 %" in about
    assert "1 rows have no prediction" in about
    marks = [m for g in root.iter(f"{SVG}g") if g.get("aria-label") for m in g]
    assert len(marks) == 3
    assert any("+10.0 %" in (m.findtext(f"{SVG}title") or "") for m in marks)


def test_equal_predictions_lie_on_the_diagonal() -> None:
    points = (Point("a", 0.003, 0.003), Point("b", 2.0, 2.0))
    root = ElementTree.fromstring(scatter_svg(points, title="t"))
    line = root.find(f"{SVG}line")
    assert line is not None
    x1, y1, x2, y2 = (float(line.get(k) or "nan") for k in ("x1", "y1", "x2", "y2"))
    for mark in root.iter(f"{SVG}circle"):
        if mark.find(f"{SVG}title") is not None:
            share = (float(mark.get("cx") or 0) - x1) / (x2 - x1)
            assert abs(y1 + share * (y2 - y1) - float(mark.get("cy") or 0)) < 0.2


def test_no_points_still_draw_a_frame() -> None:
    ElementTree.fromstring(scatter_svg((), title="empty"))


def test_the_same_points_give_the_same_bytes() -> None:
    assert scatter_svg(Report().points, title="t") == scatter_svg(tuple(reversed(Report().points)), title="t")


def test_bars_fill_their_width() -> None:
    for shares in (
        {"compute": 1 / 3, "memory": 1 / 3, "dispatch": 1 / 3},
        {"compute": 0.999, "memory": 0.001, "dispatch": 0},
    ):
        assert len(bar(shares, 17).plain) == 17
    assert bar({"compute": 0.5, "memory": 0.25, "dispatch": 0.25}, 8).plain == "████▓▓░░"


def test_numbers_read_well() -> None:
    assert [number(x) for x in (0, 1234.4, 64.31, 1.466, 0.01234)] == ["0", "1,234", "64.3", "1.47", "0.0123"]
    assert percent(0.001) == "<1 %"
    assert span(10.01, 10.02) == "10.0"
    assert span(1, 2) == "1.00 - 2.00"
