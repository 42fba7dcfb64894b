"""Printed recipes: their options are those that the tools document, and their formats have names the tools know."""

from __future__ import annotations

import argparse
import shlex

import pytest

from orchard.studies.advice.changes import FORMATS, Change, changes_for
from orchard.studies.advice.commands import how_to
from orchard.studies.predict import answer
from orchard.studies.request import Request


def mlx_convert() -> argparse.ArgumentParser:
    """The options of `mlx_lm.convert --help`, mlx-lm 0.32.2, that recipes use."""
    parser = argparse.ArgumentParser(exit_on_error=False)
    parser.add_argument("--hf-path", required=True)
    parser.add_argument("-q", "--quantize", action="store_true")
    parser.add_argument("--q-bits", type=int, choices=[2, 3, 4, 5, 6, 8])
    parser.add_argument("--q-group-size", type=int, choices=[32, 64, 128])
    return parser


QUANTIZE = (
    "q4_0", "q4_1", "q5_0", "q5_1", "q8_0", "q2_k", "q3_k_s", "q3_k_m", "q3_k_l", "q4_k_s", "q4_k_m", "q5_k_s", "q5_k_m",
    "q6_k", "iq4_nl", "iq4_xs", "f16", "bf16",
)  # fmt: skip
"""Types that `llama-quantize --help` lists (some of them), in lower case; it takes both cases."""


def recipes(runtime: str, weights: str) -> dict[str, str]:
    """The recipe of each weight format that is tried on a runtime."""
    p = answer(Request(model="llama-3.2-1b", chip="m4", runtime=runtime, weights=weights))
    changes: list[Change] = [c for c in changes_for(p) if c.kind == "weights"]
    return {str(dict(c.fields)["weights"]): how_to([c], p, p)[0] for c in changes}


def test_mlx_recipes_parse_and_name_the_hub() -> None:
    found = recipes("mlx", "f16")
    assert set(found) == {name for name, _, _ in FORMATS["mlx"]}
    for name, command in found.items():
        tool, *words = shlex.split(command)
        asked = mlx_convert().parse_args(words)
        assert tool == "mlx_lm.convert"
        assert asked.quantize
        assert asked.hf_path.startswith("meta-llama/")
        assert name == f"mlx-{asked.q_bits}bit-g{asked.q_group_size}"


def test_llama_cpp_recipes_name_known_types() -> None:
    found = recipes("llama.cpp", "f16")
    assert set(found) == {name for name, _, _ in FORMATS["llama.cpp"]}
    for name, command in found.items():
        tool, source, target, kind = shlex.split(command)
        assert (tool, source, target, kind) == ("llama-quantize", "model-f16.gguf", f"model-{name}.gguf", name)
        assert kind in QUANTIZE


def test_the_parser_refuses_another_form() -> None:
    with pytest.raises((SystemExit, argparse.ArgumentError)):
        mlx_convert().parse_args(["--hf-path", "m", "-q", "--q-bits", "mxfp4"])
