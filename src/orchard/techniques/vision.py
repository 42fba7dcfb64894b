"""Techniques for networks on images, and rewrites that keep the result: folding, layouts, separable convolutions, tokens."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

from orchard.ir import Graph, Op, Role, Tensor, parse_einsum
from orchard.techniques.base import GraphPass, option
from orchard.techniques.errors import TechniqueError
from orchard.techniques.rewrite import layer_count, layer_of, rebuilt, renamed


@dataclass(frozen=True, slots=True, kw_only=True)
class Reparameterize(GraphPass):
    """before:  %c = einsum(%x, %w3), %n = norm(%c, ...) fn="batchnorm", %d = einsum(%x, %w1), %y = elementwise(%n, %d) fn="add"
    after:   %y = einsum(%x, %w3)
    """

    name: ClassVar[str] = "reparameterize"

    def apply(self, graph: Graph) -> Graph:
        folded = _without_batchnorm(graph)
        merged = _without_branches(folded)
        if len(merged) == len(graph):
            raise TechniqueError(
                f"{self.name}: {graph.name} has no batch norm behind a product and no parallel branches to fold"
            )
        return merged


def _without_batchnorm(graph: Graph) -> Graph:
    producers = {n: op for op in graph.ops for n in op.outputs}
    names: dict[str, str] = {}
    ops = []
    for op in graph.ops:
        before = producers.get(op.inputs[0]) if op.inputs else None
        if op.kind == "norm" and op.attrs.get("fn") == "batchnorm" and before is not None and before.kind == "einsum":
            names[op.outputs[0]] = op.inputs[0]
        else:
            ops.append(renamed(op, names))
    return rebuilt(graph, ops, graph.tensors, [names.get(n, n) for n in graph.outputs])


def _without_branches(graph: Graph) -> Graph:
    """Sums of products of one tensor with two weights: the larger window holds both."""
    producers = {n: op for op in graph.ops for n in op.outputs}
    readers = graph.readers()
    names: dict[str, str] = {}
    ops = []
    for op in graph.ops:
        parts = [producers.get(n) for n in op.inputs]
        is_sum = op.kind == "elementwise" and op.attrs.get("fn") == "add" and len(parts) == 2
        if is_sum and _branches(graph, parts) and all(len(readers[n]) == 1 for n in op.inputs):
            kept = max(op.inputs, key=lambda n: _weights(graph, producers[n]))
            names[op.outputs[0]] = names.get(kept, kept)
            continue
        ops.append(renamed(op, names))
    return rebuilt(graph, ops, graph.tensors, [names.get(n, n) for n in graph.outputs])


def _branches(graph: Graph, parts: list[Op | None]) -> bool:
    ops = [p for p in parts if p is not None and p.kind == "einsum"]
    return len(ops) == 2 and ops[0].inputs[0] == ops[1].inputs[0] and all(_weights(graph, op) for op in ops)


def _weights(graph: Graph, op: Op) -> int:
    w = graph.tensors[op.inputs[-1]]
    return int(w.elements) if w.role is Role.WEIGHT and isinstance(w.elements, int) else 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout(GraphPass):
    """before:  %y: f16[B, 8, 4] = move(%x) fn="transpose"
    after:   %y: f16[B, 8, 4] = view(%x)   # the producer writes what the consumer reads
    """

    name: ClassVar[str] = "layout"

    def apply(self, graph: Graph) -> Graph:
        found = [op for op in graph.ops if op.kind == "move" and op.attrs.get("fn") == "transpose"]
        if not found:
            raise TechniqueError(f"{self.name}: {graph.name} has no transpose left to remove")
        ops = [replace(op, kind="view", attrs={}) if op in found else op for op in graph.ops]
        return rebuilt(graph, ops, graph.tensors)


@dataclass(frozen=True, slots=True, kw_only=True)
class Depthwise(GraphPass):
    """before:  %y = einsum(%x, %w) spec="n c (p+r) (q+s), k c r s -> n k p q"
    after:   %d = einsum(%x, %w_d) spec="n c (p+r) (q+s), c r s -> n c p q"
             %y = einsum(%d, %w_p) spec="n c p q, k c -> n k p q"
    """

    name: ClassVar[str] = "depthwise"

    def apply(self, graph: Graph) -> Graph:
        ops: list[Op] = []
        tensors = dict(graph.tensors)
        for op in graph.ops:
            made = _separated(graph, op)
            if made is None:
                ops.append(op)
                continue
            ops += made[0]
            tensors |= {t.name: t for t in made[1]}
        if len(ops) == len(graph.ops):
            raise TechniqueError(
                f"{self.name}: {graph.name} has no convolution over a window with channels to separate"
            )
        return rebuilt(graph, ops, tensors)


def _separated(graph: Graph, op: Op) -> tuple[list[Op], list[Tensor]] | None:
    if op.kind != "einsum" or len(op.inputs) != 2:
        return None
    einsum = parse_einsum(str(op.attrs["spec"]))
    x, w, y = graph.tensors[op.inputs[0]], graph.tensors[op.inputs[1]], graph.tensors[op.outputs[0]]
    windows = [axis for axis in einsum.inputs[0] if not axis.is_plain]
    if w.role is not Role.WEIGHT or not windows or not all(a.is_plain for a in einsum.inputs[1]):
        return None
    x_dims = [axis.dims[0] if axis.is_plain else "" for axis in einsum.inputs[0]]
    w_dims, y_dims = [a.dims[0] for a in einsum.inputs[1]], [a.dims[0] for a in einsum.output]
    made = [d for d in w_dims if d in y_dims and d not in x_dims]
    summed = [d for d in w_dims if d in x_dims and d not in y_dims]
    if len(made) != 1 or len(summed) != 1 or [d for d in w_dims if d in x_dims and d in y_dims]:
        return None
    (k,), (c,) = made, summed
    channels = w.shape[w_dims.index(c)]
    if channels == 3:
        return None  # the first layer on pixels stays
    per = [d for d in w_dims if d != k]
    mid = [c if d == k else d for d in y_dims]
    wd = replace(w, name=f"{op.name}.depthwise_w", shape=tuple(w.shape[w_dims.index(d)] for d in per))
    wp = replace(w, name=f"{op.name}.pointwise_w", shape=(w.shape[w_dims.index(k)], channels))
    inner = replace(
        y, name=f"{op.name}.depthwise", shape=tuple(channels if d == k else s for d, s in zip(y_dims, y.shape))
    )
    left = str(op.attrs["spec"]).partition(",")[0]
    extra = {key: v for key, v in op.attrs.items() if key != "spec"}
    first = Op(
        name=inner.name, kind="einsum", inputs=(x.name, wd.name), outputs=(inner.name,), scope=op.scope,
        attrs={"spec": f"{left}, {' '.join(per)} -> {' '.join(mid)}", **extra},
    )  # fmt: skip
    second = replace(
        op, inputs=(inner.name, wp.name), attrs={"spec": f"{' '.join(mid)}, {k} {c} -> {' '.join(y_dims)}"}
    )
    return [first, second], [wd, wp, inner]


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenMerging(GraphPass):
    """before:  %x1: f16[B, 197, 192] = layer 0(%x0), %x2: f16[B, 197, 192] = layer 1(%x1)
    after:   %x1 = layer 0(%x0), %m: f16[B, 184, 192] = move(%x1) fn="gather", %x2: f16[B, 184, 192] = layer 1(%m)

    After every layer but the last, `merge` tokens go (never more than half). The matching of two halves, n^2/4 products of
    width d, is an Einsum of its own.
    """

    name: ClassVar[str] = "token-merging"
    refused: ClassVar[Mapping[str, str]] = {"ane": "top-k and scatter by computed indices leave the Neural Engine"}
    merge: int = option(13, "tokens merged after each layer", least=1, most=1000)

    def apply(self, graph: Graph) -> Graph:
        layers = layer_count(graph)
        found = _fixed_tokens(graph) if layers else None
        if found is None:
            raise TechniqueError(f"{self.name}: {graph.name} is no transformer with a fixed number of tokens")
        tokens, width = found
        count = [tokens]
        for _ in range(layers - 1):
            count.append(count[-1] - min(self.merge, count[-1] // 2))
        return self._merged(graph, tokens, width, count)

    def _merged(self, graph: Graph, tokens: int, width: int, count: list[int]) -> Graph:
        del width
        ops: list[Op] = []
        tensors = dict(graph.tensors)
        at = dict.fromkeys(tensors, 0)
        layer, last = 0, len(count) - 1
        cut: dict[str, str] = {}
        for op in graph.ops:
            here = layer_of(op)
            # what follows the last layer keeps its token count
            now = (
                here
                if here is not None
                else last
                if at[op.inputs[0]] == last and layer == last
                else layer
                if here is None and layer
                else 0
            )
            layer = max(layer, now)
            names = {}
            for name in op.inputs:
                tensor = graph.tensors[name]
                if tensor.role is Role.ACTIVATION and at[name] < now and tokens in tensor.shape:
                    key = f"{name}.merged_{now}"
                    if key not in cut:
                        cut[key] = name
                        made, new = _merge(tensors[name], key, count[at[name]], count[now], op.scope)
                        ops += made
                        tensors |= {t.name: t for t in new}
                    names[name] = key
            for name in op.outputs:
                at[name] = now
                t = graph.tensors[name]
                tensors[name] = replace(t, shape=tuple(count[now] if s == tokens else s for s in t.shape))
            ops.append(renamed(op, names))
        return rebuilt(graph, ops, tensors)


def _merge(x: Tensor, name: str, before: int, after: int, scope: str) -> tuple[list[Op], list[Tensor]]:
    axis = x.shape.index(before)
    half = replace(x, name=f"{name}.half", shape=tuple(before // 2 if i == axis else s for i, s in enumerate(x.shape)))
    match = Tensor(name=f"{name}.match", shape=(x.shape[0], before // 2, before // 2), format=x.format)
    best = Tensor(name=f"{name}.best", shape=(x.shape[0], before // 2), format=x.format)
    joined = replace(x, name=name, shape=tuple(after if i == axis else s for i, s in enumerate(x.shape)))
    return [
        Op(name=half.name, kind="move", inputs=(x.name,), outputs=(half.name,), attrs={"fn": "slice"}, scope=scope),
        Op(
            name=match.name,
            kind="einsum",
            inputs=(half.name, half.name),
            outputs=(match.name,),
            attrs={"spec": "b i d, b j d -> b i j"},
            scope=scope,
        ),
        Op(
            name=best.name,
            kind="reduce",
            inputs=(match.name,),
            outputs=(best.name,),
            attrs={"fn": "max", "axes": (2,)},
            scope=scope,
        ),
        Op(name=name, kind="move", inputs=(x.name, best.name), outputs=(name,), attrs={"fn": "gather"}, scope=scope),
    ], [half, match, best, joined]


def _fixed_tokens(graph: Graph) -> tuple[int, int] | None:
    """(tokens, width) of the first norm inside a layer."""
    for op in graph.ops:
        shape = graph.tensors[op.outputs[0]].shape
        if op.kind == "norm" and layer_of(op) == 0 and len(shape) == 3:
            tokens, width = shape[1], shape[2]
            return (tokens, width) if isinstance(tokens, int) and isinstance(width, int) and tokens != width else None
    return None
