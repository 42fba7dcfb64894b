"""Records of `orchard map` and `orchard bounds`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from orchard.report.schemas.base import Record, Versioned


class MappingCount(Record):
    level: str
    tensor: str
    reads: int
    writes: int
    footprint: int


class MappingJobLayer(Record):
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


class MappingJob(Versioned):
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


class Mapping(Versioned):
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


class ProductMapping(Record):
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


class MappedKernel(Record):
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


class MappedPhase(Record):
    tokens: int
    latency_s: float | None
    bound_s: float | None
    best_s: float
    mapped_estimate_s: float | None
    attainable_s: float | None
    mapped_energy_j: float
    rows: list[MappedKernel]


class ModelMapping(Versioned):
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


class KneePart(Record):
    capacity_bytes: float
    traffic_bytes: float


class CornerPart(KneePart):
    loop_nest: list[str]


class Capacity(Versioned):
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


class FusedLoop(Record):
    dim: str
    trips: int
    tile: int


class FusedGroup(Record):
    ops: list[str]
    loops: list[FusedLoop]
    pinned: dict[str, int]
    kept: dict[str, list[str]]
    repeats: dict[str, int]
    level_words: int
    energy_pj: float
    latency_cycles: float
    bound_by: str
    vector_ops: int


class Intermediate(Record):
    tensor: str
    level: str
    part: Literal["tile", "whole"]
    words: int


class WordCount(Record):
    level: str
    tensor: str
    reads: int
    writes: int


class FusedMapping(Versioned):
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
