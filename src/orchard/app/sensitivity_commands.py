"""`orchard sensitivity` and `orchard whatif`: which figure of a chip pays."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from orchard.app.options import AsJson, ChipOption, EngineOption, Generate, Prompt, RuntimeOption, Set, Weights
from orchard.app.output import print_json, show
from orchard.units import OrchardError

Models = Annotated[list[str] | None, typer.Argument(help="Models, as for `predict`.", metavar="MODEL...")]
Workloads = Annotated[
    Path | None, typer.Option("--workloads", help="A basket: the `workloads` of a study file.", metavar="FILE.yaml")
]


def sensitivity(
    chip: ChipOption,
    models: Models = None,
    workloads: Workloads = None,
    figure: Annotated[
        list[str] | None, typer.Option("--figure", help="Only this figure. May be repeated.", metavar="PATH")
    ] = None,
    sobol: Annotated[int, typer.Option("--sobol", help="Sobol indices with this base sample.", metavar="N", min=0)] = 0,
    span: Annotated[str, typer.Option("--span", help="Range of the Sobol study, as factors.", metavar="LOW,HIGH")] = "0.7,1.4",
    engine: EngineOption = "auto",
    runtime: RuntimeOption = None,
    weights: Weights = None,
    prompt: Prompt = 512,
    generate: Generate = 128,
    set: Set = None,
    json: AsJson = False,
) -> None:
    """What 1 % more of each figure of a chip gives."""
    from orchard.report.sensitivity import render_sensitivity, sensitivity_record
    from orchard.studies.explore.basket import basket_of
    from orchard.studies.explore.sensitivity import sensitivity as study

    options: dict[str, object] = {
        "engine": engine, "runtime": runtime, "weights": weights, "prompt": prompt, "generate": generate,
    }  # fmt: skip
    overrides = tuple(set or ())
    basket = basket_of(tuple(models or ()), workloads, chip, overrides, options)
    found = study(chip, basket, overrides=overrides, figures=tuple(figure or ()), samples=sobol, span=_span(span))
    if json:
        print_json(sensitivity_record(found))
    else:
        show(render_sensitivity(found))


def _span(text: str) -> tuple[float, float]:
    try:
        low, high = (float(part) for part in text.split(","))
    except ValueError:
        low = high = 0.0
    if not 0 < low < high <= 1000:
        raise OrchardError(f"--span {text[:40]!r}: expected two rising factors such as 0.7,1.4")
    return low, high


def whatif(
    chip: ChipOption,
    models: Models = None,
    workloads: Workloads = None,
    set: Set = None,
    engine: EngineOption = "auto",
    runtime: RuntimeOption = None,
    weights: Weights = None,
    prompt: Prompt = 512,
    generate: Generate = 128,
    json: AsJson = False,
) -> None:
    """What changes of a chip give, each alone and together."""
    from orchard.report.sensitivity import render_what_if, what_if_record
    from orchard.studies.explore.basket import basket_of
    from orchard.studies.explore.whatif import what_if

    options: dict[str, object] = {
        "engine": engine, "runtime": runtime, "weights": weights, "prompt": prompt, "generate": generate,
    }  # fmt: skip
    basket = basket_of(tuple(models or ()), workloads, chip, (), options)
    found = what_if(chip, basket, tuple(set or ()))
    if json:
        print_json(what_if_record(found, basket))
    else:
        show(render_what_if(found, basket))


def register(app: typer.Typer) -> None:
    app.command("sensitivity")(sensitivity)
    app.command("whatif")(whatif)
