"""Two runs side by side: which programs changed, by how much, and whether that is more than the runs' own scatter.

Each program's times are compared by the Mann-Whitney test, which asks nothing of their distribution; over all programs the
false discoveries are held at 5 % (Benjamini and Hochberg 1995), so a long list does not turn noise into news. A change counts
when it is significant and larger than `least`. Repeats within one run share that run's conditions, so a difference between
days still deserves a third run.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from orchard.measure.store import Run, Sample
from orchard.studies.errors import StudyError

FALSE_DISCOVERIES = 0.05


@dataclass(frozen=True, kw_only=True)
class Change:
    """Medians in seconds, their ratio b / a, the p-value, and the verdict: slower, faster or same."""

    name: str
    group: str
    a_s: float
    b_s: float
    ratio: float
    p: float
    verdict: str


@dataclass(frozen=True, kw_only=True)
class RunComparison:
    """Programs that both runs have. `drift`: geometric mean of the ratios; `differs`: what the two heads disagree on."""

    a: Run
    b: Run
    changes: tuple[Change, ...]
    only_a: int
    only_b: int
    drift: float
    least: float
    differs: tuple[tuple[str, str, str], ...]

    def count(self, verdict: str) -> int:
        return sum(c.verdict == verdict for c in self.changes)


def compare_runs(a: Run, b: Run, least: float = 0.05) -> RunComparison:
    """Raises StudyError where no program is in both."""
    left, right = ({s.name: s for s in run.samples} for run in (a, b))
    names = [n for n in left if n in right]
    if not names:
        raise StudyError(f"{a.folder} and {b.folder}: no program is in both, so there is nothing to compare")
    raw = [_difference(left[n], right[n]) for n in names]
    limit = discovery_limit([p for _, p in raw])
    changes = [
        Change(
            name=n, group=left[n].group, a_s=left[n].timing.median_s, b_s=right[n].timing.median_s, ratio=ratio, p=p,
            verdict=_verdict(ratio, p, limit, least),
        )
        for n, (ratio, p) in zip(names, raw)
    ]  # fmt: skip
    drift = math.exp(sum(math.log(c.ratio) for c in changes) / len(changes))
    return RunComparison(
        a=a, b=b, changes=tuple(sorted(changes, key=lambda c: -abs(math.log(c.ratio)))), only_a=len(left) - len(names),
        only_b=len(right) - len(names), drift=drift, least=least, differs=_heads(a, b),
    )  # fmt: skip


def _difference(a: Sample, b: Sample) -> tuple[float, float]:
    """(ratio of medians, two-sided p-value)."""
    from scipy.stats import mannwhitneyu

    ratio = b.timing.median_s / max(a.timing.median_s, 1e-15)
    if set(a.timing.samples) == set(b.timing.samples):
        return ratio, 1.0
    return ratio, float(mannwhitneyu(a.timing.samples, b.timing.samples, alternative="two-sided").pvalue)


def discovery_limit(p_values: Sequence[float], rate: float = FALSE_DISCOVERIES) -> float:
    """The largest p-value that still counts: p(i) <= i/n rate, step-up; 0 where none does."""
    n = len(p_values)
    found = [p for i, p in enumerate(sorted(p_values), 1) if p <= rate * i / n]
    return max(found, default=0.0)


def _verdict(ratio: float, p: float, limit: float, least: float) -> str:
    if limit == 0.0 or p > limit or abs(ratio - 1.0) < least:
        return "same"
    return "slower" if ratio > 1.0 else "faster"


def _heads(a: Run, b: Run) -> tuple[tuple[str, str, str], ...]:
    """(what, a, b) where machine or conditions differ."""
    found = []
    for key in ("device", "threads", "clock", "allocator"):
        found.append((key, str(a.head.get(key)), str(b.head.get(key))))
    machines = a.head.get("machine", {}), b.head.get("machine", {})
    found += [(key, str(machines[0].get(key)), str(machines[1].get(key))) for key in ("system", "processor", "cores")]
    versions = [m.get("versions", {}) for m in machines]
    found += [
        (key, str(versions[0].get(key)), str(versions[1].get(key))) for key in sorted({*versions[0], *versions[1]})
    ]
    return tuple(row for row in found if row[1] != row[2])
