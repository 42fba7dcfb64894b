"""Records of `orchard complexity`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from orchard.report.schemas.base import Record, Versioned
from orchard.report.schemas.catalogue import NamedModel


class PhaseForms(Record):
    symbols: list[str]
    forms: dict[str, str]
    sympy: dict[str, str]


class CrossingPart(Record):
    phase: str
    symbol: str
    at: dict[str, int]
    limit: int
    bound: int | None
    estimate: int | None


class MachinePart(Record):
    chip: str
    runtime: str
    engine: str
    peak_ops_per_s: float
    bytes_per_s: float
    ridge_ops_per_byte: float
    cache_equals_weights_tokens: int | None
    crossings: list[CrossingPart]


class Complexity(Versioned):
    """orchard complexity. `machine` is there with --chip."""

    schema_name: Literal["orchard.complexity/1"] = Field(alias="schema")
    model: NamedModel
    weights: str
    kv: str
    cache_bytes_per_token: float
    phases: dict[str, PhaseForms]
    machine: MachinePart | None
