"""Data movement that one source writes as several ops and another as one."""

from __future__ import annotations

from orchard.workloads.importers.canonical.net import Net
from orchard.workloads.importers.lowering import Node, Value


def recognise_rolls(net: Net) -> None:
    """The end of a tensor put before its beginning is one roll, and rolls of several axes are one."""
    for node in net.nodes:
        source = _rolled(net, node)
        if source is not None:
            node.inputs, node.attrs = [source], {"fn": "roll"}
            node.out.name = "roll"
    net.refresh()
    for node in net.nodes:
        before = node.inputs[0].producer if node.is_("move", "roll") else None
        if before is not None and before.is_("move", "roll") and net.only_user(before.out) is node:
            node.inputs = [before.inputs[0]]


def _rolled(net: Net, node: Node) -> Value | None:
    """x of concat(x[k:], x[:k])."""
    if not node.is_("move", "concat") or len(node.inputs) != 2:
        return None
    end, beginning = (v.producer for v in node.inputs)
    if end is None or beginning is None or end.inputs[0] is not beginning.inputs[0]:
        return None
    for part in (end, beginning):
        axes = part.attrs.get("axis"), part.attrs.get("step")
        if not part.is_("move", "slice") or axes != (node.attrs["axis"], 1) or net.only_user(part.out) is not node:
            return None
    cut = beginning.out.shape[beginning.attrs["axis"]]  # type: ignore[index]
    whole = node.out.shape == end.inputs[0].shape
    return end.inputs[0] if whole and beginning.attrs.get("start") == 0 and end.attrs.get("start") == cut else None
