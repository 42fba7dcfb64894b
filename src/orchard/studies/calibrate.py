"""Fit runtime profiles to measurements: robust least squares in log space, with priors and uncertainty.

What is minimised, over the logarithms x of all parameters that are not fixed:

    sum over rows of rho((ln predicted - ln measured) / scale)  +  sum over parameters of ((x - prior) / width)^2

rho is the pseudo-Huber loss, so a row that no physical term explains pulls with bounded force. `scale` is 5 % for trust A and
8 % for trust B, about the drift between builds of one runtime (llm_validation.md, "version drift is the noise floor"). Priors
stand in the profile files beside the fitted values, most of them wide (x1.5), so a term that rows can see is set by rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from orchard.cost.profile import ErrorModel, Parameter, format_profile, load_profile, profile_names
from orchard.studies.cases import Case, CaseSet, make_case
from orchard.studies.measurements import Row, read_rows, scored

Array = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]
Key = tuple[str, str]

SCALE = {"A": 0.05, "B": 0.08}
COMPARED = ("compressed",)
"""Strata that no fit sees: four networks on one phone in a dozen weight formats would outweigh the phones they run on."""


@dataclass(frozen=True, kw_only=True)
class Fit:
    """Fitted values and the standard error of each logarithm; `weak` names parameters the rows hardly moved."""

    values: Mapping[Key, float]
    sigma: Mapping[Key, float]
    weak: tuple[Key, ...]


def all_cases(rows: Iterable[Row] | None = None) -> CaseSet:
    """Every scored row as a case; without `rows` those of the package, which one process makes once."""
    return _packaged_cases() if rows is None else CaseSet.of(make_case(row) for row in scored(rows))


@lru_cache(maxsize=1)
def _packaged_cases() -> CaseSet:
    return CaseSet.of(make_case(row) for row in scored(read_rows()))


def start_values(cases: CaseSet) -> tuple[dict[Key, float], list[Key], dict[Key, Parameter]]:
    """(values, free keys, parameters) of every profile the cases use."""
    values: dict[Key, float] = {}
    parameters: dict[Key, Parameter] = {}
    for name in dict.fromkeys(case.profile.name for case in cases.cases):
        profile = load_profile(name)
        for parameter, owner in profile.owner.items():
            values[owner, parameter] = profile.parameters[parameter].value
            parameters[owner, parameter] = profile.parameters[parameter]
    kind = suite_kind(cases)
    free = [
        key
        for key, parameter in parameters.items()
        if not parameter.fixed and load_profile(key[0]).rules.get("serves") == kind
    ]
    return values, free, parameters


def suite_kind(cases: CaseSet) -> str | None:
    """What the profiles that these cases may move serve: `network`, `ops`, or None for language models.

    A network profile may inherit figures of single operations, and Whisper runs on the profile of a language runtime: those
    were fitted to the rows of their own suite and stay as they are.
    """
    served = {case.profile.rules.get("serves") for case in cases.cases}
    return next((kind for kind in ("network", "ops") if kind in served), None)


def prior_values(cases: CaseSet) -> dict[Key, float]:
    """Values of every parameter before any row was seen."""
    values, free, parameters = start_values(cases)
    return {**values, **{key: parameters[key].centre for key in free}}


def components(cases: CaseSet) -> list[Mask]:
    """Masks of cases whose profiles share free parameters: what one of them has to say cannot move another."""
    _, free, _ = start_values(cases)
    owners = {owner for owner, _ in free}
    held = [{o for o in set(case.profile.owner.values()) if o in owners} for case in cases.cases]
    groups: list[set[str]] = []
    for own in held:
        touching = [g for g in groups if g & own]
        groups = [g for g in groups if not g & own] + [own.union(*touching)]
    return [np.array([bool(own & group) for own in held]) for group in groups if group]


def fit(cases: CaseSet, *, steps: int = 30) -> Fit:
    """Fit all free parameters of the profiles behind `cases`. Deterministic; same rows, same numbers.

    Profiles that share no free parameter are fitted one after the other, which gives the same optimum sooner.
    """
    values, _, _ = start_values(cases)
    seen = np.array([case.stratum not in COMPARED for case in cases.cases])
    cases = cases if seen.all() else cases.subset(seen)
    sigma: dict[Key, float] = {}
    weak: tuple[Key, ...] = ()
    for mask in components(cases):
        part = _fit(cases if mask.all() else cases.subset(mask), steps)
        values.update({key: part.values[key] for key in part.sigma})
        sigma.update(part.sigma)
        weak += part.weak
    return Fit(values=values, sigma=sigma, weak=weak)


def _fit(cases: CaseSet, steps: int) -> Fit:
    from scipy.optimize import least_squares

    values, free, parameters = start_values(cases)
    centre = np.log([parameters[key].centre for key in free])
    width = np.array([parameters[key].width for key in free])
    measured = np.log([case.measured_s for case in cases.cases])
    scale = np.array([SCALE.get(case.row.trust, 0.08) for case in cases.cases])

    def residuals(x: Array) -> Array:
        trial = dict(values)
        trial.update(zip(free, np.exp(x)))
        error = (np.log(cases.seconds(trial)) - measured) / scale
        robust = np.sign(error) * np.sqrt(2.0 * (np.sqrt(1.0 + error**2) - 1.0))
        return np.concatenate([robust, (x - centre) / width])

    solution = least_squares(residuals, centre, x_scale=0.2, max_nfev=steps, ftol=1e-6, xtol=1e-6)
    jacobian = np.asarray(solution.jac, dtype=np.float64)
    covariance = np.linalg.pinv(jacobian.T @ jacobian)
    sigma = dict(zip(free, np.sqrt(np.diag(covariance))))
    fitted = dict(values)
    fitted.update(zip(free, np.exp(solution.x)))
    weak = tuple(key for key in free if sigma[key] > 0.8 * parameters[key].width)
    return Fit(values=fitted, sigma=sigma, weak=weak)


Leave = Callable[[Case], str]


def left_out(cases: CaseSet, group: Leave) -> Array:
    """ln(predicted / measured) of every row from fits that did not see its group (chip generation, model family, ...).

    Where that leaves a profile without rows of its own, its parameters stand at their priors: a stored value would have
    seen the row.
    """
    errors = np.full(len(cases.cases), np.nan)
    names = np.array([group(case) for case in cases.cases])
    parts = [(part, name) for part in components(cases) for name in dict.fromkeys(names[part])]
    untouched = ~np.any([part for part, _ in parts], axis=0) if parts else np.ones(len(names), dtype=bool)
    for part, name in [*parts, (untouched, None)]:
        test = part & (names == name) if name is not None else part
        if not test.any():
            continue
        values = prior_values(cases)
        train = cases.subset(part & ~test)
        if any(case.stratum not in COMPARED for case in train.cases):
            values.update(fit(train).values)
        held = cases.subset(test)
        error = np.log(held.seconds(values)) - np.log([c.measured_s for c in held.cases])
        errors[np.flatnonzero(test)] = error
    return errors


def generation(case: Case) -> str:
    return case.generation


def family(case: Case) -> str:
    return case.family


def conformal(errors: Sequence[float], coverage: float = 0.8) -> tuple[float, float]:
    """Interval of ln(measured / predicted) from left-out errors: order statistics with the finite-sample correction.

    With n errors the k-th smallest bounds a new one from below with probability k / (n + 1) when rows are exchangeable
    (split conformal prediction). With few rows the outermost errors are taken and widened by 10 %.
    """
    sorted_errors = np.sort(-np.asarray(errors, dtype=np.float64))
    n, tail = len(sorted_errors), (1.0 - coverage) / 2.0
    low_rank, high_rank = tail * (n + 1), (1.0 - tail) * (n + 1)
    positions = np.arange(1, n + 1)
    low, high = np.interp([low_rank, high_rank], positions, sorted_errors)
    if low_rank < 1.0:
        low, high = low - 0.1 * abs(low) - 0.02, high + 0.1 * abs(high) + 0.02
    return float(low), float(high)


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """A refit: values, and for each profile and stratum the left-out errors behind its interval."""

    fit: Fit
    by_generation: Array
    by_family: Array
    cases: CaseSet


def calibrate(rows: Iterable[Row] | None = None) -> Calibration:
    """Fit every profile to the packaged rows (or others) and price each row from fits that left its group out."""
    cases = all_cases(rows)
    return Calibration(
        fit=fit(cases), by_generation=left_out(cases, generation), by_family=left_out(cases, family), cases=cases
    )


def calibrate_suite(name: str) -> Calibration:
    """The same for the profiles behind the suite `vision` or `kernels`."""
    from orchard.studies.suites import load_suite

    cases = CaseSet.of(load_suite(name).cases)
    return Calibration(
        fit=fit(cases), by_generation=left_out(cases, generation), by_family=left_out(cases, family), cases=cases
    )


def interval_errors(calibration: Calibration) -> dict[str, dict[str, ErrorModel]]:
    """Per profile and stratum the interval of ln(measured / predicted), from both left-out errors of every row.

    A new row faces a chip or a family that the fit did not see, so both kinds of error are drawn from. Profiles of one
    runtime and engine share their rows: what is asked of the newest build is the accuracy of the runtime. A stratum with
    fewer than `LEAST_ROWS` rows borrows the rows of its phase, then of the whole runtime and engine, and is widened to hold
    what most of its own few showed.
    """
    pools: dict[tuple[str, str], dict[str, list[float]]] = {}
    for case, pair in zip(calibration.cases.cases, zip(calibration.by_generation, calibration.by_family)):
        pool = pools.setdefault((case.profile.runtime, case.profile.engine), {})
        pool.setdefault(case.stratum, []).extend(float(e) for e in pair if np.isfinite(e))
    found: dict[str, dict[str, ErrorModel]] = {}
    kind = suite_kind(calibration.cases)
    strata = tuple(dict.fromkeys(c.stratum for c in calibration.cases.cases)) if kind else STRATA
    for name in profile_names():
        profile = load_profile(name)
        if profile.rules.get("serves") != kind:
            continue  # fitted to the rows of another suite
        pool = pools.get((profile.runtime, profile.engine), {})
        everything = [e for errors in pool.values() for e in errors]
        if everything:
            found[name] = {stratum: _error_model(stratum, pool, everything) for stratum in strata}
    return found


STRATA = (
    "prefill", "prefill-deep", "prefill-moe", "decode", "decode-deep", "decode-moe", "small-batch", "component",
)  # fmt: skip
LEAST_ROWS = 8
LEAST_ERRORS = 2 * LEAST_ROWS


def _error_model(stratum: str, pool: Mapping[str, list[float]], everything: list[float]) -> ErrorModel:
    own = pool.get(stratum, [])
    lent = own
    if len(lent) < LEAST_ERRORS:
        phase = stratum.partition("-")[0]
        lent = [e for name, errors in pool.items() if name.partition("-")[0] == phase for e in errors]
    if len(lent) < LEAST_ERRORS:
        lent = everything
    low, high = conformal(lent)
    if own and len(own) < LEAST_ERRORS:  # too few for quantiles of their own, but the middle of them must lie inside
        low, high = min(low, -float(np.quantile(own, 0.8))), max(high, -float(np.quantile(own, 0.2)))
    return ErrorModel(low=min(low, -0.02), high=max(high, 0.02), rows=len(lent) // 2)


def write_profiles(calibration: Calibration, folder: Path) -> tuple[Path, ...]:
    """Write fitted values, their uncertainty, the intervals and the rows into the profile files of `folder`."""
    import yaml

    errors = interval_errors(calibration)
    rows: dict[str, list[str]] = {}
    for case in calibration.cases.cases:
        rows.setdefault(case.profile.name, []).append(case.row.id)
    written = []
    kind = suite_kind(calibration.cases)
    for name in profile_names():
        if load_profile(name).rules.get("serves") != kind:
            continue  # fitted to the rows of another suite
        if name not in rows and all(owner != name for owner, _ in calibration.fit.sigma):
            continue
        path = folder / f"{name}.yaml"
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
        for parameter, entry in (data.get("parameters") or {}).items():
            key = (name, parameter)
            if key in calibration.fit.sigma:
                entry.setdefault("prior", entry["value"])
                entry["value"] = float(f"{calibration.fit.values[key]:.5g}")
                entry["sigma"] = float(f"{calibration.fit.sigma[key]:.2g}")
        if name in errors:
            data["errors"] = {
                s: {"low": round(e.low, 4), "high": round(e.high, 4), "rows": e.rows} for s, e in errors[name].items()
            }
        data["rows"] = sorted(rows.get(name, []))
        path.write_text(format_profile(data), encoding="utf-8")
        written.append(path)
    return tuple(written)


def write_left_out(calibration: Calibration, path: Path) -> None:
    """Store ln(predicted / measured) of each row from the fits that left its generation or family out."""
    lines = ["id,by_generation,by_family"]
    for case, a, b in zip(calibration.cases.cases, calibration.by_generation, calibration.by_family):
        lines.append(f"{case.row.id},{_cell(a)},{_cell(b)}")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _cell(value: float) -> str:
    return "" if not np.isfinite(value) else f"{value:.5f}"


def save(calibration: Calibration, folder: Path) -> tuple[Path, ...]:
    """The profiles and left-out errors of a refit as files in `folder`, made from the packaged profiles."""
    from importlib.resources import as_file, files
    from shutil import copyfile

    folder.mkdir(exist_ok=True)
    with as_file(files("orchard.cost").joinpath("profiles")) as source:
        for name in profile_names():
            target = folder / f"{name}.yaml"
            if target.resolve() != (source / target.name).resolve():
                copyfile(source / target.name, target)
    written = write_profiles(calibration, folder)
    errors = folder / "llm_left_out.csv"
    write_left_out(calibration, errors)
    return (*written, errors)
