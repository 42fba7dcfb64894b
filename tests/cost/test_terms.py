"""The rounded roofline that every engine shares."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchard.cost.terms import Terms, overlapped

seconds = st.floats(1e-9, 10.0)
sharpness = st.floats(1.0, 40.0)


@given(seconds, seconds, sharpness)
def test_overlap_lies_between_the_larger_and_the_sum(compute: float, memory: float, p: float) -> None:
    c, m = overlapped(np.array([compute]), np.array([memory]), p)
    total = float((c + m)[0])
    assert max(compute, memory) * (1 - 1e-12) <= total <= (compute + memory) * (1 + 1e-12)
    exact = np.exp(np.logaddexp(p * np.log(compute), p * np.log(memory)) / p)  # (c^p + m^p)^(1/p) without underflow
    assert total == pytest.approx(float(exact), rel=1e-9)


@given(seconds, seconds, sharpness, st.floats(1.0, 5.0))
def test_overlap_grows_with_each_part(compute: float, memory: float, p: float, factor: float) -> None:
    small = sum(overlapped(np.array([compute]), np.array([memory]), p))
    assert float(sum(overlapped(np.array([compute * factor]), np.array([memory]), p))[0]) >= float(small[0]) * (1 - 1e-9)
    assert float(sum(overlapped(np.array([compute]), np.array([memory * factor]), p))[0]) >= float(small[0]) * (1 - 1e-9)


def test_shares_go_to_the_larger_part_and_nothing_takes_no_time() -> None:
    c, m = overlapped(np.array([3.0, 0.0]), np.array([1.0, 0.0]), 4.0)
    assert c[0] > m[0] > 0
    assert c[1] == m[1] == 0


def test_a_sharp_overlap_is_the_roofline() -> None:
    c, m = overlapped(np.array([2.0]), np.array([1.0]), 400.0)
    assert float((c + m)[0]) == pytest.approx(2.0)


def test_terms_sum() -> None:
    one, two = (Terms(np.array([a]), np.array([b]), np.array([c])) for a, b, c in ((1.0, 2.0, 3.0), (10.0, 20.0, 30.0)))
    assert (one + two).total == one.total + two.total == np.array([66.0])
