"""Measured rows as cases that a profile can price: kernels, hardware and the measured time, many at once.

All cases of one profile are laid end to end, so that a fit prices every row with one array call.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from orchard.cost.bound import phase_bound
from orchard.cost.evaluate import Call, call_seconds, engine_model
from orchard.cost.lower import KernelArrays, KernelTable, concatenate
from orchard.cost.profile import Profile
from orchard.hw import HardwareArrays, SoC, find_chip, load_chip
from orchard.ir import Builder, Graph
from orchard.studies.measurements import Row, family_of
from orchard.studies.phases import decode_calls, prefill_calls
from orchard.studies.predict import lowered, stratum
from orchard.studies.runtimes import choose_profile
from orchard.workloads import apply_weights, load_model

Array = npt.NDArray[np.float64]

HARDWARE = (
    "gpu.fp32", "gpu.fp16", "gpu.coissue", "gpu.cores", "gpu.clock", "gpu.matrix.fp16", "dram.bandwidth", "package.dies",
    "cpu.s.cores", "cpu.p.cores", "cpu.e.cores", "cpu.s.clusters", "cpu.p.clusters",
    "cpu.e.neon_fp32", "cpu.neon.fp32", "cpu.s.clock", "cpu.p.clock",
    "cpu.bandwidth", "cpu.matrix.fp32", "ane.fp16", "ane.int8", "ane.engines", "ane.cores", "ane.clock", "ane.weight_bandwidth",
    "ane.activation_bandwidth", "ane.operand_limit",
)  # fmt: skip
"""Hardware parameters that engine models read."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """One scored row, ready to be priced. `tokens_s` is the measured time; `generation` and `family` are what is left out."""

    row: Row
    profile: Profile
    soc: SoC
    table: KernelTable
    calls: tuple[Call, ...]
    measured_s: float
    stratum: str
    generation: str
    family: str
    bound_s: float


def make_case(row: Row) -> Case:
    """Raises an OrchardError where model, chip, format or runtime are not known."""
    soc = load_chip(find_chip(row.chip, row.gpu_cores, row.cpu_cores if row.gpu_cores is None else None))
    profile = choose_profile(f"{row.runtime}@{row.date}", row.engine, row.weights)
    if row.threads and row.engine == "cpu":
        profile = _threaded(profile, row.threads)
    graph = _graph(row, bool(profile.rules.get("skip_shared_prefill", False)))
    table = lowered(graph, profile.lowering)
    calls = tuple(_calls(row, profile))
    hw = HardwareArrays.of(soc)
    moe = any(k.kind == "expert" for k in table.kernels)
    phase = "prefill" if row.phase == "end_to_end" else row.phase
    depth = max(row.depth or 0, (row.generate or 0) // 2)
    name = "component" if phase == "component" else stratum(
        phase, is_moe=moe, batch=row.batch, depth=depth, tokens=row.prompt or 512
    )  # fmt: skip
    slc = hw.get("slc.size", 0.0)
    return Case(
        row=row, profile=profile, soc=soc, table=table, calls=calls, measured_s=row.seconds, stratum=name,
        generation=soc.family, family=family_of(row.model),
        bound_s=float(phase_bound(table, calls, hw, profile.engine, float(slc or 0.0))),
    )  # fmt: skip


def _calls(row: Row, profile: Profile) -> Sequence[Call]:
    if row.phase == "component":
        return [Call({})]
    if row.phase in ("prefill", "end_to_end"):
        chunk = int(profile.rules.get("prefill_chunk", 512))
        return prefill_calls(prompt=row.prompt or 512, depth=row.depth or 0, batch=row.batch, chunk=chunk)
    return decode_calls(generate=row.generate or 128, context=row.depth or 0, batch=row.batch)


def _graph(row: Row, skip: bool) -> Graph:
    if row.phase == "component":
        return _head_only(row.model, row.weights)
    return load_model(row.model).graph(weights=row.weights, skip_shared_prefill=skip)


@lru_cache(maxsize=16)
def _head_only(model: str, weights: str) -> Graph:
    """The output head of a model alone, one position: what the isolated-layer rows time."""
    whole = load_model(model).graph()
    head = next(w for w in whole.weights if w.part == "head")
    b = Builder(f"{model} head")
    x = b.input("x", (1, head.shape[0]))
    y = b.linear(x, b.weight("head", head.shape, part="head"))
    return apply_weights(b.build([y]), weights)


@lru_cache(maxsize=512)
def _threaded_rules(name: str, threads: int) -> Profile:
    from dataclasses import replace

    from orchard.cost.profile import load_profile

    profile = load_profile(name)
    return replace(profile, rules={**profile.rules, "threads": threads})


def _threaded(profile: Profile, threads: int) -> Profile:
    return _threaded_rules(profile.name, threads)


class _Columns:
    """Hardware parameters per kernel of a batch of cases."""

    def __init__(self, columns: Mapping[str, Array]) -> None:
        self._columns = columns

    def __getitem__(self, path: str) -> Any:
        return self._columns[path]

    def __contains__(self, path: str) -> bool:
        return path in self._columns


class Batch:
    """Cases that share a profile and its rules (thread count and the like), priced together."""

    def __init__(self, cases: Sequence[Case]) -> None:
        self.profile = cases[0].profile
        parts: list[KernelArrays] = []
        starts: list[int] = []
        lengths: list[int] = []
        weights: list[float] = []
        columns: dict[str, list[Array]] = {name: [] for name in HARDWARE}
        self.calls = np.zeros(len(cases))
        self.owner: list[int] = []
        for index, case in enumerate(cases):
            known = {name: case.soc.get(name) for name in HARDWARE}
            for call in case.calls:
                counts = case.table.evaluate(call.bindings)
                starts.append(sum(lengths))
                lengths.append(len(counts))
                parts.append(counts)
                weights.append(call.weight)
                self.owner.append(index)
                self.calls[index] += call.weight
                for name in HARDWARE:
                    value = known[name]
                    columns[name].append(np.full(len(counts), np.nan if value is None else value))
        self._counts = concatenate(parts)
        self._hw = _Columns({name: np.concatenate(c) for name, c in columns.items()})
        self._starts = np.array(starts)
        self._weights = np.array(weights)
        self._owners = np.array(self.owner)
        self._size = len(cases)
        self._floors = np.array([case.soc.get("ane.dispatch") or 0.0 for case in cases])
        self._model = engine_model(self.profile)

    def seconds(self, values: Mapping[str, float]) -> Array:
        """Predicted time of every case [cases]."""
        total = self._model(self._counts, self._hw, values, self.profile.rules).total
        per_call = np.add.reduceat(total, self._starts) * self._weights
        sums = np.bincount(self._owners, weights=per_call, minlength=self._size)
        per_call = call_seconds({"ane.dispatch": self._floors}, values)
        return np.asarray(sums + self.calls * per_call, dtype=np.float64)


@dataclass(frozen=True)
class CaseSet:
    """All cases, grouped by profile for pricing."""

    cases: tuple[Case, ...]
    batches: tuple[tuple[Batch, npt.NDArray[np.intp]], ...]

    @classmethod
    def of(cls, cases: Iterable[Case]) -> CaseSet:
        found = tuple(cases)
        groups: dict[tuple[str, str], list[int]] = {}
        for index, case in enumerate(found):
            groups.setdefault((case.profile.name, repr(case.profile.rules)), []).append(index)
        batches = tuple((Batch([found[i] for i in group]), np.array(group)) for group in groups.values())
        return cls(found, batches)

    def seconds(self, values: Mapping[tuple[str, str], float]) -> Array:
        """Predicted times; `values` maps (owner file, parameter) to numbers."""
        result = np.zeros(len(self.cases))
        for batch, places in self.batches:
            own = {name: values[owner, name] for name, owner in batch.profile.owner.items()}
            result[places] = batch.seconds(own)
        return result

    def subset(self, keep: Sequence[bool] | npt.NDArray[np.bool_]) -> CaseSet:
        return CaseSet.of(case for case, kept in zip(self.cases, keep) if kept)
