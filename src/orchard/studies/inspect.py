"""What is in a model: its graph, counts per op kind and per module, parameters, MACs, free sizes. No machine is involved."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from orchard.cost.eligibility import Finding, ane_findings, cpu_findings, generation_of, gpu_findings
from orchard.cost.work import work_of
from orchard.hw import SoC, load_chip
from orchard.ir import Graph, Role, Size, bind, print_graph
from orchard.ir.count import macs_of
from orchard.studies.errors import StudyError
from orchard.studies.request import Request
from orchard.studies.sources import open_model
from orchard.workloads import Model, weight_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class KindCount:
    """Ops of one kind (`einsum`, `elementwise.silu`, ...), their MACs and other operations; sizes may be symbolic."""

    kind: str
    ops: int
    macs: Size
    vector_ops: Size


@dataclass(frozen=True, slots=True, kw_only=True)
class Module:
    """One module path with everything below it: ops, parameters it reads first, MACs."""

    path: str
    ops: int
    parameters: int
    macs: Size


@dataclass(frozen=True, slots=True, kw_only=True)
class Residence:
    """Ops of one kind with the same answers: which engines take them, and why the others do not.

    `refusals` maps an engine to its reasons, `slow` to what only makes the op slower there; `first` names one op.
    """

    kind: str
    ops: int
    first: str
    refusals: Mapping[str, tuple[str, ...]]
    slow: Mapping[str, tuple[str, ...]]

    def runs_on(self, engine: str) -> bool:
        return engine not in self.refusals


@dataclass(frozen=True, kw_only=True)
class Inspection:
    """What `orchard inspect` shows. `formats`: weight elements by number format.

    part: which of the `parts` of a model of several this is (Whisper, a pipeline); None for a model of one graph.
    """

    name: str
    family: str
    symbols: tuple[str, ...]
    inputs: Mapping[str, tuple[str, tuple[Size, ...]]]
    outputs: Mapping[str, tuple[str, tuple[Size, ...]]]
    parameters: int
    weight_bytes: int
    formats: Mapping[str, int]
    macs: Size
    kinds: tuple[KindCount, ...]
    modules: tuple[Module, ...]
    graph: Graph
    part: str | None = None
    parts: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    residence: tuple[Residence, ...] | None = None

    @property
    def text(self) -> str:
        """The graph in text form."""
        return print_graph(self.graph)


def inspect(
    model: str,
    *,
    inputs: tuple[str, ...] = (),
    weights: str | None = None,
    assume_elementwise: tuple[str, ...] = (),
    engines_of: str | None = None,
    part: str | None = None,
) -> Inspection:
    """Open a model as `predict` does and count it; `engines_of` names a chip to say which engine takes which op.
    `part`: of a model of several graphs another than the main one.

    Raises an OrchardError for what cannot be opened.
    """
    request = Request(
        model=model, chip=engines_of or "m1", inputs=inputs, weights=weights, assume_elementwise=assume_elementwise
    )
    opened = open_model(request)
    parts = opened.parts if isinstance(opened, Model) and len(opened.parts) > 1 else ()
    if part is not None and part not in parts:
        has = ", ".join(parts) or "only one"
        raise StudyError(f"--part {part[:60]!r}: {opened.name} has no such part; parts: {has}")
    graph = opened.graph(weights=weights, part=part) if part else opened.graph(weights=weights)
    return Inspection(
        name=opened.name,
        family=opened.family,
        symbols=graph.symbols,
        inputs={t.name: (t.format, t.shape) for t in graph.of_role(Role.INPUT)},
        outputs={n: (graph.tensors[n].format, graph.tensors[n].shape) for n in graph.outputs},
        parameters=graph.parameters,
        weight_bytes=weight_bytes(graph),
        formats=_formats(graph),
        macs=_sum(macs_of(op, graph) for op in graph.ops),
        kinds=_kinds(graph),
        modules=_modules(graph),
        graph=graph,
        part=(part or parts[0]) if parts else None,
        parts=parts,
        warnings=opened.warnings,
        residence=residence(graph, load_chip(engines_of)) if engines_of else None,
    )


def residence(graph: Graph, soc: SoC) -> tuple[Residence, ...]:
    """Which engines of a chip take each op, equal answers together, in program order."""
    refusals: dict[str, dict[str, list[str]]] = {}
    slow: dict[str, dict[str, list[str]]] = {}
    for engine, findings in engine_findings(graph, soc).items():
        for f in findings:
            into = refusals if f.blocks else slow
            into.setdefault(f.op, {}).setdefault(engine, []).append(f"{f.rule}: {f.reason} [{f.source}]")
    grouped: dict[tuple[object, ...], Residence] = {}
    for op in graph.ops:
        if op.kind == "view":
            continue
        fn = op.attrs.get("fn")
        kind = f"{op.kind}.{fn}" if isinstance(fn, str) else op.kind
        no = {e: tuple(r) for e, r in refusals.get(op.name, {}).items()}
        bad = {e: tuple(r) for e, r in slow.get(op.name, {}).items()}
        key = (kind, tuple(no.items()), tuple(bad.items()))
        before = grouped.get(key)
        grouped[key] = Residence(
            kind=kind,
            ops=1 + (before.ops if before else 0),
            first=before.first if before else op.name,
            refusals=no,
            slow=bad,
        )
    return tuple(grouped.values())


def engine_findings(graph: Graph, soc: SoC) -> dict[str, list[Finding]]:
    """What each engine of the chip says about each op."""
    max_dim = int(soc.get("ane.max_dim") or 16384)
    generation = generation_of(soc.id, max_dim)
    return {
        "ane": list(
            ane_findings(
                graph, max_dim=max_dim, generation=generation, operand_bytes=float(soc.get("ane.operand_limit") or 0.0)
            )
        ),
        "gpu": list(gpu_findings(graph)),
        "cpu": list(cpu_findings(graph, generation=generation)),
    }


def _formats(graph: Graph) -> dict[str, int]:
    found: dict[str, int] = {}
    for weight in graph.weights:
        found[weight.format] = found.get(weight.format, 0) + bind(weight.elements, {})
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def _kinds(graph: Graph) -> tuple[KindCount, ...]:
    counts: dict[str, list[Size]] = {}
    for op in graph.ops:
        fn = op.attrs.get("fn")
        row = counts.setdefault(f"{op.kind}.{fn}" if isinstance(fn, str) else op.kind, [0, 0, 0])
        row[0] = row[0] + 1
        row[1] = row[1] + macs_of(op, graph)
        row[2] = row[2] + work_of(op, graph).vector_ops
    rows = [KindCount(kind=k, ops=int(str(r[0])), macs=r[1], vector_ops=r[2]) for k, r in counts.items()]
    return tuple(sorted(rows, key=lambda r: -r.ops))


def _modules(graph: Graph) -> tuple[Module, ...]:
    """Every prefix of every scope, in program order; a weight belongs to the module that reads it first."""
    ops: dict[str, int] = {}
    parameters: dict[str, int] = {}
    macs: dict[str, Size] = {}
    seen: set[str] = set()
    for op in graph.ops:
        fresh = [t for t in graph.inputs_of(op) if t.role is Role.WEIGHT and t.name not in seen]
        seen.update(t.name for t in fresh)
        own, work = sum(bind(t.elements, {}) for t in fresh), macs_of(op, graph)
        parts = op.scope.split(".") if op.scope else []
        for depth in range(len(parts) + 1):
            path = ".".join(parts[:depth])
            ops[path] = ops.get(path, 0) + 1
            parameters[path] = parameters.get(path, 0) + own
            macs[path] = macs.get(path, 0) + work
    return tuple(Module(path=p, ops=ops[p], parameters=parameters[p], macs=macs[p]) for p in ops)


def _sum(sizes: object) -> Size:
    total: Size = 0
    for size in sizes:  # type: ignore[attr-defined]
        total = total + size
    return total
