"""The command line as a whole: help, version, lists, and that every command module is registered."""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path

import pytest

import orchard
from orchard.app import cli

COMMANDS = ("predict", "compare", "chips", "models", "complexity", "validate", "calibrate")


def test_help_names_every_command(run) -> None:
    ended = run("--help")
    assert ended.code == 0
    for command in COMMANDS:
        assert f"\n  {command} " in ended.out


def test_no_arguments_print_the_help(run) -> None:
    assert "Usage: orchard" in run().out


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_and_json(run, command: str) -> None:
    ended = run(command, "--help")
    assert ended.code == 0
    assert "--json" in ended.out


def test_version(run) -> None:
    assert run("--version").out == f"orchard {orchard.__version__}\n"


def test_every_command_module_is_registered() -> None:
    folder = Path(cli.__file__).parent
    modules = {f"orchard.app.{p.stem}" for p in folder.glob("*_command*.py")}
    assert modules <= set(cli.OPTIONAL)
    assert all(callable(import_module(m).register) for m in modules)


def test_chips_lists_bins_below_their_chip(run) -> None:
    lines = run("chips").out.splitlines()
    names = [line.split()[0] for line in lines if line.strip()]
    assert names.index("m4max") + 1 == names.index("m4max_cpu14_gpu32")


@pytest.mark.parametrize("columns", ["80", "120"])
def test_lists_fit_the_terminal(run, monkeypatch: pytest.MonkeyPatch, columns: str) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    for arguments in (
        ["chips"],
        ["models"],
        ["chips", "show", "m4max"],
        ["complexity", "qwen3-30b-a3b", "--chip", "m2"],
    ):
        assert max(map(len, run(*arguments).out.splitlines())) <= int(columns)


def test_a_figure_shows_unit_kind_and_source(run) -> None:
    out = run("chips", "show", "m4max").out
    assert "546.112 GB/s" in out or "546 GB/s" in out
    for word in ("vendor", "measured", "derived", "estimate", "sources", "http"):
        assert word in out


def test_chips_show_follows_set(run) -> None:
    record = json.loads(run("chips", "show", "m4max", "--set", "gpu.cores=60", "--json").out)
    assert record["figures"]["gpu.cores"]["kind"] == "user"
    plain = json.loads(run("chips", "show", "m4max", "--json").out)
    grown = record["figures"]["gpu.fp16"]["si"] / plain["figures"]["gpu.fp16"]["si"]
    assert grown == pytest.approx(60 / 40)


def test_models_lists_names_that_predict_understands(run) -> None:
    listed = json.loads(run("models", "--json").out)["models"]
    assert len(listed) > 90
    from orchard.workloads import load_model

    for model in listed:
        if model["unpublished"] is None:
            assert load_model(model["name"]).name == model["id"]


def test_compare_marks_the_best(run) -> None:
    out = run("compare", "qwen3-4b", "--chip", "m1,m4max", "--weights", "q4_0").out
    assert out.count("*") == 3  # prefill, decode and the legend
    line = next(line for line in out.splitlines() if line.startswith("m4max"))
    assert line.count("*") == 2


def test_validate_draws(run, tmp_path: Path) -> None:
    path = tmp_path / "errors.svg"
    ended = run("validate", "--plot", str(path), "--markdown")
    assert ended.code == 0
    assert path.read_text().startswith("<svg")
    assert "wrote" in ended.err
    assert ended.out.startswith("| stratum")


def test_validate_refuses(run, tmp_path: Path) -> None:
    assert run("validate", "--suite", "lmm").code == 2
    assert run("validate", "--rows", str(tmp_path / "none.csv")).code == 2
    assert run("validate", "--plot", str(tmp_path / "no" / "such.svg")).code == 2


@pytest.mark.parametrize("columns", ["80", "120"])
def test_a_comparison_of_everything_fits_the_terminal(run, monkeypatch: pytest.MonkeyPatch, columns: str) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    arguments = ("--chip", "m1max,m4max", "--engine", "gpu,cpu", "--runtime", "llama.cpp,mlx", "--weights", "q4_0,q8_0")
    out = run("compare", "llama-3.1-8b", "deepseek-r1-distill-llama-70b", *arguments).out
    assert "…" not in out
    assert max(map(len, out.splitlines())) <= int(columns)
    assert "deepseek-r1-distill-llama-70b" in out
