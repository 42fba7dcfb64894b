"""What techniques bring to one model on several chips: every phase before and after, with what binds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from orchard.studies.experiment.effects import QualityEffect, quality_effects
from orchard.studies.predict import Phase, Prediction, answer
from orchard.studies.request import Request
from orchard.studies.technique_audit import WITHIN
from orchard.studies.techniques import parsed
from orchard.units import OrchardError


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseEffect:
    """One phase without and with a technique. Gains above 1 are better."""

    phase: str
    before: Phase
    after: Phase

    @property
    def speed(self) -> float:
        return self.before.latency_s / self.after.latency_s

    @property
    def energy(self) -> float:
        return self.before.energy_j / self.after.energy_j

    @property
    def bound_before(self) -> str:
        return binding(self.before)

    @property
    def bound_after(self) -> str:
        return binding(self.after)


@dataclass(frozen=True, slots=True, kw_only=True)
class Effect:
    """One technique on one chip; `refusal` instead of phases where it has no cost rule there."""

    technique: str
    chip: str
    engine: str = ""
    runtime: str = ""
    phases: tuple[PhaseEffect, ...] = ()
    memory_before: int = 0
    memory_after: int = 0
    verdict: str = ""
    reason: str = ""
    refusal: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """All techniques on all chips."""

    model: str
    effects: tuple[Effect, ...]

    def quality(self, technique: str) -> tuple[QualityEffect, ...]:
        """Recorded losses of a technique of the table."""
        return quality_of(technique)


def quality_of(text: str) -> tuple[QualityEffect, ...]:
    """Recorded losses nearest to a technique: those of its own text, else those of its name that state no other value for an
    option it gives (never `bits=3` for `bits=4`; an option that one of them leaves out may differ); alone, not joined."""
    own = quality_effects(text)
    if own and ":" in text:
        return own
    asked = _options(text)
    alone = (e for e in quality_effects(text.partition(":")[0].strip()) if "+" not in e.technique)
    return tuple(e for e in alone if all(_options(e.technique).get(k, v) == v for k, v in asked.items()))


def _options(text: str) -> dict[str, str]:
    pairs = (part.partition("=") for part in text.partition(":")[2].split(",") if part.strip())
    return {key.strip(): value.strip() for key, _, value in pairs}


def binding(phase: Phase) -> str:
    return max(phase.bound_by, key=lambda cause: phase.bound_by[cause])


def evaluate(techniques: Sequence[str], request: Request, chips: Sequence[str]) -> Evaluation:
    """Each technique alone, on each chip. Raises an OrchardError for a technique, model or chip that is not known."""
    for text in techniques:
        parsed((text,))
    found = [_effect(text, replace(request, chip=chip)) for text in techniques for chip in chips]
    return Evaluation(model=request.model, effects=tuple(found))


def _effect(text: str, request: Request) -> Effect:
    base = request
    off = _taken_away(text)
    try:
        with_it = answer(replace(request, apply=(off[1] if off else text,)))
        base = replace(
            request, engine=with_it.profile.engine, runtime=with_it.profile.runtime, apply=(off[0],) if off else ()
        )
        plain = answer(base)
    except OrchardError as error:
        answer(replace(request, apply=()))  # a model or chip that is not known is no verdict
        return Effect(
            technique=text, chip=request.chip, verdict="does not transfer", reason=str(error), refusal=str(error)
        )
    return _compared(text, plain, with_it)


def _taken_away(text: str) -> tuple[str, str] | None:
    """(without, with) of a technique that runtimes apply already: it is compared with its absence."""
    name = text.partition(":")[0]
    return (f"{name}:on=false", f"{name}:on=true") if name in ("flash-attention", "fusion") else None


def _compared(text: str, plain: Prediction, with_it: Prediction) -> Effect:
    phases = tuple(
        PhaseEffect(phase=name, before=phase, after=with_it.phases[name])
        for name, phase in plain.phases.items() if name in with_it.phases
    )  # fmt: skip
    verdict, reason = _verdict(phases, plain.memory.total, with_it.memory.total)
    return Effect(
        technique=text, chip=plain.soc.id, engine=with_it.profile.engine, runtime=with_it.profile.runtime, phases=phases,
        memory_before=plain.memory.total, memory_after=with_it.memory.total, verdict=verdict, reason=reason,
    )  # fmt: skip


def _verdict(phases: Sequence[PhaseEffect], before: int, after: int) -> tuple[str, str]:
    """By the phase that gains most: a quarter or more, a tenth, memory alone, nothing. The binding term is named."""
    best = max(phases, key=lambda p: p.speed)
    terms = f"{best.phase}: {best.bound_before} binds before, {best.bound_after} after"
    if best.speed >= WITHIN:
        return "transfers", terms
    if best.speed >= 1.1:
        return "transfers weakly", terms
    if after < 0.9 * before:
        return "transfers weakly", f"memory only; {terms}"
    return "does not transfer", terms
