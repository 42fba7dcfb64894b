"""The workload graph: tensors, ops, and nothing about how fast anything runs.

A graph is in SSA form: every tensor is an input, a weight, a state (KV cache, recurrent state), or the output of one op
that stands before its readers. Shapes hold ints or expressions over the graph's declared symbols. Graphs are
immutable; passes build new ones.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from types import MappingProxyType
from typing import Any

from orchard.ir.errors import GraphError
from orchard.ir.size import Expr, Size, bind, product, substitute, symbols_of

Attribute = str | int | float | bool | Size | tuple[int, ...] | tuple[str, ...]


class Role(StrEnum):
    """What a tensor is to the program."""

    INPUT = "input"
    WEIGHT = "weight"
    STATE = "state"
    ACTIVATION = "activation"


@dataclass(frozen=True, slots=True, kw_only=True)
class Tensor:
    """A named value. `format` is a number-format name of `orchard.units`; `part` and `layer` say what a weight is for.

    `part` is a role that weight schemes understand (`attn_q`, `ffn_down`, `expert_up`, `head`, `embedding`, ...); a
    weight with the part `constant` is stored data that nobody trained.
    A tied output head reads the embedding tensor itself, so shared weights are one tensor and count once.
    """

    name: str
    shape: tuple[Size, ...]
    format: str
    role: Role = Role.ACTIVATION
    part: str = ""
    layer: int | None = None

    def __post_init__(self) -> None:
        for axis, size in enumerate(self.shape):
            if not isinstance(size, (int, Expr)) or (isinstance(size, int) and size < 0):
                raise GraphError(f"tensor %{self.name}: axis {axis} has size {size}, expected a whole number >= 0")

    @property
    def elements(self) -> Size:
        return product(self.shape)


@dataclass(frozen=True, slots=True, kw_only=True)
class Op:
    """One node. `kind` names a rule of `orchard.ir.kinds`; `scope` is the module path, e.g. `layers.3.attn`."""

    name: str
    kind: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attrs: Mapping[str, Attribute] = field(default_factory=lambda: MappingProxyType({}))
    scope: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "attrs", MappingProxyType(dict(self.attrs)))
        if "name" in self.attrs:
            raise GraphError(f"op {self.name}: an attribute cannot be called 'name', the text form uses the word")

    def __reduce__(self) -> tuple[Any, ...]:
        return (_rebuild_op, (self.name, self.kind, self.inputs, self.outputs, dict(self.attrs), self.scope))


def _rebuild_op(
    name: str, kind: str, inputs: tuple[str, ...], outputs: tuple[str, ...], attrs: dict[str, Attribute], scope: str
) -> Op:
    return Op(name=name, kind=kind, inputs=inputs, outputs=outputs, attrs=attrs, scope=scope)


def _rebuild_graph(
    name: str, symbols: tuple[str, ...], tensors: dict[str, Tensor], ops: tuple[Op, ...], outputs: tuple[str, ...]
) -> Graph:
    return Graph(name=name, symbols=symbols, tensors=tensors, ops=ops, outputs=outputs)


class Graph:
    """An immutable, verified workload graph.

    Raises GraphError when built from tensors and ops that break SSA form, use undeclared symbols or unknown tensors.
    Kind and shape rules are checked by `orchard.ir.verify`, which builders and the parser call.
    """

    __slots__ = ("__dict__", "name", "ops", "outputs", "symbols", "tensors")

    def __init__(
        self,
        *,
        name: str,
        symbols: Iterable[str],
        tensors: Mapping[str, Tensor],
        ops: Iterable[Op],
        outputs: Iterable[str],
    ) -> None:
        self.name = name
        self.symbols: tuple[str, ...] = tuple(symbols)
        self.tensors: Mapping[str, Tensor] = MappingProxyType(dict(tensors))
        self.ops: tuple[Op, ...] = tuple(ops)
        self.outputs: tuple[str, ...] = tuple(outputs)
        self._check()

    def _check(self) -> None:
        declared = set(self.symbols)
        for key, tensor in self.tensors.items():
            if key != tensor.name:
                raise GraphError(f"graph {self.name}: tensor %{tensor.name} is filed under %{key}")
            for size in tensor.shape:
                if not isinstance(size, int) and not symbols_of(size) <= declared:
                    missing = sorted(symbols_of(size) - declared)[0]
                    raise GraphError(f"tensor %{key}: symbol {missing!r} is not declared ({', '.join(self.symbols)})")
        ready = {t.name for t in self.tensors.values() if t.role is not Role.ACTIVATION}
        for op in self.ops:
            for name in op.inputs:
                if name not in self.tensors:
                    raise GraphError(f"op {op.name}: reads %{name}, which is not a tensor of the graph")
                if name not in ready:
                    raise GraphError(f"op {op.name}: reads %{name} before it is produced")
            for name in op.outputs:
                if name not in self.tensors:
                    raise GraphError(f"op {op.name}: produces %{name}, which is not a tensor of the graph")
                if name in ready:
                    raise GraphError(f"op {op.name}: %{name} has a value already")
                ready.add(name)
        for name in self.outputs:
            if name not in ready:
                raise GraphError(f"graph {self.name}: output %{name} has no producer")
        unmade = [t.name for t in self.tensors.values() if t.name not in ready]
        if unmade:
            raise GraphError(f"graph {self.name}: %{unmade[0]} is never produced")

    def __reduce__(self) -> tuple[Any, ...]:
        return (_rebuild_graph, (self.name, self.symbols, dict(self.tensors), self.ops, self.outputs))

    def __iter__(self) -> Iterator[Op]:
        return iter(self.ops)

    def __len__(self) -> int:
        return len(self.ops)

    def inputs_of(self, op: Op) -> tuple[Tensor, ...]:
        return tuple(self.tensors[n] for n in op.inputs)

    def outputs_of(self, op: Op) -> tuple[Tensor, ...]:
        return tuple(self.tensors[n] for n in op.outputs)

    def of_role(self, role: Role) -> tuple[Tensor, ...]:
        return tuple(t for t in self.tensors.values() if t.role is role)

    @property
    def weights(self) -> tuple[Tensor, ...]:
        return self.of_role(Role.WEIGHT)

    @property
    def parameters(self) -> int:
        """Number of weight elements, shared tensors once; constants (masks, running means) are no parameters."""
        return sum(bind(t.elements, {}) for t in self.weights if t.part != "constant")

    def readers(self) -> dict[str, tuple[Op, ...]]:
        """Ops that read each tensor, in program order."""
        found: dict[str, list[Op]] = {name: [] for name in self.tensors}
        for op in self.ops:
            for name in dict.fromkeys(op.inputs):
                found[name].append(op)
        return {name: tuple(ops) for name, ops in found.items()}

    def bind(self, bindings: Mapping[str, Size]) -> Graph:
        """The same graph with some symbols replaced by ints (or other sizes)."""
        unknown = sorted(set(bindings) - set(self.symbols))
        if unknown:
            raise GraphError(f"graph {self.name}: no symbol {unknown[0]!r}; it has {', '.join(self.symbols) or 'none'}")
        tensors = {
            name: replace(t, shape=tuple(substitute(s, bindings) for s in t.shape)) for name, t in self.tensors.items()
        }
        ops = [replace(op, attrs={k: _substitute(v, bindings) for k, v in op.attrs.items()}) for op in self.ops]
        left = {s for t in tensors.values() for size in t.shape for s in symbols_of(size)}
        left |= {s for v in bindings.values() for s in symbols_of(v)}
        kept = [s for s in self.symbols if s not in bindings] + sorted(left - set(self.symbols))
        return Graph(name=self.name, symbols=kept, tensors=tensors, ops=ops, outputs=self.outputs)

    def with_formats(self, formats: Mapping[str, str]) -> Graph:
        """The same graph with the number format of some tensors replaced."""
        unknown = sorted(set(formats) - set(self.tensors))
        if unknown:
            raise GraphError(f"graph {self.name}: no tensor %{unknown[0]}")
        tensors = {n: replace(t, format=formats.get(n, t.format)) for n, t in self.tensors.items()}
        return Graph(name=self.name, symbols=self.symbols, tensors=tensors, ops=self.ops, outputs=self.outputs)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Graph):
            return NotImplemented
        mine = (self.name, self.symbols, dict(self.tensors), self.ops, self.outputs)
        return mine == (other.name, other.symbols, dict(other.tensors), other.ops, other.outputs)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Graph({self.name!r}, {len(self.ops)} ops, {len(self.tensors)} tensors)"


def _substitute(value: Attribute, bindings: Mapping[str, Size]) -> Attribute:
    return substitute(value, bindings) if isinstance(value, Expr) else value
