"""`orchard technique`: what a technique is, what it brings on a chip, and what was published about it."""

from __future__ import annotations

from typing import Annotated

import typer

from orchard.app.options import AsJson

technique_app = typer.Typer(
    help="Techniques: cards, cost on your chips, published claims.", rich_markup_mode=None, no_args_is_help=True
)


@technique_app.command("list")
def technique_list(
    engine: Annotated[
        str | None,
        typer.Option("--engine", help="Only what helps there: ane, gpu, gpu-matrix or cpu.", metavar="ENGINE"),
    ] = None,
    json: AsJson = False,
) -> None:
    """All techniques by family, with ratings per engine."""
    from orchard.app.output import print_json, print_text
    from orchard.report.technique import render_techniques, techniques_record
    from orchard.techniques import cards_for

    found = cards_for(engine)
    if json:
        print_json(techniques_record(found))
    else:
        print_text(render_techniques(found))


@technique_app.command("show")
def technique_show(
    name: Annotated[str, typer.Argument(help="A technique (`orchard technique list`).", metavar="NAME")],
    json: AsJson = False,
) -> None:
    """One technique: mechanism, formula, options, claims."""
    from orchard.app.output import print_json, print_text
    from orchard.report.technique import render_technique, technique_record
    from orchard.techniques import card

    found = card(name)
    if json:
        print_json(technique_record(found))
    else:
        print_text(render_technique(found))


def register(app: typer.Typer) -> None:
    """Add the commands to the `orchard` application."""
    app.add_typer(technique_app, name="technique")
