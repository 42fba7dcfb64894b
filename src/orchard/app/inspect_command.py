"""`orchard inspect`: what is in a model file or a built-in model."""

from __future__ import annotations

from typing import Annotated

import typer

from orchard.app.options import AsJson, Assume, Inputs, ModelArgument, Weights
from orchard.app.output import print_json, print_text, warn


def inspect(
    model: ModelArgument,
    input: Inputs = None,
    weights: Weights = None,
    assume_elementwise: Assume = None,
    engines: Annotated[
        str | None,
        typer.Option("--engines", help="Which engine of this chip takes each op, and why not.", metavar="CHIP"),
    ] = None,
    part: Annotated[str | None, typer.Option("--part", help="A part of a model of several.", metavar="NAME")] = None,
    tree: Annotated[bool, typer.Option("--tree", help="Ops, parameters and MACs by module.")] = False,
    depth: Annotated[int, typer.Option("--depth", help="Levels of the tree to show.", metavar="N")] = 3,
    graph: Annotated[bool, typer.Option("--graph/--no-graph", help="The whole graph in text form, last.")] = True,
    json: AsJson = False,
) -> None:
    """The graph of a model: op kinds, parameters, MACs, free sizes, modules, engines per op."""
    from orchard.report.inspect import inspection_record, render_inspection
    from orchard.studies.inspect import inspect as look

    found = look(
        model, inputs=tuple(input or ()), weights=weights, assume_elementwise=tuple(assume_elementwise or ()),
        engines_of=engines, part=part,
    )  # fmt: skip
    if json:
        print_json(inspection_record(found, graph=graph))
    else:
        print_text(render_inspection(found, tree=tree, depth=depth, graph=graph))
    warn(found.warnings)


def register(app: typer.Typer) -> None:
    app.command("inspect")(inspect)
