"""Designs: which combinations of levels to run. A cell is one level per factor, in the order of the factors."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from orchard.search.sampling import latin_hypercube
from orchard.studies.errors import StudyError

Kind = Literal["full", "fractional", "latin-hypercube", "split-plot"]
KINDS: tuple[Kind, ...] = ("full", "fractional", "latin-hypercube", "split-plot")
Cell = tuple[str, ...]


@dataclass(frozen=True)
class Factor:
    """A name and its levels as labels; `texts` are what the labels stand for."""

    name: str
    levels: tuple[str, ...]
    texts: tuple[str, ...]

    def text(self, level: str) -> str:
        return self.texts[self.levels.index(level)]


def full(factors: Sequence[Factor]) -> list[Cell]:
    """Every combination, the last factor fastest."""
    return list(itertools.product(*(f.levels for f in factors)))


def plackett_burman(runs: int) -> np.ndarray:
    """+1 and -1 [runs, runs - 1], columns orthogonal: a Hadamard matrix without its column of ones.

    `runs`: 8, 12, 16, 20, 24, 32. Powers of two are Sylvester's; 12, 20 and 24 are Paley's from the squares
    modulo 11, 19 and 23 [Plackett & Burman 1946].
    """
    if runs & (runs - 1) == 0:
        signs = np.array([[1 - 2 * ((i & j).bit_count() & 1) for j in range(runs)] for i in range(runs)])
        return signs[:, 1:]
    prime = runs - 1
    squares = {i * i % prime for i in range(1, prime)}
    row = np.array([1 if i in squares or i == 0 else -1 for i in range(prime)])
    cyclic = np.stack([np.roll(row, shift) for shift in range(prime)])
    return np.vstack([cyclic, -np.ones(prime, dtype=int)])


PB_RUNS = (8, 12, 16, 20, 24, 32)


def fractional(factors: Sequence[Factor]) -> list[Cell]:
    """Resolution IV for factors of two levels: the smallest Plackett-Burman design that holds them, and its mirror image.

    Folding over frees main effects of two-factor interactions [Box & Wilson 1951]. Raises StudyError for other factors.
    """
    wrong = [f.name for f in factors if len(f.levels) != 2]
    runs = next((r for r in PB_RUNS if r > len(factors)), None)
    if wrong or runs is None:
        what = f"factor {wrong[0]} has another number" if wrong else f"{len(factors)} factors are too many"
        raise StudyError(f"a fractional design takes up to {PB_RUNS[-1] - 1} factors of two levels; {what}")
    signs = plackett_burman(runs)[:, : len(factors)]
    both = np.vstack([signs, -signs])
    cells = [tuple(f.levels[int(s > 0)] for f, s in zip(factors, row)) for row in both]
    return list(dict.fromkeys(cells))


def hypercube(factors: Sequence[Factor], points: int, *, seed: int) -> list[Cell]:
    """Latin hypercube over the levels; combinations met twice stand once."""
    sample = latin_hypercube([len(f.levels) for f in factors], points, seed=seed)
    cells = [
        tuple(f.levels[min(int(u * len(f.levels)), len(f.levels) - 1)] for f, u in zip(factors, row)) for row in sample
    ]
    return list(dict.fromkeys(cells))


def split_plot(factors: Sequence[Factor], whole: Sequence[str], *, seed: int) -> list[Cell]:
    """Every combination; factors in `whole` change between plots only, the order inside a plot is drawn."""
    unknown = [name for name in whole if name not in {f.name for f in factors}]
    if unknown or not whole:
        raise StudyError(
            f"a split-plot design names its whole-plot factors; {unknown[0] if unknown else 'none'} is no factor"
        )
    outer = [f for f in factors if f.name in whole]
    inner = [f for f in factors if f.name not in whole]
    random, cells = np.random.default_rng(seed), []
    for plot in full(outer):
        subplots = full(inner)
        for index in random.permutation(len(subplots)):
            chosen = {**dict(zip((f.name for f in outer), plot)), **dict(zip((f.name for f in inner), subplots[index]))}
            cells.append(tuple(chosen[f.name] for f in factors))
    return cells
