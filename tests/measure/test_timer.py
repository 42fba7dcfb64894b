"""Timing on a made-up clock: every sample kept, enough of them, floors and outliers as defined."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchard.measure.errors import MeasureError
from orchard.measure.timer import Plan, Timing, median_interval, time_step


class FakeTime:
    """A clock that a step moves by the next of `durations` (the last repeats)."""

    def __init__(self, durations: list[float]) -> None:
        self.now = 0.0
        self._next: Iterator[float] = iter(durations)
        self._last = durations[-1]
        self.steps = 0

    def clock(self) -> float:
        return self.now

    def step(self) -> None:
        self.steps += 1
        self.now += next(self._next, self._last)


def timed(durations: list[float], **plan: float) -> tuple[Timing, FakeTime]:
    time = FakeTime(durations)
    return time_step(time.step, time.clock, Plan(**plan)), time  # type: ignore[arg-type]


def test_a_steady_step_stops_as_soon_as_its_interval_is_tight() -> None:
    timing, _ = timed([0.01], warm_up_s=0.02, budget_s=100.0)
    assert len(timing.samples) == 24  # the first count at which tightness is looked at
    assert timing.median_s == pytest.approx(0.01)
    assert timing.outliers == 0


def test_a_jumpy_step_runs_to_its_budget() -> None:
    timing, time = timed([0.01, 0.03] * 500, warm_up_s=0.0, warm_up_calls=1, budget_s=2.0, most=1000)
    assert time.now == pytest.approx(2.0, rel=0.05)
    assert len(timing.samples) > 50


def test_warm_up_calls_are_not_samples() -> None:
    timing, time = timed([5.0, 5.0, *[0.01] * 1000], warm_up_calls=2, warm_up_s=0.0)
    assert max(timing.samples) == pytest.approx(0.01)
    assert time.steps == len(timing.samples) + 2


def test_short_steps_are_timed_in_groups() -> None:
    timing, _ = timed([1e-6], warm_up_s=1e-5, sample_s=1e-4)
    assert timing.inner == 100
    assert timing.median_s == pytest.approx(1e-6)


def test_outliers_are_kept_and_counted() -> None:
    timing = Timing(samples=(*[1.0, 1.01, 0.99, 1.02] * 10, 9.0))
    assert timing.outliers == 1
    assert 9.0 in timing.samples
    assert timing.floor_s == 0.99


def test_synchronisation_is_part_of_every_sample() -> None:
    time = FakeTime([0.0])

    def wait() -> None:
        time.now += 0.5

    timing = time_step(lambda: None, time.clock, Plan(warm_up_s=0.0, least=3, budget_s=1.0), wait)
    assert timing.samples == (0.5,) * len(timing.samples)


def test_a_timing_without_samples_is_refused() -> None:
    with pytest.raises(MeasureError, match="at least one finite time"):
        Timing(samples=())


@given(st.lists(st.floats(0.001, 1000.0), min_size=1, max_size=200))
def test_the_median_lies_in_its_interval_and_above_the_floor(samples: list[float]) -> None:
    timing = Timing(samples=tuple(samples))
    low, high = median_interval(samples)
    assert low <= timing.median_s <= high
    assert min(samples) <= timing.floor_s <= timing.median_s or len(samples) >= 40


def test_the_interval_of_the_median_covers_the_true_one() -> None:
    """95 % nominal; 400 draws of 50 exponential times, true median ln 2."""
    generator = random.Random(5)
    hits = 0
    for _ in range(400):
        low, high = median_interval([generator.expovariate(1.0) for _ in range(50)])
        hits += low <= 0.6931 <= high
    assert 0.91 <= hits / 400 <= 0.995
