"""The verified graph of what the passes left."""

from __future__ import annotations

import math
from typing import Any

from orchard.ir import Graph, GraphError, Op, Role, Size, Tensor, product, symbols_of, verify
from orchard.workloads.importers.canonical.net import Net
from orchard.workloads.importers.errors import ImportError_
from orchard.workloads.importers.lowering import Node, Value

# ---- the graph


def build(net: Net) -> Graph:
    low = net.low
    names = _Names()
    tensors: dict[str, Tensor] = {}
    known: dict[int, str] = {}
    ops: list[Op] = []

    def shape_of(value: Value) -> tuple[Size, ...]:
        return tuple(low.resolve(s) for s in value.shape) if low.equal else value.shape

    def add(value: Value, name: str, role: Role) -> str:
        unique = names.fresh(name)
        tensors[unique] = Tensor(
            name=unique, shape=shape_of(value), format=value.format, role=role, part=value.part, layer=value.layer
        )
        known[id(value)] = unique
        return unique

    for leaf in low.leaves:
        if leaf.role in (Role.INPUT, Role.STATE):
            add(leaf, leaf.name, leaf.role)
    wanted = {id(v) for n in net.nodes for v in n.inputs} | {id(v) for v in net.outputs}
    for leaf in low.leaves:
        if leaf.role is Role.WEIGHT and id(leaf) in wanted and id(leaf) not in known:
            add(leaf, leaf.name, Role.WEIGHT)
    for node in net.nodes:
        inputs = [v for v in node.inputs if not _is_immediate(node, v)]
        attrs = dict(node.attrs)
        scalars = [v.scalar for v in node.inputs if _is_immediate(node, v)]
        if scalars and scalars[0] is not None and math.isfinite(scalars[0]):
            attrs["scalar"] = scalars[0]
        reads = []
        for value in inputs:
            if id(value) not in known:
                add(value, value.name, Role.WEIGHT)
            reads.append(known[id(value)])
        prefix = f"{node.scope}." if node.scope else ""
        outputs = tuple(add(o, prefix + o.name, Role.ACTIVATION) for o in node.outputs)
        ops.append(
            Op(name=outputs[0], kind=node.kind, inputs=tuple(reads), outputs=outputs, attrs=attrs, scope=node.scope)
        )
    for value in net.outputs:
        if id(value) not in known:
            add(value, value.name, Role.WEIGHT)
    symbols = sorted({s for t in tensors.values() for size in t.shape for s in symbols_of(size)})
    symbols = sorted({*symbols, *(s for o in ops for a in o.attrs.values() for s in _attribute_symbols(a))})
    try:
        return verify(
            Graph(name=low.name, symbols=symbols, tensors=tensors, ops=ops, outputs=[known[id(v)] for v in net.outputs])
        )
    except GraphError as error:
        raise ImportError_(f"{low.where}: the imported graph is inconsistent: {error}") from error


def _attribute_symbols(value: Any) -> frozenset[str]:
    return symbols_of(value) if not isinstance(value, (str, float, bool, tuple)) else frozenset()


def _is_immediate(node: Node, value: Value) -> bool:
    """A known scalar operand of an elementwise op is part of the op, as long as a tensor is left."""
    if node.kind != "elementwise" or value.scalar is None or value.role is not Role.WEIGHT:
        return False
    tensors = [v for v in node.inputs if v.scalar is None or v.role is not Role.WEIGHT]
    return bool(tensors) and product(v for v in value.shape) == 1 and value.ndim <= max(t.ndim for t in tensors)


class _Names:
    def __init__(self) -> None:
        self.taken: set[str] = set()
        self.count: dict[str, int] = {}

    def fresh(self, base: str) -> str:
        name = base
        while name in self.taken:
            self.count[base] = self.count.get(base, 0) + 1
            name = f"{base}_{self.count[base]}"
        self.taken.add(name)
        return name
