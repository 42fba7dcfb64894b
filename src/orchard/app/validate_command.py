"""`orchard validate`: predicted against measured."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from orchard.app.options import AsJson
from orchard.app.output import note, print_json, print_text, show
from orchard.units import OrchardError, did_you_mean

SUITES = ("llm", "vision", "kernels", "sustained", "architecture", "advice")


def validate(
    suite: Annotated[
        str,
        typer.Option(
            "--suite", help="Which measurements: llm, vision, kernels, sustained, architecture or advice.", metavar="NAME"
        ),
    ] = "llm",
    rows: Annotated[
        Path | None, typer.Option("--rows", help="Another CSV with the columns of the packaged one.", metavar="FILE")
    ] = None,
    refit: Annotated[bool, typer.Option("--refit", help="Make the left-out fits again (minutes).")] = False,
    plot: Annotated[
        Path | None, typer.Option("--plot", help="Write predicted against measured as SVG.", metavar="FILE.svg")
    ] = None,
    measured: Annotated[
        Path | None,
        typer.Option("--measured", help="A run of `orchard measure`: predict its whole models.", metavar="RUN"),
    ] = None,
    chip: Annotated[
        str | None, typer.Option("--chip", help="With --measured: a calibrated machine; default: a fit of RUN itself.")
    ] = None,
    ops: Annotated[bool, typer.Option("--ops", help="With --measured: operations that miss most, per model.")] = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="The left-out table as Markdown, for a README.")] = False,
    json: AsJson = False,
) -> None:
    """Predicted against measured: the error table."""
    if plot is not None and not plot.absolute().parent.is_dir():
        raise OrchardError(f"--plot {str(plot)[:100]!r}: the folder {str(plot.parent)[:100]!r} does not exist")
    if measured is not None:
        _measured(measured, chip, ops, plot, json, {"--rows": rows, "--refit": refit, "--markdown": markdown})
        return
    for option, given in (("--chip", chip), ("--ops", ops)):
        if given:
            raise OrchardError(f"{option}: goes with --measured RUN only")
    if suite not in SUITES:
        raise OrchardError(f"--suite {suite[:40]!r} is not known{did_you_mean(suite, SUITES)}; expected {', '.join(SUITES)}")
    if suite in ("sustained", "architecture", "advice"):
        _own_table(suite, json, {"--rows": rows, "--refit": refit, "--plot": plot, "--markdown": markdown})
        return
    from orchard.studies.validate import validate as run_validation

    report = run_validation(suite, rows_file=rows, refit=refit)
    if plot is not None:
        write_plot(report, plot)
    if json:
        from orchard.report.validation import validation_record

        print_json(validation_record(report))
    elif markdown:
        from orchard.report.validation import markdown_table

        print_text(markdown_table(report))
    else:
        from orchard.report.validation import render_validation

        show(render_validation(report))


def _measured(run: Path, chip: str | None, ops: bool, plot: Path | None, json: bool, others: dict[str, object]) -> None:
    """Models of a run against their predictions."""
    given = [name for name, value in others.items() if value]
    if given:
        raise OrchardError(f"{given[0]}: does not go with --measured")
    from orchard.report.measurement import measured_record, render_measured
    from orchard.studies.measured import validate_measured

    report = validate_measured(str(run), chip)
    if plot is not None:
        from orchard.report.measurement import measured_points
        from orchard.report.plot import scatter_svg

        title = "Orchard: predicted and measured, models that no fit saw"
        _write_svg(scatter_svg(measured_points(report), title=title), plot)
    if json:
        print_json(measured_record(report))
    else:
        show(render_measured(report, ops))


def _own_table(suite: str, json: bool, others: dict[str, object]) -> None:
    """Suites with a table of their own, for which the other options mean nothing."""
    given = [name for name, value in others.items() if value]
    if given:
        raise OrchardError(f"{given[0]}: the suite {suite} has only --json")
    {"sustained": _sustained, "architecture": _architecture, "advice": _advice}[suite](json)


def _sustained(json: bool) -> None:
    """The simulator against sustained and shared workloads."""
    from orchard.studies.sustained import compare_sustained

    found = compare_sustained()
    if json:
        print_json(found.to_dict())
    else:
        from orchard.report.sustained import render_sustained

        show(render_sustained(found))


def _architecture(json: bool) -> None:
    """The history test: gains between real chips, predicted and measured."""
    from orchard.report.architecture import architecture_record, render_architecture
    from orchard.studies.architecture import architecture

    report = architecture()
    if json:
        print_json(architecture_record(report))
    else:
        show(render_architecture(report))


def _advice(json: bool) -> None:
    """Advice against published times before and after one change."""
    from orchard.studies.advice.cases import validate_advice

    found = validate_advice()
    if json:
        print_json(found.to_dict())
    else:
        from orchard.report.advice import render_advice_checks

        print_text(render_advice_checks(found))


def write_plot(report: Any, path: Path) -> None:
    """Raises OrchardError where the file cannot be written."""
    from orchard.report.plot import scatter_svg

    _write_svg(scatter_svg(report.points, title=f"Orchard: predicted and measured, suite {report.suite}"), path)


def _write_svg(drawing: str, path: Path) -> None:
    try:
        path.write_text(drawing, "utf-8")
    except (OSError, ValueError) as error:
        raise OrchardError(
            f"--plot {str(path)[:100]!r}: cannot be written ({getattr(error, 'strerror', error)})"
        ) from None
    note(f"wrote {path}")


def register(app: typer.Typer) -> None:
    app.command("validate")(validate)
