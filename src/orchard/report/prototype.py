"""A prototype's trial as a table and as the record of `orchard prototype`."""

from __future__ import annotations

from typing import Any

from rich.console import RenderableType
from rich.text import Text

from orchard.report.layout import number, stacked, table
from orchard.report.measurement import duration
from orchard.studies.prototype import PrototypeReport, Trial

SCHEMA = "orchard.prototype/1"


def prototype_record(report: PrototypeReport) -> dict[str, Any]:
    """`orchard.prototype/1`."""
    return {
        "schema": SCHEMA,
        "name": report.prototype.name,
        "device": report.device,
        "correct": report.correct,
        "tolerance": report.prototype.tolerance,
        "roof_macs_per_s": report.roof.macs_per_s,
        "roof_bytes_per_s": report.roof.bytes_per_s,
        "trials": [_trial(t) for t in report.trials],
        "fixed_s": report.fixed_s,
        "s_per_mac": report.s_per_mac,
        "s_per_byte": report.s_per_byte,
        "r2": report.r2,
    }


def _trial(t: Trial) -> dict[str, Any]:
    return {
        "shape": dict(t.shape),
        "median_s": t.timing.median_s,
        "interval_s": list(t.timing.interval_s),
        "error": t.error,
        "macs": t.macs,
        "moved_bytes": t.moved,
        "bound_s": t.bound_s,
        "share_of_bound": t.share,
    }


def render_prototype(report: PrototypeReport) -> RenderableType:
    rows = [
        [
            " ".join(f"{k}={v}" for k, v in t.shape.items()),
            duration(t.timing.median_s),
            duration(t.bound_s),
            f"{100 * t.share:.0f} %",
            f"{t.error:.1e}",
        ]
        for t in report.trials
    ]
    verdict = "right" if report.correct else "WRONG"
    return stacked(
        Text(f"{report.prototype.name}: {report.prototype.about}", style="bold"),
        Text(f"{verdict} against float64 (allowed {report.prototype.tolerance:.0e} of the largest value)"),
        Text(),
        table(["shape", "time", "bound", "share", "error"], rows),
        Text(),
        Text(
            f"time = {duration(report.fixed_s)} + MACs at {_rate(report.s_per_mac)} + bytes at {_rate(report.s_per_byte)}"
            f"  (R2 {report.r2:.3f})"
        ),
        Text(
            f"bound: {number(report.roof.macs_per_s / 1e9)} GMAC/s and {number(report.roof.bytes_per_s / 1e9)} GB/s, "
            "measured just now",
            style="dim",
        ),
    )


def _rate(seconds: float) -> str:
    return "no cost" if seconds == 0 else f"{number(1e-9 / seconds)} G/s"
