"""`orchard technique`: what a technique is, what it brings on a chip, and what was published about it."""

from __future__ import annotations

from typing import Annotated

import typer

from orchard.app.options import (
    AsJson,
    Batch,
    Depth,
    EngineOption,
    Generate,
    Kv,
    Prompt,
    RuntimeOption,
    Weights,
)

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


@technique_app.command("evaluate")
def technique_evaluate(
    names: Annotated[list[str], typer.Argument(help="Techniques with options: palettize:bits=4,group=16.", metavar="NAME...")],
    model: Annotated[str, typer.Option("--model", help="The model, as for `predict`.", metavar="MODEL")],
    chips: Annotated[str, typer.Option("--chips", help="Chips, separated by commas.", metavar="A,B,...")],
    engine: EngineOption = "auto",
    runtime: RuntimeOption = None,
    weights: Weights = None,
    kv: Kv = "f16",
    batch: Batch = 1,
    prompt: Prompt = 512,
    generate: Generate = 128,
    depth: Depth = 0,
    json: AsJson = False,
) -> None:
    """What each technique brings on each chip, and what binds before and after."""
    from orchard.app.output import print_json, print_text
    from orchard.report.technique import evaluation_record, render_evaluation
    from orchard.studies.request import Request
    from orchard.studies.technique_evaluate import evaluate

    request = Request(
        model=model, chip="", engine=engine, runtime=runtime, weights=weights, kv=kv, batch=batch, prompt=prompt,
        generate=generate, depth=depth,
    )  # fmt: skip
    found = evaluate(names, request, [chip.strip() for chip in chips.split(",")])
    if json:
        print_json(evaluation_record(found))
    else:
        print_text(render_evaluation(found))


@technique_app.command("audit")
def technique_audit(
    file: Annotated[
        str | None, typer.Argument(help="Claims with the columns of the package's own file; that file without.", metavar="FILE")
    ] = None,
    target: Annotated[str, typer.Option("--chip", help="Answers for claims on other hardware.", metavar="CHIP")] = "m4max",
    json: AsJson = False,
) -> None:
    """Published claims, re-predicted on their own chip or a target, with verdicts."""
    from orchard.app.output import print_json, print_text
    from orchard.report.technique import audit_record, render_audit
    from orchard.studies.technique_audit import audit

    found = audit(file, target)
    if json:
        print_json(audit_record(found))
    else:
        print_text(render_audit(found))


def register(app: typer.Typer) -> None:
    """Add the commands to the `orchard` application."""
    app.add_typer(technique_app, name="technique")
