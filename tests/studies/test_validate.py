"""The error table: recorded levels are kept, parts are named, baselines are what they say."""

from __future__ import annotations

import csv
import math
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest

from orchard.studies.errors import StudyError
from orchard.studies.validate import PARTS, TARGETS, ValidationReport, validate

RECORDED = {
    # median error of each part: fit, left-out chip, left-out family. A change that makes one worse has to say so here.
    "dense GPU, decode": (0.027, 0.035, 0.032),
    "dense GPU, prefill": (0.030, 0.076, 0.083),
    "mixture of experts, GPU": (0.034, 0.048, 0.055),
    "other depth": (0.082, 0.191, 0.147),
    "other batch": (0.047, 0.083, 0.049),
    "CPU": (0.035, 0.092, 0.084),
    "ANE": (0.092, 0.211, 0.346),
}
MARGIN = 1.15


@pytest.fixture(scope="module")
def report() -> ValidationReport:
    return validate()


def test_errors_are_no_worse_than_recorded(report: ValidationReport) -> None:
    found = {(s.name, s.part): s.median_error for s in report.strata}
    for name, levels in RECORDED.items():
        for part, level in zip(PARTS, levels):
            assert found[name, part] <= level * MARGIN + 0.002, (name, part)


def test_every_stratum_has_every_part_and_the_same_rows(report: ValidationReport) -> None:
    for name in TARGETS:
        parts = [s for s in report.strata if s.name == name]
        assert [s.part for s in parts] == list(PARTS)
        assert len({s.rows for s in parts}) == 1
        assert parts[0].target_median == TARGETS[name][0]


def test_figures_are_what_their_names_say(report: ValidationReport) -> None:
    for s in report.strata:
        assert 0 <= s.median_error <= s.p90_error
        assert 0 <= s.coverage80 <= 1
        assert abs(s.bias) <= s.p90_error + 1e-9 or s.rows < 5
        assert s.rank_correlation is None or -1 <= s.rank_correlation <= 1
        assert all(math.isfinite(v) for v in (s.median_error, s.p90_error, s.naive_median, s.bias))


def test_the_model_beats_a_naive_roofline(report: ValidationReport) -> None:
    for s in report.strata:
        if s.name in TARGETS and s.part != "fit" and s.name != "ANE":
            assert s.median_error < s.naive_median, (s.name, s.part)


def test_points_are_the_scored_rows_with_their_interval(report: ValidationReport) -> None:
    assert len({p.id for p in report.points}) == len(report.points)
    for p in report.points:
        assert 0 < p.low_s < p.predicted_s < p.high_s
        assert p.measured_s > 0
    inside = np.mean([p.low_s <= p.measured_s <= p.high_s for p in report.points])
    assert 0.7 <= inside <= 0.92
    headline = [s.median_error for s in report.strata if s.name == "dense GPU, decode" and s.part == "left-out chip"]
    points = [p for p in report.points if p.stratum == "dense GPU, decode" and p.trust == "A"]
    assert headline[0] == pytest.approx(np.median([abs(p.predicted_s / p.measured_s - 1) for p in points]))


def test_rows_left_out_are_counted_by_reason(report: ValidationReport) -> None:
    assert len(report.points) + sum(r.rows for r in report.left_out) == 480
    assert report.notes[0].startswith("0 measured rows beat the bound")


def test_another_file_with_the_same_columns_is_unseen_rows(tmp_path: Path) -> None:
    text = files("orchard.data").joinpath("measurements", "llm.csv").read_text(encoding="utf-8")
    records = list(csv.DictReader(text.splitlines()))
    chosen = [r for r in records if r["engine"] == "gpu" and r["phase"] == "decode" and r["metric"] == "tokens_per_s"][:12]
    path = tmp_path / "mine.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        out = csv.DictWriter(file, records[0].keys())
        out.writeheader()
        out.writerows({**r, "id": f"mine-{i}"} for i, r in enumerate(chosen))
    found = validate(rows_file=path)
    assert {s.part for s in found.strata} == {"unseen rows"}
    assert {p.id for p in found.points} <= {f"mine-{i}" for i in range(12)}
    assert all(math.isfinite(p.predicted_s) for p in found.points)


def test_what_cannot_be_validated_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="suite 'lmm' is not known; expected llm"):
        validate("lmm")
    with pytest.raises(StudyError, match="cannot be read"):
        validate(rows_file=tmp_path / "none.csv")
    empty = tmp_path / "e.csv"
    text = files("orchard.data").joinpath("measurements", "llm.csv").read_text(encoding="utf-8")
    empty.write_text(text.splitlines()[0] + "\n", encoding="utf-8")
    with pytest.raises(StudyError, match="no row can be scored"):
        validate(rows_file=empty)
