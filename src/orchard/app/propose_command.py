"""`orchard propose`: ideas for a model on your chips, priced, tried and judged."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from orchard.app.options import AsJson
from orchard.app.output import note, print_json, print_text
from orchard.units import OrchardError

ENGINES = ("gpu", "cpu", "ane")


def propose(
    model: Annotated[str, typer.Option("--model", help="A language model (`orchard models`).", metavar="MODEL")],
    chip: Annotated[list[str], typer.Option("--chip", help="Chips, by commas or repeated.", metavar="A,B,...")],
    engine: Annotated[str, typer.Option("--engine", help="Engines, by commas.", metavar="A,B")] = "gpu",
    budget: Annotated[float | None, typer.Option("--budget", help="Most loss, nats per token.", metavar="NATS")] = None,
    depth: Annotated[int, typer.Option("--depth", help="Tokens cached.", metavar="N", min=0)] = 0,
    scale: Annotated[str, typer.Option("--scale", help="Training: quick or full.", metavar="NAME")] = "full",
    sequences: Annotated[int, typer.Option("--sequences", help="Sequences to score.", metavar="N", min=16)] = 64,
    out: Annotated[Path, typer.Option("--out", help="Folder of the sheets.", metavar="DIR")] = Path("orchard-ideas"),
    json: AsJson = False,
) -> None:
    """Search techniques together, try ideas on models trained here, write a sheet for each."""
    from orchard.report.propose import pages, proposal_record, render_proposal
    from orchard.studies.propose.run import propose as run
    from orchard.studies.propose.run import write

    engines = [e.strip() for e in engine.split(",")]
    wrong = [e for e in engines if e not in ENGINES]
    if wrong:
        raise OrchardError(f"--engine {wrong[0]!r} is not known; expected {', '.join(ENGINES)}")
    if scale not in ("quick", "full"):
        raise OrchardError(f"--scale {scale!r} is not known; expected quick or full")
    if budget is not None and not budget >= 0:
        raise OrchardError(f"--budget {budget}, expected nats per token, at least 0")
    chips = [c.strip() for text in chip for c in text.split(",")]
    found = run(
        model, chips, engines=engines, budget_nats=budget, depth=depth, scale="quick" if scale == "quick" else "full",
        sequences=sequences, told=note,
    )  # fmt: skip
    write(found, out, pages(found))
    note(f"wrote {len(found.sheets)} sheets to {out}")
    if json:
        print_json(proposal_record(found))
    else:
        print_text(render_proposal(found))


def register(app: typer.Typer) -> None:
    """Add the command to the `orchard` application."""
    app.command("propose")(propose)
