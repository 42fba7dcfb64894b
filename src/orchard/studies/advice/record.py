"""What advice consists of: frozen records, and their JSON (`orchard.advice/1`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from orchard.studies.advice.changes import Effort, Risk
from orchard.studies.request import Request

SCHEMA = "orchard.advice/1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Gain:
    """A figure (SI) before and after. `factor`: how many times better (2.0: half the time, or twice the rate), with an 80 %
    interval from measured pairs (`basis`); the interval is None for memory, which is counted, not estimated."""

    figure: str
    before: float
    after: float
    factor: float
    factor_interval: tuple[float, float] | None
    basis: str

    @property
    def saved(self) -> float:
        """Share of the time, memory or energy that goes away: 1 - 1 / factor; negative for a loss."""
        return 1.0 - 1.0 / self.factor


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """Another setting of a recommendation, and what it brings in the same figure."""

    title: str
    factor: float
    risk: Risk
    effort: Effort
    apply: tuple[str, ...]
    fields: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Recommendation:
    """One change, or several made together.

    apply, fields   what `orchard predict` is given for it: techniques, and fields of the request; both empty where the gain
                    is not one of `predict` (`priced_by` lint or place)
    side_effects    other figures that get worse by 1 % or more, as sentences
    how             commands or code for the runtime, one per change; `predict` the Orchard command that shows the result
    """

    kind: str
    title: str
    gain: Gain
    figures: Mapping[str, float]
    side_effects: tuple[str, ...]
    risk: Risk
    quality: str
    effort: Effort
    reason: str
    how: tuple[str, ...]
    predict: str
    priced_by: str = "predict"
    apply: tuple[str, ...] = ()
    fields: Mapping[str, Any]
    others: tuple[Variant, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class GoalResult:
    """A goal before, and with the best combination. `bound`: the best value that physics allows with any change tried here
    (None for energy, which has no bound); `verdict`: met, reached, not reached or out of reach; `sentence` says why."""

    text: str
    figure: str
    target: float
    before: float
    after: float
    bound: float | None
    verdict: str
    sentence: str


@dataclass(frozen=True, kw_only=True)
class Advice:
    """The answer of `orchard advise`. `combination` is None where no combination beats the best single change."""

    request: Request
    model: str
    chip: str
    chip_name: str
    runtime: str
    engine: str
    objective: str
    figures: Mapping[str, float]
    bounds: Mapping[str, float]
    goals: tuple[GoalResult, ...]
    recommendations: tuple[Recommendation, ...]
    combination: Recommendation | None
    tried: int
    notes: tuple[str, ...]
    warnings: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """`orchard.advice/1`."""
        return {
            "schema": SCHEMA,
            "model": self.model,
            "chip": {"id": self.chip, "name": self.chip_name},
            "runtime": self.runtime,
            "engine": self.engine,
            "request": _plain(asdict(self.request)),
            "objective": self.objective,
            "figures": dict(self.figures),
            "bounds": dict(self.bounds),
            "goals": [asdict(g) for g in self.goals],
            "recommendations": [_recommendation(r) for r in self.recommendations],
            "combination": None if self.combination is None else _recommendation(self.combination),
            "tried": self.tried,
            "notes": list(self.notes),
            "warnings": list(self.warnings),
        }


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {k: _plain(v) for k, v in value.items()}
    return [_plain(v) for v in value] if isinstance(value, tuple | list) else value


def _recommendation(r: Recommendation) -> dict[str, Any]:
    interval = r.gain.factor_interval
    return {
        "kind": r.kind,
        "title": r.title,
        "gain": {**asdict(r.gain), "factor_interval": None if interval is None else list(interval), "saved": r.gain.saved},
        "figures": dict(r.figures),
        "side_effects": list(r.side_effects),
        "quality": {"risk": r.risk.name.lower(), "text": r.quality},
        "effort": r.effort.name.lower(),
        "reason": r.reason,
        "how": list(r.how),
        "predict": r.predict,
        "priced_by": r.priced_by,
        "apply": list(r.apply),
        "fields": _plain(dict(r.fields)),
        "others": [_variant(v) for v in r.others],
        "notes": list(r.notes),
    }


def _variant(v: Variant) -> dict[str, Any]:
    return {
        "title": v.title, "factor": v.factor, "risk": v.risk.name.lower(), "effort": v.effort.name.lower(),
        "apply": list(v.apply), "fields": _plain(dict(v.fields)),
    }  # fmt: skip
