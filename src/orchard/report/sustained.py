"""The simulator against measurements of sustained and shared workloads."""

from __future__ import annotations

from rich.console import RenderableType
from rich.text import Text

from orchard.report.layout import heading, number, stacked, table
from orchard.studies.sustained import Compared, Sustained

PARTS = {"fit": "rows the chassis were fitted to", "check": "other rows"}


def render_sustained(found: Sustained) -> RenderableType:
    """One table per part. At most 80 columns."""
    parts: list[RenderableType] = []
    for part, title in PARTS.items():
        rows = [_row(c) for c in found.rows if c.row.part == part]
        parts += [
            heading(title),
            table(
                ("id", "chip", "on", "workload", "reading", "measured", "here", "off"),
                rows,
                left=(0, 1, 2, 3, 4),
                gap=1,
            ),
            Text(),
        ]
    note = (
        "off: simulated minus measured, in points of a share or a factor (100 = 1);\n"
        "for times, the share kept at the measured moment; for pipelines, per cent.\n"
        "`--json` has sources and notes."
    )
    return stacked(*parts, Text(note, style="dim"))


def _row(c: Compared) -> tuple[str, ...]:
    row = c.row
    at = f" {number(row.at_s)} s" if row.at_s else ""
    here = "never" if c.simulated is None else number(c.simulated)
    workload = (
        row.workload.removeprefix("decode ")
        .removeprefix("pipeline ")
        .replace("stable-diffusion-", "SD ")
        .split(" ml")[0]
        .split(" coreml")[0]
    )
    reading = row.metric.replace("time_to_lose_", "s to lose ").replace("_", " ") + at
    return (row.id, row.chip, row.engine, workload, reading, number(row.value), here, f"{100 * c.error:+.0f}")
