"""Records of `orchard predict` and `orchard compare`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from orchard.report.schemas.base import Record, Share, Versioned


class ModelPart(Record):
    name: str
    params: int
    weight_bytes: int


class ChipPart(Record):
    id: str
    name: str
    overrides: dict[str, str]


class BoundBy(Record):
    compute: Share
    memory: Share
    dispatch: Share


class Kernel(Record):
    group: str
    name: str
    kind: str
    format: str
    count: int
    seconds: float
    compute_s: float
    memory_s: float
    dispatch_s: float
    ops: float
    bytes: float


class Phase(Record):
    tokens: int
    latency_s: float
    interval_s: list[float] = Field(min_length=2, max_length=2)
    bound_s: float
    tokens_per_s: float
    energy_j: float
    energy_interval_j: list[float] = Field(min_length=2, max_length=2)
    ops: float
    dram_bytes: float
    bound_by: BoundBy
    breakdown: list[Kernel] | None = None


class Memory(Record):
    weights_bytes: int
    kv_cache_bytes: int
    activation_peak_bytes: int
    total_bytes: int
    limit_bytes: int
    fits: bool


class SizedFormat(Record):
    format: str
    total_bytes: int


class ChipLimit(Record):
    id: str
    limit_bytes: int


class Remedies(Record):
    weights: SizedFormat | None
    kv: SizedFormat | None
    tokens: int | None
    batch: int | None
    chips: list[ChipLimit]


class Prediction(Versioned):
    """orchard predict. `remedies` is there when the model does not fit, `breakdown` with --breakdown."""

    schema_name: Literal["orchard.prediction/1"] = Field(alias="schema")
    model: ModelPart
    chip: ChipPart
    runtime: str
    runtime_builds: str
    engine: str
    fidelity: str
    weights: str
    kv: str
    batch: int
    depth: int
    steps: int | None
    techniques: list[str]
    ttft_s: float | None
    phases: dict[str, Phase]
    memory: Memory
    warnings: list[str]
    remedies: Remedies | None = None


class Choice(Record):
    model: str
    chip: str
    runtime: str | None
    engine: str
    weights: str | None


class Ratios(Record):
    latency_s: float | None
    energy_j: float | None
    tokens_per_s: float | None


class Best(Record):
    latency_s: int | None
    energy_j: int | None
    tokens_per_s: int | None


class ComparisonRow(Record):
    choice: Choice
    refusal: str | None
    prediction: Prediction | None
    ratios: dict[str, Ratios]


class Comparison(Versioned):
    """orchard compare."""

    schema_name: Literal["orchard.comparison/1"] = Field(alias="schema")
    varied: list[str]
    reference: int
    best: dict[str, Best]
    rows: list[ComparisonRow]
