"""The list of built-in models."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import RenderableType
from rich.text import Text

from orchard.report.layout import ByWidth, number, stacked, table
from orchard.studies.library import ModelSummary


def render_models(found: Sequence[ModelSummary]) -> RenderableType:
    """One line per model: the short name to type, parameters, architecture, full name."""
    rows: list[list[str | Text]] = []
    for model in sorted(found, key=lambda m: m.name):
        size = "-" if model.params is None else f"{number(model.params / 1e9)} B"
        experts = f"{model.experts} experts" if model.experts else ""
        kind = "not published" if model.unpublished else model.architecture
        rows.append([Text(model.name, style="bold"), size, kind, experts, Text(model.id, style="dim")])
    footer = Text(
        f"{len(rows)} models; a Hugging Face config.json (or its folder) works as well. Full names are names too.",
        style="dim",
    )
    headers = ["model", "parameters", "family", "", "full name"]
    wide = table(headers, rows, left=(0, 2, 3, 4))
    narrow = table(headers[:4], [row[:4] for row in rows], left=(0, 2, 3))
    return stacked(ByWidth(narrow, wide), Text(), footer)
