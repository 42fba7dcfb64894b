"""Shapes that users give for inputs, applied to a graph's symbols."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from orchard.ir import Expr, Graph, Role, Size, symbol
from orchard.workloads.importers.errors import ImportError_
from orchard.workloads.importers.lowering import show


def bind_inputs(graph: Graph, inputs: Mapping[str, Sequence[int | str]]) -> Graph:
    """The graph with the symbols of its inputs bound to the given sizes (a string renames or keeps a symbol).

    Raises ImportError_ for an unknown input, a wrong number of axes, or a size the model fixes differently.
    """
    known = {t.name: t for t in graph.of_role(Role.INPUT)}
    bindings: dict[str, Size] = {}
    for name, shape in inputs.items():
        tensor = known.get(name)
        if tensor is None:
            raise ImportError_(f"{graph.name}: no input {name!r}; it has {', '.join(known) or 'none'}")
        if len(shape) != len(tensor.shape):
            raise ImportError_(
                f"{graph.name}: input {name} has {len(tensor.shape)} axes {show(tensor.shape)}, got {shape}"
            )
        for axis, (size, given) in enumerate(zip(tensor.shape, shape)):
            wanted: Size = symbol(given) if isinstance(given, str) else int(given)
            if isinstance(size, Expr):
                (plain,) = size.symbols() if len(size.symbols()) == 1 else ("",)
                alone = bool(plain) and size == symbol(plain)
                if alone and bindings.setdefault(plain, wanted) != wanted:
                    raise ImportError_(f"{graph.name}: size {plain} is given as {bindings[plain]} and {wanted}")
            elif size != wanted and not isinstance(given, str):
                raise ImportError_(f"{graph.name}: input {name} axis {axis} is {size} in the model, got {given}")
    changed = {k: v for k, v in bindings.items() if k in graph.symbols and v != symbol(k)}
    return graph.bind(changed) if changed else graph
