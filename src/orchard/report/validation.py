"""The error table of `orchard validate`: measured rows against predictions, beside two baselines on the same rows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, is_dataclass
from typing import Any, Protocol

from rich.console import RenderableType
from rich.text import Text

from orchard.report.layout import heading, stacked, table

SCHEMA = "orchard.validation/1"
PLOTTED = "left-out chip"


class Stratum(Protocol):
    """Errors are |predicted / measured - 1|; None where there are too few rows to say."""

    @property
    def name(self) -> str: ...
    @property
    def part(self) -> str: ...
    @property
    def rows(self) -> int: ...
    @property
    def median_error(self) -> float: ...
    @property
    def p90_error(self) -> float: ...
    @property
    def rank_correlation(self) -> float | None: ...
    @property
    def coverage80(self) -> float: ...
    @property
    def naive_median(self) -> float: ...
    @property
    def public_median(self) -> float | None: ...
    @property
    def bias(self) -> float: ...


class Left(Protocol):
    @property
    def reason(self) -> str: ...
    @property
    def rows(self) -> int: ...


class Report(Protocol):
    """What this module reads of a `ValidationReport`."""

    @property
    def suite(self) -> str: ...
    @property
    def strata(self) -> Sequence[Stratum]: ...
    @property
    def points(self) -> Sequence[Any]: ...
    @property
    def left_out(self) -> Sequence[Left]: ...
    @property
    def notes(self) -> Sequence[str]: ...


HEADERS = ["stratum", "rows", "median", "90 %", "rank", "in 80", "bias", "roofline", "public"]


def render_validation(report: Report) -> RenderableType:
    """One table per part: fit, left-out chip, left-out family."""
    parts: list[RenderableType | None] = [Text(f"suite {report.suite}: {len(report.points)} rows scored", style="bold")]
    for part in dict.fromkeys(s.part for s in report.strata):
        rows = [_row(s) for s in report.strata if s.part == part]
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


def markdown_table(report: Report, part: str = PLOTTED) -> str:
    """The same figures as a Markdown table, for the README."""
    names = ["stratum", "rows", "median error", "90 % of rows below", "in the 80 % interval", "naive roofline"]
    lines = [" | ".join(names), " | ".join(["---", *["---:"] * (len(names) - 1)])]
    for s in report.strata:
        if s.part == part:
            cells = [
                s.name,
                str(s.rows),
                _share(s.median_error),
                _share(s.p90_error),
                _share(s.coverage80),
                _share(s.naive_median),
            ]
            lines.append(" | ".join(cells))
    return "\n".join(f"| {line} |" for line in lines)


def _row(s: Stratum) -> list[str | Text]:
    return [
        s.name,
        str(s.rows),
        _against(s.median_error, getattr(s, "target_median", None)),
        _against(s.p90_error, getattr(s, "target_p90", None)),
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


def validation_record(report: Report) -> dict[str, Any]:
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
