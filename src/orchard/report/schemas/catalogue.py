"""Records of `orchard chips` and `orchard models`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from orchard.report.schemas.base import Record, Versioned


class ChipLine(Record):
    id: str
    name: str
    family: str
    released: str
    base: str | None
    cpu_cores: int
    gpu_cores: int
    dram_bytes_per_s: float
    dram_capacity_max_bytes: float | None
    ane_fp16_ops_per_s: float | None


class Chips(Versioned):
    """orchard chips."""

    schema_name: Literal["orchard.chips/1"] = Field(alias="schema")
    chips: list[ChipLine]


class ChipFigure(Record):
    value: float | int | str | None
    unit: str
    si: float | int | None
    about: str
    kind: str | None
    source: str | None
    note: str | None


class SourcePart(Record):
    title: str
    url: str


class Chip(Versioned):
    """orchard chips show."""

    schema_name: Literal["orchard.chip/1"] = Field(alias="schema")
    id: str
    name: str
    family: str
    released: str
    base: str | None
    note: str | None
    overrides: dict[str, str]
    engines: list[str]
    figures: dict[str, ChipFigure]
    sources: dict[str, SourcePart]


class ModelLine(Record):
    id: str
    name: str
    family: str
    architecture: str
    params: float | None
    experts: int | None
    context: int | None
    verification: str
    unpublished: str | None


class Models(Versioned):
    """orchard models."""

    schema_name: Literal["orchard.models/1"] = Field(alias="schema")
    models: list[ModelLine]


class NamedModel(Record):
    name: str
    params: int
