"""Advice: it never makes a prediction worse, says what forbids a goal, and stands for what `predict` gives."""

from __future__ import annotations

import shlex
from dataclasses import replace
from functools import lru_cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchard.ir import Builder, Graph
from orchard.studies.advice.cases import LEAST_SAVED, advice_cases, check_case
from orchard.studies.advice.changes import Risk, changes_for, loadable
from orchard.studies.advice.commands import core_ml_code, predict_command
from orchard.studies.advice.figures import figures_of
from orchard.studies.advice.record import Advice, Recommendation
from orchard.studies.advise import advise, price
from orchard.studies.predict import answer
from orchard.studies.request import Request
from orchard.studies.sources import ImportedModel


@lru_cache(maxsize=8)
def advice(goal: str | None = None) -> Advice:
    return advise(Request(model="gpt2", chip="m1", weights="f16", depth=2048), goal)


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    """A few linear layers with norms, activations and residual additions, of any width that formats may or may not divide."""
    widths = draw(st.lists(st.sampled_from((24, 32, 60, 64, 96, 128, 512)), min_size=2, max_size=5))
    b = Builder("random")
    x = b.input("x", (draw(st.sampled_from((1, 8, 64))), widths[0]))
    for layer, (inner, outer) in enumerate(zip(widths, widths[1:])):
        y = b.linear(x, b.weight(f"w{layer}", (inner, outer), part="ffn_up", layer=layer))
        if draw(st.booleans()):
            y = b.elementwise("silu", y)
        x = b.elementwise("add", x, y) if outer == inner and draw(st.booleans()) else y
    return b.build([x])


@settings(max_examples=6, deadline=None)
@given(graphs(), st.sampled_from(("m1", "a16")), st.sampled_from(("ane", "gpu", "cpu")))
def test_advice_never_makes_a_prediction_worse(graph: Graph, chip: str, engine: str) -> None:
    live = ImportedModel(name="random", source="live", base=graph, warnings=())
    request = Request(model="random", chip=chip, engine=engine)
    before = figures_of(answer(request, live))
    found = advise(request, loaded=live)
    assert found.figures == before
    listed = [*found.recommendations, *([found.combination] if found.combination else [])]
    for r in listed:
        after = figures_of(answer(_changed(request, r), live))
        assert after["latency"] == pytest.approx(r.gain.after)
        assert after["latency"] < before["latency"] * 0.995
        assert r.gain.factor == pytest.approx(before["latency"] / after["latency"])


def _changed(request: Request, r: Recommendation) -> Request:
    return replace(request, **{**r.fields, "apply": (*request.apply, *r.apply)})


def test_what_is_listed_is_what_predict_gives() -> None:
    found = advice()
    for r in [*found.recommendations, *([found.combination] if found.combination else [])]:
        assert figures_of(price(found.request, r.apply, r.fields)) == pytest.approx(r.figures)
        assert r.gain.factor > 1.0
        low, high = r.gain.factor_interval or (1.0, 9.9)
        assert low <= r.gain.factor <= high
        assert r.predict.startswith("orchard predict ")
        assert r.reason
        assert r.how


def test_high_risk_comes_last_and_is_no_part_of_a_combination() -> None:
    found = advice()
    risks = [r.risk is Risk.HIGH for r in found.recommendations]
    assert risks == sorted(risks)
    assert any(risks)
    assert found.combination is not None
    assert found.combination.risk is not Risk.HIGH


def test_a_combination_is_predicted_as_a_whole() -> None:
    found = advice(goal="tokens_per_s>150")
    assert found.combination is None or found.combination.gain.factor >= max(
        r.gain.factor for r in found.recommendations if r.risk < Risk.HIGH and r.effort.name in ("SWITCH", "CONVERT")
    )
    (goal,) = found.goals
    assert goal.verdict == "reached"
    assert goal.after >= 150.0


def test_goals_that_physics_forbids() -> None:
    time, memory = advise(Request(model="resnet18", chip="m1"), "latency<1us, memory<1MB").goals
    assert (time.verdict, memory.verdict) == ("out of reach", "out of reach")
    assert time.bound is not None
    assert time.bound > 1e-6
    assert "physics allows at most" in time.sentence
    assert "weights alone take" in memory.sentence


def test_what_does_not_fit_has_the_goal_to_fit() -> None:
    found = advise(Request(model="gpt2", chip="m1", weights="f16", overrides=("dram.capacity=350MiB",)))
    (goal,) = found.goals
    assert goal.figure == "memory"
    assert found.recommendations[0].kind == "weights"


def test_nothing_is_worth_a_line_for_a_model_at_its_best() -> None:
    found = advise(Request(model="resnet18", chip="m1", engine="ane", apply=("w4a8",)), "latency<1s", deep=False)
    assert found.goals[0].verdict == "met"
    assert all(r.gain.factor > 1.0 for r in found.recommendations)


def test_changes_carry_over_to_another_runtime() -> None:
    assert loadable("q4_k_m", "mlx") == "mlx-4bit-g64"
    assert loadable("mlx-8bit-g64", "llama.cpp") == "q8_0"
    assert loadable("q8_0", "coreml") == "int8-channel"
    assert loadable(None, "mlx") is None
    assert not [c for c in changes_for(answer(Request(model="whisper-tiny", chip="m1"))) if ("runtime", "llama.cpp") in c.fields]


def test_commands_say_what_differs() -> None:
    request = Request(model="a b.mlpackage", chip="m1", batch=4, apply=("palettize:bits=4,group=16",), inputs=("x=1x3x8x8",))
    words = shlex.split(predict_command(request))
    assert words[:5] == ["orchard", "predict", "a b.mlpackage", "--chip", "m1"]
    assert words[5:] == ["--batch", "4", "--input", "x=1x3x8x8", "--apply", "palettize:bits=4,group=16"]
    assert "nbits=4, granularity='per_grouped_channel', group_size=16" in core_ml_code("palettize:bits=4,group=16")
    assert "int8" in core_ml_code("rtn:bits=8")
    assert core_ml_code("gqa") == ""


def test_the_twelve_cases_follow_the_rule() -> None:
    cases = advice_cases()
    assert len(cases) == 12
    assert len({(c.kind, c.request.model, c.request.chip) for c in cases}) == 12
    assert all(c.saved >= LEAST_SAVED for c in cases)
    assert len({c.source for c in cases}) >= 6


def test_a_case_that_is_right() -> None:
    case = next(c for c in advice_cases() if c.kind == "activations" and c.request.model == "resnet50")
    check = check_case(case)
    assert check.in_top
    assert check.close
