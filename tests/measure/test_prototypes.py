"""The shipped prototypes are right, a wrong one is found out, and the model of their time finds its terms."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchard.app.cli import main
from orchard.measure.errors import MeasureError
from orchard.measure.prototypes import FACTORIES, load_prototype
from orchard.measure.timer import Plan
from orchard.report.schemas import SCHEMAS
from orchard.studies.prototype import complexity_of, try_prototype

pytest.importorskip("torch")
QUICK = Plan(warm_up_s=0.0, warm_up_calls=1, least=1, most=1, budget_s=0.0)


@pytest.mark.parametrize("name", FACTORIES)
def test_prototypes_are_right(name: str) -> None:
    made = load_prototype(name)
    report = try_prototype(replace(made, shapes=made.shapes[:2]), plan=QUICK)
    assert report.correct
    assert all(t.error > 0 for t in report.trials)  # float32 against float64 is never exact


def test_a_wrong_prototype_is_found_out() -> None:
    made = load_prototype("int8-matvec")
    wrong = replace(made, shapes=made.shapes[:1], run=lambda w, s, x: made.run(w, s, x) * 1.001)
    assert not try_prototype(wrong, plan=QUICK).correct


@given(st.floats(0, 1e-4), st.floats(1e-12, 1e-9), st.floats(1e-12, 1e-9))
@settings(max_examples=20, deadline=None)
def test_the_terms_of_time_are_found(fixed: float, per_mac: float, per_byte: float) -> None:
    macs = [1e4, 1e5, 1e6, 1e7, 3e7]
    moved = [8e4, 1e5, 5e5, 1e6, 9e6]
    seconds = [fixed + m * per_mac + b * per_byte for m, b in zip(macs, moved)]
    found = complexity_of(macs, moved, seconds)
    assert found[3] > 0.999
    assert [f * x for f, x in zip(found[:3], (1, 1e6, 1e6))] == pytest.approx(
        [fixed, per_mac * 1e6, per_byte * 1e6], rel=1e-3, abs=1e-3 * min(seconds)
    )


def test_a_file_of_ones_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "mine.py"
    path.write_text(
        "import torch\nfrom orchard.measure.prototypes import Prototype\n\ndef double():\n"
        "    return Prototype(name='double', about='x + x', shapes=({'n': 8}, {'n': 4096}),\n"
        "        make=lambda s: (torch.randn(s['n']),),\n"
        "        run=lambda x: x + x, reference=lambda x: 2 * x.double(), macs=lambda s: 0.0, moved=lambda s: 8.0 * s['n'],\n"
        "        tolerance=1e-6)\n"
    )
    assert main(["prototype", f"{path}:double", "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    SCHEMAS[record["schema"]].model_validate_json(json.dumps(record))
    assert record["correct"]
    assert [t["shape"] for t in record["trials"]] == [{"n": 8}, {"n": 4096}]


@pytest.mark.parametrize(
    ("text", "message"),
    [("winograd", "did you mean winograd-conv"), ("nothing.py:f", "no such file"), ("x", "is not known")],
)
def test_what_is_no_prototype_is_refused(text: str, message: str) -> None:
    with pytest.raises(MeasureError, match=message):
        load_prototype(text)
