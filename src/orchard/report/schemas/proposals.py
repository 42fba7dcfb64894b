"""Records of `orchard propose`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from orchard.report.schemas.base import Record, Share, Versioned


class FrontPoint(Record):
    chip: str
    engine: str
    what: str
    technique: str
    latency_s: float
    loss_nats: float
    acceptance: Share


class IdeaFalsifier(Record):
    text: str
    found: str
    struck: bool | None


class IdeaFigure(Record):
    name: str
    value: float
    unit: str
    kind: str


class IdeaSheet(Record):
    id: str
    title: str
    origin: str
    verdict: str
    hypothesis: str
    formula: str
    prediction: str
    experiment: str
    result: str
    scale: str
    falsifiers: list[IdeaFalsifier]
    figures: list[IdeaFigure]


class ProposalRecord(Versioned):
    """`orchard propose`."""

    schema_name: Literal["orchard.proposal/1"] = Field(alias="schema")
    model: str
    chips: list[str]
    combinations: int
    seen: str
    fresh: str
    versions: dict[str, str]
    fronts: list[FrontPoint]
    sheets: list[IdeaSheet]
