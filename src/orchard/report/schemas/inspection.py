"""Records of `orchard inspect` and `orchard lint`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from orchard.report.schemas.base import Record, Versioned


class TensorPart(Record):
    format: str
    shape: list[int | str]


class KindPart(Record):
    kind: str
    ops: int
    macs: int | str
    vector_ops: int | str


class ModulePart(Record):
    path: str
    ops: int
    params: int
    macs: int | str


class InspectedModel(Record):
    name: str
    family: str
    params: int


class ResidencePart(Record):
    kind: str
    ops: int
    first: str
    runs_on: list[str]
    refusals: dict[str, list[str]]
    slower: dict[str, list[str]]


class Inspection(Versioned):
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


class LintPart(Record):
    rule: str
    reason: str
    change: str
    blocks: bool
    source: str
    ops: int
    first: str
    gain_s: float | None


class Lint(Versioned):
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
