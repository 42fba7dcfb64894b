"""`orchard advise`: what to change, by how much it helps, and how to make it real."""

from __future__ import annotations

from typing import Annotated

import typer

from orchard.app.options import (
    ANSWER,
    Activations,
    Apply,
    AsJson,
    Assume,
    Batch,
    ChipOption,
    Depth,
    EngineOption,
    Generate,
    Inputs,
    Kv,
    ModelArgument,
    Prompt,
    RuntimeOption,
    Set,
    Steps,
    Threads,
    Weights,
)


def advise_command(
    model: ModelArgument,
    chip: ChipOption,
    goal: Annotated[
        str | None,
        typer.Option(
            "--goal", help="'ttft<0.5s, tokens_per_s>30, memory<2GB'; also latency, throughput, energy.", metavar="GOALS",
            rich_help_panel=ANSWER,
        ),
    ] = None,
    top: Annotated[
        str, typer.Option("--top", help="Recommendations to print; --json has all.", metavar="N", rich_help_panel=ANSWER)
    ] = "5",
    runtime: RuntimeOption = None,
    engine: EngineOption = "auto",
    weights: Weights = None,
    activations: Activations = "f16",
    kv: Kv = "f16",
    batch: Batch = 1,
    prompt: Prompt = 512,
    generate: Generate = 128,
    depth: Depth = 0,
    threads: Threads = None,
    input: Inputs = None,
    steps: Steps = None,
    assume_elementwise: Assume = None,
    apply: Apply = None,
    set: Set = None,
    json: AsJson = False,
) -> None:  # fmt: skip
    """What to change so that a model runs better on a chip: gain, risk, reason, command."""
    from orchard.app.output import print_json, print_text, warn
    from orchard.report.advice import render_advice
    from orchard.studies.advise import advise
    from orchard.studies.request import Request
    from orchard.units import parse_count

    most = parse_count(top, where="--top", positive=True)
    request = Request(
        model=model, chip=chip, runtime=runtime, engine=engine, weights=weights, activations=activations, kv=kv,
        batch=batch, prompt=prompt, generate=generate, depth=depth, threads=threads, inputs=tuple(input or ()),
        steps=steps, assume_elementwise=tuple(assume_elementwise or ()), overrides=tuple(set or ()),
        apply=tuple(apply or ()),
    )  # fmt: skip
    found = advise(request, goal)
    if json:
        print_json(found.to_dict())
    else:
        print_text(render_advice(found, most))
    warn(found.warnings)


def register(app: typer.Typer) -> None:
    """Add the command to the `orchard` application."""
    app.command("advise")(advise_command)
