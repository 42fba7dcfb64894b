"""Records of the HTTP API that no command prints."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from orchard.report.schemas.base import Record, Versioned
from orchard.report.schemas.prediction import Prediction


class RooflinePart(Record):
    name: str
    intensity: float
    ops_per_s: float
    seconds: float
    bound_by: str


class RooflineRecord(Record):
    peak_ops_per_s: float
    bytes_per_s: float
    points: list[RooflinePart]


class SlicePart(Record):
    name: str
    kind: str
    count: int
    start_s: float
    seconds: float
    bound_by: str


class PassPart(Record):
    ops: int
    activation_bytes: list[int]


class ContextPart(Record):
    tokens: int
    cache_bytes: int


class WhyPart(Record):
    kind: str
    text: str
    source: str


class View(Versioned):
    """`POST /api/v1/view`."""

    schema_name: Literal["orchard.view/1"] = Field(alias="schema")
    prediction: Prediction
    command: str
    rooflines: dict[str, RooflineRecord]
    timelines: dict[str, list[SlicePart]]
    passes: dict[str, PassPart]
    context: list[ContextPart]
    why: dict[str, WhyPart]


class ObjectivePart(Record):
    metric: str
    larger: bool


class KnobPart(Record):
    name: str
    about: str


class OpenableDesign(Record):
    index: int
    knobs: dict[str, float | int | str | None]
    metrics: dict[str, float | None]
    open: dict[str, dict[str, object]]


class RunStatus(Versioned):
    """`GET /api/v1/runs/{run}`."""

    schema_name: Literal["orchard.run-status/1"] = Field(alias="schema")
    run: str
    name: str
    chip: str
    kind: Literal["estimate"]
    method: str
    state: Literal["running", "stopped", "complete"]
    message: str
    designs: int
    evaluated: int
    stored: int
    feasible: int
    front_size: int
    objectives: list[ObjectivePart]
    constraints: list[str]
    knobs: list[KnobPart]
    front: list[OpenableDesign]
    cloud: list[list[float | None]]
