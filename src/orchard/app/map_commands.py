"""`orchard map`: the best mapping of an op on a machine, with proof."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from orchard.app.options import AsJson
from orchard.app.output import note, print_json, print_text


def map_command(
    op: Annotated[str, typer.Argument(help="gemm:m=..,k=..,n=.. | conv:c=..,… | 'C[m,n] = A[m,k] * B[k,n]; m=..'.")],
    arch: Annotated[str, typer.Option("--arch", help="A shipped name (E16, T128, A64) or a YAML file.")],
    objective: Annotated[str, typer.Option("--objective", help="edp, energy, latency or traffic.")] = "edp",
    factors: Annotated[str, typer.Option("--factors", help="perfect, or imperfect for ragged tiles.")] = "perfect",
    size: Annotated[list[str] | None, typer.Option("--size", help="Sizes of dims, e.g. m=64,k=64.")] = None,
    time_limit: Annotated[
        float | None, typer.Option("--time-limit", help="Stop the proof after so many seconds.")
    ] = None,
    constrain: Annotated[
        list[str] | None,
        typer.Option("--constrain", help="'GLB: m=64; keep=A', 'PE: X=n', dataflow=…, or a YAML file. May be repeated."),
    ] = None,
    form: Annotated[str | None, typer.Option("--format", help="timeloop: problem, architecture and mapping as YAML.")] = None,
    emit: Annotated[str | None, typer.Option("--emit", help="Print the nest as a program: c or python.")] = None,
    json: AsJson = False,
) -> None:
    """Best mapping of an op on a machine, with proof."""
    from orchard.hw.arch import load_arch
    from orchard.mapping import MappingError
    from orchard.mapping.constraints import constraints_from, parse_constraints
    from orchard.mapping.ops import parse_op, parse_sizes
    from orchard.report.mapping_code import LANGUAGES, mapping_code
    from orchard.studies.map import map_op

    if emit is not None and emit not in LANGUAGES:
        raise MappingError(f"--emit is {emit!r}, expected one of {', '.join(LANGUAGES)}")
    if form not in (None, "timeloop"):
        raise MappingError(f"--format is {form!r}, expected timeloop (without it: text)")
    if emit is not None and form is not None:
        raise MappingError("--emit and --format both say what to print, expected one of them")
    if factors not in ("perfect", "imperfect"):
        raise MappingError(f"--factors is {factors!r}, expected perfect or imperfect")
    problem, machine = parse_op(op, parse_sizes(",".join(size or []))), load_arch(arch)
    rules = constraints_from(parse_constraints(constrain or []), problem, machine)
    chosen: Any = objective
    mapped = map_op(
        problem, machine, chosen, factors=factors, constraints=rules, time_limit_s=time_limit, say=note  # type: ignore[arg-type]
    )  # fmt: skip
    from orchard.report.mapping import mapping_record, mapping_text

    wanted = emit or form
    code = mapping_code(mapped, wanted) if wanted is not None else None
    if json:
        print_json(mapping_record(mapped) | ({} if code is None else {"code": code}))
    else:
        print_text(mapping_text(mapped) if code is None else code)


def register(app: typer.Typer) -> None:
    app.command("map")(map_command)
