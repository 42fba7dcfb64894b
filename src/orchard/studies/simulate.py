"""Simulate a scenario on a chip: place its streams, make their programs, run them, and say what happened."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from orchard.cost.bound import phase_bound
from orchard.hw import HardwareArrays, SoC, load_chip
from orchard.hw.chassis import housing_names, load_housing, usual_housing
from orchard.sim.arrivals import Arrivals, Closed, Periodic, Poisson, Times, Triggered
from orchard.sim.machine import Machine
from orchard.sim.program import PS, Call, Stage, Workload, make_program
from orchard.sim.results import Outcome, StreamStats
from orchard.sim.simulator import MemoryUser, Simulator, Stream, Successor
from orchard.sim.trace import TraceWriter
from orchard.studies.errors import StudyError
from orchard.studies.place import answer_placement
from orchard.studies.predict import Plan, make_plan, memory_of
from orchard.studies.programs import ENGINES, Programs, machine_of, split_workload
from orchard.studies.request import Request
from orchard.studies.runtimes import engine_name
from orchard.units import OrchardError, format_bytes, format_seconds
from orchard.workloads.scenarios import Arrival, Scenario, StreamSpec, load_scenario

SCHEMA = "orchard.simulation/1"
LONGEST_S = 86_400.0
MOST_TURNS = 64
BACKLOG = 0.1
"""A stream is saturated where it dropped requests, or more than this part of them (and at least 3) were unfinished at the end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """A stream that knows its engine: `service_s` one request alone at full clock; `bound_s` what physics allows; `load` the part
    of its engine it asks for (mean rate x service time, submission left out)."""

    spec: StreamSpec
    engine: str
    runtime: str
    model: str
    workloads: tuple[Workload, ...]
    service_s: float
    bound_s: float
    load: float
    rate_per_s: float
    memory_bytes: int
    auto: bool


@dataclass(frozen=True, kw_only=True)
class Simulation:
    """A scenario that was run. `to_dict` gives `orchard.simulation/1`."""

    scenario: Scenario
    soc: SoC
    machine: Machine
    chassis: str
    seconds: float
    seed: int
    overrides: tuple[str, ...]
    placed: tuple[Placed, ...]
    outcome: Outcome
    trace: str | None = None
    warnings: tuple[str, ...] = ()

    @property
    def saturated(self) -> tuple[str, ...]:
        """Streams whose backlog grows."""
        return tuple(s.name for s, p in zip(self.outcome.streams, self.placed) if _saturated(s, p))

    def to_dict(self) -> dict[str, Any]:
        outcome = self.outcome
        return {
            "schema": SCHEMA,
            "kind": "simulation",
            "scenario": {"name": self.scenario.name, "about": self.scenario.about},
            "chip": {
                "id": self.soc.id, "name": self.soc.name,
                "overrides": {k.strip(): v.strip() for k, _, v in (t.partition("=") for t in self.overrides)},
            },
            "chassis": self.chassis,
            "seconds": outcome.seconds,
            "seed": self.seed,
            "saturated": bool(self.saturated),
            "streams": [self._stream(p, s) for p, s in zip(self.placed, outcome.streams)],
            "engines": [self._engine(i) for i in range(len(outcome.engines))],
            "memory": self._memory(),
            "power": {
                "mean_w": outcome.energy_j / outcome.seconds, "peak_w": outcome.peak_w,
                "limit_w": self.machine.limit_w, "energy_j": outcome.energy_j, "idle_j": outcome.idle_j,
                "users_j": outcome.user_j,
            },
            "heat": self._heat(),
            "series": {
                "step_s": outcome.series.step_s, "columns": list(outcome.series.columns), "rows": outcome.series.rows,
            },
            "ops": outcome.ops,
            "trace": self.trace,
            "warnings": list(self.warnings),
        }  # fmt: skip

    def _stream(self, placed: Placed, stats: StreamStats) -> dict[str, Any]:
        latency, spec = stats.latency, placed.spec
        total = sum(stats.causes_s.values())
        return {
            "name": spec.name, "model": placed.model, "engine": placed.engine, "placed": placed.auto,
            "runtime": placed.runtime, "priority": spec.priority, "deadline_s": spec.deadline_s,
            "alone_s": placed.service_s, "bound_s": placed.bound_s, "load": placed.load,
            "arrived": stats.arrived, "completed": stats.completed, "missed": stats.late + stats.overdue + _lost(stats, spec),
            "late": stats.late, "overdue": stats.overdue, "dropped": stats.dropped,
            "unfinished": stats.arrived - stats.completed - stats.dropped,
            "saturated": _saturated(stats, placed),
            "latency_s": _quantiles(latency), "first_output_s": _quantiles(stats.first) if stats.first.count else None,
            "passes": stats.passes, "passes_per_s": stats.passes / self.outcome.seconds,
            "energy_j": stats.energy_j, "time_s": dict(stats.causes_s),
            "shares": {k: v / total if total else 0.0 for k, v in stats.causes_s.items()},
        }  # fmt: skip

    def _engine(self, i: int) -> dict[str, Any]:
        e, seconds = self.outcome.engines[i], self.outcome.seconds
        return {
            "name": e.name, "units": e.units, "utilization": e.busy_s / (e.units * seconds), "busy_s": e.busy_s,
            "mean_clock": e.clock_s / e.busy_s if e.busy_s else 1.0, "ops": e.ops,
            "mean_waiting": e.waiting_s / seconds, "most_waiting": e.most_waiting, "energy_j": e.energy_j,
        }  # fmt: skip

    def _memory(self) -> dict[str, Any]:
        o, capacity = self.outcome, self.machine.dram_bytes_per_s
        served = o.dram_bytes + o.user_bytes
        users = [{"name": u.name, "bytes_per_s": u.bytes_per_s} for u in self.scenario.users]
        return {
            "dram_bytes": o.dram_bytes, "user_bytes": o.user_bytes, "mean_bytes_per_s": served / o.seconds,
            "peak_bytes_per_s": o.peak_dram_bytes_per_s, "capacity_bytes_per_s": capacity,
            "utilization": served / o.seconds / capacity if capacity else 0.0, "users": users,
            "models_bytes": sum(p.memory_bytes for p in self.placed),
        }  # fmt: skip

    def _heat(self) -> dict[str, Any] | None:
        o = self.outcome
        if o.most_die_c is None:
            return None
        last = o.series.rows[-1] if o.series.rows else None
        return {
            "most_die_c": o.most_die_c, "most_case_c": o.most_case_c,
            "last_die_c": last[2] if last else o.most_die_c, "last_case_c": last[3] if last else o.most_case_c,
            "throttled_share": o.throttled_s / o.seconds,
        }  # fmt: skip


def _quantiles(found: Any) -> dict[str, float]:
    return {
        "mean": found.mean, "p50": found.quantile(0.5), "p95": found.quantile(0.95), "p99": found.quantile(0.99),
        "max": found.most if found.count else 0.0,
    }  # fmt: skip


def _lost(stats: StreamStats, spec: StreamSpec) -> int:
    return stats.dropped if spec.deadline_s is not None else 0


def _saturated(stats: StreamStats, placed: Placed) -> bool:
    if placed.spec.arrival.kind == "think":
        return False
    unfinished = stats.arrived - stats.completed - stats.dropped
    return stats.dropped > 0 or unfinished >= max(3.0, BACKLOG * stats.arrived)


def simulate(
    scenario: str | Scenario,
    chip: str,
    *,
    seconds: float | None = None,
    seed: int = 0,
    chassis: str | None = None,
    trace: str | Path | None = None,
    trace_ops: bool = False,
    overrides: Sequence[str] = (),
    say: Callable[[float], None] | None = None,
) -> Simulation:
    """Run a scenario (a shipped name, a YAML file or a Scenario) on a chip.

    seconds   simulated time; None takes the scenario's
    chassis   phone, fanless-laptop, fan-laptop, desktop, or none (no limit of power or heat); None takes the scenario's, else the
              one the chip is usually sold in
    trace     file for a Chrome trace; `trace_ops` adds a slice per op
    say       gets the part that is done, now and then

    Raises an OrchardError for what the user must correct.
    """
    found = scenario if isinstance(scenario, Scenario) else load_scenario(scenario)
    length = found.seconds if seconds is None else seconds
    if not (math.isfinite(length) and 1e-6 <= length <= LONGEST_S):
        raise StudyError(f"--seconds {seconds}: expected more than 0, at most {LONGEST_S:,.0f}")
    soc = load_chip(chip, list(overrides))
    housing = _housing(found, chassis, soc)
    machine = machine_of(soc, housing)
    _check_users(found, machine)
    placed = place_streams(found, soc, machine, overrides, chip)
    writer = TraceWriter(trace, ops=trace_ops) if trace is not None else None
    try:
        simulator = Simulator(
            machine, _streams(placed, length), _users(found), seconds=length, seed=seed, trace=writer, say=say
        )
        outcome = simulator.run()
    finally:
        if writer:
            writer.close()
    made = Simulation(
        scenario=found, soc=soc, machine=machine, chassis=housing, seconds=length, seed=seed, placed=placed,
        overrides=tuple(overrides), outcome=outcome, trace=str(trace) if trace is not None else None,
    )  # fmt: skip
    return replace(made, warnings=_warnings(made))


def _housing(scenario: Scenario, asked: str | None, soc: SoC) -> str:
    name = asked or scenario.chassis or usual_housing(soc)
    if name != "none":
        load_housing(name)
    return name


def chassis_names() -> tuple[str, ...]:
    return (*housing_names(), "none")


# --- placement


def place_streams(
    scenario: Scenario, soc: SoC, machine: Machine, overrides: Sequence[str], chip: str
) -> tuple[Placed, ...]:
    """Every stream on an engine. Streams that say `auto` are placed last, the most urgent first: each takes the engine on which a
    request, stretched by the load already there (1 / (1 - load)), ends first."""
    loads = {e.name: 0.0 for e in machine.engines}
    rates = _rates(scenario)
    found: dict[str, Placed] = {}
    fixed = [s for s in scenario.streams if s.engine != "auto"]
    free = sorted((s for s in scenario.streams if s.engine == "auto"), key=lambda s: -s.priority)
    for spec in [*fixed, *free]:
        options = [spec.engine] if spec.engine != "auto" else [e.name for e in machine.engines]
        tried = _tried(spec, options, soc, overrides, chip, rates)
        best = min(tried, key=lambda p: p.service_s / max(1e-3, 1.0 - loads.get(p.engine, 0.0) - p.load))
        for used in best.engine.split("+"):
            units = next(e.units for e in machine.engines if e.name == used)
            loads[used] += _load_on(best, used) / units
        found[spec.name] = best
    return tuple(found[s.name] for s in scenario.streams)


def _load_on(placed: Placed, engine: str) -> float:
    """The part of one engine that a stream asks for."""
    stages = [s for w in placed.workloads for s in w.stages if s.engine == engine]
    work = sum(c.repeats * c.program.total_ps for s in stages for c in s.calls) / len(placed.workloads) / PS
    return placed.rate_per_s * work


def _tried(
    spec: StreamSpec, options: Sequence[str], soc: SoC, overrides: Sequence[str], chip: str, rates: Mapping[str, float]
) -> list[Placed]:
    """The stream on each engine that can run it. Raises the first refusal where none can."""
    tried: list[Placed] = []
    refusal: OrchardError | None = None
    for engine in options:
        try:
            tried.append(_on_engine(spec, engine, soc, overrides, chip, rates[spec.name]))
        except OrchardError as error:
            refusal = refusal or error
    if not tried:
        assert refusal is not None
        raise StudyError(f"stream {spec.name}: {refusal}")
    return tried


def _on_engine(spec: StreamSpec, engine: str, soc: SoC, overrides: Sequence[str], chip: str, rate: float) -> Placed:
    if (engine == "gpu" and not soc.has_gpu) or (engine == "ane" and not soc.has_ane):
        raise StudyError(f"{soc.id} has no {engine}")
    if spec.load is not None:
        return loaded(spec, soc, rate)
    if engine == "split":
        return _split(spec, soc, overrides, chip, rate)
    hw = HardwareArrays.of(soc)
    requests = [_request(spec, engine, chip, tuple(overrides), depth) for depth in _depths(spec)]
    plans = [make_plan(r) for r in requests]
    _check_model(spec, plans[0])
    if plans[0].profile.engine != engine_name(engine):
        raise StudyError(f"{plans[0].profile.runtime} does not run on {engine}")
    workloads = tuple(Programs(plan, hw, spec.name).workload() for plan in plans)
    placed = _placed(spec, engine, plans[0].profile.runtime, spec.model, workloads, rate)
    need = memory_of(plans[-1], soc, requests[-1])
    placed = replace(placed, bound_s=_bound(plans[0], hw), memory_bytes=need.total)
    _check_bounds(placed, _units(soc, engine))
    return placed


def _split(spec: StreamSpec, soc: SoC, overrides: Sequence[str], chip: str, rate: float) -> Placed:
    """Each op on the engine that `orchard place` chooses for the least latency of the request alone."""
    hw = HardwareArrays.of(soc)
    requests = [_request(spec, "auto", chip, tuple(overrides), depth) for depth in _depths(spec)]
    found = [answer_placement(r, explain=False) for r in requests]
    workloads = tuple(split_workload(f, hw, spec.name) for f in found)
    used = [e for e in ENGINES if any(s.engine == e for w in workloads for s in w.stages)]
    placed = _placed(spec, "+".join(used), "placed", spec.model, workloads, rate)
    bound = sum(p.bound_s * p.times for p in found[0].phases)
    placed = replace(placed, bound_s=bound, memory_bytes=int(found[-1].memory.total))
    _check_bounds(placed, len(used))
    return placed


def _placed(
    spec: StreamSpec, engine: str, runtime: str, model: str, workloads: tuple[Workload, ...], rate: float
) -> Placed:
    alone = sum(w.total_ps for w in workloads) / len(workloads) / PS
    work = [c.repeats * c.program.total_ps for w in workloads for s in w.stages for c in s.calls]
    on_engine = sum(work) / len(workloads) / PS
    think = spec.arrival.think_s
    rate = 1.0 / (alone + think) if spec.arrival.kind == "think" else rate
    return Placed(
        spec=spec, engine=engine, runtime=runtime, model=model, workloads=workloads, service_s=alone, bound_s=0.0,
        load=rate * on_engine, rate_per_s=rate, memory_bytes=0, auto=spec.engine == "auto",
    )  # fmt: skip


def loaded(spec: StreamSpec, soc: SoC, rate: float) -> Placed:
    """A sized piece of work as a program of equal ops. Watts are what it draws above idle, its engine's own included."""
    load = spec.load
    assert load is not None
    machine = machine_of(soc, None)
    engine = next(e for e in machine.engines if e.name == load.engine)
    each, moved = load.seconds / load.ops, load.bytes / load.ops
    if machine.dram_bytes_per_s and moved / each > machine.dram_bytes_per_s:
        raise StudyError(
            f"its load moves {moved / each / 1e9:.4g} GB/s, the DRAM of {soc.id} gives {machine.dram_bytes_per_s / 1e9:.4g} GB/s"
        )
    standing = engine.active_w + engine.host_w + moved / each * machine.dram_j_per_byte
    watts = standing if load.watts is None else load.watts
    if watts < standing:
        raise StudyError(
            f"its load draws {watts:g} W, but {load.engine} and its traffic take {standing:.3g} W at work on {soc.id}"
        )
    n = load.ops
    program = make_program(
        spec.name, compute_s=[each] * n, memory_s=[0.0] * n, dispatch_s=[0.0] * n, dram_bytes=[moved] * n,
        port_bytes=[moved] * n, joules=[(watts - standing) * each] * n,
    )  # fmt: skip
    work = Workload((Stage(load.engine, (Call(program),)),))
    placed = _placed(spec, load.engine, "load", "load", (work,), rate)
    placed = replace(placed, bound_s=load.seconds)
    _check_bounds(placed, engine.units)
    return placed


def _request(spec: StreamSpec, engine: str, chip: str, overrides: tuple[str, ...], depth: int) -> Request:
    sized = spec.prompt or spec.generate
    return Request(
        model=spec.model, chip=chip, runtime=spec.runtime, engine=engine, weights=spec.weights,
        activations=spec.activations, kv=spec.kv, batch=spec.batch, prompt=spec.prompt if sized else 128,
        generate=spec.generate, depth=depth, threads=spec.threads, inputs=spec.inputs, steps=spec.steps,
        overrides=overrides,
    )  # fmt: skip


def _depths(spec: StreamSpec) -> list[int]:
    """Tokens cached before each turn; one turn that repeats unless the conversation grows."""
    turn = spec.prompt + spec.generate
    if not spec.grow or turn == 0:
        return [spec.depth]
    turns = min(MOST_TURNS, max(1, (spec.context - spec.depth) // turn))
    return [spec.depth + i * turn for i in range(turns)]


def _check_model(spec: StreamSpec, plan: Plan) -> None:
    if plan.model.family == "decoder" and not (spec.prompt or spec.generate):
        raise StudyError(f"{plan.model.name} is a language model: state prompt and generate (tokens)")


def _bound(plan: Plan, hw: HardwareArrays) -> float:
    """Seconds below which no request of the plan can be."""
    cache = float(hw.get("slc.size", 0.0) or 0.0)
    total = 0.0
    for name, calls in plan.phases.items():
        steps = plan.tokens[name] if name == "decode" else plan.runs.get(name, 1.0)
        total += steps * float(phase_bound(plan.table_of(name), calls, hw, plan.profile.engine, cache))
    return total


def _units(soc: SoC, engine: str) -> int:
    return int(soc["ane.engines"]) if engine == "ane" else 1


def _check_bounds(placed: Placed, units: int) -> None:
    """What no machine of this kind can keep is refused; what this runtime cannot keep is an answer."""
    spec = placed.spec
    if spec.deadline_s is not None and spec.deadline_s < placed.bound_s:
        raise StudyError(
            f"deadline {format_seconds(spec.deadline_s)} is shorter than the physical bound of "
            f"{format_seconds(placed.bound_s)} on {placed.engine}; no runtime can keep it"
        )
    asked = placed.rate_per_s * placed.bound_s / units
    if spec.arrival.kind != "think" and asked > 1.0:
        raise StudyError(
            f"{placed.rate_per_s:.4g} requests a second take {asked:.3g} times what {placed.engine} can do at its physical "
            f"bound of {format_seconds(placed.bound_s)} each; lower the rate"
        )


def _rates(scenario: Scenario) -> dict[str, float]:
    """Requests a second of every stream in the long run (closed loops: filled in later, 0 here), cascades included."""
    own = {s.name: _own_rate(s.arrival, scenario.seconds) for s in scenario.streams}
    specs = {s.name: s for s in scenario.streams}

    def rate(name: str) -> float:
        cascade = specs[name].cascade
        return own[name] if cascade is None else rate(cascade.after) * cascade.probability * cascade.count

    return {name: rate(name) for name in specs}


def _own_rate(arrival: Arrival, seconds: float) -> float:
    if arrival.kind == "every":
        return 1.0 / arrival.every_s
    if arrival.kind == "times":
        inside = [t for t in arrival.times_s if t <= seconds]
        return len(inside) / seconds
    return arrival.per_s


# --- the simulator's terms


def _streams(placed: Sequence[Placed], seconds: float) -> list[Stream]:
    index = {p.spec.name: i for i, p in enumerate(placed)}
    then: dict[str, list[Successor]] = {p.spec.name: [] for p in placed}
    for p in placed:
        if p.spec.cascade:
            c = p.spec.cascade
            then[c.after].append(Successor(index[p.spec.name], c.probability, c.count))
    del seconds
    return [
        Stream(
            name=p.spec.name, workloads=p.workloads, arrivals=_arrivals(p.spec.arrival), priority=p.spec.priority,
            deadline_ps=None if p.spec.deadline_s is None else round(p.spec.deadline_s * PS), limit=p.spec.limit,
            then=tuple(then[p.spec.name]),
        )
        for p in placed
    ]  # fmt: skip


def _arrivals(a: Arrival) -> Arrivals:
    if a.kind == "every":
        return Periodic(round(a.every_s * PS), round(a.offset_s * PS), round(a.jitter_s * PS))
    if a.kind == "poisson":
        return Poisson(a.per_s)
    if a.kind == "times":
        return Times(tuple(round(t * PS) for t in a.times_s))
    return Closed(round(a.think_s * PS), round(a.offset_s * PS)) if a.kind == "think" else Triggered()


def _users(scenario: Scenario) -> list[MemoryUser]:
    return [
        MemoryUser(
            name=u.name, bytes_per_s=u.bytes_per_s, from_ps=round(u.from_s * PS),
            to_ps=None if u.to_s is None else round(u.to_s * PS),
        )
        for u in scenario.users
    ]  # fmt: skip


def _check_users(scenario: Scenario, machine: Machine) -> None:
    """Memory users are served first, so they must leave something. The simulator checks the same with their times."""
    capacity = machine.dram_bytes_per_s
    for user in scenario.users:
        if capacity is not None and user.bytes_per_s >= capacity:
            raise StudyError(
                f"memory user {user.name}: {user.bytes_per_s / 1e9:.4g} GB/s is more than the DRAM gives "
                f"({capacity / 1e9:.4g} GB/s)"
            )


def _warnings(made: Simulation) -> tuple[str, ...]:
    found = []
    for stream, placed in zip(made.outcome.streams, made.placed):
        if _saturated(stream, placed):
            found.append(
                f"saturated: {stream.name} asks for {placed.load:.2f} of {placed.engine}; "
                f"{stream.dropped:,} of {stream.arrived:,} requests dropped, "
                f"{stream.arrived - stream.completed - stream.dropped:,} unfinished"
            )
    need, limit = sum(p.memory_bytes for p in made.placed), made.soc["dram.capacity"]
    if need > limit:
        found.append(
            f"does not fit: the models need {format_bytes(need)} together, {made.soc.id} has {format_bytes(limit)}; "
            f"times assume they did"
        )
    return tuple(found)


# --- one request, for `orchard predict --fidelity simulation`


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseRun:
    """One phase of one request on an idle machine without limits of power or heat. Decode: all its steps."""

    seconds: float
    energy_j: float
    dram_bytes: float
    causes_s: Mapping[str, float] = field(default_factory=dict)


def simulate_phases(plan: Plan, soc: SoC, hw: HardwareArrays) -> dict[str, PhaseRun]:
    """Every phase of a plan through the simulator, one after the other."""
    machine = machine_of(soc, None)
    programs = Programs(plan, hw, plan.model.name)
    found = {}
    for phase in plan.phases:
        work = Workload((Stage(plan.profile.engine, tuple(programs.calls(phase))),))
        stream = Stream(name=phase, workloads=(work,), arrivals=Times((0,)))
        outcome = Simulator(replace(machine, idle_w=0.0), [stream], seconds=None).run()
        stats = outcome.streams[0]
        found[phase] = PhaseRun(
            seconds=outcome.seconds, energy_j=stats.energy_j, dram_bytes=outcome.dram_bytes,
            causes_s=dict(stats.causes_s),
        )  # fmt: skip
    return found


__all__ = [
    "ENGINES",
    "PhaseRun",
    "Placed",
    "Simulation",
    "chassis_names",
    "place_streams",
    "simulate",
    "simulate_phases",
]
