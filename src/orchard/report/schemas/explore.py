"""Records of `orchard explore`, `runs`, `sensitivity` and `whatif`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from orchard.report.schemas.base import Record, Share, Versioned
from orchard.report.schemas.prediction import BoundBy


class DesignPoint(Record):
    index: int
    knobs: dict[str, float | int | str]
    metrics: dict[str, float]
    bound_by: dict[str, dict[str, Share]]


class Exploration(Versioned):
    """orchard explore, orchard runs show, orchard runs resume."""

    schema_name: Literal["orchard.exploration/1"] = Field(alias="schema")
    name: str
    chip: str
    kind: Literal["estimate"]
    fidelity: Literal["estimate", "mapped"]
    folder: str
    method: str
    seed: int
    objectives: list[str]
    constraints: list[str]
    evaluated: int
    feasible: int
    seconds: float
    hypervolume: float | None
    reference: list[float]
    digest: str
    knee: int | None
    front: list[DesignPoint]
    warnings: list[str]


class RunEntry(Record):
    folder: str
    name: str
    state: Literal["running", "stopped", "complete"]
    created: str
    chip: str
    method: str
    designs: int
    parts: int
    front_size: int | None


class Runs(Versioned):
    """orchard runs list."""

    schema_name: Literal["orchard.runs/1"] = Field(alias="schema")
    runs: list[RunEntry]


class RunComparison(Versioned):
    """orchard runs compare."""

    schema_name: Literal["orchard.run-comparison/1"] = Field(alias="schema")
    first: str
    second: str
    same_study: bool
    same_result: bool
    objectives: list[str]
    best: dict[str, list[float]]
    covered: list[Share]
    hypervolume: list[float]


class ElasticityEntry(Record):
    figure: str
    value: float
    derived: bool
    basket: float
    below: float
    above: float
    by_workload: dict[str, float]


class SobolEntry(Record):
    figure: str
    low: float
    high: float
    first: float
    first_interval: float
    total: float
    total_interval: float


class Sensitivity(Versioned):
    """orchard sensitivity."""

    schema_name: Literal["orchard.sensitivity/1"] = Field(alias="schema")
    chip: str
    kind: Literal["estimate"]
    latency_s: dict[str, float]
    elasticities: list[ElasticityEntry]
    samples: int
    sobol: list[SobolEntry]


class ChipState(Record):
    label: str
    terms: dict[str, BoundBy]
    latency_s: dict[str, float]
    energy_j: dict[str, float]
    area_mm2: float | None
    price_usd: float | None


class WhatIf(Versioned):
    """orchard whatif."""

    schema_name: Literal["orchard.what-if/1"] = Field(alias="schema")
    chip: str
    kind: Literal["estimate"]
    before: ChipState
    alone: list[ChipState]
    after: ChipState
    synergy: float
