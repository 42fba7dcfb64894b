"""The idea sheet: what was thought, predicted, tried and found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Verdict = Literal["supported", "rejected", "undecided"]


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A number of a sheet. `kind`: estimate (from the performance model), measurement (on a fixture), bound."""

    name: str
    value: float
    unit: str
    kind: Literal["estimate", "measurement", "bound"]


@dataclass(frozen=True, kw_only=True)
class Falsifier:
    """What would show that the idea is wrong, and whether it did. `struck` is None where it cannot be tried here."""

    text: str
    found: str
    struck: bool | None


@dataclass(frozen=True, kw_only=True)
class Sheet:
    """One idea. `origin`: `brief` for one that was written down beforehand, `search` for one that the joint search found."""

    id: str
    title: str
    origin: Literal["brief", "search"]
    hypothesis: str
    formula: str
    prediction: str
    experiment: str
    result: str
    falsifiers: tuple[Falsifier, ...]
    figures: tuple[Figure, ...]
    scale: str

    @property
    def verdict(self) -> Verdict:
        """Rejected when a falsifier struck; supported when each could be tried and none did."""
        if any(f.struck for f in self.falsifiers):
            return "rejected"
        return "supported" if all(f.struck is False for f in self.falsifiers) else "undecided"


def figure(name: str, value: float, unit: str, kind: Literal["estimate", "measurement", "bound"]) -> Figure:
    return Figure(name=name, value=float(value), unit=unit, kind=kind)
