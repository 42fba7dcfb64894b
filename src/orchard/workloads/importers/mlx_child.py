"""Trace an .mlxfn file: `python -m orchard.workloads.importers.mlx_child FILE`, run by `mlx.import_mlxfn` in isolation."""

from __future__ import annotations

import re
from typing import Any

from orchard.workloads.importers.errors import need
from orchard.workloads.importers.isolated import answer, reply
from orchard.workloads.importers.mlx import jsonable, trace

_SIGNATURE = re.compile(r"^\s+(\S+): \(([\d,]*)\) (\w+)$", re.M)


def main(path: str) -> None:
    mx = need("mlx.core", "mlx", "reading it")

    try:
        function = mx.import_function(path)
    except (RuntimeError, ValueError, MemoryError) as error:
        reply({"error": f"damaged or no MLX function ({str(error).splitlines()[0][:200]})"})
        return
    try:
        function()
        shapes: list[tuple[tuple[int, ...], str]] = []
    except ValueError as error:
        first = str(error).split(" 2. Function", 1)[0]
        shapes = [(tuple(int(s) for s in sizes.split(",") if s), kind) for _, sizes, kind in _SIGNATURE.findall(first)]
    arguments: list[Any] = [mx.zeros(shape, getattr(mx, kind)) for shape, kind in shapes]
    mx.eval(function(*arguments))  # stored arrays are read lazily and would be traced as loads
    reply(jsonable(trace(mx, lambda *a: function(*a), arguments)))


if __name__ == "__main__":
    answer(main)
