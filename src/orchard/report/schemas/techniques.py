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


class Techniques(Versioned):
    """`orchard technique list`."""

    schema_name: Literal["orchard.techniques/1"] = Field(alias="schema")
    techniques: list[TechniqueSummary]


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
