"""Study files: what is read, and the refusals with their lines."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchard.studies.errors import StudyError
from orchard.studies.explore.evaluate import Evaluator, refuse_hopeless
from orchard.studies.explore.study import Study, read_study

GOOD = """\
chip: m4
knobs:
  gpu.cores: [8, 10, 12]
  gpu.clock: {from: 1.2GHz, to: 1.8GHz, steps: 4}
  chat.weights: [q4_0, q8_0]
workloads:
  chat: {model: qwen3-0.6b, prompt: 64, generate: 16}
  eye: {model: resnet18, engine: ane, weight: 30}
objectives: [latency_s, max speedup_per_w]
constraints: ["area_mm2 <= 200", "chat.tokens_per_s > 10"]
search: {method: grid, seed: 3}
"""


def study(tmp_path: Path, text: str) -> Study:
    path = tmp_path / "study.yaml"
    path.write_text(text)
    return read_study(path)


def test_reads_a_study(tmp_path: Path) -> None:
    read = study(tmp_path, GOOD)
    assert read.space.size == read.designs == 3 * 4 * 2
    assert [k.name for k in read.space.knobs] == ["gpu.cores", "gpu.clock", "chat.weights"]
    assert read.space.knobs[1].values == pytest.approx((1.2e9, 1.4e9, 1.6e9, 1.8e9))
    assert [(o.metric, o.larger) for o in read.objectives] == [("latency_s", False), ("speedup_per_w", True)]
    assert [r.weights for _, r in read.requests_of(read.workloads[0])] == ["q4_0", "q8_0"]
    assert read.workloads[1].weight == 30


@pytest.mark.parametrize(
    ("old", "new", "line", "says"),
    [
        ("gpu.cores: [8, 10, 12]", "gpu.corez: [8]", 3, "did you mean gpu.cores"),
        ("gpu.cores: [8, 10, 12]", "gpu.cores: []", 3, "space is empty"),
        ("gpu.cores: [8, 10, 12]", "gpu.cores: [8, 8]", 3, "twice"),
        ("gpu.cores: [8, 10, 12]", "gpu.cores: [0]", 3, "got 0"),
        ("gpu.cores: [8, 10, 12]", "gpu.cores: 8", 3, "expected a list"),
        ("gpu.cores: [8, 10, 12]", "gpu.cores: {from: 1, to: 4, steps: 3}", 3, "not whole numbers"),
        ("from: 1.2GHz", "from: 1.9GHz", 4, "range is empty"),
        ("from: 1.2GHz", "from: 1.2GB", 4, "gpu.clock"),
        ("from: 1.2GHz", "from: 1.2", 4, "without a unit"),
        (", steps: 4", "", 11, "a grid needs steps"),
        ("chat.weights", "chat.wieghts", 5, "did you mean weights"),
        ("model: qwen3-0.6b, ", "", 7, "has no model"),
        ("generate: 16", "generat: 16", 7, "did you mean generate"),
        ("weight: 30", "weight: -1", 8, "expected a number"),
        ("latency_s,", "latency,", 9, "did you mean latency_s"),
        ("area_mm2 <= 200", "area_mm2 = 200", 10, "expected a metric"),
        ("area_mm2 <= 200", "chat.tokens_per_s <= 10", 10, "contradict"),
        ("seed: 3", "seed: x", 11, "whole number"),
        ("method: grid", "method: gird", 11, "did you mean grid"),
        ("method: grid", "method: lhs", 11, "needs 'designs'"),
        ("chip: m4", "chip: m44", 1, "not known"),
        ("chip: m4", "chip: m4\nchip: m4", 2, "twice"),
        ("search:", "serach:", 11, "did you mean search"),
        ("[8, 10, 12]", "[8, 10, 12", 4, "not valid YAML"),
    ],
)
def test_refuses_with_the_line(tmp_path: Path, old: str, new: str, line: int, says: str) -> None:
    assert old in GOOD
    with pytest.raises(StudyError, match=says) as caught:
        study(tmp_path, GOOD.replace(old, new, 1))
    assert f"study.yaml:{line}:" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "line", "says"),
    [
        ("qwen3-0.6b, prompt: 64", "llama-3.1-70b, weights: q8_0, prompt: 64", 7, "fits no design"),
        ("area_mm2 <= 200", "area_mm2 <= 20", 10, "the smallest has"),
        ("area_mm2 <= 200", "power_w <= -1", 10, "below 0"),
        ("model: resnet18", "model: resnet19", 8, "not known"),
        ("chat.tokens_per_s > 10", "eye.tokens_per_s > 10", 10, "no such phase"),
    ],
)
def test_refuses_what_no_design_can_do(tmp_path: Path, old: str, new: str, line: int, says: str) -> None:
    read = study(tmp_path, GOOD.replace(old, new, 1).replace("  chat.weights: [q4_0, q8_0]\n", "  slc.size: [8MiB]\n"))
    with pytest.raises(StudyError, match=says) as caught:
        refuse_hopeless(read, Evaluator(read))
    assert f"study.yaml:{line}:" in str(caught.value)


def test_a_file_that_is_not_there_or_no_text(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="cannot be read"):
        read_study(tmp_path / "none.yaml")
    (tmp_path / "bytes.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(StudyError, match="UTF-8"):
        read_study(tmp_path / "bytes.yaml")
    (tmp_path / "loop.yaml").write_text("a: &x [*x]\n")
    with pytest.raises(StudyError):
        read_study(tmp_path / "loop.yaml")
