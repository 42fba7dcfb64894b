"""Exact choice of one option per node where values that cross between options cost: a multiway cut with fixed charges.

Nothing here knows hardware. A node takes one option (an engine and a number format, say) at `cost[node, option]`. A `Net` is a
value: its source makes it under the label of the option it took, and readers under another label pay. Leaving is paid once per
value, entering once per value and distinct label of a reader, however many readers share it:

    net cost = leave[source's label] x (some reader has another label) + sum of enter[label] over the readers' other labels

A `Charge` is paid once if any of its nodes takes one of its options; a `Capacity` limits a sum over nodes. All costs add up, so
the problem is linear in 0/1 choices, and two solvers prove their answers:

* `solve_milp`: choices are binary, "has left" and "has entered" are continuous variables held from below by differences of
  choices. With binary choices those differences are 0 or 1, so the continuous variables take the true value by themselves.
* `solve_dynamic`: nodes one after the other; what later nodes must know is, per net that is still open, the source's label
  and the set of reader labels. Equal knowledge: the cheapest stays. It works where few nets are open at a time, and takes no
  capacities.

`solve` tries the second within a limit of states, then the first. `lowest_product` minimises the product of two such costs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from orchard.search.errors import NoPlacement

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
MOST_STATES = 300
"""States of the dynamic programme at one node from which `solve` turns to the MILP, which then takes less time."""
ROUNDING = 1e-9
"""Relative gap below which two sums of the same float terms in another order count as equal."""


@dataclass(frozen=True)
class Net:
    """`labels[option]` is what an option looks like to this value; `leave` and `enter` are costs by label, not negative."""

    source: int
    readers: tuple[int, ...]
    labels: tuple[int, ...]
    leave: tuple[float, ...]
    enter: tuple[float, ...]


@dataclass(frozen=True)
class Charge:
    """`cost` is paid once if any of `nodes` takes one of `options`."""

    nodes: tuple[int, ...]
    options: tuple[int, ...]
    cost: float


@dataclass(frozen=True)
class Capacity:
    """The sum of `usage[node, option]` over the choices may not exceed `limit`."""

    usage: Floats
    limit: float


@dataclass(frozen=True)
class PlacementProblem:
    """`cost[nodes, options]`, infinite where a node may not take an option."""

    cost: Floats
    nets: tuple[Net, ...] = ()
    charges: tuple[Charge, ...] = ()
    capacities: tuple[Capacity, ...] = ()

    def value(self, choice: Ints) -> float:
        """Cost of a full choice; infinite where it breaks a capacity or takes what is not allowed."""
        rows = np.arange(len(self.cost))
        for capacity in self.capacities:
            if float(capacity.usage[rows, choice].sum()) > capacity.limit * (1 + ROUNDING):
                return math.inf
        total = float(self.cost[rows, choice].sum())
        total += sum(net_cost(net, choice) for net in self.nets)
        return total + sum(c.cost for c in self.charges if _taken(c, choice))


@dataclass(frozen=True)
class Solved:
    """`bound` is proven: no choice costs less. `method` says by what; `states` or branch nodes looked at."""

    choice: Ints
    value: float
    bound: float
    method: str
    explored: int = 0

    @property
    def gap(self) -> float:
        """Share of the value that the proof leaves open, 0 when the answer is proven best."""
        open_share = (self.value - self.bound) / abs(self.value) if self.value else self.value - self.bound
        return 0.0 if open_share <= ROUNDING else float(open_share)


def net_cost(net: Net, choice: Ints) -> float:
    """Cost of one value under a full choice."""
    home = net.labels[choice[net.source]]
    away = {net.labels[choice[r]] for r in net.readers} - {home}
    return net.leave[home] + sum(net.enter[label] for label in away) if away else 0.0


def _taken(charge: Charge, choice: Ints) -> bool:
    return any(int(choice[n]) in charge.options for n in charge.nodes)


def mixed(first: PlacementProblem, second: PlacementProblem, share: float) -> PlacementProblem:
    """(1 - share) x first + share x second, for two problems that differ only in their costs."""

    def mix(a: float, b: float) -> float:
        return (1.0 - share) * a + share * b

    nets = tuple(
        replace(a, leave=tuple(map(mix, a.leave, b.leave)), enter=tuple(map(mix, a.enter, b.enter)))
        for a, b in zip(first.nets, second.nets, strict=True)
    )
    charges = tuple(replace(a, cost=mix(a.cost, b.cost)) for a, b in zip(first.charges, second.charges, strict=True))
    with np.errstate(invalid="ignore"):
        cost = np.where(np.isfinite(first.cost), (1.0 - share) * first.cost + share * second.cost, np.inf)
    return replace(first, cost=cost, nets=nets, charges=charges)


def solve(problem: PlacementProblem, *, time_limit_s: float = 30.0, most_states: int = MOST_STATES) -> Solved:
    """The best choice with its proof, by whichever method suits. Raises NoPlacement where no choice is allowed."""
    _check(problem)
    if not problem.capacities:
        found = solve_dynamic(problem, most_states=most_states)
        if found is not None:
            return found
    return solve_milp(problem, time_limit_s=time_limit_s)


def _check(problem: PlacementProblem) -> None:
    stuck = np.flatnonzero(~np.isfinite(problem.cost).any(axis=1))
    if len(stuck):
        raise NoPlacement(f"node {int(stuck[0])} has no option that is allowed", node=int(stuck[0]))


# ---------------------------------------------------------------- dynamic programme


def solve_dynamic(problem: PlacementProblem, *, most_states: int = MOST_STATES) -> Solved | None:
    """The best choice, or None where more than `most_states` partial answers differ in what later nodes must know."""
    assert not problem.capacities
    order = _narrow_order(problem)
    sweep = _Sweep(problem, order)
    states: dict[tuple[int, ...], float] = {(): 0.0}
    trail: list[dict[tuple[int, ...], tuple[tuple[int, ...], int]]] = []
    explored = 0
    for at in range(len(order)):
        states, parents = sweep.step(at, states)
        explored += len(states)
        trail.append(parents)
        if len(states) > most_states:
            return None
    key = min(states, key=lambda k: (states[k], k))
    value = states[key]
    choice = np.zeros(len(order), dtype=np.int64)
    for at in reversed(range(len(order))):
        key, choice[order[at]] = trail[at][key]
    assert math.isclose(value, problem.value(choice), rel_tol=1e-9, abs_tol=1e-30)
    return Solved(
        choice=choice, value=problem.value(choice), bound=value, method="dynamic programme", explored=explored
    )


class _Sweep:
    """Steps of the dynamic programme. A state is a tuple: for each open net 1 + the source's label (0: not placed yet) and the
    mask of reader labels, for each open charge 0 or 1."""

    def __init__(self, problem: PlacementProblem, order: Ints) -> None:
        self.problem = problem
        self.order = order
        place = np.empty(len(order), dtype=np.int64)
        place[order] = np.arange(len(order))
        members: list[tuple[int, ...]] = [(n.source, *n.readers) for n in problem.nets]
        members += [c.nodes for c in problem.charges]
        self.items: list[Net | Charge] = [*problem.nets, *problem.charges]
        spans = [sorted({int(place[m]) for m in group}) for group in members]
        self.touched: list[list[int]] = [[] for _ in order]
        for item, span in enumerate(spans):
            for at in span:
                self.touched[at].append(item)
        self.first = [span[0] if span else -1 for span in spans]
        self.last = [span[-1] if span else -1 for span in spans]
        self.open: list[int] = []

    def step(
        self, at: int, states: dict[tuple[int, ...], float]
    ) -> tuple[dict[tuple[int, ...], float], dict[tuple[int, ...], tuple[tuple[int, ...], int]]]:
        node = int(self.order[at])
        before = self.open
        opened = [item for item in self.touched[at] if self.first[item] == at]
        slots = {item: i for i, item in enumerate([*before, *opened])}
        after = [item for item in slots if self.last[item] != at]
        closing = [item for item in self.touched[at] if self.last[item] == at]
        self.open = after
        kept = [slots[item] for item in after]
        options = [o for o in range(self.problem.cost.shape[1]) if math.isfinite(self.problem.cost[node, o])]
        fresh = (0,) * len(opened)
        # What a state becomes depends on the touched slots alone; layers repeat, so remember it.
        best: dict[tuple[int, ...], float] = {}
        parents: dict[tuple[int, ...], tuple[tuple[int, ...], int]] = {}
        changes = [self._changes(node, o, at, slots) for o in options]
        closes = [(slots[item], self.items[item]) for item in closing]
        for state, value in states.items():
            for option, change in zip(options, changes):
                work = [*state, *fresh]
                cost = value + float(self.problem.cost[node, option])
                for slot, update in change:
                    work[slot] = update[work[slot]]
                for slot, item in closes:
                    cost += _closed_cost(item, work[slot])
                key = tuple(work[i] for i in kept)
                if cost < best.get(key, math.inf):
                    best[key] = cost
                    parents[key] = (state, option)
        return best, parents

    def _changes(self, node: int, option: int, at: int, slots: dict[int, int]) -> list[tuple[int, list[int]]]:
        found = []
        for index in self.touched[at]:
            item = self.items[index]
            if isinstance(item, Charge):
                taken = int(option in item.options)
                found.append((slots[index], [taken, 1]))
            else:
                found.append((slots[index], _transition(item, node, option)))
        return found


def _transition(net: Net, node: int, option: int) -> list[int]:
    """Code of a net after `node` took `option`, by code before. A code is source x 2^labels + mask, source 0 while unknown;
    the mask leaves out the source's own label once that is known, and labels that are free to enter when nothing is left to
    pay."""
    labels = len(net.leave)
    size = 1 << labels
    label = net.labels[option]
    table = []
    for code in range((labels + 1) * size):
        source, mask = divmod(code, size)
        if node == net.source:
            source = label + 1
        if node in net.readers:
            mask |= 1 << label
        if source:
            mask &= ~(1 << (source - 1))
        table.append(source * size + mask)
    return table


def _closed_cost(item: Net | Charge, code: int) -> float:
    if isinstance(item, Charge):
        return item.cost if code else 0.0
    source, mask = divmod(code, 1 << len(item.leave))
    if not mask:
        return 0.0
    return item.leave[source - 1] + sum(c for label, c in enumerate(item.enter) if mask >> label & 1)


def _narrow_order(problem: PlacementProblem) -> Ints:
    """An order of the nodes that keeps few nets open: as given, or reverse Cuthill-McKee where that is narrower."""
    given = np.arange(len(problem.cost), dtype=np.int64)
    if not problem.nets:
        return given
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import reverse_cuthill_mckee

    pairs = np.array([(n.source, r) for n in problem.nets for r in n.readers], dtype=np.int64)
    both = np.concatenate([pairs, pairs[:, ::-1]])
    graph = coo_matrix((np.ones(len(both)), (both[:, 0], both[:, 1])), shape=(len(given), len(given))).tocsr()
    other = np.asarray(reverse_cuthill_mckee(graph, symmetric_mode=True), dtype=np.int64)
    return min(given, other, key=lambda order: _open_sum(problem, order))


def _open_sum(problem: PlacementProblem, order: Ints) -> float:
    """Sum over positions of 3^(open nets), the growth of states; huge counts saturate."""
    place = np.empty(len(order), dtype=np.int64)
    place[order] = np.arange(len(order))
    change = np.zeros(len(order) + 1)
    for net in problem.nets:
        at = [int(place[n]) for n in (net.source, *net.readers)]
        change[min(at)] += 1
        change[max(at)] -= 1
    return float((3.0 ** np.minimum(np.cumsum(change), 300)).sum())


# ---------------------------------------------------------------- mixed-integer programme


def solve_milp(problem: PlacementProblem, *, time_limit_s: float = 30.0) -> Solved:
    """The best choice by HiGHS, with the bound it proved. Raises NoPlacement where none is allowed or none was found in time."""
    from scipy.optimize import Bounds, LinearConstraint, milp

    _check(problem)
    model = _Rows(problem)
    scale = _scale(problem)
    matrix, low, high = model.constraints()
    result = milp(
        model.objective * scale,
        integrality=model.integral,
        bounds=Bounds(0, model.upper),
        constraints=LinearConstraint(matrix, low, high),
        options={"time_limit": time_limit_s, "mip_rel_gap": 1e-10, "presolve": True},
    )
    if result.x is None:
        why = "no choice keeps within the capacities" if result.status == 2 else f"none found in {time_limit_s:g} s"
        raise NoPlacement(why)
    choice = model.choice_of(result.x)
    value = problem.value(choice)
    bound = float(result.mip_dual_bound) / scale if result.mip_dual_bound is not None else -math.inf
    nodes = int(result.mip_node_count or 0)
    return Solved(choice=choice, value=value, bound=min(bound, value), method="MILP (HiGHS)", explored=nodes)


def _scale(problem: PlacementProblem) -> float:
    """Brings costs near 10^4 for the solver, whose tolerances are absolute: measured by the choice of least own costs."""
    known = replace(problem, capacities=()).value(np.asarray(problem.cost.argmin(axis=1), dtype=np.int64))
    return 1e4 / known if known > 1e-290 else 1.0


@dataclass
class _Rows:
    """Columns and rows of the programme: choices first, then one column per net and label left or entered, then charges."""

    problem: PlacementProblem
    objective: Floats = field(init=False)
    integral: Ints = field(init=False)
    upper: Floats = field(init=False)

    def __post_init__(self) -> None:
        allowed = np.isfinite(self.problem.cost)
        self.column = np.full(allowed.shape, -1, dtype=np.int64)
        self.column[allowed] = np.arange(int(allowed.sum()))
        self.costs: list[float] = list(self.problem.cost[allowed])
        self.choices = len(self.costs)
        self.entries: list[tuple[int, int, float]] = []
        self.low: list[float] = []
        self.high: list[float] = []
        for node in range(len(allowed)):
            self._row([(int(c), 1.0) for c in self.column[node] if c >= 0], 1.0, 1.0)
        for net in self.problem.nets:
            self._net(net)
        for charge in self.problem.charges:
            self._charge(charge)
        for capacity in self.problem.capacities:
            used = [(int(self.column[n, o]), float(capacity.usage[n, o])) for n, o in zip(*np.nonzero(allowed))]
            self._row(used, -np.inf, capacity.limit)
        self.objective = np.array(self.costs)
        self.integral = (np.arange(len(self.costs)) < self.choices).astype(np.int64)
        self.upper = np.ones(len(self.costs))

    def _row(self, terms: Sequence[tuple[int, float]], low: float, high: float) -> None:
        self.entries.extend((len(self.low), column, weight) for column, weight in terms)
        self.low.append(low)
        self.high.append(high)

    def _new_column(self, cost: float) -> int:
        self.costs.append(cost)
        return len(self.costs) - 1

    def _sum_of(self, node: int, net: Net, label: int, sign: float) -> list[tuple[int, float]]:
        """Terms of `sign` x (node has `label`)."""
        return [(int(c), sign) for o, c in enumerate(self.column[node]) if c >= 0 and net.labels[o] == label]

    def _net(self, net: Net) -> None:
        for label, (leave, enter) in enumerate(zip(net.leave, net.enter)):
            left = self._new_column(leave) if leave > 0 else -1
            entered = self._new_column(enter) if enter > 0 else -1
            for reader in dict.fromkeys(net.readers):
                home, there = self._sum_of(net.source, net, label, 1.0), self._sum_of(reader, net, label, 1.0)
                if left >= 0 and home:
                    minus = self._sum_of(net.source, net, label, -1.0)
                    self._row([(left, 1.0), *minus, *there], 0.0, np.inf)
                if entered >= 0 and there:
                    minus = self._sum_of(reader, net, label, -1.0)
                    self._row([(entered, 1.0), *minus, *home], 0.0, np.inf)

    def _charge(self, charge: Charge) -> None:
        if charge.cost <= 0:
            assert charge.cost == 0, "a charge is not negative"
            return
        paid = self._new_column(charge.cost)
        for node in charge.nodes:
            taken = [(int(self.column[node, o]), -1.0) for o in charge.options if self.column[node, o] >= 0]
            if taken:
                self._row([(paid, 1.0), *taken], 0.0, np.inf)

    def constraints(self) -> tuple[Any, Floats, Floats]:
        from scipy.sparse import csr_matrix

        rows, columns, weights = zip(*self.entries)
        shape = (len(self.low), len(self.costs))
        return csr_matrix((weights, (rows, columns)), shape=shape), np.array(self.low), np.array(self.high)

    def choice_of(self, solution: Floats) -> Ints:
        """The option of each node whose variable is largest."""
        filled = np.where(self.column >= 0, solution[np.maximum(self.column, 0)], -1.0)
        return np.asarray(filled.argmax(axis=1), dtype=np.int64)


# ---------------------------------------------------------------- product of two costs


@dataclass(frozen=True)
class Product:
    """The choice of least first x second, and the supported points (first, second, choice) met on the way, first rising.
    `bound` is proven: no choice has a smaller product."""

    choice: Ints
    value: float
    bound: float
    points: tuple[tuple[float, float, Ints], ...]
    solves: int

    @property
    def gap(self) -> float:
        open_share = (self.value - self.bound) / self.value if self.value else 0.0
        return 0.0 if open_share <= ROUNDING else float(open_share)


Solver = Callable[[PlacementProblem], Solved]


def lowest_product(first: PlacementProblem, second: PlacementProblem, solver: Solver = solve) -> Product:
    """Least first(choice) x second(choice), exactly, by solving weighted sums.

    The product of two positive numbers is quasi-concave, so over the convex hull of all (first, second) it is smallest at a
    vertex of the hull, and the vertices towards the origin are the minimisers of weighted sums. Between two neighbouring
    known points the unknown ones lie in the triangle below their chord and above the lines that the solves behind them
    proved; the product is smallest at a corner of that triangle, so where the far corner does not beat the best known product
    the triangle is done. Otherwise the sum whose level line is the chord is solved: it finds a new vertex, or proves there is
    none.
    """
    search = _Hull(first, second, solver)
    return search.run()


class _Hull:
    def __init__(self, first: PlacementProblem, second: PlacementProblem, solver: Solver) -> None:
        self.first, self.second, self.solver = first, second, solver
        self.points: list[tuple[float, float, Ints]] = []
        self.solves = 0

    def _solve(self, weight_first: float, weight_second: float) -> tuple[tuple[float, float, Ints], float]:
        """The minimiser of a weighted sum, and the proven bound of that sum."""
        total = weight_first + weight_second
        found = self.solver(mixed(self.first, self.second, weight_second / total))
        self.solves += 1
        point = (self.first.value(found.choice), self.second.value(found.choice), found.choice)
        self.points.append(point)
        return point, min(found.bound * total, weight_first * point[0] + weight_second * point[1])

    def run(self) -> Product:
        (left, low_first), (right, low_second) = self._solve(1.0, 0.0), self._solve(0.0, 1.0)
        best = min(p[0] * p[1] for p in self.points)
        floor = math.inf
        # A triangle: two points, and the proven half-planes (weights, bound) that meet in its far corner.
        waiting = [(left, right, (1.0, 0.0, low_first), (0.0, 1.0, low_second))]
        while waiting:
            a, b, lower_a, lower_b = waiting.pop()
            corner = _crossing(lower_a, lower_b)
            reach = min(corner[0] * corner[1], a[0] * a[1], b[0] * b[1])
            if corner[0] * corner[1] >= best * (1 - ROUNDING):
                floor = min(floor, max(reach, 0.0))
                continue
            weights = (a[1] - b[1], b[0] - a[0])
            if weights[0] <= 0 or weights[1] <= 0:
                floor = min(floor, max(reach, 0.0))  # the two points are one, or one beats the other
                continue
            point, low = self._solve(*weights)
            best = min(best, point[0] * point[1])
            chord = weights[0] * a[0] + weights[1] * a[1]
            if weights[0] * point[0] + weights[1] * point[1] >= chord * (1 - ROUNDING):
                # No vertex below the chord; what the bound leaves open of the triangle stays open.
                line = (*weights, low)
                ends = [_crossing(lower_a, line), _crossing(line, lower_b)]
                floor = min(floor, *(x * y for x, y in ends), best)
                continue
            waiting += [(a, point, lower_a, (*weights, low)), (point, b, (*weights, low), lower_b)]
        return self._product(min(floor, best))

    def _product(self, bound: float) -> Product:
        unique = {(p[0], p[1]): p for p in self.points}
        points = tuple(unique[k] for k in sorted(unique) if not any(o[0] <= k[0] and o[1] < k[1] for o in unique))
        best = min(points, key=lambda p: (p[0] * p[1], p[0]))
        return Product(choice=best[2], value=best[0] * best[1], bound=bound, points=points, solves=self.solves)


def _crossing(p: tuple[float, float, float], q: tuple[float, float, float]) -> tuple[float, float]:
    """Where p0 x + p1 y = p2 and q0 x + q1 y = q2 meet."""
    det = p[0] * q[1] - p[1] * q[0]
    if det == 0:
        return 0.0, 0.0
    return (p[2] * q[1] - p[1] * q[2]) / det, (p[0] * q[2] - p[2] * q[0]) / det
