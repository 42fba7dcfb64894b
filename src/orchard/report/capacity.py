"""The staircase of least traffic against capacity: as text, as a JSON record and as an SVG drawing."""

from __future__ import annotations

import math
from html import escape
from typing import Any

from orchard.mapping.nest import print_nest
from orchard.report.mapping import wrapped
from orchard.report.plot import BOTTOM, COLOURS, HEIGHT, LEFT, RIGHT, TOP, WIDTH
from orchard.studies.capacity import CapacityCurve
from orchard.units import format_bytes


def capacity_record(curve: CapacityCurve) -> dict[str, Any]:
    """The record of `orchard bounds --json`."""
    knee = curve.knee
    return {
        "schema": "orchard.capacity/1",
        "op": str(curve.problem.einsum),
        "sizes": dict(curve.problem.sizes),
        "arch": curve.arch.name,
        "level": curve.level,
        "factors": curve.factors,
        "compulsory_bytes": curve.compulsory_bytes,
        "enough_bytes": curve.enough_bytes,
        "has_bytes": curve.has_bytes,
        "traffic_at_has_bytes": None if curve.has_bytes is None else curve.traffic_at(curve.has_bytes),
        "knee": {"capacity_bytes": knee.capacity_bytes, "traffic_bytes": knee.traffic_bytes},
        "mappings_considered": curve.considered,
        "corners": [
            {
                "capacity_bytes": corner.capacity_bytes,
                "traffic_bytes": corner.traffic_bytes,
                "loop_nest": print_nest(corner.nest, curve.problem, curve.reduced).splitlines(),
            }
            for corner in curve.corners
        ],
    }


def capacity_text(curve: CapacityCurve) -> str:
    """The curve at every doubling, and what to read from it."""
    root = curve.arch.levels[0].name
    lines = [
        *wrapped(f"{curve.problem.einsum}, {', '.join(f'{d}={n}' for d, n in curve.problem.sizes.items())}"),
        f"least traffic at {root} for every capacity of {curve.level} ({curve.arch.name})",
        "",
        f"{curve.level:>14}{'traffic':>14}{'of compulsory':>15}",
    ]
    for capacity in _doublings(curve):
        moved = curve.traffic_at(capacity) or math.nan
        times = moved / curve.compulsory_bytes
        mark = "  <- the machine has this" if capacity == curve.has_bytes else ""
        mark += "  <- knee" if capacity == curve.knee.capacity_bytes else ""
        mark += "  <- enough" if capacity == curve.enough_bytes else ""
        shown = f"{capacity:,.0f} B" if mark else format_bytes(capacity)
        lines.append(f"{shown:>14}{format_bytes(moved):>14}{times:>14.4g}x{mark}")
    lines += [
        "",
        _compulsory(curve),
        f"knee: beyond {format_bytes(curve.knee.capacity_bytes)} doubling {curve.level} saves less than 19 %",
    ]
    if curve.has_bytes is not None and curve.traffic_at(curve.has_bytes) is None:
        lines.append(f"{curve.level} ({format_bytes(curve.has_bytes)}) cannot hold one element of each operand")
    lines += wrapped(
        f"{len(curve.corners)} corners, exact over {curve.factors} tiles; {curve.considered:,} partial mappings considered"
    )
    return "\n".join(lines)


def _compulsory(curve: CapacityCurve) -> str:
    text = f"compulsory: {format_bytes(curve.compulsory_bytes)} (every operand once), "
    if curve.reaches_compulsory:
        return text + f"reached from {format_bytes(curve.enough_bytes)} on"
    return text + f"not reached: operands pass by {curve.level}"


def _doublings(curve: CapacityCurve) -> list[float]:
    """Powers of two from the first corner to the last, and the capacities that have a name."""
    low = math.ceil(math.log2(curve.corners[0].capacity_bytes))
    high = math.floor(math.log2(curve.enough_bytes))
    named = {curve.knee.capacity_bytes, curve.enough_bytes}
    if curve.has_bytes is not None and curve.traffic_at(curve.has_bytes) is not None:
        named.add(curve.has_bytes)
    return sorted({*(float(2**n) for n in range(max(low, high - 20), high + 1)), *named})


class _Axes:
    """Bytes to pixels, log-log."""

    def __init__(self, curve: CapacityCurve) -> None:
        sizes = [c.capacity_bytes for c in curve.corners] + ([curve.has_bytes] if curve.has_bytes else [])
        moved = [c.traffic_bytes for c in curve.corners] + [curve.compulsory_bytes]
        self.x_low, self.x_high = math.floor(math.log2(min(sizes))), math.ceil(math.log2(max(sizes)) + 0.5)
        self.y_low = math.floor(math.log10(min(moved)) * 2 - 0.1) / 2
        self.y_high = math.ceil(math.log10(max(moved)) * 2) / 2

    def x(self, size: float) -> float:
        return LEFT + (math.log2(size) - self.x_low) / (self.x_high - self.x_low) * (WIDTH - LEFT - RIGHT)

    def y(self, moved: float) -> float:
        share = (math.log10(moved) - self.y_low) / (self.y_high - self.y_low)
        return HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM)


def capacity_svg(curve: CapacityCurve) -> str:
    """The staircase, log-log, with compulsory traffic, the knee, and what the machine has. No plotting library."""
    axes = _Axes(curve)
    title = f"{curve.problem.name}: traffic at {curve.arch.levels[0].name} against {curve.level}"
    about = f"{len(curve.corners)} corners; {_compulsory(curve)}"
    body = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" viewBox="0 0 {WIDTH} {HEIGHT}" '
        'font-family="sans-serif" font-size="13" role="img">',
        f"<title>{escape(title)}</title><desc>{escape(about)}</desc>",
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/><text x="{LEFT}" y="30" font-size="17">{escape(title)}</text>',
        *_ticks(axes),
        _line(axes, "y", curve.compulsory_bytes, "compulsory", COLOURS[2]),
        *([_line(axes, "x", curve.has_bytes, f"{curve.arch.name} has {format_bytes(curve.has_bytes)}", COLOURS[1])]
          if curve.has_bytes else []),
        _stairs(axes, curve),
        *(_dot(axes, c.capacity_bytes, c.traffic_bytes, text) for c, text in _named(curve)),
        "</svg>", "",
    ]  # fmt: skip
    return "\n".join(body)


def _named(curve: CapacityCurve) -> list[tuple[Any, str]]:
    last = curve.corners[-1]
    if curve.knee is last:
        return [(last, f"knee and enough: {format_bytes(last.capacity_bytes)}")]
    knee = (curve.knee, f"knee {format_bytes(curve.knee.capacity_bytes)}")
    return [knee, (last, f"enough {format_bytes(last.capacity_bytes)}")]


def _ticks(axes: _Axes) -> list[str]:
    left, right, top, bottom = LEFT, WIDTH - RIGHT, TOP, HEIGHT - BOTTOM
    found = []
    step = max(1, (axes.x_high - axes.x_low) // 10)
    for n in range(axes.x_low, axes.x_high + 1, step):
        x = axes.x(2.0**n)
        found.append(f'<path d="M{x:.1f} {top}V{bottom}" stroke="#e4e4e4"/>')
        found.append(f'<text x="{x:.1f}" y="{bottom + 20}" text-anchor="middle">{escape(format_bytes(2.0**n))}</text>')
    for n in range(math.ceil(axes.y_low), math.floor(axes.y_high) + 1):
        y = axes.y(10.0**n)
        found.append(f'<path d="M{left} {y:.1f}H{right}" stroke="#e4e4e4"/>')
        found.append(f'<text x="{left - 8}" y="{y + 4:.1f}" text-anchor="end">{escape(format_bytes(10.0**n))}</text>')
    return found


def _line(axes: _Axes, across: str, value: float, label: str, colour: str) -> str:
    if across == "y":
        y, right = axes.y(value), WIDTH - RIGHT
        path, place = f"M{LEFT} {y:.1f}H{right}", f'x="{right + 6}" y="{y + 4:.1f}"'
    else:
        x = axes.x(value)
        path, place = f"M{x:.1f} {TOP}V{HEIGHT - BOTTOM}", f'x="{x + 5:.1f}" y="{TOP + 14}"'
    return f'<path d="{path}" stroke="{colour}" stroke-dasharray="6 4"/><text {place} fill="{colour}">{escape(label)}</text>'


def _stairs(axes: _Axes, curve: CapacityCurve) -> str:
    first, *rest = curve.corners
    path = f"M{axes.x(first.capacity_bytes):.1f} {axes.y(first.traffic_bytes):.1f}"
    for corner in rest:
        path += f"H{axes.x(corner.capacity_bytes):.1f}V{axes.y(corner.traffic_bytes):.1f}"
    path += f"H{WIDTH - RIGHT}"
    return f'<path d="{path}" fill="none" stroke="{COLOURS[0]}" stroke-width="2"/>'


def _dot(axes: _Axes, size: float, moved: float, label: str) -> str:
    x, y = axes.x(size), axes.y(moved)
    circle = f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5" fill="{COLOURS[0]}"/>'
    return circle + f'<text x="{x + 8:.1f}" y="{y - 8:.1f}">{escape(label)}</text>'
