"""What single ops cost on an engine, before and after a change: the prices behind `orchard lint`.

Every op is priced alone by the engine model of a profile, so fused neighbours count a little too much. What a rule changes is
applied to the counts or formats the model reads:

| rule | before | after |
|---|---|---|
| any that blocks | the op elsewhere, and what it reads and makes handed over (`cost/handover.py`) | the op on the engine |
| dtype | activations as stored | in FP16 |
| padding | bytes times the padding of the last axis | bytes |
| layout | a matrix product | a third of its compute time, as a 1x1 convolution [maderix-ane] |
| operand | bytes above the on-chip limit pass through DRAM | as many launches as chunks, nothing through DRAM |
| palette, blockwise | as stored; blocks expanded to FP16 | one palette of the same bits per tensor |
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from math import ceil

from orchard.cost.eligibility import FEW_ROWS, product_rows
from orchard.cost.errors import CostError
from orchard.cost.evaluate import Stacked, engine_model
from orchard.cost.lower import KernelArrays, lower
from orchard.cost.profile import Profile
from orchard.hw import HardwareArrays
from orchard.ir import Graph, Op, Role
from orchard.units import find_format

LAYOUT_GAIN = 3.0
"""A matmul written as 1x1 convolution is about 3 times faster on M4 [maderix-ane]."""
ALIGN_ELEMENTS = 32
"""64 bytes of FP16."""
BYTES = ("input_bytes", "output_bytes")


@dataclass(frozen=True)
class OpPrices:
    """Seconds of single ops of `graph` (all sizes fixed) under one profile on one chip. Answers are kept."""

    graph: Graph
    profile: Profile
    hw: HardwareArrays
    _kept: dict[object, float] = field(default_factory=dict, repr=False)

    def seconds(self, op: Op, rules: frozenset[str] = frozenset()) -> float:
        """The op with the given slow-downs in force; none of them: as the engine model has it."""
        key = (_signature(op, self.graph), rules)
        if key not in self._kept:
            self._kept[key] = self._price(op, rules)
        return self._kept[key]

    def _price(self, op: Op, rules: frozenset[str]) -> float:
        graph = _alone(op, self.graph, rules)
        try:
            counts = lower(graph, self.profile.lowering).evaluate({})
        except CostError:
            return 0.0
        if not len(counts):
            return 0.0
        return self._time(counts, op, rules)

    def _time(self, counts: KernelArrays, op: Op, rules: frozenset[str]) -> float:
        hw, values = dict(self.hw.values), self.profile.values()
        limit = float(hw.get("ane.operand_limit", 0.0) or 0.0)
        floor = values.get("op_floor_s", 0.0)
        launches = 0
        scale = {name: _waste(op, self.graph) for name in BYTES} if "padding" in rules else {}
        if self.profile.engine == "ane" and limit and "operand" not in rules:
            moved = float(sum(counts.counts[n].sum() for n in BYTES))
            launches = max(ceil(moved / limit) - 1, 0)
            hw["ane.operand_limit"] = float("inf")
        changed = KernelArrays(
            kernels=counts.kernels, counts={n: v * scale.get(n, 1.0) for n, v in counts.counts.items()}
        )
        terms = engine_model(self.profile)(changed, Stacked(hw), values, self.profile.rules)
        compute = float(terms.compute.sum()) * self._form(op, rules)
        return compute + float(terms.memory.sum()) + float(terms.dispatch.sum()) + launches * floor

    def _form(self, op: Op, rules: frozenset[str]) -> float:
        """Factor on compute time for the form of a product: profiles of networks are of convolutions, others of matmuls."""
        if self.profile.engine != "ane" or (product_rows(op, self.graph) or 0) < FEW_ROWS:
            return 1.0
        slow = "layout" in rules
        if self.profile.model == "ane-nets":
            return LAYOUT_GAIN if slow else 1.0
        return 1.0 if slow else 1.0 / LAYOUT_GAIN


def _signature(op: Op, graph: Graph) -> object:
    tensors = (*graph.inputs_of(op), *graph.outputs_of(op))
    return op.kind, tuple(sorted((k, str(v)) for k, v in op.attrs.items())), tuple((t.shape, t.format, t.role) for t in tensors)


def _alone(op: Op, graph: Graph, rules: frozenset[str]) -> Graph:
    """A graph of one op, its operands as inputs; weights in the formats the rules leave."""
    tensors = {n: graph.tensors[n] for n in dict.fromkeys((*op.inputs, *op.outputs))}
    made = set(op.outputs)
    leaves = {
        n: t if n in made or t.role is not Role.ACTIVATION else replace(t, role=Role.INPUT) for n, t in tensors.items()
    }
    one = Graph(name=graph.name, symbols=(), tensors=leaves, ops=[op], outputs=list(op.outputs))
    return one.with_formats({n: _format(t.format, t.role, rules) for n, t in one.tensors.items()})


def _format(name: str, role: Role, rules: frozenset[str]) -> str:
    if role is not Role.WEIGHT:
        return "f16" if name in ("f32", "f64", "bf16") and "dtype" not in rules else name
    format = find_format(name)
    if format is None:
        return name
    if format.kind == "palette" and format.rows_per_table and "palette" not in rules:
        return f"pal{name[3]}"
    if format.family == "coreml" and format.kind == "block" and format.block > 1:
        return "f16" if "blockwise" in rules else f"pal{name[3]}"
    return name


def _waste(op: Op, graph: Graph) -> float:
    """How often the last axis of the result is padded."""
    last = graph.outputs_of(op)[0].shape[-1:]
    return ALIGN_ELEMENTS / last[0] if last and isinstance(last[0], int) and 0 < last[0] < ALIGN_ELEMENTS else 1.0
