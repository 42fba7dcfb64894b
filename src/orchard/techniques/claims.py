"""What the literature claims, with its conditions: one row per figure (`data/techniques/claims.csv`)."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass, fields
from functools import lru_cache
from importlib.resources import files
from pathlib import Path

from orchard.techniques.errors import TechniqueError


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """One published figure.

    card        the technique (`orchard technique show`)
    setting     conditions; metric, baseline, value: what was measured, without and with the technique, as printed
    verified    yes: read in the source; no: from memory
    """

    id: str
    card: str
    technique: str
    paper: str
    year: str
    model: str
    setting: str
    metric: str
    baseline: str
    value: str
    hardware: str
    verified: str
    source_ref: str


COLUMNS = tuple(f.name for f in fields(Claim))


@lru_cache(maxsize=1)
def load_claims() -> tuple[Claim, ...]:
    """The claims that ship with the package."""
    return read_claims(
        files("orchard.data").joinpath("techniques", "claims.csv").read_text(encoding="utf-8"), "claims.csv"
    )


def claims_file(path: str) -> tuple[Claim, ...]:
    """Claims of a user's file. Raises TechniqueError when it cannot be read or lacks a column."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise TechniqueError(f"{path}: cannot be read ({error})") from None
    return read_claims(text, path)


def read_claims(text: str, name: str) -> tuple[Claim, ...]:
    """`id` may be missing (rows are numbered then), and `card` (then no rule applies to the row)."""
    reader = csv.DictReader(io.StringIO(text))
    missing = [c for c in COLUMNS if c not in ("id", "card") and c not in (reader.fieldnames or ())]
    if missing:
        raise TechniqueError(f"{name}: no column {missing[0]!r}, expected {', '.join(COLUMNS)}")
    found = []
    for number, row in enumerate(reader, 1):
        if None in row or None in row.values():
            raise TechniqueError(
                f"{name}: row {number} has {'more' if None in row else 'fewer'} fields than the first line"
            )
        values = {c: (row.get(c) or "").strip() for c in COLUMNS}
        values["id"] = values["id"] or f"r{number:03}"
        found.append(Claim(**values))
    return tuple(found)
