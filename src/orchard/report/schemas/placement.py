"""Records of `orchard place`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from orchard.report.schemas.base import Record, Share, Versioned
from orchard.report.schemas.prediction import ChipPart, ModelPart


class PlaceProof(Record):
    bound: float
    gap: Share
    proven: bool
    method: str
    explored: int
    solve_s: float
    units: int
    options: int


class PlacedSegment(Record):
    engine: str
    launches: int
    ops: int
    first: str
    last: str
    seconds: float
    handover_s: float
    why: str
    forced: bool


class PlacedGroup(Record):
    ops: list[str]
    engine: str
    precision: str
    launches: bool


class PlacedHandOver(Record):
    tensor: str
    source: str
    target: str
    bytes: float


class PlacedOverlap(Record):
    latency_s: float
    bound_s: float
    per_s: float
    moved_s: float
    moved_ops: int
    moved_first: str
    least_s: float


class PlacedPhasePart(Record):
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


class CacheHandOverPart(Record):
    source: str
    target: str
    tensors: int
    bytes: float
    seconds: float


class PlacedMemoryPart(Record):
    weights_bytes: int
    weight_copies_bytes: int
    kv_cache_bytes: int
    arena_bytes: int
    arena_bound_bytes: int
    arena_order: str
    total_bytes: int
    limit_bytes: int
    fits: bool


class BestSingle(Record):
    engine: str
    value: float
    lifted_ops: int
    times_best: float | None


class PlaceAlternative(Record):
    engines: list[str]
    value: float | None
    total_s: float | None
    total_j: float | None
    proven: bool
    lifted_ops: int


class PlaceRestriction(Record):
    engine: str
    rule: str
    reason: str
    change: str
    source: str
    ops: int
    first: str
    value: float
    saves: float


class PlanDifferencePart(Record):
    system: str
    best: str
    ops: int
    first: str
    last: str
    change: float
    blocked: int


class SystemPlan(Record):
    source: Literal["coreml", "coreai"]
    planned_ops: int
    matched_ops: int
    value: float
    times_best: float | None
    engine_ops: dict[str, int]
    differences: list[PlanDifferencePart]


class PlacementRecord(Versioned):
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
