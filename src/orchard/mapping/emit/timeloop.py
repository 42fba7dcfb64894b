"""A mapping as Timeloop reads it (input version 0.4): problem, architecture and mapping in one YAML text.

In Timeloop all tensors of a storage share one tile, and a storage's temporal loops stand inside it. Where our nest has loops
between two tensors' marks in one level, or a level has its own space per tensor, the level is written as several storages in a
row (GLB, GLB_2, …), each keeping some tensors and bypassed by the others: every tile keeps its size. Each axis of a fan-out is
a container of its own. Ragged loops carry Timeloop's residual (`m=4,3`: four steps, three in the last block).

Format: timeloop.csail.mit.edu, pages "Input formats: mapping, architecture, problem". Energies are not written: Timeloop takes
them from Accelergy.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from orchard.hw.arch import Architecture, Level
from orchard.mapping.emit.program import plain
from orchard.mapping.errors import MappingError
from orchard.mapping.nest import Keep, Loop, Nest
from orchard.mapping.problem import Problem


@dataclass
class _Target:
    """A storage or a container, with its loops from the outside in."""

    name: str
    level: Level | None = None
    axis: str | None = None
    copies: int = 1
    tensors: list[str] = field(default_factory=list)
    loops: list[tuple[str, int, int]] = field(default_factory=list)  # dim, steps, steps in the last block


def emit_timeloop(nest: Nest, problem: Problem, arch: Architecture) -> str:
    """YAML of a legal nest. Raises MappingError for ragged tiles that Timeloop has no words for."""
    targets = _Writer(nest, problem, arch).targets
    return "\n".join([*_architecture(targets, problem, arch), *_problem(problem), *_mapping(targets, problem)]) + "\n"


class _Writer:
    def __init__(self, nest: Nest, problem: Problem, arch: Architecture) -> None:
        self.problem, self.arch = problem, arch
        self.targets: list[_Target] = []
        self._names: set[str] = set()
        self.size, self.last = dict(problem.sizes), dict(problem.sizes)
        root = self._storage(arch.levels[0])
        root.tensors += problem.tensors
        for node in nest.nodes:
            if isinstance(node, Keep):
                self._keep(node)
            else:
                self._loop(node)
        self._fans_above(len(arch.nodes))

    def _add(self, target: _Target) -> _Target:
        stem, number = target.name, 2
        while target.name in self._names:
            target.name, number = f"{stem}_{number}", number + 1
        self._names.add(target.name)
        self.targets.append(target)
        return target

    def _storage(self, level: Level) -> _Target:
        return self._add(_Target(plain(level.name), level=level))

    def _fans_above(self, position: int) -> None:
        """Containers for axes that no loop uses, once something below their fan-out is reached."""
        for node in self.arch.nodes[:position]:
            if not isinstance(node, Level):
                for axis, copies in node.axes.items():
                    if not any(t.axis == axis for t in self.targets):
                        self._add(_Target(plain(f"{node.name}_{axis}"), axis=axis, copies=copies))

    def _keep(self, node: Keep) -> None:
        level = self.arch.level(node.level)
        self._fans_above(self.arch.nodes.index(level))
        now = self.targets[-1]
        if now.level is not level or now.loops or level.is_partitioned:
            now = self._storage(level)
        now.tensors.append(node.tensor)

    def _loop(self, loop: Loop) -> None:
        size, last = self.size[loop.dim], self.last[loop.dim]
        steps, in_last = -(-size // loop.tile), -(-last // loop.tile)
        if size % loop.tile and size != last:
            raise MappingError(
                f"timeloop: {loop.dim} is cut into {loop.tile} inside blocks of {size} that are not the last, "
                "which Timeloop's factors cannot say; use perfect factors"
            )
        self.size[loop.dim], self.last[loop.dim] = loop.tile, last - (in_last - 1) * loop.tile
        if steps > 1:
            self._target_for(loop).loops.append((loop.dim, steps, in_last))

    def _target_for(self, loop: Loop) -> _Target:
        now = self.targets[-1]
        walked = any(dim == loop.dim for dim, _, _ in now.loops)
        if loop.axis is not None:
            if now.axis == loop.axis and not walked:
                return now
            fan = self.arch.fan_out_of(loop.axis)
            return self._add(_Target(plain(f"{fan.name}_{loop.axis}"), axis=loop.axis, copies=fan.axes[loop.axis]))
        if now.level is not None and not walked:
            return now
        return self._add(_Target("loops", level=Level(name="loops")))  # a storage that everything bypasses


def _architecture(targets: list[_Target], problem: Problem, arch: Architecture) -> list[str]:
    lines = [f"# {problem.einsum} on {plain(arch.name)}", "architecture:", "  version: 0.4", "  nodes:"]
    for t in targets:
        if t.level is None:
            lines += ["  - !Container", f"    name: {t.name}", f"    spatial: {{meshX: {t.copies}}}"]
            continue
        lines += ["  - !Component", f"    name: {t.name}", f"    class: {'DRAM' if t is targets[0] else 'storage'}"]
        lines.append(f"    attributes: {{{_attributes(t, problem, arch)}}}")
    name = plain(arch.compute.name)
    lines += [
        "  - !Component",
        f"    name: {name}",
        "    class: compute",
        f"    attributes: {{datawidth: {arch.word_bits}}}",
    ]
    return lines


def _attributes(target: _Target, problem: Problem, arch: Architecture) -> str:
    level = target.level
    assert level is not None
    parts = [f"width: {arch.word_bits}", f"datawidth: {arch.word_bits}"]
    depth = level.words_for(problem.role(target.tensors[0])) if target.tensors else None
    if depth is not None:
        parts.insert(0, f"depth: {depth}")
    for key, rate in (
        ("shared_bandwidth", level.bandwidth),
        ("read_bandwidth", level.read_bandwidth),
        ("write_bandwidth", level.write_bandwidth),
    ):
        if rate is not None:
            parts.append(f"{key}: {rate:g}")
    return ", ".join(parts)


def _problem(problem: Problem) -> list[str]:
    coefficients = sorted({c for t in problem.tensors for axis in problem.access(t) for c, _ in axis.terms if c != 1})
    lines = ["problem:", "  version: 0.4", "  shape:", f"    name: {plain(problem.name)}"]
    lines.append(f"    dimensions: [{', '.join(problem.dims)}]")
    if coefficients:
        lines.append("    coefficients:")
        lines += [f"    - {{name: c{c}, default: {c}}}" for c in coefficients]
    lines.append("    data_spaces:")
    for tensor in problem.tensors:
        lines += [f"    - name: {tensor}", "      projection:"]
        for axis in problem.access(tensor):
            terms = ", ".join(f"[{d}]" if c == 1 else f"[{d}, c{c}]" for c, d in axis.terms)
            lines.append(f"      - [{terms}]")
        if tensor == problem.output:
            lines.append("      read_write: true")
    instance = ", ".join(f"{d}: {s}" for d, s in problem.sizes.items())
    return [*lines, f"  instance: {{{instance}}}"]


def _mapping(targets: list[_Target], problem: Problem) -> list[str]:
    lines = ["mapping:"]
    for t in targets:
        if t.level is not None:
            away = [x for x in problem.tensors if x not in t.tensors]
            lines += [f"- target: {t.name}", "  type: bypass"]
            lines += [f"  keep: [{', '.join(t.tensors)}]", f"  bypass: [{', '.join(away)}]"]
        steps = {dim: (n, last) for dim, n, last in t.loops}
        factors = ", ".join(_factor(dim, *steps.get(dim, (1, 1))) for dim in problem.dims)
        inner_first = [dim for dim, _, _ in reversed(t.loops)]
        order = [*inner_first, *(d for d in problem.dims if d not in steps)]
        lines += [f"- target: {t.name}", f"  type: {'temporal' if t.level is not None else 'spatial'}"]
        lines += [f"  factors: [{factors}]", f"  permutation: [{', '.join(order)}]"]
        if t.level is None:
            lines.append(f"  split: {len(problem.dims)}")
    return lines


def _factor(dim: str, steps: int, in_last: int) -> str:
    return f"{dim}={steps}" if steps == in_last else f'"{dim}={steps},{in_last}"'
