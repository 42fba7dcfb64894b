"""Multiply-accumulates of ops and graphs: exact, symbolic where sizes are.

One MAC is one multiplication whose result is summed. Elementwise work is not counted here; `orchard.cost` counts it.
"""

from __future__ import annotations

from orchard.ir.einsum import parse_einsum
from orchard.ir.graph import Graph, Op
from orchard.ir.size import Expr, Size


def macs_of(op: Op, graph: Graph) -> Size:
    """MACs of one op: the iteration space of a summing product, the recurrent product of a scan that declares
    `macs`."""
    if op.kind == "scan":
        declared = op.attrs.get("macs", 0)
        return declared if isinstance(declared, (int, Expr)) else 0
    if op.kind != "einsum" or op.attrs.get("combine", "mul") != "mul" or op.attrs.get("reduce", "sum") != "sum":
        return 0
    einsum = parse_einsum(str(op.attrs["spec"]))
    if len(einsum.inputs) < 2:
        return 0
    tensors = graph.inputs_of(op)[: len(einsum.inputs)]
    routed = "routed" in op.attrs
    shapes = [t.shape[1:] if routed and t.part.startswith("expert") else t.shape for t in tensors]
    return einsum.iterations(einsum.sizes(shapes, graph.outputs_of(op)[0].shape))


def macs(graph: Graph) -> Size:
    """MACs of all ops of the graph."""
    total: Size = 0
    for op in graph.ops:
        total = total + macs_of(op, graph)
    return total
