"""Technique cards as people and programs read them."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

from orchard.studies.technique_audit import Audit, counts
from orchard.studies.technique_evaluate import Evaluation
from orchard.techniques import ENGINES, Card, load_claims, technique_plugins

WIDTH = 80
ORCHARD = "orchard"
HEADS = {"ane": "ANE", "gpu": "GPU", "gpu_matrix": "GPU+", "cpu": "CPU"}


def techniques_record(cards: Sequence[Card]) -> dict[str, Any]:
    """`orchard.techniques/1`."""
    return {
        "schema": "orchard.techniques/1", "techniques": [_summary(card) for card in cards],
        "not_loaded": list(technique_plugins().problems.values()),
    }  # fmt: skip


def _summary(card: Card) -> dict[str, Any]:
    return {
        "name": card.name, "title": card.title, "family": card.family, "relieves": list(card.relieves),
        "ratings": dict(card.engines), "verdict": card.verdict, "priced": card.no_rule is None, "claims": len(card.claims),
        "origin": card.origin,
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
                mark = "*" if card.no_rule else " " if card.origin == ORCHARD else ">"
                lines.append(
                    f"{mark} {card.name:<24}{ratings}  {textwrap.shorten(card.verdict, 31, placeholder='...')}"
                )
    lines += ["", "++ strong, + useful, 0 neutral, - hurts, x not expressible", "GPU+ is a GPU with matrix units (M5, A19)"]
    lines += ["* no cost rule (`orchard technique show NAME` says why)"]
    for card in cards:
        if card.origin != ORCHARD:
            lines += _wrapped(f"> {card.name} comes from {card.origin}", "  ")
    for problem in technique_plugins().problems.values():
        lines += _wrapped(f"not loaded: {problem}", "  ", "")
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
    lines += [] if card.origin == ORCHARD else _labelled("comes from", card.origin)
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


def evaluation_record(found: Evaluation) -> dict[str, Any]:
    """`orchard.technique-evaluation/1`."""
    return {
        "schema": "orchard.technique-evaluation/1",
        "model": found.model,
        "effects": [
            {
                "technique": e.technique, "chip": e.chip, "engine": e.engine, "runtime": e.runtime, "verdict": e.verdict,
                "reason": e.reason, "memory_before_bytes": e.memory_before, "memory_after_bytes": e.memory_after,
                "phases": {
                    p.phase: {
                        "latency_before_s": p.before.latency_s, "latency_after_s": p.after.latency_s, "speed_gain": p.speed,
                        "tokens_per_s_before": p.before.tokens_per_s, "tokens_per_s_after": p.after.tokens_per_s,
                        "energy_before_j": p.before.energy_j, "energy_after_j": p.after.energy_j,
                        "bound_before": p.bound_before, "bound_after": p.bound_after,
                    }
                    for p in e.phases
                },
            }
            for e in found.effects
        ],
        "quality": [
            {
                "technique": text, "recorded": e.technique, "fixture": e.fixture, "parameters": e.parameters, "seeds": e.seeds,
                "loss_nats": e.loss, "low_nats": e.low, "high_nats": e.high, "equivalent": e.equivalent,
            }
            for text in dict.fromkeys(e.technique for e in found.effects)
            for e in found.quality(text)
        ],
    }  # fmt: skip


def render_evaluation(found: Evaluation) -> str:
    """A table per technique: a line per chip and phase."""
    lines = [f"{found.model}, each technique alone", ""]
    for text in dict.fromkeys(e.technique for e in found.effects):
        lines += [text, f"  {'chip':<12}{'engine':<7}{'phase':<10}{'before':>9}{'after':>9}{'gain':>6}{'energy':>8}  bound by"]
        for e in (e for e in found.effects if e.technique == text):
            for p in e.phases:
                lines.append(
                    f"  {e.chip[:14]:<12}{e.engine:<7}{p.phase[:9]:<10}{_ms(p.before.latency_s):>9}{_ms(p.after.latency_s):>9}"
                    f"{p.speed:>6.2f}{p.energy:>8.2f}  {p.bound_before[:6]}>{p.bound_after[:6]}"
                )
            memory = f"memory {e.memory_before / 2**30:.2f} to {e.memory_after / 2**30:.2f} GiB; " if e.phases else ""
            lines += _wrapped(f"{e.verdict}: {memory}{e.reason}", "    ", f"  {e.chip[:14]:<15}")
        lines += _quality_lines(found, text)
        name = text.partition(":")[0]
        claims = [c for c in load_claims() if c.card == name]
        lines += [f"  {len(claims)} published figures (`orchard technique show`)", ""]
    return "\n".join([*lines, "before and after in ms (decode: per token); gain and energy above 1 are better"])


SHOWN = 4
"""Recorded losses of a technique that a table shows."""


def _quality_lines(found: Evaluation, text: str) -> list[str]:
    """Recorded losses with their intervals and what they rest on."""
    rows = found.quality(text)
    if not rows:
        return ["  quality: not recorded (`orchard experiment run` measures it on your model)"]
    near = "" if any(e.technique == text for e in rows) else "; near settings"
    lines = [f"  loss in nats per token (95 % interval), directions only{near}"]
    for e in rows[:SHOWN]:
        scale = f"{e.fixture}, {e.parameters / 1e6:.2f} M parameters, {e.seeds} seeds"
        none = ", no loss" if e.equivalent else ""
        lines += _wrapped(f"{e.technique}: {e.loss:+.4f} ({e.low:+.4f} to {e.high:+.4f}){none}; {scale}", " " * 6, "    ")
    if len(rows) > SHOWN:
        lines.append(f"    {len(rows) - SHOWN} more: `orchard experiment effects {text.partition(':')[0]}`")
    return lines


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:,.4g}"


def audit_record(found: Audit) -> dict[str, Any]:
    """`orchard.technique-audit/1`."""
    return {
        "schema": "orchard.technique-audit/1", "target": found.target, "claims": len(found.findings), "scored": len(found.scored),
        "explained": found.explained, "verdicts": counts(found.findings),
        "findings": [
            {
                "id": f.claim.id, "technique": f.claim.card, "model": f.claim.model, "setting": f.claim.setting,
                "metric": f.claim.metric, "hardware": f.claim.hardware, "chip": f.chip,
                "own_hardware": f.own_hardware, "kind": f.kind,
                "published_gain": None if f.published_low is None else [f.published_low, f.published_high],
                "predicted_gain": f.predicted, "verdict": f.verdict, "reason": f.reason,
                "bound_before": f.bound_before, "bound_after": f.bound_after,
            }
            for f in found.findings
        ],
    }  # fmt: skip


def render_audit(found: Audit) -> str:
    """Numbers first, then one line a claim that puts a question, then the reasons of those that cannot be answered."""
    share = f"{found.explained / len(found.scored):.0%}" if found.scored else "-"
    scored = f"{len(found.scored)} answered on their own chip, {found.explained} within 25 % ({share})"
    lines = [f"{len(found.findings)} claims; {scored}"]
    lines += [f"  {verdict:<26}{n:>4}" for verdict, n in counts(found.findings).items()]
    lines += ["", f"{'id':<6}{'technique':<18}{'chip':<9}{'published':>11}{'model':>7}  verdict"]
    for f in found.findings:
        if f.predicted is None or f.published_low is None or f.published_high is None:
            continue
        low, high = f"{f.published_low:.2f}", f"{f.published_high:.2f}"
        ends, chip = low if low == high else f"{low}-{high}", f.chip + ("" if f.own_hardware else "*")
        lines.append(f"{f.claim.id[:5]:<6}{f.claim.card[:17]:<18}{chip[:8]:<9}{ends:>11}{f.predicted:>7.2f}  {f.verdict}")
        if f.verdict not in ("explained", "transfers"):
            lines += _wrapped(f.reason, " " * 8, " " * 6 + "- ")
    lines += ["* other hardware: predicted on the target", "", "no answer"]
    reasons: dict[str, list[str]] = {}
    for f in found.findings:
        if f.predicted is None:
            reasons.setdefault(f.reason, []).append(f.claim.id)
    for reason, ids in reasons.items():
        which = ", ".join(ids) if len(ids) < 6 else f"{len(ids)} claims"
        lines += _wrapped(f"{which}: {reason}", "    ", "  ")
    return "\n".join(lines)
