"""Repeated key and value heads fold into the Einsums that read them."""

from __future__ import annotations

from orchard.ir import parse_einsum
from orchard.ir.einsum import Axis
from orchard.workloads.importers.canonical.net import Net, low_reshape, place_of
from orchard.workloads.importers.canonical.transposes import sink_views_of_softmax
from orchard.workloads.importers.lowering import Node, Value


def fold_repeated_heads(net: Net) -> None:
    """Key/value heads repeated for grouped queries are read in place: the Einsum gets a group dim instead.

    before: k[b,g,s,d] -> view [b,g,1,s,d] -> expand [b,g,r,s,d] -> view [b,g*r,s,d] -> b h t d, b h s d -> b h t s
    after:  b h r t d, b h s d -> b h r t s on k itself, with q and the result viewed as [b,g,r,...]
    """
    for node in list(net.nodes):
        if node.kind != "einsum":
            continue
        for index in range(min(2, len(node.inputs))):
            if _unrepeat(net, node, index):
                net.refresh()
                break
    sink_views_of_softmax(net)


def _unrepeat(net: Net, node: Node, index: int) -> bool:
    path: list[Node] = []
    value = node.inputs[index]
    perm: tuple[int, ...] | None = None
    before = value.producer
    if before is not None and before.is_("move", "transpose"):
        perm = before.attrs["perm"]  # type: ignore[assignment]
        value = before.inputs[0]
    outer = value.producer
    if outer is None or outer.kind != "view":
        return False
    expand = outer.inputs[0].producer
    if expand is None or not expand.is_("move", "expand"):
        return False
    wide, narrow = expand.out.shape, expand.inputs[0].shape
    grown = [i for i, (w, n) in enumerate(zip(wide, narrow)) if w != n]
    if len(grown) != 1 or narrow[grown[0]] != 1 or grown[0] == 0:
        return False
    at = grown[0] - 1  # the head axis in the flattened shape
    flat = (*wide[:at], wide[at] * wide[at + 1], *wide[at + 2 :])
    if tuple(value.shape) != flat:
        return False
    path.append(expand)
    spec = parse_einsum(str(node.attrs["spec"]))
    if len(spec.inputs) != 2 or any(not a.is_plain for access in spec.inputs for a in access):
        return False
    access = list(spec.inputs[index])
    if perm is not None:
        unpermuted: list[Axis] = [access[0]] * len(access)
        for position, source in enumerate(perm):
            unpermuted[source] = access[position]
        access = unpermuted
    head = access[at].dims[0]
    other = 1 - index
    names = [a.dims[0] for a in spec.inputs[other]]
    out_names = [a.dims[0] for a in spec.output]
    if head not in names or head not in out_names:
        return False
    group, repeat = wide[at], wide[at + 1]
    fresh = "r" if "r" not in spec.dims else "rr"
    low = net.low
    base = low_reshape(net, expand.inputs[0], [*narrow[: at + 1], *narrow[at + 2 :]], node.scope)
    partner = node.inputs[other]
    spot = names.index(head)
    split = low_reshape(net, partner, [*partner.shape[:spot], group, repeat, *partner.shape[spot + 1 :]], node.scope)
    out_spot = out_names.index(head)
    out_shape = [*node.out.shape[:out_spot], group, repeat, *node.out.shape[out_spot + 1 :]]
    sides = [[str(a) for a in access], [*names[: spot + 1], fresh, *names[spot + 1 :]]]
    if index == 1:
        sides.reverse()
    out_letters = [*out_names[: out_spot + 1], fresh, *out_names[out_spot + 1 :]]
    old_out = node.out
    new_out = Value(old_out.name, tuple(out_shape), old_out.format, producer=node)
    node.inputs[index], node.inputs[other] = base, split
    node.attrs["spec"] = f"{' '.join(sides[0])}, {' '.join(sides[1])} -> {' '.join(out_letters)}"
    node.outputs = [new_out]
    back = Node("view", [new_out], [old_out], {}, node.scope)
    old_out.producer = back
    net.nodes.insert(place_of(net.nodes, node) + 1, back)
    del low, path
    return True
