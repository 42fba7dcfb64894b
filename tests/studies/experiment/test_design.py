"""Designs are what their names promise; files are read with care."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from orchard.studies.errors import StudyError
from orchard.studies.experiment import design
from orchard.studies.experiment.study import builtin, find, parse, read

TWO = [design.Factor(f"f{i}", ("low", "high"), ("0", "1")) for i in range(7)]


@pytest.mark.parametrize("runs", design.PB_RUNS)
def test_plackett_burman_columns_are_balanced_and_orthogonal(runs: int) -> None:
    signs = design.plackett_burman(runs)
    assert signs.shape == (runs, runs - 1)
    assert (signs.sum(axis=0) == 0).all()
    assert np.array_equal(signs.T @ signs, runs * np.eye(runs - 1))


def test_a_fractional_design_frees_main_effects_of_pairs() -> None:
    cells = design.fractional(TWO)
    assert len(cells) == 16  # 2^7 in 16 runs: resolution IV
    signs = np.array([[1 if level == "high" else -1 for level in cell] for cell in cells])
    for a in range(7):
        for b in range(a):
            assert all((signs[:, c] * signs[:, a] * signs[:, b]).sum() == 0 for c in range(7))
    with pytest.raises(StudyError, match="factor f9 has another number"):
        design.fractional([*TWO, design.Factor("f9", ("a", "b", "c"), ("1", "2", "3"))])


def test_a_hypercube_gives_each_level_its_share() -> None:
    factors = [design.Factor(n, tuple("abcd"), tuple("abcd")) for n in ("x", "y", "z")]
    cells = design.hypercube(factors, 40, seed=0)
    assert cells == design.hypercube(factors, 40, seed=0)
    assert all(abs(sum(c[0] == level for c in cells) - len(cells) / 4) <= 4 for level in "abcd")


def test_a_split_plot_changes_the_whole_plot_last_and_covers_everything() -> None:
    factors = [
        design.Factor("model", ("m", "n"), ("m", "n")),
        design.Factor("budget", ("1", "2", "3"), ("1", "2", "3")),
    ]
    cells = design.split_plot(factors, ["model"], seed=0)
    assert [c[0] for c in cells] == ["m"] * 3 + ["n"] * 3
    assert set(cells) == set(design.full(factors))
    with pytest.raises(StudyError, match="task is no factor"):
        design.split_plot(factors, ["task"], seed=0)


def test_every_built_in_experiment_names_techniques_that_parse() -> None:
    pytest.importorskip("torch")
    from orchard.numerics.fixtures.catalog import fixture
    from orchard.numerics.methods.registry import parse_methods

    assert {"E1", "E2", "E3", "E4", "E5", "E6", "E8", "E9", "E11", "E12"} <= set(builtin())
    for experiment in builtin().values():
        assert all(fixture(name) for name in experiment.fixtures)
        for text in dict.fromkeys(experiment.technique(cell) for cell in experiment.cells()):
            parse_methods(text)
    assert len(find("e1").cells()) == 60


def test_levels_become_texts_and_none_disappears() -> None:
    made = parse(
        {
            "name": "x",
            "factors": {"r": {"no": "none", "yes": "rotation"}, "bits": [4]},
            "apply": "{r} + rtn:bits={bits}",
        },
        "x",
    )
    assert [made.technique(c) for c in made.cells()] == ["rtn:bits=4", "rotation + rtn:bits=4"]


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"arm": ["rtn"]}, "key 'arm' is not known; did you mean arms"),
        ({}, "expected either factors with apply, or arms"),
        ({"factors": {"b": [1]}, "apply": "rtn:bits={bits}"}, "apply names {bits}, which is no factor"),
        ({"factors": {"b": [1], "c": [2]}, "apply": "rtn:bits={b}"}, "factor 'c' stands nowhere in apply"),
        ({"factors": {"b": 3}, "apply": "{b}"}, "factor 'b' is 3, expected a list of levels"),
        ({"factors": {"b": [3, 3]}, "apply": "{b}"}, "factor 'b' has a level twice"),
        ({"arms": ["rtn"], "design": "half"}, "design 'half' is not known"),
        ({"arms": ["rtn"], "sequences": 1}, "sequences is 1, expected a whole number, at least 2"),
        (
            {"arms": ["rtn"], "tests": [{"id": "a", "about": "", "fixture": "fx1", "first": "rtm"}]},
            "test a: 'rtm' is no arm",
        ),
        ({"arms": ["rtn"], "tests": [{"id": "a"}]}, "a test is"),
        ({"arms": "rtn"}, "arms is 'rtn', expected a list"),
    ],
)
def test_what_is_wrong_with_a_file_is_said(entry: dict[str, object], message: str) -> None:
    import re

    with pytest.raises(StudyError, match=re.escape(message)):
        parse({"name": "mine", **entry}, "mine.yaml")


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="cannot be read"):
        read(tmp_path / "none.yaml")
    (tmp_path / "bad.yaml").write_text("a: [")
    with pytest.raises(StudyError, match="no YAML"):
        read(tmp_path / "bad.yaml")
    (tmp_path / "list.yaml").write_text("- a")
    with pytest.raises(StudyError, match="expected a mapping"):
        read(tmp_path / "list.yaml")
    with pytest.raises(StudyError, match="experiment 'E99' is not known"):
        find("E99")
