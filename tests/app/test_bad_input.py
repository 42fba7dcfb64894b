"""What the user must correct: one sentence on stderr, nothing on stdout, exit code 2, never a traceback."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import orchard

LLAMA = {
    "model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 256, "intermediate_size": 512,
    "num_attention_heads": 4, "num_key_value_heads": 2, "num_hidden_layers": 2, "vocab_size": 1000,
}  # fmt: skip


def refused(ended, *says: str) -> None:
    assert ended.code == 2, ended.err[-900:]
    assert ended.out == ""
    assert "Traceback" not in ended.err
    assert len(ended.err.strip().splitlines()) == 1, ended.err
    assert len(ended.err) < 900, ended.err
    for text in says:
        assert text in ended.err, ended.err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["predict", "llama-3.1-8b", "--chip", "m4maxx"], ["'m4maxx' is not known", "m4max"]),
        (["predict", "lama-3.1-8b", "--chip", "m4max"], ["lama-3.1-8b", "llama-3.1-8b"]),
        (["predict", "llama-3.1-8b", "--chip", "m1", "--weights", "q4_k_n"], ["q4_k_n", "q4_k_m"]),
        (["predict", "llama-3.1-8b", "--chip", "m1", "--kv", "q8_9"], ["q8_9", "q8_0"]),
        (["predict", "llama-3.1-8b", "--chip", "m1", "--activations", "f17"], ["f17", "f16"]),
        (["predict", "llama-3.1-8b", "--chip", "m1", "--runtime", "lama.cpp"], ["lama.cpp", "llama.cpp"]),
        (["predict", "llama-3.1-8b", "--chip", "m1", "--engine", "gpuu"], ["gpuu", "gpu"]),
        (["predict", "llama-3.1-8b", "--chip", "m1", "--fidelity", "exact"], ["exact", "estimate"]),
        (["predict", "llama-3.1-8b", "--chip", "m1", "--batch", "-1"], ["batch", "-1"]),
        (["predict", "llama-3.1-8b", "--chip", "m1", "--batch", "0"], ["batch"]),
        (["predict", "llama-3.1-8b", "--chip", "m1", "--prompt", "99999999999999"], ["prompt"]),
        (["predict", "llama-3.1-8b", "--chip", "m1", "--prompt", "many"], ["--prompt", "many"]),
        (["predict", "llama-3.1-8b", "--chip", "m1", "--prompt", "0", "--generate", "0"], ["nothing to predict"]),
        (["predict", "llama-3.1-8b", "--chip", "m1", "--set", "gpu.coers=3"], ["gpu.coers", "gpu.cores"]),
        (["predict", "llama-3.1-8b", "--chip", "m1", "--set", "gpu.cores"], ["gpu.cores"]),
        (["predict", "llama-3.1-8b", "--chip", "m1", "--set", "gpu.cores=-3"], ["gpu.cores"]),
        (["predict", "llama-3.1-8b", "--chip", "m1", "--set", "gpu.cores=nan"], ["gpu.cores"]),
        (["predict", "llama-3.1-8b", "--chip", "m1", "--set", "dram.bandwidth=5W"], ["dram.bandwidth", "5W"]),
        (["predict", "llama-3.1-8b", "--chip", "m1", "--set", "dram.bandwidth=1e400"], ["dram.bandwidth"]),
        (["predict", "llama-3.1-8b", "--chip", "m1", "--fail-if", "latency"], ["--fail-if"]),
        (["predict", "llama-3.1-8b", "--chip", "m1", "--fail-if", "latencyms>1"], ["latencyms", "latency_ms"]),
        (["predict", "llama-3.1-8b"], ["--chip"]),
        (["predict", "--chip", "m1"], ["MODEL"]),
        (["predict", "llama-3.1-8b", "--chip", "m1", "--wieghts", "f16"], ["--wieghts"]),
        (["prediict"], ["prediict"]),
        (["compare", "llama-3.1-8b", "--chip", "m1,m9"], ["m9"]),
        (["compare", "llama-3.1-8b", "--chip", "m1,"], ["chip"]),
        (["compare", "llama-3.1-8b", "--chip", "m1", "--weights", "f16,q9"], ["q9"]),
        (["compare", "llama-3.1-8b", "--chip", "m1", "--runtime", "nope"], ["nope"]),
        (["compare", "llama-3.1-8b", "--chip", ",".join(["m1"] * 500)], ["500 combinations"]),
        (["chips", "show", "m99"], ["m99"]),
        (["complexity", "qwen-nothing"], ["qwen-nothing"]),
        (["complexity", "qwen3-4b", "--chip", "zz"], ["zz"]),
        (["predict", "llama-3.1-8b", "--chip", "m1" * 5000], ["not known"]),
        (["predict", "x" * 5000, "--chip", "m1"], ["not known"]),
        (["predict", "", "--chip", "m1"], []),
        (["predict", "llama-3.1-8b", "--chip", ""], []),
        (["predict", "no/such/config.json", "--chip", "m1"], ["no/such/config.json"]),
        (["predict", "llama-3.1-8b", "--chip", "no/such/chip.yaml"], ["no/such/chip.yaml"]),
    ],
)  # fmt: skip
def test_arguments(run, arguments: list[str], says: list[str]) -> None:
    refused(run(*arguments), *says)


def without(field: str) -> dict[str, Any]:
    return {key: value for key, value in LLAMA.items() if key != field}


CONFIGS: dict[str, tuple[str | bytes, list[str]]] = {
    "no_hidden": (json.dumps(without("hidden_size")), ["hidden_size"]),
    "no_layers": (json.dumps(without("num_hidden_layers")), ["num_hidden_layers"]),
    "no_type": (json.dumps({"hidden_size": 5}), []),
    "unknown_type": (json.dumps({**LLAMA, "model_type": "quantum"}), ["quantum"]),
    "negative": (json.dumps({**LLAMA, "hidden_size": -4096}), ["-4096"]),
    "zero": (json.dumps({**LLAMA, "num_hidden_layers": 0}), ["layers"]),
    "absurd": (json.dumps({**LLAMA, "num_hidden_layers": 10**12}), []),
    "absurd_vocab": (json.dumps({**LLAMA, "vocab_size": 10**30}), []),
    "text_number": (json.dumps({**LLAMA, "hidden_size": "4096"}), ["hidden_size"]),
    "list_number": (json.dumps({**LLAMA, "hidden_size": [1]}), ["hidden_size"]),
    "null": (json.dumps({**LLAMA, "hidden_size": None}), ["hidden_size"]),
    "true": (json.dumps({**LLAMA, "hidden_size": True}), ["hidden_size"]),
    "fraction": (json.dumps({**LLAMA, "hidden_size": 4096.5}), ["hidden_size"]),
    "nan": (json.dumps({**LLAMA, "hidden_size": math.nan}), []),
    "infinite": (json.dumps({**LLAMA, "hidden_size": math.inf}), []),
    "uneven_heads": (json.dumps({**LLAMA, "num_key_value_heads": 3}), []),
    "truncated": (json.dumps(LLAMA)[:60], []),
    "empty": ("", []),
    "list": ("[1, 2]", []),
    "number": ("7", []),
    "deep": ("[" * 100_000, []),
    "deep_object": ('{"a":' * 50_000, []),
    "binary": (bytes(range(256)) * 20, []),
    "latin": ('{"model_type": "\xe9"}'.encode("latin-1"), []),
    "huge_number": ('{"model_type": "llama", "hidden_size": ' + "9" * 6000 + "}", []),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_model_configurations(run, tmp_path: Path, name: str) -> None:
    content, says = CONFIGS[name]
    path = tmp_path / "config.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    refused(run("predict", str(path), "--chip", "m1"), *says)


def test_a_sound_configuration_is_answered(run, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(LLAMA))
    assert run("predict", str(tmp_path), "--chip", "m1").code == 0


def test_a_huge_configuration(run, tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    with path.open("wb") as file:
        file.truncate(2**33)  # sparse: 8 GiB that take no disk
    started = time.monotonic()
    refused(run("predict", str(path), "--chip", "m1"), "config.json")
    assert time.monotonic() - started < 5


def test_a_folder_without_a_configuration(run, tmp_path: Path) -> None:
    refused(run("predict", str(tmp_path), "--chip", "m1"), "config.json")


# nine lists, each of six copies of the one before: ten million entries when expanded
BOMB = "a: &a [x,x,x,x,x,x]\n" + "".join(
    f"{b}: &{b} [{','.join([f'*{a}'] * 6)}]\n" for a, b in zip("abcdefgh", "bcdefghi")
)
CHIPS: dict[str, tuple[str | bytes, list[str]]] = {
    "bomb": (BOMB, ["anchor"]),
    "deep": ("a: " + "[" * 5000, []),
    "list": ("- m1\n- m2\n", []),
    "empty": ("", []),
    "binary": (bytes(range(256)), []),
    "unknown_key": ("base: m1\ngpuu:\n  cores: 4\n", ["gpuu", "gpu"]),
    "unknown_base": ("base: m77\n", ["m77"]),
    "unknown_figure": ("base: m1\ngpu:\n  coers: 4\n", ["coers"]),
    "negative": ("base: m1\ngpu:\n  cores: -4\n", ["gpu.cores"]),
    "nan": ("base: m1\ngpu:\n  cores: .nan\n", ["gpu.cores"]),
    "infinite": ("base: m1\ngpu:\n  clock: .inf\n", ["gpu.clock"]),
    "list_value": ("base: m1\ngpu:\n  cores: [1, 2]\n", ["gpu.cores"]),
    "twice": ("base: m1\nbase: m2\n", ["base"]),
    "python": ("base: !!python/object/apply:os.system ['true']\n", []),
    "truncated": ('base: "m1', []),
    "tabs": ("base:\n\t- m1\n", []),
}  # fmt: skip


@pytest.mark.parametrize("name", CHIPS)
def test_chip_files(run, tmp_path: Path, name: str) -> None:
    content, says = CHIPS[name]
    path = tmp_path / "chip.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    refused(run("predict", "qwen3-4b", "--chip", str(path), "--weights", "q4_0"), *says)


def test_a_chip_file_that_is_a_folder(run, tmp_path: Path) -> None:
    refused(run("chips", "show", str(tmp_path) + "/"), "no regular file")


def test_a_chip_file_that_never_ends(run) -> None:
    refused(run("chips", "show", "/dev/zero"), "/dev/zero")


def test_an_assumed_op_of_a_built_in_model(run) -> None:
    refused(run("inspect", "resnet50", "--assume-elementwise", "Blur"), "--assume-elementwise 'Blur'", "no model file")


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root reads everything")
def test_a_file_nobody_may_read(run, tmp_path: Path) -> None:
    path = tmp_path / "chip.yaml"
    path.write_text("base: m1\n")
    path.chmod(0)
    refused(run("chips", "show", str(path)), "cannot be read")


# --------------------------------------------------------------------------------------------- as a process


def test_a_refusal_as_a_process(shell) -> None:
    refused(shell("predict", "llama-3.1-8b", "--chip", "m4maxx"), "m4max")


def _process(*arguments: str, **options: Any) -> subprocess.Popen[str]:
    source = str(Path(orchard.__file__).parents[1])
    return subprocess.Popen(
        [sys.executable, "-m", "orchard", *arguments], text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": source, "PYTHONUNBUFFERED": "1"}, **options,
    )  # fmt: skip


@pytest.mark.parametrize("arguments", [("chips", "--json"), ("chips",), ("chips", "show", "m4max")])
def test_a_closed_pipe_ends_quietly(arguments: tuple[str, ...]) -> None:
    process = _process(*arguments)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    assert process.wait(timeout=60) == 141
    assert process.stderr.read() == ""
    process.stderr.close()


def test_ctrl_c_ends_with_130() -> None:
    waits = """
import signal, sys, time
from orchard.app import exits
signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background starts with it ignored
class Command:
    def main(self, **_):
        print("on", flush=True)
        time.sleep(60)
sys.exit(exits.run(Command(), []))
"""
    process = subprocess.Popen(
        [sys.executable, "-c", waits], text=True, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(Path(orchard.__file__).parents[1])},
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "on\n"
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert err == "orchard: interrupted\n"


def test_our_own_defect_ends_with_1(capsys: pytest.CaptureFixture[str]) -> None:
    from orchard.app import exits

    class Broken:
        def main(self, **_: Any) -> None:
            raise ZeroDivisionError("inside")

    assert exits.run(Broken(), []) == 1
    err = capsys.readouterr().err
    assert "Traceback" in err
    assert "defect of Orchard" in err


def test_output_a_terminal_cannot_show_is_no_defect() -> None:
    source = str(Path(orchard.__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-m", "orchard", "predict", "qwen3-4b", "--chip", "m1", "--weights", "q4_0"],
        env={**os.environ, "PYTHONPATH": source, "PYTHONIOENCODING": "ascii"}, capture_output=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0
    assert b"?" in done.stdout


@pytest.mark.parametrize("name", ["x.onnx", "x.gguf", "x.pt2", "x.mlpackage", "x.mlxfn", "x.aimodel", "x.mlmodel"])
@pytest.mark.parametrize(
    "content", [b"", bytes(range(256)) * 8, b"GGUF\x03\x00\x00\x00" + b"\xff" * 64, b"PK\x03\x04" + b"\x00" * 60]
)
def test_model_files_that_hold_something_else(run, tmp_path: Path, name: str, content: bytes) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    refused(run("predict", str(path), "--chip", "m1"), name)


@pytest.mark.parametrize("model", ["os:system", "no.such.module:f", "json:loads", "orchard.units:scheme"])
def test_functions_that_are_no_models(run, model: str) -> None:
    refused(run("predict", model, "--chip", "m1"))


def test_shapes_are_for_model_files(run) -> None:
    refused(run("predict", "qwen3-4b", "--chip", "m1", "--input", "x=1x3"), "--input", "built in")


def test_a_function_of_the_working_directory(run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "my_broken_model.py").write_text("def f():\n    return 1 / 0\n")
    refused(run("predict", "my_broken_model:f", "--chip", "m1"), "ZeroDivisionError")
