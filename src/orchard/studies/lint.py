"""What keeps a model off an engine or slows it there, grouped, with the predicted gain of each change: `orchard lint`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod

from orchard.cost.eligibility import ENGINES, Finding
from orchard.cost.handover import HandOverPrices
from orchard.cost.lower import cached_tensors
from orchard.cost.units import view_roots
from orchard.hw import HardwareArrays, SoC, load_chip
from orchard.ir import Graph, Role, value_of
from orchard.studies.errors import StudyError
from orchard.studies.inspect import engine_findings
from orchard.studies.lint_prices import OpPrices
from orchard.studies.request import Request
from orchard.studies.runtimes import choose_profile, network_runtime
from orchard.studies.sources import ImportedModel, bind_symbols, open_model, served_as
from orchard.units import number_format
from orchard.workloads import Model

TARGETS = ENGINES
FALLBACKS = {"ane": ("gpu", "cpu"), "gpu": ("cpu",), "cpu": ()}
WIDE = ("f32", "f64", "bf16")
CORE = ("coreml", "coreai")
"""Sources whose programs already say in which precision they compute."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LintGroup:
    """Equal findings: how many ops, the first of them, and what the change saves (estimate, seconds a pass).

    `gain_s` counts from the groups before it, all of their changes made: so the gains of a report add up to now - then. It is
    None where the change cannot be priced.
    """

    rule: str
    reason: str
    change: str
    blocks: bool
    source: str
    ops: int
    first: str
    gain_s: float | None = None


@dataclass(frozen=True, kw_only=True)
class LintReport:
    """`now_s` is one pass as the model is, ops that the target does not take on `fallback`; `then_s` with every change made.

    Both are estimates. `notes` say at which sizes and in which precision.
    """

    model: str
    chip: str
    target: str
    ops: int
    groups: tuple[LintGroup, ...]
    fallback: str = ""
    now_s: float | None = None
    then_s: float | None = None
    notes: tuple[str, ...] = ()


def lint(
    model: str,
    chip: str,
    *,
    target: str = "ane",
    inputs: tuple[str, ...] = (),
    assume_elementwise: tuple[str, ...] = (),
    weights: str | None = None,
    batch: int = 1,
    prompt: int = 512,
) -> LintReport:
    """Findings of a model against an engine, those that block first. Raises an OrchardError for what cannot be opened."""
    if target not in TARGETS:
        raise StudyError(f"target {target!r} is not known; expected {', '.join(TARGETS)}")
    request = Request(
        model=model, chip=chip, inputs=inputs, assume_elementwise=assume_elementwise, weights=weights, batch=batch,
        prompt=prompt,
    )  # fmt: skip
    soc = load_chip(chip)
    opened = open_model(request)
    graph, notes = _as_converted(opened, opened.graph(weights=weights), target)
    fixed = _at_sizes(graph, opened, request)
    if fixed.symbols:
        notes += (f"no times: {', '.join(fixed.symbols)} open; give sizes with --input name=shape",)
    elif fixed is not graph:
        notes += (f"priced at {', '.join(f'{k}={v}' for k, v in _sizes(graph, opened, request).items())}",)
    findings = _findings(graph, fixed, soc, target)
    costs = _Costs.of(fixed, soc, target, served_as(opened), findings)
    groups = _grouped(findings, costs)
    now = costs.total() if costs else None
    away = costs.elsewhere if costs and costs.blocked else None
    return LintReport(
        model=model, chip=soc.id, target=target, ops=len(graph.ops), groups=groups, now_s=now,
        fallback=away.profile.engine if away else "",
        then_s=None if now is None else now - sum(g.gain_s or 0.0 for g in groups), notes=(*opened.warnings, *notes),
    )  # fmt: skip


def _as_converted(opened: Model | ImportedModel, graph: Graph, target: str) -> tuple[Graph, tuple[str, ...]]:
    """A 32-bit graph of another source as Core ML converts it by default: in FP16."""
    wide = {t.name: "f16" for t in graph.tensors.values() if t.role is not Role.WEIGHT and t.format in WIDE}
    stored = isinstance(opened, ImportedModel) and opened.source.startswith(CORE)
    if target != "ane" or stored or not wide:
        return graph, ()
    return graph.with_formats(wide), ("activations are taken as FP16, as a conversion to Core ML makes them",)


def _sizes(graph: Graph, opened: Model | ImportedModel, request: Request) -> dict[str, int]:
    if isinstance(opened, ImportedModel) and opened.family == "imported":
        try:
            return dict(bind_symbols(graph, request))
        except StudyError:  # that a size is open is a finding; only its gain has no price
            return {}
    known = {"B": request.batch, "T": max(request.prompt, 1), "S": max(request.prompt, 1)}
    return {s: known[s] for s in graph.symbols if s in known}


def _at_sizes(graph: Graph, opened: Model | ImportedModel, request: Request) -> Graph:
    sizes = _sizes(graph, opened, request)
    return graph.bind(sizes) if graph.symbols and sizes else graph


def _findings(graph: Graph, fixed: Graph, soc: SoC, target: str) -> list[Finding]:
    """Of the graph at its sizes, and for the Neural Engine that some of them are open."""
    opened = [f for f in engine_findings(graph, soc)[target] if f.rule == "dynamic"] if graph.symbols else []
    return [*opened, *(f for f in engine_findings(fixed, soc)[target] if f.rule != "dynamic")]


@dataclass(frozen=True)
class _Costs:
    """Seconds of one pass with the rules that are in force."""

    graph: Graph
    here: OpPrices
    elsewhere: OpPrices | None
    blocked: Mapping[str, frozenset[str]]
    slowed: Mapping[str, frozenset[str]]
    flows: tuple[_Flow, ...]
    hand_over: HandOverPrices

    @classmethod
    def of(cls, graph: Graph, soc: SoC, target: str, serves: str, findings: Sequence[Finding]) -> _Costs | None:
        """None for a chip or an engine that no profile prices."""
        hw = HardwareArrays.of(soc)
        here = _prices(graph, hw, target, serves)
        if here is None or graph.symbols:
            return None
        elsewhere = next((p for e in FALLBACKS[target] if (p := _prices(graph, hw, e, serves)) is not None), None)
        return cls(
            graph=graph, here=here, elsewhere=elsewhere, blocked=_by_op(findings, blocks=True),
            slowed=_by_op(findings, blocks=False), flows=tuple(_flows(graph)), hand_over=HandOverPrices(hw),
        )  # fmt: skip

    def without(self, rule: str, ops: set[str]) -> _Costs:
        """These ops no longer break this rule."""

        def left(known: Mapping[str, frozenset[str]]) -> dict[str, frozenset[str]]:
            return {op: rules - {rule} if op in ops else rules for op, rules in known.items()}

        return replace(self, blocked=left(self.blocked), slowed=left(self.slowed))

    def total(self) -> float:
        """One pass, with what it hands from engine to engine, priced as `orchard place` does."""
        seconds = self.handed_over_s()
        for op in self.graph.ops:
            if op.kind == "view":
                continue
            out = self._away(op.name)
            slow = self.slowed.get(op.name, frozenset())
            prices = self.elsewhere if out and self.elsewhere is not None else self.here
            seconds += prices.seconds(op, frozenset() if out else slow)
        return seconds

    def handed_over_s(self) -> float:
        """Seconds of all tensors that are made on one engine and read on another."""
        if self.elsewhere is None:
            return 0.0
        there, here = self.elsewhere.profile.engine, self.here.profile.engine
        seconds = 0.0
        for flow in self.flows:
            readers = {there if self._away(op) else here for op in flow.readers}
            padded = self.hand_over.padded(flow.shape, flow.element_bytes) if flow.dense else 0.0
            seconds += self.hand_over.between(there if self._away(flow.source) else here, readers, flow.dense, padded)
        return seconds

    def _away(self, op: str) -> bool:
        return self.elsewhere is not None and bool(self.blocked.get(op))


@dataclass(frozen=True, slots=True)
class _Flow:
    """A tensor that op `source` makes and `readers` read, views of it included. `dense`: bytes; 0 for a cache, which stays."""

    source: str
    readers: tuple[str, ...]
    shape: tuple[int, ...]
    element_bytes: float
    dense: float


def _flows(graph: Graph) -> Iterator[_Flow]:
    roots, cached = view_roots(graph), cached_tensors(graph)
    maker = {name: op.name for op in graph.ops for name in op.outputs}
    readers: dict[str, list[str]] = {}
    for op in graph.ops:
        for name in op.inputs if op.kind != "view" else ():
            root = roots.get(name, name)
            if root in maker and graph.tensors[root].role is Role.ACTIVATION:
                readers.setdefault(root, []).append(op.name)
    for root, ops in readers.items():
        tensor = graph.tensors[root]
        shape = tuple(int(value_of(s, {})) for s in tensor.shape)
        width = number_format(tensor.format).bytes_per_element
        dense = 0.0 if root in cached else prod(shape) * width
        yield _Flow(maker[root], tuple(ops), shape, width, dense)


def _prices(graph: Graph, hw: HardwareArrays, engine: str, serves: str) -> OpPrices | None:
    for runtime in (network_runtime(engine), None):
        try:
            return OpPrices(graph, choose_profile(runtime, engine, None, serves), hw)
        except StudyError:
            continue
    return None


def _by_op(findings: Sequence[Finding], *, blocks: bool) -> dict[str, frozenset[str]]:
    found: dict[str, set[str]] = {}
    for f in findings:
        if f.blocks == blocks:
            found.setdefault(f.op, set()).add(f.rule)
    return {op: frozenset(rules) for op, rules in found.items()}


def _grouped(findings: Sequence[Finding], costs: _Costs | None) -> tuple[LintGroup, ...]:
    grouped: dict[tuple[str, str], LintGroup] = {}
    ops: dict[tuple[str, str], set[str]] = {}
    for f in findings:
        key = f.rule, f.reason
        before = grouped.get(key)
        ops.setdefault(key, set()).add(f.op)
        grouped[key] = LintGroup(
            rule=f.rule, reason=f.reason, change=f.change, blocks=f.blocks, source=f.source,
            ops=1 + (before.ops if before else 0), first=before.first if before else f.op,
        )  # fmt: skip
    order = sorted(grouped, key=lambda k: (not grouped[k].blocks, grouped[k].rule != "dynamic", -grouped[k].ops))
    found = []
    for key in order:
        gain = None
        if costs is not None:
            after = costs.without(key[0], ops[key])
            gain, costs = costs.total() - after.total(), after
        found.append(replace(grouped[key], gain_s=gain))
    return tuple(found)
