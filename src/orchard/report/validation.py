"""The error table of `orchard validate`: measured rows against predictions, beside two baselines on the same rows."""

from __future__ import annotations

import math
from dataclasses import asdict, is_dataclass
from typing import Any

from rich.console import RenderableType
from rich.text import Text

from orchard.report.layout import heading, stacked, table
from orchard.studies.validate import StratumResult, ValidationReport

SCHEMA = "orchard.validation/1"
PLOTTED = "left-out chip"


LONGEST = 27
"""Stratum names are cut to this in the table, so that its numbers fit 80 columns; JSON has them whole."""

HEADERS = ["stratum", "rows", "median", "90 %", "rank", "in 80", "bias", "roofline", "public"]


def render_validation(report: ValidationReport) -> RenderableType:
    """One table per part: fit, left-out chip, left-out family."""
    parts: list[RenderableType | None] = [Text(f"suite {report.suite}: {len(report.points)} rows scored", style="bold")]
    for part in dict.fromkeys(s.part for s in report.strata):
        mine = [s for s in report.strata if s.part == part]
        headline = [_row(s) for s in mine if s.target_median is not None]
        others = [_row(s) for s in mine if s.target_median is None]
        gap: list[list[str | Text]] = [["" for _ in HEADERS]] if headline and others else []
        rows = [*headline, *gap, *others]
        parts += [Text(), heading(f"{part}, errors in %"), table(HEADERS, rows, gap=1)]
    if report.left_out:
        parts += [Text(), heading("not scored")]
        parts += [Text(f"  {left.rows:>4}  {left.reason}") for left in report.left_out]
    parts += [Text(), *(Text(note, style="dim") for note in report.notes)]
    parts.append(
        Text(
            "median, 90 %: quantiles of the absolute relative error; rank: Spearman's correlation; in 80: share of rows "
            "inside the 80 % interval; bias: median signed error; roofline, public: median error of a naive roofline and of "
            "the best public predictor on the same rows; a figure above its target is red",
            style="dim",
        )
    )
    return stacked(*parts)


def markdown_table(report: ValidationReport) -> str:
    """The headline strata as a Markdown table, for the README: median / 90th percentile of |predicted / measured - 1|."""
    found = {(s.name, s.part): s for s in report.strata if s.target_median is not None}
    heads = [
        "stratum",
        "rows",
        "chip generation left out",
        "model family left out",
        "in 80 % interval",
        "naive roofline",
    ]
    lines = [heads, ["---"] * len(heads)]
    for name in dict.fromkeys(name for name, _ in found):
        chip, kin = found.get((name, "left-out chip")), found.get((name, "left-out family"))
        if chip is None or kin is None:
            continue
        pairs = [f"{_share(s.median_error)} / {_share(s.p90_error)}" for s in (chip, kin)]
        inside = "-" if chip.coverage80 is None else _whole(chip.coverage80)
        lines.append([name, str(chip.rows), *pairs, inside, _whole(chip.naive_median)])
    rows = ["| " + " | ".join(cells) + " |" for cells in lines]
    return "\n".join([*rows, "", "Errors of times, median / 90th percentile; the roofline column is a median."])


def _whole(share: float) -> str:
    return f"{100 * share:.0f} %"


def _row(s: StratumResult) -> list[str | Text]:
    return [
        s.name if len(s.name) <= LONGEST else s.name[: LONGEST - 1].rstrip() + "…",
        str(s.rows),
        _against(s.median_error, s.target_median),
        _against(s.p90_error, s.target_p90),
        "-" if _unknown(s.rank_correlation) else f"{s.rank_correlation:.3f}",
        _plain_share(s.coverage80),
        "-" if _unknown(s.bias) else f"{s.bias * 100:+.1f}",
        Text(_plain_share(s.naive_median), style="dim"),
        Text(_plain_share(s.public_median), style="dim"),
    ]


def _against(value: float, target: float | None) -> Text:
    if target is None:
        return Text(_plain_share(value))
    return Text(_plain_share(value), style="green" if value <= target else "red")


def _plain_share(value: float | None) -> str:
    return _share(value).removesuffix(" %")


def _share(value: float | None) -> str:
    return "-" if value is None or _unknown(value) else f"{value * 100:.1f} %"


def _unknown(value: float | None) -> bool:
    return value is None or not math.isfinite(value)


def validation_record(report: ValidationReport) -> dict[str, Any]:
    """`orchard.validation/1`; what is not a finite number becomes null."""
    return {
        "schema": SCHEMA,
        "suite": report.suite,
        "strata": [_plain(s) for s in report.strata],
        "points": [_plain(p) for p in report.points],
        "left_out": [_plain(left) for left in report.left_out],
        "notes": list(report.notes),
    }


def _plain(record: Any) -> dict[str, Any]:
    assert is_dataclass(record), record
    values = asdict(record)  # type: ignore[arg-type]
    return {key: None if isinstance(v, float) and not math.isfinite(v) else v for key, v in values.items()}
