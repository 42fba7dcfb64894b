"""When requests arrive. Each kind makes the times of one stream from a generator of its own, so streams never mix their draws."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

from orchard.sim.program import PS


@dataclass(frozen=True, slots=True)
class Periodic:
    """Every `every_ps` from `offset_ps` on, each moved by up to ± `jitter_ps` (uniform)."""

    every_ps: int
    offset_ps: int = 0
    jitter_ps: int = 0

    def times(self, draw: Random) -> Iterator[int]:
        at, before = self.offset_ps, 0
        while True:
            moved = at + draw.randint(-self.jitter_ps, self.jitter_ps) if self.jitter_ps else at
            before = max(before, moved)
            yield before
            at += self.every_ps


@dataclass(frozen=True, slots=True)
class Poisson:
    """Independent arrivals at `per_s` a second."""

    per_s: float

    def times(self, draw: Random) -> Iterator[int]:
        at = 0
        while True:
            at += max(1, round(-math.log1p(-draw.random()) / self.per_s * PS))
            yield at


@dataclass(frozen=True, slots=True)
class Times:
    """Stated times, in order (a trace file)."""

    at_ps: tuple[int, ...]

    def times(self, draw: Random) -> Iterator[int]:
        del draw
        yield from self.at_ps


@dataclass(frozen=True, slots=True)
class Closed:
    """One request at a time: the next arrives `think_ps` after the last one ended. The first arrives at `offset_ps`."""

    think_ps: int = 0
    offset_ps: int = 0

    def times(self, draw: Random) -> Iterator[int]:
        del draw
        yield self.offset_ps


@dataclass(frozen=True, slots=True)
class Triggered:
    """Only when requests of another stream end (a cascade)."""

    def times(self, draw: Random) -> Iterator[int]:
        del draw
        yield from ()


Arrivals = Periodic | Poisson | Times | Closed | Triggered
