"""Closed forms as a person reads them."""

from __future__ import annotations

import re

from rich.console import Group, RenderableType
from rich.text import Text

from orchard.ir import Size
from orchard.report.layout import heading, indented, number, stacked, table
from orchard.studies.complexity import MEANING, Complexity, Crossing, Forms, Machine
from orchard.units import format_bytes, format_count, format_ops_rate, format_rate

_POWERS = {"2": "²", "3": "³", "4": "⁴"}


def pretty(form: Size) -> str:
    """ "297,792·B·T² + 7,271,242,560·B·T": exact, with thousands separators."""
    text = re.sub(r"\*\*(\d)", lambda m: _POWERS.get(m[1], f"^{m[1]}"), str(form))
    text = re.sub(r"\d{4,}", lambda m: f"{int(m[0]):,}", text)
    return text.replace("*", "·")


def render_complexity(c: Complexity) -> RenderableType:
    """Forms per phase; with a chip, where the bound changes."""
    title = Text(c.model, style="bold")
    title.append(f"  {format_count(c.params)} parameters", style="dim")
    facts = [f"weights {c.weights}"]
    if c.cache_bytes_per_token:
        facts += [f"kv {c.kv}", f"cache {format_bytes(c.cache_bytes_per_token)} per token and sequence"]
    parts: list[RenderableType | None] = [
        title,
        Text(" · ".join(facts), style="dim"),
        Text("B batch, T new tokens, S tokens attended to; per call, exact", style="dim"),
    ]
    for forms in c.phases:
        parts += [Text(), heading(_title(forms.phase)), _forms(forms)]
    if any("distinct(" in pretty(f) for forms in c.phases for f in forms.counts().values()):
        note = "distinct(n, k, r): experts of n that r tokens are expected to touch, k each: n·(1 - (1 - k/n)^r)"
        parts += [Text(), Text(note, style="dim")]
    parts += [Text(), *(Text(f"{name}: {text}", style="dim") for name, text in MEANING.items())]
    if c.machine is not None:
        parts += [Text(), _machine(c.machine)]
    return stacked(*parts)


def _title(phase: str) -> str:
    return {"prefill": "prefill (empty cache: S = T)", "decode": "decode (one token: T = 1)"}.get(phase, phase)


def _forms(forms: Forms) -> RenderableType:
    rows: list[list[str | Text]] = [[name, Text(pretty(form))] for name, form in forms.counts().items()]
    ratio = Text(f"({pretty(forms.ops)}) / ({pretty(forms.touched_bytes)})")
    rows.append(["intensity", ratio])
    made = table(["", ""], rows, left=(0, 1))
    made.show_header = False
    return Group(indented(made))


def _machine(m: Machine) -> RenderableType:
    rates = f"peak {format_ops_rate(m.peak_ops_per_s)}, DRAM {format_rate(m.bytes_per_s)}"
    lines = [
        Text(f"{rates}: ridge at {number(m.ridge)} ops per byte"),
        *(Text(_crossing(c)) for c in m.crossings),
    ]
    if m.cache_equals_weights:
        lines.append(Text(f"decode reads as much cache as weights from context S = {m.cache_equals_weights:,} on"))
    return Group(heading(f"on {m.chip} ({m.runtime}, {m.engine})"), *(indented(line) for line in lines))


def _crossing(c: Crossing) -> str:
    at = ", ".join(f"{name} = {value:,}" for name, value in c.at.items() if name != c.symbol and value)
    where = f"{c.phase} at {at}" if at else c.phase
    by_bound = _from(c.symbol, c.bound, c.limit)
    by_estimate = _from(c.symbol, c.estimate, c.limit)
    return f"{where}: compute outweighs memory {by_bound} by the bound, {by_estimate} by the estimate"


def _from(symbol: str, value: int | None, limit: int) -> str:
    if value is None:
        return f"nowhere up to {symbol} = {limit:,}"
    return f"from {symbol} = {value:,}" if value > 1 else "always"
