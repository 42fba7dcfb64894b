"""`orchard calibrate`: a machine from a run, or the package's own runtime profiles from its measurements."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from orchard.app.options import AsJson


def calibrate_command(
    run: Annotated[
        Path | None,
        typer.Argument(help="A run folder of `orchard measure`; without it the packaged rows.", metavar="RUN"),
    ] = None,
    name: Annotated[str, typer.Option("--name", help="With RUN: what --chip will call the machine.")] = "my-machine",
    suite: Annotated[str, typer.Option("--suite", help="Without RUN: measurements to fit: llm.")] = "llm",
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="With RUN a .yaml file (default: the user's own machines); without it a folder."
        ),
    ] = None,
    json: AsJson = False,
) -> None:
    """Fit a machine to a run of `orchard measure` (a minute); without RUN every packaged profile to its rows (2 minutes)."""
    if run is not None:
        _machine(run, name, output, json)
        return
    from orchard.app.output import note, print_json, print_text
    from orchard.report.calibration import calibration_record, render_calibration
    from orchard.studies.calibrate import calibrate, save
    from orchard.studies.errors import StudyError

    if suite != "llm":
        raise StudyError(f"suite {suite!r} is not known; expected llm")
    if output is not None and not output.parent.exists():
        raise StudyError(f"--output {output}: the folder {output.parent} does not exist")
    note("fitting all rows, then once per left-out chip generation and model family ...")
    result = calibrate()
    written = save(result, output) if output is not None else ()
    for path in written:
        note(f"wrote {path}")
    if json:
        print_json(calibration_record(result))
    else:
        print_text(render_calibration(result))


def _machine(run: Path, name: str, output: Path | None, json: bool) -> None:
    """Fit a run, write the machine's file, and say what the data could not determine."""
    from orchard.app.output import note, print_json, show
    from orchard.measure.store import read_run
    from orchard.studies.machine_file import calibrate_run, check_name, fittable, save_machine

    check_name(name, output)
    found = read_run(run)
    note(f"fitting {len(fittable(found))} microbenchmarks, then four times without a quarter of them ...")
    result = calibrate_run(found)
    path = save_machine(result, name, output)
    if json:
        from orchard.report.measurement import machine_record

        print_json(machine_record(result, str(path)))
    else:
        from orchard.report.measurement import render_machine

        show(render_machine(result, str(path), name if output is None else str(path)))


def register(app: typer.Typer) -> None:
    """Add the command to the `orchard` application."""
    app.command("calibrate")(calibrate_command)
