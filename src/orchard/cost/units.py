"""What a placement may move between engines: the smallest sets of ops that no engine's launches straddle.

Each runtime fuses its own runs of ops. A cut inside a launch of either engine would price a kernel that neither has, so ops that
share a launch on any engine in question share a unit, and a unit goes to one engine as a whole. There each engine still
launches the unit's ops in its own groups. Views launch nothing and stay with the op that makes what they look at.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from orchard.cost.lower import Kernel, cached_tensors
from orchard.ir import Graph, Role


@dataclass(frozen=True, slots=True)
class Flow:
    """A tensor that unit `source` makes and other units read, views of it included. `state`: a cache after its update."""

    tensor: str
    source: int
    readers: tuple[int, ...]
    state: bool


@dataclass(frozen=True)
class Units:
    """`ops[unit]` in program order; units stand in an order in which they may run. `flows` cross between units."""

    ops: tuple[tuple[str, ...], ...]
    unit_of: dict[str, int]
    flows: tuple[Flow, ...]

    def __len__(self) -> int:
        return len(self.ops)


def make_units(graph: Graph, launches: Iterable[Sequence[Kernel]]) -> Units:
    """Units of a graph for engines whose launches these are."""
    joined = _Joined([op.name for op in graph.ops])
    launched: set[str] = set()
    for kernels in launches:
        for kernel in kernels:
            launched.update(kernel.ops)
            for name in kernel.ops[1:]:
                joined.join(kernel.ops[0], name)
    maker = {name: op.name for op in graph.ops for name in op.outputs}
    for op in graph.ops:
        if op.kind == "view" and op.name not in launched and op.inputs[0] in maker:
            joined.join(maker[op.inputs[0]], op.name)
    _join_cycles(graph, maker, joined)
    ops = _in_order(graph, maker, joined)
    unit_of = {name: at for at, names in enumerate(ops) for name in names}
    return Units(ops=ops, unit_of=unit_of, flows=_flows(graph, unit_of))


class _Joined:
    """Disjoint sets of names."""

    def __init__(self, names: Iterable[str]) -> None:
        self.parent = {name: name for name in names}

    def find(self, name: str) -> str:
        root = name
        while self.parent[root] != root:
            root = self.parent[root]
        while self.parent[name] != root:
            self.parent[name], name = root, self.parent[name]
        return root

    def join(self, a: str, b: str) -> None:
        self.parent[self.find(b)] = self.find(a)


def _join_cycles(graph: Graph, maker: dict[str, str], joined: _Joined) -> None:
    """Sets that wait for each other cannot run one after the other: they become one. Fused runs whose inner results have one
    reader never do this; runtimes with freer rules may."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    roots = list(dict.fromkeys(joined.find(op.name) for op in graph.ops))
    index = {root: i for i, root in enumerate(roots)}
    pairs = {
        (index[joined.find(maker[n])], index[joined.find(op.name)]) for op in graph.ops for n in op.inputs if n in maker
    }
    if not pairs:
        return
    rows, columns = np.array(sorted(pairs)).T
    edges = coo_matrix((np.ones(len(rows)), (rows, columns)), shape=(len(roots), len(roots)))
    count, label = connected_components(edges.tocsr(), directed=True, connection="strong")
    if count == len(roots):
        return
    first: dict[int, str] = {}
    for root, group in zip(roots, label):
        joined.join(first.setdefault(int(group), root), root)


def _in_order(graph: Graph, maker: dict[str, str], joined: _Joined) -> tuple[tuple[str, ...], ...]:
    """Sets in an order that respects reads; among those that may run, the one that begins first in the program."""
    members: dict[str, list[str]] = {}
    for op in graph.ops:
        members.setdefault(joined.find(op.name), []).append(op.name)
    start = {root: i for i, root in enumerate(members)}
    waits: dict[str, set[str]] = {root: set() for root in members}
    for op in graph.ops:
        mine = joined.find(op.name)
        waits[mine].update(joined.find(maker[n]) for n in op.inputs if n in maker)
        waits[mine].discard(mine)
    followers: dict[str, list[str]] = {root: [] for root in members}
    for root, before in waits.items():
        for other in before:
            followers[other].append(root)
    left = {root: len(before) for root, before in waits.items()}
    ready = [(start[root], root) for root, n in left.items() if n == 0]
    heapq.heapify(ready)
    found: list[tuple[str, ...]] = []
    while ready:
        _, root = heapq.heappop(ready)
        found.append(tuple(members[root]))
        for other in followers[root]:
            left[other] -= 1
            if left[other] == 0:
                heapq.heappush(ready, (start[other], other))
    assert len(found) == len(members)
    return tuple(found)


def _flows(graph: Graph, unit_of: dict[str, int]) -> tuple[Flow, ...]:
    root_of = view_roots(graph)
    maker = {name: op.name for op in graph.ops for name in op.outputs}
    readers: dict[str, dict[int, None]] = {}
    for op in graph.ops:
        for name in op.inputs:
            root = root_of.get(name, name)
            if root in maker and graph.tensors[root].role is Role.ACTIVATION:
                readers.setdefault(root, {})[unit_of[op.name]] = None
    cached = cached_tensors(graph)
    found = []
    for root, units in readers.items():
        source = unit_of[maker[root]]
        others = tuple(u for u in units if u != source)
        if others:
            found.append(Flow(tensor=root, source=source, readers=others, state=root in cached))
    return tuple(found)


def view_roots(graph: Graph) -> dict[str, str]:
    """For each output of a view the tensor whose storage it shares."""
    found: dict[str, str] = {}
    for op in graph.ops:
        if op.kind == "view":
            for name in op.outputs:
                found[name] = found.get(op.inputs[0], op.inputs[0])
    return found
