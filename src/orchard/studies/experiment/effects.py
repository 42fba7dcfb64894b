"""Quality effects on file: one row per technique and fixture, from recorded runs. Reading them needs no torch.

`data/quality/effects.csv` is written by `orchard experiment report RUN --effects FILE` and kept with the command that redoes it.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from functools import lru_cache
from importlib.resources import files
from pathlib import Path

from orchard.studies.errors import StudyError
from orchard.studies.experiment.findings import Findings


@dataclass(frozen=True, kw_only=True)
class QualityEffect:
    """Measured change of loss [nats/token] against the same model uncompressed, with its 95 % interval over seeds and sequences.

    `technique` is a text for the numerics (`rtn:bits=4,group=64`, parts joined by +). `label`: `direction-only`, as magnitudes of
    a model of `parameters` weights do not carry over; `equivalent` where the loss lies within 0.01 nats (TOST, 5 %).
    """

    experiment: str
    fixture: str
    parameters: int
    scale: str
    technique: str
    loss: float
    low: float
    high: float
    kl: float
    flips: float
    seeds: int
    sequences: int
    equivalent: bool
    label: str

    @property
    def name(self) -> str:
        """The technique without options, the first where several are joined."""
        return self.technique.partition(":")[0].partition(" ")[0]


def effects_of(found: Findings) -> list[QualityEffect]:
    """Rows of a run."""
    outcome = found.outcome
    return [
        QualityEffect(
            experiment=outcome.experiment.name, fixture=a.fixture, parameters=outcome.parameters,
            scale=outcome.experiment.scale, technique=a.technique, loss=round(a.loss.value, 6),
            low=round(a.loss.low, 6), high=round(a.loss.high, 6), kl=round(a.kl, 6), 
            flips=round(a.flips, 5), seeds=a.seeds, sequences=a.sequences, equivalent=a.no_loss_p < 0.05,
            label="direction-only",
        )
        for a in found.arms
    ]  # fmt: skip


def write_effects(path: Path, rows: Sequence[QualityEffect]) -> None:
    """Raises StudyError where the file cannot be written."""
    try:
        with path.open("w", encoding="utf-8", newline="") as out:
            writer = csv.DictWriter(out, [f.name for f in fields(QualityEffect)], lineterminator="\n")
            writer.writeheader()
            writer.writerows(asdict(row) for row in rows)
    except OSError as error:
        raise StudyError(f"{path}: cannot be written: {error.strerror}") from None


@lru_cache(maxsize=1)
def recorded() -> tuple[QualityEffect, ...]:
    """What the package ships."""
    text = files("orchard.data").joinpath("quality/effects.csv").read_text(encoding="utf-8")
    return tuple(_row(row) for row in csv.DictReader(text.splitlines()))


def _row(row: dict[str, str]) -> QualityEffect:
    return QualityEffect(
        experiment=row["experiment"], fixture=row["fixture"], parameters=int(row["parameters"]), scale=row["scale"],
        technique=row["technique"], loss=float(row["loss"]), low=float(row["low"]), high=float(row["high"]), kl=float(row["kl"]),
        flips=float(row["flips"]), seeds=int(row["seeds"]), sequences=int(row["sequences"]),
        equivalent=row["equivalent"] == "True", label=row["label"],
    )  # fmt: skip


def quality_effects(technique: str, *, fixture: str | None = None) -> tuple[QualityEffect, ...]:
    """Recorded effects of a technique: with options, those of exactly that text; a bare name, all of its settings."""
    text = technique.strip()
    exact = ":" in text or "+" in text
    found = (e for e in recorded() if text == (e.technique if exact else e.name))
    return tuple(e for e in found if fixture in (None, e.fixture))
