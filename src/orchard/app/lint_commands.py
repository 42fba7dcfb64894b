"""`orchard lint`: what to change so that a model stays on an engine."""

from __future__ import annotations

from typing import Annotated

import typer

from orchard.app.options import AsJson, Assume, Batch, ChipOption, Inputs, ModelArgument, Prompt, Weights


def lint_command(
    model: ModelArgument,
    chip: ChipOption,
    target: Annotated[str, typer.Option("--target", help="The engine: ane, gpu or cpu.", metavar="ENGINE")] = "ane",
    input: Inputs = None,
    weights: Weights = None,
    batch: Batch = 1,
    prompt: Prompt = 512,
    assume_elementwise: Assume = None,
    json: AsJson = False,
) -> None:
    """What keeps ops of a model off an engine or slows them there, what to change, and what that saves."""
    from orchard.app.output import print_json, print_text
    from orchard.report.lint import lint_record, render_lint
    from orchard.studies.lint import lint

    report = lint(
        model, chip, target=target, inputs=tuple(input or ()), weights=weights, batch=batch, prompt=prompt,
        assume_elementwise=tuple(assume_elementwise or ()),
    )  # fmt: skip
    if json:
        print_json(lint_record(report))
    else:
        print_text(render_lint(report))


def register(app: typer.Typer) -> None:
    """Add the command to the `orchard` application."""
    app.command("lint")(lint_command)
