"""Timing one step: warm-up, repeats until the interval of the median is tight, every sample kept.

The clock is an argument, so that tests run on a made-up one. Times of a shared machine are skewed: other work only ever adds.
So a result has two figures, the median with its interval and the floor (5 % quantile), which other load moves least.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from orchard.measure.errors import MeasureError

Clock = Callable[[], float]
"""Seconds that never go back, such as time.perf_counter."""

OUTLIER_SPREADS = 5.0
"""Samples further above the median than this many median absolute deviations count as outliers (they are kept)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How long to try. warm_up_s and budget_s are seconds; `width` is the relative half-width of the median's interval."""

    warm_up_s: float = 0.04
    warm_up_calls: int = 2
    least: int = 7
    most: int = 400
    budget_s: float = 0.3
    width: float = 0.01
    sample_s: float = 1e-4


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """Seconds per call of every sample in the order taken; a sample is the mean of `inner` calls."""

    samples: tuple[float, ...]
    inner: int = 1

    def __post_init__(self) -> None:
        if not self.samples or not all(math.isfinite(s) and s >= 0 for s in self.samples):
            raise MeasureError(f"a timing has samples {self.samples[:3]}, expected at least one finite time")

    @property
    def floor_s(self) -> float:
        """The 5 % quantile; the least of fewer than 40 samples."""
        ordered = sorted(self.samples)
        return ordered[len(ordered) // 20 if len(ordered) >= 40 else 0]

    @property
    def median_s(self) -> float:
        return quantile(self.samples, 0.5)

    @property
    def interval_s(self) -> tuple[float, float]:
        """About 95 % interval of the median from order statistics (binomial, normal approximation)."""
        return median_interval(self.samples)

    @property
    def spread(self) -> float:
        """(90 % quantile - floor) / floor: how much other things moved it."""
        return (quantile(self.samples, 0.9) - self.floor_s) / max(self.floor_s, 1e-12)

    @property
    def outliers(self) -> int:
        """Samples far above the median."""
        middle = self.median_s
        deviation = quantile([abs(s - middle) for s in self.samples], 0.5)
        return sum(s > middle + OUTLIER_SPREADS * max(deviation, 1e-3 * middle) for s in self.samples)


def quantile(values: Sequence[float], share: float) -> float:
    """Linear between order statistics."""
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


def median_interval(values: Sequence[float]) -> tuple[float, float]:
    """Order statistics n/2 -+ 0.98 sqrt(n): about 95 % (Conover, Practical Nonparametric Statistics, 3.2)."""
    ordered = sorted(values)
    n = len(ordered)
    half = 0.98 * math.sqrt(n)
    low = max(0, math.floor(n / 2 - half))
    high = min(n - 1, math.ceil(n / 2 + half))
    return ordered[low], ordered[high]


def time_step(
    step: Callable[[], Any], clock: Clock, plan: Plan | None = None, sync: Callable[[], None] = lambda: None
) -> Timing:
    """Time `step`. `sync` waits for the device; it is part of every sample, as work is not done before."""
    plan = plan or Plan()
    once = _warm_up(step, clock, plan, sync)
    inner = max(1, math.ceil(plan.sample_s / max(once, 1e-9)))
    samples: list[float] = []
    started = clock()
    while len(samples) < plan.most:
        before = clock()
        for _ in range(inner):
            step()
        sync()
        samples.append((clock() - before) / inner)
        if len(samples) >= plan.least and (clock() - started >= plan.budget_s or _tight(samples, plan.width)):
            break
    return Timing(samples=tuple(samples), inner=inner)


def _warm_up(step: Callable[[], Any], clock: Clock, plan: Plan, sync: Callable[[], None]) -> float:
    """Seconds of the last warm-up call."""
    started = clock()
    calls = 0
    while True:
        before = clock()
        step()
        sync()
        now = clock()
        calls += 1
        if calls >= plan.warm_up_calls and now - started >= plan.warm_up_s:
            return now - before


def _tight(samples: Sequence[float], width: float) -> bool:
    """Whether the interval of the median is within -+ `width` of it; looked at every eight samples."""
    if len(samples) < 24 or len(samples) % 8:
        return False
    low, high = median_interval(samples)
    middle = quantile(samples, 0.5)
    return middle > 0 and (high - low) / 2 <= width * middle
