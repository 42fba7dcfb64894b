"""A simulated scenario for a person."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import RenderableType
from rich.text import Text

from orchard.report.layout import heading, indented, number, percent, stacked, table
from orchard.studies.simulate import Simulation
from orchard.workloads.scenarios import Scenario

LETTERS = {
    "queue": ("q", "yellow"), "preempted": ("p", "yellow"), "host": ("h", "white"), "compute": ("█", "cyan"),
    "memory": ("▓", "magenta"), "dispatch": ("░", "yellow"), "contention": ("c", "red"), "clock": ("v", "red"),
}  # fmt: skip
SPARKS = "▁▂▃▄▅▆▇█"


def render_simulation(made: Simulation) -> RenderableType:
    """Streams, where their time goes, engines, memory, power and heat. At most 80 columns."""
    record = made.to_dict()
    return stacked(
        heading(f"{record['scenario']['name']} on {record['chip']['name']}, {record['chassis']}"),
        Text(f"{number(record['seconds'])} s simulated, seed {record['seed']}, {record['ops']:,} op executions", style="dim"),
        Text(), _streams(record), Text(), heading("where the time of a request goes"), indented(_causes(record)),
        Text(), _engines(record), Text(), _machine(record), _over_time(record),
    )  # fmt: skip


def _streams(record: Mapping[str, Any]) -> RenderableType:
    rows = []
    for s in record["streams"]:
        latency = s["latency_s"]
        rows.append((
            s["name"], s["engine"] + ("*" if s["placed"] else ""), f"{s['completed']:,}",
            *(_ms(latency[q]) for q in ("p50", "p95", "p99")), _ms(s["alone_s"]),
            "-" if s["deadline_s"] is None else f"{s['missed']:,}", f"{s['dropped']:,}" if s["dropped"] else "-",
        ))  # fmt: skip
    made = table(
        ("stream", "on", "done", "p50 ms", "p95 ms", "p99 ms", "alone", "late", "lost"), rows, left=(0, 1), gap=1
    )
    placed = any(s["placed"] for s in record["streams"])
    return stacked(made, Text("* placed for you", style="dim") if placed else None)


def _ms(seconds: float) -> str:
    return number(seconds * 1e3)


def _causes(record: Mapping[str, Any]) -> RenderableType:
    width = 28
    rows = []
    for s in record["streams"]:
        shares = s["shares"]
        listed = [(c, shares[c]) for c in LETTERS if shares[c] >= 0.005]
        top = sorted(listed, key=lambda x: -x[1])[:2]
        rows.append((s["name"], _bar(shares, width), ", ".join(f"{c} {percent(x)}" for c, x in top)))
    return table(("stream", "", "most of it"), rows, left=(0, 1, 2), gap=1)


def _bar(shares: Mapping[str, float], width: int) -> Text:
    """Cells by running sum, so that the bar is always `width` long (empty where nothing has run)."""
    text, total, before = Text(), 0.0, 0
    for cause, (letter, colour) in LETTERS.items():
        total += shares[cause]
        now = round(total * width)
        text.append(letter * (now - before), style=colour)
        before = now
    return text


def _engines(record: Mapping[str, Any]) -> RenderableType:
    rows = [
        (e["name"] + (f" x{e['units']}" if e["units"] > 1 else ""), percent(e["utilization"]), percent(e["mean_clock"]),
         number(e["mean_waiting"]), str(e["most_waiting"]), number(e["energy_j"]))
        for e in record["engines"]
    ]  # fmt: skip
    return table(("engine", "busy", "clock", "waiting", "most", "energy J"), rows)


def _machine(record: Mapping[str, Any]) -> RenderableType:
    memory, power, heat = record["memory"], record["power"], record["heat"]
    lines = [
        f"memory  {number(memory['mean_bytes_per_s'] / 1e9)} GB/s of {number(memory['capacity_bytes_per_s'] / 1e9)} on "
        f"average ({percent(memory['utilization'])}), peak {number(memory['peak_bytes_per_s'] / 1e9)}",
        f"power   {number(power['mean_w'])} W on average, peak {number(power['peak_w'])} W; {number(power['energy_j'])} J",
    ]
    if heat:
        lines.append(
            f"heat    die at most {number(heat['most_die_c'])} °C, case {number(heat['most_case_c'])} °C; clocks lowered "
            f"{percent(heat['throttled_share'])} of the time"
        )
    if record["trace"]:
        lines.append(f"trace   {record['trace']}")
    return Text("\n".join(lines))


def _over_time(record: Mapping[str, Any]) -> RenderableType | None:
    series = record["series"]
    if len(series["rows"]) < 8:
        return None
    shown = {"power_w": ("power", "W", 1.0), "die_c": ("die", "°C", 1.0), "dram_bytes_per_s": ("DRAM", "GB/s", 1e-9)}
    lines = []
    for column, (name, unit, scale) in shown.items():
        values = [row[series["columns"].index(column)] * scale for row in series["rows"]]
        if any(values):
            lines.append(f"{name:<7} {sparkline(values, 50)}  {number(min(values))} to {number(max(values))} {unit}")
    return stacked(Text(), heading("over time"), indented(Text("\n".join(lines))))


def sparkline(values: Sequence[float], width: int) -> str:
    """Means of `width` equal parts as bars from the least to the largest value."""
    parts = min(width, len(values))
    edges = [round(i * len(values) / parts) for i in range(parts + 1)]
    means = [sum(values[a:b]) / (b - a) for a, b in zip(edges, edges[1:])]
    low, high = min(means), max(means)
    step = (high - low) or 1.0
    return "".join(SPARKS[min(len(SPARKS) - 1, int((m - low) / step * len(SPARKS)))] for m in means)


def render_scenarios(found: Sequence[Scenario]) -> RenderableType:
    """Name, length and what it is about, with its streams below."""
    parts: list[RenderableType] = []
    for scenario in found:
        streams = ", ".join(s.name for s in scenario.streams)
        parts += [heading(f"{scenario.name} ({number(scenario.seconds)} s)"), indented(Text(scenario.about)),
                  indented(Text(f"streams: {streams}", style="dim"))]  # fmt: skip
    return stacked(*parts)
