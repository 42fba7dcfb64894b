"""Records of `orchard validate` and `orchard calibrate`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from orchard.report.schemas.base import Record, Share, Versioned


class StratumPart(Record):
    name: str
    part: str
    rows: int
    median_error: float
    p90_error: float
    rank_correlation: float | None
    coverage80: float | None
    naive_median: float
    public_median: float | None
    bias: float
    target_median: float | None = None
    target_p90: float | None = None
    target_rank: float | None = None
    ops_rank: float | None = None
    weights_rank: float | None = None


class PointPart(Record):
    id: str
    stratum: str
    chip: str
    model: str
    runtime: str
    engine: str
    phase: str
    measured_s: float
    predicted_s: float | None
    low_s: float | None
    high_s: float | None
    trust: str


class LeftOutPart(Record):
    reason: str
    rows: int


class Validation(Versioned):
    """orchard validate."""

    schema_name: Literal["orchard.validation/1"] = Field(alias="schema")
    suite: str
    strata: list[StratumPart]
    points: list[PointPart]
    left_out: list[LeftOutPart]
    notes: list[str]


class FittedParameter(Record):
    value: float
    sigma: float | None = None
    weak: bool | None = None


class Calibration(Versioned):
    """orchard calibrate."""

    schema_name: Literal["orchard.calibration/1"] = Field(alias="schema")
    rows: int
    profiles: dict[str, dict[str, FittedParameter]]


class SustainedRow(Record):
    id: str
    part: str
    chip: str
    chassis: str
    engine: str
    workload: str
    metric: str
    at_s: float
    measured: float
    simulated: float | None
    unit: str
    error: float
    source: str
    notes: str


class SustainedRecord(Versioned):
    """`orchard validate --suite sustained`."""

    schema_name: Literal["orchard.sustained/1"] = Field(alias="schema")
    rows: list[SustainedRow]


class DesignStep(Record):
    kind: Literal["generation", "tier"]
    first: str
    second: str
    group: str
    pairs: int
    measured: float
    predicted: float
    data_sheet: float
    median_error: float
    data_sheet_error: float
    direction: Share | None


class DesignRanking(Record):
    kind: Literal["generation", "tier"]
    group: str
    steps: int
    pairs: int
    rank_correlation: float | None
    data_sheet_rank: float | None
    median_error: float
    data_sheet_error: float
    direction: Share | None


class Architecture(Versioned):
    """orchard validate --suite architecture."""

    schema_name: Literal["orchard.architecture/1"] = Field(alias="schema")
    kind: Literal["estimate"]
    rankings: list[DesignRanking]
    steps: list[DesignStep]
