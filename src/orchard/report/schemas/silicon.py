"""Records of `orchard area`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from orchard.report.schemas.base import Record, Versioned


class SiliconChip(Record):
    id: str
    name: str
    overrides: dict[str, str]


class Silicon(Versioned):
    """orchard area."""

    schema_name: Literal["orchard.silicon/1"] = Field(alias="schema")
    chip: SiliconChip
    node: str
    kind: Literal["estimate"]
    blocks_mm2: dict[str, float]
    anchor_mm2: float
    area_mm2: float
    area_interval_mm2: list[float] = Field(min_length=2, max_length=2)
    known_mm2: float | None
    known_source: str | None
    dies: int
    die_usd: float
    memory_usd: float
    carbon_g: float
    warnings: list[str]


class KnownDie(Record):
    chip: str
    node: str
    known_mm2: float
    composed_mm2: float
    held_out_mm2: float
    held_out_error: float


class SiliconCheck(Versioned):
    """orchard area --check."""

    schema_name: Literal["orchard.silicon-check/1"] = Field(alias="schema")
    dies: list[KnownDie]
    mean_abs_error: float
