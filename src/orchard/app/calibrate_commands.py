"""`orchard calibrate`: refit the runtime profiles from measurements. The package's own profiles come from this command."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from orchard.app.options import AsJson


def calibrate_command(
    suite: Annotated[str, typer.Option("--suite", help="Measurements to fit: llm.")] = "llm",
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Folder for the fitted profiles; without it only the fit is printed."),
    ] = None,
    json: AsJson = False,
) -> None:
    """Fit every runtime profile to the packaged measurements, with uncertainty and left-out errors (about 2 minutes)."""
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


def register(app: typer.Typer) -> None:
    """Add the command to the `orchard` application."""
    app.command("calibrate")(calibrate_command)
