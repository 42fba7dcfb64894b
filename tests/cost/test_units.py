"""Units: nothing an engine fuses is cut, views stay with their maker, and units can run one after the other."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchard.cost.lower import Kernel, Lowering, launched
from orchard.cost.units import Units, make_units, view_roots
from orchard.ir import Graph, parse_graph

GRAPH = parse_graph(
    """graph "g" ()
%x: f16[4, 8] = input
%w: f16[8, 8] = weight part=other
%a: f16[4, 8] = einsum(%x, %w) spec="m k, k n -> m n"
%b: f16[4, 8] = elementwise(%a) fn="relu"
%v: f16[8, 4] = view(%b)
%c: f16[8, 4] = elementwise(%v) fn="silu"
%d: f16[8, 4] = elementwise(%c, %v) fn="mul"
%e: f16[8, 4] = elementwise(%d) fn="exp"
return %e
"""
)
EPILOGUE = Lowering(epilogues=("elementwise.relu",))
GATE = Lowering(chains=(("elementwise.silu", "elementwise.mul"),))
TAIL = Lowering(chains=(("elementwise.mul", "elementwise.exp"),))


def units(*rules: Lowering, graph: Graph = GRAPH) -> Units:
    return make_units(graph, [launched(graph, r) for r in rules])


def test_each_engine_s_launches_stay_whole_and_views_stay_with_their_maker() -> None:
    assert units(Lowering()).ops == (("a",), ("b", "v"), ("c",), ("d",), ("e",))
    assert units(EPILOGUE).ops == (("a", "b", "v"), ("c",), ("d",), ("e",))
    assert units(EPILOGUE, GATE).ops == (("a", "b", "v"), ("c", "d"), ("e",))
    assert units(GATE, TAIL).ops == (("a",), ("b", "v"), ("c", "d", "e"))


def test_flows_name_the_stored_tensor_and_count_readers_of_its_views() -> None:
    found = units(Lowering())
    assert [(f.tensor, f.source, f.readers) for f in found.flows] == [
        ("a", 0, (1,)), ("b", 1, (2, 3)), ("c", 2, (3,)), ("d", 3, (4,)),
    ]  # fmt: skip
    assert view_roots(GRAPH) == {"v": "b"}


def test_groups_that_wait_for_each_other_become_one() -> None:
    """A runtime that launched %a with %c while %b stands between them: no order of two units could run that."""
    odd = (Kernel(kind="vector", name="a", ops=("a", "c")),)
    assert make_units(GRAPH, [odd]).ops == (("a", "b", "v", "c"), ("d",), ("e",))


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=9), st.data())
def test_units_can_run_in_their_order_whatever_is_fused(reads: list[tuple[int, int]], data: st.DataObject) -> None:
    lines = ['graph "r" ()', "%t0: f16[4] = input"]
    for i, (p, q) in enumerate(reads, 1):
        lines.append(f'%t{i}: f16[4] = elementwise(%t{p % i}, %t{q % i}) fn="add"')
    graph = parse_graph("\n".join([*lines, f"return %t{len(reads)}"]) + "\n")
    names = [op.name for op in graph.ops]
    fused = data.draw(st.lists(st.lists(st.sampled_from(names), min_size=1, max_size=3, unique=True), max_size=3))
    found = make_units(graph, [[Kernel(kind="vector", name=g[0], ops=tuple(g)) for g in fused]])
    assert sorted(op for ops in found.ops for op in ops) == sorted(names)
    for group in fused:
        assert len({found.unit_of[op] for op in group}) == 1
    for flow in found.flows:
        assert all(flow.source < reader for reader in flow.readers)


def test_a_launch_s_share_of_waits_sums_to_the_depth_where_kernels_overlap() -> None:
    kernels = launched(GRAPH, Lowering(concurrent=True))
    assert sum(k.launches for k in kernels) == pytest.approx(5)  # a chain of five levels, one kernel each
