"""explore and runs as a user meets them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from orchard.app.cli import main
from orchard.report.schemas import SCHEMAS

pytest.importorskip("duckdb")

STUDY = """\
chip: m4
knobs:
  gpu.cores: [8, 10, 12]
  dram.bus_width: [128bit, 256bit]
  gpu.clock: {from: 1.2GHz, to: 1.6GHz, steps: 3}
workloads:
  chat: {model: qwen3-0.6b, weights: q4_0, prompt: 64, generate: 16}
objectives: [latency_s, area_mm2]
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "study.yaml").write_text(STUDY)
    return tmp_path


def record(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> dict[str, object]:
    assert main([*arguments, "--json"]) == 0
    text = capsys.readouterr().out
    found: dict[str, object] = json.loads(text)
    SCHEMAS[str(found["schema"])].model_validate_json(text)
    return found


def test_explore_list_show_compare_export(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    explored = record(["explore", "study.yaml", "--out", "runs/a"], capsys)
    assert explored["evaluated"] == 18
    assert record(["explore", "study.yaml", "--out", "runs/b"], capsys)["digest"] == explored["digest"]
    listed = record(["runs", "list", "runs"], capsys)["runs"]
    assert {r["folder"] for r in listed} == {"runs/a", "runs/b"}  # type: ignore[attr-defined]
    assert record(["runs", "show", "runs/a"], capsys)["front"] == explored["front"]
    assert record(["runs", "compare", "runs/a", "runs/b"], capsys)["same_result"] is True
    assert main(["runs", "export", "runs/a", "front.csv", "--front"]) == 0
    lines = (here / "front.csv").read_text().splitlines()
    assert len(lines) == 1 + len(explored["front"])  # type: ignore[arg-type]
    assert lines[0].startswith("index,gpu.cores,dram.bus_width,gpu.clock,chat.prefill_s")


def test_a_study_without_a_feasible_design(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "none.yaml").write_text(STUDY + 'constraints: ["power_w <= 0.5"]\n')
    assert main(["explore", "none.yaml"]) == 0
    assert "empty: no design keeps every limit" in capsys.readouterr().out
    assert main(["explore", "none.yaml", "--fail-if", "feasible<1"]) == 4
    assert main(["explore", "study.yaml", "--fail-if", "feasible<1", "--fail-if", "best.latency_s>100"]) == 0
    capsys.readouterr()
    assert main(["explore", "study.yaml", "--fail-if", "knee.area>1"]) == 2
    assert "knee.area_mm2" in capsys.readouterr().err
    (here / "bidi.yaml").write_text('name: "a\\u202Eb"\n' + STUDY)
    assert main(["explore", "bidi.yaml"]) == 2
    assert "bidi.yaml:1: name: got 'a\\u202eb'" in capsys.readouterr().err


@pytest.mark.usefixtures("here")
def test_text_fits_80_columns_and_names_the_units(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explore", "study.yaml", "--points", "3"]) == 0
    text = capsys.readouterr().out
    assert max(map(len, text.splitlines())) <= 80
    assert "dram.bus_width 256 bit" in text
    assert "gpu.clock 1.6 GHz" in text
    assert "<- knee" in text
    assert "bound by chat.prefill compute" in text


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["explore", "none.yaml"], "cannot be read"),
        (["area", "m4", "--chip", "m1"], "two chips"),
        (["sensitivity", "--chip", "m4"], "no workload is named"),
        (["simulate", ".", "--chip", "m4"], "is a folder"),
        (["simulate", "video-call", "--chip", "m4", "--seed", "-1"], "--seed -1"),
        (["simulate", "video-call", "--chip", "m4", "--fail-if", "segmentaton.p99_ms>5"], "did you mean segmentation"),
        (["explore", "study.yaml", "--backend", "lokey"], "did you mean loky"),
        (["explore", "study.yaml", "--address", "tcp://x:1"], "--backend dask"),
        (["runs", "list", "none"], "no such folder"),
        (["runs", "show", "none"], "no run here"),
        (["runs", "resume", "none"], "no run here"),
        (["runs", "compare", "none", "none"], "no run here"),
        (["runs", "export", "none", "x.csv"], "no run here"),
    ],
)
def test_bad_input_is_one_sentence(capsys: pytest.CaptureFixture[str], arguments: list[str], says: str) -> None:
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert says in captured.err
    assert captured.err.count("\n") == 1
    assert captured.out == ""
