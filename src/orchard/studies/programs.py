"""From a plan (kernels, calls, a runtime profile) to what the simulator runs: programs of ops, and a machine from a chip."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from orchard.cost.energy import HOST_W, active_watts, energy_terms
from orchard.cost.evaluate import Call as CostCall
from orchard.cost.evaluate import call_seconds, engine_model
from orchard.cost.lower import KernelArrays
from orchard.cost.profile import Profile
from orchard.cost.traffic import kernel_traffic
from orchard.hw import HardwareArrays, SoC
from orchard.hw.chassis import DRAM_SHARE, PORT_RATIO, Housing, load_housing, operating_points
from orchard.sim.heat import Chassis, Node
from orchard.sim.machine import EngineSpec, Machine, OperatingPoint
from orchard.sim.program import PS, Call, Program, Stage, Workload, make_program
from orchard.studies.predict import Plan, stored_in_low_bits

if TYPE_CHECKING:
    from orchard.studies.place import Placement
    from orchard.studies.placed import PlacedPhase

ENGINES = ("gpu", "ane", "cpu")
IDLE_W = 0.3
"""Package power of an idle machine where the chip file has none: 0.2 W on M1 Max [anandtech-m1max], 0.3 on an A18 Pro as the
sum of its rails [macmon-57]."""


def machine_of(soc: SoC, chassis: str | None) -> Machine:
    """The simulator's view of a chip in a housing. `chassis` None or `none`: no limit of power or heat."""
    housing = None if chassis in (None, "none") else load_housing(str(chassis))
    hw = HardwareArrays.of(soc)
    names = [n for n, there in (("gpu", soc.has_gpu), ("ane", soc.has_ane), ("cpu", True)) if there]
    dram = soc["dram.bandwidth"]
    idle = soc.get("power.package_idle")
    return Machine(
        name=f"{soc.name} ({chassis or 'no limits'})",
        engines=tuple(_engine(soc, hw, n) for n in names),
        dram_bytes_per_s=DRAM_SHARE * dram, port_bytes_per_s=PORT_RATIO * dram,
        dram_j_per_byte=soc.get("dram.energy") or 0.0, idle_w=IDLE_W if idle is None else idle,
        chassis=None if housing is None else chassis_of(housing),
        limit_w=None if housing is None else soc.get("power.package_max"),
    )  # fmt: skip


def _engine(soc: SoC, hw: HardwareArrays, name: str) -> EngineSpec:
    host = 0.0 if name == "cpu" else HOST_W
    return EngineSpec(
        name=name, units=int(soc["ane.engines"]) if name == "ane" else 1,
        active_w=float(active_watts(name, hw)) - host, host_w=host,
        points=tuple(OperatingPoint(clock, volts) for clock, volts in operating_points(soc, name)),
    )  # fmt: skip


def chassis_of(housing: Housing) -> Chassis:
    def node(part: object) -> Node:
        from orchard.hw.chassis import ThermalNode

        assert isinstance(part, ThermalNode)
        return Node(
            kelvin_per_w=part.resistance, joule_per_kelvin=part.capacity, cut_from_c=part.cut_from,
            cut_to_c=part.cut_to,
        )  # fmt: skip

    return Chassis(
        name=housing.name, die=node(housing.die), case=node(housing.case), burst_w=housing.burst_w,
        case_w=housing.case_w,
    )  # fmt: skip


class Programs:
    """Programs of a plan on a machine; equal calls share one."""

    def __init__(self, plan: Plan, hw: HardwareArrays, name: str) -> None:
        self.plan, self.hw, self.name = plan, hw, name
        self._made: dict[tuple[str, tuple[tuple[str, int], ...]], Program] = {}

    def workload(self) -> Workload:
        """One request of the plan: its phases in order, those of a pipeline as often as they run."""
        calls: list[Call] = []
        first = 0
        for phase in self.plan.phases:
            made = self.calls(phase) * round(self.plan.runs.get(phase, 1.0))
            calls += made
            if phase in ("prefill", "inference") and "decode" in self.plan.phases:
                first += sum(c.repeats for c in made)
        return Workload(stages=(Stage(self.plan.profile.engine, tuple(calls)),), first_calls=first)

    def calls(self, phase: str) -> list[Call]:
        """Calls of a phase in order. A decode phase samples its growing context: each sample stands for its part of the steps."""
        cost = self.plan.phases[phase]
        steps = self.plan.tokens[phase] if phase == "decode" else None
        host = self._host_ps()
        repeats = _repeats([c.weight for c in cost], steps)
        return [
            Call(self._program(phase, c.bindings), host, n) for c, n in zip(cost, repeats) if n
        ]  # fmt: skip

    def _host_ps(self) -> int:
        """The part of a call's fixed cost in which the engine is free for others.

        A GPU waits while the CPU submits and reads back. On the Neural Engine a dispatch occupies the engine (`ane.dispatch`,
        read without a framework); what a framework adds to it is host work. On the CPU it is all the engine's own.
        """
        return round((self._call_s() - self._on_engine_s()) * PS)

    def _call_s(self) -> float:
        return float(call_seconds(self.hw, self.plan.profile.values()))

    def _on_engine_s(self) -> float:
        engine = self.plan.profile.engine
        if engine == "gpu":
            return 0.0
        return min(self._call_s(), float(self.hw["ane.dispatch"])) if engine == "ane" else self._call_s()

    def _program(self, phase: str, bindings: Mapping[str, int]) -> Program:
        key = (phase, tuple(sorted(bindings.items())))
        if key not in self._made:
            counts = self.plan.table_of(phase).evaluate(bindings)
            low_bits = bool(self.plan.profile.rules.get("int8_products")) and stored_in_low_bits(self.plan.table)
            self._made[key] = program_of(
                f"{self.name} {phase}",
                counts,
                self.hw,
                self.plan.profile,
                low_bits=low_bits,
                start_s=self._on_engine_s(),
            )
        return self._made[key]


def program_of(
    name: str,
    counts: KernelArrays,
    hw: HardwareArrays,
    profile: Profile,
    *,
    low_bits: bool = False,
    start_s: float = 0.0,
) -> Program:
    """One forward pass as ops in order, priced as the estimate prices it. `start_s`: dispatch of the whole pass on the engine.

    Bytes of DRAM are what the op's time leaves room for at the rate all engines share: where the estimate moves bytes faster,
    a cache must have served the rest.
    """
    terms = engine_model(profile)(counts, hw, profile.values(), profile.rules)
    engine, order = profile.engine, execution_order(counts.count.astype(np.int64))
    each = np.maximum(counts.count, 1.0)
    traffic = kernel_traffic(counts, hw, engine)
    ops = 2.0 * counts.macs + counts.vector_ops
    joules = energy_terms(engine, ops=ops, dram_bytes=0.0, seconds=0.0, hw=hw, low_bits=low_bits)["compute"]
    compute, memory, dispatch = (np.asarray(x / each)[order] for x in (terms.compute, terms.memory, terms.dispatch))
    # whole picoseconds make an op at most 1 ps shorter than its seconds
    seconds = np.maximum(compute + memory + dispatch - 1.0 / PS, 0.0)
    peak = float(hw["dram.bandwidth"])
    port = np.minimum(traffic.port[order], PORT_RATIO * peak * seconds)
    dram = np.minimum(np.minimum(traffic.dram[order], DRAM_SHARE * peak * seconds), port)
    labels = [counts.kernels[i].name or counts.kernels[i].kind for i in order]
    rows = [compute, memory, dispatch, dram, port, np.asarray(joules)[order], traffic.total[order]]
    if start_s:
        rows = [np.concatenate([[start_s if i == 2 else 0.0], row]) for i, row in enumerate(rows)]
        labels = ["dispatch", *labels]
    return make_program(
        name, compute_s=rows[0], memory_s=rows[1], dispatch_s=rows[2], dram_bytes=rows[3], port_bytes=rows[4],
        joules=rows[5], energy_bytes=rows[6], labels=labels,
    )  # fmt: skip


def execution_order(count: NDArray[np.int64]) -> NDArray[np.intp]:
    """Row of each launch in order, for rows that stand for `count` equal kernels.

    Lowering merges equal kernels of all layers, so the order is rebuilt: rows before the first that repeats run first, rows
    after the last of them run last, and copies of the rest are spread evenly over the layers between.
    """
    most = int(count.max(initial=1))
    frequent = np.flatnonzero(count > 1) if most > 1 else np.arange(count.size)
    first, last = int(frequent[0]), int(frequent[-1])
    rows = np.repeat(np.arange(count.size), count)
    copy = np.concatenate([np.arange(n) for n in count]) if count.size else np.zeros(0)
    place = (copy + 0.5) / np.maximum(count[rows], 1)
    if most > 1:
        place = np.where(rows < first, -1.0, np.where(rows > last, 2.0, place))
    return np.asarray(rows[np.lexsort((copy, rows, np.round(place * most) / most if most > 1 else rows))])


def _repeats(weights: Sequence[float], total: int | None) -> list[int]:
    """Whole repeats in proportion to weights, by rounding the running sum. `total`: repeats of all; None: the weights."""
    scale = 1.0 if total is None else total / sum(weights)
    ends = np.rint(np.cumsum(np.asarray(weights) * scale)).astype(int).tolist()
    return [b - a for a, b in zip([0, *ends], ends)]


def split_workload(found: Placement, hw: HardwareArrays, name: str) -> Workload:
    """A request whose ops run where `orchard place` put them: a stage per run of launches on one engine. A hand-over is an op
    of the engine that receives (caches: before the phase that reads them); what runtimes add per pass is submitted before its
    first stage. Passes of a decode phase are equal."""
    stages: list[Stage] = []
    first = 0
    for phase in found.phases:
        passes = max(1, round(phase.times))
        once = _split_stages(phase, hw, f"{name} {phase.name}")
        if phase.name == "decode" and (moved := sum(c.seconds for c in found.caches)) > 0:
            stages.append(Stage(once[0].engine, (Call(_waiting(f"{name} caches", moved)),)))
        if len(once) == 1:  # one engine: passes are repeats of one call
            (call,) = once[0].calls
            once = [Stage(once[0].engine, (Call(call.program, call.host_ps, passes),))]
            stages += once
        else:
            stages += once * passes
        if phase.name == "prefill":
            first = sum(c.repeats for s in stages for c in s.calls)
    return Workload(stages=tuple(stages), first_calls=first)


def _waiting(name: str, seconds: float) -> Program:
    """One op that occupies an engine and moves nothing that is counted."""
    return make_program(
        name, compute_s=[0.0], memory_s=[0.0], dispatch_s=[seconds], dram_bytes=[0.0], port_bytes=[0.0], joules=[0.0]
    )


def _split_stages(phase: PlacedPhase, hw: HardwareArrays, name: str) -> list[Stage]:
    """Stages of one pass. Steps hold the seconds of all calls of a phase; they are scaled to one pass of it."""
    total = sum(s.seconds for s in phase.steps)
    scale = sum(phase.engine_s.values()) / total if total else 1.0
    peak = DRAM_SHARE * float(hw["dram.bandwidth"])
    stages = []
    at = 0
    host = round(phase.call_s * PS)
    for run in phase.runs:
        steps = phase.steps[at : at + run.launches]
        at += run.launches
        if not steps:
            continue
        rows = [
            [getattr(s, field) * scale for s in steps] for field in ("compute_s", "memory_s", "dispatch_s", "joules")
        ]
        moved = [s.dram_bytes * scale for s in steps]
        arithmetic = [
            max(0.0, j - b * float(hw["dram.energy"]) - s.seconds * scale * float(active_watts(s.engine, hw)))
            for j, b, s in zip(rows[3], moved, steps)
        ]
        served = [min(b, peak * s.seconds * scale) for b, s in zip(moved, steps)]
        labels = [phase.plan.groups[s.group].ops[0] for s in steps]
        into = [run.handover_s] if run.handover_s > 0 else []
        zero = [0.0] * len(into)
        program = make_program(
            name, compute_s=zero + rows[0], memory_s=zero + rows[1], dispatch_s=into + rows[2], dram_bytes=zero + served,
            port_bytes=zero + served, joules=zero + arithmetic, energy_bytes=zero + moved,
            labels=["hand-over"] * len(into) + labels,
        )  # fmt: skip
        stages.append(Stage(run.engine, (Call(program, host),)))
        host = 0
    return stages


def whole_calls(calls: Sequence[CostCall]) -> float:
    """Forward passes of a phase."""
    return sum(c.weight for c in calls)
