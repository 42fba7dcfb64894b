"""The JSON of every command as pydantic models: the contract that scripts rely on, field by field.

A schema name ends with its version. Fields may be added within a version; one that goes away or changes its meaning makes a
new version. Models refuse fields they do not know, so the tests notice an addition that nobody documented in docs/json.md.
`SCHEMAS["orchard.prediction/1"].model_json_schema()` gives JSON Schema.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Share = float
"""A number from 0 to 1."""


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class _Versioned(_Record):
    schema_name: str = Field(alias="schema")


class ModelPart(_Record):
    name: str
    params: int
    weight_bytes: int


class ChipPart(_Record):
    id: str
    name: str
    overrides: dict[str, str]


class BoundBy(_Record):
    compute: Share
    memory: Share
    dispatch: Share


class Kernel(_Record):
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


class Phase(_Record):
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


class Memory(_Record):
    weights_bytes: int
    kv_cache_bytes: int
    activation_peak_bytes: int
    total_bytes: int
    limit_bytes: int
    fits: bool


class SizedFormat(_Record):
    format: str
    total_bytes: int


class ChipLimit(_Record):
    id: str
    limit_bytes: int


class Remedies(_Record):
    weights: SizedFormat | None
    kv: SizedFormat | None
    tokens: int | None
    batch: int | None
    chips: list[ChipLimit]


class Prediction(_Versioned):
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
    ttft_s: float | None
    phases: dict[str, Phase]
    memory: Memory
    warnings: list[str]
    remedies: Remedies | None = None


class Choice(_Record):
    model: str
    chip: str
    runtime: str | None
    engine: str
    weights: str | None


class Ratios(_Record):
    latency_s: float | None
    energy_j: float | None
    tokens_per_s: float | None


class Best(_Record):
    latency_s: int | None
    energy_j: int | None
    tokens_per_s: int | None


class ComparisonRow(_Record):
    choice: Choice
    refusal: str | None
    prediction: Prediction | None
    ratios: dict[str, Ratios]


class Comparison(_Versioned):
    """orchard compare."""

    schema_name: Literal["orchard.comparison/1"] = Field(alias="schema")
    varied: list[str]
    reference: int
    best: dict[str, Best]
    rows: list[ComparisonRow]


class ChipLine(_Record):
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


class Chips(_Versioned):
    """orchard chips."""

    schema_name: Literal["orchard.chips/1"] = Field(alias="schema")
    chips: list[ChipLine]


class ChipFigure(_Record):
    value: float | int | str | None
    unit: str
    si: float | int | None
    about: str
    kind: str | None
    source: str | None
    note: str | None


class SourcePart(_Record):
    title: str
    url: str


class Chip(_Versioned):
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


class ModelLine(_Record):
    id: str
    name: str
    family: str
    architecture: str
    params: float | None
    experts: int | None
    context: int | None
    verification: str
    unpublished: str | None


class Models(_Versioned):
    """orchard models."""

    schema_name: Literal["orchard.models/1"] = Field(alias="schema")
    models: list[ModelLine]


class NamedModel(_Record):
    name: str
    params: int


class PhaseForms(_Record):
    symbols: list[str]
    forms: dict[str, str]
    sympy: dict[str, str]


class CrossingPart(_Record):
    phase: str
    symbol: str
    at: dict[str, int]
    limit: int
    bound: int | None
    estimate: int | None


class MachinePart(_Record):
    chip: str
    runtime: str
    engine: str
    peak_ops_per_s: float
    bytes_per_s: float
    ridge_ops_per_byte: float
    cache_equals_weights_tokens: int | None
    crossings: list[CrossingPart]


class Complexity(_Versioned):
    """orchard complexity. `machine` is there with --chip."""

    schema_name: Literal["orchard.complexity/1"] = Field(alias="schema")
    model: NamedModel
    weights: str
    kv: str
    cache_bytes_per_token: float
    phases: dict[str, PhaseForms]
    machine: MachinePart | None


class StratumPart(_Record):
    name: str
    part: str
    rows: int
    median_error: float
    p90_error: float
    rank_correlation: float | None
    coverage80: float
    naive_median: float
    public_median: float | None
    bias: float
    target_median: float | None = None
    target_p90: float | None = None


class PointPart(_Record):
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


class LeftOutPart(_Record):
    reason: str
    rows: int


class Validation(_Versioned):
    """orchard validate."""

    schema_name: Literal["orchard.validation/1"] = Field(alias="schema")
    suite: str
    strata: list[StratumPart]
    points: list[PointPart]
    left_out: list[LeftOutPart]
    notes: list[str]


class FittedParameter(_Record):
    value: float
    sigma: float | None = None
    weak: bool | None = None


class Calibration(_Versioned):
    """orchard calibrate."""

    schema_name: Literal["orchard.calibration/1"] = Field(alias="schema")
    rows: int
    profiles: dict[str, dict[str, FittedParameter]]


class TensorPart(_Record):
    format: str
    shape: list[int | str]


class KindPart(_Record):
    kind: str
    ops: int
    macs: int | str
    vector_ops: int | str


class ModulePart(_Record):
    path: str
    ops: int
    params: int
    macs: int | str


class InspectedModel(_Record):
    name: str
    family: str
    params: int


class Inspection(_Versioned):
    """orchard inspect."""

    schema_name: Literal["orchard.inspection/1"] = Field(alias="schema")
    model: InspectedModel
    weight_bytes: int
    formats: dict[str, int]
    symbols: list[str]
    inputs: dict[str, TensorPart]
    outputs: dict[str, TensorPart]
    macs: int | str
    kinds: list[KindPart]
    modules: list[ModulePart]
    graph: str | None
    warnings: list[str]


class LintPart(_Record):
    rule: str
    reason: str
    change: str
    blocks: bool
    source: str
    ops: int
    first: str


class Lint(_Versioned):
    """`orchard lint`: what keeps ops off an engine (`blocks`) or slows them there."""

    schema_name: Literal["orchard.lint/1"] = Field(alias="schema")
    model: str
    chip: str
    target: str
    ops: int
    groups: list[LintPart]


class SiliconChip(_Record):
    id: str
    name: str
    overrides: dict[str, str]


class Silicon(_Versioned):
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


class KnownDie(_Record):
    chip: str
    node: str
    known_mm2: float
    composed_mm2: float
    held_out_mm2: float
    held_out_error: float


class SiliconCheck(_Versioned):
    """orchard area --check."""

    schema_name: Literal["orchard.silicon-check/1"] = Field(alias="schema")
    dies: list[KnownDie]
    mean_abs_error: float


class ProductMapping(_Record):
    op: str
    runs: float
    bits: dict[str, float]
    resident: list[str]
    density: float
    latency_cycles: float
    energy_pj: float
    edp: float
    bound: float
    value: float
    optimal: bool
    bound_by: str
    lanes_used: int
    lanes: int
    mappings_considered: int
    search_s: float
    loop_nest: list[str]


class MappedKernel(_Record):
    name: str
    kind: str
    count: float
    estimate_s: float | None
    best_s: float | None
    bound_s: float | None
    headroom_s: float | None
    optimal: bool | None
    no_mapping: str | None
    mappings: list[ProductMapping]


class MappedPhase(_Record):
    tokens: int
    latency_s: float | None
    bound_s: float | None
    best_s: float
    mapped_estimate_s: float | None
    attainable_s: float | None
    mapped_energy_j: float
    rows: list[MappedKernel]


class ModelMapping(_Versioned):
    """`orchard map MODEL`: every kernel of a model with the best mapping of its products."""

    schema_name: Literal["orchard.model-mapping/1"] = Field(alias="schema")
    model: str
    weights: str
    machine: str
    chip: str | None
    engine: str | None
    runtime: str | None
    objective: str
    unique_ops: int
    from_cache: int
    phases: dict[str, MappedPhase]
    notes: list[str]
    warnings: list[str]


class KneePart(_Record):
    capacity_bytes: float
    traffic_bytes: float


class CornerPart(KneePart):
    loop_nest: list[str]


class Capacity(_Versioned):
    """`orchard bounds`: least off-chip traffic for every capacity of one memory."""

    schema_name: Literal["orchard.capacity/1"] = Field(alias="schema")
    op: str
    sizes: dict[str, int]
    arch: str
    level: str
    factors: str
    compulsory_bytes: float
    enough_bytes: float
    has_bytes: float | None
    traffic_at_has_bytes: float | None
    knee: KneePart
    mappings_considered: int
    corners: list[CornerPart]


SCHEMAS: dict[str, type[_Versioned]] = {
    "orchard.capacity/1": Capacity,
    "orchard.model-mapping/1": ModelMapping,
    "orchard.lint/1": Lint,
    "orchard.prediction/1": Prediction,
    "orchard.comparison/1": Comparison,
    "orchard.chips/1": Chips,
    "orchard.chip/1": Chip,
    "orchard.models/1": Models,
    "orchard.complexity/1": Complexity,
    "orchard.validation/1": Validation,
    "orchard.calibration/1": Calibration,
    "orchard.inspection/1": Inspection,
    "orchard.silicon/1": Silicon,
    "orchard.silicon-check/1": SiliconCheck,
}
