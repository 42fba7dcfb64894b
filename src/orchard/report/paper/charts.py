"""Charts as SVG text, written by hand: no plotting library, the same bytes for the same values.

Colours are classes (`compute`, `memory`, ...) that the page's style sheet defines for light, dark and print. Marks of different
series differ in shape or in brightness too. Every chart has `role="img"`, a title and a description; a mark tells its values on
hover.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from html import escape

from orchard.report.paper.document import Areas, Bar, Bars, Dot, Figure, Lanes, Line, Piece, Scatter, shown

WIDTH = 760
SERIES = ("compute", "memory", "dispatch", "s4", "s5", "s6")
NAMED = {
    "compute": "compute", "memory": "memory", "dispatch": "dispatch", "host": "host", "weights": "compute", "cache": "memory",
    "activations": "dispatch", "arithmetic": "compute", "DRAM": "memory", "active power": "dispatch",
}  # fmt: skip
"""Series with a colour of their own; the others take the next free one."""


def svg(figure: Figure) -> str:
    """The chart of a figure."""
    chart = figure.chart
    if isinstance(chart, Bars):
        height, body = _bars(chart)
    elif isinstance(chart, Scatter):
        height, body = _scatter(chart)
    elif isinstance(chart, Lanes):
        height, body = _lanes(chart)
    else:
        height, body = _areas(chart)
    name = figure.id
    head = (
        f'<svg viewBox="0 0 {WIDTH} {height:.0f}" role="img" aria-labelledby="{name}-t {name}-d" '
        f'preserveAspectRatio="xMidYMid meet">'
        f'<title id="{name}-t">{escape(figure.title)}</title><desc id="{name}-d">{escape(figure.about)}</desc>'
    )
    return "\n".join([head, *body, "</svg>"])


def classes(names: Sequence[str]) -> dict[str, str]:
    """The style class of each series, in order of first appearance."""
    free = [s for s in SERIES if s not in {NAMED.get(n) for n in names}]
    found: dict[str, str] = {}
    for name in names:
        if name not in found:
            found[name] = NAMED[name] if name in NAMED else free.pop(0) if free else "other"
    return found


def _text(x: float, y: float, text: str, anchor: str = "start", cls: str = "") -> str:
    kind = f' class="{cls}"' if cls else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{kind}>{escape(text)}</text>'


def _rect(x: float, y: float, width: float, height: float, cls: str, tip: str = "") -> str:
    inner = f"<title>{escape(tip)}</title>" if tip else ""
    return f'<rect x="{x:.1f}" y="{y:.1f}" width="{max(width, 0.4):.1f}" height="{height:.1f}" class="{cls}">{inner}</rect>'


def _legend(names: Sequence[str], colours: dict[str, str], y: float, *, marks: bool = False) -> Iterator[str]:
    """Name and colour of each series; with `marks` the shape of its points."""
    x = 8.0
    for place, name in enumerate(names):
        yield _mark(x + 6, y - 4, 6.0, colours[name], place) if marks else _rect(x, y - 10, 12, 12, colours[name])
        yield _text(x + 18, y, name)
        x += 34 + 7.2 * len(name)


# ---------------------------------------------------------------------------------------------------------------- bars

LABELS, VALUES, ROW = 190, 96, 26


def _bars(chart: Bars) -> tuple[float, list[str]]:
    names = list(dict.fromkeys(name for row in chart.rows for name, _ in row.parts))
    colours = classes(names)
    most = max((sum(abs(v) for _, v in row.parts) for row in chart.rows), default=0.0) or 1.0
    several = len(names) > 1
    top = 30.0 if several else 6.0
    body = list(_legend(names, colours, 16)) if several else []
    for place, row in enumerate(chart.rows):
        body += _bar(row, top + ROW * place, most, colours, chart.dimension)
    return top + ROW * len(chart.rows) + 6, body


def _bar(row: Bar, y: float, most: float, colours: dict[str, str], dimension: str) -> list[str]:
    total = sum(v for _, v in row.parts)
    scale = (WIDTH - LABELS - VALUES) / most
    x = float(LABELS)
    body = [_text(LABELS - 8, y + 16, _short(row.label, 26), "end")]
    for name, value in row.parts:
        if value:
            tip = f"{row.label}, {name}: {shown(value, dimension)}"
            body.append(_rect(x, y + 3, abs(value) * scale, ROW - 8, colours[name], tip))
            x += abs(value) * scale
    body.append(_text(x + 6, y + 16, shown(total, dimension), cls="num"))
    return body


def _short(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


# -------------------------------------------------------------------------------------------------------------- scatter

PAD_L, PAD_R, PAD_T, PAD_B, PLOT_H = 78, 18, 34, 48, 300


class _Scale:
    """Values to pixels along one axis."""

    def __init__(
        self, values: Sequence[float], first: float, last: float, log: bool, dimension: str = "number"
    ) -> None:
        self.log, self.first, self.last, self.dimension = log, first, last, dimension
        low, high = min(values), max(values)
        if log:
            self.low, self.high = math.log10(low) - 0.12, math.log10(high) + 0.12
        else:
            pad = (high - low or abs(high) or 1.0) * 0.06
            self.low, self.high = (low - pad if low - pad > 0 or low < 0 else 0.0), high + pad

    def __call__(self, value: float) -> float:
        inner = math.log10(value) if self.log else value
        return self.first + (inner - self.low) / (self.high - self.low) * (self.last - self.first)

    def ticks(self) -> list[float]:
        if not self.log:
            return ticks(self.low, self.high, self.dimension)
        decades = range(math.ceil(self.low), math.floor(self.high) + 1)
        found = [10.0**e for e in decades]
        if len(found) >= 2:
            return found
        return [m * 10.0**e for e in range(math.floor(self.low), math.ceil(self.high) + 1) for m in (1, 2, 5)
                if self.low <= math.log10(m * 10.0**e) <= self.high]  # fmt: skip


def ticks(low: float, high: float, dimension: str) -> list[float]:
    """Round numbers of the unit they will be printed in."""
    unit = 1024.0 ** max(0, math.floor(math.log(high, 1024))) if dimension == "bytes" and high >= 1 else 1.0
    return [t * unit for t in nice(low / unit, high / unit)]


def nice(low: float, high: float, most: int = 6) -> list[float]:
    """Round numbers from low to high, at most `most`."""
    raw = (high - low) / most
    if raw <= 0:
        return [low]
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * m for m in (1, 2, 5, 10) if power * m >= raw * (1 - 1e-9))
    first = math.ceil(low / step - 1e-9)
    return [step * i for i in range(first, math.floor(high / step + 1e-9) + 1)]


def _axes(x: _Scale, y: _Scale, height: float, titles: tuple[str, str], dimensions: tuple[str, str]) -> list[str]:
    bottom, right = height - PAD_B, WIDTH - PAD_R
    body = [f'<path class="grid" d="M{x(t):.1f} {PAD_T}V{bottom}"/>' for t in x.ticks()]
    body += [f'<path class="grid" d="M{PAD_L} {y(t):.1f}H{right}"/>' for t in y.ticks()]
    body += [_text(x(t), bottom + 17, shown(t, dimensions[0]), "middle", "num") for t in x.ticks()]
    body += [_text(PAD_L - 7, y(t) + 4, shown(t, dimensions[1]), "end", "num") for t in y.ticks()]
    body.append(_text((PAD_L + right) / 2, height - 8, titles[0], "middle"))
    body.append(_text(PAD_L, PAD_T - 12, titles[1]))
    return body


def _scatter(chart: Scatter) -> tuple[float, list[str]]:
    height = PAD_T + PLOT_H + PAD_B
    ends = [p for line in chart.lines for p in line.points]
    x = _Scale([*(d.x for d in chart.dots), *(p[0] for p in ends)], PAD_L, WIDTH - PAD_R, chart.log, chart.x_dimension)
    y = _Scale([*(d.y for d in chart.dots), *(p[1] for p in ends)], height - PAD_B, PAD_T, chart.log, chart.y_dimension)
    names = list(dict.fromkeys(d.series for d in chart.dots))
    colours = classes(names)
    body = _axes(x, y, height, (chart.x_title, chart.y_title), (chart.x_dimension, chart.y_dimension))
    for line in chart.lines:
        body += _line(line, x, y)
    for dot in sorted(chart.dots, key=lambda d: (-d.weight, d.label)):
        shape = names.index(dot.series)
        body.append(_dot(dot, x(dot.x), y(dot.y), colours[dot.series], shape))
    body += _dot_labels(chart.dots, x, y)
    if len(names) > 1:
        body += [f'<g transform="translate(0 {height})">', *_legend(names, colours, 16, marks=True), "</g>"]
        height += 26
    return height, body


def _line(line: Line, x: _Scale, y: _Scale) -> list[str]:
    points = " ".join(f"{x(a):.1f},{y(b):.1f}" for a, b in line.points)
    end_x, end_y = line.points[-1]
    if line.kind != "limit":
        return [f'<polyline class="{line.kind}" points="{points}"/>']
    return [
        f'<polyline class="limit" points="{points}"/>',
        _text(min(x(end_x), WIDTH - PAD_R) - 6, y(end_y) - 7, line.label, "end", "halo"),
    ]


def _dot(dot: Dot, x: float, y: float, cls: str, shape: int) -> str:
    return _mark(x, y, _radius(dot), cls, shape, f"<title>{escape(dot.label)}</title>")


def _radius(dot: Dot) -> float:
    return 3.2 + 11.0 * math.sqrt(max(0.0, min(1.0, dot.weight)))


def _mark(x: float, y: float, r: float, cls: str, shape: int, tip: str = "") -> str:
    """A circle, a square or a triangle."""
    if shape % 3 == 1:
        return f'<rect class="dot {cls}" x="{x - r:.1f}" y="{y - r:.1f}" width="{2 * r:.1f}" height="{2 * r:.1f}">{tip}</rect>'
    if shape % 3 == 2:
        corners = f"{x:.1f},{y - 1.3 * r:.1f} {x + 1.2 * r:.1f},{y + r:.1f} {x - 1.2 * r:.1f},{y + r:.1f}"
        return f'<polygon class="dot {cls}" points="{corners}">{tip}</polygon>'
    return f'<circle class="dot {cls}" cx="{x:.1f}" cy="{y:.1f}" r="{r:.1f}">{tip}</circle>'


def _dot_labels(dots: Sequence[Dot], x: _Scale, y: _Scale) -> Iterator[str]:
    """Names of the points that ask for one, where they do not run into another name."""
    taken: list[tuple[float, float, float]] = []
    for dot in sorted(dots, key=lambda d: (-d.weight, d.label)):
        if not dot.named:
            continue
        text = _short(dot.label.partition(":")[0], 28)
        width, at_y = 7.0 * len(text), y(dot.y) + _radius(dot) + 13
        at_x = min(x(dot.x) - width / 2, WIDTH - PAD_R - width)
        if any(abs(at_y - ty) < 14 and at_x < tx + tw + 4 and tx < at_x + width + 4 for tx, ty, tw in taken):
            continue
        taken.append((at_x, at_y, width))
        yield _text(at_x, at_y, text, cls="halo")


# ------------------------------------------------------------------------------------------------------------- timeline

LANE, LANE_LABELS, CURVE = 34, 104, 84


def _lanes(chart: Lanes) -> tuple[float, list[str]]:
    names = list(dict.fromkeys(p.series for _, pieces in chart.lanes for p in pieces))
    colours = classes(names)
    scale = (WIDTH - LANE_LABELS - PAD_R) / chart.seconds
    body, y = list(_legend(names, colours, 16)), 32.0
    for name, pieces in chart.lanes:
        body.append(_text(LANE_LABELS - 8, y + 20, name, "end"))
        body.append(_rect(LANE_LABELS, y, WIDTH - LANE_LABELS - PAD_R, LANE - 6, "lane"))
        for p in pieces:
            tip = f"{p.label}: {shown(p.length, 's')} from {shown(p.start, 's')}, mostly {p.series}"
            body.append(
                _rect(LANE_LABELS + p.start * scale, y, p.length * scale, LANE - 6, f"{colours[p.series]} piece", tip)
            )
        y += LANE
    if chart.rate_title and chart.most > 0:
        body += _rate_curve([p for _, found in chart.lanes for p in found], chart, y, scale)
        y += CURVE
    for tick in nice(0.0, chart.seconds):
        body.append(f'<path class="grid" d="M{LANE_LABELS + tick * scale:.1f} 32V{y:.1f}"/>')
        body.append(_text(LANE_LABELS + tick * scale, y + 16, shown(tick, "s") if tick else "0", "middle", "num"))
    return y + 24, body


def _rate_curve(pieces: Sequence[Piece], chart: Lanes, y: float, scale: float) -> list[str]:
    """Bytes per second as a step curve under its limit."""
    top, bottom = y + 22, y + CURVE - 8
    unit = (bottom - top) / chart.most
    steps = []
    for p in sorted(pieces, key=lambda p: p.start):
        level = bottom - min(p.rate, chart.most) * unit
        steps.append(
            f"L{LANE_LABELS + p.start * scale:.1f} {level:.1f}L{LANE_LABELS + (p.start + p.length) * scale:.1f} {level:.1f}"
        )
    right = WIDTH - PAD_R
    return [
        _text(LANE_LABELS, y + 14, f"{chart.rate_title}; the line is {shown(chart.most, 'bytes_per_s')}"),
        f'<path class="area memory" d="M{LANE_LABELS} {bottom:.1f}{"".join(steps)}L{right} {bottom:.1f}Z"/>',
        f'<path class="limit" d="M{LANE_LABELS} {top:.1f}H{right}"/>',
    ]


# ---------------------------------------------------------------------------------------------------------------- areas


def _areas(chart: Areas) -> tuple[float, list[str]]:
    height = PAD_T + 220 + PAD_B
    sums = [sum(values[i] for _, values in chart.series) for i in range(len(chart.at))]
    near = chart.limit <= 3.0 * max(sums)
    most = max([*sums, chart.limit]) if near else max(sums)
    x = _Scale([min(chart.at), max(chart.at) or 1.0], PAD_L, WIDTH - PAD_R, log=False)
    x.low, x.high = min(chart.at), max(chart.at) or 1.0
    y = _Scale([0.0, most], height - PAD_B, PAD_T, log=False, dimension=chart.dimension)
    y.low = 0.0
    names = [name for name, _ in chart.series]
    colours = classes(names)
    body = _axes(x, y, height, (chart.x_title, ""), (chart.x_dimension, chart.dimension))
    below = [0.0] * len(chart.at)
    for name, values in chart.series:
        above = [b + v for b, v in zip(below, values, strict=True)]
        body.append(_area(chart.at, below, above, x, y, colours[name], name))
        below = above
    if near:
        body.append(f'<path class="limit" d="M{PAD_L} {y(chart.limit):.1f}H{WIDTH - PAD_R}"/>')
        body.append(_text(WIDTH - PAD_R - 6, y(chart.limit) + 15, chart.limit_label, "end", "halo"))
    body += [f'<g transform="translate({PAD_L - 8} 0)">', *_legend(names, colours, 18), "</g>"]
    return height, body


def _area(
    at: Sequence[float], below: Sequence[float], above: Sequence[float], x: _Scale, y: _Scale, cls: str, name: str
) -> str:
    upper = " ".join(f"{x(a):.1f},{y(v):.1f}" for a, v in zip(at, above, strict=True))
    lower = " ".join(f"{x(a):.1f},{y(v):.1f}" for a, v in reversed([*zip(at, below, strict=True)]))
    return f'<polygon class="area {cls}" points="{upper} {lower}"><title>{escape(name)}</title></polygon>'
