"""Fronts against the definition, hypervolumes against counting cells and another library's formula."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from orchard.search.pareto import front, hypervolume, knee

small_points = st.integers(1, 4).flatmap(
    lambda width: arrays(np.float64, st.tuples(st.integers(1, 40), st.just(width)), elements=st.integers(0, 6).map(float))
)


def by_definition(points: np.ndarray) -> list[int]:
    kept = []
    for i, p in enumerate(points):
        beaten = any((q <= p).all() and (q < p).any() for q in points)
        repeated = any((points[j] == p).all() for j in range(i))
        if not beaten and not repeated:
            kept.append(i)
    return kept


@given(small_points)
def test_front_by_definition(points: np.ndarray) -> None:
    assert front(points).tolist() == by_definition(points)


@pytest.mark.parametrize("width", [2, 3, 4, 5])
def test_front_over_several_blocks(width: int) -> None:
    points = np.random.default_rng(width).integers(0, 12, (1100, width)).astype(float)
    assert front(points).tolist() == by_definition(points)


def test_what_is_not_finite_is_never_on_the_front() -> None:
    points = np.array([[np.nan, 0.0], [1.0, 1.0], [-np.inf, 0.0]])
    assert front(points).tolist() == [1]
    assert front(points[:1]).tolist() == []


@given(small_points)
def test_hypervolume_counts_cells(points: np.ndarray) -> None:
    """On whole numbers the volume is the number of unit cells that some point dominates."""
    width = points.shape[1]
    cells = np.stack(np.meshgrid(*[np.arange(7)] * width, indexing="ij"), -1).reshape(-1, width)
    counted = (points[:, None, :] <= cells[None]).all(-1).any(0).sum()
    assert hypervolume(points, np.full(width, 7.0)) == pytest.approx(float(counted))


def test_points_beyond_the_reference_add_nothing() -> None:
    assert hypervolume(np.array([[8.0, 1.0]]), np.array([7.0, 7.0])) == 0.0


def test_knee_is_the_balanced_point() -> None:
    assert knee(np.array([[0.0, 100.0], [1.0, 20.0], [10.0, 0.0]])) == 1
