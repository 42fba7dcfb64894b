"""Knobs of a study: what a point of the unit cube means."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Knob:
    """One axis.

    name     a figure of the chip ("gpu.cores") or an option of a workload ("chat.weights")
    values   its levels: SI numbers for figures, texts or numbers for options; () for a continuous range
    low, high, log   the range of a continuous axis, SI
    unit     of the figure, for people
    """

    name: str
    values: tuple[Any, ...] = ()
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    unit: str = ""
    line: int = 0

    @property
    def levels(self) -> int:
        return len(self.values)

    def decode(self, u: Floats) -> NDArray[Any]:
        """Values at coordinates in [0, 1)."""
        if self.values:
            return np.array(self.values)[self.level(u)]
        if self.log:
            return self.low * (self.high / self.low) ** u
        return self.low + (self.high - self.low) * u

    def level(self, u: Floats) -> NDArray[np.int64]:
        """Index of the level at each coordinate."""
        return np.minimum((u * self.levels).astype(np.int64), self.levels - 1)

    @property
    def least(self) -> Any:
        return min(self.values) if self.values else self.low

    @property
    def most(self) -> Any:
        return max(self.values) if self.values else self.high


@dataclass(frozen=True, slots=True)
class Space:
    """All knobs. Points are rows of the unit cube in the order of the knobs."""

    knobs: tuple[Knob, ...]

    @property
    def levels(self) -> tuple[int, ...]:
        return tuple(knob.levels for knob in self.knobs)

    @property
    def size(self) -> int | None:
        """Designs of the full grid, None where an axis is continuous."""
        if any(n == 0 for n in self.levels):
            return None
        size = 1
        for n in self.levels:
            size *= n
        return size

    def decode(self, points: Floats) -> dict[str, NDArray[Any]]:
        """Knob values by name, each [designs]."""
        return {knob.name: knob.decode(points[:, axis]) for axis, knob in enumerate(self.knobs)}

    def codes(self, points: Floats, names: Sequence[str]) -> NDArray[np.int64] | None:
        """One number per design that is equal where the levels of `names` are; None when one of them is continuous."""
        code = np.zeros(len(points), dtype=np.int64)
        for axis, knob in enumerate(self.knobs):
            if knob.name in names:
                if not knob.levels:
                    return None
                code = code * knob.levels + knob.level(points[:, axis])
        return code

    def neighbours(self, point: Floats) -> Mapping[str, Floats]:
        """The points one level up and down each discrete axis, by knob; what is outside is left out."""
        found = {}
        for axis, knob in enumerate(self.knobs):
            step = 1.0 / knob.levels if knob.levels else 0.05
            moved = np.repeat(point[None], 2, axis=0)
            moved[:, axis] += [-step, step]
            found[knob.name] = moved[(moved[:, axis] >= 0) & (moved[:, axis] < 1)]
        return found
