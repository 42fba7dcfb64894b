"""`orchard predict`: what it prints, its JSON, and its exit codes."""

from __future__ import annotations

import json

import pytest

import orchard

LLAMA = ("predict", "llama-3.1-8b", "--chip", "m4max", "--weights", "q4_k_m")


def test_the_terminal_answer_has_every_part(run) -> None:
    ended = run(*LLAMA)
    assert ended.code == 0
    for part in (
        "meta-llama/Llama-3.1-8B-Instruct", "Apple M4 Max", "llama.cpp", "q4_k_m", "pp512", "tg128 @ d512",
        "80 % interval", "time to first token", "energy", "compute", "memory", "dispatch", "kv cache", "fits",
    ):  # fmt: skip
        assert part in ended.out, part
    assert "\x1b" not in ended.out  # no colour where nobody looks
    assert max(len(line) for line in ended.out.splitlines()) <= 80


def test_json_is_what_python_returns(run) -> None:
    ended = run(*LLAMA, "--json", "--breakdown")
    expected = orchard.predict("llama-3.1-8b", "m4max", weights="q4_k_m").to_dict(breakdown=True)
    assert json.loads(ended.out) == json.loads(json.dumps(expected))


def test_breakdown_prints_groups_and_kernels(run) -> None:
    out = run(*LLAMA, "--breakdown").out
    assert "layer group" in out
    assert "ffn.gate" in out


def test_shares_of_the_breakdown_sum_to_the_phase() -> None:
    prediction = orchard.predict("llama-3.1-8b", "m4max", weights="q4_k_m")
    for phase in prediction.phases.values():
        assert sum(phase.bound_by.values()) == pytest.approx(1)
        assert sum(k.seconds for k in phase.kernels) <= phase.latency_s * (1 + 1e-9)


def test_a_condition_that_holds_ends_with_4_after_the_answer(run) -> None:
    ended = run(*LLAMA, "--fail-if", "decode.tokens_per_s>1", "--fail-if", "ttft_ms>1e9")
    assert ended.code == 4
    assert "time to first token" in ended.out
    assert "--fail-if 'decode.tokens_per_s>1' holds" in ended.err
    assert "ttft_ms" not in ended.err


def test_a_condition_that_does_not_hold_ends_with_0(run) -> None:
    assert run(*LLAMA, "--fail-if", "fits==false").code == 0


def test_a_model_that_does_not_fit_is_an_answer_with_remedies(run) -> None:
    ended = run("predict", "llama-3.1-70b", "--chip", "m4", "--weights", "f16")
    assert ended.code == 0
    assert "does not fit" in ended.out
    assert "what would fit" in ended.out
    record = json.loads(run("predict", "llama-3.1-70b", "--chip", "m4", "--weights", "f16", "--json").out)
    assert record["memory"]["fits"] is False
    for chip in record["remedies"]["chips"]:
        assert chip["limit_bytes"] >= record["memory"]["total_bytes"]
        assert orchard.predict("llama-3.1-70b", chip["id"], weights="f16").memory.fits


def test_the_weight_format_that_is_offered_fits(run) -> None:
    record = json.loads(
        run("predict", "llama-3.1-8b", "--chip", "m2", "--weights", "f16", "--set", "dram.capacity=16GiB", "--json").out
    )
    offered = record["remedies"]["weights"]["format"]
    again = orchard.predict("llama-3.1-8b", "m2", weights=offered, overrides=["dram.capacity=16GiB"])
    assert again.memory.fits
    assert again.memory.total == record["remedies"]["weights"]["total_bytes"]


def test_overrides_reach_the_chip(run) -> None:
    slow = json.loads(run(*LLAMA, "--set", "dram.bandwidth=100GB/s", "--json").out)
    fast = json.loads(run(*LLAMA, "--json").out)
    assert slow["chip"]["overrides"] == {"dram.bandwidth": "100GB/s"}
    assert slow["phases"]["decode"]["latency_s"] > 2 * fast["phases"]["decode"]["latency_s"]


@pytest.mark.parametrize("engine", ["CPU_AND_GPU", "gpu", "ALL", "auto"])
def test_core_ml_names_of_engines(run, engine: str) -> None:
    assert json.loads(run(*LLAMA, "--engine", engine, "--json").out)["engine"] == "gpu"
