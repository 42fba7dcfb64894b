"""Which engine runs each op of a graph, in which precision and launch group, and what is handed from engine to engine.

A plan is a description: it carries no times. `plan_errors` says what is wrong with one, `dependencies` which launches wait for
which. Groups stand in an order in which they may start one after the other.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from orchard.ir import Graph, Role
from orchard.mapping.errors import MappingError

ENGINES = ("cpu", "gpu", "ane")


@dataclass(frozen=True, slots=True, kw_only=True)
class LaunchGroup:
    """Ops of one graph that start as one launch on one engine; inner results never leave it. `precision` names the number
    format of its activations. A group of views alone launches nothing and stands with whoever makes what it looks at."""

    ops: tuple[str, ...]
    engine: str
    precision: str
    launches: bool = True

    def __post_init__(self) -> None:
        if not self.ops:
            raise MappingError("a launch group without ops")
        if self.engine not in ENGINES:
            raise MappingError(f"group of {self.ops[0]}: engine {self.engine!r}, expected {', '.join(ENGINES)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class HandOver:
    """One tensor that `source` made and `target` reads, once however many groups read it there. `bytes` of the tensor as it
    was made; `reader`: position of the first group that reads it on `target`; `state`: a cache, not an activation."""

    tensor: str
    source: str
    target: str
    bytes: float
    reader: int
    state: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """Groups `first` to `last` (positions, inclusive) that run on one engine without a switch."""

    engine: str
    first: int
    last: int


@dataclass(frozen=True, kw_only=True)
class EnginePlan:
    """A whole graph placed. `phase` says which pass over the graph it is: `prefill`, `decode`, `inference`."""

    graph: str
    phase: str
    groups: tuple[LaunchGroup, ...]
    handovers: tuple[HandOver, ...] = ()

    @property
    def engines(self) -> tuple[str, ...]:
        """Engines in use, in the order of ENGINES."""
        used = {g.engine for g in self.groups if g.launches}
        return tuple(e for e in ENGINES if e in used)

    @property
    def segments(self) -> tuple[Segment, ...]:
        """Runs of groups on one engine, in order. Groups that launch nothing never begin a segment of their own."""
        found: list[Segment] = []
        for at, group in enumerate(self.groups):
            if found and (found[-1].engine == group.engine or not group.launches):
                found[-1] = Segment(engine=found[-1].engine, first=found[-1].first, last=at)
            else:
                found.append(Segment(engine=group.engine, first=at, last=at))
        return tuple(found)

    def engine_of(self) -> dict[str, str]:
        """Engine by op name."""
        return {op: g.engine for g in self.groups for op in g.ops}


def dependencies(plan: EnginePlan, graph: Graph) -> tuple[tuple[int, ...], ...]:
    """For each group the positions of the groups whose results it reads."""
    position = {op: at for at, g in enumerate(plan.groups) for op in g.ops}
    maker = {name: position[op.name] for op in graph.ops if op.name in position for name in op.outputs}
    reads = {op.name: op.inputs for op in graph.ops}
    return tuple(
        tuple(sorted({maker[n] for op in g.ops for n in reads[op] if n in maker and maker[n] != at}))
        for at, g in enumerate(plan.groups)
    )


def plan_errors(plan: EnginePlan, graph: Graph) -> Iterator[str]:
    """What keeps a plan from running `graph`: ops missing or twice, an order that reads before it writes, a tensor that
    crosses engines without a hand-over. Nothing for a legal plan."""
    names = [op for g in plan.groups for op in g.ops]
    known = {op.name for op in graph.ops}
    seen: set[str] = set()
    for name in names:
        if name not in known:
            yield f"op {name} is not in graph {graph.name}"
        if name in seen:
            yield f"op {name} is in two groups"
        seen.add(name)
    yield from (f"op {name} is in no group" for name in sorted(known - seen))
    if known != seen or len(names) != len(seen):
        return
    for at, makers in enumerate(dependencies(plan, graph)):
        yield from (f"group {at} reads what group {m} makes later" for m in makers if m > at)
    yield from _missing_handovers(plan, graph)


def _missing_handovers(plan: EnginePlan, graph: Graph) -> Iterator[str]:
    engine = plan.engine_of()
    silent = {op for g in plan.groups if not g.launches for op in g.ops}
    crossed = {(h.tensor, h.target) for h in plan.handovers}
    maker = {name: op.name for op in graph.ops for name in op.outputs}
    for op in graph.ops:
        for name in op.inputs:
            if graph.tensors[name].role is not Role.ACTIVATION or op.name in silent or maker[name] in silent:
                continue
            if engine[maker[name]] != engine[op.name] and (name, engine[op.name]) not in crossed:
                yield f"%{name} goes from {engine[maker[name]]} to {engine[op.name]} without a hand-over"
