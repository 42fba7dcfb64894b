"""Which figure of a chip pays: local elasticities, and Sobol indices over ranges.

Elasticity of speed by a figure x: d ln(1/t) / d ln x, by central differences of the array cost function with a step of 0.1 %, so
"1 % more x gives so many % more speed" near the chip as it is. Counts move by one whole unit. Where the model has a kink (two
rates are equal, a core more saves a round of tiles), the slopes to both sides differ and both are kept.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from orchard.hw import FIGURES, HardwareArrays, HardwareError, load_chip
from orchard.studies.errors import StudyError
from orchard.studies.explore.basket import study_of
from orchard.studies.explore.evaluate import Evaluator
from orchard.studies.explore.space import Floats, Knob
from orchard.studies.explore.study import Workload
from orchard.units import did_you_mean

STEP = 1e-3
_FIXED = ("package.dies", "gpu.coissue", "ane.engines")
"""Counts that say what kind of chip it is, left out unless asked for."""
_NOTICE = 5e-4
"""Elasticities below this are not reported: 1 % of the figure gives less than 0.0005 %."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Elasticity:
    """Of one figure: per workload, and of the basket's weighted latency. `below` and `above`: slopes to either side."""

    figure: str
    value: float
    derived: bool
    by_workload: Mapping[str, float]
    basket: float
    below: float
    above: float

    @property
    def kinked(self) -> bool:
        """Whether the slopes to both sides differ noticeably."""
        return abs(self.above - self.below) > max(0.02, 0.1 * abs(self.basket))


@dataclass(frozen=True, slots=True, kw_only=True)
class Sobol:
    """Share of the variance of ln latency over the ranges that a figure explains: alone (`first`) and with all its
    interactions (`total`), each with the half-width of its 95 % interval."""

    figure: str
    low: float
    high: float
    first: float
    first_interval: float
    total: float
    total_interval: float


@dataclass(frozen=True, kw_only=True)
class Sensitivity:
    """What `orchard sensitivity` prints. Sorted by |basket|, largest first."""

    chip: str
    workloads: tuple[Workload, ...]
    latency_s: Mapping[str, float]
    elasticities: tuple[Elasticity, ...]
    sobol: tuple[Sobol, ...] = ()
    samples: int = 0


def sensitivity(
    chip: str, workloads: tuple[Workload, ...], *, overrides: tuple[str, ...] = (), figures: Iterable[str] = (),
    samples: int = 0, span: tuple[float, float] = (0.7, 1.4), seed: int = 0,
) -> Sensitivity:  # fmt: skip
    """Elasticities of every figure that matters (or of `figures`); with `samples`, Sobol indices of the largest eight.

    `span`: the range of each figure in the Sobol study, as factors of its value. Raises StudyError for an unknown figure.
    """
    soc = load_chip(chip, list(overrides))
    wanted = [*dict.fromkeys(figures)] or [path for path in soc.parameters() if soc[path] > 0 and path not in _FIXED]
    for path in wanted:
        if path not in FIGURES or FIGURES[path].is_text:
            raise StudyError(f"no figure of a chip is called {path[:60]!r}{did_you_mean(path, FIGURES)}")
        if path not in soc or soc[path] <= 0:
            raise StudyError(f"{chip}: {path} is zero or not known, so it has no elasticity; state it with --set")
    evaluator = Evaluator(study_of(chip, overrides, workloads, ()))
    start = {name: float(evaluator.base[name]) for name in evaluator.base}
    found = [e for path in wanted if (e := _elasticity(evaluator, path, bool(figures))) is not None]
    found.sort(key=lambda e: (-abs(e.basket), e.figure))
    chosen = [e.figure for e in found if not e.derived][:8] if not figures else [e.figure for e in found]
    indices = _sobol(evaluator, chosen, samples, span, seed) if samples else ()
    return Sensitivity(
        chip=chip, workloads=workloads, latency_s=start, elasticities=tuple(found), sobol=indices, samples=samples
    )


def _elasticity(evaluator: Evaluator, path: str, keep: bool) -> Elasticity | None:
    soc = evaluator.soc
    own = soc[path]
    points = _around(path, own)
    try:
        hw = HardwareArrays.of(soc, {path: points})
    except HardwareError:
        return None
    logs: dict[str, Floats] = {}
    total = np.zeros(3)
    for workload in evaluator.study.workloads:
        seconds = evaluator.latency(workload.name, hw)
        logs[workload.name] = np.log(np.broadcast_to(seconds, (3,)))
        total = total + workload.weight * np.exp(logs[workload.name])
    steps = np.diff(np.log(points))
    gains = -np.diff(np.log(total))
    below, above = (float(g / s) if s else 0.0 for g, s in zip(gains, steps, strict=True))
    across = float(steps.sum())
    slopes = {name: float(-(x[2] - x[0]) / across) for name, x in logs.items()}
    basket = float(-(np.log(total[2]) - np.log(total[0])) / across)
    if not keep and max(abs(basket), *(abs(s) for s in slopes.values())) < _NOTICE:
        return None
    return Elasticity(
        figure=path, value=own, derived=path in soc.computed, by_workload=slopes, basket=basket, below=below, above=above
    )


def _around(path: str, own: float) -> Floats:
    """The value and its neighbours: one unit either way for a count (1 has none below), else 0.1 %."""
    if FIGURES[path].unit == "count" and own == round(own):
        return np.array([max(own - 1.0, 1.0), own, own + 1.0])
    return own * np.array([1 - STEP, 1.0, 1 + STEP])


def _sobol(
    evaluator: Evaluator, figures: list[str], samples: int, span: tuple[float, float], seed: int
) -> tuple[Sobol, ...]:
    """Saltelli's design and estimators, by SALib. `samples` is its base N: N (figures + 2) evaluations."""
    try:
        from SALib.analyze import sobol
        from SALib.sample import sobol as design
    except ImportError:
        raise StudyError("Sobol indices need SALib, which is not installed: pip install 'orchard[dse]'") from None
    if samples & (samples - 1):
        raise StudyError(f"--sobol {samples}: expected a power of two such as 256")
    soc = evaluator.soc
    bounds = [[soc[f] * span[0], soc[f] * span[1]] for f in figures]
    problem = {"num_vars": len(figures), "names": figures, "bounds": bounds}
    points = design.sample(problem, samples, calc_second_order=False, seed=seed)
    knobs = tuple(Knob(name=f, low=b[0], high=b[1]) for f, b in zip(figures, bounds, strict=True))
    study = study_of(evaluator.study.chip, evaluator.study.overrides, evaluator.study.workloads, knobs)
    cube = (points - np.array(bounds)[:, 0]) / np.ptp(np.array(bounds), axis=1)
    latency = np.log(Evaluator(study)(np.clip(cube, 0.0, np.nextafter(1.0, 0.0)))["latency_s"])
    result = sobol.analyze(problem, latency, calc_second_order=False, seed=seed)
    return tuple(
        Sobol(
            figure=f, low=b[0], high=b[1], first=float(result["S1"][i]), first_interval=float(result["S1_conf"][i]),
            total=float(result["ST"][i]), total_interval=float(result["ST_conf"][i]),
        )
        for i, (f, b) in enumerate(zip(figures, bounds, strict=True))
    )  # fmt: skip
