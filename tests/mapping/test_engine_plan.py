"""A plan says what runs where; a wrong one is refused with the reason."""

from __future__ import annotations

from dataclasses import replace

import pytest

from orchard.ir import parse_graph
from orchard.mapping.engine_plan import EnginePlan, HandOver, LaunchGroup, dependencies, plan_errors
from orchard.mapping.errors import MappingError

DIAMOND = parse_graph(
    """graph "diamond" ()
%x: f16[8, 4] = input
%a: f16[8, 4] = elementwise(%x) fn="relu"
%b: f16[8, 4] = elementwise(%a) fn="exp"
%v: f16[4, 8] = view(%a)
%c: f16[4, 8] = elementwise(%v) fn="tanh"
%d: f16[4, 8] = view(%b)
%e: f16[4, 8] = elementwise(%c, %d) fn="add"
return %e
"""
)


def group(engine: str, *ops: str, launches: bool = True) -> LaunchGroup:
    return LaunchGroup(ops=ops, engine=engine, precision="f16", launches=launches)


PLAN = EnginePlan(
    graph="diamond", phase="inference",
    groups=(
        group("gpu", "a"), group("gpu", "v", launches=False), group("gpu", "b"), group("ane", "c"),
        group("gpu", "d", launches=False), group("ane", "e"),
    ),
    handovers=(
        HandOver(tensor="a", source="gpu", target="ane", bytes=64.0, reader=3),
        HandOver(tensor="b", source="gpu", target="ane", bytes=64.0, reader=5),
    ),
)  # fmt: skip


def test_a_legal_plan_has_no_errors_and_two_segments() -> None:
    assert not list(plan_errors(PLAN, DIAMOND))
    assert [(s.engine, s.first, s.last) for s in PLAN.segments] == [("gpu", 0, 2), ("ane", 3, 5)]
    assert PLAN.engines == ("gpu", "ane")
    assert PLAN.engine_of()["c"] == "ane"


def test_launches_wait_for_what_they_read() -> None:
    assert dependencies(PLAN, DIAMOND) == ((), (0,), (0,), (1,), (2,), (3, 4))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"groups": PLAN.groups[:-1]}, "op e is in no group"),
        ({"groups": (*PLAN.groups, group("cpu", "a"))}, "op a is in two groups"),
        ({"groups": (*PLAN.groups, group("cpu", "z"))}, "op z is not in graph diamond"),
        ({"groups": tuple(reversed(PLAN.groups))}, "group 0 reads what group 1 makes later"),
        ({"groups": (*PLAN.groups[:2], group("cpu", "b"), *PLAN.groups[3:])}, "%a goes from gpu to cpu"),
    ],
)  # fmt: skip
def test_a_wrong_plan_is_refused_with_the_reason(change: dict[str, object], sentence: str) -> None:
    assert any(sentence in text for text in plan_errors(replace(PLAN, **change), DIAMOND))  # type: ignore[arg-type]


def test_unknown_engines_and_empty_groups_are_refused() -> None:
    with pytest.raises(MappingError, match="expected cpu, gpu, ane"):
        group("tpu", "a")
    with pytest.raises(MappingError, match="without ops"):
        group("gpu")
