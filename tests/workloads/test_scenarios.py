"""Scenario files: what reads, and a sentence for what does not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from orchard.workloads.scenarios import ScenarioError, load_scenario, parse_scenario, scenario_names

HERE = Path()
FRAMES = {"name": "frames", "model": "resnet18", "engine": "ane", "every": "33.3ms", "deadline": "33ms"}


def parsed(*streams: dict[str, Any], **top: Any) -> Any:
    return parse_scenario({"name": "s", "streams": list(streams), **top}, "s.yaml", HERE)


def test_shipped_scenarios_read() -> None:
    found = {name: load_scenario(name) for name in scenario_names()}
    assert {"chat-10min", "keyboard-photos", "video-call", "xr-outdoor", "xr-social"} <= set(found)
    assert all(s.about and s.name == name for name, s in found.items())
    assert found["chat-10min"].seconds == 600.0
    assert any(s.cascade for s in found["xr-social"].streams)
    assert found["video-call"].users


def test_quantities_and_kinds_of_arrival(tmp_path: Path) -> None:
    (tmp_path / "times.csv").write_text("t,what\n0.5,a\n1.25,b\n")
    streams = [
        {**FRAMES, "jitter": "1ms", "offset": "2ms"},
        {"name": "noise", "load": {"engine": "gpu", "time": "2ms", "bytes": "10MB"}, "poisson": 4},
        {"name": "chat", "model": "qwen3-0.6b", "prompt": 8, "generate": 4, "think": "2s"},
        {"name": "replay", "model": "resnet18", "times": "times.csv"},
        {"name": "objects", "model": "resnet18", "after": "frames", "probability": 0.5, "count": 2},
    ]
    users = [{"name": "camera", "width": 10, "height": 20, "bytes_per_pixel": 2, "fps": 30, "passes": 3}]
    found = parse_scenario({"streams": streams, "memory_users": users, "seconds": "2min"}, "s.yaml", tmp_path)
    assert found.seconds == 120.0
    assert found.streams[0].arrival.every_s == pytest.approx(33.3e-3)
    assert found.streams[1].load is not None
    assert found.streams[1].load.bytes == 10e6
    assert found.streams[3].arrival.times_s == (0.5, 1.25)
    assert found.streams[4].cascade is not None
    assert found.streams[4].cascade.after == "frames"
    assert found.users[0].bytes_per_s == 10 * 20 * 2 * 30 * 3


@pytest.mark.parametrize(
    ("streams", "complaint"),
    [
        ([], "has no streams"),
        ([{**FRAMES, "engine": "npu"}], "engine 'npu' is not known; expected cpu, gpu, ane, auto or split"),
        ([{**FRAMES, "evry": 1}], "'evry' is not known; did you mean 'every'|'evry' is not known"),
        ([{"name": "a", "model": "resnet18"}], "got none of every, poisson"),
        ([{**FRAMES, "poisson": 3}], "got every and poisson"),
        ([{**FRAMES, "every": "0s"}], "expected > 0"),
        ([{**FRAMES, "every": "10ns"}], "more than a million requests a second"),
        ([{**FRAMES, "every": "-1s"}], "expected > 0"),
        ([{**FRAMES, "every": "3GB"}], "expected"),
        ([{"name": "a", "model": "resnet18", "poisson": 0}], "poisson is '0'"),
        ([{"name": "a", "model": "resnet18", "poisson": float("nan")}], "poisson is 'nan'"),
        ([{**FRAMES, "deadline": "0s"}], "deadline"),
        ([{**FRAMES, "priority": 1.5}], "priority is '1.5', expected a whole number"),
        ([FRAMES, FRAMES], "the name 'frames' is there twice"),
        ([{"name": "a", "model": "resnet18", "after": "b"}], "runs after 'b', which is no stream"),
        ([{**FRAMES, "probability": 0.5}], "belong to a stream with `after`"),
        ([FRAMES, {"name": "a", "model": "m", "after": "frames", "probability": 2}], "probability is '2'"),
        ([{"name": "a", "every": "1s"}], "expected either model or load"),
        ([{"name": "a", "load": {"engine": "gpu"}, "every": "1s"}], "expected engine and time"),
        ([{"name": "a", "load": {"engine": "auto", "time": "1s"}, "every": "1s"}], "engine 'auto' is not known"),
        ([{"name": "a", "model": "resnet18", "times": []}], "holds no arrival times"),
        ([{"name": "a", "model": "resnet18", "times": [2, 1]}], "in order"),
        ([{"name": "a", "model": "resnet18", "times": [1, "x"]}], "holds 'x'"),
        ([{"name": "a", "model": "resnet18", "times": "nowhere.csv"}], "cannot be read"),
        ([{"model": "resnet18", "every": "1s"}], "has no name"),
        (["frames"], "expected a list of entries"),
    ],
)
def test_bad_streams_get_a_sentence(streams: list[Any], complaint: str) -> None:
    with pytest.raises(ScenarioError, match=complaint) as caught:
        parsed(*streams)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("s.yaml: ")


def test_a_cycle_is_named() -> None:
    a, b = ({"name": x, "model": "resnet18", "after": y} for x, y in (("a", "b"), ("b", "a")))
    with pytest.raises(ScenarioError, match=r"a cycle: (a after b after a|b after a after b); nothing starts it"):
        parsed(FRAMES, a, b)
    with pytest.raises(ScenarioError, match="a cycle: self after self"):
        parsed({"name": "self", "model": "resnet18", "after": "self"})


@pytest.mark.parametrize(
    ("users", "complaint"),
    [
        ([{"name": "c"}], "width is missing"),
        ([{"name": "c", "rate": "0GB/s"}], "expected > 0"),
        ([{"name": "c", "rate": "1GB/s", "from": "2s", "to": "1s"}], "ends at 1 s, before it starts at 2 s"),
        ([{"name": "frames", "rate": "1GB/s"}], "is there twice"),
        ([{"name": "c", "width": -1, "height": 1, "bytes_per_pixel": 1, "fps": 1}], "width is '-1'"),
    ],
)
def test_bad_memory_users_get_a_sentence(users: list[Any], complaint: str) -> None:
    with pytest.raises(ScenarioError, match=complaint):
        parsed(FRAMES, memory_users=users)


def test_unknown_names_and_broken_files_get_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match="did you mean video-call"):
        load_scenario("video-cal")
    with pytest.raises(ScenarioError, match="the scenario file does not exist"):
        load_scenario("nowhere.yaml")
    bad = tmp_path / "bad.yaml"
    for text in ("a: [", "- 1", "", yaml.safe_dump({"streams": 3})):
        bad.write_text(text)
        with pytest.raises(ScenarioError):
            load_scenario(str(bad))
