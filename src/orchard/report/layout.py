"""How our terminal output looks: the console, numbers, bars and tables that the commands share.

Rich is loaded here and nowhere in the lower layers, so `--json` never pays for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import IO

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.measure import Measurement
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

CAUSES = {"compute": ("█", "cyan"), "memory": ("▓", "magenta"), "dispatch": ("░", "yellow")}
"""What can bound a phase: its letter in a bar and its colour. The letters differ, so bars read without colour too."""


class PlainConsole(Console):
    """A console that leaves a closed pipe to `main`, which ends quietly."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


def make_console(file: IO[str] | None = None, *, width: int | None = None) -> Console:
    """Colour on a terminal only; 80 columns where nobody says otherwise. No markup: a file name may hold brackets."""
    return PlainConsole(file=file, width=width, highlight=False, markup=False, emoji=False)


def number(value: float) -> str:
    """Three significant digits, thousands separated, no exponent: "1,234", "64.3", "0.0123"."""
    if value == 0:
        return "0"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2
    return f"{value:.{digits}f}" if abs(value) >= 1 else f"{value:.3g}"


def span(low: float, high: float) -> str:
    """An interval: "58 - 71". One number where both ends read the same."""
    left, right = number(low), number(high)
    return left if left == right else f"{left} - {right}"


def percent(share: float) -> str:
    """A share as whole per cent; what is not zero never reads as 0 %."""
    return "<1 %" if 0 < share < 0.005 else f"{share * 100:.0f} %"


def bar(shares: Mapping[str, float], width: int = 30) -> Text:
    """One bar of `width` cells split by `shares` (sum 1) in the order of CAUSES. Largest remainders get the left cells."""
    exact = {cause: max(0.0, shares.get(cause, 0.0)) * width for cause in CAUSES}
    cells = {cause: int(x) for cause, x in exact.items()}
    by_remainder = sorted(exact, key=lambda c: (cells[c] - exact[c], list(CAUSES).index(c)))
    for cause in by_remainder[: max(0, width - sum(cells.values()))]:
        cells[cause] += 1
    text = Text()
    for cause, (letter, colour) in CAUSES.items():
        text.append(letter * cells[cause], style=colour)
    return text


def cause_legend(shares: Mapping[str, float]) -> Text:
    """ "compute 82 %  memory 12 %  dispatch 6 %", largest in bold."""
    largest = max(shares, key=lambda c: shares[c])
    text = Text()
    for position, cause in enumerate(c for c in CAUSES if c in shares):
        text.append("  " if position else "")
        letter, colour = CAUSES[cause]
        text.append(letter + " ", style=colour)
        text.append(f"{cause} {percent(shares[cause])}", style="bold" if cause == largest else "")
    return text


def table(
    headers: Sequence[str], rows: Iterable[Sequence[str | Text]], *, left: Sequence[int] = (0,), gap: int = 2
) -> Table:
    """A borderless table: columns `left` are left-aligned text that may fold (never the first), the others numbers."""
    made = Table(box=None, padding=(0, gap, 0, 0), pad_edge=False, header_style="dim", collapse_padding=True)
    for position, header in enumerate(headers):
        is_text = position in left
        made.add_column(
            header,
            justify="left" if is_text else "right",
            no_wrap=not is_text or position == 0,
            overflow="ellipsis" if position == 0 or not is_text else "fold",
        )
    for row in rows:
        made.add_row(*row)
    return made


class ByWidth:
    """`wide` where the terminal has at least `columns`, else `narrow`."""

    def __init__(self, narrow: RenderableType, wide: RenderableType, columns: int = 110) -> None:
        self.narrow, self.wide, self.columns = narrow, wide, columns

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield self.wide if options.max_width >= self.columns else self.narrow


class FirstThatFits:
    """The first of `variants` whose full width fits the terminal, else the last."""

    def __init__(self, variants: Sequence[RenderableType]) -> None:
        self.variants = variants

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for variant in self.variants[:-1]:
            unlimited = options.update(max_width=10_000)
            if Measurement.get(console, unlimited, variant).maximum <= options.max_width:
                yield variant
                return
        yield self.variants[-1]


def heading(text: str) -> Text:
    return Text(text, style="bold")


def indented(content: RenderableType, by: int = 2) -> Padding:
    return Padding(content, (0, 0, 0, by), expand=False)


def stacked(*parts: RenderableType | None) -> Group:
    """Parts below each other; None is left out."""
    return Group(*(part for part in parts if part is not None))
