"""The error table and its drawing, from a small report made by hand."""

from __future__ import annotations

import io
import math
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from typing import Any

from orchard.report.layout import bar, make_console, number, percent, span
from orchard.report.plot import scatter_svg
from orchard.report.schemas.validation import Validation
from orchard.report.validation import markdown_table, render_validation, validation_record
from orchard.studies.validate import LeftOut, Point, StratumResult, ValidationReport

SVG = "{http://www.w3.org/2000/svg}"


def stratum(**changed: Any) -> StratumResult:
    figures = {
        "name": "dense GPU, decode", "part": "left-out chip", "rows": 40, "median_error": 0.051, "p90_error": 0.18,
        "rank_correlation": 0.991, "coverage80": 0.78, "naive_median": 0.47, "public_median": 0.09, "bias": -0.012,
        "target_median": 0.06, "target_p90": 0.15,
    }  # fmt: skip
    return StratumResult(**{**figures, **changed})


def point(name: str, measured_s: float, predicted_s: float, runtime: str = "llama.cpp") -> Point:
    return Point(
        id=name, measured_s=measured_s, predicted_s=predicted_s, runtime=runtime, engine="gpu", stratum="dense GPU, decode",
        chip="m1", model="a <model> & more", phase="decode", low_s=0.01, high_s=0.02, trust="A",
    )  # fmt: skip


REPORT = ValidationReport(
    suite="llm",
    strata=(
        stratum(), stratum(name="llama.cpp gpu, trust A", target_median=None, target_p90=None),
        stratum(part="fit", rank_correlation=None, public_median=None),
    ),
    points=(
        point("a", 0.01, 0.011), point("b", 0.1, 0.2), point("c", 1.0, 0.9, runtime="mlx"), point("d", 1.0, math.nan),
    ),
    left_out=(LeftOut(reason="chip not named", rows=3),),
    notes=("0 measured rows beat the bound",),
)  # fmt: skip


def text_of(content: Any, width: int = 80) -> str:
    out = io.StringIO()
    make_console(out, width=width).print(content)
    return out.getvalue()


def test_the_table_shows_every_figure_in_80_columns() -> None:
    text = text_of(render_validation(REPORT))
    for part in ("left-out chip", "fit", "5.1", "18.0", "0.991", "78.0", "-1.2", "47.0", "9.0", "chip not named"):
        assert part in text, part
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= 80


def test_json_satisfies_the_schema_and_has_no_nan() -> None:
    record = validation_record(REPORT)
    assert record["points"][3]["predicted_s"] is None
    Validation.model_validate(record)


def test_markdown_sets_both_left_out_errors_side_by_side() -> None:
    kin = stratum(part="left-out family", median_error=0.062, p90_error=0.2)
    report = replace(REPORT, strata=(*REPORT.strata, kin))
    assert markdown_table(report).splitlines()[:3] == [
        "| stratum | rows | chip generation left out | model family left out | in 80 % interval | naive roofline |",
        "| --- | --- | --- | --- | --- | --- |",
        "| dense GPU, decode | 40 | 5.1 % / 18.0 % | 6.2 % / 20.0 % | 78 % | 47 % |",
    ]


def test_markdown_leaves_out_a_stratum_without_both_parts() -> None:
    assert "dense GPU" not in markdown_table(REPORT)


def test_the_drawing_is_well_formed_and_described() -> None:
    root = ElementTree.fromstring(scatter_svg(REPORT.points, title="A & B"))
    assert root.get("role") == "img"
    assert root.findtext(f"{SVG}title") == "A & B"
    about = root.findtext(f"{SVG}desc") or ""
    assert "3 measured rows; 67 %" in about
    assert "1 rows have no prediction" in about
    marks = [m for g in root.iter(f"{SVG}g") if g.get("aria-label") for m in g]
    assert len(marks) == 3
    assert any("+10.0 %" in (m.findtext(f"{SVG}title") or "") for m in marks)


def test_equal_predictions_lie_on_the_diagonal() -> None:
    points = (point("a", 0.003, 0.003), point("b", 2.0, 2.0))
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
    assert scatter_svg(REPORT.points, title="t") == scatter_svg(tuple(reversed(REPORT.points)), title="t")


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
