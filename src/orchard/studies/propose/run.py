"""`orchard propose`: price chips, measure, search, try every idea, keep every sheet."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from orchard.studies.errors import StudyError
from orchard.studies.experiment.run import Subject, versions
from orchard.studies.propose import joint
from orchard.studies.propose.evidence import Evidence
from orchard.studies.propose.ideas import Setting, all_sheets
from orchard.studies.propose.pricing import Device, price
from orchard.studies.propose.sheet import Sheet

Scale = Literal["quick", "full"]
FIXTURE = "fx1"


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A point of a device's front, as the search saw it."""

    chip: str
    engine: str
    what: str
    technique: str
    seconds: float
    loss: float
    acceptance: float


@dataclass(frozen=True, kw_only=True)
class Proposal:
    """Sheets with verdicts, rejected ones among them, and the fronts behind the search."""

    model: str
    chips: tuple[str, ...]
    combinations: int
    fronts: tuple[Candidate, ...]
    sheets: tuple[Sheet, ...]
    seen: str
    fresh: str
    versions: dict[str, str]


def propose(
    model: str,
    chips: Sequence[str],
    *,
    engines: Sequence[str] = ("gpu", "cpu"),
    budget_nats: float | None = None,
    depth: int = 0,
    scale: Scale = "full",
    sequences: int = 64,
    seeds: tuple[int, int] = (0, 1),
    told: Callable[[str], None] | None = None,
) -> Proposal:
    """Ideas for a model on chips. `seeds`: training seeds of the model the search sees and of the one that confirms.
    `budget_nats` keeps only points of the fronts that lose no more. Raises OrchardError for chips and models
    that cannot be priced."""
    say = told or (lambda _text: None)
    devices = _devices(model, chips, engines, depth, say)
    seen, fresh = (
        Evidence(Subject(fixture=FIXTURE, seed=seed, scale=scale, held=held), sequences=sequences)
        for seed, held in zip(seeds, ("held_out", "fresh"))
    )
    say("training and measuring (models are kept on disk)")
    found = [(d, joint.points(d, seen)) for d in devices]
    sheets = all_sheets(Setting(model, devices, seen, fresh), say)
    fronts = [_candidate(d, p) for d, points in found for p in joint.front(points) if _within(p, budget_nats)]
    return Proposal(
        model=model,
        chips=tuple(chips),
        combinations=sum(len(points) for _, points in found),
        fronts=tuple(fronts),
        sheets=tuple(sheets),
        seen=seen.label,
        fresh=fresh.label,
        versions=versions(),
    )


def _within(point: joint.Point, budget: float | None) -> bool:
    return budget is None or point.loss <= budget


def _devices(
    model: str, chips: Sequence[str], engines: Sequence[str], depth: int, say: Callable[[str], None]
) -> list[Device]:
    if not chips:
        raise StudyError("no chip; expected at least one")
    out = []
    for chip in chips:
        for engine in engines:
            say(f"pricing {model} on the {engine} of {chip}")
            out.append(price(model, chip, engine, depth=depth))
    return out


def _candidate(device: Device, point: joint.Point) -> Candidate:
    return Candidate(
        chip=device.chip,
        engine=device.engine,
        what=point.describe(),
        technique=point.text(device.engine),
        seconds=point.seconds,
        loss=point.loss,
        acceptance=point.acceptance,
    )


def write(proposal: Proposal, folder: Path, pages: dict[str, str]) -> None:
    """`ideas.json` and one page per sheet. Raises StudyError where the folder cannot be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "ideas.json").write_text(json.dumps(asdict(proposal), indent=1) + "\n", encoding="utf-8")
        for name, text in pages.items():
            (folder / name).write_text(text, encoding="utf-8")
    except OSError as error:
        raise StudyError(f"--out {folder}: cannot be written: {error.strerror}") from None
