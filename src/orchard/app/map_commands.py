"""`orchard map`: the best mapping of an op, or of every op of a model, on a machine, with proof."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from orchard.app.map_model import clear_cache as clear_stored
from orchard.app.map_model import map_whole_model, open_cache
from orchard.app.options import (
    ANSWER,
    MACHINE,
    WORKLOAD,
    AsJson,
    Batch,
    Depth,
    EngineOption,
    Generate,
    Inputs,
    Kv,
    Prompt,
    RuntimeOption,
    Set,
    Weights,
)
from orchard.app.output import note, print_json, print_text

Search = "Search"


def map_command(
    op: Annotated[
        str, typer.Argument(help="gemm:m=..,k=..,n=.. | conv:c=..,… | 'C[m,n] = A[m,k] * B[k,n]; m=..' | a model.")
    ] = "",
    arch: Annotated[
        str | None,
        typer.Option("--arch", help="A shipped name (E16, T128, A64) or a YAML file.", rich_help_panel=MACHINE),
    ] = None,
    chip: Annotated[
        str | None, typer.Option("--chip", help="A chip instead: catalogue id or YAML file.", rich_help_panel=MACHINE)
    ] = None,
    engine: EngineOption = "auto",
    job: Annotated[
        str | None,
        typer.Option("--job", help="A shipped job in place of op and --arch: J1, J1T, J2.", rich_help_panel=WORKLOAD),
    ] = None,
    objective: Annotated[
        str | None,
        typer.Option(
            "--objective", help="edp, energy, latency or traffic; latency on a chip, else edp.", rich_help_panel=Search
        ),
    ] = None,
    factors: Annotated[
        str | None,
        typer.Option(
            "--factors",
            help="perfect, or imperfect for ragged tiles (for a model on a chip: imperfect).",
            rich_help_panel=Search,
        ),
    ] = None,
    size: Annotated[
        list[str] | None, typer.Option("--size", help="Sizes of dims, e.g. m=64,k=64.", rich_help_panel=WORKLOAD)
    ] = None,
    time_limit: Annotated[
        float | None,
        typer.Option("--time-limit", help="Stop the proof of an op after so many seconds.", rich_help_panel=Search),
    ] = None,
    phase: Annotated[
        list[str] | None, typer.Option("--phase", help="prefill, decode, …: only this phase.", rich_help_panel=WORKLOAD)
    ] = None,
    part: Annotated[
        str | None,
        typer.Option(
            "--op", help="Only this op or module of the model, with its loop nests.", rich_help_panel=WORKLOAD
        ),
    ] = None,
    runtime: RuntimeOption = None,
    weights: Weights = None,
    kv: Kv = "f16",
    batch: Batch = 1,
    prompt: Prompt = 512,
    generate: Generate = 128,
    depth: Depth = 0,
    input: Inputs = None,
    set: Set = None,
    cache: Annotated[
        str | None,
        typer.Option("--cache", help="Folder of mappings found before; the user's without.", rich_help_panel=Search),
    ] = None,
    no_cache: Annotated[
        bool, typer.Option("--no-cache", help="Neither read nor store.", rich_help_panel=Search)
    ] = False,
    clear_cache: Annotated[
        bool, typer.Option("--clear-cache", help="Remove the stored mappings and end.", rich_help_panel=ANSWER)
    ] = False,
    constrain: Annotated[
        list[str] | None,
        typer.Option(
            "--constrain",
            help="'GLB: m=64; keep=A', 'PE: X=n', dataflow=…, or a YAML file. May be repeated.",
            rich_help_panel=Search,
        ),
    ] = None,
    form: Annotated[
        str | None,
        typer.Option("--format", help="timeloop: problem, architecture and mapping as YAML.", rich_help_panel=ANSWER),
    ] = None,
    emit: Annotated[
        str | None, typer.Option("--emit", help="Print the nest as a program: c or python.", rich_help_panel=ANSWER)
    ] = None,
    fuse: Annotated[
        bool, typer.Option("--fuse", help="Several ops in a row: attention:…, mlp:…, convs:…, or Einsums between ';'.")
    ] = False,
    overlap: Annotated[
        bool | None,
        typer.Option("--vector-overlap/--vector-turns", help="With --fuse: the vector unit works beside the MACs."),
    ] = None,
    json: AsJson = False,
) -> None:
    """Best mapping of an op, of several in a row, or of every op of a model, on a machine, with proof."""
    if clear_cache:
        clear_stored(cache)
        return
    from orchard.app.map_fused import map_fused, refuse_chain

    if fuse:
        given = {"--job": job, "--factors": factors, "--constrain": constrain, "--emit": emit, "--format": form}
        store = open_cache(cache, no_cache)
        map_fused(op, arch, chip, engine, objective, size, time_limit, tuple(set or ()), given, overlap, store, json)
        return
    refuse_chain(op, overlap)
    from orchard.mapping import MappingError
    from orchard.mapping.ops import is_op

    if job is not None:
        if op or arch or chip or size or constrain or emit or form:
            raise MappingError("--job names op and machine; give --objective, --factors, --time-limit or --json beside it")
        map_shipped_job(job, objective, factors or "perfect", time_limit, open_cache(cache, no_cache), json)
        return
    if not op:
        raise MappingError("nothing to map: expected an op such as gemm:m=64,k=64,n=64, or a model")
    if (arch is None) == (chip is None):
        raise MappingError("expected a machine: either --arch (E16, T128, A64, a YAML file) or --chip with --engine")
    if factors not in (None, "perfect", "imperfect"):
        raise MappingError(f"--factors is {factors!r}, expected perfect or imperfect")
    if time_limit is not None and not time_limit >= 0:
        raise MappingError(f"--time-limit is {time_limit}, expected seconds >= 0")
    _only_for(is_op(op), {"--phase": phase, "--op": part, "--input": input, "--runtime": runtime, "--weights": weights},
              {"--constrain": constrain, "--emit": emit, "--format": form, "--size": size})  # fmt: skip
    store = open_cache(cache, no_cache)
    if not is_op(op):
        from orchard.hw.arch import load_arch
        from orchard.studies.map_model import Space
        from orchard.studies.request import Request

        request = Request(
            model=op, chip=chip or "", engine=engine, runtime=runtime, weights=weights, kv=kv, batch=batch, prompt=prompt,
            generate=generate, depth=depth, inputs=tuple(input or ()), overrides=tuple(set or ()),
        )  # fmt: skip
        space = Space.chosen(objective, factors, time_limit, cache=store, on_chip=chip is not None)
        machine = None if arch is None else load_arch(arch)
        map_whole_model(request, space, machine, phases=list(phase or ()), op=part, as_json=json)
        return
    map_one(
        op, arch, chip, engine, objective, factors, size, time_limit, tuple(set or ()), constrain or [],
        _printed_as(emit, form), store, json,
    )  # fmt: skip


def _only_for(one_op: bool, models: dict[str, Any], ops: dict[str, Any]) -> None:
    """Refuse what would be dropped in silence: options of models with one op, and of one op with a model."""
    from orchard.mapping import MappingError

    for name, value in (models if one_op else ops).items():
        if value:
            kind, other = ("a model", "one op") if one_op else ("one op", "a model")
            raise MappingError(f"{name} is for {kind}, and this is {other}")


def _printed_as(emit: str | None, form: str | None) -> str | None:
    """`c`, `python`, `timeloop`, or None for the answer itself."""
    from orchard.mapping import MappingError
    from orchard.report.mapping_code import LANGUAGES

    if emit is not None and emit not in LANGUAGES:
        raise MappingError(f"--emit is {emit!r}, expected one of {', '.join(LANGUAGES)}")
    if form not in (None, "timeloop"):
        raise MappingError(f"--format is {form!r}, expected timeloop (without it: text)")
    if emit is not None and form is not None:
        raise MappingError("--emit and --format both say what to print, expected one of them")
    return emit or form


def map_one(
    op: str, arch: str | None, chip: str | None, engine: str, objective: str | None, factors: str | None,
    size: list[str] | None, time_limit: float | None, overrides: tuple[str, ...], constrain: list[str],
    printed_as: str | None, store: Any, json: bool,
) -> None:  # fmt: skip
    """One op that stands by itself."""
    from orchard.mapping.constraints import constraints_from, parse_constraints
    from orchard.mapping.ops import parse_op, parse_sizes
    from orchard.report.mapping import mapping_record, mapping_text
    from orchard.report.mapping_code import mapping_code
    from orchard.studies.map_cache import Question
    from orchard.studies.map_machine import machine_for
    from orchard.studies.map_many import solve

    problem = parse_op(op, parse_sizes(",".join(size or [])))
    machine = machine_for(arch, chip, engine, overrides)
    chosen: Any = objective or ("latency" if chip is not None else "edp")
    tiles: Any = factors or ("imperfect" if chip is not None else "perfect")
    rules = constraints_from(parse_constraints(constrain), problem, machine.arch)
    question = Question(problem, machine.arch, chosen, tiles, time_limit, constraints=rules)
    mapped, was_stored = solve(question, store, say=note)
    for sentence in machine.notes:
        note(sentence)
    if was_stored:
        note(f"from the cache, found in {mapped.search_s:.2f} s")
    code = None if printed_as is None else mapping_code(mapped, printed_as)
    if json:
        print_json(mapping_record(mapped) | ({} if code is None else {"code": code}))
    else:
        print_text(mapping_text(mapped) if code is None else code)


def map_shipped_job(name: str, objective: Any, factors: Any, time_limit: float | None, store: Any, as_json: bool) -> None:
    """Every op of a job that ships with the package."""
    from orchard.app.map_fused import map_fused
    from orchard.mapping.jobs import job
    from orchard.report.map_job import job_record, job_text
    from orchard.studies.map_job import map_job

    chosen = job(name)
    if chosen.is_chain:
        note(f"{name} is a chain: orchard map {chosen.ops[0].op} --fuse --arch {chosen.arch}")
        wanted = objective or chosen.objective
        map_fused(
            chosen.ops[0].op, chosen.arch, None, "", wanted, None, time_limit, (), {"--factors": factors}, None, store,
            as_json,
        )
        return
    mapped = map_job(chosen, objective, factors=factors, time_limit_s=time_limit, say=note)
    if as_json:
        print_json(job_record(mapped))
    else:
        print_text(job_text(mapped))


def register(app: typer.Typer) -> None:
    app.command("map")(map_command)
