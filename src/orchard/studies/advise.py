"""`orchard advise`: which changes pay for a model on a chip, by how much, how surely, at what risk, and how to make them.

Every change of `advice/changes.py` is made to the request and predicted; nothing is multiplied. A change is recommended when the
figure asked for gets better by 1 % or more, no goal that was met is missed, and what fitted still fits. Changes of high risk,
another model or training, come after all others: who keeps the model reads first what keeps it. Else the order is by
worth = gain x trust, where

    gain   ln of the improvement, or the part of the goals' shortfall that goes away
    trust  RISK_TRUST x EFFORT_TRUST, stated below: a judgement of what a gain is worth that costs quality or work

Combinations come from a beam search over the changes without high risk that ask no rewrite and no training; each one is a
prediction of its own. Placement on several engines (`place`) and code changes (`lint`) are priced by their own studies and stand
alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from orchard.studies.advice.changes import Change, Effort, Risk, changes_for
from orchard.studies.advice.commands import how_to, predict_command
from orchard.studies.advice.figures import (
    FIGURES,
    Goal,
    bounds_of,
    check_goals,
    figures_of,
    parse_goals,
    shortfall,
    shown,
)
from orchard.studies.advice.ratios import RatioError, joint, spread
from orchard.studies.advice.reasons import reason
from orchard.studies.advice.record import Advice, Gain, GoalResult, Recommendation, Variant
from orchard.studies.predict import Prediction, answer
from orchard.studies.request import Request
from orchard.studies.sources import ImportedModel
from orchard.studies.techniques import parsed
from orchard.units import OrchardError, format_bytes, format_ops, format_rate, format_seconds

LEAST_GAIN = 0.01
"""ln; a smaller gain is not worth a line."""
RISK_TRUST = {Risk.NONE: 1.0, Risk.LOW: 0.95, Risk.MODERATE: 0.8, Risk.HIGH: 0.3}
EFFORT_TRUST = {Effort.SWITCH: 1.0, Effort.CONVERT: 0.95, Effort.CALIBRATE: 0.9, Effort.REWRITE: 0.6, Effort.TRAIN: 0.4}
"""Factors on ln(gain) when recommendations are ranked: own judgement, no measurement; they move the order, never a figure."""
MOST_RISK, MOST_EFFORT = Risk.MODERATE, Effort.CALIBRATE
"""Of the changes a combination may hold."""
BEAM, DEPTH, PER_KIND = 4, 4, 2
"""Of the search for combinations: sets kept per round, changes in a set, candidates of each kind."""
STEP_PRICE = 0.02
"""ln; what each further change of a combination has to bring."""


@dataclass
class _Search:
    """One advice in the making. `seen` keeps every prediction by its request."""

    request: Request
    base: Prediction
    goals: tuple[Goal, ...]
    loaded: ImportedModel | None
    seen: dict[Request, Prediction | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.seen[self.request] = self.base
        self.figures = figures_of(self.base)
        self.short = shortfall(self.goals, self.figures)
        self.objective = "latency" if self.short == 0 else "goals"

    def predict(self, request: Request) -> Prediction | None:
        """The prediction of a request; None where it makes no sense or does not help anybody to know."""
        if request not in self.seen:
            self.seen[request] = self._predict(request)
        return self.seen[request]

    def _predict(self, request: Request) -> Prediction | None:
        try:
            found = answer(request, self.loaded if request.model == self.request.model else None)
        except OrchardError:
            return None
        foreign = [t for t in parsed(request.apply) if t.runtime not in (None, found.profile.runtime)]
        if foreign or _new_mismatch(self.base, found) or (self.base.memory.fits and not found.memory.fits):
            return None
        return found

    def cost(self, p: Prediction) -> float:
        """What gets smaller: the shortfall of the goals, or ln of the time. Infinite where a goal that was met is missed or a
        figure is gone."""
        known = figures_of(p)
        if not {g.figure for g in self.goals} <= set(known):
            return math.inf
        if any(g.shortfall(self.figures[g.figure]) == 0 < g.shortfall(known[g.figure]) for g in self.goals):
            return math.inf
        if self.objective == "goals":
            return shortfall(self.goals, known)
        return math.log(known["latency"] / self.figures["latency"])

    def gain(self, p: Prediction) -> float:
        """How much `cost` falls."""
        return (self.short if self.objective == "goals" else 0.0) - self.cost(p)


_MISMATCH = ("does not load", "changes only the bytes", "no profile of a runtime that serves", "was made for")


def _new_mismatch(base: Prediction, p: Prediction) -> bool:
    return any(m in w for w in p.warnings if w not in base.warnings for m in _MISMATCH)


@dataclass(frozen=True)
class _Tried:
    """A change or several, with their prediction and what they bring."""

    changes: tuple[Change, ...]
    request: Request
    prediction: Prediction
    gain: float

    @property
    def risk(self) -> Risk:
        return max(c.risk for c in self.changes)

    @property
    def effort(self) -> Effort:
        return max(c.effort for c in self.changes)

    @property
    def worth(self) -> float:
        return self.gain * RISK_TRUST[self.risk] * EFFORT_TRUST[self.effort]


def advise(request: Request, goal: str | None = None, *, loaded: ImportedModel | None = None, deep: bool = True) -> Advice:
    """Advice for a request as it is run today. `deep` also asks the studies of placement and lint, which take seconds.

    `loaded` is the model where it is a live object. Raises an OrchardError for what the user must correct.
    """
    goals = parse_goals(goal)
    base = answer(request, loaded)
    check_goals(goals, figures_of(base), base.model.name)
    search = _Search(request, base, _with_fit(goals, base), loaded)
    singles = list(_singles(search))
    useful = [t for t in singles if t.gain >= LEAST_GAIN and _improves(search, t.prediction)]
    found = [(t.worth, _recommended(search, t, _variants(search, t, useful))) for t in _best_of_kinds(useful)]
    if deep and search.objective == "latency":
        from orchard.studies.advice.deep import placement, rewrites

        found += [(_worth(r), r) for r in (*placement(base, loaded), *rewrites(base, loaded)) if _worth(r) >= LEAST_GAIN / 2]
    ranked = [r for _, r in sorted(found, key=lambda item: (item[1].risk is Risk.HIGH, -item[0], item[1].title))]
    best = _combined(search, singles)
    top = max((t.gain for t in useful if t.risk <= MOST_RISK and t.effort <= MOST_EFFORT), default=0.0)
    several = best is not None and len(best.changes) > 1 and best.gain > top + LEAST_GAIN
    return Advice(
        request=request, model=base.model.name, chip=base.soc.id, chip_name=base.soc.name, runtime=base.profile.runtime,
        engine=base.profile.engine, objective=search.objective, figures=search.figures, bounds=bounds_of(base),
        goals=_goal_results(search, best), recommendations=tuple(ranked),
        combination=_recommended(search, best, ()) if best is not None and several else None,
        tried=len(search.seen) - 1, notes=_notes(search, deep), warnings=base.warnings,
    )  # fmt: skip


def _with_fit(goals: tuple[Goal, ...], base: Prediction) -> tuple[Goal, ...]:
    """To fit is a goal of every request that does not."""
    if base.memory.fits or any(g.figure == "memory" for g in goals):
        return goals
    limit = base.memory.limit
    text = f"memory<{limit / 2**30:.3g}GiB (to fit: what the {base.profile.engine} may use)"
    return (*goals, Goal(text=text, figure="memory", at_most=True, target=float(limit)))


def price(request: Request, apply: Sequence[str] = (), fields: Mapping[str, object] | None = None) -> Prediction:
    """The prediction of a request with a recommendation's `apply` and `fields`."""
    changed = replace(request, **(fields or {}))  # type: ignore[arg-type]
    names = {t.partition(":")[0] for t in apply}
    kept = tuple(t for t in changed.apply if t.partition(":")[0] not in names)
    return answer(replace(changed, apply=(*kept, *apply)))


def _worth(r: Recommendation) -> float:
    return math.log(r.gain.factor) * RISK_TRUST[r.risk] * EFFORT_TRUST[r.effort]


def _singles(search: _Search) -> Iterator[_Tried]:
    """Every change alone that can be predicted."""
    for change in changes_for(search.base):
        made = change.on(search.request)
        found = search.predict(made) if made != search.request else None
        if found is not None and math.isfinite(search.gain(found)):
            yield _Tried((change,), made, found, search.gain(found))


def _best_of_kinds(useful: Sequence[_Tried]) -> list[_Tried]:
    best: dict[str, _Tried] = {}
    for t in useful:
        kind = t.changes[0].kind
        if kind not in best or t.worth > best[kind].worth:
            best[kind] = t
    return list(best.values())


def _improves(search: _Search, p: Prediction) -> bool:
    return _factor(search, p, _figure(search, p)) >= math.exp(LEAST_GAIN)


def _figure(search: _Search, p: Prediction) -> str:
    """The figure a gain is told in: the goal whose shortfall falls most, or latency."""
    if search.objective == "latency":
        return "latency"
    known = figures_of(p)
    fallen = {g.figure: g.shortfall(search.figures[g.figure]) - g.shortfall(known[g.figure]) for g in search.goals}
    return max(fallen, key=lambda name: fallen[name])


def _factor(search: _Search, p: Prediction, figure: str) -> float:
    return _times_better(figure, search.figures[figure], figures_of(p)[figure])


def _times_better(figure: str, before: float, after: float) -> float:
    return before / after if FIGURES[figure].less_is_better else after / before


ENERGY_SPREAD = 1.25
"""Factor around a ratio of energies: a judgement, as no pair of energies is measured."""


def _gain(search: _Search, t: _Tried) -> Gain:
    figure = _figure(search, t.prediction)
    before, after = search.figures[figure], figures_of(t.prediction)[figure]
    factor = _times_better(figure, before, after)
    if figure == "memory":
        return Gain(figure=figure, before=before, after=after, factor=factor, factor_interval=None, basis="counted from shapes")
    if figure == "energy":
        ends = (factor / ENERGY_SPREAD, factor * ENERGY_SPREAD)
        return Gain(figure=figure, before=before, after=after, factor=factor, factor_interval=ends, basis="a judgement")
    error = joint([_ratio_error(c, t.prediction) for c in t.changes])
    # the error is of ratios of times: measured time ratio / predicted; a factor is its inverse
    ends = (factor * math.exp(-error.high), factor * math.exp(-error.low))
    return Gain(
        figure=figure, before=before, after=after, factor=factor, factor_interval=ends,
        basis=f"{error.pairs} measured pairs ({error.basis})",
    )  # fmt: skip


ACCEPTANCE_SPREAD = math.log(1.25)
"""Drafts: tokens a round at 0.6 and at 0.8 accepted against 0.7, one to four drafted (arXiv 2211.17192, equation 1)."""


def _ratio_error(change: Change, after: Prediction) -> RatioError:
    error = spread(change.error_kind, after.profile.engine)
    if change.kind != "draft":
        return error
    low, high = -math.hypot(error.low, ACCEPTANCE_SPREAD), math.hypot(error.high, ACCEPTANCE_SPREAD)
    return RatioError(low=low, high=high, pairs=error.pairs, basis=f"{error.basis}; acceptance 0.6 to 0.8 assumed")


def _recommended(search: _Search, t: _Tried, others: tuple[Variant, ...]) -> Recommendation:
    base, p = search.base, t.prediction
    gain = _gain(search, t)
    risky = max(t.changes, key=lambda c: c.risk)
    why, _ = reason(base, p, gain.figure)
    if "weights" in {c.slot for c in t.changes} and gain.figure != "memory" and p.memory.weights < base.memory.weights:
        why += f"; weights take {format_bytes(p.memory.weights)} instead of {format_bytes(base.memory.weights)}"
    fields: dict[str, object] = {}
    for change in t.changes:
        fields |= dict(change.fields)
    if "runtime" in fields and t.request.weights != search.request.weights:
        fields["weights"] = t.request.weights
    return Recommendation(
        kind="+".join(dict.fromkeys(c.kind for c in t.changes)), title="; ".join(c.title for c in t.changes), gain=gain,
        figures=figures_of(p), side_effects=tuple(_side_effects(search, p, gain.figure)), risk=t.risk,
        quality=risky.quality, effort=t.effort, reason=why, how=how_to(t.changes, base, p),
        predict=predict_command(t.request), apply=tuple(text for c in t.changes for text in c.apply), fields=fields,
        others=others, notes=_new_warnings(base, p),
    )  # fmt: skip


def _new_warnings(base: Prediction, p: Prediction) -> tuple[str, ...]:
    found = [w for w in p.warnings if w not in base.warnings and not w.startswith("does not fit")]
    found += [f"assumed, not known of your text: {t}" for t in parsed(p.request.apply) if hasattr(t, "acceptance")]
    if not p.memory.fits:
        found.append(f"still does not fit: needs {format_bytes(p.memory.total)} of {format_bytes(p.memory.limit)}")
    return tuple(found)


def _variants(search: _Search, best: _Tried, useful: Sequence[_Tried]) -> tuple[Variant, ...]:
    """Other useful settings of the same kind, most worth first."""
    figure = _figure(search, best.prediction)
    same = [t for t in useful if t.changes[0].kind == best.changes[0].kind and t is not best]
    return tuple(
        Variant(
            title=t.changes[0].title, factor=_factor(search, t.prediction, figure), risk=t.risk, effort=t.effort,
            apply=t.changes[0].apply, fields=dict(t.changes[0].fields),
        )
        for t in sorted(same, key=lambda t: (-t.worth, t.changes[0].title))
    )  # fmt: skip


def _side_effects(search: _Search, p: Prediction, figure: str) -> Iterator[str]:
    for name, after in figures_of(p).items():
        before = search.figures.get(name)
        if name != figure and before and _times_better(name, before, after) < math.exp(-LEAST_GAIN):
            yield f"{name} gets worse: {shown(name, before)} to {shown(name, after)}"


def _combined(search: _Search, singles: Sequence[_Tried]) -> _Tried | None:
    """The best set of changes of different slots: a beam search, each set predicted as a whole."""
    pool = _pool(singles)
    beam: list[_Tried] = []
    best: _Tried | None = None
    frontier: list[tuple[Change, ...]] = [()]
    for _ in range(DEPTH):
        made = [t for held in frontier for c in pool if (t := _with(search, held, c)) is not None]
        beam = sorted({t.request: t for t in made}.values(), key=lambda t: (-_net(t), len(t.changes), _name(t)))[:BEAM]
        if not beam or (best is not None and _net(beam[0]) <= _net(best)):
            break
        best, frontier = beam[0], [t.changes for t in beam]
        if search.objective == "goals" and search.cost(best.prediction) == 0:
            break
    return best if best is not None and best.gain >= LEAST_GAIN else None


def _pool(singles: Sequence[_Tried]) -> list[Change]:
    """The changes a combination may take: per kind the two of most worth."""
    allowed = [t for t in singles if t.risk <= MOST_RISK and t.effort <= MOST_EFFORT and t.gain > -LEAST_GAIN]
    kept: dict[str, list[_Tried]] = {}
    for t in sorted(allowed, key=lambda t: (-t.worth, _name(t))):
        kept.setdefault(t.changes[0].kind, []).append(t)
    return [t.changes[0] for found in kept.values() for t in found[:PER_KIND]]


def _name(t: _Tried) -> str:
    return "; ".join(c.title for c in t.changes)


def _net(t: _Tried) -> float:
    """What a set brings, less a little for each change and its risk."""
    return t.gain - STEP_PRICE * sum(1 + c.risk for c in t.changes)


def _with(search: _Search, held: tuple[Change, ...], change: Change) -> _Tried | None:
    if change.slot in {c.slot for c in held}:
        return None
    changes = tuple(sorted((*held, change), key=lambda c: (c.kind != "engine", c.kind, c.title)))
    request = search.request
    for c in changes:
        request = c.on(request)
    found = search.predict(request)
    if found is None or not math.isfinite(search.gain(found)):
        return None
    return _Tried(changes, request, found, search.gain(found))


def _goal_results(search: _Search, best: _Tried | None) -> tuple[GoalResult, ...]:
    after = figures_of(best.prediction) if best is not None else search.figures
    return tuple(_goal_result(search, goal, after) for goal in search.goals)


def _goal_result(search: _Search, goal: Goal, after: Mapping[str, float]) -> GoalResult:
    name, before = goal.figure, search.figures[goal.figure]
    bound, holder = _best_bound(search, name)
    if goal.shortfall(before) == 0:
        verdict, sentence = "met", "met as it is"
    elif goal.shortfall(after[name]) == 0:
        verdict, sentence = "reached", "reached by the changes below"
    elif bound is not None and goal.shortfall(bound) > 0:
        verdict, sentence = "out of reach", _forbids(search, holder, name, bound)
    else:
        limit = "" if bound is None else f"; physics allows {shown(name, bound)}, {_setting(search, holder)}"
        verdict, sentence = "not reached", f"the best found gives {shown(name, after[name])}{limit}"
    return GoalResult(
        text=goal.text, figure=name, target=goal.target, before=before, after=after[name], bound=bound, verdict=verdict,
        sentence=sentence,
    )  # fmt: skip


def _best_bound(search: _Search, figure: str) -> tuple[float | None, Request]:
    """The best that physics allows among everything predicted for this model (a smaller model is another question)."""
    if figure == "energy":
        return None, search.request
    own = {r: p for r, p in search.seen.items() if p is not None and r.model == search.request.model}
    bounded = [(bounds_of(p)[figure], r) for r, p in own.items() if figure in bounds_of(p)]
    pick = min if FIGURES[figure].less_is_better else max
    return pick(bounded, key=lambda item: item[0])


def _setting(search: _Search, request: Request) -> str:
    return "as it is" if request == search.request else f"as in `{predict_command(request)}`"


def _forbids(search: _Search, request: Request, figure: str, bound: float) -> str:
    """The bound and where it comes from."""
    p = search.predict(request) or search.base
    if figure == "memory":
        weights = format_bytes(p.memory.weights)
        return f"at least {shown(figure, bound)} in all: weights alone take {weights}, {_setting(search, request)}"
    name = "prefill" if figure == "ttft" else "decode" if "decode" in p.phases and figure != "latency" else ""
    phase = p.phases.get(name) or max(p.phases.values(), key=lambda ph: ph.bound_s)
    limited = answer(replace(request, fidelity="bound"), search.loaded).phases[phase.name].bound_by
    if limited["memory"] >= limited["compute"]:
        rate = phase.dram_bytes / phase.bound_s
        why = f"{format_bytes(phase.dram_bytes)} have to move, at {format_rate(rate)} {format_seconds(phase.bound_s)}"
    else:
        why = f"{format_ops(phase.ops)} at the peak rate take {format_seconds(phase.bound_s)}"
    per = {"decode": " per token", "prefill": " for the prompt"}.get(phase.name, "")
    return f"physics allows at most {shown(figure, bound)}, {_setting(search, request)}: {why}{per}"


def _notes(search: _Search, deep: bool) -> tuple[str, ...]:
    found = []
    if search.goals and search.objective == "latency":
        found.append("every goal is met as it is; the advice below shortens the time without breaking one")
    if deep and search.objective == "goals":
        found.append("with goals that are not met, placement on several engines and lint are left out: they know times only")
    return tuple(found)


__all__ = ["Advice", "advise", "price"]
