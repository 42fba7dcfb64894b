"""The nodes of a lowered program with use counts, as the passes edit them."""

from __future__ import annotations

from collections.abc import Sequence

from orchard.ir import Size
from orchard.workloads.importers.lowering import Lowering, Node, Value


class Net:
    """The nodes with use counts; passes edit it in place."""

    def __init__(self, low: Lowering, outputs: Sequence[Value]) -> None:
        self.low = low
        self.nodes = low.nodes
        self.outputs = list(outputs)
        self.uses: dict[int, list[Node]] = {}
        self.refresh()

    def refresh(self) -> None:
        """Drop dead nodes and recount uses."""
        needed = {id(v) for v in self.outputs}
        kept: list[Node] = []
        for node in reversed(self.nodes):
            if any(id(o) in needed for o in node.outputs):
                kept.append(node)
                needed.update(id(v) for v in node.inputs)
        self.nodes = kept[::-1]
        self.uses = {}
        for node in self.nodes:
            for value in {id(v): v for v in node.inputs}.values():
                self.uses.setdefault(id(value), []).append(node)

    def users(self, value: Value) -> list[Node]:
        return self.uses.get(id(value), [])

    def is_output(self, value: Value) -> bool:
        return any(v is value for v in self.outputs)

    def only_user(self, value: Value) -> Node | None:
        """The one node that reads `value`, when no output does."""
        users = self.users(value)
        return users[0] if len(users) == 1 and not self.is_output(value) else None

    def replace(self, old: Value, new: Value) -> None:
        """All readers of `old` read `new`."""
        for node in self.uses.pop(id(old), []):
            node.inputs = [new if v is old else v for v in node.inputs]
            self.uses.setdefault(id(new), []).append(node)
        self.outputs = [new if v is old else v for v in self.outputs]

    def producer(self, value: Value, kind: str, *fns: str) -> Node | None:
        node = value.producer
        return node if node is not None and node.is_(kind, *fns) else None

    def sort(self) -> None:
        """Program order again, stable, after passes that inserted nodes."""
        index = {id(n): i for i, n in enumerate(self.nodes)}
        done: set[int] = set()
        order: list[Node] = []
        for root in self.nodes:
            stack: list[tuple[Node, bool]] = [(root, False)]
            while stack:
                node, ready = stack.pop()
                if id(node) in done:
                    continue
                if ready:
                    done.add(id(node))
                    order.append(node)
                    continue
                stack.append((node, True))
                for value in reversed(node.inputs):
                    before = value.producer
                    if before is not None and id(before) not in done and id(before) in index:
                        stack.append((before, False))
        self.nodes = order


def place_of(nodes: list[Node], node: Node) -> int:
    return next(i for i, n in enumerate(nodes) if n is node)


def low_reshape(net: Net, value: Value, shape: Sequence[Size], scope: str) -> Value:
    """A view node put where `value` is ready; a view of a view becomes one view."""
    source = value
    while source.producer is not None and source.producer.kind == "view":
        source = source.producer.inputs[0]
    if source.shape == tuple(shape):
        return source
    node = Node("view", [source], [Value(value.name, tuple(shape), value.format)], {}, scope)
    node.out.producer = node
    at = place_of(net.nodes, source.producer) + 1 if source.producer is not None else 0
    net.nodes.insert(at, node)
    return node.out


def merge_views(net: Net) -> None:
    """A view of a view is one view, and none when the shapes agree."""
    for node in net.nodes:
        if node.kind != "view":
            continue
        before = node.inputs[0].producer
        while before is not None and before.kind == "view":
            node.inputs[0] = before.inputs[0]
            before = node.inputs[0].producer
        if node.inputs[0].shape == node.out.shape:
            net.replace(node.out, node.inputs[0])
    net.refresh()
