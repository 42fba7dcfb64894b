"""The JSON of every command as pydantic models: the contract that scripts rely on, field by field.

A schema name ends with its version. Fields may be added within a version; one that goes away or changes its meaning makes a
new version. Models refuse fields they do not know, so the tests notice an addition that nobody documented in docs/json.md.
`SCHEMAS["orchard.prediction/1"].model_json_schema()` gives JSON Schema.
"""

from __future__ import annotations

import typing
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
    steps: int | None
    techniques: list[str]
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
    coverage80: float | None
    naive_median: float
    public_median: float | None
    bias: float
    target_median: float | None = None
    target_p90: float | None = None
    target_rank: float | None = None
    ops_rank: float | None = None
    weights_rank: float | None = None


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


class ResidencePart(_Record):
    kind: str
    ops: int
    first: str
    runs_on: list[str]
    refusals: dict[str, list[str]]
    slower: dict[str, list[str]]


class Inspection(_Versioned):
    """orchard inspect."""

    schema_name: Literal["orchard.inspection/1"] = Field(alias="schema")
    model: InspectedModel
    part: str | None
    parts: list[str]
    weight_bytes: int
    formats: dict[str, int]
    symbols: list[str]
    inputs: dict[str, TensorPart]
    outputs: dict[str, TensorPart]
    macs: int | str
    kinds: list[KindPart]
    modules: list[ModulePart]
    engines: list[ResidencePart] | None
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
    gain_s: float | None


class Lint(_Versioned):
    """`orchard lint`: what keeps ops off an engine (`blocks`) or slows them there."""

    schema_name: Literal["orchard.lint/1"] = Field(alias="schema")
    model: str
    chip: str
    target: str
    ops: int
    groups: list[LintPart]
    fallback: str
    now_s: float | None
    then_s: float | None
    notes: list[str]


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


class MappingCount(_Record):
    level: str
    tensor: str
    reads: int
    writes: int
    footprint: int


class MappingJobLayer(_Record):
    name: str
    op: str
    count: int
    energy_pj: float
    latency_cycles: float
    edp: float
    value: float
    bound: float
    optimal: bool
    bound_by: str
    lanes_used: int
    search_s: float


class MappingJob(_Versioned):
    """`orchard map --job`."""

    schema_name: Literal["orchard.mapping-job/1"] = Field(alias="schema")
    job: str
    arch: str
    objective: str
    energy_pj: float
    latency_cycles: float
    optimal: bool
    search_s: float
    layers: list[MappingJobLayer]


class Mapping(_Versioned):
    """`orchard map` of one op."""

    schema_name: Literal["orchard.mapping/1"] = Field(alias="schema")
    op: str
    sizes: dict[str, int]
    arch: str
    objective: str
    energy_pj: float
    latency_cycles: float
    edp: float
    value: float
    bound: float
    optimal: bool
    mappings_considered: int
    mappings_in_space: int
    search_s: float
    energy_terms_pj: dict[str, float]
    cycles_by: dict[str, float]
    bound_by: str
    lanes_used: int
    lanes: int
    counts: list[MappingCount]
    loop_nest: list[str]
    code: str | None = None


class DesignPoint(_Record):
    index: int
    knobs: dict[str, float | int | str]
    metrics: dict[str, float]
    bound_by: dict[str, dict[str, Share]]


class Exploration(_Versioned):
    """orchard explore, orchard runs show, orchard runs resume."""

    schema_name: Literal["orchard.exploration/1"] = Field(alias="schema")
    name: str
    chip: str
    kind: Literal["estimate"]
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


class RunEntry(_Record):
    folder: str
    name: str
    state: Literal["running", "complete"]
    created: str
    chip: str
    method: str
    designs: int
    parts: int
    front_size: int | None


class Runs(_Versioned):
    """orchard runs list."""

    schema_name: Literal["orchard.runs/1"] = Field(alias="schema")
    runs: list[RunEntry]


class RunComparison(_Versioned):
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


class ElasticityEntry(_Record):
    figure: str
    value: float
    derived: bool
    basket: float
    below: float
    above: float
    by_workload: dict[str, float]


class SobolEntry(_Record):
    figure: str
    low: float
    high: float
    first: float
    first_interval: float
    total: float
    total_interval: float


class Sensitivity(_Versioned):
    """orchard sensitivity."""

    schema_name: Literal["orchard.sensitivity/1"] = Field(alias="schema")
    chip: str
    kind: Literal["estimate"]
    latency_s: dict[str, float]
    elasticities: list[ElasticityEntry]
    samples: int
    sobol: list[SobolEntry]


class ChipState(_Record):
    label: str
    terms: dict[str, BoundBy]
    latency_s: dict[str, float]
    energy_j: dict[str, float]
    area_mm2: float | None
    price_usd: float | None


class WhatIf(_Versioned):
    """orchard whatif."""

    schema_name: Literal["orchard.what-if/1"] = Field(alias="schema")
    chip: str
    kind: Literal["estimate"]
    before: ChipState
    alone: list[ChipState]
    after: ChipState
    synergy: float


class ScenarioPart(_Record):
    name: str
    about: str


class LatencyPart(_Record):
    mean: float
    p50: float
    p95: float
    p99: float
    max: float


class TimePart(_Record):
    queue: float
    preempted: float
    host: float
    compute: float
    memory: float
    dispatch: float
    contention: float
    clock: float


class StreamPart(_Record):
    name: str
    model: str
    engine: str
    placed: bool
    runtime: str
    priority: int
    deadline_s: float | None
    alone_s: float
    bound_s: float
    load: float
    arrived: int
    completed: int
    missed: int
    late: int
    overdue: int
    dropped: int
    unfinished: int
    saturated: bool
    latency_s: LatencyPart
    first_output_s: LatencyPart | None
    passes: int
    passes_per_s: float
    energy_j: float
    time_s: TimePart
    shares: TimePart


class SimulatedEngine(_Record):
    name: str
    units: int
    utilization: Share
    busy_s: float
    mean_clock: Share
    ops: int
    mean_waiting: float
    most_waiting: int
    energy_j: float


class UserPart(_Record):
    name: str
    bytes_per_s: float


class SharedMemory(_Record):
    dram_bytes: float
    user_bytes: float
    mean_bytes_per_s: float
    peak_bytes_per_s: float
    capacity_bytes_per_s: float
    utilization: Share
    users: list[UserPart]
    models_bytes: int


class PowerPart(_Record):
    mean_w: float
    peak_w: float
    limit_w: float | None
    energy_j: float
    idle_j: float
    users_j: float


class HeatPart(_Record):
    most_die_c: float
    most_case_c: float
    last_die_c: float
    last_case_c: float
    throttled_share: Share


class SeriesPart(_Record):
    step_s: float
    columns: list[str]
    rows: list[list[float]]


class SimulationRecord(_Versioned):
    """`orchard simulate`."""

    schema_name: Literal["orchard.simulation/1"] = Field(alias="schema")
    kind: Literal["simulation"]
    scenario: ScenarioPart
    chip: ChipPart
    chassis: str
    seconds: float
    seed: int
    saturated: bool
    streams: list[StreamPart]
    engines: list[SimulatedEngine]
    memory: SharedMemory
    power: PowerPart
    heat: HeatPart | None
    series: SeriesPart
    ops: int
    trace: str | None
    warnings: list[str]


class ShippedScenario(_Record):
    name: str
    about: str
    seconds: float
    streams: list[str]
    users: list[str]
    sources: dict[str, str]


class Scenarios(_Versioned):
    """`orchard scenarios`."""

    schema_name: Literal["orchard.scenarios/1"] = Field(alias="schema")
    scenarios: list[ShippedScenario]


class TraceCheck(_Versioned):
    """`orchard check-trace`."""

    schema_name: Literal["orchard.trace_check/1"] = Field(alias="schema")
    file: str
    events: int
    slices: int
    arrows: int
    open_arrows: int
    requests: int
    counters: int
    threads: list[str]


class SustainedRow(_Record):
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


class SustainedRecord(_Versioned):
    """`orchard validate --suite sustained`."""

    schema_name: Literal["orchard.sustained/1"] = Field(alias="schema")
    rows: list[SustainedRow]


class PlaceProof(_Record):
    bound: float
    gap: Share
    proven: bool
    method: str
    explored: int
    solve_s: float
    units: int
    options: int


class PlacedSegment(_Record):
    engine: str
    launches: int
    ops: int
    first: str
    last: str
    seconds: float
    handover_s: float
    why: str
    forced: bool


class PlacedGroup(_Record):
    ops: list[str]
    engine: str
    precision: str
    launches: bool


class PlacedHandOver(_Record):
    tensor: str
    source: str
    target: str
    bytes: float


class PlacedOverlap(_Record):
    latency_s: float
    bound_s: float
    per_s: float
    moved_s: float
    moved_ops: int
    moved_first: str
    least_s: float


class PlacedPhasePart(_Record):
    times: float
    latency_s: float
    interval_s: list[float] = Field(min_length=2, max_length=2)
    bound_s: float
    energy_j: float
    energy_interval_j: list[float] = Field(min_length=2, max_length=2)
    engine_s: dict[str, float]
    handover_s: float
    casts_s: float
    call_s: float
    overlap: PlacedOverlap
    arena_bytes: int
    arena_bound_bytes: int
    segments: list[PlacedSegment]
    groups: list[PlacedGroup]
    handovers: list[PlacedHandOver]


class CacheHandOverPart(_Record):
    source: str
    target: str
    tensors: int
    bytes: float
    seconds: float


class PlacedMemoryPart(_Record):
    weights_bytes: int
    weight_copies_bytes: int
    kv_cache_bytes: int
    arena_bytes: int
    arena_bound_bytes: int
    arena_order: str
    total_bytes: int
    limit_bytes: int
    fits: bool


class BestSingle(_Record):
    engine: str
    value: float
    lifted_ops: int
    times_best: float | None


class PlaceAlternative(_Record):
    engines: list[str]
    value: float | None
    total_s: float | None
    total_j: float | None
    proven: bool
    lifted_ops: int


class PlaceRestriction(_Record):
    engine: str
    rule: str
    reason: str
    change: str
    source: str
    ops: int
    first: str
    value: float
    saves: float


class PlanDifferencePart(_Record):
    system: str
    best: str
    ops: int
    first: str
    last: str
    change: float
    blocked: int


class SystemPlan(_Record):
    source: Literal["coreml", "coreai"]
    planned_ops: int
    matched_ops: int
    value: float
    times_best: float | None
    engine_ops: dict[str, int]
    differences: list[PlanDifferencePart]


class PlacementRecord(_Versioned):
    """orchard place. `plan` is there with --plan, `best_single` with two or more engines."""

    schema_name: Literal["orchard.placement/1"] = Field(alias="schema")
    model: ModelPart
    chip: ChipPart
    objective: Literal["latency", "energy", "edp"]
    engines: list[str]
    engines_used: list[str]
    profiles: dict[str, str]
    precision: str
    weights: str
    batch: int
    kind: str
    value: float
    proof: PlaceProof
    handover_share: Share
    value_if_handovers_cost_twice: float
    total_s: float
    total_j: float
    phases: dict[str, PlacedPhasePart]
    cache_handovers: list[CacheHandOverPart]
    memory: PlacedMemoryPart
    best_single: BestSingle | None
    alternatives: list[PlaceAlternative]
    restrictions: list[PlaceRestriction]
    plan: SystemPlan | None
    warnings: list[str]


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


class FusedLoop(_Record):
    dim: str
    trips: int
    tile: int


class FusedGroup(_Record):
    ops: list[str]
    loops: list[FusedLoop]
    pinned: dict[str, int]
    repeats: dict[str, int]
    level_words: int
    energy_pj: float
    latency_cycles: float
    bound_by: str
    vector_ops: int


class Intermediate(_Record):
    tensor: str
    level: str
    part: Literal["tile", "whole"]
    words: int


class WordCount(_Record):
    level: str
    tensor: str
    reads: int
    writes: int


class FusedMapping(_Versioned):
    """orchard map --fuse."""

    schema_name: Literal["orchard.fused-mapping/1"] = Field(alias="schema")
    chain: str
    ops: list[str]
    sizes: dict[str, int]
    arch: str
    vector_overlap: bool | None
    objective: str
    energy_pj: float
    latency_cycles: float
    edp: float
    value: float
    bound: float
    optimal: bool
    unfused_value: float | None
    gain: float | None
    mappings_considered: int
    search_s: float
    energy_terms_pj: dict[str, float]
    cycles_by: dict[str, float]
    intermediates: list[Intermediate]
    groups: list[FusedGroup]
    counts: list[WordCount]
    loop_nest: list[str]
class DesignStep(_Record):
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


class DesignRanking(_Record):
    kind: Literal["generation", "tier"]
    group: str
    steps: int
    pairs: int
    rank_correlation: float | None
    data_sheet_rank: float | None
    median_error: float
    data_sheet_error: float
    direction: Share | None


class Architecture(_Versioned):
    """orchard validate --suite architecture."""

    schema_name: Literal["orchard.architecture/1"] = Field(alias="schema")
    kind: Literal["estimate"]
    rankings: list[DesignRanking]
    steps: list[DesignStep]
class TechniqueSummary(_Record):
    name: str
    title: str
    family: str
    relieves: list[str]
    ratings: dict[str, str]
    verdict: str
    priced: bool
    claims: int


class Techniques(_Versioned):
    """`orchard technique list`."""

    schema_name: Literal["orchard.techniques/1"] = Field(alias="schema")
    techniques: list[TechniqueSummary]


class TechniqueOption(_Record):
    name: str
    default: int | float | bool | str
    values: str
    about: str


class PublishedClaim(_Record):
    id: str
    model: str
    setting: str
    metric: str
    baseline: str
    value: str
    hardware: str
    verified: bool
    source: str


class TechniqueCard(_Versioned):
    """`orchard technique show`."""

    schema_name: Literal["orchard.technique/1"] = Field(alias="schema")
    name: str
    title: str
    family: str
    relieves: list[str]
    ratings: dict[str, str]
    verdict: str
    priced: bool
    mechanism: str
    formula: str
    sources: list[str]
    helps: str
    hurts: str
    quality: str
    example: str
    no_rule: str | None
    refused: dict[str, str]
    options: list[TechniqueOption]
    claims: list[PublishedClaim]


def _all_schemas() -> dict[str, type[_Versioned]]:
    """Every record by the name its `schema` field has."""
    return {typing.get_args(record.model_fields["schema_name"].annotation)[0]: record for record in _Versioned.__subclasses__()}


SCHEMAS: dict[str, type[_Versioned]] = _all_schemas()
