"""The simulator against measurements: what chassis let through over minutes, and what two users of one SoC get.

`orchard validate --suite sustained` prints the table. Rows whose part is `fit` moved the values of hw/chassis.yaml that are
marked fitted (tools/fit_chassis.py); the others did not.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from importlib.resources import files
from typing import Any

from orchard.cost.energy import MODELS
from orchard.hw import HardwareArrays, SoC, load_chip
from orchard.sim.arrivals import Closed, Times
from orchard.sim.machine import Machine
from orchard.sim.results import Outcome
from orchard.sim.simulator import Simulator, Stream
from orchard.studies.place import answer_placement
from orchard.studies.predict import make_plan
from orchard.studies.programs import Programs, machine_of, split_workload
from orchard.studies.request import Request
from orchard.studies.simulate import loaded
from orchard.workloads.scenarios import Arrival, Load, StreamSpec

SCHEMA = "orchard.sustained/1"
SMOOTH_S = 5.0
"""A rate is read as the mean of this long; the first reading is the burst."""
NEON_PART = 0.655 / 0.801
"""Part of the NEON peak at full load of all cores, M1 Max [amx-benchmarks]."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A measurement: what ran where, what was read, and whether the chassis was fitted to it."""

    id: str
    source: str
    chip: str
    chassis: str
    engine: str
    workload: str
    metric: str
    at_s: float
    value: float
    unit: str
    part: str
    notes: str


@dataclass(frozen=True, slots=True)
class Compared:
    """`simulated` in the unit of the row; None for a time where the rate never falls that far. `error` is simulated minus
    measured in shares and factors; for a time the share of the burst rate kept at that moment, minus the share measured then;
    for a pipeline simulated / measured - 1."""

    row: Row
    simulated: float | None
    error: float


@dataclass(frozen=True, slots=True)
class Sustained:
    """All rows compared."""

    rows: tuple[Compared, ...]

    def to_dict(self) -> dict[str, Any]:
        return {
            "schema": SCHEMA,
            "rows": [
                {
                    "id": c.row.id, "part": c.row.part, "chip": c.row.chip, "chassis": c.row.chassis, "engine": c.row.engine,
                    "workload": c.row.workload, "metric": c.row.metric, "at_s": c.row.at_s, "measured": c.row.value,
                    "simulated": c.simulated, "unit": c.row.unit, "error": c.error, "source": c.row.source,
                    "notes": c.row.notes,
                }
                for c in self.rows
            ],
        }  # fmt: skip


def read_rows() -> list[Row]:
    """The packaged measurements."""
    text = files("orchard.data").joinpath("measurements", "thermal.csv").read_text(encoding="utf-8")
    return [
        Row(**{**r, "at_s": float(r["at_s"] or 0.0), "value": float(r["value"])})  # type: ignore[arg-type]
        for r in csv.DictReader(text.splitlines())
    ]


def compare_sustained(rows: list[Row] | None = None) -> Sustained:
    """Simulate every row. About a second per minute-long run."""
    found = []
    runs: dict[tuple[str, ...], Outcome] = {}
    for row in read_rows() if rows is None else rows:
        simulated = METRICS[row.metric](row, runs)
        if row.metric == "pipeline":
            error = (simulated or 0.0) / row.value - 1.0
        else:
            error = _kept(row, runs) if row.unit == "s" else (simulated or 0.0) - row.value
        found.append(Compared(row, simulated, error))
    return Sustained(tuple(found))


Runs = dict[tuple[str, ...], Outcome]


def _run(row: Row, runs: Runs) -> Outcome:
    """The row's workload without pause on its chassis; rows of one workload share a run of the longest duration they need."""
    key = (row.chip, row.chassis, row.engine, row.workload)
    if key not in runs:
        soc = load_chip(row.chip, [])
        stream = sustained_stream(row, soc)
        seconds = max(row.at_s, 600.0)
        runs[key] = Simulator(machine_of(soc, row.chassis), [stream], seconds=seconds).run()
    return runs[key]


def sustained_stream(row: Row, soc: SoC) -> Stream:
    """A closed loop of the row's workload."""
    kind, *rest = row.workload.split()
    if kind == "decode":
        model, runtime, weights = rest
        request = Request(
            model=model,
            chip=row.chip,
            runtime=runtime,
            weights=weights,
            engine=row.engine,
            prompt=0,
            generate=256,
            depth=256,
        )
        work = Programs(make_plan(request), HardwareArrays.of(soc), model).workload()
        return Stream(name=model, workloads=(work,), arrivals=Closed())
    engine = "gpu" if row.engine == "all" else row.engine
    watts = full_load_w(soc) if kind == "full" else float(rest[-2])
    return _load_stream(soc, Load(engine=engine, seconds=0.1, watts=watts))


def full_load_w(soc: SoC) -> float:
    """Watts of all CPU cores at work, by the energy model of the estimate."""
    hw = HardwareArrays.of(soc)
    model = MODELS["cpu"]
    cores = float(hw["cpu.s.cores"]) + float(hw["cpu.p.cores"])
    arithmetic = model.joule_per_op * NEON_PART * float(hw["cpu.neon.fp32"])
    return arithmetic + model.active_w + model.active_w_per_core * cores


def _load_stream(soc: SoC, load: Load, name: str = "load") -> Stream:
    spec = StreamSpec(name=name, arrival=Arrival(kind="think"), load=load, engine=load.engine)
    placed = loaded(spec, soc, 0.0)
    return Stream(name=name, workloads=placed.workloads, arrivals=Closed())


def readings(outcome: Outcome, column: str) -> list[float]:
    """Means of a series column over `SMOOTH_S` each."""
    series = outcome.series
    at, per = series.columns.index(column), max(1, round(SMOOTH_S / series.step_s))
    values = [row[at] for row in series.rows]
    return [sum(values[i : i + per]) / per for i in range(0, len(values) - per + 1, per)]


def _retained(column: str) -> Callable[[Row, Runs], float]:
    def read(row: Row, runs: Runs) -> float:
        outcome = _run(row, runs)
        rates = readings(outcome, column)
        step = max(SMOOTH_S, outcome.series.step_s)
        return rates[min(len(rates), max(1, round(row.at_s / step))) - 1] / rates[0]

    return read


def _time_to_lose(share: float) -> Callable[[Row, Runs], float | None]:
    def read(row: Row, runs: Runs) -> float | None:
        outcome = _run(row, runs)
        rates = readings(outcome, "passes_per_s")
        step = max(SMOOTH_S, outcome.series.step_s)
        return next((i * step for i, r in enumerate(rates) if r <= (1 - share) * rates[0]), None)

    return read


def _kept(row: Row, runs: Runs) -> float:
    """Share of the burst rate at the moment a time row names, minus what was left then by measurement."""
    outcome = _run(row, runs)
    rates = readings(outcome, "passes_per_s")
    step = max(SMOOTH_S, outcome.series.step_s)
    left = 1.0 - float(row.metric.rpartition("_")[2]) / 100.0
    return rates[min(len(rates) - 1, int(row.value / step))] / rates[0] - left


def _two_threads(row: Row, runs: Runs) -> float:
    """Requests a second of two closed loops over those of one."""
    del runs
    soc = load_chip(row.chip, [])
    model = row.workload.split()[-1]
    request = Request(model=model, chip=row.chip, engine="ane")
    work = Programs(make_plan(request), HardwareArrays.of(soc), model).workload()
    threads = [Stream(name=n, workloads=(work,), arrivals=Closed()) for n in ("one", "two")]
    machine = machine_of(soc, None)
    return _passes(machine, threads) / _passes(machine, threads[:1])


def _passes(machine: Machine, streams: list[Stream]) -> int:
    return sum(s.passes for s in Simulator(machine, streams, seconds=0.5).run().streams)


def _bandwidth_gain(row: Row, runs: Runs) -> float:
    """Bytes a second of CPU and GPU copying at once over those of the better one alone; each asks for what it reaches alone."""
    del runs
    soc = load_chip(row.chip, [])
    rates = {"gpu": 0.88 * soc["dram.bandwidth"], "cpu": soc["cpu.bandwidth"]}
    streams = [_load_stream(soc, Load(engine=e, seconds=0.01, bytes=0.01 * rate), e) for e, rate in rates.items()]
    machine = replace(machine_of(soc, None), idle_w=0.0)
    both = Simulator(machine, streams, seconds=1.0).run().dram_bytes
    alone = max(Simulator(machine, [s], seconds=1.0).run().dram_bytes for s in streams)
    return both / alone


def _pipeline(row: Row, runs: Runs) -> float:
    """Seconds of one request of a pipeline: on one engine, or with each op where it is best (Core ML's ALL)."""
    del runs
    soc = load_chip(row.chip, [])
    _, model, steps = row.workload.split()
    request = Request(
        model=model, chip=row.chip, engine="auto" if row.engine == "all" else row.engine, steps=int(steps)
    )
    hw = HardwareArrays.of(soc)
    if row.engine == "all":
        work = split_workload(answer_placement(request, explain=False), hw, model)
    else:
        work = Programs(make_plan(request), hw, model).workload()
    stream = Stream(name=model, workloads=(work,), arrivals=Times((0,)))
    return Simulator(machine_of(soc, None), [stream], seconds=None).run().seconds


METRICS: Mapping[str, Callable[[Row, Runs], float | None]] = {
    "retained": _retained("passes_per_s"),
    "retained_power": _retained("power_w"),
    "time_to_lose_25": _time_to_lose(0.25),
    "time_to_lose_10": _time_to_lose(0.10),
    "speedup": _two_threads,
    "bandwidth_gain": _bandwidth_gain,
    "pipeline": _pipeline,
}

__all__ = ["METRICS", "Compared", "Row", "Sustained", "compare_sustained", "read_rows", "sustained_stream"]
