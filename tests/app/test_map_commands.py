"""`orchard map` end to end."""

from __future__ import annotations

import json

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
    ],
)
def test_what_the_user_must_correct_is_one_sentence_and_code_2(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    err = capsys.readouterr().err
    assert len(err.strip().splitlines()) == 1
