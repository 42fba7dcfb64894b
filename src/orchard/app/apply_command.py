"""`orchard apply`: a recommendation made real."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from orchard.app.options import AsJson


def apply_command(
    advice: Annotated[Path, typer.Argument(metavar="ADVICE.json", help="What `orchard advise --json` printed.")],
    model: Annotated[
        str, typer.Option("--model", help="A .mlpackage, or package.module:function; never written to.", metavar="MODEL")
    ],
    pick: Annotated[
        str, typer.Option("--pick", help="Which recommendation: its number, or combination.", metavar="N")
    ] = "1",
    out: Annotated[Path, typer.Option("--out", help="Folder for the result.", metavar="DIR")] = Path("."),
    to: Annotated[
        str, typer.Option("--to", help="What a PyTorch module becomes: pt2 (torchao) or aimodel (coreai-opt).", metavar="KIND")
    ] = "pt2",
    json: AsJson = False,
) -> None:
    """Write the compressed Core ML package, PyTorch or Core AI program, read it back and predict it; else print the recipe."""
    from orchard.app.output import print_json, print_text
    from orchard.app.report_command import read_record
    from orchard.report.advice import render_applied
    from orchard.studies.apply import apply_advice

    record = read_record(advice, ("orchard.advice/1",))
    found = apply_advice(record, model, out, pick=pick, to=to)
    if json:
        print_json(found.to_dict())
    else:
        print_text(render_applied(found))


def register(app: typer.Typer) -> None:
    """Add the command to the `orchard` application."""
    app.command("apply")(apply_command)
