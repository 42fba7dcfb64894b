"""`orchard apply`: a package is compressed, read back and confirmed; what exists is left alone; else there is a recipe."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import pytest

from orchard.app.cli import main
from orchard.report.advice import render_applied
from orchard.report.schemas import SCHEMAS
from orchard.studies.advice.figures import figures_of
from orchard.studies.advise import advise
from orchard.studies.apply import apply_advice
from orchard.studies.errors import StudyError
from orchard.studies.predict import answer
from orchard.studies.request import Request
from orchard.units import OrchardError


def record(model: str, **fields: Any) -> dict[str, Any]:
    found = advise(Request(model=model, chip="a17pro", **fields), deep=False).to_dict()
    return dict(json.loads(json.dumps(found)))


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("coremltools")
    import coremltools as ct
    import numpy as np
    from coremltools.converters.mil import Builder as mb  # noqa: N813

    rng = np.random.default_rng(0)
    weights = [rng.standard_normal((512, 512)).astype(np.float16) for _ in range(2)]

    @mb.program(input_specs=[mb.TensorSpec(shape=(1, 512))], opset_version=ct.target.iOS18)  # type: ignore[untyped-decorator]
    def net(x: Any) -> Any:
        for w in weights:
            x = mb.relu(x=mb.linear(x=x, weight=w.astype(np.float32)))
        return x

    path = tmp_path_factory.mktemp("model") / "net.mlpackage"
    ct.convert(net, minimum_deployment_target=ct.target.iOS18, skip_model_load=True).save(str(path))
    return path


def with_first(found: dict[str, Any], technique: str) -> dict[str, Any]:
    """The advice with its first recommendation turned into one setting."""
    first = {**found["recommendations"][0], "apply": [technique], "fields": {}}
    return {**found, "recommendations": [first]}


def test_palettes_are_made_and_confirmed(package: Path, tmp_path: Path) -> None:
    found = with_first(record(str(package)), "rtn:bits=8")
    says = figures_of(answer(Request(model=str(package), chip="a17pro", apply=("rtn:bits=8",))))["latency"]
    before = sorted(p.stat().st_mtime_ns for p in package.rglob("*"))
    made = apply_advice(found, str(package), tmp_path)
    assert made.artefact is not None
    assert made.artefact.confirmed
    assert made.artefact.after_bytes < 0.52 * made.artefact.before_bytes
    assert made.artefact.after_s == pytest.approx(says, rel=0.02)
    assert made.artefact.after_s < made.artefact.before_s
    assert "int8" in next(iter(made.artefact.formats))
    assert before == sorted(p.stat().st_mtime_ns for p in package.rglob("*"))
    SCHEMAS["orchard.applied/1"].model_validate_json(json.dumps(made.to_dict()))
    assert "as the technique says" in render_applied(made)
    with pytest.raises(StudyError, match="exists already and is left alone"):
        apply_advice(found, str(package), tmp_path)


NET = """
import torch
def net():
    torch.manual_seed(0)
    layers = torch.nn.Linear(512, 1024), torch.nn.ReLU(), torch.nn.Linear(1024, 256)
    return torch.nn.Sequential(*layers).eval(), {"input": (1, 512)}
def half():
    module, inputs = net()
    return module.half(), inputs
def ghost():
    return torch.nn.Linear(64, 64, device="meta"), {"input": (1, 64)}
def words():
    return 3, None
def pool():
    return torch.nn.AvgPool1d(2), {"input": (1, 4, 64)}
"""


@pytest.fixture
def net(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "applied_net.py").write_text(NET)
    monkeypatch.syspath_prepend(tmp_path)
    return "applied_net:net"


@pytest.mark.parametrize(("technique", "bytes_a_row"), [("rtn:bits=8", 3.0), ("rtn:bits=8,group=32", 3.0 / 32)])
def test_a_module_is_quantized_by_torchao(net: str, tmp_path: Path, technique: str, bytes_a_row: float) -> None:
    torch = pytest.importorskip("torch")
    pytest.importorskip("torchao")
    applied_net = importlib.import_module("applied_net")

    made = apply_advice(with_first(record("resnet18"), technique), net, tmp_path).artefact
    assert made is not None
    weights, rows = 512 * 1024 + 1024 * 256, 1024 + 256
    assert made.before_bytes == 4 * (weights + rows)
    grids = rows if "group" not in technique else weights
    assert made.after_bytes == weights + bytes_a_row * grids + 4 * rows  # scales of 2 bytes, zero points of 1, biases of 4
    assert made.confirmed
    assert made.after_s < made.before_s
    assert made.formats == {"int8-b32" if "group" in technique else "int8-channel": weights, "f32": rows}
    x = torch.randn(16, 512, generator=torch.Generator().manual_seed(1))[:1]
    right, found = applied_net.net()[0](x), torch.export.load(made.file).module()(input=x)
    assert 0 < (found - right).norm() / right.norm() < 0.02  # steps of max/127: about 0.7 % of a normal row, each layer


@pytest.mark.parametrize(
    ("technique", "format", "bits"),
    [("rtn:bits=4,group=32", "int4-b32", 4.5), ("palettize:bits=4,group=0", "pal4", 4)],
)
def test_a_module_becomes_a_core_ai_program(net: str, tmp_path: Path, technique: str, format: str, bits: float) -> None:
    pytest.importorskip("coreai_opt")
    pytest.importorskip("coreai_torch")
    made = apply_advice(with_first(record("resnet18"), technique), net.replace("net:net", "net:half"), tmp_path, to="aimodel")
    assert made.artefact is not None
    assert made.artefact.formats[format] == 512 * 1024 + 1024 * 256
    assert made.artefact.confirmed
    assert made.artefact.after_bytes == pytest.approx((512 + 256) * 1024 * bits / 8, rel=0.02)  # the whole program file
    assert made.artefact.after_s < made.artefact.before_s


@pytest.mark.parametrize(
    ("name", "said"), [("ghost", "meta device"), ("words", "int is no model"), ("pool", "no weight matrix|no linear layer")]
)
def test_modules_that_cannot_be_quantized(net: str, tmp_path: Path, name: str, said: str) -> None:
    pytest.importorskip("torchao")
    with pytest.raises(OrchardError, match=said):
        apply_advice(with_first(record("resnet18"), "rtn:bits=8"), net.replace("net:net", f"net:{name}"), tmp_path)
    assert not list(tmp_path.glob("*.pt2"))


@pytest.mark.parametrize(
    ("model", "technique", "said"),
    [
        ("m.pt2", "palettize:bits=4", "without layers"), ("a.b:c", "rtn:bits=8,skip=head", "parts to skip"),
        ("m.pt2", "rtn:bits=8", "without layers"), ("a.b:c", "rtn:bits=4", "a byte for each"),
        ("a.b:c", "palettize:bits=4", "alone"),
    ],
)
def test_what_torchao_does_not_make(model: str, technique: str, said: str, tmp_path: Path) -> None:
    made = apply_advice(with_first(record("resnet18"), technique), model, tmp_path)
    assert made.artefact is None
    assert said in made.why


def test_what_cannot_be_made_has_a_recipe(tmp_path: Path) -> None:
    found = record("resnet18")
    made = apply_advice(found, "model.gguf", tmp_path)
    assert made.artefact is None
    assert made.why
    assert made.recipe
    assert "no file was made" in render_applied(made)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("pick", ["0", "99", "first", "-1"])
def test_a_choice_that_is_not_there(pick: str, tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="--pick"):
        apply_advice({"recommendations": [], "combination": None}, "m.mlpackage", tmp_path, pick=pick)


def test_command_refuses_other_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.json").write_text('{"schema": "orchard.prediction/1"}')
    for advice in ("a.json", "none.json"):
        assert main(["apply", str(tmp_path / advice), "--model", "m.mlpackage"]) == 2
        assert capsys.readouterr().err.count("\n") == 1
