"""What is built in, as records."""

from __future__ import annotations

from dataclasses import dataclass

from orchard.workloads import ModelError, load_model, model_names
from orchard.workloads.catalog import entry, short_name
from orchard.workloads.diffusion.pipelines import PIPELINES, PipelineConfig
from orchard.workloads.hf_encoders import ENCODERS
from orchard.workloads.hf_own import OWN
from orchard.workloads.networks import NETWORKS, SOURCES
from orchard.workloads.recurrent import NETWORKS as RECURRENT


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSummary:
    """A built-in model. `params`: all weights, from public tools, None where not published; `unpublished`: why.

    family: decoder, encoder, network (inputs of fixed size) or pipeline (several models that make a picture).
    """

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
    """Every built-in model: those of models.yaml, then networks, recurrent networks and pipelines."""
    return (
        *(_summary(name) for name in model_names()),
        *(_plain(n.name, "network", n.family, float(n.params_m) * 1e6, SOURCES[n.source]) for n in NETWORKS.values()),
        *(_plain(name, "encoder", net.cell, net.params, net.source) for name, net in RECURRENT.items()),
        *(_plain(p.name, "pipeline", "diffusion", _pipeline_params(p), p.source) for p in PIPELINES.values()),
    )


def _plain(name: str, family: str, architecture: str, params: float, verification: str) -> ModelSummary:
    return ModelSummary(
        id=name, name=name, family=family, architecture=architecture, params=params, experts=None, context=None,
        verification=verification, unpublished=None,
    )  # fmt: skip


def _pipeline_params(pipeline: PipelineConfig) -> float:
    """The published parameters of all components."""
    return sum(_component_params(c.model) for c in pipeline.components)


def _component_params(name: str) -> float:
    if name in NETWORKS:
        return float(NETWORKS[name].params_m) * 1e6
    return float(entry(load_model(name).name).notes["params_b"]) * 1e9


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
        family="encoder" if found.architecture in (*ENCODERS, *OWN) else "decoder",
        architecture=found.architecture,
        params=None if params is None else float(params) * 1e9,
        experts=moe.get("experts"),
        context=found.fields.get("max_positions"),
        verification=str(found.notes.get("verification", "")),
        unpublished=None,
    )
