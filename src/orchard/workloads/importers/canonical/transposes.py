"""Transposes move to the Einsums that read or write them and disappear there."""

from __future__ import annotations

from collections.abc import Sequence

from orchard.ir import Size, parse_einsum
from orchard.ir.einsum import Access, Axis, Einsum
from orchard.workloads.importers.canonical.net import Net, merge_views, place_of
from orchard.workloads.importers.lowering import Node, Value


def sink_views_of_softmax(net: Net) -> None:
    """softmax(view(x)) with the last axis kept is view(softmax(x)): so scores, softmax and product stay neighbours."""
    for node in list(net.nodes):
        if node.kind != "softmax" or node.attrs.get("axis") != -1:
            continue
        view = node.inputs[0].producer
        if view is None or view.kind != "view" or net.only_user(node.inputs[0]) is not node:
            continue
        source = view.inputs[0]
        if source.producer is None or source.producer.kind != "einsum" or source.shape[-1] != node.out.shape[-1]:
            continue
        old = node.out
        node.inputs[0] = source
        node.outputs = [Value("softmax", source.shape, old.format, producer=node)]
        back = Node("view", [node.out], [old], {}, node.scope)
        old.producer = back
        net.nodes.insert(place_of(net.nodes, node) + 1, back)
    net.refresh()
    merge_views(net)


def fold_transposes(net: Net) -> None:
    """An Einsum reads its operands and writes its result in any axis order, so neighbours that only reorder
    disappear."""
    for _ in range(8):
        changed = _sink_transposes(net) | _swap_with_views(net)
        merge_views(net)
        for node in list(net.nodes):
            if node.is_("move", "transpose"):
                changed |= _fold_into_readers(net, node) or _fold_into_producer(net, node)
        net.refresh()
        if not changed:
            break
    for node in net.nodes:
        if node.is_("move", "transpose") and _moves_only_ones(node):
            node.kind, node.attrs = "view", {}


def _moves_only_ones(node: Node) -> bool:
    perm: tuple[int, ...] = node.attrs["perm"]  # type: ignore[assignment]
    kept = [p for p in perm if node.inputs[0].shape[p] != 1]
    return kept == sorted(kept)


def _sink_transposes(net: Net) -> bool:
    """f(transpose(x)) is transpose(f(x)) for rotary embeddings and one-input elementwise ops."""
    changed = _slice_before_transpose(net)
    for node in list(net.nodes):
        unary = node.kind == "elementwise" and sum(v.scalar is None for v in node.inputs) == 1
        if not (node.kind == "rope" or unary or node.is_("move", "cast")):
            continue
        index = next(i for i, v in enumerate(node.inputs) if v.scalar is None)
        before = node.inputs[index].producer
        if before is None or not before.is_("move", "transpose") or net.only_user(before.out) is not node:
            continue
        perm: tuple[int, ...] = before.attrs["perm"]  # type: ignore[assignment]
        source = before.inputs[0]
        if node.kind == "rope" and perm[-1] != source.ndim - 1:
            continue
        if node.out.shape != before.out.shape:
            continue
        old = node.out
        node.inputs[index] = source
        node.outputs = [Value(old.name, source.shape, old.format, producer=node)]
        moved = Node("move", [node.out], [old], {"fn": "transpose", "perm": perm}, before.scope)
        old.producer = moved
        net.nodes.insert(place_of(net.nodes, node) + 1, moved)
        changed = True
        net.refresh()
    return changed


def _slice_before_transpose(net: Net) -> bool:
    """slice(transpose(x)) is transpose(slice(x)), also where several slices share the transpose."""
    changed = False
    for node in list(net.nodes):
        before = node.inputs[0].producer if node.is_("move", "slice") and len(node.inputs) == 1 else None
        if before is None or not before.is_("move", "transpose") or "axis" not in node.attrs:
            continue
        perm: tuple[int, ...] = before.attrs["perm"]  # type: ignore[assignment]
        axis, old = perm[node.attrs["axis"]], node.out  # type: ignore[index]
        source = before.inputs[0]
        shape = list(source.shape)
        shape[axis] = old.shape[node.attrs["axis"]]  # type: ignore[index]
        node.inputs, node.attrs["axis"] = [source], axis
        node.outputs = [Value(old.name, tuple(shape), old.format, producer=node)]
        moved = Node("move", [node.out], [old], {"fn": "transpose", "perm": perm}, before.scope)
        old.producer = moved
        net.nodes.insert(place_of(net.nodes, node) + 1, moved)
        changed = True
    if changed:
        net.refresh()
    return changed


def axis_groups(before: Sequence[Size], after: Sequence[Size]) -> list[tuple[list[int], list[int]]] | None:
    """How a reshape splits and merges axes: (axes before, axes after) with equal products, finest first."""
    groups: list[tuple[list[int], list[int]]] = []
    i = j = 0
    while i < len(before) or j < len(after):
        left, right = [i], [j]
        if i >= len(before) or j >= len(after):
            return None
        a, b = before[i], after[j]
        i, j = i + 1, j + 1
        while a != b:
            if isinstance(a, int) and isinstance(b, int):
                if a < b and i < len(before):
                    a, i, _ = a * before[i], i + 1, left.append(i)  # type: ignore[func-returns-value]
                elif b < a and j < len(after):
                    b, j, _ = b * after[j], j + 1, right.append(j)  # type: ignore[func-returns-value]
                else:
                    return None
            else:
                return None
        groups.append((left, right))
    return groups


def _swap_with_views(net: Net) -> bool:
    """Move a transpose across a reshape that only splits (towards the Einsum that reads) or merges (towards its
    maker)."""
    changed = False
    for node in list(net.nodes):
        if node.kind == "view":
            changed |= _split_before_transpose(net, node)
        elif node.is_("move", "transpose"):
            changed |= _merge_after_transpose(net, node)
    if changed:
        net.refresh()
    return changed


def _split_before_transpose(net: Net, view: Node) -> bool:
    """view(transpose(x)) = transpose(view(x)) where every axis is only split."""
    before = view.inputs[0].producer
    if before is None or not before.is_("move", "transpose") or net.only_user(before.out) is not view:
        return False
    readers = net.users(view.out)
    if not readers or any(r.kind != "einsum" for r in readers):
        return False
    groups = axis_groups(before.out.shape, view.out.shape)
    if groups is None:
        return False
    wide = [[a for a in left if before.out.shape[a] != 1] or left[:1] for left, _ in groups]  # axes of size 1 may go
    if any(len(axes) != 1 for axes in wide):
        return False
    perm: tuple[int, ...] = before.attrs["perm"]  # type: ignore[assignment]
    parts = {perm[axes[0]]: right for axes, (_, right) in zip(wide, groups)}  # axis of x -> axes of the result
    order = [axis for source in sorted(parts) for axis in parts[source]]
    shape = tuple(view.out.shape[axis] for axis in order)
    split = Value(view.out.name, shape, view.out.format)
    back = tuple(order.index(axis) for axis in range(len(order)))
    first = Node("view", [before.inputs[0]], [split], {}, view.scope)
    split.producer = first
    view.kind, view.inputs, view.attrs = "move", [split], {"fn": "transpose", "perm": back}
    net.nodes.insert(place_of(net.nodes, view), first)
    net.refresh()
    return True


def _merge_after_transpose(net: Net, node: Node) -> bool:
    """transpose(view(y)) = view(transpose(y)) where axes are only merged, y the result of an Einsum."""
    view = node.inputs[0].producer
    if view is None or view.kind != "view" or net.only_user(view.out) is not node:
        return False
    source = view.inputs[0]
    if source.producer is None or source.producer.kind != "einsum" or net.only_user(source) is not view:
        return False
    groups = axis_groups(source.shape, view.out.shape)
    if groups is None or any(len(right) != 1 for _, right in groups):
        return False
    perm: tuple[int, ...] = node.attrs["perm"]  # type: ignore[assignment]
    parts = {right[0]: left for left, right in groups}
    fine = tuple(axis for merged in perm for axis in parts[merged])
    moved = Value(node.out.name, tuple(source.shape[axis] for axis in fine), node.out.format)
    first = Node("move", [source], [moved], {"fn": "transpose", "perm": fine}, node.scope)
    moved.producer = first
    node.kind, node.inputs, node.attrs = "view", [moved], {}
    net.nodes.insert(place_of(net.nodes, node), first)
    net.refresh()
    return True


def _fold_into_readers(net: Net, node: Node) -> bool:
    readers = net.users(node.out)
    if net.is_output(node.out) or not readers or any(r.kind != "einsum" for r in readers):
        return False
    perm: tuple[int, ...] = node.attrs["perm"]  # type: ignore[assignment]
    for reader in readers:
        spec = parse_einsum(str(reader.attrs["spec"]))
        accesses = list(spec.inputs)
        for index, access in enumerate(accesses):
            if reader.inputs[index] is node.out:
                turned: list[Axis] = [access[0]] * len(access)
                for position, source in enumerate(perm):
                    turned[source] = access[position]
                accesses[index] = tuple(turned)
        if any(v is node.out for v in reader.inputs[len(accesses) :]):
            return False
        reader.attrs["spec"] = str(Einsum(tuple(accesses), spec.output))
    for reader in readers:
        reader.inputs = [node.inputs[0] if v is node.out else v for v in reader.inputs]
    net.refresh()
    return True


def _fold_into_producer(net: Net, node: Node) -> bool:
    source = node.inputs[0]
    einsum = source.producer
    if einsum is None or einsum.kind != "einsum" or net.only_user(source) is not node:
        return False
    perm: tuple[int, ...] = node.attrs["perm"]  # type: ignore[assignment]
    spec = parse_einsum(str(einsum.attrs["spec"]))
    output: Access = tuple(spec.output[p] for p in perm)
    einsum.attrs["spec"] = str(Einsum(spec.inputs, output))
    einsum.outputs = [node.out]
    node.out.producer = einsum
    net.nodes = [n for n in net.nodes if n is not node]
    net.refresh()
    return True
