"""The placement solvers against enumeration of every choice, against each other, and on problems with a known answer."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchard.search.errors import NoPlacement
from orchard.search.placement import (
    Capacity,
    Charge,
    Net,
    PlacementProblem,
    lowest_product,
    mixed,
    net_cost,
    solve,
    solve_dynamic,
    solve_milp,
)

COST = st.floats(0.0, 10.0).map(lambda x: round(x, 3))


@st.composite
def problems(draw: st.DrawFn, capacities: bool = True) -> PlacementProblem:
    """Up to 5 nodes and 3 options on a random DAG (some nets backwards, some labels shared), some choices not allowed."""
    nodes, options = draw(st.integers(1, 5)), draw(st.integers(1, 3))
    cost = np.array([[draw(COST) for _ in range(options)] for _ in range(nodes)])
    for node in range(nodes):
        for option in range(1, options):
            if draw(st.booleans()) and draw(st.booleans()):
                cost[node, option] = np.inf
    nets = []
    for _ in range(draw(st.integers(0, 6))):
        source = draw(st.integers(0, nodes - 1))
        readers = draw(st.lists(st.integers(0, nodes - 1), min_size=1, max_size=4))
        labels = (
            tuple(draw(st.integers(0, options - 1)) for _ in range(options)) if draw(st.booleans()) else range(options)
        )
        leave, enter = (tuple(draw(COST) for _ in range(options)) for _ in range(2))
        nets.append(Net(source=source, readers=tuple(readers), labels=tuple(labels), leave=leave, enter=enter))
    charges = tuple(Charge(nodes=tuple(range(nodes)), options=(o,), cost=draw(COST)) for o in range(options))
    limits: tuple[Capacity, ...] = ()
    if capacities and draw(st.booleans()):
        usage = np.zeros_like(cost)
        usage[:, options - 1] = [draw(st.integers(0, 5)) for _ in range(nodes)]
        limits = (Capacity(usage=usage, limit=float(draw(st.integers(0, 12)))),)
    return PlacementProblem(cost=cost, nets=tuple(nets), charges=charges, capacities=limits)


def every_choice(problem: PlacementProblem) -> list[np.ndarray]:
    nodes, options = problem.cost.shape
    return [np.array(c) for c in itertools.product(range(options), repeat=nodes)]


def cheapest(problem: PlacementProblem) -> float:
    return min(problem.value(c) for c in every_choice(problem))


@settings(max_examples=40, deadline=None)
@given(problems())
def test_the_programme_finds_what_enumeration_finds(problem: PlacementProblem) -> None:
    expected = cheapest(problem)
    if math.isinf(expected):
        with pytest.raises(NoPlacement):
            solve(problem)
        return
    found = solve_milp(problem)
    assert found.value == pytest.approx(expected, rel=1e-7, abs=1e-9)
    assert found.bound <= expected + 1e-9
    assert found.gap <= 1e-6


@settings(max_examples=80, deadline=None)
@given(problems(capacities=False))
def test_the_dynamic_programme_finds_what_enumeration_finds(problem: PlacementProblem) -> None:
    found = solve_dynamic(problem, most_states=100_000)
    assert found is not None
    assert found.value == pytest.approx(cheapest(problem), rel=1e-9, abs=1e-12)
    assert found.gap == 0.0


@settings(max_examples=40, deadline=None)
@given(problems(capacities=False), st.integers(0, 2**32 - 1))
def test_the_lowest_product_is_that_of_enumeration(first: PlacementProblem, seed: int) -> None:
    """The second problem has the first one's structure and other positive costs."""
    random = np.random.default_rng(seed)
    first = _shifted(first, 0.5, random)
    second = _shifted(first, 0.1, random)
    found = lowest_product(first, second)
    expected = min(first.value(c) * second.value(c) for c in every_choice(first) if math.isfinite(first.value(c)))
    assert found.value == pytest.approx(expected, rel=1e-9)
    assert found.bound == pytest.approx(expected, rel=1e-6)
    assert found.bound <= expected * (1 + 1e-9)


def _shifted(problem: PlacementProblem, least: float, random: np.random.Generator) -> PlacementProblem:
    cost = np.where(np.isfinite(problem.cost), random.uniform(least, 5.0, problem.cost.shape), np.inf)
    nets = tuple(
        Net(n.source, n.readers, n.labels, tuple(random.uniform(0, 2, len(n.leave))), tuple(random.uniform(0, 2, len(n.enter))))
        for n in problem.nets
    )  # fmt: skip
    return PlacementProblem(cost=cost, nets=nets, charges=problem.charges)


def random_dag(nodes: int, seed: int, options: int = 3) -> PlacementProblem:
    """Costs around 1, 15 % not allowed on the last option, values read by one or two of the next ten nodes."""
    random = np.random.default_rng(seed)
    cost = random.lognormal(0.0, 1.0, (nodes, options))
    cost[random.random(nodes) < 0.15, -1] = np.inf
    nets = []
    for node in range(nodes - 1):
        readers = {min(nodes - 1, node + int(d)) for d in random.integers(1, 10, random.integers(1, 3))}
        bytes_ = random.lognormal(-1.0, 1.0)
        nets.append(
            Net(node, tuple(sorted(readers)), tuple(range(options)), (0.1,) * options, (0.2 + bytes_,) * options)
        )
    charges = tuple(Charge(tuple(range(nodes)), (o,), 1.0) for o in range(options))
    return PlacementProblem(cost=cost, nets=tuple(nets), charges=charges)


def test_both_solvers_agree_where_enumeration_cannot_go() -> None:
    for seed in range(3):
        problem = chain_with_residuals(60, seed)
        dynamic, programme = solve_dynamic(problem, most_states=100_000), solve_milp(problem)
        assert dynamic is not None
        assert programme.value == pytest.approx(dynamic.value, rel=1e-7)


def chain_with_residuals(nodes: int, seed: int) -> PlacementProblem:
    random = np.random.default_rng(seed)
    cost = random.lognormal(0.0, 1.0, (nodes, 3))
    nets = [
        Net(n, (n + 1, n + 3) if n % 3 == 0 and n + 3 < nodes else (n + 1,), (0, 1, 2), (0.1,) * 3, (0.5, 0.3, 0.9))
        for n in range(nodes - 1)
    ]
    return PlacementProblem(cost=cost, nets=tuple(nets), charges=(Charge(tuple(range(nodes)), (2,), 3.0),))


def test_a_chain_whose_answer_is_known() -> None:
    """Two nodes that each save 3 elsewhere, and a switch that costs 2 out and 2 in: staying (9) beats leaving (10 - 6 + 8
    ...)."""
    cost = np.array([[3.0, 0.0], [3.0, np.inf], [3.0, 0.0]])
    nets = tuple(Net(n, (n + 1,), (0, 1), (1.0, 1.0), (2.0, 2.0)) for n in range(2))
    assert solve(PlacementProblem(cost=cost, nets=nets)).value == 9.0  # 3 + 3 + 3, against 3 + 2 x 3 = 9: a tie
    cheaper = tuple(Net(n, (n + 1,), (0, 1), (0.5, 0.5), (1.0, 1.0)) for n in range(2))
    found = solve(PlacementProblem(cost=cost, nets=cheaper))
    assert (found.value, list(found.choice)) == (6.0, [1, 0, 1])  # 3 + 2 x 1.5


def test_a_value_enters_an_option_once_for_all_its_readers() -> None:
    net = Net(0, (1, 2, 3), (0, 1), (1.0, 1.0), (5.0, 7.0))
    assert net_cost(net, np.array([0, 1, 1, 1])) == 8.0
    assert net_cost(net, np.array([0, 0, 0, 0])) == 0.0
    assert net_cost(net, np.array([1, 0, 1, 0])) == 6.0


@pytest.mark.parametrize(("cost", "charge"), [(0.0, 1.0), (0.0, 0.0), (1e-9, 0.0), (1e9, 1.0)])
def test_costs_of_any_size_are_solved(cost: float, charge: float) -> None:
    problem = PlacementProblem(cost=np.array([[cost]]), charges=(Charge((0,), (0,), charge),))
    found = solve_milp(problem)
    assert found.value == cost + charge
    assert found.bound == pytest.approx(found.value, rel=1e-6)


def test_a_capacity_moves_the_node_that_is_cheapest_to_move() -> None:
    cost = np.array([[9.0, 1.0], [4.0, 1.0], [9.0, 1.0]])
    usage = np.array([[0.0, 2.0], [0.0, 2.0], [0.0, 2.0]])
    found = solve(PlacementProblem(cost=cost, capacities=(Capacity(usage, 4.0),)))
    assert list(found.choice) == [1, 0, 1]
    with pytest.raises(NoPlacement, match="capacities"):
        solve(PlacementProblem(cost=np.full((3, 1), 1.0), capacities=(Capacity(np.full((3, 1), 2.0), 4.0),)))


def test_a_node_without_an_option_is_named() -> None:
    with pytest.raises(NoPlacement, match="node 1 ") as caught:
        solve(PlacementProblem(cost=np.array([[1.0, 1.0], [np.inf, np.inf]])))
    assert caught.value.node == 1


def test_a_sum_of_two_problems_costs_the_sum() -> None:
    first, second = random_dag(12, 1), random_dag(12, 1)
    second = PlacementProblem(cost=first.cost * 2 + 1, nets=first.nets, charges=first.charges)
    choice = np.zeros(12, dtype=np.int64)
    expected = 0.75 * first.value(choice) + 0.25 * second.value(choice)
    assert mixed(first, second, 0.25).value(choice) == pytest.approx(expected)


def test_the_dynamic_programme_gives_up_where_too_much_is_open() -> None:
    assert solve_dynamic(random_dag(40, 2), most_states=5) is None


def test_a_time_limit_leaves_a_bound_that_holds() -> None:
    problem = random_dag(120, 3)
    best = solve_milp(problem)
    assert best.gap <= 1e-6
    assert best.bound <= best.value
