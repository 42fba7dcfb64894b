"""`orchard bounds`: least off-chip traffic of an op for every capacity of a memory."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from orchard.app.options import AsJson, EngineOption, Set
from orchard.app.output import note, print_json, print_text


def bounds_command(
    op: Annotated[str, typer.Argument(help="gemm:m=..,k=..,n=.. | conv:c=..,… | 'C[m,n] = A[m,k] * B[k,n]; m=..'.")],
    arch: Annotated[str | None, typer.Option("--arch", help="A shipped name (E16, T128, A64) or a YAML file.")] = None,
    chip: Annotated[str | None, typer.Option("--chip", help="A chip instead: catalogue id or YAML file.")] = None,
    engine: EngineOption = "auto",
    level: Annotated[
        str | None, typer.Option("--level", help="The memory; without it the outermost one on chip.")
    ] = None,
    factors: Annotated[str, typer.Option("--factors", help="perfect, or imperfect for ragged tiles.")] = "perfect",
    size: Annotated[list[str] | None, typer.Option("--size", help="Sizes of dims, e.g. m=64,k=64.")] = None,
    plot: Annotated[
        str | None, typer.Option("--plot", help="Write the curve as an SVG drawing.", metavar="FILE")
    ] = None,
    set: Set = None,
    json: AsJson = False,
) -> None:
    """How much memory is worth having: least off-chip traffic of an op against capacity."""
    from orchard.mapping import MappingError
    from orchard.mapping.chain_text import is_chain
    from orchard.mapping.ops import parse_op, parse_sizes
    from orchard.report.capacity import capacity_record, capacity_svg, capacity_text
    from orchard.studies.capacity import capacity_curve
    from orchard.studies.map_machine import machine_for

    if factors not in ("perfect", "imperfect"):
        raise MappingError(f"--factors is {factors!r}, expected perfect or imperfect")
    if is_chain(op):
        raise MappingError(
            f"{op[:60]!r} names several ops, bounds takes one; a chain's least traffic on one machine: "
            f"orchard map {op[:60]!r} --fuse --objective traffic"
        )
    problem = parse_op(op, parse_sizes(",".join(size or [])))
    machine = machine_for(arch, chip, engine, tuple(set or ()))
    tiles: Any = factors
    curve = capacity_curve(problem, machine.arch, level, factors=tiles)
    if plot is not None:
        _write(Path(plot), capacity_svg(curve))
    if json:
        print_json(capacity_record(curve))
    else:
        print_text(capacity_text(curve))


def _write(path: Path, text: str) -> None:
    from orchard.mapping import MappingError

    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise MappingError(f"--plot {str(path)[:200]!r} cannot be written: {error.strerror}") from None
    note(f"wrote {path}")


def register(app: typer.Typer) -> None:
    app.command("bounds")(bounds_command)
