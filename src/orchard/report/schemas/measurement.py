"""Records of `orchard measure`, `calibrate RUN`, `validate --measured`, `compare-run`, `contribute` and `prototype`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from orchard.report.schemas.base import Record, Share, Versioned


class MeasuredMachine(Record):
    system: str
    processor: str
    cores: int
    memory_bytes: int | None
    l1d_bytes: int | None
    l2_bytes: int | None
    l3_bytes: int | None
    clock_hz: float | None
    features: list[str]
    versions: dict[str, str]


class MachineState(Record):
    load: float | None
    clock_hz: float | None
    celsius: float | None


class MeasuredOperation(Record):
    op: str
    count: int
    seconds: float


class MeasuredProgram(Record):
    name: str
    group: str
    median_s: float
    interval_s: list[float] = Field(min_length=2, max_length=2)
    floor_s: float
    spread: float
    samples: int
    inner: int
    outliers: int
    rate: float | None
    rate_unit: Literal["ops/s", "bytes/s"] | None
    cpu_share: Share | None
    joules: dict[str, float]
    memory_bytes: int | None
    operations: list[MeasuredOperation]


class Measurement(Versioned):
    """orchard measure."""

    schema_name: Literal["orchard.measurement/1"] = Field(alias="schema")
    run: str
    created: str
    device: str
    suite: str
    threads: int
    clock: str
    allocator: str
    machine: MeasuredMachine
    state_before: MachineState
    state_after: MachineState | None
    instruments: list[str]
    programs: list[MeasuredProgram]
    warnings: list[str]


class FittedParameter(Record):
    name: str
    value: float
    unit: str
    sigma: float
    about: str
    determined: bool


class MachineCalibration(Versioned):
    """orchard calibrate RUN."""

    schema_name: Literal["orchard.machine-calibration/1"] = Field(alias="schema")
    run: str
    file: str
    programs: int
    median_error: float
    left_out_median_error: float
    interval: list[float] = Field(min_length=2, max_length=2)
    parameters: list[FittedParameter]
    undetermined: list[str]


class ComparedOperation(Record):
    op: str
    count: int
    measured_s: float
    predicted_s: float


class MeasuredModel(Record):
    name: str
    measured_s: float
    measured_interval_s: list[float] = Field(min_length=2, max_length=2)
    predicted_s: float
    interval_s: list[float] = Field(min_length=2, max_length=2)
    error: float
    cpu_share: Share | None
    memory_measured_bytes: int | None
    memory_predicted_bytes: int
    memory_error: float | None
    aligned: Share
    operations: list[ComparedOperation]


class MeasuredTargets(Record):
    median: float
    worst: float
    rank: float
    memory: float
    training: float


class MeasuredValidation(Versioned):
    """orchard validate --measured."""

    schema_name: Literal["orchard.measured-validation/1"] = Field(alias="schema")
    run: str
    machine: str
    device: str
    created: str
    median_error: float
    worst_error: float
    rank_correlation: float
    memory_median_error: float | None
    training_worst_error: float | None
    coverage80: Share
    models: list[MeasuredModel]
    targets: MeasuredTargets


class RunDifference(Record):
    what: str
    a: str
    b: str


class ProgramChange(Record):
    name: str
    group: str
    a_s: float
    b_s: float
    ratio: float
    p: float
    verdict: Literal["slower", "faster", "same"]


class RunComparisonRecord(Versioned):
    """orchard compare-run."""

    schema_name: Literal["orchard.measurement-comparison/1"] = Field(alias="schema")
    a: str
    b: str
    drift: float
    least: float
    slower: int
    faster: int
    same: int
    only_a: int
    only_b: int
    differs: list[RunDifference]
    changes: list[ProgramChange]


class Contribution(Versioned):
    """orchard contribute."""

    schema_name: Literal["orchard.contribution/1"] = Field(alias="schema")
    run: str
    file: str
    rows: int
    columns: list[str]


class PrototypeTrial(Record):
    shape: dict[str, int]
    median_s: float
    interval_s: list[float] = Field(min_length=2, max_length=2)
    error: float
    macs: float
    moved_bytes: float
    bound_s: float
    share_of_bound: float


class PrototypeRecord(Versioned):
    """orchard prototype."""

    schema_name: Literal["orchard.prototype/1"] = Field(alias="schema")
    name: str
    device: str
    correct: bool
    tolerance: float
    roof_macs_per_s: float
    roof_bytes_per_s: float
    trials: list[PrototypeTrial]
    fixed_s: float
    s_per_mac: float
    s_per_byte: float
    r2: float
