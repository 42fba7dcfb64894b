"""All ops of a model, mapped on one engine: what each could take, what today's runtime takes, and where the difference is.

The rows are the kernels that the runtime launches, so estimates sum to `orchard predict`. A kernel with products inside is
mapped (see `map_problems`); one that only streams elements has no mapping and its estimate stands.

    headroom = estimate - best mapping      seconds per phase that a better kernel on the same engine could save

A mapping that takes longer than the estimate is reported, not hidden: then the machine description lacks something.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import cast

import numpy as np

from orchard.cost.bound import peak_ops_per_s, phase_bound
from orchard.cost.evaluate import Call, phase_time
from orchard.cost.lower import Kernel, KernelTable, layer_group
from orchard.hw import HardwareArrays, SoC, load_chip
from orchard.hw.arch import Architecture
from orchard.hw.convert import Machine
from orchard.ir import Graph
from orchard.mapping.lattice import Factors
from orchard.studies.errors import StudyError
from orchard.studies.map import OBJECTIVES, MappedOp
from orchard.studies.map_cache import MappingCache, Question
from orchard.studies.map_machine import engine_machine
from orchard.studies.map_many import solve_all
from orchard.studies.map_problems import Part, Products
from orchard.studies.nest_search import Objective
from orchard.studies.predict import Plan, make_plan
from orchard.studies.request import Request
from orchard.units import did_you_mean
from orchard.workloads import weight_bytes

TIME_LIMIT_S = 20.0
"""Seconds for the proof of one op of a model; what is open then says so."""
TOLERANCE = 1e-6
"""Relative: a mapping this much above an estimate is a rounding, more is reported."""


@dataclass(frozen=True)
class MappedPart:
    """One product of a kernel with its best mapping; `weight` is how often it runs in the phase (calls, copies, experts)."""

    part: Part
    mapped: MappedOp
    weight: float

    @property
    def seconds(self) -> float:
        """Of all runs in the phase."""
        return self.weight * self.mapped.estimate.latency_cycles / self.mapped.arch.clock_hz


@dataclass(frozen=True)
class Row:
    """One kind of kernel in a phase, all its launches together. Without a chip there is no estimate and no bound.

    best_s is None where nothing is mapped; `why` says so.
    """

    name: str
    kind: str
    count: float
    estimate_s: float | None
    bound_s: float | None
    parts: tuple[MappedPart, ...] = ()
    why: str = ""

    @property
    def best_s(self) -> float | None:
        return sum(p.seconds for p in self.parts) if self.parts else None

    @property
    def headroom_s(self) -> float:
        """Seconds of the estimate that the best mapping does not need; 0 where nothing is mapped."""
        best = self.best_s
        return 0.0 if best is None or self.estimate_s is None else self.estimate_s - best

    @property
    def energy_j(self) -> float:
        return sum(p.weight * p.mapped.estimate.energy_pj for p in self.parts) * 1e-12

    @property
    def optimal(self) -> bool:
        return all(p.mapped.optimal for p in self.parts)


@dataclass(frozen=True)
class MappedPhase:
    """Rows by headroom, then by estimate; `latency_s` and `bound_s` are those of the whole phase (see `orchard predict`)."""

    name: str
    tokens: int
    rows: tuple[Row, ...]
    latency_s: float | None
    bound_s: float | None

    @property
    def best_s(self) -> float:
        """Seconds of the mapped rows at their best mappings."""
        return sum(row.best_s or 0.0 for row in self.rows)

    @property
    def mapped_estimate_s(self) -> float:
        return sum(row.estimate_s or 0.0 for row in self.rows if row.parts)

    @property
    def attainable_s(self) -> float:
        """The phase with every product at its best mapping and the rest as it is."""
        return sum((row.estimate_s or 0.0) - row.headroom_s for row in self.rows)

    @property
    def energy_j(self) -> float:
        return sum(row.energy_j for row in self.rows)


@dataclass(frozen=True)
class ModelMapping:
    """The answer for a model."""

    model: str
    weights: str
    machine: str
    chip: str | None
    engine: str | None
    runtime: str | None
    objective: Objective
    phases: tuple[MappedPhase, ...]
    unique: int
    from_cache: int
    notes: tuple[str, ...]
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class Space:
    """What the mapper searches, and with what."""

    objective: Objective = "latency"
    factors: Factors = "imperfect"
    time_limit_s: float | None = None
    gap: float = 0.01  # a to-do list needs no more; each op says how far its proof got
    cache: MappingCache | None = None
    workers: int | None = None

    @classmethod
    def chosen(
        cls, objective: str | None, factors: str | None, time_limit_s: float | None, *, cache: MappingCache | None,
        on_chip: bool,
    ) -> Space:  # fmt: skip
        """What a user left open, filled in: time and ragged tiles on a chip; EDP, perfect tiles and full proofs elsewhere."""
        if objective is not None and objective not in OBJECTIVES:
            raise StudyError(f"objective is {objective!r}, expected one of {', '.join(OBJECTIVES)}")
        return cls(
            objective=cast(Objective, objective or ("latency" if on_chip else "edp")),
            factors=cast(Factors, factors or ("imperfect" if on_chip else "perfect")),
            time_limit_s=time_limit_s if time_limit_s is not None else TIME_LIMIT_S,
            gap=0.01 if on_chip else 0.0,
            cache=cache,
        )


def map_model(
    request: Request, space: Space, *, arch: Architecture | None = None, phases: Sequence[str] = (), op: str | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> ModelMapping:  # fmt: skip
    """Map every op of a model, or those under the name `op`, on the request's engine or on `arch`."""
    soc = None if arch is not None else load_chip(request.chip, list(request.overrides))
    plan, engine, warnings = _plan(request, soc)
    chosen = _phases(plan, phases)
    machines = _Machines(soc, engine, arch)
    finders = {name: _Finder(plan, name, machines, space, op) for name in chosen}
    questions = [q for finder in finders.values() for q in finder.questions()]
    if op is not None and not any(finder.kernels for finder in finders.values()):
        raise StudyError(_no_op(plan, chosen, op))
    answers = solve_all(questions, space.cache, workers=space.workers, say=say)
    found = []
    for name, finder in finders.items():
        priced = _Prices(plan, name, soc) if soc is not None and engine == plan.profile.engine else None
        found.append(finder.phase(answers.found, answers.refused, priced))
    return ModelMapping(
        model=plan.model.name, weights=plan.weights, machine=machines.main.name, objective=space.objective,
        chip=None if soc is None else soc.id, engine=None if soc is None else engine,
        runtime=None if soc is None or warnings else plan.profile.runtime, phases=tuple(found),
        unique=len({q.key for q in questions}), from_cache=answers.from_cache, notes=machines.notes,
        warnings=(*warnings, *(w for phase in found for w in _warnings(phase))),
    )  # fmt: skip


def _plan(request: Request, soc: SoC | None) -> tuple[Plan, str, tuple[str, ...]]:
    """Kernels and calls, the engine that is mapped on, and a warning where no runtime profile speaks for it."""
    try:
        plan = make_plan(request)
        return plan, plan.profile.engine, ()
    except StudyError as error:
        if soc is None or request.runtime is not None or request.engine not in soc.engines:
            raise
        plan = make_plan(replace(request, engine="auto"))
        why = (
            f"{error}: mapped without an estimate, over the kernels of {plan.profile.runtime} on {plan.profile.engine}"
        )
        return plan, request.engine, (why,)


def _phases(plan: Plan, wanted: Sequence[str]) -> list[str]:
    for name in wanted:
        if name not in plan.phases:
            known = ", ".join(plan.phases)
            raise StudyError(f"phase {name!r}: {plan.model.name} has {known} here{did_you_mean(name, plan.phases)}")
    return list(wanted or plan.phases)


def _no_op(plan: Plan, phases: Sequence[str], op: str) -> str:
    names = {o.name for phase in phases for o in _graph(plan, phase).ops}
    known = sorted(names | {n.rpartition(".")[0] for n in names if "." in n})
    return f"op {op[:80]!r} is not in {plan.model.name}{did_you_mean(op, known)}; `orchard inspect` lists what is"


def _graph(plan: Plan, phase: str) -> Graph:
    return plan.graph_of(phase)


class _Machines:
    """The architecture for each width of operands and each density of a mask."""

    def __init__(self, soc: SoC | None, engine: str, arch: Architecture | None) -> None:
        self.soc, self.engine, self.arch = soc, engine, arch
        self._made: dict[int, Machine] = {}
        self.main = self.of(16, 1.0)

    @property
    def notes(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(n for m in self._made.values() for n in m.notes))

    def of(self, bits: int, density: float) -> Architecture:
        """Masked MACs are skipped: the rest runs at the same rate, so all of them appear to run faster and cost less."""
        if self.arch is not None:
            found = self.arch
        else:
            assert self.soc is not None
            if bits not in self._made:
                self._made[bits] = engine_machine(self.soc, self.engine, bits)
            found = self._made[bits].arch
        return thinned(found, density)


def thinned(arch: Architecture, density: float) -> Architecture:
    """The machine for products of which only a share of the MACs is needed."""
    if density >= 1.0:
        return arch
    leaf = arch.compute
    thinner = replace(leaf, macs_per_cycle=leaf.macs_per_cycle / density, energy_pj=leaf.energy_pj * density)
    return replace(arch, compute=thinner)


def on_chip_bytes(arch: Architecture) -> float:
    """What the largest memory inside the machine holds."""
    sizes = [level.words_for("I") or 0 for level in arch.levels[1:]]
    return max(sizes, default=0) * arch.word_bits / 8


def products_of(graph: Graph, soc: SoC | None, on_chip: float) -> Products:
    """The products of a graph on a chip (None: a described accelerator); weights stay where all fit in its SLC."""
    cache = soc.get("slc.size") if soc is not None else None
    weights = weight_bytes(graph) if cache else float("inf")
    return Products(graph, on_chip, weights_stay=weights <= (cache or 0.0))


def parts_of(
    products: Products, kernel: Kernel, calls: Sequence[Call], *, int8: bool
) -> Iterator[tuple[Part, int, float]]:
    """(product, bits of the arithmetic, runs in the phase) of every product inside a kernel, call by call. `int8`: low-bit
    weights multiply in 8 bits."""
    low = int8 and kernel.format not in ("", "f32", "f16", "bf16")
    for call in calls:
        for part in products.parts(kernel, call.bindings):
            yield part, 8 if low else part.bits, call.weight * part.times


class _Finder:
    """The kernels of one phase and the questions they ask."""

    def __init__(self, plan: Plan, phase: str, machines: _Machines, space: Space, op: str | None) -> None:
        self.plan, self.phase_name, self.machines, self.space = plan, phase, machines, space
        self.calls: tuple[Call, ...] = plan.phases[phase]
        self.table: KernelTable = plan.table_of(phase)
        self.graph = _graph(plan, phase)
        self.products = products_of(self.graph, machines.soc, on_chip_bytes(machines.main))
        self.kernels = _selected(self.graph, self.table, op)
        self.low = bool(plan.profile.rules.get("int8_products")) and machines.soc is not None
        self.asked = {i: self._ask(self.table.kernels[i]) for i in self.kernels}

    def questions(self) -> list[Question]:
        return [question for asked in self.asked.values() for _, question, _ in asked]

    def _ask(self, kernel: Kernel) -> list[tuple[Part, Question, float]]:
        """Parts of all calls; equal ones of different calls are one with their weights together."""
        found: dict[str, tuple[Part, Question, float]] = {}
        for part, bits, runs in parts_of(self.products, kernel, self.calls, int8=self.low):
            question = Question(
                part.problem, self.machines.of(bits, part.density), self.space.objective, self.space.factors,
                self.space.time_limit_s, self.space.gap,
            )  # fmt: skip
            key = question.key
            before = found[key][2] if key in found else 0.0
            found[key] = (part, question, before + runs)
        return list(found.values())

    def phase(self, answers: Mapping[str, MappedOp], refused: Mapping[str, str], priced: _Prices | None) -> MappedPhase:
        rows = [self._row(i, share, answers, refused, priced) for i, share in self.kernels.items()]
        whole = len(self.kernels) == len(self.table.kernels)
        if priced is not None and whole and priced.submission_s > 0:
            rows.append(Row("submission", "dispatch", 1, priced.submission_s, None, why="no arithmetic"))
        rows.sort(key=lambda r: (not r.parts, -r.headroom_s, -(r.estimate_s or 0.0), -(r.best_s or 0.0), r.name))
        return MappedPhase(
            name=self.phase_name, tokens=self.plan.tokens[self.phase_name], rows=tuple(rows),
            latency_s=priced.latency_s if priced is not None and whole else None,
            bound_s=priced.bound_s if priced is not None and whole else None,
        )  # fmt: skip

    def _row(
        self, i: int, share: float, answers: Mapping[str, MappedOp], refused: Mapping[str, str], priced: _Prices | None
    ) -> Row:
        kernel = self.table.kernels[i]
        parts: list[MappedPart] = []
        why = "no mapping: it only streams" if not self.asked[i] else ""
        for part, question, weight in self.asked[i]:
            mapped = answers.get(question.key)
            if mapped is None:
                parts, why = [], refused.get(question.key, "")
                break
            mapped = replace(mapped, problem=question.problem)
            parts.append(MappedPart(part, mapped, weight * kernel.count * share))
        group = layer_group(kernel.scope)
        last = kernel.name.rpartition(".")[2]
        return Row(
            name=last if group in ("other", last) else f"{group}.{last}", kind=kernel.kind, count=kernel.count * share,
            estimate_s=None if priced is None else float(priced.estimate_s[i]) * share,
            bound_s=None if priced is None else float(priced.floor_s[i]) * share, parts=tuple(parts), why=why,
        )  # fmt: skip


class _Prices:
    """Estimate and bound of every kernel of a phase, all launches together."""

    def __init__(self, plan: Plan, phase: str, soc: SoC) -> None:
        hw, table, calls = HardwareArrays.of(soc), plan.table_of(phase), plan.phases[phase]
        cache = float(cast(float, hw.get("slc.size", 0.0)) or 0.0)
        engine = plan.profile.engine
        self.bound_s = float(phase_bound(table, calls, hw, engine, cache))
        time = phase_time(table, calls, hw, plan.profile, plan.profile.values())
        self.latency_s = max(float(time.total), self.bound_s)
        scale = self.latency_s / float(time.total)
        self.estimate_s = time.kernels.total * scale
        self.submission_s = max(0.0, self.latency_s - float(self.estimate_s.sum()))
        self.floor_s = np.zeros(len(table.kernels))
        for call in calls:
            counts = table.evaluate(call.bindings)
            ops = 2.0 * counts.macs + np.where(counts.mask("vector", "scan"), counts.vector_ops, 0.0)
            moved = np.maximum((counts.weight_bytes + counts.state_bytes) * counts.count - cache, 0.0)
            spent = np.maximum(ops * counts.count / peak_ops_per_s(counts, hw, engine), moved / hw["dram.bandwidth"])
            self.floor_s = self.floor_s + call.weight * spent


def _selected(graph: Graph, table: KernelTable, op: str | None) -> dict[int, float]:
    """Positions of the kernels under an op or module name, with the share of their launches that it covers."""
    if op is None:
        return dict.fromkeys(range(len(table.kernels)), 1.0)
    wanted = [o for o in graph.ops if o.name == op or o.name.startswith(f"{op}.")]
    if not wanted:
        return {}
    ours = {name: i for i, kernel in enumerate(table.kernels) for name in kernel.ops}
    signatures: dict[object, list[int]] = {}
    by_name = {o.name: o for o in graph.ops}
    for i, kernel in enumerate(table.kernels):
        signatures.setdefault(_alike(graph, by_name[kernel.ops[0]]), []).append(i)
    found: dict[int, float] = {}
    for o in wanted:
        direct = ours.get(o.name)
        for i in [direct] if direct is not None else signatures.get(_alike(graph, o), [])[:1]:
            kernel = table.kernels[i]
            if direct is None or kernel.ops[0] == o.name or not any(n.name == kernel.ops[0] for n in wanted):
                found[i] = min(1.0, found.get(i, 0.0) + 1.0 / kernel.count)
    return found


def _alike(graph: Graph, op: object) -> object:
    """Ops of equal layers: the same name up to the layer's number, and operands of the same shapes and formats."""
    from orchard.ir import Op

    assert isinstance(op, Op)
    tensors = (*graph.inputs_of(op), *graph.outputs_of(op))
    return re.sub(r"\d+", "#", op.name), tuple((t.shape, t.format) for t in tensors)


def _warnings(phase: MappedPhase) -> list[str]:
    slower = [r for r in phase.rows if r.estimate_s is not None and r.headroom_s < -TOLERANCE * r.estimate_s]
    faster = [
        r for r in phase.rows if r.parts and r.bound_s is not None and (r.best_s or 0) < r.bound_s * (1 - TOLERANCE)
    ]
    found = []
    if slower:
        worst = min(slower, key=lambda r: r.headroom_s)
        found.append(
            f"{phase.name}: {len(slower)} of {len(phase.rows)} kernels take longer at their best mapping than estimated "
            f"(worst: {worst.name}, {worst.best_s or 0:.3g} s against {worst.estimate_s or 0:.3g} s): the machine "
            "description lacks something, or the estimate is low"
        )
    if faster:
        found.append(f"{phase.name}: {faster[0].name} is mapped below its physical bound; please report this")
    return found
