"""`orchard measure`, `compare-run`, `contribute`, `prototype`: this machine, timed; runs compared; rows; variants on trial."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from orchard.app.options import AsJson
from orchard.app.output import note, print_json, print_text, show

RunFolder = Annotated[Path, typer.Argument(help="A run folder that `orchard measure` wrote.", metavar="RUN")]


def measure_command(
    model: Annotated[
        str | None,
        typer.Argument(
            help="A model to time: a name of --list, `unseen` for all, a .pt2 file, or package.module:function."
        ),
    ] = None,
    device: Annotated[str, typer.Option("--device", help="cpu, cuda, mps, mlx, coreml or coreai.")] = "cpu",
    suite: Annotated[str, typer.Option("--suite", help="Microbenchmarks: quick (minutes) or full.")] = "quick",
    threads: Annotated[int, typer.Option("--threads", help="CPU threads; 1 is disturbed least by other work.")] = 1,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Run folder; one that exists is continued. Default: run-DEVICE."),
    ] = None,
    list_: Annotated[bool, typer.Option("--list", help="List the package's own models.")] = False,
    json: AsJson = False,
) -> None:
    """Measure this machine, or a whole model on it, into a run folder."""
    if list_:
        from orchard.measure.models import MODELS

        print_text("\n".join(f"{name:<26} {program.about}" for name, program in MODELS.items()))
        return
    from orchard.measure.live import programs_of
    from orchard.measure.run import Job, measure_programs, measure_suite

    job = Job(device=device, suite=suite, threads=threads, output=output or Path(f"run-{device}"))
    run = measure_suite(job, note) if model is None else measure_programs(job, programs_of(model), note)
    if json:
        from orchard.report.measurement import measurement_record

        print_json(measurement_record(run))
    else:
        from orchard.report.measurement import render_measurement

        show(render_measurement(run))


def compare_run_command(
    a: Annotated[Path, typer.Argument(help="The run to compare with.", metavar="A")],
    b: Annotated[Path, typer.Argument(help="The run in question.", metavar="B")],
    least: Annotated[float, typer.Option("--least", help="Smallest relative change that counts.")] = 0.05,
    json: AsJson = False,
) -> None:
    """Drift between two runs, with significance: machines, versions or days."""
    from orchard.measure.store import read_run
    from orchard.report.measurement import comparison_record, render_comparison
    from orchard.studies.compare_runs import compare_runs
    from orchard.studies.errors import StudyError

    if not 0 <= least < 10:
        raise StudyError(f"--least {least}: expected a share from 0 to 10, such as 0.05")
    found = compare_runs(read_run(a), read_run(b), least)
    if json:
        print_json(comparison_record(found))
    else:
        show(render_comparison(found))


def contribute_command(
    run: RunFolder,
    chip: Annotated[str, typer.Option("--chip", help="What people call the processor, e.g. 'M2 Max'.")],
    source: Annotated[str, typer.Option("--source", help="Who measured, for the column `source`.")] = "own measurement",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="CSV file; without it the rows are printed.")
    ] = None,
    json: AsJson = False,
) -> None:
    """A run's microbenchmarks as rows of the project's dataset, checked by its own rules."""
    from orchard.measure.store import read_run
    from orchard.studies.contribute import COLUMNS, contribution, write_contribution

    text = contribution(read_run(run), chip, source)
    if output is not None:
        write_contribution(text, output)
        note(f"wrote {output}")
    if json:
        rows = text.count("\n") - 1
        print_json(
            {
                "schema": "orchard.contribution/1",
                "run": str(run),
                "file": str(output or ""),
                "rows": rows,
                "columns": list(COLUMNS),
            }
        )
    elif output is None:
        print_text(text.rstrip("\n"))


def prototype_command(
    name: Annotated[
        str | None, typer.Argument(help="A shipped prototype, or file.py:factory (its code is run).")
    ] = None,
    device: Annotated[str, typer.Option("--device", help="cpu, cuda or mps.")] = "cpu",
    threads: Annotated[int, typer.Option("--threads", help="CPU threads.")] = 1,
    list_: Annotated[bool, typer.Option("--list", help="List the shipped prototypes.")] = False,
    json: AsJson = False,
) -> None:
    """Try an algorithm's variant: right against float64, fast, near the bound, and how its time grows."""
    from orchard.measure.errors import MeasureError
    from orchard.measure.prototypes import FACTORIES, load_prototype

    if list_:
        print_text("\n".join(f"{key:<20} {make().about}" for key, make in FACTORIES.items()))
        return
    if name is None:
        raise MeasureError(f"which prototype? expected {', '.join(FACTORIES)} or file.py:factory")
    if device not in ("cpu", "cuda", "mps") or not 1 <= threads <= 1024:
        raise MeasureError(
            f"device {device!r} with {threads} threads: expected cpu, cuda or mps, and 1 to 1024 threads"
        )
    from orchard.report.prototype import prototype_record, render_prototype
    from orchard.studies.prototype import try_prototype

    report = try_prototype(load_prototype(name), device, threads)
    if json:
        print_json(prototype_record(report))
    else:
        show(render_prototype(report))


def register(app: typer.Typer) -> None:
    """Add the commands to the `orchard` application."""
    app.command("measure")(measure_command)
    app.command("compare-run")(compare_run_command)
    app.command("contribute")(contribute_command)
    app.command("prototype")(prototype_command)
