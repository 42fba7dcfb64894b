"""The history test: who is compared with whom, and that the figures are those of the rows."""

from __future__ import annotations

import numpy as np
import pytest

from orchard.studies.architecture import _direction, _spearman, _steps, architecture


def test_steps_go_to_the_next_generation_and_the_next_tier() -> None:
    chips = ["m1", "m1max", "m2_gpu8", "m3", "m3pro", "m3max", "a14", "a16", "custom"]
    assert sorted(_steps(chips)) == [
        ("generation", "a14", "a16"),
        ("generation", "m1", "m3"),
        ("generation", "m1max", "m3max"),
        ("tier", "m1", "m1max"),
        ("tier", "m3", "m3pro"),
        ("tier", "m3pro", "m3max"),
    ]


def test_the_packaged_history() -> None:
    report = architecture()
    rank = {(r.kind, r.group): r for r in report.rankings}
    decode = rank["generation", "LLM GPU, decode"]
    assert decode.pairs >= 16
    assert decode.rank_correlation is not None
    assert decode.rank_correlation > 0.85  # 0.92 when this was written
    assert decode.direction == 1.0
    for step in report.steps:
        assert step.pairs >= 1
        assert min(step.measured, step.predicted, step.data_sheet) > 0
    assert sum(s.pairs for s in report.steps) == sum(r.pairs for r in report.rankings)


def test_spearman_averages_ties_and_needs_five() -> None:
    assert _spearman([1.0, 2.0, 3.0, 4.0], [1.0, 2.0, 3.0, 4.0]) is None
    assert _spearman([1.0] * 5, [1.0, 2.0, 3.0, 4.0, 5.0]) is None
    assert _spearman([1.0, 1.0, 2.0, 3.0, 4.0], [5.0, 6.0, 7.0, 8.0, 9.0]) == pytest.approx(0.9747, abs=1e-3)
    assert np.isclose(_spearman([1.0, 2.0, 3.0, 4.0, 5.0], [5.0, 4.0, 3.0, 2.0, 1.0]) or 0.0, -1.0)
    assert _direction([]) is None
