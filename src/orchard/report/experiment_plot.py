"""Drawings of an experiment as SVG: losses with intervals, and how two factors act together. Same bytes for the same run."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

from orchard.report.plot import COLOURS
from orchard.studies.experiment.findings import Arm, Findings

ROW, LEFT, WIDTH, TOP, BOTTOM, RIGHT = 18, 330, 860, 56, 44, 30
LEAST = 1e-4
"""Losses below are drawn at this: the axis is logarithmic."""
STYLE = 'font-family="system-ui, sans-serif" font-size="12" fill="currentColor"'


def arms_svg(found: Findings) -> str:
    """Every arm's loss with its 95 % interval on a logarithmic axis."""
    arms = found.arms
    high = max(LEAST * 10, *(a.loss.high for a in arms))
    decades = (math.log10(LEAST), math.ceil(math.log10(high)))
    height = TOP + ROW * len(arms) + BOTTOM
    fixtures = list(dict.fromkeys(a.fixture for a in arms))
    body = [
        _text(12, 22, f"{found.outcome.experiment.name}: loss over the uncompressed model, nats per token", bold=True)
    ]
    for index, fixture in enumerate(fixtures):
        body.append(_text(LEFT + 90 * index, 42, fixture, colour=COLOURS[index % len(COLOURS)]))
    body += _axis(decades, height)
    for index, arm in enumerate(arms):
        body += _arm(arm, TOP + ROW * index + ROW / 2, decades, COLOURS[fixtures.index(arm.fixture) % len(COLOURS)])
    return _svg(
        WIDTH, height, body, f"Loss of {len(arms)} arms with 95 % intervals; values below {LEAST} are drawn there."
    )


def _x(value: float, decades: tuple[float, float]) -> float:
    share = (math.log10(max(value, LEAST)) - decades[0]) / (decades[1] - decades[0])
    return LEFT + share * (WIDTH - LEFT - RIGHT)


def _axis(decades: tuple[float, float], height: int) -> list[str]:
    out = []
    for power in range(round(decades[0]), round(decades[1]) + 1):
        x = _x(10.0**power, decades)
        out.append(
            f'<line x1="{x:.1f}" y1="{TOP}" x2="{x:.1f}" y2="{height - BOTTOM}" stroke="#8888" stroke-width="0.5"/>'
        )
        out.append(_text(x - 12, height - BOTTOM + 16, f"{10.0**power:g}"))
    return out


def _arm(arm: Arm, y: float, decades: tuple[float, float], colour: str) -> list[str]:
    low, value, high = (_x(v, decades) for v in (arm.loss.low, arm.loss.value, arm.loss.high))
    name = arm.technique if len(arm.technique) <= 52 else arm.technique[:49] + "..."
    return [
        _text(12, y + 4, name),
        f'<line x1="{low:.1f}" y1="{y:.1f}" x2="{high:.1f}" y2="{y:.1f}" stroke="{colour}" stroke-width="2"/>',
        f'<circle cx="{value:.1f}" cy="{y:.1f}" r="3.5" fill="{colour}"/>',
    ]


def interaction_svg(found: Findings, fixture: str) -> str | None:
    """Mean loss over the levels of the factor that matters most, a line per level of the one it acts with most; None without."""
    pairs = [e for e in found.effects.get(fixture, ()) if len(e.term) == 2 and "seed" not in e.term]
    if not pairs:
        return None
    first, second = pairs[0].term
    cells: dict[tuple[str, str], list[float]] = {}
    for arm in (a for a in found.arms if a.fixture == fixture):
        cells.setdefault((arm.levels[first], arm.levels[second]), []).append(math.log(max(arm.loss.value, LEAST)))
    means = {key: math.exp(sum(v) / len(v)) for key, v in cells.items()}
    return _lines(
        means, first, second, f"{found.outcome.experiment.name} on {fixture}: {first} x {second}, p {pairs[0].p:.2g}"
    )


def _lines(means: Mapping[tuple[str, str], float], first: str, second: str, title: str) -> str:
    width, height, left, top, bottom = 620, 400, 80, 50, 60
    across = list(dict.fromkeys(k[0] for k in means))
    series = list(dict.fromkeys(k[1] for k in means))
    low, high = math.floor(math.log10(min(means.values()))), math.ceil(math.log10(max(means.values())) + 1e-9)
    high = max(high, low + 1)

    def place(index: int, value: float) -> tuple[float, float]:
        x = left + (width - left - 140) * index / max(1, len(across) - 1)
        return x, top + (high - math.log10(value)) / (high - low) * (height - top - bottom)

    body = [_text(12, 22, title, bold=True), _text(12, 40, "mean loss, nats per token")]
    for power in range(low, high + 1):
        y = place(0, 10.0**power)[1]
        body.append(
            f'<line x1="{left}" y1="{y:.1f}" x2="{width - 140}" y2="{y:.1f}" stroke="#8888" stroke-width="0.5"/>'
        )
        body.append(_text(24, y + 4, f"{10.0**power:g}"))
    for index, level in enumerate(across):
        body.append(_text(place(index, 10.0**low)[0] - 10, height - bottom + 18, level))
    body.append(_text(left, height - 14, first))
    for index, level in enumerate(series):
        body += _series([place(i, means[a, level]) for i, a in enumerate(across) if (a, level) in means], index)
        body.append(
            _text(width - 130, top + 16 * index + 10, f"{second} {level}", colour=COLOURS[index % len(COLOURS)])
        )
    return _svg(width, height, body, title)


def _series(points: Sequence[tuple[float, float]], index: int) -> list[str]:
    colour = COLOURS[index % len(COLOURS)]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    dots = [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{colour}"/>' for x, y in points]
    return [f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>', *dots]


def _text(x: float, y: float, text: str, *, bold: bool = False, colour: str = "") -> str:
    style = STYLE.replace('fill="currentColor"', f'fill="{colour}"') if colour else STYLE
    weight = ' font-weight="600"' if bold else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" {style}{weight}>{escape(text)}</text>'


def _svg(width: int, height: int, body: Sequence[str], about: str) -> str:
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" color="#222">'
    return "\n".join(
        [
            head,
            f"<desc>{escape(about)}</desc>",
            f'<rect width="{width}" height="{height}" fill="white"/>',
            *body,
            "</svg>",
            "",
        ]
    )
