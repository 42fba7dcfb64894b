"""The `orchard` command.

Results go to stdout, everything else to stderr. Exit codes: 0 an answer ("does not fit" is one), 2 what the user must
correct (one sentence, no traceback), 4 a `--fail-if` condition holds, 1 our own defect (with traceback, to be reported),
130 after Ctrl-C. Command bodies import what they need, so that `--help` and errors cost no model code.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from copy import copy
from typing import Annotated

import typer
from typer.models import CommandInfo

from orchard.app import exits
from orchard.app.options import (
    Activations,
    Apply,
    AsJson,
    Assume,
    Batch,
    Breakdown,
    ChipOption,
    Depth,
    EngineOption,
    FailIf,
    Fidelity,
    Generate,
    Inputs,
    Kv,
    ModelArgument,
    ModelArguments,
    Prompt,
    RuntimeOption,
    Set,
    Steps,
    Threads,
    Weights,
)
from orchard.app.output import note, print_json, print_text, show, warn

app = typer.Typer(
    name="orchard",
    help="Predict how a machine-learning workload runs on a SoC: time, energy, memory, and what bounds them.",
    no_args_is_help=False,  # `root` prints it, as an answer
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
chips_app = typer.Typer(help="The chip catalogue; `chips show` gives sources.", rich_markup_mode=None)
app.add_typer(chips_app, name="chips", invoke_without_command=True)


@app.callback(invoke_without_command=True)
def root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version and end.", is_eager=True)] = False,
) -> None:
    if version:
        from orchard import __version__

        print_text(f"orchard {__version__}")
        raise typer.Exit()
    if context.invoked_subcommand is None:
        print_text(context.get_help())


@app.command()
def predict(
    model: ModelArgument,
    chip: ChipOption,
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
    fidelity: Fidelity = "estimate",
    set: Set = None,
    breakdown: Breakdown = False,
    fail_if: FailIf = None,
    json: AsJson = False,
) -> None:
    """Time, energy, memory and bottleneck of a model on a chip."""
    from orchard.app.conditions import end_if_any_holds, facts, parse_condition
    from orchard.studies.request import Request
    from orchard.studies.view import answered, prediction_record

    conditions = [parse_condition(text) for text in fail_if or ()]
    request = Request(
        model=model, chip=chip, runtime=runtime, engine=engine, weights=weights, activations=activations, kv=kv,
        batch=batch, prompt=prompt, generate=generate, depth=depth, threads=threads, inputs=tuple(input or ()),
        steps=steps, assume_elementwise=tuple(assume_elementwise or ()), fidelity=fidelity, overrides=tuple(set or ()),
        apply=tuple(apply or ()),
    )  # fmt: skip
    prediction, remedy = answered(request)
    record = prediction_record(prediction, remedy, breakdown=breakdown)
    known = facts(record) if conditions else {}
    broken = [c for c in conditions if c.holds(known)]
    if json:
        print_json(record)
    else:
        from orchard.report.prediction import render_prediction

        show(render_prediction(prediction, remedy, breakdown=breakdown))
    if prediction.model.others and not json:
        note(f"{model} also names {', '.join(prediction.model.others)}; give the full name to choose")
    warn([w for w in prediction.warnings if json or not w.startswith("does not fit")])
    end_if_any_holds(broken, known)


@app.command()
def compare(
    models: ModelArguments,
    chip: Annotated[
        list[str], typer.Option("--chip", help="Chips, separated by commas or repeated.", metavar="A,B,...")
    ],
    runtime: Annotated[list[str] | None, typer.Option("--runtime", help="Runtimes.", metavar="A,B,...")] = None,
    engine: Annotated[list[str] | None, typer.Option("--engine", help="Engines.", metavar="A,B,...")] = None,
    weights: Annotated[list[str] | None, typer.Option("--weights", help="Weight formats.", metavar="A,B,...")] = None,
    activations: Activations = "f16",
    kv: Kv = "f16",
    batch: Batch = 1,
    prompt: Prompt = 512,
    generate: Generate = 128,
    depth: Depth = 0,
    threads: Threads = None,
    fidelity: Fidelity = "estimate",
    set: Set = None,
    json: AsJson = False,
) -> None:
    """Models, chips, formats and runtimes side by side."""
    from orchard.studies.compare import compare as run_comparison

    comparison = run_comparison(
        split_lists(models), split_lists(chip), runtimes=split_lists(runtime) or None,
        engines=split_lists(engine) or "auto", weights=split_lists(weights) or None, activations=activations, kv=kv,
        batch=batch, prompt=prompt, generate=generate, depth=depth, threads=threads, fidelity=fidelity,
        overrides=tuple(set or ()),
    )  # fmt: skip
    if json:
        print_json(comparison.to_dict())
    else:
        from orchard.report.comparison import render_comparison

        show(render_comparison(comparison))
    warnings = dict.fromkeys(w for row in comparison.rows if row.prediction for w in row.prediction.warnings)
    warn(w for w in warnings if json or not w.startswith("does not fit"))


@app.command()
def complexity(
    model: ModelArgument,
    chip: Annotated[str | None, typer.Option("--chip", help="Say where the bound changes on this chip.")] = None,
    runtime: RuntimeOption = None,
    engine: EngineOption = "auto",
    weights: Weights = None,
    kv: Kv = "f16",
    batch: Batch = 1,
    prompt: Prompt = 512,
    depth: Depth = 0,
    set: Set = None,
    json: AsJson = False,
) -> None:
    """Closed forms of ops and bytes in batch and context."""
    from orchard.studies.complexity import complexity as closed_forms
    from orchard.studies.request import Request

    request = Request(
        model=model, chip=chip or "", runtime=runtime, engine=engine, weights=weights, kv=kv, batch=batch, prompt=prompt,
        depth=depth, overrides=tuple(set or ()),
    )  # fmt: skip
    found = closed_forms(request, with_chip=chip is not None)
    if json:
        print_json(found.to_dict())
    else:
        from orchard.report.complexity import render_complexity

        show(render_complexity(found))


@chips_app.callback()
def chips(context: typer.Context, json: AsJson = False) -> None:
    """The chip catalogue: list it, or show one chip with sources."""
    if context.invoked_subcommand is not None:
        return
    from orchard.hw import chip_summaries

    found = chip_summaries()
    if json:
        from orchard.report.records import chips_record

        print_json(chips_record(found))
    else:
        from orchard.report.chips import render_chips

        show(render_chips(found))


@chips_app.command("show")
def chips_show(
    chip: Annotated[str, typer.Argument(help="Catalogue id, name or YAML file.", metavar="CHIP")],
    set: Set = None,
    json: AsJson = False,
) -> None:
    """Every value of one chip with unit, source and kind."""
    from orchard.hw import load_chip

    soc = load_chip(chip, list(set or ()))
    if json:
        from orchard.report.records import chip_record

        print_json(chip_record(soc))
    else:
        from orchard.report.chips import render_chip

        show(render_chip(soc))


@app.command()
def models(json: AsJson = False) -> None:
    """The built-in models."""
    from orchard.studies.library import list_models

    found = list_models()
    if json:
        from orchard.report.records import models_record

        print_json(models_record(found))
    else:
        from orchard.report.models import render_models

        show(render_models(found))


def split_lists(texts: Sequence[str] | None) -> list[str]:
    """`--chip m1,m2 --chip m3` as [m1, m2, m3]. Nothing is dropped: an empty name stays and is refused as unknown."""
    return [part.strip() for text in texts or () for part in text.split(",")]


OPTIONAL = (
    "orchard.app.validate_command",
    "orchard.app.calibrate_commands",
    "orchard.app.measure_commands",
    "orchard.app.map_commands",
    "orchard.app.bounds_command",
    "orchard.app.inspect_command",
    "orchard.app.lint_commands",
    "orchard.app.area_command",
    "orchard.app.explore_commands",
    "orchard.app.sensitivity_commands",
    "orchard.app.place_commands",
    "orchard.app.simulate_commands",
    "orchard.app.technique_commands",
    "orchard.app.advise_command",
    "orchard.app.experiment_commands",
    "orchard.app.propose_command",
    "orchard.app.report_command",
    "orchard.app.apply_command",
    "orchard.app.lab_commands",
)
"""Commands with a module of their own: each has `register(app)`."""


def _register_optional() -> None:
    from importlib import import_module
    from importlib.util import find_spec

    for name in OPTIONAL:
        if find_spec(name) is not None:
            import_module(name).register(app)


_register_optional()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code. The console script exits with it.

    `package.module:function` may name a module of the working directory; it comes last, so that it shadows nothing.
    """
    here = os.getcwd()
    if here not in sys.path:
        sys.path.append(here)
    given = sys.argv[1:] if arguments is None else list(arguments)
    return exits.run(typer.main.get_command(_only(given[0]) if given else app), given)


def _only(name: str) -> typer.Typer:
    """The application with nothing but the command of this name, or all of it: building the others takes 40 ms."""
    mine = copy(app)
    mine.registered_commands = [c for c in app.registered_commands if _name(c) == name]
    mine.registered_groups = [g for g in app.registered_groups if g.name == name]
    return mine if mine.registered_commands or mine.registered_groups else app


def _name(command: CommandInfo) -> str:
    return command.name or (command.callback.__name__ if command.callback else "").replace("_", "-")


if __name__ == "__main__":
    raise SystemExit(main())
