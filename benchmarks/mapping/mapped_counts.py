"""Closed-form byte counts against the mapper's, in the same estimates, on the same measured rows.

    python benchmarks/mapping/mapped_counts.py --rows 40

Four estimates of each row, all with the profiles as they are (they were fitted with the closed form):

closed      every operand crosses DRAM once: `orchard validate`
mapped      the bytes that the mapper's best mapping moves over the DRAM port of the engine's machine
own         the same on the machine without its system-level cache: what leaves the engine's own memories, at DRAM rate
attainable  the mapper's time for every product, the rest as estimated: `fidelity: mapped` of `orchard explore`

An error is |predicted / measured - 1|. "refitted" multiplies each estimate by one factor per profile, the median of
measured / predicted over the rows of the other chip generations, so that constants fitted with one count do not decide.
"""

from __future__ import annotations

import argparse
import csv
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np

import orchard.studies.suite_case as suite_case
from orchard.cost.evaluate import call_seconds, engine_model
from orchard.cost.lower import KernelArrays, KernelTable, Lowering, lower
from orchard.hw import HardwareArrays, load_chip
from orchard.hw.arch import Architecture, Level
from orchard.ir import Graph
from orchard.mapping.errors import ImpossibleSpace
from orchard.mapping.footprint import axis_footprint
from orchard.mapping.problem import Problem
from orchard.studies.calibrate import scored
from orchard.studies.cases import Case, make_case
from orchard.studies.cases import _graph as graph_of
from orchard.studies.map import MappedOp, map_op
from orchard.studies.map_cache import Question
from orchard.studies.map_machine import engine_machine
from orchard.studies.map_model import on_chip_bytes, products_of, thinned
from orchard.studies.map_problems import Part, Products
from orchard.studies.measurements import read_rows
from orchard.studies.suites import load_suite

sys.path.insert(0, str(Path(__file__).parent))
from record import RESULTS, table, write

VARIANTS = ("closed", "mapped", "own", "attainable")
COUNTED = ("input_bytes", "weight_bytes", "output_bytes")
FAMILIES = {"gemm": "GEMM", "gemm_bias": "GEMM", "conv2d": "convolution", "attention": "attention"}
NETWORKS = ("ResNet18", "ResNet50", "MobileNetv2-1.0")
LIMIT_S = 2.0
GRAPHS: dict[int, tuple[KernelTable, Graph]] = {}
MAPPED: dict[str, MappedOp | None] = {}


def keep(graph: Graph, rules: Lowering) -> KernelTable:
    """`lower`, and the graph is kept: a case holds its kernels alone, products need the graph."""
    made = lower(graph, rules)
    GRAPHS[id(made)] = made, graph
    return made


@dataclass(frozen=True)
class Row:
    """A measured row: its group, and seconds by variant. `more`: bytes of `mapped` and `own` over those of `closed`, a share."""

    group: str
    row: str
    chip: str
    generation: str
    profile: str
    measured_s: float
    seconds: dict[str, float]
    more: dict[str, float]

    def fields(self) -> list[str]:
        numbers = [f"{x:.4g}" for x in (self.measured_s, *self.seconds.values(), *self.more.values())]
        return [self.group, self.row, self.chip, self.generation, self.profile, *numbers]

    @classmethod
    def of(cls, fields: Sequence[str]) -> Row:
        measured, *numbers = (float(x) for x in fields[5:])
        group, row, chip, generation, profile = fields[:5]
        seconds, more = dict(zip(VARIANTS, numbers)), dict(zip(("mapped", "own"), numbers[len(VARIANTS) :]))
        return cls(group, row, chip, generation, profile, measured, seconds, more)


HEAD = ["group", "row", "chip", "generation", "profile", "measured_s", *(f"{v}_s" for v in VARIANTS), "mapped_more", "own_more"]


def best(part: Part, arch: Architecture) -> MappedOp | None:
    """The mapping of least time, to 1 % or LIMIT_S; None where nothing fits."""
    question = Question(replace(part.problem, name="product"), arch, "latency", "imperfect", LIMIT_S, 0.01)
    if question.key not in MAPPED:
        try:
            MAPPED[question.key] = map_op(
                question.problem, arch, "latency", factors="imperfect", time_limit_s=LIMIT_S, gap=0.01
            )  # fmt: skip
        except ImpossibleSpace:
            MAPPED[question.key] = None
    return MAPPED[question.key]


@lru_cache(maxsize=256)
def machine(chip: str, engine: str, bits: int, own: bool) -> Architecture:
    arch = engine_machine(load_chip(chip), engine, bits).arch
    if not own:
        return arch
    return replace(arch, nodes=tuple(n for n in arch.nodes if not (isinstance(n, Level) and n.name == "slc")))


def root_bytes(mapped: MappedOp, tensor: str) -> float:
    """Bytes of a tensor over the outermost port."""
    moved = mapped.counts.traffic.get((mapped.arch.levels[0].name, tensor))
    if moved is None or not mapped.problem.pays_root(tensor):
        return 0.0
    return (moved.reads + moved.writes) * mapped.problem.bits[tensor] / 8


def once_bytes(problem: Problem, tensor: str) -> float:
    """Bytes of a tensor once: what the closed form holds for it."""
    if not problem.pays_root(tensor):
        return 0.0
    axes = [axis_footprint(axis, tuple(problem.sizes[d] for d in axis.dims)) for axis in problem.access(tensor)]
    return float(np.prod([float(a) for a in axes])) * problem.bits[tensor] / 8


def price(group: str, case: Case, graph: Graph) -> Row | None:
    """All variants of one row; None where a product has no mapping."""
    hw, values, engine = HardwareArrays.of(case.soc), case.profile.values(), case.profile.engine
    model, rules = engine_model(case.profile), case.profile.rules
    alone = Products(graph, 0.0, weights_stay=False)
    around = products_of(graph, case.soc, on_chip_bytes(machine(case.soc.id, engine, 16, False)))
    seconds = dict.fromkeys(VARIANTS, float(call_seconds(hw, values)) * sum(c.weight for c in case.calls))
    total, more = 0.0, {"mapped": 0.0, "own": 0.0}
    for call in case.calls:
        arrays = case.table.evaluate(call.bindings)
        closed = model(arrays, hw, values, rules).total
        extra = {v: {name: np.zeros(len(arrays)) for name in COUNTED} for v in more}
        attainable = closed.copy()
        for i, kernel in enumerate(case.table.kernels):
            parts = alone.parts(kernel, call.bindings)
            for variant in more:
                for part in parts:
                    arch = thinned(machine(case.soc.id, engine, part.bits, variant == "own"), part.density)
                    mapped = best(part, arch)
                    if mapped is None:
                        return None
                    for tensor, field in zip(part.problem.tensors, (*COUNTED[: len(part.problem.inputs)], "output_bytes")):
                        extra[variant][field][i] += part.times * (root_bytes(mapped, tensor) - once_bytes(part.problem, tensor))
            if parts:
                attainable[i] = 0.0
                for part in around.parts(kernel, call.bindings):
                    mapped = best(part, thinned(machine(case.soc.id, engine, part.bits, False), part.density))
                    if mapped is None:
                        return None
                    attainable[i] += part.times * kernel.count * mapped.estimate.latency_cycles / mapped.arch.clock_hz
        moved = sum((arrays.counts[n] for n in (*COUNTED, "state_bytes")), np.zeros(len(arrays)))
        total += call.weight * float((moved * arrays.count).sum())
        seconds["closed"] += call.weight * float(closed.sum())
        seconds["attainable"] += call.weight * float(attainable.sum())
        for variant, by_field in extra.items():
            counts = {n: c + by_field[n] if n in by_field else c for n, c in arrays.counts.items()}
            seconds[variant] += call.weight * float(model(KernelArrays(arrays.kernels, counts), hw, values, rules).total.sum())
            more[variant] += call.weight * float((sum(by_field.values()) * arrays.count).sum())
    floored = {v: max(s, case.bound_s) if v != "attainable" else s for v, s in seconds.items()}
    known = (group, case.row.id, case.soc.id, case.generation, case.profile.name, case.measured_s)
    return Row(*known, floored, {v: m / total for v, m in more.items()})


def errors(rows: Sequence[Row], variant: str, refitted: bool) -> float:
    """Median |predicted / measured - 1|."""
    found = []
    for row in rows:
        factor = 1.0
        if refitted:
            others = [
                r.measured_s / r.seconds[variant] for r in rows
                if r.profile == row.profile and r.generation != row.generation
            ]  # fmt: skip
            factor = float(np.median(others)) if others else 1.0
        found.append(abs(row.seconds[variant] * factor / row.measured_s - 1.0))
    return float(np.median(found))


def spread(cases: Sequence[Case], most: int) -> list[Case]:
    """At most so many, evenly over the list sorted by chip and row."""
    ordered = sorted(cases, key=lambda c: (c.soc.id, c.row.id))
    return [ordered[round(i)] for i in np.linspace(0, len(ordered) - 1, min(most, len(ordered)))]


def chosen(most: int) -> Iterator[tuple[str, Case, Graph]]:
    """(group, case, graph) of the rows that are compared; what takes longer to map is compared on fewer."""
    suite_case.lower = keep  # type: ignore[attr-defined]
    groups: dict[str, list[Case]] = {}
    for case in load_suite("kernels").cases:
        if case.family in FAMILIES and id(case.table) in GRAPHS:
            groups.setdefault(f"{FAMILIES[case.family]}, {case.profile.engine.upper()}", []).append(case)
    few = max(1, most // 4)
    dense = [r for r in scored(read_rows()) if r.engine == "gpu" and r.batch == 1 and (r.prompt or 512) <= 512]
    for phase in ("prefill", "decode"):
        mine = sorted((r for r in dense if r.phase == phase), key=lambda r: (r.chip, r.id))
        for i in dict.fromkeys(round(i) for i in np.linspace(0, len(mine) - 1, 2 * few)):
            case = make_case(mine[i])
            if case.stratum == f"dense GPU, {phase}":
                skip = bool(case.profile.rules.get("skip_shared_prefill"))
                yield f"language models, GPU, {phase}", case, graph_of(case.row, skip)
    nets: dict[str, list[Case]] = {}
    for case in load_suite("vision").cases:
        if case.stratum in ("inference", "network") and case.row.model in NETWORKS and id(case.table) in GRAPHS:
            nets.setdefault(f"networks, {case.profile.engine.upper()}", []).append(case)
    for group, cases in nets.items():
        for case in spread(cases, max(1, few // 2)):
            yield group, case, GRAPHS[id(case.table)][1]
    for group, cases in groups.items():
        for case in spread(cases, most // 2 if "conv" in group or "att" in group else most):
            yield group, case, GRAPHS[id(case.table)][1]


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--rows", type=int, default=32, help="rows of a group at most; fewer of what takes longer to map")
    options.add_argument("--seconds", type=float, default=400, help="wall seconds, then the rest is left out")
    options.add_argument("--again", action="store_true", help="price all rows anew, not those alone that the record lacks")
    given = options.parse_args()
    started, left = time.monotonic(), 0
    path = RESULTS / "mapped_counts.csv"
    old = [] if given.again or not path.exists() else list(csv.reader(path.read_text(encoding="utf-8").splitlines()))[1:]
    rows = [Row.of(fields) for fields in old]
    done = {r.row for r in rows}
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerows([HEAD, *old])
        file.flush()
        for group, case, graph in chosen(given.rows):
            if time.monotonic() - started > given.seconds:
                break
            if case.row.id in done:
                continue
            row = price(group, case, graph)
            left += row is None
            if row is not None:
                rows.append(row)
                writer.writerow(row.fields())
                file.flush()
                print(*row.fields(), flush=True)
    lines = []
    for refitted in (False, True):
        shown = []
        for group in (*dict.fromkeys(r.group for r in rows), "all"):
            mine = [r for r in rows if group in (r.group, "all")]
            moved = sum(abs(r.more["mapped"]) > 1e-3 for r in mine), sum(abs(r.more["own"]) > 1e-3 for r in mine)
            shown.append((group, len(mine), *(f"{errors(mine, v, refitted) * 100:.1f}" for v in VARIANTS), *moved))
        head = ["rows", "n", *(f"{v}, %" for v in VARIANTS), "other bytes: mapped", "own"]
        lines += ["Refitted:" if refitted else "As they are:", "", *table(head, shown), ""]
    open_ = sum(m is not None and not m.optimal for m in MAPPED.values())
    lines.append(
        "Median |predicted / measured - 1|; other bytes: rows whose bytes differ by more than 0.1 %. The last piece mapped "
        f"{len(MAPPED)} products anew, {open_} of them not proven within 1 % in {LIMIT_S:g} s; {left} rows without a mapping. "
        "Rows, measured and by variant: `mapped_counts.csv`."
    )
    print(write("mapped_counts", "Closed-form and mapped byte counts against measured rows", lines))


if __name__ == "__main__":
    main()
