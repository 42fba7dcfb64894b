"""Where a benchmark was run: date, commit, machine; and a Markdown table of its rows."""

from __future__ import annotations

import datetime
import platform
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path

RESULTS = Path(__file__).parent / "results"


def commit() -> str:
    """The version of the source, short."""
    root = Path(__file__).parents[2]
    return subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=root, capture_output=True, text=True).stdout.strip()


def provenance() -> list[str]:
    """Lines for the head of a record."""
    cpu = next((x.partition(":")[2].strip() for x in _lines("/proc/cpuinfo") if x.startswith("model name")), platform.processor())
    cores = sum(x.startswith("processor") for x in _lines("/proc/cpuinfo"))
    load = " ".join(_lines("/proc/loadavg")[:1]).split()[:1]
    when = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")
    return [f"{when}, commit {commit()}, {cpu}, {cores} cores, load {' '.join(load)}, Python {platform.python_version()}"]


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    """Markdown."""
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    return [*lines, *("| " + " | ".join(str(x) for x in row) + " |" for row in rows)]


def write(name: str, title: str, lines: Iterable[str]) -> Path:
    """One record as results/NAME.md."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.md"
    path.write_text("\n".join([f"# {title}", "", *provenance(), "", *lines]) + "\n", encoding="utf-8")
    return path
