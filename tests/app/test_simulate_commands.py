"""`orchard simulate` and its neighbours from the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from orchard.app.cli import main
from orchard.report.schemas import SCHEMAS
from orchard.report.simulation import sparkline

SCENARIO = """
name: small
streams:
  - {name: frames, model: resnet18, engine: ane, every: 20ms, deadline: 20ms}
  - {name: copy work, load: {engine: gpu, time: 1ms, bytes: 10MB}, poisson: 50}
"""


@pytest.fixture
def scenario(tmp_path: Path) -> str:
    path = tmp_path / "small.yaml"
    path.write_text(SCENARIO)
    return str(path)


def test_a_file_runs_and_its_trace_passes(scenario: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trace = tmp_path / "t.json.gz"
    assert main(["simulate", scenario, "--chip", "m4", "--seconds", "0.5", "--trace", str(trace), "--trace-ops"]) == 0
    out = capsys.readouterr().out
    assert "small on Apple M4" in out
    assert all(len(line) <= 80 for line in out.splitlines() if "trace" not in line)
    assert main(["check-trace", str(trace), "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    SCHEMAS[record["schema"]].model_validate_json(json.dumps(record))
    assert record["threads"] == ["gpu", "ane", "cpu"]
    assert main(["check-trace", str(trace)]) == 0
    assert "slices on gpu, ane, cpu" in capsys.readouterr().out


def test_the_same_seed_prints_the_same(scenario: str, capsys: pytest.CaptureFixture[str]) -> None:
    texts = []
    for seed in ("1", "1", "2"):
        assert main(["simulate", scenario, "--chip", "m4", "--seconds", "0.5", "--seed", seed, "--json"]) == 0
        texts.append(capsys.readouterr().out)
    assert texts[0] == texts[1] != texts[2]


@pytest.mark.parametrize(
    ("condition", "code"), [("frames.p99_ms>0.01", 4), ("frames.p99_ms>1000", 0), ("copy_work.missed>0", 0)]
)
def test_conditions(scenario: str, condition: str, code: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["simulate", scenario, "--chip", "m4", "--seconds", "0.2", "--fail-if", condition]) == code
    assert ("holds" in capsys.readouterr().err) == (code == 4)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["simulate", "video-cal", "--chip", "m4"], "did you mean video-call"),
        (["simulate", "video-call", "--chip", "m99"], "m99"),
        (["simulate", "video-call", "--chip", "m4", "--chassis", "fridge"], "chassis 'fridge' is not known"),
        (["simulate", "video-call", "--chip", "m4", "--seconds", "0"], "--seconds 0.0"),
        (["simulate", "video-call", "--chip", "m4", "--trace", "/nowhere/t.json"], "does not exist"),
        (["simulate", "video-call", "--chip", "m4", "--trace-ops"], "say where with --trace"),
        (["simulate", "video-call", "--chip", "m4", "--fail-if", "gaze.p42>1", "--seconds", "0.1"], "has no 'gaze.p42'"),
        (["check-trace", "/nowhere.json"], "cannot be read"),
    ],
)  # fmt: skip
def test_bad_input_is_one_sentence(arguments: list[str], complaint: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    err = capsys.readouterr().err
    assert complaint in err
    assert "Traceback" not in err
    assert err.count("\n") == 1 or "--fail-if" in err


def test_sparklines_are_means_of_equal_parts() -> None:
    assert sparkline([0, 0, 7, 7], 2) == "▁█"
    assert sparkline([3.0] * 5, 50) == "▁▁▁▁▁"
