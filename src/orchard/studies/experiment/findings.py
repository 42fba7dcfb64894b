"""What a run says: the loss of each arm with its interval, effects of factors, and whether what was claimed beforehand holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from orchard.studies.errors import StudyError
from orchard.studies.experiment import statistics
from orchard.studies.experiment.run import Outcome, Result
from orchard.studies.experiment.statistics import Effect, Interval
from orchard.studies.experiment.study import Claim

Validity = Literal["mechanism-reproduced", "direction-only"]
ALPHA = 0.05


@dataclass(frozen=True)
class Arm:
    """Loss over the uncompressed model [nats/token] of one technique on one fixture. `no_loss_p`: TOST within the margin,
    adjusted over the arms by Benjamini-Hochberg."""

    fixture: str
    technique: str
    levels: Mapping[str, str]
    loss: Interval
    size: float
    kl: float
    flips: float
    no_loss_p: float
    seeds: int
    sequences: int
    by_seed: tuple[float, ...]


@dataclass(frozen=True)
class Test:
    """A claim after the run. `value` is a ratio or a difference with its interval; `met` by the value, `certain` by the whole
    interval as well; `p` against no effect (or outside the margin), Holm-adjusted over the claims of the run."""

    claim: Claim
    kind: Literal["ratio", "difference"]
    value: Interval
    bound: str
    met: bool
    certain: bool
    p: float


@dataclass(frozen=True)
class Refusal:
    fixture: str
    technique: str
    reason: str


@dataclass(frozen=True)
class Findings:
    """Everything a report shows."""

    outcome: Outcome
    arms: tuple[Arm, ...]
    refused: tuple[Refusal, ...]
    effects: Mapping[str, tuple[Effect, ...]]
    tests: tuple[Test, ...]


Key = tuple[str, str, tuple[str, ...]]


def findings(outcome: Outcome, *, rounds: int = statistics.ROUNDS) -> Findings:
    """Deterministic for the run."""
    samples = _samples([r for r in outcome.results if not r.refused])
    if not samples:
        reason = outcome.results[0].refused if outcome.results else "no cells"
        raise StudyError(f"{outcome.folder}: no arm could be applied: {reason}")
    drawn = _draws(samples, rounds)
    arms = _arms(outcome, samples, drawn)
    refused = dict.fromkeys((r.fixture, r.technique, r.refused) for r in outcome.results if r.refused)
    by_fixture = {
        f: _effects(outcome, [a for a in arms if a.fixture == f]) for f in dict.fromkeys(a.fixture for a in arms)
    }
    return Findings(outcome, arms, tuple(Refusal(*r) for r in refused), by_fixture, _tests(outcome, arms))


def _samples(results: Sequence[Result]) -> dict[Key, NDArray[np.float64]]:
    """Differences [seeds, sequences] by fixture, technique and levels, seeds in order."""
    grouped: dict[Key, dict[int, NDArray[np.float64]]] = {}
    for r in results:
        key = (r.fixture, r.technique, tuple(r.levels.values()))
        grouped.setdefault(key, {})[r.seed] = np.array(r.losses) - np.array(r.base)
    return {key: np.stack([by_seed[s] for s in sorted(by_seed)]) for key, by_seed in grouped.items()}


def _draws(samples: Mapping[Key, NDArray[np.float64]], rounds: int) -> dict[tuple[int, ...], statistics.Resample]:
    """One set of bootstrap indices per shape, so that arms of a shape are compared pair by pair."""
    shapes = dict.fromkeys(s.shape for s in samples.values())
    return {shape: statistics.resample(*shape, rounds=rounds) for shape in shapes}


def _arms(
    outcome: Outcome, samples: Mapping[Key, NDArray[np.float64]], drawn: Mapping[tuple[int, ...], statistics.Resample]
) -> tuple[Arm, ...]:
    extra: dict[Key, list[Result]] = {}
    for r in outcome.results:
        if not r.refused:
            extra.setdefault((r.fixture, r.technique, tuple(r.levels.values())), []).append(r)
    found = {key: statistics.interval(sample, drawn[sample.shape]) for key, sample in samples.items()}
    adjusted = statistics.benjamini_hochberg([statistics.equivalence(i) for i in found.values()])
    return tuple(
        Arm(
            key[0], key[1], extra[key][0].levels, value, statistics.paired_effect_size(samples[key]),
            float(np.mean([r.kl for r in extra[key]])), float(np.mean([r.flips for r in extra[key]])), p,
            len(samples[key]), samples[key].shape[1], tuple(float(x) for x in samples[key].mean(axis=1)),
        )
        for (key, value), p in zip(found.items(), adjusted)
    )  # fmt: skip


def _effects(outcome: Outcome, arms: Sequence[Arm]) -> tuple[Effect, ...]:
    """Of factors on the log of the loss, seed by seed; none for a plain list of arms or for one cell."""
    factors = [f.name for f in outcome.experiment.factors if f.name != "fixture"]
    rows = [{**a.levels, "seed": str(i)} for a in arms for i in range(a.seeds)]
    values = [x for a in arms for x in a.by_seed]
    if not factors or len(arms) < 4:
        return ()
    return tuple(statistics.effects(rows, values, [*factors, "seed"]))


def _tests(outcome: Outcome, arms: Sequence[Arm]) -> tuple[Test, ...]:
    known = {(a.fixture, a.technique): a.loss for a in arms}
    made = []
    for claim in outcome.experiment.claims:
        first = known.get((claim.fixture, claim.first))
        second = known.get((claim.fixture, claim.second)) if claim.second not in ("", "none") else _nothing(first)
        if first is not None and second is not None:
            made.append(_test(claim, first, second))
    adjusted = statistics.holm([t.p for t in made])
    return tuple(Test(t.claim, t.kind, t.value, t.bound, t.met, t.certain, p) for t, p in zip(made, adjusted))


def _nothing(like: Interval | None) -> Interval | None:
    return None if like is None else Interval(0.0, 0.0, 0.0, np.zeros_like(like.draws))


def _test(claim: Claim, first: Interval, second: Interval) -> Test:
    if claim.margin is not None:
        gap = statistics.difference(first, second)
        p, inside = statistics.equivalence(gap, claim.margin), max(abs(gap.low), abs(gap.high)) <= claim.margin
        return Test(claim, "difference", gap, f"within {claim.margin:g}", abs(gap.value) <= claim.margin, inside, p)
    if claim.most is None and claim.least is None:
        gap = statistics.difference(first, second)
        return Test(claim, "difference", gap, "below 0", gap.value < 0, gap.high < 0, statistics.p_below(gap, 0.0))
    share = statistics.ratio(first, second)
    if claim.most is not None:
        return Test(claim, "ratio", share, f"at most {claim.most:g}", share.value <= claim.most, share.high <= claim.most,
                    statistics.p_below(share, 1.0))  # fmt: skip
    assert claim.least is not None
    return Test(claim, "ratio", share, f"at least {claim.least:g}", share.value >= claim.least, share.low >= claim.least,
                statistics.p_above(share, 1.0))  # fmt: skip
