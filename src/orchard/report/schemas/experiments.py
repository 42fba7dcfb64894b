"""Records of `orchard experiment`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from orchard.report.schemas.base import Record, Share, Versioned


class ExperimentInputs(Record):
    name: str
    about: str
    design: str
    fixtures: list[str]
    seeds: list[int]
    sequences: int
    calibration: int
    scale: str
    cells: int
    factors: dict[str, list[str]]
    claims: int


class Experiments(Versioned):
    """`orchard experiment list`."""

    schema_name: Literal["orchard.experiments/1"] = Field(alias="schema")
    experiments: list[ExperimentInputs]


class ExperimentArm(Record):
    fixture: str
    technique: str
    levels: dict[str, str]
    loss_nats: float
    interval_nats: list[float]
    effect_size: float
    kl_nats: float
    flips: Share
    no_loss_p: Share
    seeds: int
    sequences: int
    by_seed: list[float]


class RefusedArm(Record):
    fixture: str
    technique: str
    reason: str


class FactorEffect(Record):
    fixture: str
    term: list[str]
    share: Share
    f: float
    p: Share
    levels: dict[str, float]


class ClaimTest(Record):
    id: str
    about: str
    fixture: str
    first: str
    second: str
    kind: str
    value: float
    interval: list[float]
    bound: str
    met: bool
    certain: bool
    p: Share
    validity: str


class ExperimentFindings(Versioned):
    """`orchard experiment run` and `report`."""

    schema_name: Literal["orchard.experiment/1"] = Field(alias="schema")
    experiment: ExperimentInputs
    folder: str
    parameters: int
    versions: dict[str, str]
    arms: list[ExperimentArm]
    refused: list[RefusedArm]
    effects: list[FactorEffect]
    tests: list[ClaimTest]


class QualityEffectRow(Record):
    experiment: str
    fixture: str
    parameters: int
    scale: str
    technique: str
    loss_nats: float
    interval_nats: list[float]
    kl_nats: float
    flips: Share
    seeds: int
    sequences: int
    equivalent: bool
    label: str


class QualityEffects(Versioned):
    """`orchard experiment effects`."""

    schema_name: Literal["orchard.quality-effects/1"] = Field(alias="schema")
    effects: list[QualityEffectRow]
