"""Records of `orchard advise`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from orchard.report.schemas.base import Record, Share, Versioned

Setting = str | int | float | bool | None | list[str]


class AdvisedChip(Record):
    id: str
    name: str


class AdviceGoal(Record):
    text: str
    figure: str
    target: float
    before: float
    after: float
    bound: float | None
    verdict: Literal["met", "reached", "not reached", "out of reach"]
    sentence: str


class AdviceGain(Record):
    figure: str
    before: float
    after: float
    factor: float
    factor_interval: tuple[float, float] | list[float] | None
    basis: str
    saved: Share


class AdviceQuality(Record):
    risk: Literal["none", "low", "moderate", "high"]
    text: str


class AdviceVariant(Record):
    title: str
    factor: float
    risk: str
    effort: str
    apply: list[str]
    fields_: dict[str, Setting] = Field(alias="fields")


class AdviceRecommendation(Record):
    kind: str
    title: str
    gain: AdviceGain
    figures: dict[str, float]
    side_effects: list[str]
    quality: AdviceQuality
    effort: Literal["switch", "convert", "calibrate", "rewrite", "train"]
    reason: str
    how: list[str]
    predict: str
    priced_by: Literal["predict", "place", "lint"]
    apply: list[str]
    fields_: dict[str, Setting] = Field(alias="fields")
    others: list[AdviceVariant]
    notes: list[str]


class Advice(Versioned):
    """`orchard advise`."""

    schema_name: Literal["orchard.advice/1"] = Field(alias="schema")
    model: str
    chip: AdvisedChip
    runtime: str
    engine: str
    request: dict[str, Setting]
    objective: Literal["latency", "goals"]
    figures: dict[str, float]
    bounds: dict[str, float]
    goals: list[AdviceGoal]
    recommendations: list[AdviceRecommendation]
    combination: AdviceRecommendation | None
    tried: int
    notes: list[str]
    warnings: list[str]


class AdviceCheck(Record):
    source: str
    rows: list[str]
    model: str
    chip: str
    engine: str
    goal: str | None
    change: str
    measured_saved: Share
    predicted_saved: float
    rank: int | None
    first: str
    in_top: bool
    close: bool


class AdviceValidation(Versioned):
    """`orchard validate --suite advice`."""

    schema_name: Literal["orchard.advice-validation/1"] = Field(alias="schema")
    cases: list[AdviceCheck]
    in_top: int
    close: int
    both: int


class AppliedArtefact(Record):
    file: str
    before_bytes: int
    after_bytes: int
    expected_bytes: int
    confirmed: bool
    formats: dict[str, int]
    before_s: float
    after_s: float
    factor: float


class Applied(Versioned):
    """`orchard apply`."""

    schema_name: Literal["orchard.applied/1"] = Field(alias="schema")
    title: str
    advised_factor: float
    recipe: list[str]
    why: str
    artefact: AppliedArtefact | None
