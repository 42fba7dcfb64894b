"""Arena planning: legal packings, the bound, and the smallest arena where every packing can be tried."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchard.mapping.arena import ALIGN, Buffer, overlaps, plan_arena
from orchard.mapping.errors import MappingError


def buffers(*rows: tuple[int, int, int]) -> list[Buffer]:
    """(units of ALIGN bytes, first, last)."""
    return [Buffer(f"b{i}", units * ALIGN, first, last) for i, (units, first, last) in enumerate(rows)]


def test_a_chain_alternates_between_two_places() -> None:
    plan = plan_arena(buffers((4, 0, 1), (3, 1, 2), (4, 2, 3), (3, 3, 4)))
    assert plan.bytes == plan.bound == 7 * ALIGN
    assert plan.optimal
    assert plan.peak_step == 1


def test_fragmentation_can_cost_more_than_the_bound() -> None:
    """The classic case: 4 units live at any step, yet no packing of these fits 4 (checked by trying every offset)."""
    rows = ((1, 0, 1), (2, 0, 0), (1, 0, 2), (2, 1, 3), (1, 2, 4), (1, 3, 4), (2, 4, 4))
    plan = plan_arena(buffers(*rows))
    assert plan.bound <= plan.bytes == smallest(buffers(*rows))


@st.composite
def lists(draw: st.DrawFn) -> list[Buffer]:
    rows = []
    for _ in range(draw(st.integers(0, 6))):
        first = draw(st.integers(0, 5))
        rows.append((draw(st.integers(1, 3)), first, first + draw(st.integers(0, 3))))
    return buffers(*rows)


@settings(max_examples=60, deadline=None)
@given(lists())
def test_small_plans_are_the_smallest_there_are(found: list[Buffer]) -> None:
    plan = plan_arena(found)
    assert not overlaps(found, plan.offsets)
    assert plan.bytes == smallest(found)
    assert plan.bound <= plan.bytes


def smallest(found: list[Buffer]) -> int:
    """Least arena over every offset of every buffer (units of ALIGN)."""
    units = sum(b.bytes for b in found) // ALIGN
    for top in range(units + 1):
        if _fits(found, [], top):
            return top * ALIGN
    return units * ALIGN


def _fits(found: list[Buffer], placed: list[int], top: int) -> bool:
    if len(placed) == len(found):
        return True
    mine = found[len(placed)]
    for unit in range(top - mine.bytes // ALIGN + 1):
        offsets = [*placed, unit * ALIGN]
        if not overlaps(found[: len(offsets)], offsets) and _fits(found, offsets, top):
            return True
    return False


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 40), st.integers(0, 8)), max_size=60))
def test_large_plans_are_legal_and_within_the_sum(rows: list[tuple[int, int, int]]) -> None:
    found = [Buffer(f"b{i}", size, first, first + span) for i, (size, first, span) in enumerate(rows)]
    plan = plan_arena(found)
    assert not overlaps(found, plan.offsets)
    assert all(offset % ALIGN == 0 for offset in plan.offsets)
    assert plan.bound <= plan.bytes <= sum(-(-b.bytes // ALIGN) * ALIGN for b in found)


def test_overlaps_are_found() -> None:
    pair = buffers((2, 0, 1), (2, 1, 2))
    assert overlaps(pair, [0, ALIGN]) == [("b0", "b1")]
    assert not overlaps(pair, [0, 2 * ALIGN])


def test_a_buffer_that_ends_before_it_starts_is_refused() -> None:
    with pytest.raises(MappingError, match="from step 3 to 2"):
        Buffer("x", 4, 3, 2)


def test_every_order_of_steps_gives_the_same_bound() -> None:
    rows = [(3, 0, 2), (1, 1, 4), (2, 3, 5)]
    assert len({plan_arena(buffers(*p)).bound for p in itertools.permutations(rows)}) == 1
