"""Goals and figures: what is read, what is refused."""

from __future__ import annotations

import math

import pytest

from orchard.studies.advice.figures import Goal, bounds_of, figures_of, parse_goals, shortfall
from orchard.studies.errors import StudyError
from orchard.studies.predict import predict
from orchard.units import OrchardError


def test_goals_are_read_in_si_units() -> None:
    assert [(g.figure, g.at_most, g.target) for g in parse_goals("ttft<0.5s, tokens_per_s>30,memory<=2GB")] == [
        ("ttft", True, 0.5), ("tokens_per_s", False, 30.0), ("memory", True, 2e9),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "expected figure"), ("ttft", "expected figure"), ("tfft<1s", "did you mean ttft"), ("ttft>1s", "wants <"),
        ("throughput<3", "wants >"), ("memory<2s", "expected in byte"), ("ttft<1s,ttft<2s", "stands twice"),
        ("latency<0s", "expected > 0"), ("latency<nan", "expected"), ("a" * 600, "600 characters"),
    ],
)  # fmt: skip
def test_goals_that_cannot_be_read(text: str, says: str) -> None:
    with pytest.raises(OrchardError, match=says):
        parse_goals(text)


def test_shortfall_is_the_logarithm_of_the_ratio() -> None:
    fast = Goal(text="", figure="tokens_per_s", at_most=False, target=30.0)
    small = Goal(text="", figure="memory", at_most=True, target=2e9)
    assert shortfall((fast, small), {"tokens_per_s": 15.0, "memory": 1e9}) == pytest.approx(math.log(2.0))
    assert shortfall((fast, small), {"tokens_per_s": 30.0, "memory": 4e9}) == pytest.approx(math.log(2.0))


def test_figures_are_those_of_the_prediction() -> None:
    p = predict("qwen3-0.6b", "m1", prompt=64, generate=10, batch=2)
    known, bounds = figures_of(p), bounds_of(p)
    prefill, decode = p.phases["prefill"], p.phases["decode"]
    assert known["latency"] == pytest.approx(prefill.latency_s + 10 * decode.latency_s)
    assert known["tokens_per_s"] * 2 == pytest.approx(known["throughput"]) == pytest.approx(decode.tokens_per_s)
    assert bounds["latency"] <= known["latency"]
    assert bounds["throughput"] >= known["throughput"]
    whole = predict("resnet18", "m1")
    assert set(figures_of(whole)) == {"latency", "throughput", "memory", "energy"}


def test_a_figure_the_model_does_not_have() -> None:
    from orchard.studies.advise import advise
    from orchard.studies.request import Request

    with pytest.raises(StudyError, match="resnet18 has no ttft"):
        advise(Request(model="resnet18", chip="m1"), "ttft<1s")
