"""`orchard report`: a prediction, advice or an exploration as a file that can be sent around."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orchard.app.options import (
    ANSWER,
    Activations,
    Apply,
    AsJson,
    Assume,
    Batch,
    Depth,
    EngineOption,
    Fidelity,
    Generate,
    Inputs,
    Kv,
    Prompt,
    RuntimeOption,
    Set,
    Steps,
    Threads,
    Weights,
)
from orchard.units import OrchardError, did_you_mean, format_bytes

if TYPE_CHECKING:
    from orchard.report.paper.document import Document
    from orchard.studies.request import Request

FORMATS = ("html", "md", "pdf", "csv")
LARGEST_RECORD = 64 * 2**20


def report_command(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE", help="A model (with --chip), the JSON of `predict` or `advise`, or the folder of a run."
        ),
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="The file to write.", metavar="FILE", rich_help_panel=ANSWER)
    ],
    format: Annotated[
        str | None,
        typer.Option("--format", help="html, md, pdf or csv; else what FILE ends in.", metavar="F", rich_help_panel=ANSWER),
    ] = None,
    browser: Annotated[
        str | None,
        typer.Option("--browser", help="The browser that prints PDF.", metavar="PROGRAM", rich_help_panel=ANSWER),
    ] = None,
    chip: Annotated[str | None, typer.Option("--chip", help="For a model: the chip.", metavar="CHIP")] = None,
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
    json: AsJson = False,
) -> None:  # fmt: skip
    """One file to send around: HTML without scripts, Markdown, PDF or CSV."""
    from orchard.app.output import print_json, print_text
    from orchard.studies.request import Request

    kind = _format(format, output)
    _check_target(output)
    request = None
    if chip is not None:
        request = Request(
            model=source, chip=chip, runtime=runtime, engine=engine, weights=weights, activations=activations, kv=kv,
            batch=batch, prompt=prompt, generate=generate, depth=depth, threads=threads, inputs=tuple(input or ()),
            steps=steps, assume_elementwise=tuple(assume_elementwise or ()), fidelity=fidelity, overrides=tuple(set or ()),
            apply=tuple(apply or ()),
        )  # fmt: skip
    document = _document(source, request)
    _write(document, kind, output, browser)
    if json:
        size = output.stat().st_size
        print_json(
            {"schema": "orchard.report/1", "file": str(output), "format": kind, "title": document.title, "bytes": size}
        )
    else:
        print_text(f"{output}\n  {document.title}, {format_bytes(output.stat().st_size)}")


def _format(asked: str | None, output: Path) -> str:
    found = (asked or output.suffix.lstrip(".") or "html").lower()
    found = {"htm": "html", "markdown": "md"}.get(found, found)
    if found not in FORMATS:
        where = f"--format {asked[:20]!r}" if asked else f"{str(output)[:100]!r}"
        raise OrchardError(f"{where}: expected {', '.join(FORMATS)}{did_you_mean(found, FORMATS)}")
    return found


def _check_target(output: Path) -> None:
    if output.is_dir() or not output.absolute().parent.is_dir():
        why = "is a folder" if output.is_dir() else "its folder does not exist"
        raise OrchardError(f"-o {str(output)[:200]!r}: {why}; name a file in a folder that exists")


def _document(source: str, request: Request | None) -> Document:
    """From a model and chip, a record or a run."""
    from orchard.report.paper.content import prediction_document
    from orchard.studies.dossier import dossier, dossier_of_record, versions

    if request is not None:
        return prediction_document(dossier(request))
    path = Path(source)
    if path.is_dir():
        from orchard.report.paper.run import run_document

        return run_document(path, versions())
    if not path.is_file():
        raise OrchardError(f"{source[:100]!r}: no such file or folder; for a report on a model give --chip")
    record = read_record(path, READABLE)
    if record["schema"] == "orchard.advice/1":
        from orchard.report.paper.advice import advice_document

        return advice_document(record, versions())
    return prediction_document(dossier_of_record(record))


READABLE = ("orchard.prediction/1", "orchard.advice/1")


def read_record(path: Path, readable: tuple[str, ...]) -> dict[str, Any]:
    """A record that a command printed with --json, checked against its schema. Raises OrchardError."""
    import json

    from pydantic import ValidationError

    from orchard.report.schemas import SCHEMAS

    if not path.is_file():
        raise OrchardError(f"{str(path)[:100]!r}: no such file")
    if path.stat().st_size > LARGEST_RECORD:
        raise OrchardError(
            f"{path}: larger than {LARGEST_RECORD // 2**20} MiB, expected the JSON of `orchard predict`"
        )
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise OrchardError(
            f"{path}: no JSON ({type(error).__name__}); for a report on a model file give --chip"
        ) from None
    schema = found.get("schema") if isinstance(found, dict) else None
    if schema not in readable:
        raise OrchardError(f"{path}: schema {str(schema)[:60]!r}, expected {' or '.join(readable)}")
    try:
        SCHEMAS[str(schema)].model_validate_json(json.dumps(found))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(p) for p in first["loc"])
        raise OrchardError(f"{path}: {where}: {first['msg'].lower()} (schema {schema})") from None
    return dict(found)


def _write(document: Document, kind: str, output: Path, browser: str | None) -> None:
    """Raises OrchardError where the file cannot be written."""
    from orchard.report.paper.flat import csv_text, markdown
    from orchard.report.paper.page import html

    try:
        if kind == "pdf":
            from orchard.report.paper.pdf import write_pdf

            write_pdf(html(document), output, browser)
        else:
            output.write_text({"html": html, "md": markdown, "csv": csv_text}[kind](document), encoding="utf-8")
    except OSError as error:
        raise OrchardError(f"-o {str(output)[:200]!r}: cannot be written ({error.strerror})") from None


def register(app: typer.Typer) -> None:
    """Add the command to the `orchard` application."""
    app.command("report")(report_command)
