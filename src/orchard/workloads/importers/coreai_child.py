"""Walk the MLIR of an .aimodel: `python -m orchard.workloads.importers.coreai_child FOLDER`, run in isolation.

Uses what coreai-core keeps private (`program._module._mlir_module`); the tests pin it to the version of the extra.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from orchard.workloads.importers.errors import need
from orchard.workloads.importers.isolated import answer, reply

SMALL = 64


def main(folder: str) -> None:
    asset = need("coreai.authoring.asset", "coreai", "reading it")
    try:
        program = asset.AIModelAsset.load(Path(folder)).program
    except Exception as error:
        text = str(error).strip().splitlines() or [type(error).__name__]
        reply({"error": f"damaged or no Core AI model ({text[0][:200]})"})
        return
    reply(walk(program))


def walk(program: Any) -> list[dict[str, Any]]:
    """Graphs of a Core AI program: arguments, operations and results as plain lists."""
    return [
        _graph(op.operation)
        for op in program._module._mlir_module.body.operations
        if op.operation.name == "coreai.graph"
    ]


def _graph(graph: Any) -> dict[str, Any]:
    block = graph.regions[0].blocks[0]
    numbers: dict[Any, int] = {}

    def number(value: Any) -> int:
        return numbers.setdefault(value, len(numbers))

    names = (
        re.findall(r'coreai\.name = "([^"]*)"', str(graph.attributes["arg_attrs"]))
        if "arg_attrs" in graph.attributes
        else []
    )
    arguments = [[number(a), str(a.type)] for a in block.arguments]
    operations = []
    for op in block.operations:
        o = op.operation
        entry: dict[str, Any] = {
            "name": o.name, "in": [number(v) for v in o.operands], "out": [[number(r), _type(r)] for r in o.results],
        }  # fmt: skip
        if o.name == "coreai.constant":
            entry["data"] = _small(o.attributes["value"])
            entry["splat"] = bool(getattr(o.attributes["value"], "is_splat", False))
        else:
            entry["attrs"] = {a.name: str(o.attributes[a.name])[:200] for a in o.attributes}
        operations.append(entry)
    return {
        "name": str(graph.attributes["sym_name"]).strip('"'), "private": "priv" in graph.attributes,
        "names": names, "arguments": arguments, "operations": operations,
    }  # fmt: skip


def _type(value: Any) -> str:
    return str(value.type)


def _small(attribute: Any) -> list[Any] | None:
    """Contents of a small constant."""
    text = str(attribute.type)
    count = 1
    for size in re.findall(r"(\d+)x", text):
        count *= int(size)
    if count > SMALL:
        return None
    try:
        items = [attribute.get_splat_value().value] * count if attribute.is_splat else list(attribute)
    except (TypeError, ValueError, AttributeError, RuntimeError):
        return None
    return [i if isinstance(i, (int, float, bool)) else None for i in items]


if __name__ == "__main__":
    answer(main)
