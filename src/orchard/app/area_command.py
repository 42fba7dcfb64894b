"""`orchard area`: what a chip costs to build."""

from __future__ import annotations

from typing import Annotated

import typer

from orchard.app.options import AsJson, Set
from orchard.app.output import print_json, show, warn
from orchard.units import OrchardError


def area(
    chip: Annotated[str | None, typer.Argument(help="Catalogue id, name or YAML file.", metavar="CHIP")] = None,
    named: Annotated[str | None, typer.Option("--chip", help="The same, as other commands have it.", metavar="CHIP")] = None,
    set: Set = None,
    check: Annotated[bool, typer.Option("--check", help="Compose every die of known size and print the errors.")] = False,
    json: AsJson = False,
) -> None:
    """Die area by block, price and carbon of a chip."""
    from orchard.report import silicon as report
    from orchard.studies.silicon import recomposed, silicon

    if chip and named and chip != named:
        raise OrchardError(f"area got two chips, {chip[:40]!r} and --chip {named[:40]!r}; expected one")
    chip = chip or named
    if check:
        if chip or set:
            raise OrchardError("--check composes the known dies, it takes neither a CHIP nor --set")
        rows = recomposed()
        if json:
            print_json(report.check_record(rows))
        else:
            show(report.render_check(rows))
        return
    if not chip:
        raise OrchardError("area needs a CHIP, for example 'orchard area m4max', or --check")
    found = silicon(chip, overrides=tuple(set or ()))
    if json:
        print_json(report.silicon_record(found))
    else:
        show(report.render_silicon(found))
    warn(found.warnings)


def register(app: typer.Typer) -> None:
    app.command("area")(area)
