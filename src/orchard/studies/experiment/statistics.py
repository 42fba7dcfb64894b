"""Statistics of paired losses: sequences within training seeds, resampled in that order.

A sample is an array [seeds, sequences] of differences to the uncompressed model of the same seed, in nats per token.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
ROUNDS = 4000
COVERAGE = 0.95
MARGIN = 0.01
"""Nats per token within which "no loss" is claimed: about 1 % of perplexity."""
FLOOR = 1e-4
"""Losses below count as this where logarithms are taken: they are within the noise of 64 sequences."""


@dataclass(frozen=True)
class Interval:
    """A mean with its interval, and the resampled means behind it."""

    value: float
    low: float
    high: float
    draws: Floats


@dataclass(frozen=True)
class Resample:
    """Bootstrap indices, shared by all arms so that their comparisons are paired: seeds [rounds, seeds], sequences
    [rounds, seeds, sequences]."""

    seeds: NDArray[np.int64]
    sequences: NDArray[np.int64]


def resample(seeds: int, sequences: int, *, rounds: int = ROUNDS, seed: int = 0) -> Resample:
    """Seeds drawn with replacement, then sequences of each drawn seed. One seed: sequences alone, and the interval says
    nothing of other seeds."""
    random = np.random.default_rng(seed)
    return Resample(
        random.integers(0, seeds, (rounds, seeds)), random.integers(0, sequences, (rounds, seeds, sequences))
    )


def means(sample: Floats, drawn: Resample) -> Floats:
    """Resampled means [rounds]."""
    out = np.empty(len(drawn.seeds))
    for start in range(0, len(out), 500):  # bounds memory: 500 x seeds x sequences
        part = slice(start, start + 500)
        out[part] = sample[drawn.seeds[part][:, :, None], drawn.sequences[part]].mean(axis=(1, 2))
    return out


def interval(sample: Floats, drawn: Resample, *, coverage: float = COVERAGE) -> Interval:
    """Percentile interval of the mean."""
    return of_draws(float(sample.mean()), means(sample, drawn), coverage=coverage)


def of_draws(value: float, draws: Floats, *, coverage: float = COVERAGE) -> Interval:
    low, high = np.quantile(draws, [(1 - coverage) / 2, (1 + coverage) / 2])
    return Interval(value, float(low), float(high), draws)


def ratio(first: Interval, second: Interval) -> Interval:
    """First over second from paired draws. Where the second may be zero or less, the interval is unbounded there."""
    with np.errstate(divide="ignore", invalid="ignore"):
        draws = np.where(second.draws > 0, first.draws / second.draws, np.inf)
    value = first.value / second.value if second.value > 0 else float("inf")
    return of_draws(value, np.where(np.isfinite(draws), draws, np.finfo(np.float64).max))


def difference(first: Interval, second: Interval) -> Interval:
    return of_draws(first.value - second.value, first.draws - second.draws)


def p_below(found: Interval, bound: float) -> float:
    """One-sided p-value of "the true value is below `bound`": the share of draws at or above it."""
    return float(((found.draws >= bound).sum() + 1) / (len(found.draws) + 1))


def p_above(found: Interval, bound: float) -> float:
    return float(((found.draws <= bound).sum() + 1) / (len(found.draws) + 1))


def equivalence(found: Interval, margin: float = MARGIN) -> float:
    """p-value of two one-sided tests (TOST): small means the effect lies within the margin [Schuirmann 1987]."""
    return max(p_below(found, margin), p_above(found, -margin))


def paired_effect_size(sample: Floats) -> float:
    """Cohen's d_z over all sequences: mean over standard deviation of the paired differences; 0 where nothing varies."""
    spread = float(sample.std(ddof=1)) if sample.size > 1 else 0.0
    return float(sample.mean()) / spread if spread > 0 else 0.0


def holm(p: Sequence[float]) -> list[float]:
    """Adjusted p-values that keep the chance of any false claim [Holm 1979]."""
    order = sorted(range(len(p)), key=lambda i: p[i])
    out, most = [0.0] * len(p), 0.0
    for rank, index in enumerate(order):
        most = max(most, min(1.0, (len(p) - rank) * p[index]))
        out[index] = most
    return out


def benjamini_hochberg(p: Sequence[float]) -> list[float]:
    """Adjusted p-values that keep the share of false claims [Benjamini & Hochberg 1995]."""
    order = sorted(range(len(p)), key=lambda i: -p[i])
    out, least = [0.0] * len(p), 1.0
    for rank, index in enumerate(order):
        least = min(least, p[index] * len(p) / (len(p) - rank))
        out[index] = least
    return out


@dataclass(frozen=True)
class Effect:
    """A term of the linear model: sum of squares as a share of all, F test, and by how much it moves the answer.
    `levels` are deviations from the grand mean by level (main effects only), as factors exp(deviation)."""

    term: tuple[str, ...]
    share: float
    f: float
    p: float
    levels: Mapping[str, float]


def effects(
    rows: Sequence[Mapping[str, str]], values: Sequence[float], factors: Sequence[str], *, pairs: bool = True
) -> list[Effect]:
    """Main effects and two-factor interactions of log values by least squares, each tested against the model without it.

    Type-II sums of squares: a term is taken out of the model that holds all others of its order and below. Values at or below
    FLOOR count as FLOOR. Pairs are left out where they have more degrees of freedom than the values leave.
    """
    from scipy.stats import f as f_distribution

    used = [n for n in factors if len({r[n] for r in rows}) > 1]
    y = np.log(np.maximum(np.asarray(values, dtype=np.float64), FLOOR))
    blocks: dict[tuple[str, ...], Floats] = {(n,): _contrasts([r[n] for r in rows]) for n in used}
    free = len(y) - 1 - sum(c.shape[1] for c in blocks.values())
    crossed = sum(blocks[a,].shape[1] * blocks[b,].shape[1] for a, b in itertools.combinations(used, 2))
    if pairs and crossed <= free:  # else pairs explain everything, as in a sparse sample of a large space
        for a, b in itertools.combinations(used, 2):
            blocks[a, b] = np.stack([u * v for u in blocks[a,].T for v in blocks[b,].T], axis=1)
    total = float(((y - y.mean()) ** 2).sum())
    everything = _fit(y, list(blocks.values()))
    out = []
    for term, columns in blocks.items():
        peers = [c for t, c in blocks.items() if t != term and len(t) <= len(term)]
        without, with_it = _fit(y, peers), _fit(y, [*peers, columns])
        gained, free = max(0.0, without[0] - with_it[0]), with_it[1] - without[1]
        left = len(y) - everything[1]
        error = everything[0] / left if left > 0 else 0.0
        found = _f(gained, free, error)
        p = float(f_distribution.sf(found, free, left)) if free > 0 and left > 0 else 1.0
        out.append(Effect(term, min(1.0, gained / total) if total > 0 else 0.0, found, p, _levels(rows, y, term)))
    return sorted(out, key=lambda e: -e.share)


def _f(gained: float, free: int, error: float) -> float:
    """Mean square of a term over that of the error; the largest float where nothing but the term varies."""
    if free <= 0 or gained <= 1e-9:
        return 0.0
    return gained / free / error if error > 1e-12 else float(np.finfo(np.float64).max)


def _contrasts(labels: Sequence[str]) -> Floats:
    """Sum-to-zero columns [rows, levels - 1]."""
    names = sorted(set(labels))
    columns = np.array([[float(label == n) - float(label == names[-1]) for n in names[:-1]] for label in labels])
    return columns.reshape(len(labels), len(names) - 1)


def _fit(y: Floats, blocks: Sequence[Floats]) -> tuple[float, int]:
    """(residual sum of squares, rank) with an intercept."""
    matrix = np.column_stack([np.ones(len(y)), *blocks])
    solution, _, rank, _ = np.linalg.lstsq(matrix, y, rcond=None)
    return float(((y - matrix @ solution) ** 2).sum()), int(rank)


def _levels(rows: Sequence[Mapping[str, str]], y: Floats, term: tuple[str, ...]) -> Mapping[str, float]:
    if len(term) > 1:
        return {}
    labels = [r[term[0]] for r in rows]
    return {n: float(np.exp(y[[v == n for v in labels]].mean() - y.mean())) for n in dict.fromkeys(labels)}
