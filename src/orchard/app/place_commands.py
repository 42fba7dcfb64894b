"""`orchard place`: which engine runs which op."""

from __future__ import annotations

from typing import Annotated

import typer

from orchard.app.options import (
    ANSWER,
    MACHINE,
    WORKLOAD,
    Activations,
    AsJson,
    Batch,
    ChipOption,
    Depth,
    Generate,
    Inputs,
    Kv,
    ModelArgument,
    Prompt,
    RuntimeOption,
    Set,
    Steps,
    Weights,
)


def place_command(
    model: ModelArgument,
    chip: ChipOption,
    objective: Annotated[
        str, typer.Option("--objective", help="latency, energy or edp (their product).", metavar="GOAL", rich_help_panel=ANSWER)
    ] = "latency",
    engines: Annotated[
        str,
        typer.Option(
            "--engines", help="Engines to use, or a Core ML compute unit.", metavar="A,B,...", rich_help_panel=MACHINE
        ),
    ] = "cpu,gpu,ane",
    precision: Annotated[
        str,
        typer.Option(
            "--precision", help="auto, stored (as the model says) or f16 (32-bit ops in FP16).", metavar="P",
            rich_help_panel=WORKLOAD,
        ),
    ] = "auto",
    runtime: RuntimeOption = None,
    weights: Weights = None,
    activations: Activations = "f16",
    kv: Kv = "f16",
    batch: Batch = 1,
    prompt: Prompt = 512,
    generate: Generate = 128,
    depth: Depth = 0,
    steps: Steps = None,
    input: Inputs = None,
    set: Set = None,
    plan: Annotated[
        str | None,
        typer.Option("--plan", help="Compute plan (JSON) of Core ML or Core AI to compare with.", metavar="FILE"),
    ] = None,
    time_limit: Annotated[
        float, typer.Option("--time-limit", help="Seconds for each proof.", metavar="S", rich_help_panel=ANSWER)
    ] = 30.0,
    json: AsJson = False,
) -> None:  # fmt: skip
    """The best engine for each op, with proof, reasons and alternatives."""
    from orchard.app.output import print_json, show, warn
    from orchard.studies.place import answer_placement
    from orchard.studies.request import Request

    request = Request(
        model=model, chip=chip, runtime=runtime, weights=weights, activations=activations, kv=kv, batch=batch,
        prompt=prompt, generate=generate, depth=depth, steps=steps, inputs=tuple(input or ()), overrides=tuple(set or ()),
    )  # fmt: skip
    found = answer_placement(
        request, objective=objective, engines=engines, precision=precision, plan=plan, time_limit_s=time_limit
    )
    if json:
        print_json(found.to_dict())
    else:
        from orchard.report.place import render_placement

        show(render_placement(found))
    warn(found.warnings)


def register(app: typer.Typer) -> None:
    """Add the command to the `orchard` application."""
    app.command("place")(place_command)
