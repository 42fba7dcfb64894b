"""What designs are worth: points of the unit cube in, columns of metrics out. Pure, so any worker gives the same numbers.

A workload only sees the knobs its engine reads, so designs that agree in those are evaluated once and the answer is spread over
them: exact, and in a grid most of the saving.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from orchard.cost.bound import all_ops, dram_bytes, phase_bound
from orchard.cost.energy import energy_terms
from orchard.cost.errors import CostError
from orchard.cost.evaluate import Call, phase_time
from orchard.cost.lower import KernelTable
from orchard.cost.silicon import PRICED, carbon_g, die_area, energy_factor, price
from orchard.hw import FIGURES, HardwareArrays, HardwareError, SoC
from orchard.studies.errors import StudyError
from orchard.studies.explore.mapped import MappedTimes
from orchard.studies.explore.quality import METRIC as QUALITY
from orchard.studies.explore.quality import quality_loss
from orchard.studies.explore.space import Floats
from orchard.studies.explore.study import Study, Workload
from orchard.studies.predict import Plan, make_plan, memory_of, stored_in_low_bits
from orchard.studies.request import Request
from orchard.units import OrchardError, format_bytes

Columns = dict[str, Floats]
_CHUNK = 4096
"""Designs evaluated at once: their intermediate arrays stay in a core's cache."""
_CLOCK_DOMAIN = {"gpu": "gpu", "ane": "ane", "cpu": "cpu.p"}
_SHARE_OF_RAM = 0.85  # what one process may use away from the GPU, as in studies.memory


@dataclass(frozen=True)
class _Option:
    """One combination of a workload's option knobs, planned: nothing in it depends on hardware numbers."""

    chosen: Mapping[str, Any]
    request: Request
    plan: Plan
    memory_bytes: float
    reads: frozenset[str]
    counts: Mapping[str, tuple[float, float]]  # phase: (ops, DRAM bytes) of one run of the phase
    mapped: MappedTimes | None = None
    quality_loss: float | None = None

    def seconds(self, phase: str, hw: Any) -> Floats:
        """One run of a phase (for decode one step) on variants of the chip, at the study's fidelity."""
        plan = self.plan
        if self.mapped is None:
            return _phase_totals(plan, phase, plan.phases[phase], hw)
        seconds = self.mapped.seconds(phase, hw, _floor(plan, phase, hw)).total
        return seconds if hw.shape else seconds[0]

    def terms(self, phase: str, hw: HardwareArrays) -> dict[str, float]:
        """Seconds by cause on one chip."""
        plan = self.plan
        if self.mapped is None:
            time: Any = phase_time(plan.table_of(phase), plan.phases[phase], hw, plan.profile, plan.profile.values())
        else:
            time = self.mapped.seconds(phase, hw, _floor(plan, phase, hw))
        parts = {"compute": time.compute, "memory": time.memory, "dispatch": time.dispatch}
        return {cause: float(np.ravel(value)[0]) for cause, value in parts.items()}


@dataclass(frozen=True)
class Evaluator:
    """Callable on points [designs, knobs]; gives every metric as a column [designs]. Metrics a chip cannot have are absent."""

    study: Study

    def __call__(self, points: Floats) -> Columns:
        pieces = [self._chunk(points[i : i + _CHUNK]) for i in range(0, len(points), _CHUNK)]
        return {name: np.concatenate([p[name] for p in pieces]) for name in pieces[0]} if pieces else {}

    @cached_property
    def soc(self) -> SoC:
        return self.study.soc

    @cached_property
    def figures(self) -> tuple[str, ...]:
        """Knobs that are figures of the chip."""
        return tuple(k.name for k in self.study.space.knobs if k.name in FIGURES)

    @cached_property
    def options(self) -> dict[str, tuple[_Option, ...]]:
        """Every option of every workload, planned. Raises StudyError naming the line of a workload that cannot be."""
        return {w.name: tuple(self._planned(w)) for w in self.study.workloads}

    @cached_property
    def base(self) -> dict[str, float]:
        """Latency of each workload on the unchanged chip, with its first option."""
        hw = HardwareArrays.of(self.soc)
        return {name: float(self._times(options[0], hw)["latency_s"]) for name, options in self.options.items()}

    @cached_property
    def prices(self) -> bool:
        """Whether area and price of this chip can be composed."""
        try:
            die_area(HardwareArrays.of(self.soc))
        except (CostError, HardwareError):
            return False
        return True

    def unpriced(self) -> list[str]:
        """Figures among the knobs that take area in silicon but not in the model."""
        free = ("clock", "bandwidth", "transfer_rate", "capacity", "capacity_max", "dispatch")
        return [f for f in self.figures if f not in PRICED and f.rpartition(".")[2] not in free]

    def _planned(self, workload: Workload) -> Iterator[_Option]:
        combinations = self.study.requests_of(workload)
        if len(combinations) > 256:
            raise StudyError(
                f"{self.study.file}:{workload.line}: workload {workload.name} has {len(combinations):,} combinations of options, "
                "expected at most 256"
            )
        for chosen, request in combinations:
            try:
                plan = make_plan(request)
                need = memory_of(plan, self.soc, request).total
                mapped = self._mapped(plan)
                reads = self._reads(plan) | frozenset(mapped.figures if mapped is not None else ())
                asked = "decode" in plan.phases and self._asks_quality
                loss = quality_loss(plan.weights) if asked else None
                yield _Option(chosen, request, plan, float(need), reads, _counts(plan), mapped, loss)
            except OrchardError as error:
                raise StudyError(f"{self.study.file}:{workload.line}: workload {workload.name}: {error}") from None

    @property
    def _asks_quality(self) -> bool:
        names = [*(o.metric for o in self.study.objectives), *(c.metric for c in self.study.constraints)]
        return any(name.rpartition(".")[2] == QUALITY for name in names)

    def _mapped(self, plan: Plan) -> MappedTimes | None:
        if self.study.fidelity != "mapped":
            return None
        knobs = [k for k in self.study.space.knobs if k.name in FIGURES]
        return MappedTimes(plan, self.study.chip, self.study.overrides, knobs)

    def prepare(self, workers: int) -> None:
        """Work that every batch needs, done once on several processes: the portfolios of a mapped study, into the cache."""
        for options in self.options.values():
            for option in options:
                if option.mapped is not None:
                    option.mapped.prepare(workers)

    def _reads(self, plan: Plan) -> frozenset[str]:
        """Figure knobs that the time or energy of this plan depends on, found by varying each alone through the rules."""
        recorder = _Recorder(HardwareArrays.of(self.soc))
        for name, calls in plan.phases.items():
            _phase_totals(plan, name, calls, recorder)
            energy_terms(plan.profile.engine, ops=1.0, dram_bytes=1.0, seconds=1.0, hw=recorder)
        start = recorder.inner.values
        found = set()
        for figure in self.figures:
            moved = HardwareArrays.of(self.soc, {figure: self._another(figure)}).values
            if any(not np.array_equal(moved[path], start[path]) for path in recorder.seen if path in moved and path in start):
                found.add(figure)
        found |= {f"{_CLOCK_DOMAIN[plan.profile.engine]}.clock"} & set(self.figures)  # its voltage is part of the energy
        return frozenset(found)

    def _another(self, figure: str) -> float:
        knob = next(k for k in self.study.space.knobs if k.name == figure)
        own = self.soc.get(figure)
        return float(knob.most if knob.most != own else knob.least if knob.least != own else knob.most * 1.01 + 1e-9)

    def _chunk(self, points: Floats) -> Columns:
        values = self.study.space.decode(points)
        hw = HardwareArrays.of(self.soc, {f: values[f] for f in self.figures})
        columns: Columns = {}
        for workload in self.study.workloads:
            columns |= self._workload(workload, points, values, hw)
        columns |= self._silicon(hw, len(points))
        return columns | self._basket(columns)

    def _workload(
        self, workload: Workload, points: Floats, values: Mapping[str, NDArray[Any]], hw: HardwareArrays
    ) -> Columns:
        found: Columns = {}
        for option in self.options[workload.name]:
            mask = np.ones(len(points), dtype=bool)
            for name, value in option.chosen.items():
                mask &= values[name] == value
            rows = np.flatnonzero(mask)
            if not len(rows):
                continue
            for leaf, column in self._option(option, points[rows], values, rows, hw).items():
                into = found.setdefault(f"{workload.name}.{leaf}", np.full(len(points), np.nan))
                into[rows] = column
        return found

    def _option(
        self, option: _Option, points: Floats, values: Mapping[str, NDArray[Any]], rows: NDArray[np.int64],
        hw: HardwareArrays,
    ) -> Columns:  # fmt: skip
        """Metrics of one option for some rows; evaluated once per distinct setting of what its engine reads."""
        reads = [f for f in self.figures if f in option.reads]
        codes = self.study.space.codes(points, reads)
        if codes is None:
            first, spread = np.arange(len(rows)), np.arange(len(rows))
        else:
            _, first, spread = np.unique(codes, return_index=True, return_inverse=True)
        part = HardwareArrays.of(self.soc, {f: values[f][rows[first]] for f in reads})
        times = {leaf: np.broadcast_to(v, part.shape or (1,))[spread] for leaf, v in self._times(option, part).items()}
        limit = _limit(hw, option.plan.profile.engine)
        limit = np.broadcast_to(limit, (len(points) if not hw.shape else hw.shape[0],))
        limit = limit[rows] if hw.shape else limit
        memory = np.full(len(rows), option.memory_bytes)
        if option.quality_loss is not None:
            times[QUALITY] = np.full(len(rows), option.quality_loss)
        return {**times, "memory_bytes": memory, "fits": (memory <= limit).astype(float)}

    def _times(self, option: _Option, hw: HardwareArrays) -> Columns:
        """Times and energies of one option on every variant of `hw`."""
        plan, request = option.plan, option.request
        found: Columns = {}
        latency: Any = 0.0
        energy: Any = 0.0
        for name in plan.phases:
            seconds = option.seconds(name, hw)
            repeats = request.generate if name == "decode" else 1
            ops, moved = option.counts[name]
            joules = self._energy(plan, ops, moved, seconds, hw)
            found[f"{name}_s"] = seconds
            latency, energy = latency + repeats * seconds, energy + repeats * joules
            if name == "decode":
                found["tokens_per_s"] = request.batch / seconds
        return {**found, "latency_s": latency, "energy_j": energy, "edp": latency * energy, "power_w": energy / latency}

    def _energy(self, plan: Plan, ops: float, moved: float, seconds: Any, hw: HardwareArrays) -> Any:
        """Joules of one run of a phase. A clock other than the chip's changes the voltage, and with it the energy per op;
        power that flows while the engine waits is left as it is."""
        engine = plan.profile.engine
        low = bool(plan.profile.rules.get("int8_products")) and stored_in_low_bits(plan.table)
        terms = energy_terms(engine, ops=ops, dram_bytes=moved, seconds=seconds, hw=hw, low_bits=low)
        domain = _CLOCK_DOMAIN[engine]
        factor = energy_factor(hw, domain) if self.prices and f"{domain}.clock" in hw.soc else 1.0
        return terms["compute"] * factor + terms["dram"] + terms["active"]

    def _silicon(self, hw: HardwareArrays, designs: int) -> Columns:
        if not self.prices:
            return {}
        area = die_area(hw)
        memory = hw["dram.capacity"]
        cost = price(area, dies=hw["package.dies"], memory_bytes=memory)
        found = {
            "area_mm2": area.total_mm2, "die_usd": cost.die_usd, "price_usd": cost.total_usd,
            "carbon_g": carbon_g(area, dies=hw["package.dies"], memory_bytes=memory),
        }  # fmt: skip
        return {name: np.array(np.broadcast_to(value, (designs,)), dtype=np.float64) for name, value in found.items()}

    def _basket(self, columns: Columns) -> Columns:
        workloads = self.study.workloads
        found: Columns = {
            leaf: sum((w.weight * columns[f"{w.name}.{leaf}"] for w in workloads), np.zeros(1))
            for leaf in ("latency_s", "energy_j", "edp")
        }
        power = [columns[f"{w.name}.power_w"] for w in workloads]
        share = sum(w.weight for w in workloads)
        logs = [w.weight / share * np.log(self.base[w.name] / columns[f"{w.name}.latency_s"]) for w in workloads]
        found["power_w"] = np.max(power, axis=0)
        losses = [columns[name] for w in workloads if (name := f"{w.name}.{QUALITY}") in columns]
        if losses:
            found[QUALITY] = np.max(losses, axis=0)
        found["speedup"] = np.exp(np.sum(logs, axis=0))
        for name, column in (("mm2", "area_mm2"), ("usd", "price_usd")):
            if column in columns:
                found[f"speedup_per_{name}"] = found["speedup"] / columns[column]
        found["speedup_per_w"] = found["speedup"] / found["power_w"]
        return found

    def latency(self, workload: str, hw: HardwareArrays) -> Floats:
        """Seconds of one request of a workload (its first option) on variants of the chip."""
        return self._times(self.options[workload][0], hw)["latency_s"]

    def energy(self, workload: str, hw: HardwareArrays) -> Floats:
        """Joules of one request of a workload (its first option) on variants of the chip."""
        return self._times(self.options[workload][0], hw)["energy_j"]

    def seconds_by_term(self, workload: str, hw: HardwareArrays) -> dict[str, dict[str, float]]:
        """Seconds of each "workload.phase" by cause, on one chip. They sum to the estimate before the bound is applied."""
        option = self.options[workload][0]
        return {f"{workload}.{name}": option.terms(name, hw) for name in option.plan.phases}

    def shares(self, point: Floats) -> dict[str, dict[str, float]]:
        """For one design: per workload and phase "chat.decode", the share of time each cause takes (sum 1)."""
        values = self.study.space.decode(point[None])
        found: dict[str, dict[str, float]] = {}
        hw = HardwareArrays.of(self.soc, {f: values[f] for f in self.figures})
        for workload in self.study.workloads:
            for option in self.options[workload.name]:
                if all(values[name][0] == value for name, value in option.chosen.items()):
                    for phase in option.plan.phases:
                        parts = option.terms(phase, hw)
                        found[f"{workload.name}.{phase}"] = {c: v / sum(parts.values()) for c, v in parts.items()}
        return found


class _Recorder:
    """Hardware that remembers which figures were read."""

    def __init__(self, inner: HardwareArrays) -> None:
        self.inner = inner
        self.seen: set[str] = set()

    def __getitem__(self, path: str) -> Any:
        self.seen.add(path)
        return self.inner[path]

    def __contains__(self, path: str) -> bool:
        self.seen.add(path)
        return path in self.inner

    def get(self, path: str, default: Any = None) -> Any:
        self.seen.add(path)
        return self.inner.get(path, default)


def _phase_totals(plan: Plan, name: str, calls: tuple[Call, ...], hw: Any) -> Floats:
    """Seconds of one run of a phase (for decode one step), never below the physical bound, as `predict` has it."""
    table: KernelTable = plan.table_of(name)
    time = phase_time(table, calls, hw, plan.profile, plan.profile.values())
    return np.maximum(time.total, _floor(plan, name, hw))


def _floor(plan: Plan, name: str, hw: Any) -> Floats:
    """The physical bound of a phase in seconds."""
    return phase_bound(plan.table_of(name), plan.phases[name], hw, plan.profile.engine, hw.get("slc.size", 0.0))


def _counts(plan: Plan) -> dict[str, tuple[float, float]]:
    found = {}
    for name, calls in plan.phases.items():
        evaluated = [(call.weight, plan.table_of(name).evaluate(call.bindings)) for call in calls]
        found[name] = (sum(w * all_ops(c) for w, c in evaluated), sum(w * dram_bytes(c) for w, c in evaluated))
    return found


def _limit(hw: HardwareArrays, engine: str) -> Any:
    return hw["dram.gpu_limit"] if engine == "gpu" else hw["dram.capacity"] * _SHARE_OF_RAM


def refuse_hopeless(study: Study, evaluator: Evaluator) -> None:
    """Refuses what no design can do, before any work: a workload that never fits, an area that cannot be reached, metrics
    this chip cannot have. Raises StudyError with the offending line."""
    _refuse_unknown_metrics(study, evaluator)
    top = np.array([[np.nextafter(1.0, 0.0)] * len(study.space.knobs)])
    most = study.space.decode(top) | {k.name: np.array([k.most]) for k in study.space.knobs if k.name in evaluator.figures}
    roomy = HardwareArrays.of(evaluator.soc, {f: most[f] for f in evaluator.figures})
    for workload in study.workloads:
        options = evaluator.options[workload.name]
        best = min(options, key=lambda o: o.memory_bytes)
        limit = max(float(np.max(_limit(roomy, o.plan.profile.engine))) for o in options)
        if best.memory_bytes > limit:
            raise StudyError(
                f"{study.file}:{workload.line}: workload {workload.name} fits no design: it needs "
                f"{format_bytes(best.memory_bytes)}, the largest memory gives {format_bytes(limit)}; use smaller weights or a "
                "knob dram.capacity"
            )
    for constraint in study.constraints:
        if constraint.is_ceiling and constraint.limit < 0:
            raise StudyError(
                f"{study.file}:{constraint.line}: constraint {constraint.text!r} keeps no design: nothing measured is below 0"
            )
        if constraint.metric == "area_mm2" and constraint.is_ceiling and evaluator.prices:
            least = HardwareArrays.of(
                evaluator.soc, {k.name: float(k.least) for k in study.space.knobs if k.name in evaluator.figures}
            )
            smallest = float(die_area(least).total_mm2)
            if smallest > constraint.limit:
                raise StudyError(
                    f"{study.file}:{constraint.line}: constraint {constraint.text!r} keeps no design: the smallest has "
                    f"{smallest:.1f} mm2"
                )


def _refuse_unknown_metrics(study: Study, evaluator: Evaluator) -> None:
    first = evaluator(np.full((1, len(study.space.knobs)), 0.5 / max(1, max(study.space.levels))))
    line = {c.metric: c.line for c in study.constraints}
    for name in [*line, *(o.metric for o in study.objectives)]:
        if name not in first:
            where = f"{study.file}:{line[name]}" if name in line else study.file
            why = f"{study.chip} has no block areas, or the workload no such phase"
            why = "it is measured for language models alone" if name.rpartition(".")[2] == QUALITY else why
            raise StudyError(f"{where}: {name} is not known for this study: {why}")
