"""Rotary embeddings, and the scale and mask of attention, become part of their op."""

from __future__ import annotations

from orchard.ir import Role
from orchard.workloads.importers.canonical.net import Net, low_reshape
from orchard.workloads.importers.lowering import Node, Value


def recognise_rope(net: Net) -> None:
    """x*cos + rotate_half(x)*sin, and the interleaved form, are one rotary embedding."""
    for node in net.nodes:
        if node.is_("elementwise", "add") and len(node.inputs) == 2:
            found = _rope_halves(node) or _rope_halves(node, swap=True)
            if found is not None:
                x, tables = found
                node.kind, node.inputs, node.attrs = "rope", [x, *tables], {}
                node.out.name = "rope"
        elif node.is_("move", "concat"):
            found = _rope_split(node)
            if found is not None and found[0].shape == node.out.shape:
                node.kind, node.inputs, node.attrs = "rope", [found[0], *found[1]], {}
                node.out.name = "rope"


def _rope_halves(node: Node, *, swap: bool = False) -> tuple[Value, list[Value]] | None:
    plain, turned = (v.producer for v in (reversed(node.inputs) if swap else node.inputs))
    if plain is None or turned is None or not plain.is_("elementwise", "mul") or not turned.is_("elementwise", "mul"):
        return None
    for rotated, sin in (turned.inputs, turned.inputs[::-1]):
        halves = _producer_through_views(rotated)
        if halves is None or not halves.is_("move", "concat") or len(halves.inputs) != 2:
            continue
        sources = [_rotation_source(v) for v in halves.inputs]
        if sources[0] is None or sources[0] is not sources[1]:
            continue
        for x, cos in (plain.inputs, plain.inputs[::-1]):
            if _skip_views(x) is sources[0] or x is sources[0]:
                return x, [cos, sin]
    return None


def _skip_views(value: Value) -> Value:
    while value.producer is not None and value.producer.kind == "view":
        value = value.producer.inputs[0]
    return value


def _producer_through_views(value: Value) -> Node | None:
    return _skip_views(value).producer


def _rotation_source(value: Value) -> Value | None:
    """x of slice(x) or neg(slice(x)), reshapes in between ignored."""
    value = _skip_views(value)
    node = value.producer
    if node is not None and (node.is_("elementwise", "neg") or _is_negation(node)):
        value = _skip_views(node.inputs[0] if node.inputs[0].scalar is None else node.inputs[1])
        node = value.producer
    if node is not None and node.is_("move", "slice", "gather"):
        return _skip_views(node.inputs[0])
    return None


def _is_negation(node: Node) -> bool:
    return node.is_("elementwise", "mul") and any(v.scalar == -1 for v in node.inputs)


def _rope_split(node: Node) -> tuple[Value, list[Value]] | None:
    """concat(x1*cos - x2*sin, x2*cos + x1*sin), halves or interleaved."""
    if len(node.inputs) != 2:
        return None
    parts = [_producer_through_views(v) for v in node.inputs]
    sources: dict[int, Value] = {}
    tables: dict[int, Value] = {}
    for part in parts:
        if part is None or not part.is_("elementwise", "sub", "add"):
            return None
        for factor in part.inputs:
            product_node = _producer_through_views(factor)
            if product_node is None or not product_node.is_("elementwise", "mul"):
                return None
            found = None
            for value in product_node.inputs:
                source = _rotation_source(value)
                if source is not None and found is None and source.shape == node.out.shape:
                    sources[id(source)] = source
                    found = value
                else:
                    tables[id(value)] = value
            if found is None:
                return None
    return (next(iter(sources.values())), list(tables.values())) if len(sources) == 1 else None


def fold_attention(net: Net) -> None:
    """scale and mask between two matrix products and a softmax belong to the softmax.

    Also a scale on the queries or keys before the product, since scaling commutes with it.
    """
    for node in net.nodes:
        if node.kind != "softmax" or len(node.inputs) != 1 or node.attrs.get("axis") != -1:
            continue
        if not any(u.kind == "einsum" for u in _users_through_views(net, node.out)):
            continue
        scale, masks = 1.0, []
        value = node.inputs[0]
        while True:
            step = _peel(net, value)
            if step is None:
                break
            value, factor, mask = step
            scale *= factor
            if mask is not None:
                masks.append(mask)
        scores = value.producer
        looked = scores.inputs[0].producer if scores is not None and scores.kind == "view" else scores
        if looked is None or looked.kind != "einsum":
            continue
        shape = node.inputs[0].shape
        if value.shape != shape:  # axes of size 1 came or went in between
            value = low_reshape(net, value, shape, node.scope)
            masks = [low_reshape(net, m, m.shape[max(m.ndim - len(shape), 0) :], node.scope) for m in masks]
        node.inputs = [value, *masks]
        for index in (0, 1):
            scale *= _take_scale(net, looked, index)
        if scale != 1.0:
            node.attrs["scale"] = scale * float(node.attrs.get("scale", 1.0))  # type: ignore[arg-type]
        net.refresh()


def _users_through_views(net: Net, value: Value) -> list[Node]:
    found: list[Node] = []
    for user in net.users(value):
        if user.kind == "view" or user.is_("move", "cast") or user.is_("elementwise", "dropout"):
            found.extend(_users_through_views(net, user.out))
        else:
            found.append(user)
    return found


def _peel(net: Net, value: Value) -> tuple[Value, float, Value | None] | None:
    """One step from the softmax towards the scores: (value before, factor, mask)."""
    node = value.producer
    if node is None or net.is_output(value) or len(net.users(value)) != 1:
        return None
    if node.kind == "view" and _peels_ones(net, node):
        return node.inputs[0], 1.0, None
    if node.kind not in ("elementwise", "move"):
        return None
    if node.is_("move", "cast"):
        return node.inputs[0], 1.0, None
    if node.kind == "move":
        return None
    if node.fn in ("mul", "div") and len(node.inputs) == 2:
        for index, (x, factor) in enumerate((node.inputs, node.inputs[::-1])):
            if factor.scalar and x.shape == value.shape and not (node.fn == "div" and index == 1):
                return x, factor.scalar if node.fn == "mul" else 1.0 / factor.scalar, None
        return None
    if node.fn in ("add", "sub", "where", "masked_fill", "max"):
        tensors = [v for v in node.inputs if v.scalar is None]
        full = [v for v in tensors if v.shape == value.shape and _has_scores(v)]
        if len(full) == 1:
            others = [v for v in tensors if v is not full[0]]
            return full[0], 1.0, others[0] if others else None
    return None


def _peels_ones(net: Net, view: Node) -> bool:
    """Whether a view that only drops or adds leading axes of 1 stands after an op that `_peel` takes."""
    before, after = view.inputs[0].shape, view.out.shape
    short, long = sorted((before, after), key=len)
    leads = long[: len(long) - len(short)]
    made = view.inputs[0].producer
    same = long[len(leads) :] == short and all(s == 1 for s in leads)
    return same and made is not None and made.kind == "elementwise" and _peel(net, view.inputs[0]) is not None


def _has_scores(value: Value) -> bool:
    """Whether elementwise ops lead from a matrix product of this size to `value`; a product that is spread over it is a
    bias (relative positions)."""
    size = value.elements
    for _ in range(8):
        node = value.producer
        if node is None:
            return False
        if node.kind == "einsum":
            return node.out.elements == size
        if node.kind not in ("elementwise", "view") and not node.is_("move", "cast"):
            return False
        value = max(node.inputs, key=lambda v: (v.role is Role.ACTIVATION and v.scalar is None, v.ndim))
    return False


def _take_scale(net: Net, einsum: Node, index: int) -> float:
    """Remove a multiplication by a scalar from what feeds operand `index`, and return the factor."""
    path: list[Node] = []
    value = einsum.inputs[index]
    reader = einsum
    while value.producer is not None and net.only_user(value) is reader:
        node = value.producer
        if node.kind == "view" or node.is_("move", "transpose", "cast", "expand") or node.kind == "rope":
            path.append(node)
            reader, value = node, node.inputs[0]
            continue
        if node.is_("elementwise", "mul", "div") and len(node.inputs) == 2:
            for position, (x, factor) in enumerate((node.inputs, node.inputs[::-1])):
                if factor.scalar and x.shape == node.out.shape and not (node.fn == "div" and position == 1):
                    net.replace(node.out, x)
                    return factor.scalar if node.fn == "mul" else 1.0 / factor.scalar
        return 1.0
    return 1.0
