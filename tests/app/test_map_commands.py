"""`orchard map` end to end."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from orchard.app.cli import main


def test_json_has_the_promised_keys(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["map", "gemm:m=64,k=64,n=64", "--arch", "E16", "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    keys = {"energy_pj", "latency_cycles", "edp", "bound", "optimal", "mappings_considered", "search_s", "loop_nest"}
    assert keys <= record.keys()
    assert record["optimal"] is True
    assert record["edp"] == pytest.approx(record["energy_pj"] * record["latency_cycles"])


def test_text_shows_nest_and_proof(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["map", "gemm:m=64,k=64,n=64", "--arch", "E16"]) == 0
    out = capsys.readouterr().out
    assert "keep GLB" in out
    assert "proven optimal" in out


@pytest.mark.parametrize(
    "arguments",
    [
        ["map", "gemm:m=64,k=64", "--arch", "E16"],
        ["map", "gemm:m=64,k=64,n=4", "--arch", "nope"],
        ["map", "gemm:m=64,k=64,n=4", "--arch", "E16", "--objective", "speed"],
        ["map", "gemm:m=64,k=64,n=4", "--arch", "E16", "--factors", "odd"],
        ["map", "gemm:m=64,k=64,n=4"],
        ["map"],
        ["map", "gemm:m=64,k=64,n=4", "--arch", "E16", "--chip", "m4"],
        ["map", "gemm:m=64,k=64,n=4", "--chip", "m4"],
        ["map", "gemm:m=64,k=64,n=4", "--chip", "m4", "--engine", "tpu"],
        ["map", "gemm:m=64,k=64,n=4", "--arch", "E16", "--op", "layers.0"],
        ["map", "gemm:m=64,k=64,n=4", "--arch", "E16", "--time-limit", "-1"],
        ["map", "qwen3-0.6b", "--arch", "E16", "--emit", "c"],
        ["map", "no-such-model", "--chip", "m4", "--engine", "gpu"],
        ["map", "qwen3-0.6b", "--chip", "m4", "--engine", "gpu", "--phase", "inference"],
        ["map", "qwen3-0.6b", "--chip", "m4", "--engine", "gpu", "--op", "layers.99"],
        ["map", "qwen3-0.6b", "--chip", "m4", "--engine", "gpu", "--objective", "speed"],
        ["bounds", "gemm:m=8,k=8,n=8", "--arch", "E16", "--level", "L9"],
        ["bounds", "gemm:m=8,k=8,n=8"],
        ["bounds", "attention:h=2,m=8,p=8,e=8", "--arch", "A64"],
        ["bounds", "gemm:m=8,k=8,n=8", "--arch", "E16", "--plot", "/no/such/folder/f.svg"],
    ],
)
def test_what_the_user_must_correct_is_one_sentence_and_code_2(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    err = capsys.readouterr().err
    assert len(err.strip().splitlines()) == 1


def test_an_engine_of_a_chip_is_a_machine(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["map", "gemm:m=64,k=64,n=64", "--chip", "m4", "--engine", "ane", "--json"]) == 0
    captured = capsys.readouterr()
    record = json.loads(captured.out)
    assert (record["arch"], record["objective"]) == ("m4.ane", "latency")
    assert "bandwidth not known, taken as no limit: slc, ane.l2, kernel_buffer" in captured.err


def test_the_cache_is_used_reported_and_cleared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["map", "gemm:m=16,k=16,n=16", "--arch", "E16", "--cache", str(tmp_path), "--json"]
    records = []
    for expected in (False, True):
        assert main(command) == 0
        captured = capsys.readouterr()
        records.append(json.loads(captured.out))
        assert ("from the cache" in captured.err) is expected
    assert records[0] == records[1]
    assert main([*command, "--no-cache"]) == 0
    assert "from the cache" not in capsys.readouterr().err
    assert main(["map", "--clear-cache", "--cache", str(tmp_path)]) == 0
    assert "removed 1 mappings" in capsys.readouterr().out
    assert list(tmp_path.rglob("*.json")) == []


def test_a_model_is_ranked_and_fits_80_columns(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["map", "qwen3-0.6b", "--chip", "m4", "--engine", "gpu", "--phase", "decode", "--op", "layers.3"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert all(len(line) <= 80 for line in lines)
    assert any(line.startswith("keep dram") for line in lines)


def test_bounds_draws_and_marks_what_the_machine_has(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    drawing = tmp_path / "curve.svg"
    assert main(["bounds", "gemm:m=512,k=512,n=512", "--arch", "E16", "--plot", str(drawing)]) == 0
    out = capsys.readouterr().out
    assert "131,072 B" in next(line for line in out.splitlines() if "the machine has this" in line)
    assert drawing.read_text().startswith("<svg")
def test_a_job_prints_one_line_per_op(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["map", "--job", "J1T"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["op", "gemm", "all"]
    assert all(len(line) <= 80 for line in lines)


def test_a_job_that_is_a_chain_is_fused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["map", "--job", "J3"]) == 0
    told = capsys.readouterr()
    assert "proven optimal" in told.out
    assert "attention:h=12,m=2048,p=2048,e=64 --fuse --arch A64" in told.err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--job", "J9"], "expected one of J1, J1T, J2, J3"),
        (["--job", "J1", "--arch", "E16"], "--job names op and machine"),
    ],
)
def test_jobs_are_refused_in_one_sentence(arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["map", *arguments]) == 2
    assert says in capsys.readouterr().err


def test_shipped_jobs_are_whole() -> None:
    from orchard.mapping.jobs import jobs
    from orchard.mapping.ops import parse_op

    layers = jobs()["J2"].ops
    assert (len(layers), sum(op.count for op in layers)) == (24, 54)
    assert sum(op.count * parse_op(op.op).macs for op in layers) == pytest.approx(4.09e9, rel=0.01)  # ResNet-50 v1.5


def test_a_chain_says_what_stays_on_the_chip(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["map", "attention:h=2,m=64,p=64,e=16", "--fuse", "--arch", "A64"]) == 0
    out = capsys.readouterr().out
    assert "group S P O: S P in GLB" in out
    assert "proven optimal" in out
    assert "op by op through DRAM" in out


def test_taking_turns_is_slower(capsys: pytest.CaptureFixture[str]) -> None:
    found = []
    for how in ("--vector-overlap", "--vector-turns"):
        assert main(["map", "attention:h=2,m=64,p=64,e=16", "--fuse", "--arch", "A64", how, "--json"]) == 0
        found.append(json.loads(capsys.readouterr().out))
    assert found[0]["latency_cycles"] < found[1]["latency_cycles"]
    assert [r["vector_overlap"] for r in found] == [True, False]


@pytest.mark.parametrize(
    "arguments",
    [
        ["map", "attention:h=2,m=64,p=64,e=16", "--arch", "A64"],
        ["map", "attention:h=2,m=64,p=64", "--arch", "A64", "--fuse"],
        ["map", "attention:h=2,m=64,p=64,e=16", "--arch", "E16", "--fuse"],
        ["map", "gemm:m=64,k=64,n=64", "--arch", "E16", "--vector-turns"],
    ],
)
def test_bad_chains_are_one_sentence_and_code_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1
