"""Records of `orchard technique`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from orchard.report.schemas.base import Record, Versioned


class TechniqueSummary(Record):
    name: str
    title: str
    family: str
    relieves: list[str]
    ratings: dict[str, str]
    verdict: str
    priced: bool
    claims: int
    origin: str


class Techniques(Versioned):
    """`orchard technique list`."""

    schema_name: Literal["orchard.techniques/1"] = Field(alias="schema")
    techniques: list[TechniqueSummary]
    not_loaded: list[str]


class TechniqueOption(Record):
    name: str
    default: int | float | bool | str
    values: str
    about: str


class PublishedClaim(Record):
    id: str
    model: str
    setting: str
    metric: str
    baseline: str
    value: str
    hardware: str
    verified: bool
    source: str


class TechniqueCard(Versioned):
    """`orchard technique show`."""

    schema_name: Literal["orchard.technique/1"] = Field(alias="schema")
    name: str
    title: str
    family: str
    relieves: list[str]
    ratings: dict[str, str]
    verdict: str
    priced: bool
    origin: str
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


class TechniquePhase(Record):
    latency_before_s: float
    latency_after_s: float
    speed_gain: float
    tokens_per_s_before: float
    tokens_per_s_after: float
    energy_before_j: float
    energy_after_j: float
    bound_before: str
    bound_after: str


class TechniqueEffect(Record):
    technique: str
    chip: str
    engine: str
    runtime: str
    verdict: str
    reason: str
    memory_before_bytes: int
    memory_after_bytes: int
    phases: dict[str, TechniquePhase]


class RecordedLoss(Record):
    technique: str
    recorded: str
    fixture: str
    parameters: int
    seeds: int
    loss_nats: float
    low_nats: float
    high_nats: float
    equivalent: bool


class TechniqueEvaluation(Versioned):
    """`orchard technique evaluate`."""

    schema_name: Literal["orchard.technique-evaluation/1"] = Field(alias="schema")
    model: str
    effects: list[TechniqueEffect]
    quality: list[RecordedLoss]


class AuditedClaim(Record):
    id: str
    technique: str
    model: str
    setting: str
    metric: str
    hardware: str
    chip: str
    own_hardware: bool
    kind: str
    published_gain: list[float] | None
    predicted_gain: float | None
    verdict: str
    reason: str
    bound_before: str
    bound_after: str


class TechniqueAudit(Versioned):
    """`orchard technique audit`."""

    schema_name: Literal["orchard.technique-audit/1"] = Field(alias="schema")
    target: str
    claims: int
    scored: int
    explained: int
    verdicts: dict[str, int]
    findings: list[AuditedClaim]
