"""`orchard experiment`: designed experiments on quality, run here."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from orchard.app.options import AsJson
from orchard.app.output import note, print_json, print_text
from orchard.units import OrchardError

experiment_app = typer.Typer(
    help="Designed experiments on quality: list, run, report.", rich_markup_mode=None, no_args_is_help=True
)


@experiment_app.command("list")
def experiment_list(json: AsJson = False) -> None:
    """The built-in experiments."""
    from orchard.report.experiment import experiments_record, render_experiments
    from orchard.studies.experiment.study import builtin

    found = builtin().values()
    if json:
        print_json(experiments_record(found))
    else:
        print_text(render_experiments(found))


@experiment_app.command("run")
def experiment_run(
    experiment: Annotated[str, typer.Argument(help="E1, E2, ... or a .yaml file.", metavar="NAME")],
    out: Annotated[Path | None, typer.Option("--out", help="Folder of the run.", metavar="DIR")] = None,
    scale: Annotated[str, typer.Option("--scale", help="Training: quick or full.", metavar="NAME")] = "full",
    seeds: Annotated[str | None, typer.Option("--seeds", help="Training seeds: 0,1,2.", metavar="A,B")] = None,
    sequences: Annotated[
        int | None, typer.Option("--sequences", help="Sequences to score.", metavar="N", min=2)
    ] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Score text kept apart for confirming.")] = False,
    model: Annotated[
        str, typer.Option("--model", help="Your model: a folder or module:function.", metavar="PATH")
    ] = "",
    data: Annotated[str, typer.Option("--data", help="Your text, or token ids as .npy.", metavar="FILE")] = "",
    workers: Annotated[int, typer.Option("--workers", help="Processes.", metavar="N", min=1, max=1024)] = 1,
    backend: Annotated[str, typer.Option("--backend", help="loky, dask or ray.", metavar="NAME")] = "loky",
    address: Annotated[str | None, typer.Option("--address", help="A running cluster.", metavar="ADDRESS")] = None,
    json: AsJson = False,
) -> None:
    """Run an experiment, or go on with one that was stopped; print what it says."""
    from orchard.studies.experiment.run import run
    from orchard.studies.experiment.study import find

    if scale not in ("quick", "full"):
        raise OrchardError(f"--scale {scale!r} is not known; expected quick or full")
    if bool(model) != bool(data):
        raise OrchardError("--model and --data belong together: a model of your own is scored on a text of your own")
    asked = replace(find(experiment), scale="quick" if scale == "quick" else "full")
    if seeds is not None:
        asked = replace(asked, seeds=_seeds(seeds))
    if sequences is not None:
        asked = replace(asked, sequences=sequences)
    if fresh:
        asked = replace(asked, held="fresh")
    if model:
        asked = replace(asked, claims=())
    folder = out or Path("orchard-runs") / f"{asked.name}-{scale}"
    _print(run(asked, folder, pool=_pool(workers, backend, address), progress=_progress, model=model, data=data), json)


def _seeds(text: str) -> tuple[int, ...]:
    parts = text.split(",")
    if not all(p.strip().isdecimal() for p in parts) or len(set(parts)) < len(parts):
        raise OrchardError(f"--seeds {text!r}, expected different whole numbers such as 0,1,2")
    return tuple(int(p) for p in parts)


def _pool(workers: int, backend: str, address: str | None) -> Any:
    from orchard.studies.explore.run import BACKENDS, Pool

    if backend not in BACKENDS:
        raise OrchardError(f"--backend {backend!r} is not known; expected {', '.join(BACKENDS)}")
    if address and backend == "loky":
        raise OrchardError("--address names a cluster: add --backend dask or --backend ray")
    return Pool(workers=workers, backend=backend, address=address)


def _progress(what: str, done: int, total: int) -> None:
    print(f"orchard: {done} of {total}: {what}", file=sys.stderr, flush=True)


def _print(outcome: Any, json: bool) -> None:
    from orchard.report.experiment import experiment_record, render_findings
    from orchard.studies.experiment.findings import findings

    found = findings(outcome)
    if json:
        print_json(experiment_record(found))
    else:
        print_text(render_findings(found))


@experiment_app.command("report")
def experiment_report(
    run: Annotated[Path, typer.Argument(help="Folder of a run.", metavar="RUN")],
    plots: Annotated[Path | None, typer.Option("--plots", help="Write drawings (SVG) there.", metavar="DIR")] = None,
    effects: Annotated[Path | None, typer.Option("--effects", help="Write losses as CSV.", metavar="FILE")] = None,
    json: AsJson = False,
) -> None:
    """Effects, interactions, intervals, equivalence and claims of a run."""
    from orchard.studies.experiment.effects import effects_of, write_effects
    from orchard.studies.experiment.findings import findings
    from orchard.studies.experiment.run import load

    outcome = load(run)
    if plots is not None:
        _plots(outcome, plots)
    if effects is not None:
        rows = effects_of(findings(outcome))
        write_effects(effects, rows)
        note(f"wrote {len(rows)} rows to {effects}")
    _print(outcome, json)


def _plots(outcome: Any, folder: Path) -> None:
    from orchard.report.experiment_plot import arms_svg, interaction_svg
    from orchard.studies.experiment.findings import findings

    found = findings(outcome)
    drawings = {"arms.svg": arms_svg(found)}
    for fixture in found.effects:
        drawing = interaction_svg(found, fixture)
        if drawing is not None:
            drawings[f"interaction-{fixture}.svg"] = drawing
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in drawings.items():
            (folder / name).write_text(text, encoding="utf-8")
    except OSError as error:
        raise OrchardError(f"--plots {folder}: cannot be written: {error.strerror}") from None
    note(f"wrote {', '.join(drawings)} to {folder}")


@experiment_app.command("effects")
def experiment_effects(
    technique: Annotated[str, typer.Argument(help="A technique, with options or without.", metavar="NAME")] = "",
    json: AsJson = False,
) -> None:
    """Recorded quality effects: what a technique costs in loss."""
    from orchard.report.experiment import effects_record, render_effects
    from orchard.studies.experiment.effects import quality_effects, recorded
    from orchard.units import did_you_mean

    rows = quality_effects(technique) if technique else recorded()
    if not rows:
        names = list(dict.fromkeys(e.name for e in recorded()))
        hint = did_you_mean(technique.partition(":")[0], names)
        raise OrchardError(f"no recorded effect of {technique!r}{hint}; there are some of {', '.join(names)}")
    if json:
        print_json(effects_record(rows))
    else:
        print_text(render_effects(rows))


def register(app: typer.Typer) -> None:
    """Add the commands to the `orchard` application."""
    app.add_typer(experiment_app, name="experiment")
