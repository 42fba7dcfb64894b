"""Statistics against closed forms and SciPy."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from orchard.studies.experiment import statistics

RANDOM = np.random.default_rng(0)


def test_the_interval_of_one_seed_is_that_of_the_mean() -> None:
    sample = RANDOM.normal(1.0, 2.0, (1, 400))
    found = statistics.interval(sample, statistics.resample(1, 400))
    half = 1.96 * sample.std(ddof=1) / 20
    assert found.value == pytest.approx(sample.mean())
    assert (found.high - found.low) / 2 == pytest.approx(half, rel=0.06)


def test_seeds_widen_the_interval_and_differences_of_pairs_narrow_it() -> None:
    between = RANDOM.normal(0, 1, (5, 1)) + RANDOM.normal(0, 0.1, (5, 100))
    drawn = statistics.resample(5, 100)
    wide = statistics.interval(between, drawn)
    assert wide.high - wide.low > 5 * 2 * 1.96 * 0.1 / np.sqrt(500)  # as if 500 sequences were independent
    other = statistics.interval(between + 0.05, drawn)
    gap = statistics.difference(other, wide)
    assert gap.low == pytest.approx(0.05)
    assert gap.high == pytest.approx(0.05)


def test_a_ratio_of_paired_arms() -> None:
    sample = RANDOM.gamma(4.0, 1.0, (3, 64))
    drawn = statistics.resample(3, 64)
    found = statistics.ratio(statistics.interval(0.5 * sample, drawn), statistics.interval(sample, drawn))
    assert (found.low, found.value, found.high) == pytest.approx((0.5, 0.5, 0.5))
    nothing = statistics.interval(np.zeros((3, 64)), drawn)
    assert statistics.ratio(statistics.interval(sample, drawn), nothing).value == np.inf


def test_equivalence_needs_a_narrow_interval_not_a_small_mean() -> None:
    drawn = statistics.resample(1, 64)
    narrow = statistics.interval(RANDOM.normal(0.0, 0.005, (1, 64)), drawn)
    vague = statistics.interval(RANDOM.normal(0.0, 0.2, (1, 64)), drawn)
    assert statistics.equivalence(narrow) < 0.001
    assert statistics.equivalence(vague) > 0.05
    assert statistics.equivalence(statistics.interval(RANDOM.normal(0.05, 0.005, (1, 64)), drawn)) > 0.99


def test_adjusted_p_values() -> None:
    p = [0.01, 0.04, 0.03, 0.005]
    assert statistics.holm(p) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert statistics.benjamini_hochberg(p) == pytest.approx(stats.false_discovery_control(p))


def test_effect_size_is_the_mean_in_deviations() -> None:
    assert statistics.paired_effect_size(np.array([[1.0, 2.0, 3.0]])) == pytest.approx(2.0)
    assert statistics.paired_effect_size(np.zeros((2, 3))) == 0.0


def grid(effect: float, both: float) -> tuple[list[dict[str, str]], list[float]]:
    rows, values = [], []
    for a in range(3):
        for b in range(2):
            for seed in range(4):
                rows.append({"a": str(a), "b": str(b), "seed": str(seed)})
                values.append(float(np.exp(effect * a + both * (a == 2) * b + RANDOM.normal(0, 0.05))))
    return rows, values


def test_effects_find_what_was_put_in_and_nothing_else() -> None:
    rows, values = grid(1.0, 0.0)
    found = {e.term: e for e in statistics.effects(rows, values, ["a", "b"])}
    assert found["a",].share > 0.95
    assert found["a",].p < 1e-6
    assert found["b",].p > 0.01
    assert found["a",].levels["2"] / found["a",].levels["0"] == pytest.approx(np.exp(2.0), rel=0.1)
    rows, values = grid(1.0, 1.0)
    assert {e.term: e for e in statistics.effects(rows, values, ["a", "b"])}["a", "b"].p < 1e-6


def test_the_f_test_of_one_factor_is_scipys() -> None:
    groups = [RANDOM.normal(m, 1.0, 8) for m in (0.0, 0.5, 1.0)]
    rows = [{"g": str(i)} for i, g in enumerate(groups) for _ in g]
    found = statistics.effects(rows, [float(np.exp(x)) for g in groups for x in g], ["g"])[0]
    floored = [np.maximum(g, np.log(statistics.FLOOR)) for g in groups]
    expected = stats.f_oneway(*floored)
    assert (found.f, found.p) == pytest.approx((expected.statistic, expected.pvalue))


def test_a_sparse_sample_is_tested_on_main_effects_alone() -> None:
    random = np.random.default_rng(0)
    rows = [{n: str(random.integers(4)) for n in "abcde"} for _ in range(40)]  # 15 levels apart, 90 pairs of them
    values = [np.exp(int(r["a"]) + 0.1 * random.normal()) for r in rows]
    found = statistics.effects(rows, values, list("abcde"))
    assert all(len(e.term) == 1 for e in found)
    assert found[0].term == ("a",)
    assert found[0].p < 1e-6
