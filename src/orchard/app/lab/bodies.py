"""Bodies of requests, as the OpenAPI description shows them. Unknown fields are refused."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictInt, StringConstraints

Text = Annotated[str, StringConstraints(strict=True, min_length=1, max_length=200)]


class Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class PredictBody(Body):
    """One configuration; the fields are the options of `orchard predict`. `set` maps figures of the chip to values."""

    model: Text
    chip: Text
    runtime: Text | None = None
    engine: Text = "auto"
    weights: Text | None = None
    activations: Text = "f16"
    kv: Text = "f16"
    batch: StrictInt = Field(1, ge=1, le=4096)
    prompt: StrictInt = Field(512, ge=0, le=2**24)
    generate: StrictInt = Field(128, ge=0, le=2**24)
    depth: StrictInt = Field(0, ge=0, le=2**24)
    threads: StrictInt | None = Field(None, ge=1, le=1024)
    steps: StrictInt | None = Field(None, ge=1, le=10_000)
    fidelity: Literal["bound", "estimate", "simulation"] = "estimate"
    set: dict[Text, Text] = Field(default_factory=dict, max_length=64)
    inputs: list[Text] = Field(default_factory=list, max_length=16)
    apply: list[Text] = Field(default_factory=list, max_length=8)


class PredictionBody(PredictBody):
    """`breakdown` as the option of the command."""

    breakdown: bool = False


class PlaceOptions(Body):
    objective: Literal["latency", "energy", "edp"] = "latency"
    engines: Text = "cpu,gpu,ane"
    precision: Literal["auto", "stored", "f16"] = "auto"
    time_limit_s: float = Field(default=2.0, gt=0, le=20)


class PlaceBody(PredictBody):
    """A configuration (its engine is not used) and how to place it."""

    place: PlaceOptions = PlaceOptions()


class AdviceBody(PredictBody):
    """A configuration, and goals as `orchard advise --goal` reads them."""

    goal: Text | None = None


class StudyBody(Body):
    """A study of `orchard explore`, written as JSON."""

    study: dict[str, Any] = Field(max_length=32)


class FileBody(Body):
    """A name from `GET /api/v1/files`."""

    name: Annotated[str, StringConstraints(strict=True, min_length=1, max_length=1000)]
