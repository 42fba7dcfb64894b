"""Every --json output satisfies its schema, and every field of a schema is documented."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from orchard.app.cli import main
from orchard.report.schemas import SCHEMAS

ROOT = Path(__file__).parents[2]
COMMANDS = {
    "predict": ("predict", "qwen3-4b", "--chip", "m1", "--weights", "q4_0", "--breakdown"),
    "predict, does not fit": ("predict", "llama-3.1-70b", "--chip", "m1", "--weights", "q8_0"),
    "predict, encoder": ("predict", "bert-base-uncased", "--chip", "m1", "--weights", "f16"),
    "predict, bound": ("predict", "qwen3-4b", "--chip", "m1", "--fidelity", "bound", "--set", "gpu.cores=9"),
    "compare": ("compare", "qwen3-4b", "--chip", "m1,m2", "--weights", "q4_0,q8_0"),
    "chips": ("chips",),
    "chips show": ("chips", "show", "m4max"),
    "chips show, unknown figures": ("chips", "show", "m6"),
    "models": ("models",),
    "complexity": ("complexity", "qwen3-30b-a3b"),
    "validate": ("validate", "--suite", "llm"),
    "map, a model": ("map", "qwen3-0.6b", "--chip", "m4", "--engine", "gpu", "--phase", "decode", "--weights", "q4_0"),
    "map, a model on an architecture": (
        "map", "qwen3-0.6b", "--arch", "T128", "--op", "layers.0.ffn.up", "--objective", "latency", "--phase", "decode",
    ),
    "bounds": ("bounds", "gemm:m=8,k=8,n=8", "--arch", "E16"),
    "map --fuse": ("map", "attention:h=2,m=64,p=64,e=16", "--fuse", "--arch", "A64"),
    "lint": ("lint", "qwen3-0.6b", "--chip", "m4"),
    "advise": ("advise", "resnet18", "--chip", "a16", "--goal", "latency<0.1ms"),
    "report": ("report", "resnet18", "--chip", "m1", "-o", os.devnull, "--format", "md"),
    "place": ("place", "whisper-tiny", "--chip", "a17pro"),
    "place, language model": ("place", "qwen3-0.6b", "--chip", "m4", "--objective", "energy", "--engines", "gpu,ane"),
    "place, one engine": ("place", "resnet50", "--chip", "m4", "--engines", "ane"),
    "validate, networks": ("validate", "--suite", "vision"),
    "validate, single ops": ("validate", "--suite", "kernels"),
    "area": ("area", "m4max", "--set", "gpu.cores=48"),
    "sensitivity": ("sensitivity", "qwen3-0.6b", "resnet18", "--chip", "m4", "--sobol", "8"),
    "what if": ("whatif", "qwen3-0.6b", "--chip", "m4", "--set", "gpu.cores=12", "--set", "slc.size=16MiB"),
    "validate, history": ("validate", "--suite", "architecture"),
    "area, check": ("area", "--check"),
    "map, job": ("map", "--job", "J1T"),
    "map": ("map", "gemm:m=8,k=8,n=8", "--arch", "E16", "--emit", "c"),
    "simulate": ("simulate", "video-call", "--chip", "a19pro", "--seconds", "2"),
    "simulate without limits": ("simulate", "xr-outdoor", "--chip", "m4", "--seconds", "1", "--chassis", "none"),
    "predict by simulation": ("predict", "qwen3-4b", "--chip", "m1", "--weights", "q4_0", "--fidelity", "simulation"),
    "scenarios": ("scenarios",),
    "technique evaluate": (
        "technique", "evaluate", "palettize:bits=4,group=16", "activation-sparsity", "--model", "qwen3-0.6b",
        "--chips", "m4,a17pro",
    ),
    "technique list": ("technique", "list", "--engine", "ane"),
    "technique show": ("technique", "show", "palettize"),
    "technique without a rule": ("technique", "show", "w4a4"),
    "predict with techniques": (
        "predict", "qwen3-0.6b", "--chip", "m4", "--breakdown", "--apply", "palettize:bits=4,group=16",
        "--apply", "kv-quant:bits=8",
    ),
    "complexity on a chip": ("complexity", "qwen3-4b", "--chip", "m4max"),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_json_satisfies_its_schema(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*COMMANDS[name], "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    SCHEMAS[record["schema"]].model_validate_json(json.dumps(record))


@pytest.mark.parametrize("name", SCHEMAS)
def test_every_field_is_documented(name: str) -> None:
    text = (ROOT / "docs" / "json.md").read_text()
    assert f"`{name}`" in text
    schema = SCHEMAS[name].model_json_schema()
    parts = [schema, *schema.get("$defs", {}).values()]
    missing = [field for part in parts for field in part.get("properties", {}) if f"`{field}`" not in text]
    assert not missing
