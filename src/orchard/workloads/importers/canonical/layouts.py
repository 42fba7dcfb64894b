"""The axis order that runs of elementwise ops and merged Einsums work in: the one that needs fewest transposes."""

from __future__ import annotations

from collections.abc import Sequence

from orchard.ir import Role, Size, parse_einsum
from orchard.ir.einsum import Access, Axis, Einsum
from orchard.workloads.importers.canonical.net import Net, merge_views, place_of
from orchard.workloads.importers.canonical.transposes import axis_groups, fold_transposes
from orchard.workloads.importers.lowering import Node, Value

Perm = tuple[int, ...]


def agree_layouts(net: Net) -> None:
    """Elementwise ops between transposes change their axis order where that removes more transposes than it adds.

    before: %a = transpose %x; %b = add %a, (einsum); %y = transpose^-1 %b
    after:  %y = add %x, (einsum that writes the other order)
    """
    left = _transposes(net)
    while left and any(
        _flip(net, node.out, _inverse(_perm(node))) or _flip(net, node.inputs[0], _perm(node)) for node in left
    ):
        fold_transposes(net)
        merge_views(net)
        before, left = len(left), _transposes(net)
        if len(left) >= before:
            return


def _transposes(net: Net) -> list[Node]:
    return [n for n in net.nodes if n.is_("move", "transpose")]


def _perm(node: Node) -> Perm:
    return node.attrs["perm"]  # type: ignore[return-value]


def _inverse(perm: Perm) -> Perm:
    return tuple(perm.index(i) for i in range(len(perm)))


def _turned(shape: Sequence[Size], perm: Perm) -> tuple[Size, ...]:
    return tuple(shape[p] for p in perm)


def unmerge_einsums(net: Net) -> None:
    """An Einsum whose operand is a merge of transposed axes runs over the single axes, so that the transpose can fold.

    before: %t = transpose %x; %v = view %t [h, b*w, c]; einsum %v, %y: "h m c, h k c -> h m k"
    after:  einsum %t, %y: "h m0 m1 c, h k c -> h m0 m1 k", and a view of its result
    """
    for node in list(net.nodes):
        if node.kind == "einsum":
            for index in range(len(parse_einsum(str(node.attrs["spec"])).inputs)):
                _unmerge(net, node, index)
    merge_views(net)


def squeeze_transposes(net: Net) -> None:
    """Axes of size 1 leave a transpose that no Einsum reads, so that the views around it only split or merge."""
    for node in list(net.nodes):
        if not node.is_("move", "transpose") or net.is_output(node.out):
            continue
        source = node.inputs[0]
        kept = [i for i, size in enumerate(source.shape) if size != 1]
        readers = net.users(node.out)
        beside_view = (source.producer is not None and source.producer.kind == "view") or any(u.kind == "view" for u in readers)
        if len(kept) in (0, source.ndim) or not beside_view or any(u.kind == "einsum" for u in readers):
            continue
        small = Node("view", [source], [Value(source.name, tuple(source.shape[i] for i in kept), source.format)], {}, node.scope)
        perm = tuple(kept.index(p) for p in _perm(node) if p in kept)
        moved = Node("move", [small.out], [Value(node.out.name, _turned(small.out.shape, perm), source.format)],
                     {"fn": "transpose", "perm": perm}, node.scope)  # fmt: skip
        small.out.producer, moved.out.producer = small, moved
        node.kind, node.inputs, node.attrs = "view", [moved.out], {}
        at = place_of(net.nodes, node)
        net.nodes[at:at] = [small, moved]
    net.refresh()
    merge_views(net)


def _unmerge(net: Net, node: Node, index: int) -> None:
    view = node.inputs[index].producer
    before = view.inputs[0].producer if view is not None and view.kind == "view" else None
    if view is None or before is None or not before.is_("move", "transpose") or net.is_output(view.out):
        return
    groups = axis_groups(before.out.shape, view.out.shape)
    if any(u.kind != "einsum" for u in net.users(view.out)) or groups is None or any(len(right) != 1 for _, right in groups):
        return
    spec = parse_einsum(str(node.attrs["spec"]))
    others = [a for i, access in enumerate(spec.inputs) if i != index for axis in access for a in axis.dims]
    parts: dict[str, list[str]] = {}
    shape: dict[str, list[Size]] = {}
    for axis, (left, _) in zip(spec.inputs[index], groups):
        dim = axis.dims[0]
        parts[dim] = [dim] if len(left) == 1 else [f"{dim}{i}" for i in range(len(left))]
        shape[dim] = [before.out.shape[i] for i in left]
        if len(left) > 1 and (not axis.is_plain or dim in others or set(parts[dim]) & set(spec.dims)):
            return
    if all(len(names) == 1 for names in parts.values()):
        return

    def spread(access: Access) -> Access:
        plain = [Axis(((1, name),)) for axis in access if axis.is_plain for name in parts.get(axis.dims[0], axis.dims)]
        return tuple(plain) if all(a.is_plain for a in access) else access

    inputs = tuple(spread(a) if i == index else a for i, a in enumerate(spec.inputs))
    old = node.out
    sizes = dict(zip((a.dims[0] for a in spec.output), ([s] for s in old.shape))) | shape
    wide = tuple(s for a in spec.output for s in sizes[a.dims[0]])
    node.attrs["spec"] = str(Einsum(inputs, spread(spec.output)))
    node.inputs[index] = before.out
    node.outputs = [Value(old.name, wide, old.format, producer=node)]
    back = Node("view", [node.out], [old], {}, node.scope)
    old.producer = back
    net.nodes.insert(place_of(net.nodes, node) + 1, back)
    net.refresh()


def _joins(node: Node) -> bool:
    """Whether the op does the same in every axis order: all its operands have its shape, or spread over it."""
    if node.kind != "elementwise" and not node.is_("move", "cast"):
        return False
    return len(node.outputs) == 1 and all(
        v.shape == node.out.shape or (v.role is Role.WEIGHT and v.producer is None) for v in node.inputs
    )


def _region(net: Net, start: Value) -> list[Node]:
    """Elementwise ops connected through values of the shape of `start`."""
    found: dict[int, Node] = {}
    seen: set[int] = set()
    values = [start]
    while values:
        value = values.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        near = [*net.users(value), *([value.producer] if value.producer is not None else [])]
        for node in near:
            if id(node) not in found and _joins(node) and node.out.shape == start.shape:
                found[id(node)] = node
                values.extend((node.out, *(v for v in node.inputs if v.shape == start.shape and v.producer is not None)))
    return [n for n in net.nodes if id(n) in found]


def _flip(net: Net, start: Value, perm: Perm) -> bool:
    """Rewrite the region around `start` so that its values hold `perm` of their axes, if transposes are saved."""
    region = _region(net, start)
    inside = {id(n) for n in region}
    if not region:
        return False
    entering = {id(v): v for n in region for v in n.inputs if v.producer is None or id(v.producer) not in inside}
    entering = {k: v for k, v in entering.items() if v.scalar is None and not (v.role is Role.WEIGHT and v.producer is None)}
    change = sum(_cost_in(net, v, perm, inside) for v in entering.values())
    change += sum(_cost_out(net, n.out, perm, inside) for n in region)
    if change >= 0:
        return False
    new: dict[int, Value] = {}
    for key, value in entering.items():
        new[key] = _entering(net, value, perm, inside)
    for node in region:
        old = node.out
        node.inputs = [new[id(v)] if id(v) in new else _leaf(net, v, old.ndim, perm) for v in node.inputs]
        node.outputs = [Value(old.name, _turned(old.shape, perm), old.format, producer=node)]
        new[id(old)] = node.out
    for node in region:
        _leaving(net, next(k for k, v in new.items() if v is node.out), node, perm, inside)
    net.refresh()
    net.sort()
    net.refresh()
    return True


def _readers(net: Net, value: Value, inside: set[int]) -> list[Node]:
    return [u for u in net.users(value) if id(u) not in inside]


def _cost_in(net: Net, value: Value, perm: Perm, inside: set[int]) -> int:
    """Transposes more (or fewer) for an operand that comes from outside."""
    made = value.producer
    if made is not None and made.is_("move", "transpose") and _perm(made) == _inverse(perm):
        outside = _readers(net, value, inside)
        return 0 if net.is_output(value) or any(u.kind != "einsum" for u in outside) else -1
    if made is not None and made.kind == "einsum" and not net.is_output(value):
        return int(any(not _accepts(u, value) for u in _readers(net, value, inside)))
    return 1


def _cost_out(net: Net, value: Value, perm: Perm, inside: set[int]) -> int:
    """The same for what leaves the region: Einsums read any order, a transpose goes or turns further."""
    others = _readers(net, value, inside)
    gone = sum(u.is_("move", "transpose") and _perm(u) == perm for u in others)
    stays = any(not _accepts(u, value) and not u.is_("move", "transpose") for u in others) or net.is_output(value)
    return int(stays) - gone


def _accepts(reader: Node, value: Value) -> bool:
    """Whether the reader is an Einsum that takes `value` as an operand of its product, in any axis order."""
    if reader.kind != "einsum":
        return False
    operands = len(parse_einsum(str(reader.attrs["spec"])).inputs)
    return all(v is not value for v in reader.inputs[operands:])


def _entering(net: Net, value: Value, perm: Perm, inside: set[int]) -> Value:
    made = value.producer
    if made is not None and made.is_("move", "transpose") and _perm(made) == _inverse(perm):
        return made.inputs[0]
    turned = _transpose(net, value, perm)
    if made is not None and made.kind == "einsum" and not net.is_output(value):
        for reader in _readers(net, value, inside):  # so that the Einsum before writes the other order for all
            back = _transpose(net, turned, _inverse(perm))
            reader.inputs = [back if v is value else v for v in reader.inputs]
    return turned


def _transpose(net: Net, value: Value, perm: Perm) -> Value:
    node = Node("move", [value], [Value(value.name, _turned(value.shape, perm), value.format)],
                {"fn": "transpose", "perm": perm}, value.producer.scope if value.producer is not None else "")  # fmt: skip
    node.out.producer = node
    net.nodes.insert(place_of(net.nodes, value.producer) + 1 if value.producer is not None else 0, node)
    return node.out


def _leaf(net: Net, value: Value, ndim: int, perm: Perm) -> Value:
    """A stored operand in the other order; it is laid out once, when the model is built."""
    if value.scalar is not None or value.elements == 1:
        return value
    shape = (1,) * (ndim - value.ndim) + value.shape
    data = None if value.data is None else value.data.reshape((1,) * (ndim - value.ndim) + value.data.shape).transpose(perm)
    turned = Value(value.name, _turned(shape, perm), value.format, Role.WEIGHT, value.part, value.layer, data)
    net.low.leaves.append(turned)
    return turned


def _leaving(net: Net, old: int, node: Node, perm: Perm, inside: set[int]) -> None:
    """What read the old value reads the new one: through another order, a shorter way, or a transpose back."""
    backs: dict[bool, Value] = {}  # for Einsums, which take it in, and for the others
    for user in net.uses.get(old, []):
        if id(user) in inside:
            continue
        if user.is_("move", "transpose"):
            turned = tuple(perm.index(p) for p in _perm(user))
            user.inputs, user.attrs["perm"] = [node.out], turned
            if turned == tuple(range(len(turned))):
                net.replace(user.out, node.out)
            continue
        takes = _accepts(user, next(v for v in user.inputs if id(v) == old))
        if takes not in backs:
            backs[takes] = _transpose(net, node.out, _inverse(perm))
        user.inputs = [backs[takes] if id(v) == old else v for v in user.inputs]
    if any(id(v) == old for v in net.outputs):
        back = backs.get(False) or _transpose(net, node.out, _inverse(perm))
        net.outputs = [back if id(v) == old else v for v in net.outputs]
