"""List scheduling: known answers, and rules every schedule must keep."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchard.search.schedule import Edge, list_schedule


def test_two_branches_on_two_machines_overlap() -> None:
    """0 feeds 1 (gpu, 3 s) and 2 (ane, 2 s, 0.5 s away); 3 needs both: 1 + max(3, 0.5 + 2 + 0.5) + 1."""
    edges = [Edge(0, 1), Edge(0, 2, 0.5), Edge(1, 3), Edge(2, 3, 0.5)]
    found = list_schedule([1.0, 3.0, 2.0, 1.0], ["gpu", "gpu", "ane", "gpu"], edges)
    assert (found.end_s, found.bound_s, found.gap) == (5.0, 5.0, 0.0)
    assert found.start_s == (0.0, 1.0, 1.5, 4.0)
    assert found.busy_s == {"gpu": 5.0, "ane": 2.0}


def test_the_longer_path_goes_first() -> None:
    """Task 1 has 5 s behind it, task 0 nothing: 1 first, so that task 2 starts at 1."""
    found = list_schedule([4.0, 1.0, 5.0], ["cpu", "cpu", "gpu"], [Edge(1, 2)])
    assert found.start_s == (1.0, 0.0, 1.0)
    assert found.end_s == 6.0


def test_one_machine_takes_the_sum() -> None:
    assert list_schedule([1.0, 2.0, 3.0], ["cpu"] * 3, [Edge(0, 2)]).end_s == 6.0
    assert list_schedule([], [], []).end_s == 0.0


@st.composite
def work(draw: st.DrawFn) -> tuple[list[float], list[str], list[Edge]]:
    count = draw(st.integers(1, 12))
    seconds = [draw(st.floats(0.0, 5.0)) for _ in range(count)]
    machine = [draw(st.sampled_from(["cpu", "gpu", "ane"])) for _ in range(count)]
    pairs = [(a, b) for b in range(count) for a in range(b)]
    chosen = draw(st.lists(st.sampled_from(pairs), max_size=15, unique=True)) if pairs else []
    return seconds, machine, [Edge(a, b, draw(st.floats(0.0, 1.0))) for a, b in chosen]


@settings(max_examples=100, deadline=None)
@given(work())
def test_nothing_overlaps_nothing_starts_early_and_the_bound_holds(
    case: tuple[list[float], list[str], list[Edge]],
) -> None:
    seconds, machine, edges = case
    found = list_schedule(seconds, machine, edges)
    end = [s + d for s, d in zip(found.start_s, seconds)]
    assert all(found.start_s[e.after] >= end[e.before] + e.delay_s - 1e-9 for e in edges)
    for name in set(machine):
        spans = sorted((found.start_s[i], end[i]) for i in range(len(seconds)) if machine[i] == name)
        assert all(b[0] >= a[1] - 1e-9 for a, b in zip(spans, spans[1:]))
    assert found.bound_s <= found.end_s + 1e-9
    assert found.end_s <= sum(seconds) + sum(e.delay_s for e in edges) + 1e-9
    assert found.end_s == pytest.approx(max(end))
