"""Compute plans of Core ML and Core AI: where the system would run each op, priced by our model beside the best placement.

Two JSON forms are read (docs/placement.md has the scripts that write them):

* Core ML: `{"ops": [{"name", "operator", "preferred", "supported", "cost"}]}`, one entry per operation of the program in order
* Core AI: what `ComputePlan.from_program(program).to_dict(program)` of coreai-torch returns: `entries` with `operation_id`,
  `devices`, `residency` and `operation_names` by id

A plan names the operations of its own program; importing folds some of them. So operations are matched in order: those whose
name is a tensor of the graph first, the others by their kind, as the longest common run of kinds. An op without a match runs
where the op before it does.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from orchard.ir import Graph
from orchard.studies.errors import StudyError
from orchard.studies.place_problem import Option, Part, Placing
from orchard.studies.place_why import value_of_choice

Ints = NDArray[np.int64]
DEVICES = {
    "cpu": "cpu", "gpu": "gpu", "neuralengine": "ane", "neural_engine": "ane", "ane": "ane",
    "mlcpucomputedevice": "cpu", "mlgpucomputedevice": "gpu", "mlneuralenginecomputedevice": "ane",
}  # fmt: skip
LEAST_MATCHED = 0.5
MOST_BYTES = 200_000_000
KINDS = {
    "conv": "einsum", "linear": "einsum", "matmul": "einsum", "einsum": "einsum", "dot": "einsum", "mm": "einsum",
    "scaled_dot_product": "attention", "sdpa": "attention", "softmax": "softmax", "norm": "norm", "gather": "gather",
    "embedding": "gather", "reduce": "reduce", "pool": "pool", "resize": "resize", "upsample": "resize", "topk": "topk",
    "lstm": "scan", "gru": "scan", "rnn": "scan", "transpose": "move", "concat": "move", "slice": "move", "pad": "move",
    "tile": "move", "cast": "move", "split": "move",
}  # fmt: skip
"""What a part of an operator's name says about its kind; what none says is element-wise."""
SILENT = ("const", "reshape", "expand_dims", "squeeze", "identity", "output", "graph", "module", "invoke", "state", "read_state")


@dataclass(frozen=True, slots=True)
class PlannedOp:
    name: str
    operator: str
    engine: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """Units in a row that the system runs elsewhere. `change`: the plan's value after moving just these to the best's engine,
    less the plan's value (negative: it gains). `blocked`: ops of the run that our rules keep off the engine the system
    chose."""

    system: str
    best: str
    ops: int
    first: str
    last: str
    change: float
    blocked: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanDifference:
    """`value` and `best` in the objective's unit over the request. `matched` of `planned` operations were found in the graph."""

    source: str
    planned: int
    matched: int
    value: float
    best: float
    engines: Mapping[str, int]
    differences: tuple[Difference, ...]

    def to_dict(self) -> dict[str, Any]:
        return {
            "source": self.source, "planned_ops": self.planned, "matched_ops": self.matched, "value": self.value,
            "times_best": self.value / self.best if self.best else None, "engine_ops": dict(self.engines),
            "differences": [{n: getattr(d, n) for n in Difference.__slots__} for d in self.differences],
        }  # fmt: skip


def read_plan(path: str) -> tuple[str, tuple[PlannedOp, ...]]:
    """(coreml or coreai, operations that have a device). Raises StudyError for what is no compute plan."""
    file = Path(path)
    try:
        if file.stat().st_size > MOST_BYTES:
            raise StudyError(f"--plan {path}: {file.stat().st_size:,} bytes, expected at most {MOST_BYTES:,}")
        data = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise StudyError(f"--plan {path}: {error.strerror or 'cannot be read'}") from None
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise StudyError(f"--plan {path}: no JSON ({str(error)[:80]})") from None
    if isinstance(data, dict) and isinstance(data.get("ops"), list):
        return "coreml", tuple(_coreml(data["ops"], path))
    if isinstance(data, dict) and isinstance(data.get("entries"), list):
        return "coreai", tuple(_coreai(data, path))
    raise StudyError(
        f"--plan {path}: no compute plan; expected an object with `ops` (Core ML) or `entries` (Core AI), see docs/placement.md"
    )


def _coreml(ops: Sequence[Any], path: str) -> Iterator[PlannedOp]:
    for index, op in enumerate(ops):
        if not isinstance(op, dict) or not isinstance(op.get("operator"), str) or "preferred" not in op:
            raise StudyError(f"--plan {path}: ops[{index}]: expected an object with name, operator and preferred")
        if op["preferred"] is not None:
            engine = _engine(op["preferred"], f"--plan {path}: ops[{index}].preferred")
            yield PlannedOp(str(op.get("name", "")), op["operator"].rpartition(".")[2], engine)


def _coreai(data: Mapping[str, Any], path: str) -> Iterator[PlannedOp]:
    names = data.get("operation_names")
    if not isinstance(names, dict):
        raise StudyError(
            f"--plan {path}: no operation_names; write the plan with to_dict(program), so that it knows its operations"
        )
    for index, entry in enumerate(data["entries"]):
        if not isinstance(entry, dict) or "operation_id" not in entry or not isinstance(entry.get("devices"), list):
            raise StudyError(f"--plan {path}: entries[{index}]: expected an object with operation_id and devices")
        devices = [d for d in entry["devices"] if str(d).upper() != "UNKNOWN"]
        operator = str(names.get(str(entry["operation_id"]), "")).rpartition(".")[2]
        if devices and operator:
            yield PlannedOp("", operator, _engine(devices[0], f"--plan {path}: entries[{index}].devices"))


def _engine(text: Any, where: str) -> str:
    found = DEVICES.get(str(text).lower().replace("computedevice.", ""))
    if found is None:
        raise StudyError(f"{where}: got {str(text)[:40]!r}, expected CPU, GPU or NeuralEngine")
    return found


def kind_of(operator: str) -> str:
    """Kind of op that an operator's name stands for; empty for one that launches nothing."""
    if operator in SILENT:
        return ""
    return next((kind for part, kind in KINDS.items() if part in operator), "elementwise")


def match(planned: Sequence[PlannedOp], graph: Graph) -> dict[str, str]:
    """Engine by op name for every op of the graph that a planned operation was found for."""
    by_name = {p.name: p.engine for p in planned if p.name}
    found = {op.name: by_name[n] for op in graph.ops for n in op.outputs if n in by_name}
    theirs = [p for p in planned if kind_of(p.operator)]
    ours = [op for op in graph.ops if op.kind not in ("view", "fill")]
    matcher = SequenceMatcher(
        None, [kind_of(p.operator) for p in theirs], [_our_kind(op.kind) for op in ours], autojunk=False
    )
    for block in matcher.get_matching_blocks():
        for step in range(block.size):
            found.setdefault(ours[block.b + step].name, theirs[block.a + step].engine)
    return found


def _our_kind(kind: str) -> str:
    return {"rope": "elementwise", "update": "move"}.get(kind, kind)


def compare_plan(placing: Placing, best: Ints, path: str, objective: str) -> PlanDifference:
    """The system's placement priced by our model. Raises StudyError for a plan of another model or with engines left out."""
    source, planned = read_plan(path)
    used = sorted({p.engine for p in planned})
    known = {o.engine for o in placing.options}
    missing = [e for e in used if e not in known]
    if missing:
        raise StudyError(f"--plan {path}: it runs ops on {missing[0]}, which --engines leaves out; add it to compare")
    choice = best.copy()
    matched = 0
    for part in placing.parts:
        engines = match(planned, part.graph)
        matched = max(matched, len(engines))
        _follow(placing, part, engines, choice)
    largest = max(sum(op.kind not in ("view", "fill") for op in part.graph.ops) for part in placing.parts)
    if matched < LEAST_MATCHED * largest:
        raise StudyError(
            f"--plan {path}: {matched} of the model's {largest} ops are in the plan; is it a plan of another model?"
        )
    value = value_of_choice(placing, choice, objective)
    return PlanDifference(
        source=source, planned=len(planned), matched=matched, value=value, best=value_of_choice(placing, best, objective),
        engines={e: sum(p.engine == e for p in planned) for e in used},
        differences=tuple(_differences(placing, choice, best, value, objective)),
    )  # fmt: skip


def _follow(placing: Placing, part: Part, engines: Mapping[str, str], choice: Ints) -> None:
    """Put the units of a phase where the plan puts their ops: the engine of the products among them, else of most ops."""
    product = {op.name for op in part.graph.ops if op.kind == "einsum"}
    previous = next(iter(engines.values()), placing.options[0].engine)
    for unit, ops in enumerate(part.units.ops):
        votes: dict[str, int] = {}
        for op in ops:
            if op in engines:
                votes[engines[op]] = votes.get(engines[op], 0) + (len(ops) if op in product else 1)
        engine = max(votes, key=lambda e: votes[e]) if votes else previous
        previous = engine
        choice[part.first + unit] = _option(placing, engine)


def _option(placing: Placing, engine: str) -> int:
    """Core ML and Core AI compute in FP16 on the Neural Engine whatever the file says."""
    precisions = {o.precision for o in placing.options}
    wanted = Option(engine, "f16" if engine == "ane" and "f16" in precisions else placing.options[0].precision)
    return placing.options.index(wanted)


def _differences(placing: Placing, system: Ints, best: Ints, value: float, objective: str) -> Iterator[Difference]:
    for part in placing.parts:
        run: list[int] = []
        for node in [*part.nodes, -1]:
            here = (_engines(placing, system, best, node)) if node >= 0 else None
            before = _engines(placing, system, best, run[-1]) if run else None
            if run and here != before:
                yield _difference(placing, part, run, system, best, value, objective)
                run = []
            if here is not None and here[0] != here[1]:
                run.append(node)


def _engines(placing: Placing, system: Ints, best: Ints, node: int) -> tuple[str, str]:
    return placing.options[int(system[node])].engine, placing.options[int(best[node])].engine


def _difference(
    placing: Placing, part: Part, run: list[int], system: Ints, best: Ints, value: float, objective: str
) -> Difference:
    moved = system.copy()
    moved[run] = best[run]
    names = [op for node in run for op in part.units.ops[node - part.first]]
    theirs, ours = _engines(placing, system, best, run[0])
    blocked = {f.op for node in run for f in placing.reasons(node, placing.options[int(system[node])])}
    return Difference(
        system=theirs, best=ours, ops=len(names), first=names[0], last=names[-1],
        change=value_of_choice(placing, moved, objective) - value, blocked=len(blocked),
    )  # fmt: skip
