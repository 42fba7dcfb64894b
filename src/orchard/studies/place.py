"""Which engine runs which op: the best placement of a request with its proof, the reasons, and what else was possible."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from orchard.mapping.engine_plan import ENGINES
from orchard.search.errors import NoPlacement
from orchard.search.placement import net_cost
from orchard.studies.errors import StudyError
from orchard.studies.place_problem import Option, Placing, build
from orchard.studies.place_why import Alternative, Best, Restriction, alternatives, best_of, explained, restrictions
from orchard.studies.placed import PlacedPhase, placed_phase
from orchard.studies.predict import Plan, memory_of
from orchard.studies.request import Request
from orchard.studies.runtimes import engine_name
from orchard.units import did_you_mean

if TYPE_CHECKING:
    from orchard.studies.compute_plan import PlanDifference

Ints = NDArray[np.int64]
SCHEMA = "orchard.placement/1"
OBJECTIVES = ("latency", "energy", "edp")
PRECISIONS = ("auto", "stored", "f16")
TIME_LIMIT_S = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheHandOver:
    """The cache goes from the engine that filled it to the one that decodes, once per request."""

    source: str
    target: str
    tensors: int
    bytes: float
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacedMemory:
    """Bytes. `arena`: activations as packed, `arena_bound` what no packing can beat, both of the largest phase. `copies`:
    weights that the Neural Engine and another engine both read; the two keep them in forms of their own."""

    weights: int
    copies: int
    kv_cache: int
    arena: int
    arena_bound: int
    arena_order: str
    limit: int

    @property
    def total(self) -> int:
        return self.weights + self.copies + self.kv_cache + self.arena

    @property
    def fits(self) -> bool:
        return self.total <= self.limit


@dataclass(frozen=True, kw_only=True)
class Placement:
    """The answer. `total_s` and `total_j` are of the whole request: prompt, all generated tokens, cache hand-over."""

    placing: Placing
    objective: str
    engines: tuple[str, ...]
    precision: str
    answer: Best
    solve_s: float
    phases: tuple[PlacedPhase, ...]
    caches: tuple[CacheHandOver, ...]
    total_s: float
    total_j: float
    memory: PlacedMemory
    alternatives: tuple[Alternative, ...]
    restrictions: tuple[Restriction, ...]
    difference: PlanDifference | None
    warnings: tuple[str, ...]

    @property
    def best_single(self) -> Alternative | None:
        """The best engine alone that takes every op; without one, the best as if it did."""
        singles = [a for a in self.alternatives if len(a.engines) == 1 and a.value is not None]
        return min(singles, key=lambda a: (a.lifted > 0, a.value or 0.0), default=None)

    @property
    def dear_value(self) -> float:
        """The objective's value of this placement if every hand-over and cast cost twice."""
        return self._with_crossings(2.0)

    @property
    def handover_share(self) -> float:
        """Share of the value that is gone when hand-overs cost nothing."""
        return 1.0 - self._with_crossings(0.0) / self.answer.value if self.answer.value else 0.0

    def _with_crossings(self, factor: float) -> float:
        found = {}
        for name, problem in (("latency", self.placing.seconds), ("energy", self.placing.joules)):
            crossing = sum(net_cost(n, self.answer.choice) for n in problem.nets)
            found[name] = replace(problem, capacities=()).value(self.answer.choice) + (factor - 1.0) * crossing
        return found["latency"] * found["energy"] if self.objective == "edp" else found[self.objective]

    def phase(self, name: str) -> PlacedPhase:
        """One phase by name. Raises KeyError."""
        for found in self.phases:
            if found.name == name:
                return found
        raise KeyError(name)

    def to_dict(self) -> dict[str, Any]:
        """`orchard.placement/1`."""
        return record(self)


def place(
    model: str,
    chip: str,
    *,
    objective: str = "latency",
    engines: str | Sequence[str] | None = None,
    precision: str = "auto",
    runtime: str | None = None,
    weights: str | None = None,
    activations: str = "f16",
    kv: str = "f16",
    batch: int = 1,
    prompt: int = 512,
    generate: int = 128,
    depth: int = 0,
    steps: int | None = None,
    inputs: Sequence[str] | Mapping[str, Sequence[int | str]] = (),
    overrides: Sequence[str] | Mapping[str, object] = (),
    plan: str | None = None,
    time_limit_s: float = TIME_LIMIT_S,
    explain: bool = True,
) -> Placement:
    """The best placement of a model on a chip's engines. Request fields as in `predict`; `plan`: a compute-plan JSON file to
    compare with. `explain=False` leaves out alternatives and restrictions. Raises an OrchardError for what the user must
    correct."""
    texts = [f"{k}={v}" for k, v in overrides.items()] if isinstance(overrides, Mapping) else list(overrides)
    shapes = (
        [f"{k}={'x'.join(str(x) for x in v)}" for k, v in inputs.items()] if isinstance(inputs, Mapping) else inputs
    )
    request = Request(
        model=model, chip=chip, runtime=runtime, weights=weights, activations=activations, kv=kv, batch=batch,
        prompt=prompt, generate=generate, depth=depth, steps=steps, inputs=tuple(shapes), overrides=tuple(texts),
    )  # fmt: skip
    return answer_placement(
        request, objective=objective, engines=engines, precision=precision, plan=plan, time_limit_s=time_limit_s,
        explain=explain,
    )  # fmt: skip


def answer_placement(
    request: Request, *, objective: str = "latency", engines: str | Sequence[str] | None = None, precision: str = "auto",
    plan: str | None = None, time_limit_s: float = TIME_LIMIT_S, explain: bool = True,
) -> Placement:  # fmt: skip
    """The placement of a request."""
    _known(objective, OBJECTIVES, "objective")
    _known(precision, PRECISIONS, "precision")
    if not 0 < time_limit_s < 1e6:
        raise StudyError(f"time limit: got {time_limit_s:g}, expected seconds above 0, for example 30")
    chosen = engine_list(engines)
    placing = build(request, chosen, precision)
    started = time.perf_counter()
    found, notes = _solved(placing, objective, time_limit_s)
    solve_s = time.perf_counter() - started
    difference = None
    if plan is not None:
        from orchard.studies.compute_plan import compare_plan

        difference = compare_plan(placing, found.choice, plan, objective)
    phases = tuple(
        explained(placing, i, found.choice, placed_phase(placing, i, found.choice), objective)
        for i in range(len(placing.parts))
    )
    caches = tuple(_cache_handovers(placing, found.choice))
    memory = _memory(placing, found.choice, phases)
    crossing_j = sum(net_cost(n, found.choice) for i, n in zip(placing.nets, placing.joules.nets) if i.kind == "cache")
    return Placement(
        placing=placing, objective=objective, engines=chosen, precision=precision, answer=found, solve_s=solve_s, phases=phases,
        caches=caches,
        total_s=sum(p.latency_s * p.times for p in phases) + sum(c.seconds for c in caches),
        total_j=sum(p.energy_j * p.times for p in phases) + crossing_j,
        memory=memory,
        alternatives=alternatives(placing, found, objective, time_limit_s) if explain and len(chosen) > 1 else (),
        restrictions=restrictions(placing, objective, found.value, time_limit_s) if explain and len(chosen) > 1 else (),
        difference=difference,
        warnings=(*notes, *_warnings(placing, found, phases, memory)),
    )  # fmt: skip


def engine_list(engines: str | Sequence[str] | None) -> tuple[str, ...]:
    """`cpu,gpu,ane` in the order cpu, gpu, ane; all three without a list. Core ML's names of compute units are accepted."""
    if engines is None:
        return ENGINES
    parts = engines.split(",") if isinstance(engines, str) else list(engines)
    found: set[str] = set()
    for part in parts:
        text = part.strip()
        units = COMPUTE_UNITS.get(text.lower().replace("-", "_"))
        found.update(units if units else (engine_name(text),))
    if "auto" in found:
        return ENGINES
    if not found:
        raise StudyError("engines: got an empty list, expected some of cpu, gpu, ane")
    return tuple(e for e in ENGINES if e in found)


COMPUTE_UNITS = {
    "all": ENGINES, "cpu_only": ("cpu",), "cpu_and_gpu": ("cpu", "gpu"), "cpu_and_ne": ("cpu", "ane"),
}  # fmt: skip
"""What Core ML's names allow. `predict` reads them as the one engine that does the work; here they are sets."""


def _known(value: str, known: Sequence[str], what: str) -> None:
    if value not in known:
        raise StudyError(f"{what} {value!r} is not known{did_you_mean(value, known)}; expected {', '.join(known)}")


def _solved(placing: Placing, objective: str, time_limit_s: float) -> tuple[Best, list[str]]:
    notes: list[str] = []
    try:
        found = best_of(placing.seconds, placing.joules, objective, time_limit_s)
    except NoPlacement as error:
        if not placing.seconds.capacities:
            raise StudyError(f"{placing.request.model} on {placing.soc.id}: {error}") from None
        notes.append(f"{error}: weights are placed as if the GPU could wire all of them")
        free = replace(placing.seconds, capacities=()), replace(placing.joules, capacities=())
        found = best_of(*free, objective, time_limit_s)
    return found, notes


def _cache_handovers(placing: Placing, choice: Ints) -> list[CacheHandOver]:
    grouped: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for info, net in zip(placing.nets, placing.seconds.nets):
        if info.kind != "cache":
            continue
        source = placing.options[int(choice[net.source])].engine
        targets = dict.fromkeys(placing.options[int(choice[r])].engine for r in net.readers)
        for target in targets:
            if target != source:
                grouped.setdefault((source, target), []).append((info.dense, net_cost(net, choice)))
                break  # the price of a net is counted once, with its first target
    return [
        CacheHandOver(source=s, target=t, tensors=len(found), bytes=sum(b for b, _ in found), seconds=sum(c for _, c in found))
        for (s, t), found in grouped.items()
    ]  # fmt: skip


def _memory(placing: Placing, choice: Ints, phases: Sequence[PlacedPhase]) -> PlacedMemory:
    used = {placing.options[int(o)].engine for o in choice}
    lead: Plan = placing.plans["gpu" if used == {"gpu"} else next(e for e in placing.plans if e in used)]
    need = memory_of(lead, placing.soc, placing.request)
    limits = [memory_of(placing.plans[e], placing.soc, placing.request).limit for e in used]
    largest = max(phases, key=lambda p: p.arena.bytes)
    return PlacedMemory(
        weights=need.weights, copies=round(copied_weights(placing, choice)), kv_cache=need.kv_cache,
        arena=largest.arena.bytes, arena_bound=largest.arena.bound, arena_order=largest.arena.order,
        limit=limits[0] if len(used) == 1 else max(limits),
    )  # fmt: skip


def copied_weights(placing: Placing, choice: Ints) -> float:
    """Bytes of weights that are read on the Neural Engine in one phase and elsewhere in another."""
    from orchard.ir import Role, value_of
    from orchard.units import number_format

    where: dict[str, set[bool]] = {}
    sizes: dict[str, float] = {}
    for part in placing.parts:
        for op in part.graph.ops:
            engine = placing.options[int(choice[part.first + part.units.unit_of[op.name]])].engine
            for tensor in part.graph.inputs_of(op):
                if tensor.role is Role.WEIGHT:
                    where.setdefault(tensor.name, set()).add(engine == "ane")
                    sizes[tensor.name] = value_of(tensor.elements, {}) * float(number_format(tensor.format).bits) / 8.0
    return sum(sizes[name] for name, kinds in where.items() if len(kinds) == 2)


def _warnings(placing: Placing, found: Best, phases: Sequence[PlacedPhase], memory: PlacedMemory) -> list[str]:
    from orchard.units import format_bytes

    model = next(iter(placing.plans.values())).model
    notes = [*model.warnings, *placing.warnings]
    used = [placing.options[int(o)] for o in np.unique(found.choice)]
    engines = list(dict.fromkeys(o.engine for o in used))
    if len(engines) > 1:
        names = ", ".join(dict.fromkeys(placing.plans[e].profile.name for e in engines))
        notes.append(
            f"kernels of several runtimes in one pass ({names}): their hand-overs are estimates from single figures, no "
            f"measurement of such a mix backs them"
        )
    if any(o.precision == "f16" for o in used):
        count = sum(g.precision == "f16" for p in phases for g in p.plan.groups if g.launches)
        notes.append(f"{count} launches compute in FP16 where the model says 32 bit (--precision stored forbids it)")
    notes.extend(_unbacked(placing, engines))
    if found.gap > 0:
        notes.append(f"not proven: a better placement may exist, by at most {found.gap:.2%}")
    if not memory.fits:
        notes.append(
            f"does not fit: needs {format_bytes(memory.total)}, {' and '.join(engines)} may use {format_bytes(memory.limit)} of "
            f"{placing.soc.id}; times assume it did"
        )
    return notes


def _unbacked(placing: Placing, engines: Sequence[str]) -> list[str]:
    """Profiles that speak for a phase without a measurement of their own."""
    found = []
    for engine in engines:
        plan = placing.plans[engine]
        missing = [p.name for p in placing.parts if plan.strata[p.name] not in plan.profile.errors]
        if missing:
            found.append(
                f"no measurement of {plan.profile.runtime} on {engine} backs the {' and '.join(missing)} interval; it is a "
                f"judgement (x0.6 to x1.6)"
            )
    return found


def record(placement: Placement) -> dict[str, Any]:
    """`orchard.placement/1`."""
    p, soc, model = placement, placement.placing.soc, next(iter(placement.placing.plans.values())).model
    used = sorted({p.placing.options[int(o)].engine for o in p.answer.choice}, key=ENGINES.index)
    single = p.best_single
    return {
        "schema": SCHEMA,
        "model": {"name": model.name, "params": model.params, "weight_bytes": p.memory.weights},
        "chip": {"id": soc.id, "name": soc.name, "overrides": _override_map(p.placing.request.overrides)},
        "objective": p.objective,
        "engines": list(p.engines),
        "engines_used": used,
        "profiles": {e: p.placing.plans[e].profile.name for e in p.engines},
        "precision": p.precision,
        "weights": next(iter(p.placing.plans.values())).weights,
        "batch": p.placing.request.batch,
        "kind": "estimate",
        "value": p.answer.value,
        "proof": {
            "bound": p.answer.bound, "gap": p.answer.gap, "proven": p.answer.gap == 0.0, "method": p.answer.method,
            "explored": p.answer.explored, "solve_s": p.solve_s, "units": len(p.placing.free_seconds),
            "options": len(p.placing.options),
        },
        "handover_share": p.handover_share,
        "value_if_handovers_cost_twice": p.dear_value,
        "total_s": p.total_s,
        "total_j": p.total_j,
        "phases": {x.name: x.to_dict() for x in p.phases},
        "cache_handovers": [{n: getattr(c, n) for n in CacheHandOver.__slots__} for c in p.caches],
        "memory": {
            "weights_bytes": p.memory.weights, "weight_copies_bytes": p.memory.copies,
            "kv_cache_bytes": p.memory.kv_cache, "arena_bytes": p.memory.arena, "arena_bound_bytes": p.memory.arena_bound,
            "arena_order": p.memory.arena_order, "total_bytes": p.memory.total, "limit_bytes": p.memory.limit,
            "fits": p.memory.fits,
        },
        "best_single": None if single is None else {
            "engine": single.engines[0], "value": single.value, "lifted_ops": single.lifted,
            "times_best": None if not single.value else single.value / p.answer.value,
        },
        "alternatives": [a.to_dict() for a in p.alternatives],
        "restrictions": [r.to_dict() for r in p.restrictions],
        "plan": None if p.difference is None else p.difference.to_dict(),
        "warnings": list(p.warnings),
    }  # fmt: skip


def _override_map(texts: Sequence[str]) -> dict[str, str]:
    return {key.strip(): value.strip() for key, _, value in (t.partition("=") for t in texts)}


__all__ = ["CacheHandOver", "Option", "PlacedMemory", "Placement", "answer_placement", "place", "record"]
