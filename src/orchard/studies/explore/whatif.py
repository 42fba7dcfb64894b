"""One change of a chip, term by term: what each `--set` gives alone, and all of them together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from orchard.cost.errors import CostError
from orchard.cost.silicon import die_area, price
from orchard.hw import HardwareArrays, HardwareError, load_chip
from orchard.studies.errors import StudyError
from orchard.studies.explore.basket import study_of
from orchard.studies.explore.evaluate import Evaluator
from orchard.studies.explore.study import Workload

TERMS = ("compute", "memory", "dispatch")


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """One chip: seconds of each "workload.phase" (decode: one token) by term, and what requests and the die cost."""

    label: str
    terms: Mapping[str, Mapping[str, float]]
    latency_s: Mapping[str, float]
    energy_j: Mapping[str, float]
    area_mm2: float | None
    price_usd: float | None

    @property
    def basket_s(self) -> float:
        """Sum over workloads; weights are in."""
        return sum(self.latency_s.values())


@dataclass(frozen=True, kw_only=True)
class WhatIf:
    """Before, each change alone, all together. `synergy`: speed-up of all over the product of each alone."""

    chip: str
    before: State
    alone: tuple[State, ...]
    after: State

    @property
    def synergy(self) -> float:
        product = 1.0
        for state in self.alone:
            product *= self.before.basket_s / state.basket_s
        return self.before.basket_s / self.after.basket_s / product


def what_if(
    chip: str, workloads: tuple[Workload, ...], changes: tuple[str, ...], *, overrides: tuple[str, ...] = ()
) -> WhatIf:
    """`changes` are `figure=value` texts. Raises StudyError when there are none, HardwareError for a bad one."""
    if not changes:
        raise StudyError("what-if needs at least one --set, for example --set dram.bandwidth=200GB/s")
    evaluator = Evaluator(study_of(chip, overrides, workloads, ()))
    variants = {text: _variant(chip, overrides, text) for text in changes}
    named = [path for path, _ in variants.values()]
    if len(set(named)) < len(changes):
        raise StudyError(f"what-if: {max(named, key=named.count)} is set twice; give each figure one value")
    before = _state("as it is", evaluator, {})
    alone = tuple(_state(text, evaluator, dict([pair])) for text, pair in variants.items()) if len(changes) > 1 else ()
    after = _state(", ".join(changes), evaluator, dict(variants.values()))
    return WhatIf(chip=chip, before=before, alone=alone, after=after)


def _variant(chip: str, overrides: tuple[str, ...], text: str) -> tuple[str, float]:
    """(figure, SI value) of "figure=value", checked as `--set` is. Raises HardwareError."""
    path = text.partition("=")[0].strip()
    return path, load_chip(chip, [*overrides, text])[path]


def _state(label: str, evaluator: Evaluator, variants: Mapping[str, float]) -> State:
    """Evaluated as a variant of the unchanged chip, so that a new clock brings its new voltage."""
    hw = HardwareArrays.of(evaluator.soc, variants)
    workloads = evaluator.study.workloads
    latency, energy = {}, {}
    terms: dict[str, Mapping[str, float]] = {}
    for workload in workloads:
        latency[workload.name] = workload.weight * float(evaluator.latency(workload.name, hw))
        energy[workload.name] = workload.weight * float(evaluator.energy(workload.name, hw))
        terms |= evaluator.seconds_by_term(workload.name, hw)
    try:
        area = die_area(hw)
        cost = price(area, dies=hw["package.dies"], memory_bytes=hw["dram.capacity"])
        mm2, usd = float(area.total_mm2), float(cost.total_usd)
    except (CostError, HardwareError):
        return State(label=label, terms=terms, latency_s=latency, energy_j=energy, area_mm2=None, price_usd=None)
    return State(label=label, terms=terms, latency_s=latency, energy_j=energy, area_mm2=mm2, price_usd=usd)
