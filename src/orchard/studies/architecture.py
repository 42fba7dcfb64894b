"""History as the test: do predictions rank real changes of a design as measurements do?

Two chips that ran the same workload under the same runtime make a pair: a *generation step* (M1 to M2, M1 Pro to M2 Pro: same
tier, next generation with rows) or a *tier step* (M2 to M2 Pro: same generation). The measured gain is time on the first over
time on the second. The predicted gain comes from left-out fits: each chip is priced by a fit that did not see its generation, so
the later chip is known by its data sheet only. Beside it the data sheet's own gain: the ratio of naive rooflines.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from orchard.studies.calibrate import all_cases, generation
from orchard.studies.cases import Case, CaseSet
from orchard.studies.suites import load_suite
from orchard.studies.validate import left_out_seconds, naive_roofline

_TIERS = ("base", "pro", "max", "ultra", "phone")
_NOTICEABLE = 1.05
"""A gain within 5 % of one is called no change: repeatability of these measurements is 4 % (vision_validation)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """One workload on two chips. Gains are time on `first` over time on `second`."""

    first: str
    second: str
    workload: str
    group: str
    measured: float
    predicted: float
    data_sheet: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One change of design: geometric-mean gains over its pairs, errors of the gain, and whether the direction was called right.

    kind       "generation" or "tier"; `group`: "LLM GPU, decode", "LLM GPU, prefill", "networks on ANE", ...
    direction  share of noticeable measured changes whose direction the prediction has
    """

    kind: str
    first: str
    second: str
    group: str
    pairs: int
    measured: float
    predicted: float
    data_sheet: float
    median_error: float
    data_sheet_error: float
    direction: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranking:
    """Over all steps of one kind and group: rank correlation (Spearman, ties averaged) of predicted and measured gains."""

    kind: str
    group: str
    steps: int
    pairs: int
    rank_correlation: float | None
    data_sheet_rank: float | None
    median_error: float
    data_sheet_error: float
    direction: float | None


@dataclass(frozen=True, kw_only=True)
class ArchitectureReport:
    """What `orchard validate --suite architecture` prints."""

    steps: tuple[Step, ...]
    rankings: tuple[Ranking, ...]


def architecture() -> ArchitectureReport:
    """The history test over the language-model and network measurements of the package."""
    pairs: dict[tuple[str, str, str, str], list[Pair]] = defaultdict(list)
    for suite in ("llm", "vision"):
        cases = all_cases() if suite == "llm" else CaseSet.of(load_suite("vision").cases)
        for kind, pair in _pairs(cases, suite):
            pairs[kind, pair.first, pair.second, pair.group].append(pair)
    steps = tuple(_step(*key, found) for key, found in sorted(pairs.items(), key=lambda item: _order(item[0])))
    rankings = []
    for kind in ("generation", "tier"):
        for group in sorted({s.group for s in steps if s.kind == kind}):
            of_group = [p for key, found in pairs.items() if key[0] == kind and key[3] == group for p in found]
            rankings.append(_ranking(kind, group, sum(s.kind == kind and s.group == group for s in steps), of_group))
    return ArchitectureReport(steps=steps, rankings=tuple(rankings))


def _pairs(cases: CaseSet, suite: str) -> Iterable[tuple[str, Pair]]:
    predicted = left_out_seconds(cases, suite, "left-out chip", generation)
    naive = naive_roofline(cases)
    workloads: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for i, case in enumerate(cases.cases):
        if math.isfinite(predicted[i]):
            workloads[_workload(case)][case.soc.id].append(i)
    for workload, chips in sorted(workloads.items()):
        times = {
            chip: [float(np.median([values[i] for i in rows])) for values in (_measured(cases), predicted, naive)]
            for chip, rows in chips.items()
        }
        group = _group(cases.cases[next(iter(chips.values()))[0]])
        for kind, first, second in _steps(sorted(times)):
            gains = [a / b for a, b in zip(times[first], times[second], strict=True)]
            yield (
                kind,
                Pair(
                    first=first, second=second, workload=workload, group=group, measured=gains[0], predicted=gains[1],
                    data_sheet=gains[2],
                ),
            )  # fmt: skip


def _measured(cases: CaseSet) -> list[float]:
    return [case.measured_s for case in cases.cases]


def _workload(case: Case) -> str:
    """What ran, without the chip and the source: cases with equal text are the same work under the same runtime."""
    row = case.row
    calls = [sorted(call.bindings.items()) for call in case.calls]
    return f"{case.profile.name}|{row.model}|{row.weights}|{row.phase}|{row.batch}|{row.prompt}|{row.depth}|{row.threads}|{calls}"


def _group(case: Case) -> str:
    if case.profile.rules.get("serves") == "network":
        return f"networks on {case.profile.engine.upper()}"
    phase = {"end_to_end": "end to end"}.get(case.row.phase, case.row.phase)
    return f"LLM {case.profile.engine.upper()}, {phase}"


_CHIP = re.compile(r"([am])(\d+)(pro|max|ultra)?(?:_(.*))?")


def _parts(chip: str) -> tuple[str, int, str, str] | None:
    """(series, generation, tier, variant) of a catalogue id."""
    found = _CHIP.fullmatch(chip)
    if found is None:
        return None
    tier = found[3] or "base"
    return found[1], int(found[2]), tier, found[4] or ""


def _steps(chips: list[str]) -> Iterable[tuple[str, str, str]]:
    """Full chips (no harvested variants): to the next generation of the same tier that is there, and to the next tier."""
    known = {chip: parts for chip in chips if (parts := _parts(chip)) is not None and not parts[3]}
    for chip, (series, number, tier, _) in known.items():
        later = [(n, c) for c, (s, n, t, _) in known.items() if s == series and t == tier and n > number]
        if later:
            yield "generation", chip, min(later)[1]
        above = [
            (_TIERS.index(t), c)
            for c, (s, n, t, _) in known.items()
            if s == series and n == number and _TIERS.index(t) > _TIERS.index(tier)
        ]
        if above and series == "m":
            yield "tier", chip, min(above)[1]


def _order(key: tuple[str, str, str, str]) -> tuple[object, ...]:
    kind, first, second, group = key
    return kind, group, _parts(first), _parts(second)


def _step(kind: str, first: str, second: str, group: str, pairs: list[Pair]) -> Step:
    return Step(
        kind=kind, first=first, second=second, group=group, pairs=len(pairs),
        measured=_mean([p.measured for p in pairs]), predicted=_mean([p.predicted for p in pairs]),
        data_sheet=_mean([p.data_sheet for p in pairs]), median_error=_error(pairs, "predicted"),
        data_sheet_error=_error(pairs, "data_sheet"), direction=_direction(pairs),
    )  # fmt: skip


def _ranking(kind: str, group: str, steps: int, pairs: list[Pair]) -> Ranking:
    measured = [p.measured for p in pairs]
    return Ranking(
        kind=kind, group=group, steps=steps, pairs=len(pairs),
        rank_correlation=_spearman(measured, [p.predicted for p in pairs]),
        data_sheet_rank=_spearman(measured, [p.data_sheet for p in pairs]), median_error=_error(pairs, "predicted"),
        data_sheet_error=_error(pairs, "data_sheet"), direction=_direction(pairs),
    )  # fmt: skip


def _mean(gains: list[float]) -> float:
    return float(np.exp(np.mean(np.log(gains))))


def _error(pairs: list[Pair], of: str) -> float:
    return float(np.median([abs(getattr(p, of) / p.measured - 1.0) for p in pairs]))


def _direction(pairs: list[Pair]) -> float | None:
    clear = [p for p in pairs if not 1 / _NOTICEABLE < p.measured < _NOTICEABLE]
    return float(np.mean([(p.measured > 1) == (p.predicted > 1) for p in clear])) if clear else None


def _spearman(a: list[float], b: list[float]) -> float | None:
    """None below five pairs, or where one side does not vary."""
    if len(a) < 5 or len(set(a)) == 1 or len(set(b)) == 1:
        return None
    from scipy.stats import spearmanr

    return float(spearmanr(a, b).statistic)
