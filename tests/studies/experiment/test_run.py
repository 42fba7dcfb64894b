"""A run goes on where it stopped, refuses another experiment, says what was refused, and comes out of the command line."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from orchard.app.cli import main  # noqa: E402
from orchard.numerics.contract import TINY  # noqa: E402
from orchard.numerics.fixtures.tinylm import TinyLM  # noqa: E402
from orchard.numerics.surgery import linears  # noqa: E402
from orchard.report.experiment_plot import arms_svg, interaction_svg  # noqa: E402
from orchard.report.schemas import SCHEMAS  # noqa: E402
from orchard.studies.errors import StudyError  # noqa: E402
from orchard.studies.experiment import effects  # noqa: E402
from orchard.studies.experiment import run as run_module  # noqa: E402
from orchard.studies.experiment.findings import findings  # noqa: E402
from orchard.studies.experiment.own import linear_products  # noqa: E402
from orchard.studies.experiment.run import load, run  # noqa: E402
from orchard.studies.experiment.study import parse  # noqa: E402

ENTRY = {
    "name": "mine", "sequences": 6, "calibration": 2,
    "factors": {"bits": [3, 4], "group": [16, 7], "method": ["rtn", "gptq"]}, "apply": "{method}:bits={bits},group={group}",
}  # fmt: skip
MODEL = "tests.studies.experiment.test_run:own_model"


def own_model() -> TinyLM:
    """What a user's function returns."""
    return TinyLM(TINY, seed=1)


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("data") / "ids.npy"
    np.save(path, np.random.default_rng(0).integers(1, 32, 4000))
    return str(path)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, text: str) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "mine"
    run(parse(ENTRY, "mine"), folder, model=MODEL, data=text)
    return folder


def test_what_is_missing_is_run_again_and_nothing_else(finished: Path, text: str) -> None:
    before = {p.name: p.read_text() for p in (finished / "parts").iterdir()}
    (finished / "parts" / "0000.json").unlink()
    with pytest.raises(StudyError, match="1 of 1 parts are missing"):
        load(finished)
    run(parse(ENTRY, "mine"), finished, model=MODEL, data=text)
    after = {p.name: p.read_text() for p in (finished / "parts").iterdir()}
    timeless = lambda part: [{**row, "seconds": 0} for row in json.loads(part)]  # noqa: E731
    assert {k: timeless(v) for k, v in before.items()} == {k: timeless(v) for k, v in after.items()}


STOPPED = """
import os, sys
from pathlib import Path
from orchard.studies.experiment import run as r
from orchard.studies.experiment.study import parse
from tests.studies.experiment.test_run import ENTRY, MODEL
r.CHUNK = 2
whole, count = r.evaluate, []
def evaluate(*a):
    count.append(1)
    if len(count) == 3:
        os.kill(os.getpid(), 9)
    return whole(*a)
r.evaluate = evaluate
r.run(parse(ENTRY, "mine"), Path(sys.argv[1]), model=MODEL, data=sys.argv[2])
"""


def test_killed_in_the_middle_it_goes_on_to_the_same_answer(
    finished: Path, tmp_path: Path, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = subprocess.run([sys.executable, "-c", STOPPED, str(tmp_path / "r"), text], check=False)
    assert ended.returncode == -signal.SIGKILL
    assert len(list((tmp_path / "r" / "parts").glob("0*.json"))) == 2
    monkeypatch.setattr(run_module, "CHUNK", 2)
    told: list[tuple[int, int]] = []
    found = run(parse(ENTRY, "mine"), tmp_path / "r", model=MODEL, data=text,
                progress=lambda _what, done, of: told.append((done, of)))  # fmt: skip
    assert told == [(3, 4), (4, 4)]  # two parts were kept
    monkeypatch.undo()
    assert [replace(r, seconds=0) for r in found.results] == [replace(r, seconds=0) for r in load(finished).results]


def test_the_products_of_gpt2_count_as_linear_layers_and_stay_what_they_are() -> None:
    transformers = pytest.importorskip("transformers")
    settings = {"vocab_size": 40, "n_positions": 16, "n_embd": 16, "n_layer": 1, "n_head": 2, "eos_token_id": 0}
    model = transformers.GPT2LMHeadModel(transformers.GPT2Config(**settings)).eval()
    ids = torch.arange(12)[None]
    before = model(ids).logits
    assert linear_products(model) == 4  # q k v in one, its output, two of the feed-forward
    assert torch.allclose(model(ids).logits, before, atol=1e-6)
    assert set(linears(model)) >= {"transformer.h.0.attn.c_attn", "transformer.h.0.mlp.c_proj"}


def short_model() -> TinyLM:
    """As a transformers model with 64 positions and 32 token ids."""
    made = own_model()
    made.config = SimpleNamespace(max_position_embeddings=64)  # type: ignore[assignment]
    return made


def test_sequences_are_no_longer_than_the_model_and_foreign_token_ids_are_refused(tmp_path: Path) -> None:
    name = "tests.studies.experiment.test_run:short_model"
    np.save(tmp_path / "ids.npy", np.random.default_rng(0).integers(1, 32, 2000))  # 256 tokens at a time: too short
    entry = {"name": "mine", "sequences": 6, "calibration": 2, "arms": ["rtn:bits=4"]}
    outcome = run(parse(entry, "mine"), tmp_path / "a", model=name, data=str(tmp_path / "ids.npy"))
    assert len(outcome.results[0].losses) == 6
    np.save(tmp_path / "far.npy", np.full(4000, 99))
    with pytest.raises(StudyError, match="fails on sequences of 64 token ids from 99 to 99"):
        run(parse(entry, "mine"), tmp_path / "b", model=name, data=str(tmp_path / "far.npy"))


def test_a_folder_holds_one_experiment(finished: Path, text: str) -> None:
    with pytest.raises(StudyError, match="holds a run with another experiment"):
        run(replace(parse(ENTRY, "mine"), sequences=5), finished, model=MODEL, data=text)


def test_findings_of_a_run(finished: Path) -> None:
    found = findings(load(finished), rounds=200)
    assert len(found.arms) == 4
    assert {r.technique for r in found.refused} == {f"{m}:bits={b},group=7" for m in ("rtn", "gptq") for b in (3, 4)}
    assert "blocks of 7" in found.refused[0].reason
    assert all(a.loss.low <= a.loss.value <= a.loss.high for a in found.arms)
    assert [a.loss.low for a in found.arms] == [a.loss.low for a in findings(load(finished), rounds=200).arms]


def test_an_arm_that_is_nothing_loses_nothing(tmp_path: Path, text: str) -> None:
    claims = [{"id": "a", "about": "rotation is exact", "fixture": "own", "first": "rotation", "margin": 0.001}]
    made = parse(
        {"name": "same", "sequences": 4, "calibration": 2, "arms": ["none", "rotation", "rtn:bits=2"], "tests": claims},
        "same",
    )
    found = findings(run(made, tmp_path / "same", model=MODEL, data=text), rounds=200)
    none, rotated, rounded = found.arms
    assert (none.loss.value, none.kl, none.flips) == (0.0, pytest.approx(0.0, abs=1e-6), 0.0)
    assert abs(rotated.loss.value) < 1e-5
    assert rotated.no_loss_p < 0.05
    assert rounded.flips > 0.01
    assert found.tests[0].met
    assert found.tests[0].certain


def test_drawings_are_whole(finished: Path) -> None:
    from xml.etree import ElementTree

    found = findings(load(finished), rounds=200)
    assert len(ElementTree.fromstring(arms_svg(found)).findall("{*}circle")) == 4
    drawing = interaction_svg(found, "own")
    assert drawing is not None
    ElementTree.fromstring(drawing)


def test_effects_go_to_a_file_and_back(finished: Path, tmp_path: Path) -> None:
    rows = effects.effects_of(findings(load(finished), rounds=200))
    effects.write_effects(tmp_path / "e.csv", rows)
    import csv

    assert [effects._row(r) for r in csv.DictReader((tmp_path / "e.csv").open())] == rows
    assert all(e.high >= e.low for e in effects.recorded())
    assert {e.name for e in effects.quality_effects("gptq")} == {"gptq"}
    assert len({e.technique for e in effects.quality_effects("rtn:bits=8")}) == 1


@pytest.mark.parametrize("command", [("list",), ("effects", "gptq"), ("report",)])
def test_commands_print_and_give_json(
    command: tuple[str, ...], finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["experiment", *command, *([str(finished)] if command == ("report",) else [])]
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    assert all(len(line) <= 80 for line in printed.splitlines() if str(finished) not in line)
    assert main([*arguments, "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    SCHEMAS[record["schema"]].model_validate_json(json.dumps(record))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("run", "E77"), "experiment 'E77' is not known"),
        (("run", "E1", "--scale", "huge"), "--scale 'huge' is not known"),
        (("run", "E1", "--model", "x"), "--model and --data belong together"),
        (("run", "quick", "--seeds", "0,0"), "--seeds '0,0', expected different whole numbers"),
        (("run", "quick", "--model", "nowhere", "--data", "ids.npy"), "--data ids.npy: cannot be read"),
        (("report", "nowhere"), "nowhere: no run"),
        (("effects", "gtpq"), "no recorded effect of 'gtpq'; did you mean gptq"),
    ],
)
def test_bad_input(
    arguments: tuple[str, ...],
    message: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["experiment", *arguments]) == 2
    assert message in capsys.readouterr().err
