"""`orchard explore` and `orchard runs`: studies over chip designs."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from orchard.app.options import AsJson, FailIf
from orchard.app.output import note, print_json, show, warn
from orchard.units import OrchardError

RUNS = Path("orchard-runs")
"""Where runs go unless --out says otherwise."""

runs_app = typer.Typer(help="Stored explorations: list, show, compare, resume, export.", no_args_is_help=True)

Workers = Annotated[int, typer.Option("--workers", help="Processes to evaluate with.", metavar="N", min=1, max=1024)]
Backend = Annotated[str, typer.Option("--backend", help="loky (this machine), dask or ray.", metavar="NAME")]
Address = Annotated[str | None, typer.Option("--address", help="A running dask or ray cluster.", metavar="ADDRESS")]
Points = Annotated[int, typer.Option("--points", help="Front points to print.", metavar="N", min=1)]
RunFolder = Annotated[Path, typer.Argument(help="Folder of the run.", metavar="RUN")]


def explore(
    study: Annotated[Path, typer.Argument(help="Study file.", metavar="STUDY.yaml")],
    out: Annotated[Path | None, typer.Option("--out", help="Folder of the run.", metavar="DIR")] = None,
    workers: Workers = 1,
    backend: Backend = "loky",
    address: Address = None,
    points: Points = 8,
    fail_if: FailIf = None,
    json: AsJson = False,
) -> None:
    """Which chip should be built: evaluate designs, print the Pareto front."""
    from orchard.app.conditions import end_if_any_holds, exploration_facts, parse_condition
    from orchard.report.explore import exploration_record
    from orchard.studies.explore.run import study_hash
    from orchard.studies.explore.study import read_study

    conditions = [parse_condition(text) for text in fail_if or ()]
    read = read_study(study)
    folder = out or RUNS / f"{_slug(read.name)}-{study_hash(read)[:8]}"
    outcome = _run(read, folder, workers, backend, address, points, json)
    if conditions:
        end_if_any_holds(conditions, exploration_facts(exploration_record(outcome)))


def _slug(name: str) -> str:
    return "".join(c if c.isalnum() or c in "-_" else "-" for c in name)[:60] or "study"


def _run(study: Any, folder: Path, workers: int, backend: str, address: str | None, points: int, json: bool) -> Any:
    from orchard.report.explore import exploration_record, render_exploration
    from orchard.studies.explore.run import BACKENDS, Pool
    from orchard.studies.explore.run import explore as run
    from orchard.units import did_you_mean

    if backend not in BACKENDS:
        raise OrchardError(f"--backend {backend!r} is not known{did_you_mean(backend, BACKENDS)}; expected {', '.join(BACKENDS)}")
    if address and backend == "loky":
        raise OrchardError("--address names a cluster: add --backend dask or --backend ray")
    with _progress() as advance:
        outcome = run(study, folder, pool=Pool(workers=workers, backend=backend, address=address), progress=advance)
    if json:
        print_json(exploration_record(outcome))
    else:
        show(render_exploration(outcome, points=points))
    warn(outcome.warnings)
    return outcome


@contextmanager
def _progress() -> Iterator[Any]:
    """A bar with rate and time left on a terminal, nothing elsewhere."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from orchard.report.layout import make_console

    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]}"), TimeRemainingColumn())
    with Progress(*columns, console=make_console(sys.stderr), transient=True) as bar:
        task = bar.add_task("designs", total=None, rate="")

        def advance(done: int, total: int) -> None:
            speed = bar.tasks[0].speed or 0.0
            bar.update(task, completed=done, total=total, rate=f"{speed:,.0f}/s")

        yield advance


@runs_app.command("list")
def runs_list(
    root: Annotated[Path, typer.Argument(help="Folder that holds runs.", metavar="DIR")] = RUNS, json: AsJson = False
) -> None:
    """Stored runs, newest first."""
    from orchard.report.explore import render_runs, runs_record
    from orchard.studies.explore.runs import list_runs

    if root != RUNS and not root.is_dir():
        raise OrchardError(f"{root}: no such folder; expected one that holds runs")
    found = list_runs(root)
    if json:
        print_json(runs_record(found))
    elif found:
        show(render_runs(found))
    else:
        note(f"no runs in {root}")


@runs_app.command("show")
def runs_show(run: RunFolder, points: Points = 8, json: AsJson = False) -> None:
    """The result of a complete run."""
    from orchard.studies.explore.runs import open_run

    study, store = open_run(run)
    if store.manifest()["state"] != "complete":
        raise OrchardError(f"{run}: the run is not complete; finish it with 'orchard runs resume {run}'")
    if lost := store.lost(store.manifest()):
        raise OrchardError(f"{run}: part {lost[0]} is missing; evaluate it again with 'orchard runs resume {run}'")
    _run(study, run, 1, "loky", None, points, json)


@runs_app.command("resume")
def runs_resume(
    run: RunFolder, workers: Workers = 1, backend: Backend = "loky", address: Address = None, points: Points = 8,
    json: AsJson = False,
) -> None:  # fmt: skip
    """Go on with a run that was stopped; the result is that of a run never stopped."""
    from orchard.studies.explore.runs import open_run

    study, _ = open_run(run)
    _run(study, run, workers, backend, address, points, json)


@runs_app.command("compare")
def runs_compare(
    first: Annotated[Path, typer.Argument(help="A complete run.", metavar="FIRST")],
    second: Annotated[Path, typer.Argument(help="Another.", metavar="SECOND")],
    json: AsJson = False,
) -> None:
    """Two runs: best designs, how much of each front the other covers."""
    from orchard.report.explore import comparison_record, render_comparison
    from orchard.studies.explore.runs import compare_runs

    found = compare_runs(first, second)
    if json:
        print_json(comparison_record(found))
    else:
        show(render_comparison(found))


@runs_app.command("export")
def runs_export(
    run: RunFolder,
    file: Annotated[Path, typer.Argument(help="Target: .csv, .parquet or .json.", metavar="FILE")],
    front: Annotated[bool, typer.Option("--front", help="Only the Pareto front.")] = False,
) -> None:
    """Write the stored designs to a file."""
    from orchard.studies.explore.runs import export

    count = export(run, file, only_front=front)
    note(f"wrote {count:,} designs to {file}")


def register(app: typer.Typer) -> None:
    app.command("explore")(explore)
    app.add_typer(runs_app, name="runs")
