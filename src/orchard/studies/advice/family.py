"""Smaller built-in models of the same family: as a replacement, and as a draft that shares the vocabulary."""

from __future__ import annotations

from functools import lru_cache

from orchard.studies.library import ModelSummary, list_models
from orchard.studies.sources import ImportedModel
from orchard.workloads import Model, load_model
from orchard.workloads.networks import NETWORKS

MOST_SMALLER = 2
LARGEST_SHARE = 0.8
"""A smaller model has at most this share of the parameters; one as large is another model, not a smaller one."""
LARGEST_DRAFT = 0.2
"""A draft above a fifth of its target costs more than it can bring (arXiv 2211.17192, at 4 tokens and 0.7 accepted)."""
MOST_DRAFTS = 1


@lru_cache(maxsize=1)
def _summaries() -> tuple[ModelSummary, ...]:
    return list_models()


@lru_cache(maxsize=64)
def _vocabulary(name: str) -> int | None:
    return getattr(load_model(name).config, "vocab", None)


def _relatives(model: Model | ImportedModel) -> list[tuple[float, str]]:
    """(parameters, name) of built-in models of the same family and vocabulary, largest first."""
    own = next((s for s in _summaries() if model.name in (s.id, s.name)), None)
    if own is None or own.params is None:
        return []
    family = NETWORKS[own.name].family if own.family == "network" else None
    found = []
    for s in _summaries():
        alike = s.family == own.family and s.architecture == own.architecture and s.experts is None
        if not alike or s.params is None or s.params >= own.params or s.name == own.name:
            continue
        if family is not None and NETWORKS[s.name].family != family:
            continue
        if own.family == "decoder" and _vocabulary(s.id) != _vocabulary(own.id):
            continue
        found.append((s.params, s.id if s.id.lower().endswith("-base") else s.name))
    return sorted(found, reverse=True)


def smaller_models(model: Model | ImportedModel) -> list[tuple[str, float]]:
    """(name, share of the parameters) of the next smaller models, largest first."""
    params = model.params if isinstance(model, Model) else 0
    close = [(name, p / params) for p, name in _relatives(model) if params and p <= LARGEST_SHARE * params]
    return close[:MOST_SMALLER]


def drafts(model: Model | ImportedModel) -> list[str]:
    """Names of models small enough to draft, smallest first."""
    if not isinstance(model, Model) or model.family != "decoder":
        return []
    found = [name for p, name in _relatives(model) if p <= LARGEST_DRAFT * model.params]
    return list(reversed(found))[:MOST_DRAFTS]
