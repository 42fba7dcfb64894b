"""What is built in, as records."""

from __future__ import annotations

from dataclasses import dataclass

from orchard.workloads import ModelError, model_names
from orchard.workloads.catalog import entry, short_name
from orchard.workloads.hf_encoders import ENCODERS


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSummary:
    """A built-in model. `params`: all weights, from public tools, None where not published; `unpublished`: why."""

    id: str
    name: str
    family: str
    architecture: str
    params: float | None
    experts: int | None
    context: int | None
    verification: str
    unpublished: str | None


def list_models() -> tuple[ModelSummary, ...]:
    """Every built-in model, in the order of the file."""
    return tuple(_summary(name) for name in model_names())


def _summary(name: str) -> ModelSummary:
    try:
        found = entry(name)
    except ModelError as error:
        return ModelSummary(
            id=name, name=short_name(name), family="decoder", architecture="", params=None, experts=None, context=None,
            verification="", unpublished=str(error),
        )  # fmt: skip
    moe = found.fields.get("moe") or {}
    params = found.notes.get("params_b")
    return ModelSummary(
        id=name,
        name=short_name(name),
        family="encoder" if found.architecture in ENCODERS else "decoder",
        architecture=found.architecture,
        params=None if params is None else float(params) * 1e9,
        experts=moe.get("experts"),
        context=found.fields.get("max_positions"),
        verification=str(found.notes.get("verification", "")),
        unpublished=None,
    )
