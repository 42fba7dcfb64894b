"""Predicted against measured: the error table that says how right Orchard is, reprinted from data in the package.

Three parts: `fit` (rows the profiles were fitted to), `left-out chip` and `left-out family` (each row priced by a fit that did
not see its chip generation or its model family). The left-out fits are stored with the profiles by `orchard calibrate`, so the
table prints in seconds; `refit=True` makes them again.

Beside each figure stands the error of two baselines on the same rows: a *naive roofline* (peak operations, peak bandwidth, no
efficiency) and the *two-number model*, the best public predictor we know of: one compute efficiency, one bandwidth efficiency
and one overhead per layer, fitted per format class on the other chips (llm_validation.md section 4, peers_graph.md section 0).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from pathlib import Path

import numpy as np
import numpy.typing as npt

from orchard.cost.bound import call_ops, dram_bytes
from orchard.hw import HardwareArrays
from orchard.studies.calibrate import all_cases, family, generation, start_values
from orchard.studies.cases import Case, CaseSet
from orchard.studies.errors import StudyError
from orchard.studies.measurements import read_rows, why_not_scored

Array = npt.NDArray[np.float64]

SUITES = ("llm", "vision", "kernels")
PARTS = ("fit", "left-out chip", "left-out family")


@dataclass(frozen=True, slots=True, kw_only=True)
class StratumResult:
    """Errors are |predicted / measured - 1|; `bias` is the median of predicted / measured - 1; None where too few rows.

    `ops_rank`, `weights_rank`: what operations alone and bytes of weights alone would reach as rank correlation.
    """

    name: str
    part: str
    rows: int
    median_error: float
    p90_error: float
    rank_correlation: float | None
    coverage80: float | None
    naive_median: float
    public_median: float | None
    bias: float
    target_median: float | None = None
    target_p90: float | None = None
    target_rank: float | None = None
    ops_rank: float | None = None
    weights_rank: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One row: measured and predicted time (from the fit that left its chip generation out), with the 80 % interval."""

    id: str
    stratum: str
    chip: str
    model: str
    runtime: str
    engine: str
    phase: str
    measured_s: float
    predicted_s: float
    low_s: float
    high_s: float
    trust: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftOut:
    """Rows that are not scored, by reason."""

    reason: str
    rows: int


@dataclass(frozen=True, kw_only=True)
class ValidationReport:
    """What `orchard validate` prints."""

    suite: str
    strata: tuple[StratumResult, ...]
    points: tuple[Point, ...]
    left_out: tuple[LeftOut, ...]
    notes: tuple[str, ...] = ()


TARGETS: Mapping[str, tuple[float, float]] = {
    "dense GPU, decode": (0.06, 0.15),
    "dense GPU, prefill": (0.06, 0.15),
    "mixture of experts, GPU": (0.15, 0.30),
    "other depth": (0.12, 0.25),
    "other batch": (0.12, 0.25),
    "CPU": (0.15, 0.30),
    "ANE": (0.20, 0.40),
}


SUITE_TARGETS: Mapping[str, Mapping[str, tuple[float, float | None]]] = {
    "llm": TARGETS,
    "vision": {
        "networks on ANE, 16 bit": (0.15, 0.40),
        "Stable Diffusion, Whisper": (0.15, None),
        "speed-up of techniques": (0.12, None),
    },
    "kernels": {
        "GPU products above 0.3 ms": (0.15, None),
        "CPU GEMM": (0.20, None),
        "speed-up of techniques": (0.12, None),
    },
}

RANK_TARGETS = {"networks on ANE, 16 bit": 0.93}


def headline_stratum(case: Case) -> str:
    """The rows of the published accuracy table that a case belongs to."""
    serves = case.profile.rules.get("serves")
    if serves == "network":
        return _network_stratum(case)
    if serves == "ops":
        return case.stratum
    if case.profile.engine == "ane":
        return "ANE"
    if case.profile.engine == "cpu":
        return "CPU"
    if case.stratum.endswith("moe"):
        return "mixture of experts, GPU"
    if case.stratum == "small-batch":
        return "other batch"
    if case.stratum.endswith("deep"):
        return "other depth"
    return f"dense GPU, {case.stratum}"


def _network_stratum(case: Case) -> str:
    if case.stratum == "diffusion" or case.family == "whisper":
        return "Stable Diffusion, Whisper"
    if case.profile.engine != "ane":
        return f"networks, {case.profile.runtime} on {case.profile.engine.upper()}"
    return "networks on ANE, compressed" if case.stratum == "compressed" else "networks on ANE, 16 bit"


def validate(suite: str = "llm", *, rows_file: str | Path | None = None, refit: bool = False) -> ValidationReport:
    """Compare predictions with a suite's measurements.

    `rows_file`: another CSV with the columns of the packaged one; its rows were not seen by any fit, so only the part `fit`
    (renamed `unseen rows`) is meaningful and printed. Raises StudyError for an unknown suite or unreadable file.
    """
    if suite not in SUITES:
        raise StudyError(f"suite {suite!r} is not known; expected {', '.join(SUITES)}")
    if suite != "llm":
        return _suite_report(suite, rows_file, refit)
    rows = read_rows(rows_file)
    cases = all_cases(None if rows_file is None else rows)
    if not cases.cases:
        raise StudyError(f"{rows_file or suite}: no row can be scored; see why_not_scored in the documentation")
    measured = np.array([case.measured_s for case in cases.cases])
    values, _, _ = start_values(cases)
    predicted = {"fit" if rows_file is None else "unseen rows": _at_least_bound(cases, cases.seconds(values))}
    if rows_file is None:
        for part, group in (("left-out chip", generation), ("left-out family", family)):
            predicted[part] = _at_least_bound(cases, measured * np.exp(_left_out_errors(cases, part, group, refit)))
    naive, public = naive_roofline(cases), two_numbers(cases)
    strata = [
        _result(name, part, picked, cases, measured, times, naive, public)
        for name, picked in _groups(cases)
        for part, times in predicted.items()
    ]
    shown = predicted.get("left-out chip", next(iter(predicted.values())))
    reasons: dict[str, int] = {}
    for row in rows:
        reason = why_not_scored(row)
        if reason:
            reasons[reason] = reasons.get(reason, 0) + 1
    return ValidationReport(
        suite=suite,
        strata=tuple(strata),
        points=tuple(_point(case, float(time)) for case, time in zip(cases.cases, shown)),
        left_out=tuple(LeftOut(reason=r, rows=n) for r, n in sorted(reasons.items(), key=lambda item: -item[1])),
        notes=_notes(cases),
    )


def _suite_report(suite: str, rows_file: str | Path | None, refit: bool) -> ValidationReport:
    """The report of `vision` or `kernels`, whose rows are packaged."""
    from orchard.studies.suites import load_suite

    if rows_file is not None:
        raise StudyError(f"rows {str(rows_file)[:80]!r}: suite {suite} scores its packaged rows only; leave --rows out")
    found = load_suite(suite)
    cases = CaseSet.of(found.cases)
    measured = np.array([case.measured_s for case in cases.cases])
    values, _, _ = start_values(cases)
    predicted = {"fit": _at_least_bound(cases, cases.seconds(values))}
    for part, group in (("left-out chip", generation), ("left-out family", family)):
        errors = _left_out_errors(cases, part, group, refit, suite)
        predicted[part] = _at_least_bound(cases, measured * np.exp(errors))
    naive, public = naive_roofline(cases), two_numbers(cases)
    names = [headline_stratum(case) for case in cases.cases]
    details = [_detail(case) for case in cases.cases]
    groups = [(n, np.array([x == n for x in names])) for n in (*SUITE_TARGETS[suite], *sorted(set(names)))]
    groups += [(n, np.array([x == n for x in details])) for n in sorted(set(details))]
    strata = [
        _result(name, part, picked, cases, measured, times, naive, public)
        for name, picked in dict(groups).items()
        for part, times in predicted.items()
        if (picked & np.isfinite(times)).any()
    ]
    strata += _speed_ups(suite, cases, measured, predicted, naive)
    return ValidationReport(
        suite=suite,
        strata=tuple(strata),
        points=tuple(
            _point(case, float(time))
            for case, time in zip(cases.cases, predicted["left-out chip"])
            if math.isfinite(time)
        ),
        left_out=tuple(LeftOut(reason=r, rows=n) for r, n in sorted(found.left_out.items(), key=lambda item: -item[1])),
        notes=(
            "errors are |predicted/measured - 1| of times; left-out chip leaves out a whole generation, left-out family a "
            "whole network family or op",
            "speed-up: error of (time without / time with a technique), over pairs of rows that differ in nothing else",
            *_rank_notes(strata),
        ),
    )


def _speed_ups(
    suite: str, cases: CaseSet, measured: Array, predicted: Mapping[str, Array], naive: Array
) -> list[StratumResult]:
    """Ratio errors of each technique and of all together."""
    from orchard.studies.suites import suite_records
    from orchard.studies.technique_pairs import technique_pairs

    pairs = technique_pairs(cases.cases, {r["id"]: r for r in suite_records(suite)})
    without, with_it = (np.array([getattr(p, n) for p in pairs], dtype=np.intp) for n in ("without", "with_it"))
    names = np.array([p.technique for p in pairs])
    groups = {"speed-up of techniques": np.ones(len(pairs), dtype=bool)}
    groups |= {f"speed-up, {name}": names == name for name in dict.fromkeys(names.tolist())}
    truth = measured[without] / measured[with_it]
    found = []
    for name, picked in groups.items():
        for part, times in predicted.items():
            ratio = times[without] / times[with_it]
            chosen = picked & np.isfinite(ratio)
            if chosen.any():
                plain = naive[without] / naive[with_it] / truth
                found.append(_ratio_result(name, part, (ratio / truth)[chosen], plain[chosen], ratio[chosen], truth[chosen]))
    return found


def _ratio_result(name: str, part: str, error: Array, naive: Array, ratio: Array, truth: Array) -> StratumResult:
    target = _target(name)
    off = np.abs(error - 1.0)
    return StratumResult(
        name=name, part=part, rows=len(error), median_error=float(np.median(off)),
        p90_error=float(np.quantile(off, 0.9)), rank_correlation=_rank_correlation(ratio, truth), coverage80=None,
        naive_median=float(np.median(np.abs(naive - 1.0))), public_median=None, bias=float(np.median(error - 1.0)),
        target_median=target[0], target_p90=target[1],
    )  # fmt: skip


def _rank_notes(strata: list[StratumResult]) -> tuple[str, ...]:
    """What operations and weights alone would reach as rank correlation, for strata with a target."""
    return tuple(
        f"{s.name}: rank correlation {s.rank_correlation:.3f} with the chip left out (target {s.target_rank:.2f}); by "
        f"operations alone {s.ops_rank:.3f}, by weights alone {s.weights_rank:.3f}"
        for s in strata
        if s.target_rank and s.part == "left-out chip" and s.ops_rank and s.weights_rank and s.rank_correlation
    )


def _detail(case: Case) -> str:
    """A finer group: chip for networks, library and op for single operations."""
    if case.profile.rules.get("serves") == "network" and case.stratum in ("diffusion", "compressed"):
        what = "diffusion" if case.stratum == "diffusion" else "compressed"
        return f"{what}, {case.profile.engine.upper()}"
    if case.profile.rules.get("serves") == "network" and case.family == "whisper":
        return f"{case.profile.runtime} {case.profile.engine.upper()}, {case.stratum}"
    if case.profile.rules.get("serves") == "network" and case.profile.engine != "ane":
        return f"{case.profile.name}"
    if case.profile.rules.get("serves") == "network":
        return f"{case.soc.name}, {'512 pixels and more' if case.stratum == 'inference-large' else 'below 512 pixels'}"
    return f"{case.profile.runtime} {case.family}"


def _groups(cases: CaseSet) -> list[tuple[str, npt.NDArray[np.bool_]]]:
    """Headline strata over trust A rows, then per runtime and engine over A and B."""
    names = [headline_stratum(case) for case in cases.cases]
    first = np.array([case.row.trust == "A" or case.profile.engine == "ane" for case in cases.cases])
    groups = [(name, np.array([n == name for n in names]) & first) for name in TARGETS]
    runtimes = [f"{case.profile.runtime} {case.profile.engine}, trust {case.row.trust}" for case in cases.cases]
    groups += [(name, np.array([r == name for r in runtimes])) for name in sorted(set(runtimes))]
    return [(name, picked) for name, picked in groups if picked.any()]


def _at_least_bound(cases: CaseSet, seconds: Array) -> Array:
    """A prediction never undercuts its own physical bound."""
    bounds = np.array([case.bound_s for case in cases.cases])
    return np.asarray(np.maximum(seconds, bounds), dtype=np.float64)


def _result(
    name: str,
    part: str,
    picked: npt.NDArray[np.bool_],
    cases: CaseSet,
    measured: Array,
    predicted: Array,
    naive: Array,
    public: Array,
) -> StratumResult:
    chosen = picked & np.isfinite(predicted)
    error = np.abs(predicted[chosen] / measured[chosen] - 1.0)
    inside = [
        low <= math.log(m / p) <= high
        for (low, high), m, p in zip(
            (_interval(case) for case, keep in zip(cases.cases, chosen) if keep), measured[chosen], predicted[chosen]
        )
    ]
    other = np.abs(public[chosen] / measured[chosen] - 1.0)
    other = other[np.isfinite(other)]
    target = _target(name)
    return StratumResult(
        name=name,
        part=part,
        rows=int(chosen.sum()),
        median_error=float(np.median(error)),
        p90_error=float(np.quantile(error, 0.9)),
        rank_correlation=_rank_correlation(predicted[chosen], measured[chosen]),
        coverage80=float(np.mean(inside)),
        naive_median=float(np.median(np.abs(naive[chosen] / measured[chosen] - 1.0))),
        public_median=float(np.median(other)) if len(other) else None,
        bias=float(np.median(predicted[chosen] / measured[chosen] - 1.0)),
        target_median=target[0],
        target_p90=target[1],
        target_rank=RANK_TARGETS.get(name),
        ops_rank=_rank_of(cases, chosen, measured, 0),
        weights_rank=_rank_of(cases, chosen, measured, 1),
    )


def _rank_of(cases: CaseSet, chosen: npt.NDArray[np.bool_], measured: Array, which: int) -> float | None:
    """Rank correlation of operations (0) or of bytes of weights (1) with measured times."""
    sizes = []
    for case, keep in zip(cases.cases, chosen):
        if keep:
            counts = [(call.weight, case.table.evaluate(call.bindings)) for call in case.calls]
            sizes.append(sum(w * (call_ops(c), float((c.weight_bytes * c.count).sum()))[which] for w, c in counts))
    return _rank_correlation(np.array(sizes), measured[chosen])


def _target(name: str) -> tuple[float | None, float | None]:
    return next((targets[name] for targets in SUITE_TARGETS.values() if name in targets), (None, None))


def _rank_correlation(a: Array, b: Array) -> float | None:
    """Spearman's rho with equal values sharing their mean rank; None below 5 rows or where all are equal."""
    from scipy.stats import rankdata

    if len(a) < 5 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return None
    return float(np.corrcoef(rankdata(a), rankdata(b))[0, 1])


def _interval(case: Case) -> tuple[float, float]:
    from orchard.studies.predict import DEFAULT_ERROR

    error = case.profile.errors.get(case.stratum, DEFAULT_ERROR)
    return error.low, error.high


def _point(case: Case, seconds: float) -> Point:
    low, high = _interval(case)
    return Point(
        id=case.row.id, stratum=headline_stratum(case), chip=case.soc.id, model=case.row.model,
        runtime=case.profile.runtime, engine=case.profile.engine, phase=case.row.phase, measured_s=case.measured_s,
        predicted_s=seconds, low_s=seconds * math.exp(low), high_s=seconds * math.exp(high), trust=case.row.trust,
    )  # fmt: skip


def naive_roofline(cases: CaseSet) -> Array:
    """max(ops / FP16 peak, bytes / DRAM peak) summed over calls: what a data sheet alone gives."""
    times = []
    for case in cases.cases:
        ops, moved = _work(case)
        peak, bandwidth = _peaks(case)
        times.append(sum(max(o / peak, b / bandwidth) for o, b in zip(ops, moved)))
    return np.array(times)


def two_numbers(cases: CaseSet) -> Array:
    """The two-number model, fitted for each row on the rows of other chips with the same runtime, engine, phase and format.

    Prefill: one compute efficiency. Decode: time = a x bytes / bandwidth + b x layers, least squares in relative error. NaN
    where fewer than four such rows of other chips exist.
    """
    ops_s, bytes_s, layers, keys = [], [], [], []
    for case in cases.cases:
        ops, moved = _work(case)
        peak, bandwidth = _peaks(case)
        ops_s.append(sum(ops) / peak)
        bytes_s.append(sum(moved) / bandwidth)
        layers.append(float(case.table.depth))
        keys.append((case.profile.runtime, case.profile.engine, case.row.phase, case.row.weights))
    compute, memory, depth = np.array(ops_s), np.array(bytes_s), np.array(layers)
    measured = np.array([case.measured_s for case in cases.cases])
    chips = np.array([case.soc.id for case in cases.cases])
    result = np.full(len(measured), np.nan)
    for i, key in enumerate(keys):
        others = np.array([k == key for k in keys]) & (chips != chips[i])
        if others.sum() < 4:
            continue
        if key[2] == "decode":
            design = np.stack([memory[others], depth[others]], 1) / measured[others, None]
            (a, b), *_ = np.linalg.lstsq(design, np.ones(int(others.sum())), rcond=None)
            result[i] = a * memory[i] + b * depth[i]
        else:
            result[i] = compute[i] * np.median(measured[others] / compute[others])
    return result


def _work(case: Case) -> tuple[list[float], list[float]]:
    counts = [(call.weight, case.table.evaluate(call.bindings)) for call in case.calls]
    return [w * call_ops(c) for w, c in counts], [w * dram_bytes(c) for w, c in counts]


def _peaks(case: Case) -> tuple[float, float]:
    hw = HardwareArrays.of(case.soc)
    peak = {"gpu": "gpu.fp16", "ane": "ane.fp16", "cpu": "cpu.neon.fp16"}[case.profile.engine]
    if case.profile.engine == "gpu":
        return max(float(hw[peak]), float(hw["gpu.matrix.fp16"])), float(hw["dram.bandwidth"])
    return float(hw[peak]), float(hw["dram.bandwidth"])


def left_out_seconds(cases: CaseSet, suite: str, part: str, group: Callable[[Case], str]) -> Array:
    """Seconds of each case from the stored fit that did not see its group; NaN for rows without one."""
    measured = np.array([case.measured_s for case in cases.cases])
    return _at_least_bound(cases, measured * np.exp(_left_out_errors(cases, part, group, False, suite)))


def _left_out_errors(cases: CaseSet, part: str, group: Callable[[Case], str], refit: bool, suite: str = "llm") -> Array:
    """Stored left-out errors by row id, or new ones."""
    from orchard.studies.calibrate import left_out

    if refit:
        return left_out(cases, group)
    stored = _stored(suite)[part]
    return np.array([stored.get(case.row.id, np.nan) for case in cases.cases])


@lru_cache(maxsize=4)
def _stored(suite: str = "llm") -> dict[str, dict[str, float]]:
    """`left_out.csv`: row id and ln(predicted / measured) for both parts, written by `orchard calibrate`."""
    import csv

    text = files("orchard.data").joinpath("measurements", f"{suite}_left_out.csv").read_text(encoding="utf-8")
    found: dict[str, dict[str, float]] = {part: {} for part in PARTS[1:]}
    for record in csv.DictReader(text.splitlines()):
        for part, column in (("left-out chip", "by_generation"), ("left-out family", "by_family")):
            if record[column]:
                found[part][record["id"]] = float(record[column])
    return found


def _notes(cases: CaseSet) -> tuple[str, ...]:
    beaten = [case.row.id for case in cases.cases if case.bound_s > case.measured_s * (1 + 1e-9)]
    first = f"{len(beaten)} measured rows beat the bound" + (f": {', '.join(beaten[:5])}" if beaten else "")
    return (
        first,
        "trust A only in the first table (ANE has none, so B there); errors are |predicted/measured - 1| of times",
        "left-out chip leaves out a whole generation (M1, M2, ...), left-out family a whole model family",
    )


__all__ = ["LeftOut", "Point", "StratumResult", "ValidationReport", "left_out_seconds", "two_numbers", "validate"]
