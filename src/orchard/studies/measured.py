"""Predicted against measured for the models of a run: none of them was part of the fit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from orchard.cost.eager import launch_arrays
from orchard.cost.engines.eager import eager_terms
from orchard.cost.profile import Profile, parse_profile
from orchard.hw import SoC, load_chip
from orchard.measure.store import Run, Sample, read_run
from orchard.studies.errors import StudyError
from orchard.studies.machine_file import calibrate_run, measured
from orchard.studies.machine_fit import Programs

TARGET_MEDIAN, TARGET_WORST, TARGET_RANK, TARGET_MEMORY, TARGET_TRAINING = 0.12, 0.35, 0.97, 0.10, 0.15


@dataclass(frozen=True, kw_only=True)
class OpError:
    """All operations of one kind in a model: how many, seconds measured and predicted."""

    op: str
    count: int
    measured_s: float
    predicted_s: float


@dataclass(frozen=True, kw_only=True)
class MeasuredModel:
    """One model. Times in seconds; memory in bytes (None: the system did not say); `aligned`: share of operations lined up."""

    name: str
    measured_s: float
    measured_interval_s: tuple[float, float]
    predicted_s: float
    interval_s: tuple[float, float]
    cpu_share: float | None
    memory_measured: int | None
    memory_predicted: int
    aligned: float
    ops: tuple[OpError, ...]

    @property
    def error(self) -> float:
        return self.predicted_s / self.measured_s - 1.0

    @property
    def memory_error(self) -> float | None:
        return None if not self.memory_measured else self.memory_predicted / self.memory_measured - 1.0

    @property
    def inside(self) -> bool:
        return self.interval_s[0] <= self.measured_s <= self.interval_s[1]


@dataclass(frozen=True, kw_only=True)
class MeasuredReport:
    """All models of a run on one calibrated machine."""

    run: Run
    machine: str
    models: tuple[MeasuredModel, ...]
    median: float
    worst: float
    rank: float
    memory_median: float | None
    training_worst: float | None
    coverage: float


def validate_measured(folder: str, chip: str | None = None) -> MeasuredReport:
    """Predict the models of a run with `chip`, a calibrated machine; without one the run's own microbenchmarks are fitted."""
    run = read_run(folder)
    if not run.models:
        raise StudyError(f"{folder}: holds no whole model; add them with `orchard measure unseen --output {folder}`")
    if chip is None:
        found = calibrate_run(run)
        values, low, high, name = dict(found.fit.values), found.error.low, found.error.high, "fit of this run"
    else:
        profile = machine_runtime(load_chip(chip))
        error = profile.errors["inference"]
        values, low, high, name = profile.values(), error.low, error.high, chip
    models = tuple(_model(s, values, low, high) for s in run.models)
    return summary(run, name, models)


def machine_runtime(soc: SoC) -> Profile:
    """The eager profile of a calibrated machine. Raises StudyError for a chip without one."""
    for key, data in soc.runtimes.items():
        profile = parse_profile(data, f"{soc.id}: runtimes.{key}")
        if profile.model == "eager":
            return profile
    raise StudyError(f"chip {soc.id}: is no calibrated machine; make one with `orchard calibrate RUN`")


def summary(run: Run, machine: str, models: Sequence[MeasuredModel]) -> MeasuredReport:
    """The figures over models."""
    errors = [abs(m.error) for m in models]
    memory = [abs(m.memory_error) for m in models if m.memory_error is not None]
    training = [abs(m.error) for m in models if m.name.startswith("train-step")]
    return MeasuredReport(
        run=run, machine=machine, models=tuple(models), median=float(np.median(errors)), worst=max(errors),
        rank=rank_correlation([m.predicted_s for m in models], [m.measured_s for m in models]),
        memory_median=float(np.median(memory)) if memory else None, training_worst=max(training) if training else None,
        coverage=sum(m.inside for m in models) / len(models),
    )  # fmt: skip


def rank_correlation(left: Sequence[float], right: Sequence[float]) -> float:
    """Spearman's; 1 for fewer than two."""
    if len(left) < 2:
        return 1.0
    from scipy.stats import spearmanr

    return float(spearmanr(left, right)[0])


def _model(sample: Sample, values: Mapping[str, float], low: float, high: float) -> MeasuredModel:
    program = measured(sample)
    predicted = float(Programs([program]).seconds(values)[0])
    ops, aligned = line_up(sample, values)
    return MeasuredModel(
        name=sample.name, measured_s=sample.timing.median_s, measured_interval_s=sample.timing.interval_s, predicted_s=predicted,
        interval_s=(predicted * float(np.exp(low)), predicted * float(np.exp(high))), cpu_share=sample.cpu_share,
        memory_measured=sample.measured_bytes, memory_predicted=sample.resident_bytes + sample.peak_bytes,
        aligned=aligned, ops=ops,
    )  # fmt: skip


def line_up(sample: Sample, values: Mapping[str, float]) -> tuple[tuple[OpError, ...], float]:
    """Measured and predicted seconds per kind of operation, largest first, and the share of operations that line up.

    Both lists are in program order; where they part (a branch that depends on data), what follows is not compared.
    """
    seconds = eager_terms(launch_arrays(sample.launches), values).total
    sums: dict[str, list[float]] = {}
    lined = 0
    for launch, (name, taken), predicted in zip(sample.launches, sample.operations, seconds):
        if launch.op != name:
            break
        lined += 1
        entry = sums.setdefault(
            ".".join(x for x in (launch.op.removeprefix("aten."), launch.dtype) if x), [0.0, 0.0, 0.0]
        )
        entry[0] += 1
        entry[1] += taken
        entry[2] += float(predicted)
    rows = [OpError(op=op, count=int(n), measured_s=m, predicted_s=p) for op, (n, m, p) in sums.items()]
    return tuple(sorted(rows, key=lambda r: -max(r.measured_s, r.predicted_s))), lined / max(1, len(sample.launches))
