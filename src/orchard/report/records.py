"""JSON of the commands whose records are plain lists. Schemas: `orchard.report.schemas`, documented in docs/json.md."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from orchard.hw import FIGURES, ChipSummary, SoC, sources
from orchard.studies.library import ModelSummary


def chips_record(found: Sequence[ChipSummary]) -> dict[str, Any]:
    return {"schema": "orchard.chips/1", "chips": [asdict(chip) for chip in found]}


def models_record(found: Sequence[ModelSummary]) -> dict[str, Any]:
    return {"schema": "orchard.models/1", "models": [asdict(model) for model in found]}


def chip_record(soc: SoC) -> dict[str, Any]:
    """Every figure, known or not (`value` null): the value as stated with its unit, and in SI where it is a number."""
    known, used = sources(), set()
    figures = {}
    for figure in soc.known_figures():
        number = figure.si if isinstance(figure.value, int | float) else None
        figures[figure.path] = {
            "value": figure.value,
            "unit": figure.unit,
            "si": number,
            "about": FIGURES[figure.path].about,
            "kind": figure.kind,
            "source": figure.source,
            "note": figure.note,
        }
        used.add(figure.source)
    return {
        "schema": "orchard.chip/1",
        "id": soc.id,
        "name": soc.name,
        "family": soc.family,
        "released": soc.released,
        "base": soc.base,
        "note": soc.note,
        "overrides": dict(soc.overrides),
        "engines": list(soc.engines),
        "figures": figures,
        "sources": {name: {"title": s.title, "url": s.url} for name, s in known.items() if name in used},
    }
