"""Scenarios on chips: the simulation of one request is the estimate; contention, placement, refusals, saturation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from orchard.cost.evaluate import Call, call_seconds
from orchard.hw import HardwareArrays, load_chip
from orchard.sim import PS
from orchard.studies.errors import StudyError
from orchard.studies.place import place
from orchard.studies.predict import make_plan, predict
from orchard.studies.programs import Programs, _repeats, execution_order
from orchard.studies.request import Request
from orchard.studies.simulate import simulate
from orchard.workloads.scenarios import parse_scenario

REQUESTS = [
    {"model": "qwen3-4b", "chip": "m1", "weights": "q4_0", "prompt": 700, "generate": 16},
    {"model": "gemma-4-e2b", "chip": "a19pro", "engine": "ane", "weights": "pal4", "prompt": 64, "generate": 7},
    {"model": "qwen3-30b-a3b", "chip": "m2ultra", "weights": "q4_k_m", "prompt": 64, "generate": 5},
    {"model": "qwen3-0.6b", "chip": "m4", "engine": "cpu", "weights": "q4_0", "prompt": 32, "generate": 4},
    {"model": "whisper-tiny", "chip": "m1", "weights": "f16", "prompt": 0, "generate": 9},
    {"model": "bert-base-uncased", "chip": "m1", "weights": "f16"},
    {"model": "resnet50", "chip": "m1max"},
    {"model": "mobilenet-v2-1.0", "chip": "m6"},
]


@pytest.mark.parametrize("request_", REQUESTS, ids=lambda r: f"{r['model']} {r['chip']}")
def test_one_request_takes_what_the_estimate_says(request_: dict[str, Any]) -> None:
    """Within 1 % is promised; without contention and limits only rounding differs."""
    estimate, simulated = predict(**request_), predict(**request_, fidelity="simulation")
    for name, phase in estimate.phases.items():
        other = simulated.phases[name]
        assert other.latency_s == pytest.approx(phase.latency_s, rel=2e-3)
        assert other.energy_j == pytest.approx(phase.energy_j, rel=2e-3)
        assert other.bound_s == phase.bound_s <= other.latency_s
        assert 0 < other.dram_bytes <= phase.dram_bytes * (1 + 1e-9)
        assert sum(other.bound_by.values()) == pytest.approx(1.0)
        assert other.bound_by == pytest.approx(dict(phase.bound_by), abs=0.02)


def scenario(*streams: dict[str, Any], **top: Any) -> Any:
    return parse_scenario({"name": "s", "streams": list(streams), **top}, "s.yaml", Path())


CHAT = {"name": "chat", "model": "qwen3-0.6b", "weights": "q4_0", "engine": "gpu", "generate": 50, "think": "0s"}
STREAM = {"name": "copy", "load": {"engine": "cpu", "time": "10ms", "bytes": "500MB", "ops": 10}, "think": "0s"}


def test_two_engines_that_want_more_than_the_memory_has_slow_each_other() -> None:
    """A CPU copy at 50 GB/s beside decode on an M1 (64 GB/s shared): both lose, and the sum stays within what DRAM gives."""
    alone = simulate(scenario(CHAT), "m1", seconds=2.0, chassis="none")
    both = simulate(scenario(CHAT, STREAM), "m1", seconds=2.0, chassis="none").to_dict()
    chat, copy = both["streams"]
    assert chat["latency_s"]["p50"] > 1.2 * alone.to_dict()["streams"][0]["latency_s"]["p50"]
    assert copy["shares"]["contention"] > 0.1
    assert both["memory"]["peak_bytes_per_s"] <= both["memory"]["capacity_bytes_per_s"] * (1 + 1e-6)
    for stream in both["streams"]:
        assert sum(stream["shares"].values()) == pytest.approx(1.0)
    assert all(e["utilization"] <= 1.0 + 1e-9 for e in both["engines"])


def test_automatic_placement_spreads_load() -> None:
    """Two networks that fit the Neural Engine best; four heavy ones do not all stay there."""
    net = {"model": "convnext-l", "every": "33ms", "limit": 4}
    few = simulate(scenario({"name": "a", **net}), "m4", seconds=0.1)
    assert few.placed[0].engine == "ane"
    assert few.placed[0].auto
    many = simulate(scenario(*({"name": f"n{i}", **net} for i in range(4))), "m4", seconds=0.1)
    assert len({p.engine for p in many.placed}) > 1 or sum(p.load for p in many.placed) < 1


def test_a_growing_chat_slows_down_and_starts_again() -> None:
    chat = {**CHAT, "prompt": 100, "generate": 100, "grow": True, "context": 800, "think": "1s"}
    (placed,) = simulate(scenario(chat), "m1", seconds=0.5).placed
    times = [w.total_ps for w in placed.workloads]
    assert len(times) == 4
    assert times == sorted(times)


ANE = {"name": "f", "model": "convnext-l", "engine": "ane"}
LM = {"name": "f", "model": "qwen3-0.6b", "engine": "gpu", "every": "1s"}
IMPOSSIBLE: list[tuple[dict[str, Any], str]] = [
    ({**ANE, "every": "1s", "deadline": "0.1ms"}, "stream f: deadline .* is shorter than the physical bound"),
    ({**ANE, "every": "0.1ms"}, r"stream f: 1e\+04 requests a second take .* lower the rate"),
    (LM, "is a language model: state prompt and generate"),
    ({**LM, "model": "qwen3-0.6", "prompt": 5}, "stream f: .*'qwen3-0.6' is not known"),
    ({**ANE, "engine": "gpu", "runtime": "ncnn", "every": "1s"}, "ncnn has no profile for engine 'gpu'"),
    (
        {"name": "f", "load": {"engine": "gpu", "time": "1ms", "bytes": "1GB"}, "every": "1s"},
        "its load moves 1000 GB/s",
    ),
    ({"name": "f", "load": {"engine": "gpu", "time": "1ms", "watts": 0.1}, "every": "1s"}, "its load draws 0.1 W"),
]


@pytest.mark.parametrize(("stream", "complaint"), IMPOSSIBLE)
def test_what_cannot_be_gets_a_sentence(stream: dict[str, Any], complaint: str) -> None:
    with pytest.raises(StudyError, match=complaint):
        simulate(scenario(stream), "m1", seconds=0.1)


def test_a_greedy_camera_and_bad_lengths_are_refused() -> None:
    camera = [{"name": "camera", "rate": "900GB/s"}]
    with pytest.raises(StudyError, match="memory user camera: 900 GB/s is more than the DRAM gives"):
        simulate(scenario(CHAT, memory_users=camera), "m1")
    for seconds in (0.0, -1.0, float("nan"), 1e9):
        with pytest.raises(StudyError, match="--seconds"):
            simulate(scenario(CHAT), "m1", seconds=seconds)


def test_overload_is_reported() -> None:
    flood = {"name": "flood", "model": "resnet50", "engine": "ane", "every": "0.9ms", "limit": 8}
    found = simulate(scenario(flood), "m1", seconds=1.0)
    assert found.saturated == ("flood",)
    assert any(w.startswith("saturated: flood asks for 1.") for w in found.warnings)


def test_models_that_do_not_fit_together_are_named() -> None:
    big = [{**CHAT, "name": f"c{i}", "model": "qwen3-4b", "weights": "f16", "generate": 1} for i in range(3)]
    found = simulate(scenario(*big), "m1", seconds=0.01)
    assert any(w.startswith("does not fit: the models need") for w in found.warnings)


def test_the_neural_engine_is_free_while_the_host_submits() -> None:
    """Core ML's fixed cost beyond one dispatch is host work, the dispatch itself occupies the engine."""
    request = Request(model="resnet50", chip="m4")
    soc = load_chip("m4", [])
    plan = make_plan(request)
    (call,) = Programs(plan, HardwareArrays.of(soc), "r").calls("inference")
    fixed = call_seconds(HardwareArrays.of(soc), plan.profile.values())
    assert call.host_ps == round((fixed - soc["ane.dispatch"]) * PS)
    assert call.program.labels[0] == "dispatch"


def test_execution_order_runs_layers_in_turn() -> None:
    """An embedding, two kinds of kernel in four layers, a third in two of them, the head."""
    order = execution_order(np.array([1, 4, 4, 2, 4, 1])).tolist()
    assert order[0] == 0
    assert order[-1] == 5
    assert order[1:4] == [1, 2, 4] or order[1:5] == [1, 2, 3, 4]
    assert sorted(order) == [0] + [1] * 4 + [2] * 4 + [3] * 2 + [4] * 4 + [5]


def test_repeats_keep_the_total() -> None:
    assert _repeats([1 / 3, 1 / 3, 1 / 3], 128) == [43, 42, 43]
    assert _repeats([1.5, 1.5], None) == [2, 1]
    assert sum(_repeats([Call({}, 0.25).weight] * 4, 7)) == 7


SPLIT: list[dict[str, Any]] = [
    {"model": "mobilenet-v2-1.0"},
    {"model": "qwen3-0.6b", "weights": "q4_0", "prompt": 64, "generate": 6},
]


@pytest.mark.parametrize("model", SPLIT)
def test_a_split_request_takes_what_its_placement_says(model: dict[str, Any]) -> None:
    """`engine: split` runs each op where `orchard place` puts it, hand-overs included."""
    placement = place(**model, chip="m4", explain=False)
    found = simulate(
        scenario({"name": "f", "engine": "split", "think": "9s", **model}), "m4", seconds=1.0, chassis="none"
    )
    assert set(found.placed[0].engine.split("+")) == {e for p in placement.phases for e in p.plan.engines}
    assert found.outcome.streams[0].latency.mean == pytest.approx(placement.total_s, rel=0.01)


def test_a_pipeline_runs_its_parts_as_often_as_they_run() -> None:
    """Stable Diffusion: one request is one picture."""
    picture = {"model": "small-stable-diffusion-v0", "engine": "ane", "steps": 3}
    found = simulate(scenario({"name": "p", "think": "9s", **picture}), "m2", seconds=0.01, chassis="none")
    assert found.placed[0].service_s == pytest.approx(
        predict(**picture, chip="m2").phases["inference"].latency_s, rel=0.01
    )
