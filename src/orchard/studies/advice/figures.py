"""The figures of a prediction that goals and gains are stated in, and goals such as `ttft<0.5s, tokens_per_s>30, memory<2GB`.

    goals = goal { "," goal }        goal = name ( "<" | ">" | "<=" | ">=" ) quantity
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from orchard.studies.errors import StudyError
from orchard.studies.predict import Prediction
from orchard.units import did_you_mean, format_bytes, format_joules, format_seconds, parse_quantity


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure: its dimension, which way is better, and what it means."""

    name: str
    dimension: str
    less_is_better: bool
    about: str


FIGURES: Mapping[str, Figure] = {
    f.name: f
    for f in (
        Figure("latency", "s", True, "the whole request: prompt and every generated token, or one inference"),
        Figure("ttft", "s", True, "time to first token: the prompt phase"),
        Figure("tokens_per_s", "count", False, "tokens a second of one sequence"),
        Figure("throughput", "count", False, "tokens or inferences a second, summed over the batch"),
        Figure("memory", "bytes", True, "weights, cache and activation peak together"),
        Figure("energy", "j", True, "joules of the whole request"),
    )
}


def figures_of(p: Prediction) -> dict[str, float]:
    """Every figure the prediction has, by name; SI units."""
    found = _of_phases({n: (ph.latency_s, ph.energy_j) for n, ph in p.phases.items()}, p)
    return {**found, "memory": float(p.memory.total)}


def bounds_of(p: Prediction) -> dict[str, float]:
    """What physics allows for the same figures but energy: times from `bound_s`, memory as it is."""
    found = _of_phases({n: (ph.bound_s, ph.energy_j) for n, ph in p.phases.items()}, p)
    del found["energy"]
    return {**found, "memory": float(p.memory.total)}


def _of_phases(phases: Mapping[str, tuple[float, float]], p: Prediction) -> dict[str, float]:
    batch, found = p.request.batch, {}
    if "inference" in phases:
        runs = {"inference": 1, "decode": p.phases["decode"].tokens if "decode" in phases else 0}
    else:
        runs = {name: p.phases[name].tokens if name == "decode" else 1 for name in phases}
    parts = {name: n for name, n in runs.items() if name in phases}
    found["latency"] = sum(phases[name][0] * n for name, n in parts.items())
    found["energy"] = sum(phases[name][1] * n for name, n in parts.items())
    if "prefill" in phases:
        found["ttft"] = phases["prefill"][0]
    if "decode" in phases:
        found["tokens_per_s"] = 1.0 / phases["decode"][0]
        found["throughput"] = batch / phases["decode"][0]
    elif "inference" in phases:
        found["throughput"] = batch / phases["inference"][0]
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """`figure` at most or at least `target` (SI); `text` as the user wrote it."""

    text: str
    figure: str
    at_most: bool
    target: float

    def shortfall(self, value: float) -> float:
        """ln of how far the value is from the target; 0 where the goal is met."""
        ratio = value / self.target if self.at_most else self.target / value
        return max(0.0, math.log(ratio)) if ratio > 0 else 0.0


_GOAL = re.compile(r"\s*([A-Za-z_]\w*)\s*(<=|>=|<|>)\s*(\S.*?)\s*")
_ALIASES = {"time": "latency", "tps": "tokens_per_s", "ttft_s": "ttft", "latency_s": "latency", "energy_j": "energy"}


def parse_goals(text: str | None) -> tuple[Goal, ...]:
    """Goals of one text. Raises StudyError naming the part that cannot be read."""
    if text is None:
        return ()
    if len(text) > 500:
        raise StudyError(f"--goal: {len(text)} characters, expected a few goals such as 'ttft<0.5s, memory<2GB'")
    found = tuple(_goal(part) for part in text.split(","))
    names = [g.figure for g in found]
    twice = next((n for n in names if names.count(n) > 1), None)
    if twice:
        raise StudyError(f"--goal: {twice} stands twice; give it once")
    return found


def _goal(text: str) -> Goal:
    match = _GOAL.fullmatch(text)
    if match is None:
        raise StudyError(f"--goal {text.strip()[:60]!r}: expected figure, < or > and a quantity such as 'ttft<0.5s'")
    written, relation, quantity = match.groups()
    name = _ALIASES.get(written.lower(), written.lower())
    figure = FIGURES.get(name)
    if figure is None:
        raise StudyError(
            f"--goal: {written[:40]!r} is not known{did_you_mean(name, FIGURES)}; expected {', '.join(FIGURES)}"
        )
    at_most = relation.startswith("<")
    if at_most != figure.less_is_better:
        wanted = "<" if figure.less_is_better else ">"
        better = "less" if figure.less_is_better else "more"
        raise StudyError(f"--goal {text.strip()[:60]!r}: {name} wants {wanted}, as {better} is better")
    target = parse_quantity(quantity, figure.dimension, where=f"--goal {name}", positive=True)
    return Goal(text=f"{name}{relation}{quantity}", figure=name, at_most=at_most, target=target)


def check_goals(goals: Sequence[Goal], known: Mapping[str, float], model: str) -> None:
    """Raises StudyError for a goal whose figure this model does not have."""
    for goal in goals:
        if goal.figure not in known:
            raise StudyError(f"--goal {goal.text}: {model} has no {goal.figure}; it has {', '.join(known)}")


def shortfall(goals: Sequence[Goal], known: Mapping[str, float]) -> float:
    """Sum over the goals."""
    return sum(g.shortfall(known[g.figure]) for g in goals)


def shown(figure: str, value: float) -> str:
    """A figure as people read it."""
    if figure in ("latency", "ttft"):
        return format_seconds(value)
    if figure == "memory":
        return format_bytes(value)
    if figure == "energy":
        return format_joules(value)
    return f"{value:,.0f}/s" if value >= 100 else f"{value:.3g}/s"
