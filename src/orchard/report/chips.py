"""The catalogue, and one chip with every figure's source."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.text import Text

from orchard.hw import FIGURES, ChipSummary, Figure, SoC, sources
from orchard.report.layout import ByWidth, heading, number, stacked, table
from orchard.units import format_bytes, format_rate

_KIND_STYLE = {"vendor": "", "measured": "green", "derived": "dim", "estimate": "yellow", "user": "bold cyan"}


def render_chips(found: Sequence[ChipSummary]) -> RenderableType:
    """One line per chip; bins stand below the chip they are cut from."""
    rows: list[list[str | Text]] = []
    for chip in found:
        rows.append(
            [
                Text(("  " if chip.base else "") + chip.id, style="" if chip.base else "bold"),
                chip.released,
                str(chip.cpu_cores),
                str(chip.gpu_cores),
                "-" if chip.ane_fp16_ops_per_s is None else number(chip.ane_fp16_ops_per_s / 1e12),
                format_rate(chip.dram_bytes_per_s),
                "-" if chip.dram_capacity_max_bytes is None else format_bytes(chip.dram_capacity_max_bytes),
            ]
        )
    headers = ["chip", "released", "CPU", "GPU", "ANE TFLOPS", "bandwidth", "memory up to"]
    footer = Text(
        f"{len(rows)} chips and bins; `orchard chips show CHIP` gives every figure with its source", style="dim"
    )
    return stacked(table(headers, rows, left=(0, 1)), Text(), footer)


def render_chip(soc: SoC) -> RenderableType:
    """Every figure by section, then the sources that were used."""
    title = Text(soc.id, style="bold")
    title.append(f"  {soc.name}")
    about = " · ".join(
        text
        for text in (
            f"released {soc.released}" if soc.released else "",
            f"based on {soc.base}" if soc.base else "",
            f"with {', '.join(f'{k}={v}' for k, v in soc.overrides.items())}" if soc.overrides else "",
        )
        if text
    )
    parts: list[RenderableType | None] = [title, Text(about, style="dim") if about else None]
    parts.append(Text(soc.note) if soc.note else None)
    figures = [f for f in soc.known_figures() if not _absent(soc, f.path)]
    for section in dict.fromkeys(f.path.partition(".")[0] for f in figures):
        rows = [_row(soc, f) for f in figures if f.path.partition(".")[0] == section]
        parts += [Text(), heading(section), _figures(rows)]
    parts += [Text(), heading("engines"), Text(", ".join(soc.engines) or "none is known well enough")]
    parts += [Text(), *_sources(figures)]
    return stacked(*parts)


def _absent(soc: SoC, path: str) -> bool:
    """A CPU tier this chip does not have."""
    return path.startswith(("cpu.s.", "cpu.p.", "cpu.e.")) and not soc.get(path[:6] + "cores")


def _figures(rows: Sequence[Sequence[str | Text]]) -> RenderableType:
    """One line per figure where the terminal is wide, else what it means on a line of its own."""
    headers = ["figure", "value", "kind", "source"]
    wide = table([*headers, "what, and how it is known"], rows, left=(0, 2, 3, 4))
    narrow = table(headers, [], left=(0, 2, 3))
    lines: list[RenderableType] = [narrow]
    for row in rows:
        narrow.add_row(*row[:4])
    lines += [Text(), *(Text.assemble(f"{row[0]}: ", row[4]) for row in rows)]
    return ByWidth(Group(*lines), wide)


def _row(soc: SoC, figure: Figure) -> list[str | Text]:
    style = _KIND_STYLE.get(figure.kind or "", "")
    value = Text(figure.text, style="dim" if not figure.known else "bold" if figure.path in soc.stated else "")
    about = FIGURES[figure.path].about + (f"; {figure.note}" if figure.note else "")
    return [figure.path, value, Text(figure.kind or "", style=style), figure.source or "", Text(about, style="dim")]


def _sources(figures: Sequence[Figure]) -> list[RenderableType]:
    known = sources()
    used = sorted({f.source for f in figures if f.source in known})
    lines: list[RenderableType] = [heading("sources")]
    for name in used:
        source = known[name]
        line = Text(f"{name}  ", style="bold")
        line.append(source.title, style="")
        lines += [line, Text(f"    {source.url}", style="dim")]
    return lines
