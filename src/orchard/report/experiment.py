"""Experiments as people and programs read them."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Sequence
from typing import Any

from orchard.studies.experiment.effects import QualityEffect
from orchard.studies.experiment.findings import Arm, Findings, Test
from orchard.studies.experiment.statistics import Effect
from orchard.studies.experiment.study import Experiment

WIDTH = 80
LARGEST = "A loss of a model of about a million parameters: the direction carries over, the size does not."


def experiments_record(found: Iterable[Experiment]) -> dict[str, Any]:
    """`orchard.experiments/1`."""
    return {"schema": "orchard.experiments/1", "experiments": [_experiment(e) for e in found]}


def _experiment(e: Experiment) -> dict[str, Any]:
    return {
        "name": e.name, "about": e.about, "design": e.design if e.factors else "arms", "fixtures": list(e.fixtures),
        "seeds": list(e.seeds), "sequences": e.sequences, "calibration": e.calibration, "scale": e.scale,
        "cells": len(e.cells()), "factors": {f.name: list(f.levels) for f in e.factors}, "claims": len(e.claims),
    }  # fmt: skip


def experiment_record(found: Findings) -> dict[str, Any]:
    """`orchard.experiment/1`."""
    outcome = found.outcome
    return {
        "schema": "orchard.experiment/1", "experiment": _experiment(outcome.experiment), "folder": outcome.folder,
        "parameters": outcome.parameters, "versions": dict(outcome.versions), "arms": [_arm(a) for a in found.arms],
        "refused": [{"fixture": r.fixture, "technique": r.technique, "reason": r.reason} for r in found.refused],
        "effects": [_effect(f, e) for f, effects in found.effects.items() for e in effects],
        "tests": [_test(t) for t in found.tests],
    }  # fmt: skip


def _arm(a: Arm) -> dict[str, Any]:
    return {
        "fixture": a.fixture, "technique": a.technique, "levels": dict(a.levels), "loss_nats": a.loss.value,
        "interval_nats": [a.loss.low, a.loss.high], "effect_size": a.size, "kl_nats": a.kl, "flips": a.flips,
        "no_loss_p": a.no_loss_p, "seeds": a.seeds, "sequences": a.sequences, "by_seed": list(a.by_seed),
    }  # fmt: skip


def _effect(fixture: str, e: Effect) -> dict[str, Any]:
    return {"fixture": fixture, "term": list(e.term), "share": e.share, "f": e.f, "p": e.p, "levels": dict(e.levels)}


def _test(t: Test) -> dict[str, Any]:
    c = t.claim
    return {
        "id": c.id, "about": c.about, "fixture": c.fixture, "first": c.first, "second": c.second, "kind": t.kind,
        "value": t.value.value, "interval": [t.value.low, t.value.high], "bound": t.bound, "met": t.met, "certain": t.certain,
        "p": t.p, "validity": validity(t),
    }  # fmt: skip


def validity(t: Test) -> str:
    """What the result says beyond this model."""
    return "mechanism-reproduced" if t.met and t.certain else "direction-only" if t.met else "not-reproduced"


def render_experiments(found: Iterable[Experiment]) -> str:
    """One block per built-in experiment."""
    lines = []
    for e in found:
        what = f"{len(e.cells())} cells x {len(e.seeds)} seeds on {', '.join(e.fixtures)}"
        lines.append(f"{e.name:<12}{'arms' if not e.factors else e.design}, {what}")
        lines += textwrap.wrap(e.about, WIDTH, initial_indent=" " * 12, subsequent_indent=" " * 12)
    return "\n".join(lines)


def render_findings(found: Findings) -> str:
    """Arms, effects, claims."""
    e, outcome = found.outcome.experiment, found.outcome
    count = max(a.seeds for a in found.arms)  # a model of the user's has one, whatever the experiment asks for
    seeds = "1 seed" if count == 1 else f"{count} seeds"
    trained = f"{e.scale} training, {outcome.parameters / 1e6:.2f} M parameters"
    whose = trained if outcome.parameters else "a model of your own"
    lines = [f"{e.name}: {seeds} x {e.sequences} sequences, {whose}", f"run {outcome.folder}"]
    for fixture in dict.fromkeys(a.fixture for a in found.arms):
        lines += ["", *_arms(fixture, [a for a in found.arms if a.fixture == fixture])]
        lines += _effects(found.effects.get(fixture, ()))
    lines += _refused(found)
    lines += _tests(found.tests)
    if outcome.parameters:
        lines += ["", *textwrap.wrap(LARGEST, WIDTH)]
    return "\n".join(lines)


def _arms(fixture: str, arms: Sequence[Arm]) -> list[str]:
    lines = [f"{fixture:<40}{'loss':>8}{'95 % interval':>18}{'flips':>7} same", f"{'':<40}{'nats/tok':>8}"]
    for a in arms:
        same = "yes" if a.no_loss_p < 0.05 else ""
        wrapped = _folded(a.technique, 39)
        span = f"{a.loss.low:.4f} - {a.loss.high:.4f}"
        lines += wrapped[:-1]
        lines.append(f"{wrapped[-1]:<39} {a.loss.value:>8.4f}{span:>18}{a.flips * 100:>6.1f}% {same}".rstrip())
    return lines


def _folded(technique: str, width: int) -> list[str]:
    """Lines of a text of techniques, broken after a comma or a plus where they can be."""
    lines = [""]
    for piece in re.findall(r"[^,+]+(?:,|\+ ?)?", technique):
        if lines[-1] and len(lines[-1]) + len(piece.rstrip()) > width:
            lines.append("")
        lines[-1] += piece
    return [part for line in lines for part in textwrap.wrap(line, width)]


def _effects(effects: Sequence[Effect]) -> list[str]:
    if not effects:
        return []
    lines = ["", "effects on the log of the loss, share of its variation:"]
    for e in effects[:10]:
        moves = ", ".join(f"{level} x{factor:.2f}" for level, factor in e.levels.items()) if e.term != ("seed",) else ""
        text = f"{' x '.join(e.term):<26}{e.share * 100:>6.1f} %  p {max(e.p, 0.0):<8.2g}{moves}"
        lines += textwrap.wrap(text, WIDTH, subsequent_indent=" " * 46)
    if len(effects) > 1 and all(len(e.term) == 1 for e in effects):
        lines.append("each factor alone: there are too few arms to tell pairs of factors apart")
    return lines


def _refused(found: Findings) -> list[str]:
    if not found.refused:
        return []
    lines = ["", f"{len(found.refused)} arms could not be applied:"]
    reasons: dict[str, list[str]] = {}
    for r in found.refused:
        reasons.setdefault(r.reason, []).append(r.technique)
    for reason, techniques in reasons.items():
        more = f" and {len(techniques) - 1} more" if len(techniques) > 1 else ""
        lines += textwrap.wrap(f"{techniques[0]}{more}: {reason}", WIDTH, subsequent_indent="    ", break_on_hyphens=False)
    return lines


def _tests(tests: Sequence[Test]) -> list[str]:
    if not tests:
        return []
    met = sum(t.met for t in tests)
    head = f"{'':<48}{'value':>8}{'expected':>15}{'p':>7}"
    lines = ["", f"claims made before the run: {met} of {len(tests)} hold", head]
    for t in tests:
        about = textwrap.shorten(f"{t.claim.about} ({t.claim.fixture})", 40, placeholder="...")
        mark = "" if t.met and t.certain else "~" if t.met else "no"
        lines.append(f"{t.claim.id:<7}{about:<41}{t.value.value:>8.3f}{t.bound:>15}{t.p:>7.2g} {mark}".rstrip())
    return [*lines, "~: the value holds, its interval does not; p adjusted over all claims (Holm)"]


def effects_record(rows: Sequence[QualityEffect]) -> dict[str, Any]:
    """`orchard.quality-effects/1`."""
    return {
        "schema": "orchard.quality-effects/1",
        "effects": [
            {
                "experiment": r.experiment, "fixture": r.fixture, "parameters": r.parameters, "scale": r.scale,
                "technique": r.technique,
                "loss_nats": r.loss, "interval_nats": [r.low, r.high], "kl_nats": r.kl, "flips": r.flips, "seeds": r.seeds,
                "sequences": r.sequences, "equivalent": r.equivalent, "label": r.label,
            }
            for r in rows
        ],
    }  # fmt: skip


def render_effects(rows: Sequence[QualityEffect]) -> str:
    lines = [f"{'':<40}{'loss':>8}{'95 % interval':>18}{'flips':>7}  on", f"{'':<40}{'nats/tok':>8}"]
    for r in rows:
        wrapped = _folded(r.technique, 39)
        span = f"{r.low:.4f} - {r.high:.4f}"
        lines += wrapped[:-1]
        lines.append(f"{wrapped[-1]:<39} {r.loss:>8.4f}{span:>18}{r.flips * 100:>6.1f}%  {r.fixture}"[:WIDTH])
    return "\n".join([*lines, "", *textwrap.wrap(LARGEST, WIDTH)])
