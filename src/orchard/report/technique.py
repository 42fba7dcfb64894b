"""Technique cards as people and programs read them."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

from orchard.techniques import ENGINES, Card, load_claims

WIDTH = 80
HEADS = {"ane": "ANE", "gpu": "GPU", "gpu_matrix": "GPU+", "cpu": "CPU"}


def techniques_record(cards: Sequence[Card]) -> dict[str, Any]:
    """`orchard.techniques/1`."""
    return {"schema": "orchard.techniques/1", "techniques": [_summary(card) for card in cards]}


def _summary(card: Card) -> dict[str, Any]:
    return {
        "name": card.name, "title": card.title, "family": card.family, "relieves": list(card.relieves),
        "ratings": dict(card.engines), "verdict": card.verdict, "priced": card.no_rule is None, "claims": len(card.claims),
    }  # fmt: skip


def technique_record(card: Card) -> dict[str, Any]:
    """`orchard.technique/1`."""
    claims = [c for c in load_claims() if c.card == card.name]
    return {
        "schema": "orchard.technique/1",
        **_summary(card),
        "mechanism": card.mechanism, "formula": card.formula, "sources": list(card.sources),
        "helps": card.helps, "hurts": card.hurts,
        "quality": card.quality, "example": card.example, "no_rule": card.no_rule, "refused": dict(card.refused),
        "options": [{"name": o.name, "default": o.default, "values": o.values, "about": o.about} for o in card.options],
        "claims": [
            {
                "id": c.id, "model": c.model, "setting": c.setting, "metric": c.metric, "baseline": c.baseline, "value": c.value,
                "hardware": c.hardware, "verified": c.verified == "yes", "source": c.source_ref,
            }
            for c in claims
        ],
    }  # fmt: skip


def render_techniques(cards: Sequence[Card]) -> str:
    """One line a technique, by family."""
    lines: list[str] = []
    for family in dict.fromkeys(card.family for card in cards):
        lines += [] if not lines else [""]
        lines.append(f"{family:<26}" + "".join(f"{HEADS[e]:>5}" for e in ENGINES) + "  prior verdict")
        for card in cards:
            if card.family == family:
                ratings = "".join(f"{card.engines[e]:>5}" for e in ENGINES)
                mark = " " if card.no_rule is None else "*"
                lines.append(
                    f"{mark} {card.name:<24}{ratings}  {textwrap.shorten(card.verdict, 31, placeholder='...')}"
                )
    lines += ["", "++ strong, + useful, 0 neutral, - hurts, x not expressible", "GPU+ is a GPU with matrix units (M5, A19)"]
    lines += ["* no cost rule (`orchard technique show NAME` says why)"]
    return "\n".join(lines)


def render_technique(card: Card) -> str:
    """A card as text."""
    lines = [card.name, *_wrapped(card.title, ""), ""]
    for label, text in (
        ("mechanism", card.mechanism), ("relieves", ", ".join(card.relieves)), ("formula", card.formula), ("helps", card.helps),
        ("hurts", card.hurts), ("quality", card.quality), ("prior verdict", card.verdict), ("sources", "; ".join(card.sources)),
    ):  # fmt: skip
        lines += _labelled(label, text)
    lines += _labelled("engines", ", ".join(f"{HEADS[e]} {card.engines[e]}" for e in ENGINES))
    for engine, reason in card.refused.items():
        lines += _labelled(f"not on {engine}", reason)
    if card.no_rule:
        lines += _labelled("no cost rule", card.no_rule)
    if card.options:
        lines += ["", "options"]
        for o in card.options:
            head = f"  {o.name}={str(o.default).lower() if isinstance(o.default, bool) else o.default}"
            lines += _wrapped(f"{o.about} ({o.values})", " " * 22, f"{head:<22}")
    if card.example:
        lines += [
            "",
            *(
                line
                for text in card.example.splitlines()
                for line in _wrapped(text, "           ", "  " + _indent(text))
            ),
        ]
    record = [c for c in load_claims() if c.card == card.name]
    if record:
        lines += ["", f"published ({len(record)})"]
    for c in record:
        text = f"{c.model}; {c.setting}: {c.metric} {c.baseline or '?'} to {c.value}; {c.hardware}" + (
            "" if c.verified == "yes" else " (from memory)"
        )
        lines += _wrapped(text, "        ", f"  {c.id}  ")
    return "\n".join(lines)


def _indent(text: str) -> str:
    return " " * (len(text) - len(text.lstrip()))


def _labelled(label: str, text: str) -> list[str]:
    return _wrapped(text, " " * 15, f"{label:<15}")


def _wrapped(text: str, indent: str, first: str | None = None) -> list[str]:
    return textwrap.wrap(
        text.strip(), WIDTH, initial_indent=indent if first is None else first, subsequent_indent=indent
    ) or [""]
