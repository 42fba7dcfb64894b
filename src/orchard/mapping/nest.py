"""A mapping as a loop nest: temporal and spatial loops, and marks that say where a tensor's tile starts to live.

Nodes stand from the outside in. `Loop(dim, tile)` walks `dim` in steps of `tile`: what is inside sees a block of `tile` indices
(the last one may be shorter). With an `axis` the steps run side by side in copies of the hardware. `Keep(level, tensor)` gives
the tensor a tile in that memory: the part of it that the loops inside touch. The first memory holds every tensor entire.

    keep DRAM A B C
    for m in steps of 64
      keep GLB A
      for n in steps of 16 across X
        …
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from orchard.hw.arch import Architecture, FanOut, Level
from orchard.mapping.errors import ImpossibleSpace, MappingError
from orchard.mapping.problem import Problem


@dataclass(frozen=True, slots=True)
class Loop:
    """Walk `dim` in blocks of `tile` indices, in time, or across the copies of hardware axis `axis`."""

    dim: str
    tile: int
    axis: str | None = None


@dataclass(frozen=True, slots=True)
class Keep:
    """From here inwards, the tile of `tensor` lives in `level`."""

    level: str
    tensor: str


@dataclass(frozen=True, slots=True)
class Nest:
    """The nodes of one mapping, outermost first. Tensors live in the first level of the machine without a mark."""

    nodes: tuple[Loop | Keep, ...]

    def loops_above(self, position: int) -> Iterator[tuple[int, Loop]]:
        for index, node in enumerate(self.nodes[:position]):
            if isinstance(node, Loop):
                yield index, node


def nest_errors(nest: Nest, problem: Problem, arch: Architecture) -> None:
    """Raise MappingError at the first node that breaks a rule: unknown names, tiles that grow, copies that do not exist,
    marks on the wrong side of a fan-out or in the wrong order, dims left unwalked."""
    order = {node.name: index for index, node in enumerate(arch.nodes)}
    tile = dict(problem.sizes)
    used: dict[str, int] = {}
    deepest = -1  # innermost fan-out or level that has been entered
    kept: dict[str, int] = dict.fromkeys(problem.tensors, 0)
    for node in nest.nodes:
        if isinstance(node, Keep):
            index = order.get(node.level)
            if index is None or not isinstance(arch.nodes[index], Level):
                raise MappingError(f"nest: no level {node.level!r} in {arch.name}")
            if node.tensor not in kept:
                raise MappingError(f"nest: no tensor {node.tensor!r} in {problem.name}")
            if index <= kept[node.tensor]:
                raise MappingError(f"nest: {node.tensor} is kept in {node.level} below an inner level")
            if any(isinstance(n, FanOut) for n in arch.nodes[index : deepest + 1]):
                raise MappingError(
                    f"nest: {node.tensor} is kept in {node.level} below the fan-out that level stands above"
                )
            if not arch.level(node.level).may_hold(problem.role(node.tensor)):
                raise MappingError(f"nest: {node.level} does not hold {node.tensor}")
            kept[node.tensor] = index
            continue
        if node.dim not in tile:
            raise MappingError(f"nest: no dim {node.dim!r} in {problem.name}")
        if not 1 <= node.tile <= tile[node.dim]:
            raise MappingError(f"nest: loop over {node.dim} has tile {node.tile}, expected 1 to {tile[node.dim]}")
        if node.axis is not None:
            fan = arch.fan_out_of(node.axis)
            deepest = max(deepest, order[fan.name])
            used[node.axis] = used.get(node.axis, 1) * -(-tile[node.dim] // node.tile)
            if used[node.axis] > fan.axes[node.axis]:
                raise MappingError(
                    f"nest: axis {node.axis} has {fan.axes[node.axis]} copies, the loops use {used[node.axis]}"
                )
            allowed = fan.dims.get(node.axis)
            if allowed is not None and node.dim not in allowed and problem.dim_class(node.dim) not in allowed:
                raise MappingError(
                    f"nest: axis {node.axis} does not take dim {node.dim}, allowed: {', '.join(allowed)}"
                )
        tile[node.dim] = node.tile
    for dim, size in tile.items():
        if size != 1:
            raise MappingError(f"nest: dim {dim} ends with tile {size}, expected 1")
    for tensor in problem.tensors:
        for level in arch.levels[1:]:
            if level.must_hold(problem.role(tensor)) and Keep(level.name, tensor) not in nest.nodes:
                raise MappingError(f"nest: {level.name} must hold {tensor}, the nest has no such mark")


def print_nest(nest: Nest, problem: Problem, arch: Architecture) -> str:
    """The nest as indented text; loops show their trip count and the tile that is inside."""
    tile = dict(problem.sizes)
    lines = [f"keep {arch.levels[0].name} {' '.join(problem.tensors)}"]
    depth = 0
    for node in nest.nodes:
        if isinstance(node, Keep):
            shape = ", ".join(str(axis.extent(tile)) for axis in problem.access(node.tensor))
            lines.append(f"{'  ' * depth}keep {node.level} {node.tensor}[{shape}]")
            continue
        trips = -(-tile[node.dim] // node.tile)
        how = f"across {node.axis}" if node.axis is not None else "for"
        ragged = "" if tile[node.dim] % node.tile == 0 else f" (last {tile[node.dim] % node.tile})"
        lines.append(f"{'  ' * depth}{how} {node.dim} in {trips} x {node.tile}{ragged}")
        tile[node.dim] = node.tile
        depth += 1
    lines.append(f"{'  ' * depth}{arch.compute.name}")
    return "\n".join(lines)


def refuse(where: str, need: float, have: float, remedy: str) -> ImpossibleSpace:
    """'Does not fit', with the level, the need and what would fit."""
    over = f" ({need / have:.2g}x over)" if have > 0 else ""
    return ImpossibleSpace(f"{where}: needs {need:,.0f} words, has {have:,.0f}{over}. {remedy}")
