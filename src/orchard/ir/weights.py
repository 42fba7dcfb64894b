"""Give the weights of a graph the formats a file in some weight scheme would have, and count their bytes."""

from __future__ import annotations

from collections.abc import Collection
from functools import lru_cache
from math import prod

from orchard.ir.einsum import parse_einsum
from orchard.ir.graph import Graph, Op, Role, Tensor
from orchard.ir.size import bind
from orchard.units import bytes_of, number_format, scheme


def apply_weights(graph: Graph, scheme_name: str) -> Graph:
    """The graph with every weight in the format that `scheme_name` (`q4_k_m`, `mlx-4bit-g64`, `f16`, ...) gives its
    role.

    Roles are the `part` of the weights. What else a scheme looks at comes from the graph: layers, number of experts,
    query heads per key/value head, whether the head is tied. Raises FormatError for an unknown scheme or role.
    """
    chosen = scheme(scheme_name)
    shapes, traits = weight_shapes(graph), _traits(graph)
    formats: dict[str, str] = {}
    known: dict[tuple[str, int, tuple[int, ...]], str] = {}
    for weight in graph.weights:
        key = (weight.part, weight.layer or 0, shapes[weight.name])
        if key not in known:
            known[key] = chosen.format_for(
                weight.part or "other", key[1], traits[0], key[2], n_experts=traits[1], gqa=traits[2], tied=traits[3]
            ).name
        formats[weight.name] = known[key]
    return graph.with_formats(formats)


def weight_bytes(graph: Graph, without: Collection[str] = ()) -> int:
    """Bytes of all weights as stored, scales and tables included, tied ones once. `without`: names that do not count."""
    shapes = weight_shapes(graph)
    return sum(_bytes(w.format, shapes[w.name]) for w in graph.weights if w.name not in without)


@lru_cache(maxsize=16384)
def _bytes(format_name: str, shape: tuple[int, ...]) -> int:
    return bytes_of(number_format(format_name), shape)


def weight_shapes(graph: Graph) -> dict[str, tuple[int, ...]]:
    """Each weight as it lies in a file: ([experts,] rows, columns), the contracted dims last.

    The first Einsum that reads a weight says which of its dims are contracted; a table that is only looked up keeps its
    shape, and so do vectors. A matrix that nothing reads counts as [in, out...], as the builder's methods make them.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    read: set[str] = set()
    for op in graph.ops:
        for position, name in enumerate(op.inputs):
            weight = graph.tensors[name]
            if weight.role is not Role.WEIGHT:
                continue
            read.add(name)
            if op.kind == "einsum" and name not in shapes:
                shapes[name] = _as_matrix(op, position, weight)
    for weight in graph.weights:
        if weight.name not in shapes:
            sizes = _ints(weight)
            unread_matrix = weight.name not in read and len(sizes) > 1
            shapes[weight.name] = (prod(sizes[1:]), sizes[0]) if unread_matrix else sizes
    return shapes


def _as_matrix(op: Op, position: int, weight: Tensor) -> tuple[int, ...]:
    sizes = _ints(weight)
    einsum = parse_einsum(
        str(op.attrs["spec"]), str(op.attrs.get("combine", "mul")), str(op.attrs.get("reduce", "sum"))
    )
    if position >= len(einsum.inputs) or len(sizes) < 2:
        return sizes
    routed = "routed" in op.attrs and weight.part.startswith("expert")
    lead, inner = (sizes[:1], sizes[1:]) if routed else ((), sizes)
    kept = {axis.dims[0] for axis in einsum.output}
    rows = columns = 1
    for axis, size in zip(einsum.inputs[position], inner):
        if axis.dims[0] in kept:
            rows *= size
        else:
            columns *= size
    return (*lead, rows, columns)


def _ints(weight: Tensor) -> tuple[int, ...]:
    return tuple(bind(size, {}) for size in weight.shape)


def _traits(graph: Graph) -> tuple[int, int, int, bool]:
    """(layers, experts, query heads per key/value head, tied head)."""
    layers = max((w.layer for w in graph.weights if w.layer is not None), default=-1) + 1
    experts, gqa, tied = 0, 1, False
    for op in graph.ops:
        routed = op.attrs.get("routed")
        if isinstance(routed, int):
            experts = max(experts, routed)
        if op.kind == "einsum":
            if op.attrs.get("spec") == "b t g r d, b s g d -> b g r t s":
                heads = graph.tensors[op.inputs[0]].shape[3]
                gqa = max(gqa, heads) if isinstance(heads, int) else gqa
            tied = tied or any(graph.tensors[n].part == "embedding" for n in op.inputs)
    return layers, experts, gqa, tied
