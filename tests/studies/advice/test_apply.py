"""`orchard apply`: a package is compressed, read back and confirmed; what exists is left alone; else there is a recipe."""

from __future__ import annotations

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
