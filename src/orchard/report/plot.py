"""Predicted against measured as an SVG drawing, written by hand: no plotting library, same bytes for the same points."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from orchard.studies.validate import Point
from orchard.units import format_seconds

WIDTH, HEIGHT = 860, 680
LEFT, RIGHT, TOP, BOTTOM = 86, 220, 64, 68
BAND = 0.15
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#7f7f7f")
"""Okabe and Ito's palette: told apart with the common colour-vision deficiencies. Marks differ too."""
MARKS = ("circle", "square", "triangle", "diamond")


def scatter_svg(points: Sequence[Point], *, title: str) -> str:
    """A log-log scatter with the identity line and a band of ±15 %; one colour and mark per runtime and engine.

    Points without a positive finite time on both axes are left out and counted in the caption.
    """
    drawn = [p for p in points if _drawable(p.measured_s) and _drawable(p.predicted_s)]
    frame = _Frame([t for p in drawn for t in (p.measured_s, p.predicted_s)])
    series = sorted({(p.runtime, p.engine) for p in drawn})
    inside = sum(abs(p.predicted_s / p.measured_s - 1) <= BAND for p in drawn)
    share = f"{inside / len(drawn) * 100:.0f} %" if drawn else "none"
    about = (
        f"{len(drawn)} measured rows; {share} of the predictions lie within {BAND * 100:.0f} % of the measurement, the "
        f"grey band. Points above the diagonal were predicted slower than measured."
    )
    if len(drawn) < len(points):
        about += f" {len(points) - len(drawn)} rows have no prediction and are left out."
    body = [_band(frame), *_grid(frame), _diagonal(frame)]
    for index, key in enumerate(series):
        body.append(_series(frame, index, key, [p for p in drawn if (p.runtime, p.engine) == key]))
    body += [*_labels(title, share, len(drawn)), *_legend(series, drawn)]
    return "\n".join([_open(title, about), *body, "</svg>", ""])


def _drawable(seconds: float) -> bool:
    return math.isfinite(seconds) and seconds > 0


class _Frame:
    """Seconds to pixels; whole decades on both axes."""

    def __init__(self, seconds: Sequence[float]) -> None:
        logs = [math.log10(s) for s in seconds] or [-3.0, 0.0]
        self.low, self.high = math.floor(min(logs) - 0.02), math.ceil(max(logs) + 0.02)

    def x(self, seconds: float) -> float:
        return LEFT + self._share(seconds) * (WIDTH - LEFT - RIGHT)

    def y(self, seconds: float) -> float:
        return HEIGHT - BOTTOM - self._share(seconds) * (HEIGHT - TOP - BOTTOM)

    def _share(self, seconds: float) -> float:
        return (math.log10(seconds) - self.low) / (self.high - self.low)

    @property
    def decades(self) -> list[float]:
        return [10.0**e for e in range(self.low, self.high + 1)]


def _open(title: str, about: str) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" '
        f'role="img" aria-labelledby="title about" font-family="Helvetica, Arial, sans-serif" font-size="13">\n'
        f'<title id="title">{escape(title)}</title>\n<desc id="about">{escape(about)}</desc>\n'
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>\n'
        f'<clipPath id="frame"><rect x="{LEFT}" y="{TOP}" width="{WIDTH - LEFT - RIGHT}" '
        f'height="{HEIGHT - TOP - BOTTOM}"/></clipPath>'
    )


def _band(f: _Frame) -> str:
    first, last = 10.0**f.low, 10.0**f.high
    corners = [
        (first, first * (1 + BAND)), (last, last * (1 + BAND)), (last, last * (1 - BAND)), (first, first * (1 - BAND)),
    ]  # fmt: skip
    points = " ".join(f"{f.x(x):.1f},{f.y(y):.1f}" for x, y in corners)
    return f'<polygon points="{points}" fill="#dddddd" clip-path="url(#frame)"/>'


def _diagonal(f: _Frame) -> str:
    first, last = 10.0**f.low, 10.0**f.high
    ends = f'x1="{f.x(first):.1f}" y1="{f.y(first):.1f}" x2="{f.x(last):.1f}" y2="{f.y(last):.1f}"'
    return f'<line {ends} stroke="#444444"/>'


def _grid(f: _Frame) -> list[str]:
    lines = []
    bottom, right = HEIGHT - BOTTOM, WIDTH - RIGHT
    for decade in f.decades:
        x, y, text = f.x(decade), f.y(decade), format_seconds(decade)
        lines.append(f'<path d="M{x:.1f} {TOP}V{bottom}M{LEFT} {y:.1f}H{right}" stroke="#cccccc" stroke-width="0.7"/>')
        lines.append(f'<text x="{x:.1f}" y="{bottom + 20}" text-anchor="middle">{text}</text>')
        lines.append(f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{text}</text>')
    return lines


def _series(f: _Frame, index: int, key: tuple[str, str], points: Sequence[Point]) -> str:
    colour, mark = COLOURS[index % len(COLOURS)], MARKS[index % len(MARKS)]
    shapes = [
        _mark(mark, f.x(p.measured_s), f.y(p.predicted_s), 3.2, _about(p))
        for p in sorted(points, key=lambda p: (p.measured_s, p.id))
    ]
    style = f'fill="{colour}" fill-opacity="0.55" stroke="{colour}" stroke-width="0.6"'
    return f'<g {style} aria-label="{escape(" ".join(key))}">\n' + "\n".join(shapes) + "\n</g>"


def _about(p: Point) -> str:
    error = (p.predicted_s / p.measured_s - 1) * 100
    return (
        f"{p.id}: {p.model} on {p.chip}, {p.phase}: measured {format_seconds(p.measured_s)}, "
        f"predicted {format_seconds(p.predicted_s)} ({error:+.1f} %)"
    )


def _mark(kind: str, x: float, y: float, r: float, about: str = "") -> str:
    inner = f"<title>{escape(about)}</title>" if about else ""
    if kind == "circle":
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{r}">{inner}</circle>'
    if kind == "square":
        return f'<rect x="{x - r:.1f}" y="{y - r:.1f}" width="{2 * r}" height="{2 * r}">{inner}</rect>'
    if kind == "triangle":
        corners = ((x, y - 1.3 * r), (x + 1.2 * r, y + r), (x - 1.2 * r, y + r))
    else:
        corners = ((x, y - 1.4 * r), (x + 1.4 * r, y), (x, y + 1.4 * r), (x - 1.4 * r, y))  # type: ignore[assignment]
    text = " ".join(f"{cx:.1f},{cy:.1f}" for cx, cy in corners)
    return f'<polygon points="{text}">{inner}</polygon>'


def _labels(title: str, share: str, rows: int) -> list[str]:
    middle_x, middle_y = (LEFT + WIDTH - RIGHT) / 2, (TOP + HEIGHT - BOTTOM) / 2
    return [
        f'<text x="{LEFT}" y="28" font-size="17" font-weight="bold">{escape(title)}</text>',
        f'<text x="{LEFT}" y="49" fill="#555555">{rows} rows, {share} within ±{BAND * 100:.0f} % (grey band)</text>',
        f'<text x="{middle_x}" y="{HEIGHT - 20}" text-anchor="middle">measured time of a phase (decode: per token)</text>',
        f'<text transform="translate(20 {middle_y}) rotate(-90)" text-anchor="middle">predicted time</text>',
    ]


def _legend(series: Sequence[tuple[str, str]], points: Sequence[Point]) -> list[str]:
    parts = []
    for index, (runtime, engine) in enumerate(series):
        y = TOP + 14 + 24 * index
        colour = COLOURS[index % len(COLOURS)]
        count = sum((p.runtime, p.engine) == (runtime, engine) for p in points)
        mark = _mark(MARKS[index % len(MARKS)], WIDTH - RIGHT + 24, y - 4, 5)
        parts.append(f'<g fill="{colour}" fill-opacity="0.7" stroke="{colour}">{mark}</g>')
        parts.append(f'<text x="{WIDTH - RIGHT + 38}" y="{y}">{escape(runtime)}, {escape(engine)} ({count})</text>')
    return parts
