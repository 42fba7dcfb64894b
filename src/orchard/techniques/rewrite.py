"""Building blocks of passes: replace tensors and ops, take out what nobody reads, and verify the result."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from orchard.ir import Graph, Op, Role, Tensor, verify


def rebuilt(graph: Graph, ops: Iterable[Op], tensors: Mapping[str, Tensor], outputs: Iterable[str] = ()) -> Graph:
    """A verified graph of these ops; tensors and ops that no output needs are left out."""
    kept, results = tuple(ops), tuple(outputs) or graph.outputs
    needed, live = set(results), []
    for op in reversed(kept):
        if needed.intersection(op.outputs):
            live.append(op)
            needed.update(op.inputs)
            needed.update(op.outputs)
    live.reverse()
    inputs = {t.name for t in tensors.values() if t.role is Role.INPUT}
    found = {name: t for name, t in tensors.items() if name in needed or name in inputs}
    return verify(Graph(name=graph.name, symbols=graph.symbols, tensors=found, ops=live, outputs=results))


def renamed(op: Op, names: Mapping[str, str]) -> Op:
    """The op with some operands replaced."""
    if not any(n in names for n in op.inputs):
        return op
    return replace(op, inputs=tuple(names.get(n, n) for n in op.inputs))


def layer_of(op: Op) -> int | None:
    """3 for the scope `layers.3.attn`."""
    parts = op.scope.split(".")
    return int(parts[1]) if len(parts) > 1 and parts[0] == "layers" and parts[1].isdigit() else None


def layer_count(graph: Graph) -> int:
    return max((layer for op in graph.ops if (layer := layer_of(op)) is not None), default=-1) + 1


VECTORS = ("norm", "bias", "constant", "position_embedding")
"""Parts that no scheme stores in fewer bits."""


def matrices(graph: Graph, skip: Iterable[str] = ()) -> tuple[Tensor, ...]:
    """Weights that schemes store in fewer bits: two axes or more, no vectors, none of the parts `skip`."""
    left_out = {*VECTORS, *skip}
    return tuple(w for w in graph.weights if len(w.shape) > 1 and w.part not in left_out)


def all_logits(graph: Graph) -> Graph:
    """A decoder whose head works on every new token, as verification needs it: the slice of the last one goes."""
    cut = next(
        (op for op in graph.ops if op.kind == "move" and op.attrs.get("fn") == "slice" and op.scope == "head"), None
    )
    if cut is None:
        return graph
    tokens = graph.tensors[cut.inputs[0]].shape[1]
    tensors = dict(graph.tensors)
    after = False
    for op in graph.ops:
        after = after or op is cut
        for name in op.outputs if after else ():
            shape = tensors[name].shape
            if len(shape) > 1 and shape[1] == 1:
                tensors[name] = replace(tensors[name], shape=(shape[0], tokens, *shape[2:]))
    ops = [renamed(op, {cut.outputs[0]: cut.inputs[0]}) for op in graph.ops if op is not cut]
    return rebuilt(graph, ops, tensors)
