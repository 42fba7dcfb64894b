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

import numpy as np
import numpy.typing as npt

from orchard.cost.profile import Parameter, load_profile
from orchard.studies.cases import Case, CaseSet, make_case
from orchard.studies.measurements import Row, read_rows, scored

Array = npt.NDArray[np.float64]
Key = tuple[str, str]

SCALE = {"A": 0.05, "B": 0.08}


@dataclass(frozen=True, kw_only=True)
class Fit:
    """Fitted values and the standard error of each logarithm; `weak` names parameters the rows hardly moved."""

    values: Mapping[Key, float]
    sigma: Mapping[Key, float]
    weak: tuple[Key, ...]


def all_cases(rows: Iterable[Row] | None = None) -> CaseSet:
    """Every scored row as a case."""
    return CaseSet.of(make_case(row) for row in scored(read_rows() if rows is None else rows))


def start_values(cases: CaseSet) -> tuple[dict[Key, float], list[Key], dict[Key, Parameter]]:
    """(values, free keys, parameters) of every profile the cases use."""
    values: dict[Key, float] = {}
    parameters: dict[Key, Parameter] = {}
    for name in dict.fromkeys(case.profile.name for case in cases.cases):
        profile = load_profile(name)
        for parameter, owner in profile.owner.items():
            values[owner, parameter] = profile.parameters[parameter].value
            parameters[owner, parameter] = profile.parameters[parameter]
    free = [key for key, parameter in parameters.items() if not parameter.fixed]
    return values, free, parameters


def fit(cases: CaseSet, *, steps: int = 30) -> Fit:
    """Fit all free parameters of the profiles behind `cases`. Deterministic; same rows, same numbers."""
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

    solution = least_squares(residuals, centre, x_scale=0.2, max_nfev=steps)
    covariance = np.linalg.pinv(solution.jac.T @ solution.jac)
    sigma = dict(zip(free, np.sqrt(np.diag(covariance))))
    fitted = dict(values)
    fitted.update(zip(free, np.exp(solution.x)))
    weak = tuple(key for key in free if sigma[key] > 0.8 * parameters[key].width)
    return Fit(values=fitted, sigma=sigma, weak=weak)


Leave = Callable[[Case], str]


def left_out(cases: CaseSet, group: Leave) -> Array:
    """ln(predicted / measured) of every row from fits that did not see its group (chip generation, model family, ...).

    NaN where leaving the group out leaves a profile without rows of its own: then nothing was tested.
    """
    errors = np.full(len(cases.cases), np.nan)
    names = [group(case) for case in cases.cases]
    for name in dict.fromkeys(names):
        test = np.array([n == name for n in names])
        values, _, _ = start_values(cases)
        train = cases.subset(~test)
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
