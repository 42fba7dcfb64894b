"""Intervals of ratios from measured pairs."""

from __future__ import annotations

import math

import pytest

from orchard.studies.advice.ratios import RatioError, joint, measured_pairs, spread


def test_pairs_differ_in_one_thing_and_are_not_repeated() -> None:
    pairs = measured_pairs()
    assert len(pairs) > 300
    assert len({(p.kind, p.without, p.with_it) for p in pairs}) == len(pairs)
    assert all(p.without != p.with_it for p in pairs)
    assert {p.kind for p in pairs} == {"weights", "activations", "attention", "engine", "model"}


def test_an_interval_holds_the_prediction_and_most_pairs() -> None:
    for kind, engine in {(p.kind, p.engine) for p in measured_pairs()}:
        error = spread(kind, engine)
        assert error.low <= 0.0 <= error.high
        own = [p.off for p in measured_pairs() if (p.kind, p.engine) == (kind, engine)]
        if len(own) >= 5:
            assert error.pairs == len(own)
            assert sum(error.low - 1e-9 <= off <= error.high + 1e-9 for off in own) >= 0.65 * len(own)


def test_few_pairs_fall_back_and_say_so() -> None:
    assert spread("weights", "cpu").basis == "weights, all engines"
    assert spread("teleportation", "gpu").basis == "changes of every kind"


def test_changes_together_add_as_squares() -> None:
    a, b = (RatioError(low=-x, high=2 * x, pairs=9, basis=str(x)) for x in (0.3, 0.4))
    both = joint([a, b])
    assert (both.low, both.high) == pytest.approx((-0.5, 1.0))
    assert joint([a]) is a
    assert math.isclose(joint([a, a]).high, 0.6 * math.sqrt(2))
