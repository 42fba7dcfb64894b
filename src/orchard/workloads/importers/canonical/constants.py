"""Passes that drop what changes nothing and fold what depends on no input."""

from __future__ import annotations

from collections.abc import Iterable

from orchard.ir import Role, Size, symbols_of
from orchard.workloads.importers.canonical.net import Net
from orchard.workloads.importers.lowering import Lowering, Node, Value

_LAYOUT = ("transpose", "cast", "copy")
# ---- 1. identities


def drop_identities(net: Net) -> None:
    """Views, casts, copies, one-input concatenations, sums with 0 and products with 1 that change nothing."""
    for node in net.nodes:
        if node.is_("elementwise", "add", "mul") and len(node.inputs) == 2 and node.attrs == {"fn": node.fn}:
            for x, other in (node.inputs, node.inputs[::-1]):
                if other.scalar == (0 if node.fn == "add" else 1) and (x.shape, x.format) == (node.out.shape, node.out.format):
                    net.replace(node.out, x)
                    break
        if len(node.inputs) != 1 or len(node.outputs) != 1:
            continue
        source, out = node.inputs[0], node.out
        same = source.shape == out.shape and source.format == out.format
        if (
            node.is_("move", "copy")
            or (same and node.is_("elementwise", "identity"))
            or (same and (node.kind == "view" or node.is_("move", "cast", "expand", "slice")))
            or (node.is_("move", "transpose") and node.attrs["perm"] == tuple(range(source.ndim)))
        ):
            net.replace(out, source)


# ---- 2. constants


def fold_constants(net: Net) -> None:
    """Leaves for all values that depend on no input.

    A chain of layout ops on one stored tensor stays that tensor, in its stored format. Anything else becomes a constant
    (or `folded`, when parameters went in). A table that is looked up stays a table, unless the places are constant and
    more than it has entries: exporters store such a spread table (relative positions). Constants whose shape has symbols
    become one `fill`.
    """
    constant: dict[int, Value] = {id(v): v for v in net.low.leaves if v.role is Role.WEIGHT}
    roots: dict[int, tuple[Value, ...]] = {}
    relayout: dict[int, bool] = {}
    made: dict[tuple[int, tuple[Size, ...]], Value] = {}

    def is_constant(value: Value) -> bool:
        return id(value) in constant or (value.producer is None and value.role is Role.WEIGHT)

    def roots_of(value: Value) -> tuple[Value, ...]:
        if value.producer is None:
            return () if value.part in ("constant",) and value.data is not None else (value,)
        return roots.get(id(value), ())

    for node in net.nodes:
        if not all(is_constant(v) for v in node.inputs) or node.attrs.get("fn") == "random":
            continue
        if node.kind == "gather" and any(r.part not in ("constant",) for r in roots_of(node.inputs[0])):
            spread = node.out.elements, node.inputs[0].elements
            if not isinstance(spread[0], int) or not isinstance(spread[1], int) or spread[0] <= spread[1]:
                continue
        first = node.inputs[:1] if node.is_("elementwise", "dequantize") else node.inputs
        found = {id(r): r for v in first for r in roots_of(v)}
        symbolic = any(symbols_of(s) for o in node.outputs for s in o.shape)
        if node.kind == "einsum" and any(r.part != "constant" for r in found.values()):
            continue  # a product of parameters alone is still a product that runs (DETR's first queries)
        if symbolic and any(r.part not in ("constant",) for r in found.values()):
            continue
        moves = node.kind == "view" or node.is_("move", *_LAYOUT) or node.is_("elementwise", "dequantize", "identity")
        for out in node.outputs:
            constant[id(out)] = out
            roots[id(out)] = tuple(found.values())
            relayout[id(out)] = moves and all(v.producer is None or relayout.get(id(v), False) for v in first)

    live = [n for n in net.nodes if not all(id(o) in constant for o in n.outputs)]
    read = {id(v) for n in live for v in n.inputs}
    for node in live:
        if node.kind == "einsum" or node.is_("move", "transpose"):
            # transposes of weights go into the Einsum's access instead (fold_transposes), so a tied table stays one
            node.inputs = [_through(v, constant, relayout, node, made, roots, read, net.low) for v in node.inputs]
        else:
            node.inputs = [_leaf(v, constant, relayout, made, roots, read, net.low) for v in node.inputs]
    net.outputs = [_leaf(v, constant, relayout, made, roots, read, net.low) for v in net.outputs]
    fills = {id(n): n for n in _producers(net.outputs) if n.kind == "fill"}
    fills |= {id(p): p for n in live for p in _producers(n.inputs) if p.kind == "fill"}
    moved = {
        id(p): p for n in live for p in _producers(n.inputs) if p.is_("move", "transpose") and id(p.out) in constant
    }
    net.nodes = [*fills.values(), *moved.values(), *(n for n in live if id(n) not in fills)]


def _producers(values: Iterable[Value]) -> list[Node]:
    return [v.producer for v in values if v.producer is not None]


def _through(
    value: Value, constant: dict[int, Value], relayout: dict[int, bool], node: Node,
    made: dict[tuple[int, tuple[Size, ...]], Value], roots: dict[int, tuple[Value, ...]], read: set[int], low: Lowering,
) -> Value:  # fmt: skip
    """Keep a transpose of a stored weight in front of an Einsum; leaves for everything else."""
    before = value.producer
    if id(value) in constant and before is not None and before.is_("move", "transpose") and node.kind == "einsum":
        before.inputs = [_leaf(v, constant, relayout, made, roots, read, low) for v in before.inputs]
        return value
    return _leaf(value, constant, relayout, made, roots, read, low)


def _leaf(
    value: Value, constant: dict[int, Value], relayout: dict[int, bool],
    made: dict[tuple[int, tuple[Size, ...]], Value], roots: dict[int, tuple[Value, ...]], read: set[int], low: Lowering,
) -> Value:  # fmt: skip
    if value.producer is None or id(value) not in constant:
        return value
    if any(symbols_of(s) for s in value.shape):
        key = (id(value), value.shape)
        if key not in made:
            node = Node(
                "fill", [], [Value(value.name, value.shape, value.format)], {"fn": "constant"}, value.producer.scope
            )
            node.out.producer = node
            made[key] = node.out
        return made[key]
    found = roots.get(id(value), ())
    root = found[0] if len(found) == 1 else None
    if root is not None and relayout.get(id(value)):
        key = (id(root), value.shape)
        if key not in made:
            name = root.name if id(root) not in read else f"{root.name}.{value.producer.fn or value.producer.kind}"
            made[key] = Value(name, value.shape, root.format, Role.WEIGHT, root.part, root.layer, value.data)
            low.leaves.append(made[key])
        return made[key]
    key = (id(value), value.shape)
    if key not in made:
        part = "other" if any(r.part != "constant" for r in found) else "constant"
        made[key] = Value(value.name, value.shape, value.format, Role.WEIGHT, part, data=value.data)
        low.leaves.append(made[key])
    return made[key]
