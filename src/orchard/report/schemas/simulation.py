"""Records of `orchard simulate`, `scenarios` and `check-trace`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from orchard.report.schemas.base import Record, Share, Versioned
from orchard.report.schemas.prediction import ChipPart


class ScenarioPart(Record):
    name: str
    about: str


class LatencyPart(Record):
    mean: float
    p50: float
    p95: float
    p99: float
    max: float


class TimePart(Record):
    queue: float
    preempted: float
    host: float
    compute: float
    memory: float
    dispatch: float
    contention: float
    clock: float


class StreamPart(Record):
    name: str
    model: str
    engine: str
    placed: bool
    runtime: str
    priority: int
    deadline_s: float | None
    alone_s: float
    bound_s: float
    load: float
    arrived: int
    completed: int
    missed: int
    late: int
    overdue: int
    dropped: int
    unfinished: int
    saturated: bool
    latency_s: LatencyPart
    first_output_s: LatencyPart | None
    passes: int
    passes_per_s: float
    energy_j: float
    time_s: TimePart
    shares: TimePart


class SimulatedEngine(Record):
    name: str
    units: int
    utilization: Share
    busy_s: float
    mean_clock: Share
    ops: int
    mean_waiting: float
    most_waiting: int
    energy_j: float


class UserPart(Record):
    name: str
    bytes_per_s: float


class SharedMemory(Record):
    dram_bytes: float
    user_bytes: float
    mean_bytes_per_s: float
    peak_bytes_per_s: float
    capacity_bytes_per_s: float
    utilization: Share
    users: list[UserPart]
    models_bytes: int


class PowerPart(Record):
    mean_w: float
    peak_w: float
    limit_w: float | None
    energy_j: float
    idle_j: float
    users_j: float


class HeatPart(Record):
    most_die_c: float
    most_case_c: float
    last_die_c: float
    last_case_c: float
    throttled_share: Share


class SeriesPart(Record):
    step_s: float
    columns: list[str]
    rows: list[list[float]]


class SimulationRecord(Versioned):
    """`orchard simulate`."""

    schema_name: Literal["orchard.simulation/1"] = Field(alias="schema")
    kind: Literal["simulation"]
    scenario: ScenarioPart
    chip: ChipPart
    chassis: str
    seconds: float
    seed: int
    saturated: bool
    streams: list[StreamPart]
    engines: list[SimulatedEngine]
    memory: SharedMemory
    power: PowerPart
    heat: HeatPart | None
    series: SeriesPart
    ops: int
    trace: str | None
    warnings: list[str]


class ShippedScenario(Record):
    name: str
    about: str
    seconds: float
    streams: list[str]
    users: list[str]
    sources: dict[str, str]


class Scenarios(Versioned):
    """`orchard scenarios`."""

    schema_name: Literal["orchard.scenarios/1"] = Field(alias="schema")
    scenarios: list[ShippedScenario]


class TraceCheck(Versioned):
    """`orchard check-trace`."""

    schema_name: Literal["orchard.trace_check/1"] = Field(alias="schema")
    file: str
    events: int
    slices: int
    arrows: int
    open_arrows: int
    requests: int
    counters: int
    threads: list[str]
