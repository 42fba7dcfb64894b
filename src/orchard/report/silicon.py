"""Area, price and carbon of a chip as text and as a record."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import RenderableType
from rich.text import Text

from orchard.report.layout import heading, indented, number, percent, span, stacked, table
from orchard.studies.silicon import Recomposed, Silicon

SCHEMA = "orchard.silicon/1"
CHECK_SCHEMA = "orchard.silicon-check/1"
_BLOCKS = {
    "p_cores": "fast CPU cores", "e_cores": "efficiency cores", "l2": "CPU L2", "matrix_units": "AMX or SME units",
    "gpu": "GPU cores", "ane": "Neural Engine", "slc": "system-level cache", "dram_phy": "DRAM interface",
    "media": "media units", "overhead": "fabric, I/O and the rest", "edge": "die-to-die edge",
}  # fmt: skip


def silicon_record(found: Silicon) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "chip": {"id": found.soc.id, "name": found.soc.name, "overrides": dict(found.soc.overrides)},
        "node": found.node,
        "kind": "estimate",
        "blocks_mm2": dict(found.blocks_mm2),
        "anchor_mm2": found.anchor_mm2,
        "area_mm2": found.total_mm2,
        "area_interval_mm2": list(found.interval_mm2),
        "known_mm2": found.known_mm2,
        "known_source": found.known_source or None,
        "dies": found.soc.dies,
        "die_usd": found.die_usd,
        "memory_usd": found.memory_usd,
        "carbon_g": found.carbon_g,
        "warnings": list(found.warnings),
    }


def check_record(rows: Sequence[Recomposed]) -> dict[str, Any]:
    return {
        "schema": CHECK_SCHEMA,
        "dies": [
            {
                "chip": r.chip, "node": r.node, "known_mm2": r.known_mm2, "composed_mm2": r.composed_mm2,
                "held_out_mm2": r.held_out_mm2, "held_out_error": r.held_out_error,
            }
            for r in rows
        ],
        "mean_abs_error": _mean(rows),
    }  # fmt: skip


def _mean(rows: Sequence[Recomposed]) -> float:
    return sum(abs(r.held_out_error) for r in rows) / len(rows)


def render_silicon(found: Silicon) -> RenderableType:
    """Blocks, largest first, with their share; then what it costs."""
    blocks = sorted(found.blocks_mm2.items(), key=lambda item: -item[1])
    rows = [(_BLOCKS[name], number(mm2), percent(mm2 / found.total_mm2)) for name, mm2 in blocks if mm2]
    if found.anchor_mm2:
        rows.append(("known die minus composed", f"{found.anchor_mm2:+.1f}", ""))
    low, high = found.interval_mm2
    known = f"known die {number(found.known_mm2)} mm2, {found.known_source}" if found.known_mm2 else "die size not known"
    changes = "  ".join(f"{path}={value}" for path, value in found.soc.overrides.items())
    lines = [
        Text(f"area    {number(found.total_mm2)} mm2 ({span(low, high)}, 80 %), {found.node}; {known}"),
        Text(f"price   {number(found.die_usd)} USD of silicon, {number(found.memory_usd)} USD of memory; no package, no test"),
        Text(f"carbon  {number(found.carbon_g / 1000)} kg CO2e embodied in die and memory"),
    ]
    return stacked(
        heading(f"{found.soc.name}  estimate" + (f"  {changes}" if changes else "")), *lines, Text(""),
        indented(table(("block", "mm2", "share"), rows)),
    )  # fmt: skip


def render_check(rows: Sequence[Recomposed]) -> RenderableType:
    """Known dies beside the model; errors are those of fits without the die."""
    lines = [
        (r.chip, r.node.removeprefix("TSMC "), number(r.known_mm2), number(r.composed_mm2), number(r.held_out_mm2),
         f"{r.held_out_error * 100:+.1f} %")
        for r in rows
    ]  # fmt: skip
    worst = max(abs(r.held_out_error) for r in rows)
    return stacked(
        heading("Known dies re-composed, mm2"),
        indented(table(("die", "node", "known", "composed", "held out", "error"), lines, left=(0, 1))),
        Text(f"held-out error: mean {_mean(rows) * 100:.1f} %, worst {worst * 100:.1f} % of {len(rows)} dies"),
    )
