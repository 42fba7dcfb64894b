"""Several ops in a row with intermediates between them: what a fused mapping maps.

Dims have one meaning in the whole chain: `m` in two ops is the same loop. A tensor that one op writes and later ops read is an
intermediate; every other tensor is external, it starts or ends in the outermost memory. A consumer may read an intermediate
through a sliding window: the producer's dim `y` is then `stride*p + dilation*r` of the consumer, a different dim.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from orchard.ir.einsum import Access, Axis
from orchard.mapping.errors import MappingError
from orchard.mapping.problem import Problem

ONE_OP_KINDS = ("relu", "add", "sub", "mul", "max", "min", "neg", "abs", "scale")
"""Elementwise kinds that are one vector operation per element on any machine. Others must be listed by the machine."""


@dataclass(frozen=True)
class VectorOp:
    """Elementwise work of the vector unit. `over` is the dim whose elements hang together (softmax), or None."""

    kind: str
    output: str
    inputs: tuple[str, ...]
    accesses: tuple[Access, ...]  # of the inputs, then of the output
    over: str | None = None

    @property
    def name(self) -> str:
        return self.output

    @property
    def tensors(self) -> tuple[str, ...]:
        return (*self.inputs, self.output)

    @property
    def dims(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(d for access in self.accesses for axis in access for d in axis.dims))

    def access(self, tensor: str) -> Access:
        return self.accesses[self.tensors.index(tensor)]

    def __str__(self) -> str:
        over = f"[{self.over}]" if self.over else ""
        sides = [f"{t}[{','.join(str(a) for a in access)}]" for t, access in zip(self.tensors, self.accesses)]
        return f"{sides[-1]} = {self.kind}{over}({', '.join(sides[:-1])})"


Op = Problem | VectorOp


@dataclass(frozen=True)
class Window:
    """An intermediate's axis that its consumer slides over: the producer's dim, and the consumer's affine axis."""

    tensor: str
    dim: str
    axis: Axis
    consumer: int


@dataclass(frozen=True)
class Chain:
    """Ops in the order they run, and the size of every dim."""

    name: str
    ops: tuple[Op, ...]
    sizes: Mapping[str, int]

    def __post_init__(self) -> None:
        if not self.ops:
            raise MappingError(f"{self.name}: no op")
        seen: set[str] = set()
        for op in self.ops:
            output = _output(op)
            read = {t for other in self.ops[: self.ops.index(op)] for t in other.tensors}
            if output in seen:
                raise MappingError(f"{self.name}: {output} is written twice")
            if output in read or output in _inputs(op):
                raise MappingError(f"{self.name}: {output} is read before it is written; put the op that writes it first")
            seen.add(output)
            if isinstance(op, VectorOp) and op.over is not None and op.over not in op.dims:
                raise MappingError(f"{self.name}: {op.kind} over {op.over!r}, which is no dim of {op.output}")
        for tensor in self.tensors:
            self._check_shape(tensor)

    def _check_shape(self, tensor: str) -> None:
        """Every reader of a tensor sees the same extents."""
        found: dict[tuple[int, ...], str] = {}
        for op in self.ops:
            if tensor in op.tensors:
                shape = tuple(extent(axis, self.sizes) for axis in op.access(tensor))
                found.setdefault(shape, _output(op))
        if len(found) > 1:
            shapes = " and ".join(f"{list(s)} in {name}" for s, name in found.items())
            raise MappingError(f"{self.name}: {tensor} has shape {shapes}, expected one shape")

    @cached_property
    def tensors(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(t for op in self.ops for t in op.tensors))

    @cached_property
    def writers(self) -> dict[str, int]:
        return {_output(op): i for i, op in enumerate(self.ops)}

    @cached_property
    def readers(self) -> dict[str, tuple[int, ...]]:
        return {t: tuple(i for i, op in enumerate(self.ops) if t in _inputs(op)) for t in self.tensors}

    @cached_property
    def intermediates(self) -> tuple[str, ...]:
        """Tensors that one op writes and another reads; they never have to reach the outermost memory."""
        return tuple(t for t in self.tensors if t in self.writers and self.readers[t])

    @cached_property
    def windows(self) -> tuple[Window, ...]:
        found = []
        for tensor in self.intermediates:
            own = self.ops[self.writers[tensor]].access(tensor)
            for reader in self.readers[tensor]:
                for mine, axis in zip(own, self.ops[reader].access(tensor)):
                    if mine != axis:
                        found.append(Window(tensor, mine.dims[0], axis, reader))
        return tuple(found)

    def output(self, index: int) -> str:
        return _output(self.ops[index])

    def inputs(self, index: int) -> tuple[str, ...]:
        return _inputs(self.ops[index])

    def reduced(self, index: int) -> frozenset[str]:
        """Dims that the op sums over."""
        op = self.ops[index]
        kept = {d for axis in op.access(_output(op)) for d in axis.dims}
        return frozenset(d for d in op.dims if d not in kept)

    def dims_of(self, tensor: str, index: int) -> frozenset[str]:
        return frozenset(d for axis in self.ops[index].access(tensor) for d in axis.dims)

    def elements(self, tensor: str) -> int:
        op = next(op for op in self.ops if tensor in op.tensors)
        total = 1
        for axis in op.access(tensor):
            total *= extent(axis, self.sizes)
        return total

    @property
    def macs(self) -> int:
        return sum(op.macs for op in self.ops if isinstance(op, Problem))


def extent(axis: Axis, sizes: Mapping[str, int]) -> int:
    """Span of an axis when its dims have these sizes."""
    return 1 + sum(coefficient * (sizes[dim] - 1) for coefficient, dim in axis.terms)


def _output(op: Op) -> str:
    return op.output


def _inputs(op: Op) -> tuple[str, ...]:
    return op.inputs
