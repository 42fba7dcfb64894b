"""What a loop nest does, spelled out for a printer: buffers, who fills whom and when, and the loops around each transfer.

Copies of the hardware work in lockstep: a temporal loop is walked once for all copies, and each transfer or MAC is repeated
for the lanes of the spatial loops above it. The rules are those at the top of `orchard.cost.nest`; they are applied here to
loops, not to closed forms, so that a program's own counts can contradict the prediction.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

from orchard.hw.arch import Architecture
from orchard.mapping.errors import MappingError
from orchard.mapping.nest import Keep, Loop, Nest, print_nest
from orchard.mapping.problem import Problem

TOP = -1
"""Position of what stands outside every node: the first memory's marks, and transfers that happen once."""

Expected = Mapping[tuple[str, str], tuple[int, int]]
"""Predicted words (reads, writes) by (level, tensor)."""


@dataclass(frozen=True)
class Buffer:
    """One tensor in one level: an array per copy of the level. Index i of an axis sits in slot i mod extent."""

    name: str
    level: str
    tensor: str
    at: int  # position of the mark; TOP in the first memory
    extents: tuple[int, ...]
    lanes: tuple[int, ...]  # spatial loops above: one copy per combination of their steps

    @property
    def is_root(self) -> bool:
        return self.at == TOP


@dataclass(frozen=True)
class Port:
    """Transfers between a buffer and what it feeds: an inner buffer, or the MACs (`child` None)."""

    name: str
    parent: Buffer
    child: Buffer | None
    mover: int  # loop in whose body the child is filled; TOP: once
    slides: bool  # the child keeps what two neighbouring steps of the mover share
    apart: tuple[int, ...]  # spatial loops between whose lanes cannot share a word


@dataclass(frozen=True)
class Step:
    """One loop above a transfer: block `dim` at step `variable` (None: the first block) of size `tile`."""

    dim: str
    variable: str | None
    tile: int


class Program:
    """A nest's buffers, ports and loops. Raises MappingError for ops that are no sum of products."""

    def __init__(self, nest: Nest, problem: Problem, arch: Architecture) -> None:
        if problem.einsum.combine != "mul" or problem.einsum.reduce != "sum":
            raise MappingError(f"{problem.name}: only sums of products can be emitted as code")
        self.nest, self.problem, self.arch = nest, problem, arch
        self.trips = self._trips()
        self._names: set[str] = set()
        self.buffers = [b for tensor in problem.tensors for b in self._buffers_of(tensor)]
        self.ports = [p for tensor in problem.tensors for p in self._ports_of(tensor)]

    def _trips(self) -> dict[int, int]:
        """Steps of each loop on a full block."""
        size, trips = dict(self.problem.sizes), {}
        for index, node in enumerate(self.nest.nodes):
            if isinstance(node, Loop):
                trips[index] = -(-size[node.dim] // node.tile)
                size[node.dim] = node.tile
        return trips

    @cached_property
    def spatial(self) -> tuple[int, ...]:
        return tuple(i for i, n in enumerate(self.nest.nodes) if isinstance(n, Loop) and n.axis is not None)

    def loop(self, index: int) -> Loop:
        node = self.nest.nodes[index]
        assert isinstance(node, Loop)
        return node

    def lanes_above(self, at: int) -> tuple[int, ...]:
        return tuple(i for i in self.spatial if i < at)

    def _unique(self, *parts: str) -> str:
        stem = name = "_".join(re.sub(r"\W", "_", part) for part in parts)
        number = 2
        while name in self._names:
            name, number = f"{stem}_{number}", number + 1
        self._names.add(name)
        return name

    def _buffers_of(self, tensor: str) -> Iterator[Buffer]:
        marks = [(TOP, self.arch.levels[0].name)]
        marks += [(i, n.level) for i, n in enumerate(self.nest.nodes) if isinstance(n, Keep) and n.tensor == tensor]
        for at, level in marks:
            size = dict(self.problem.sizes)
            for _, loop in self.nest.loops_above(max(at, 0)):
                size[loop.dim] = loop.tile
            extents = tuple(int(str(axis.extent(size))) for axis in self.problem.access(tensor))
            yield Buffer(self._unique(level, tensor), level, tensor, at, extents, self.lanes_above(at))

    def buffers_of(self, tensor: str) -> list[Buffer]:
        return [b for b in self.buffers if b.tensor == tensor]

    def _ports_of(self, tensor: str) -> Iterator[Port]:
        chain = self.buffers_of(tensor)
        children: list[Buffer | None] = [*chain[1:], None]
        for parent, child in zip(chain, children):
            at = len(self.nest.nodes) if child is None else child.at
            mover = self._mover(tensor, at)
            apart = tuple(i for i in self.lanes_above(at) if i > parent.at and not self._shared(i, tensor))
            slides = child is not None and self._slides(tensor, mover, parent.at, at)
            yield Port(self._unique("port", parent.name), parent, child, mover, slides, apart)

    def _shared(self, index: int, tensor: str) -> bool:
        fan = self.arch.fan_out_of(self.loop(index).axis or "")
        return fan.reduce if tensor == self.problem.output else fan.multicast

    def _mover(self, tensor: str, at: int) -> int:
        own = self.problem.dims_of(tensor)
        moving = [
            i for i, n in self.nest.loops_above(at) if n.axis is None and n.dim in own and self.trips[i] > 1
        ]  # fmt: skip
        return moving[-1] if moving else TOP

    def _slides(self, tensor: str, mover: int, parent_at: int, at: int) -> bool:
        if mover == TOP:
            return False
        axis = next(a for a in self.problem.access(tensor) if self.loop(mover).dim in a.dims)
        first = min(mover, parent_at)
        crowded = [i for i in self.spatial if first < i < at and self.loop(i).dim in axis.dims and self.trips[i] > 1]
        return len(axis.terms) > 1 and not crowded

    def steps(self, mover: int, at: int) -> list[Step]:
        """The blocks above `at` as seen from the body of `mover`: loops between them stand at their first block."""
        found = []
        for index, loop in self.nest.loops_above(at):
            variable = f"x{index}" if loop.axis is not None else f"t{index}" if index <= mover else None
            found.append(Step(loop.dim, variable, loop.tile))
        return found

    def times_above(self, mover: int) -> list[str]:
        """Variables of the temporal loops whose body holds `mover`'s body, itself included."""
        return [f"t{i}" for i, n in self.nest.loops_above(mover + 1) if n.axis is None]

    def moved_by(self, mover: int) -> list[Port]:
        """Ports whose child is filled in the body of `mover`, outermost first."""
        ports = [p for p in self.ports if p.child is not None and p.mover == mover]
        return sorted(ports, key=lambda p: p.child.at if p.child else 0)

    def count_of(self, lanes: tuple[int, ...]) -> int:
        total = 1
        for index in lanes:
            total *= self.trips[index]
        return total

    def number_of(self, lanes: tuple[int, ...]) -> str:
        """Which combination of lanes this is, as an expression in C and Python."""
        text = "0"
        for index in lanes:
            text = f"x{index}" if text == "0" else f"({text}) * {self.trips[index]} + x{index}"
        return text

    def innermost(self, tensor: str) -> Port:
        return next(p for p in self.ports if p.child is None and p.parent.tensor == tensor)


def plain(name: str) -> str:
    """A name from a user's file that can stand in a comment or a string of any language."""
    return re.sub(r"[^\w .+-]", "_", name)


def picture(program: Program, pad: str) -> str:
    """Op, sizes, machine and nest for the head of a file."""
    problem = program.problem
    sizes = ", ".join(f"{d}={problem.sizes[d]}" for d in problem.dims)
    printed = print_nest(program.nest, problem, program.arch)
    lines = [pad + re.sub(r"[^\w .,+()\[\]-]", "_", line) for line in printed.splitlines()]
    return f"{problem.einsum}; {sizes}; mapped on {plain(program.arch.name)}\n\n" + "\n".join(lines)


def expected_row(expected: Expected, buffer: Buffer) -> tuple[int, int]:
    return expected.get((buffer.level, buffer.tensor), (-1, -1))
