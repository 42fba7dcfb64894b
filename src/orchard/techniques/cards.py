"""The catalogue: one card per technique. Texts are data (`cards.yaml`), options come from the pass itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import lru_cache
from importlib.resources import files
from typing import Any

from orchard.techniques.base import Technique, range_text
from orchard.techniques.claims import load_claims
from orchard.techniques.errors import TechniqueError
from orchard.techniques.plugins import RATED, technique_plugins
from orchard.techniques.registry import NO_RULE, TECHNIQUES
from orchard.units import did_you_mean

ENGINES = RATED
"""Columns of ratings; `gpu_matrix` is a GPU with matrix units."""
ORCHARD = "orchard"


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """An option of a technique. `values` says what it takes."""

    name: str
    default: int | float | bool | str
    values: str
    about: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """What is known of a technique. `no_rule` says why it cannot be applied; `refused` is per engine.
    `origin` is "orchard" or the package of a plug-in with its version."""

    name: str
    title: str
    family: str
    mechanism: str
    relieves: tuple[str, ...]
    formula: str
    sources: tuple[str, ...]
    engines: Mapping[str, str]
    helps: str
    hurts: str
    quality: str
    verdict: str
    options: tuple[Option, ...]
    example: str
    no_rule: str | None
    refused: Mapping[str, str]
    claims: tuple[str, ...]
    origin: str


def load_cards() -> Mapping[str, Card]:
    """All cards by name, in the order of the file; those of plug-ins after them."""
    plugins = {
        name: _card({"name": name, **p.cls.card}, (), p.cls, p.origin) for name, p in technique_plugins().found.items()
    }
    return {**_own_cards(), **plugins}


@lru_cache(maxsize=1)
def _entries() -> Mapping[str, Mapping[str, Any]]:
    import yaml

    text = files("orchard.techniques").joinpath("cards.yaml").read_text(encoding="utf-8")
    return {entry["name"]: entry for entry in yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))}


def card_of(cls: type[Technique]) -> Mapping[str, Any]:
    """Texts of the card of a technique, its own or that of `cards.yaml`; empty where there is none."""
    return cls.card or {key: text for key, text in _entries().get(cls.name, {}).items() if key != "name"}


@lru_cache(maxsize=1)
def _own_cards() -> Mapping[str, Card]:
    claims: dict[str, list[str]] = {}
    for claim in load_claims():
        claims.setdefault(claim.card, []).append(claim.id)
    return {
        name: _card(entry, tuple(claims.get(name, ())), TECHNIQUES.get(name), ORCHARD)
        for name, entry in _entries().items()
    }


def _card(entry: Mapping[str, Any], claims: tuple[str, ...], cls: type[Technique] | None, origin: str) -> Card:
    texts: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in entry.items()}
    return Card(
        **texts,
        options=options_of(cls) if cls else (),
        example=_docstring(cls) if cls else "",
        no_rule=None if cls else NO_RULE[entry["name"]],
        refused=cls.refused if cls else {},
        claims=claims,
        origin=origin,
    )


def _docstring(cls: type[Technique]) -> str:
    lines = (cls.__doc__ or "").strip().splitlines()
    return "\n".join(line[4:] if line.startswith("    ") else line for line in lines)


def options_of(cls: type[Technique]) -> tuple[Option, ...]:
    return tuple(
        Option(name=f.name, default=f.default, values=_values(f.default, f.metadata), about=f.metadata["about"])  # type: ignore[arg-type]
        for f in fields(cls)
    )


def _values(default: object, metadata: Mapping[str, Any]) -> str:
    if metadata["among"]:
        return ", ".join(map(str, metadata["among"]))
    if isinstance(default, bool):
        return "true, false"
    return "text" if isinstance(default, str) else range_text(metadata["least"], metadata["most"])


def card(name: str) -> Card:
    """Raises TechniqueError with the nearest name."""
    cards = load_cards()
    found = cards.get(name.strip().lower())
    if found is None:
        if name.strip() in technique_plugins().problems:
            raise TechniqueError(technique_plugins().problems[name.strip()])
        hint = did_you_mean(name, cards) or "; `orchard technique list` has them all"
        raise TechniqueError(f"technique {name!r} is not known{hint}")
    return found


def cards_for(engine: str | None) -> tuple[Card, ...]:
    """Cards that help on an engine (rated + or ++ there), all without one. Raises TechniqueError for an unknown engine."""
    if engine is None:
        return tuple(load_cards().values())
    column = engine.strip().lower().replace("-", "_")
    if column not in ENGINES:
        raise TechniqueError(
            f"engine {engine!r} is not known{did_you_mean(column, ENGINES)}; expected {', '.join(ENGINES)}"
        )
    return tuple(c for c in load_cards().values() if c.engines[column] in ("+", "++"))
