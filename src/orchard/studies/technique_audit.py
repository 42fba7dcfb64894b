"""Every published claim re-predicted: on its own chip where that is in the catalogue, else on a target; with a verdict."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from orchard.studies.errors import StudyError
from orchard.studies.predict import Prediction, answer, chip_of, make_plan
from orchard.studies.request import Request
from orchard.studies.technique_cases import Case, Published, Unreadable, case_of, chips_of, known_model, published
from orchard.studies.technique_runs import verification
from orchard.techniques import Claim, claims_file, load_claims
from orchard.units import OrchardError

WITHIN = 1.25
"""A gain is explained when predicted and published differ by no more than this factor."""

VERDICTS = (
    "explained", "exceeds model", "below model", "transfers", "transfers weakly", "does not transfer", "quality untestable here",
    "untestable here",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One claim held against the model. Gains are above 1 where the technique helps; `None` where there is no such number.

    own_hardware   predicted on the chip of the claim; else on the target
    bound_before, bound_after   what sets the time, of compute, memory and dispatch
    """

    claim: Claim
    verdict: str
    reason: str
    kind: str = ""
    chip: str = ""
    published_low: float | None = None
    published_high: float | None = None
    predicted: float | None = None
    own_hardware: bool = False
    bound_before: str = ""
    bound_after: str = ""

    @property
    def within(self) -> bool:
        return self.verdict == "explained"


@dataclass(frozen=True, slots=True, kw_only=True)
class Audit:
    """All findings. `scored` are those of claims on a known chip that the model answers."""

    target: str
    findings: tuple[Finding, ...]

    @property
    def scored(self) -> tuple[Finding, ...]:
        return tuple(f for f in self.findings if f.own_hardware and f.predicted is not None)

    @property
    def explained(self) -> int:
        return sum(f.within for f in self.scored)


def audit(path: str | None = None, target: str = "m4max") -> Audit:
    """Claims of a file, or those that ship with the package, against the model. Raises an OrchardError for a file or target
    that cannot be used."""
    chip_of(Request(model="", chip=target))
    claims = claims_file(path) if path else load_claims()
    if not claims:
        raise StudyError(f"{path}: no rows")
    return Audit(target=target, findings=tuple(_finding(claim, target) for claim in claims))


def _finding(claim: Claim, target: str) -> Finding:
    try:
        figure = published(claim)
    except Unreadable as reason:
        verdict = "quality untestable here" if str(reason).startswith("quality") else "untestable here"
        return Finding(claim=claim, verdict=verdict, reason=str(reason))
    own = bool(chips_of(claim.hardware)) or (figure.kind == "size" and known_model(claim.model))
    start = Finding(
        claim=claim, verdict="untestable here", reason="", kind=figure.kind, published_low=figure.low, published_high=figure.high,
        own_hardware=own, chip=(chips_of(claim.hardware) or (target,))[-1],
    )  # fmt: skip
    try:
        case = case_of(claim, None if chips_of(claim.hardware) else target)
        gain = predicted_gain(case, figure)
    except OrchardError as error:
        return replace(start, reason=str(error))
    found = replace(start, predicted=gain.gain, bound_before=gain.before, bound_after=gain.after)
    return _judged(found, figure, gain) if own else _transferred(found, figure)


@dataclass(frozen=True, slots=True, kw_only=True)
class Gain:
    """A predicted gain, what bounds the time before and after, and both times in seconds (0: the gain is no ratio of times)."""

    gain: float
    before: str
    after: str
    before_s: float = 0.0
    after_s: float = 0.0


def predicted_gain(case: Case, figure: Published) -> Gain:
    """A `cost` is a ratio of times, test over base."""
    if case.figure == "rows":
        v = verification(make_plan(case.base), case.base, chip_of(case.base), (case.rows,))[case.rows]
        return Gain(gain=case.rows / v, before="one row", after=f"v({case.rows}) = {v:.2f}")
    if case.figure == "int8":
        soc = chip_of(case.base)
        return Gain(gain=float(soc["ane.int8"] / soc["ane.fp16"]), before="compute", after="compute")
    base, test = _answer(case.base), _answer(case.test)
    if case.figure in ("weights", "kv_cache"):
        a, b = (getattr(p.memory, case.figure) for p in (base, test))
        return Gain(gain=a / max(1, b), before="size", after="size")
    before, after = _phase(base, case.figure), _phase(test, case.figure)
    a, b = base.phases[before].latency_s, test.phases[after].latency_s
    return Gain(
        gain=b / a if figure.kind == "cost" else a / b, before=_binding(base, before), after=_binding(test, after),
        before_s=a, after_s=b,
    )  # fmt: skip


@lru_cache(maxsize=64)
def _answer(request: Request) -> Prediction:
    """Many claims share a baseline."""
    return answer(request)


def _phase(p: Prediction, figure: str) -> str:
    return figure if figure in p.phases else next(iter(p.phases))


def _binding(p: Prediction, phase: str) -> str:
    shares = p.phases[phase].bound_by
    return max(shares, key=lambda cause: shares[cause])


def _judged(found: Finding, figure: Published, predicted: Gain) -> Finding:
    """Against the model on the claim's own chip: within 25 % of the range is explained."""
    gain = found.predicted or 0.0
    if figure.low / WITHIN <= gain <= figure.high * WITHIN:
        return replace(
            found, verdict="explained", reason=f"bound by {found.bound_before} before, {found.bound_after} after"
        )
    above = figure.low > gain
    factor = figure.low / max(gain, 1e-9) if above else gain / max(figure.high, 1e-9)
    exceeds = above != (found.kind == "cost")  # a cost is better small
    verdict = "exceeds model" if exceeds else "below model"
    return replace(found, verdict=verdict, reason=f"{factor:.2f} times apart; {_why(found, figure, predicted)}")


def _why(found: Finding, figure: Published, predicted: Gain) -> str:
    """Which of the two times carries the difference where the claim gives both; else the term that may."""
    if figure.times_s and predicted.before_s:
        without, with_it = (m / p for m, p in zip(figure.times_s, (predicted.before_s, predicted.after_s)))
        first = abs(math.log(without)) > abs(math.log(with_it))
        side, term = ("without", found.bound_before) if first else ("with", found.bound_after)
        return (
            f"measured over predicted time is {without:.2f} without it and {with_it:.2f} with it: {term} {side} the technique "
            "is not as modelled"
        )
    above = figure.low > predicted.gain
    term = f"{found.bound_after} binds with the technique"
    if above:
        return f"the baseline ran below the bound that the model gives it, or {term} less than modelled"
    return f"{term} more than modelled"


def _transferred(found: Finding, figure: Published) -> Finding:
    """A gain of other hardware on the target: most of it, some of it, none of it."""
    gain = found.predicted or 0.0
    claimed = figure.low
    if gain >= min(claimed / WITHIN, claimed):
        return replace(
            found, verdict="transfers", reason=f"{found.bound_before} bound before, {found.bound_after} after"
        )
    verdict = "transfers weakly" if gain >= 1.1 else "does not transfer"
    return replace(found, verdict=verdict, reason=f"{found.bound_after} binds on {found.chip}")


def counts(findings: Sequence[Finding]) -> dict[str, int]:
    """Rows per verdict, in the order of `VERDICTS`."""
    return {v: n for v in VERDICTS if (n := sum(f.verdict == v for f in findings))}
