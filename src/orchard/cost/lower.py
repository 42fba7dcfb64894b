"""From ops to the kernels a runtime launches: which ops run as one, and what each kernel counts.

`lower` walks a graph once, groups ops by the runtime's fusion rules, merges kernels that are equal, and returns a
`KernelTable`: counts as exact sizes. `KernelTable.evaluate` turns them into float arrays for given symbol values. Nothing
here knows a machine; times are made in `orchard.cost.engines`.

Launch cost follows the dependency depth: a runtime that overlaps independent kernels (`concurrent`) waits once per level
of the graph, one that runs them in order waits once per kernel. Each kernel carries its share of those waits.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from orchard.cost.errors import CostError
from orchard.cost.work import (
    Count,
    Work,
    einsum_macs,
    einsum_of,
    einsum_sizes,
    is_routed,
    scan_sizes,
    tensor_bytes,
    work_of,
)
from orchard.ir import Graph, Op, Role, floordiv, product, value_of
from orchard.units import find_format

KINDS = ("linear", "expert", "attention", "vector", "scan")
"""linear: a weight product or any other Einsum; expert: a routed one; attention: scores, softmax and values in one
kernel; vector: everything that streams elements; scan: a recurrence over tokens."""

COUNTS = (
    "count", "launches", "batch", "rows", "columns", "depth", "macs", "vector_ops", "weight_elements", "weight_bytes",
    "state_bytes", "input_bytes", "output_bytes", "experts", "active", "sequences", "tokens", "kv_heads", "heads",
    "head_dim", "context", "taps", "stride",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Kernel:
    """One launch and its counts. Sizes may be symbolic.

    batch, rows, columns, depth   an Einsum as `batch` products of [rows, depth] x [depth, columns]
    weight_elements, weight_bytes of the weight operand, whole; for experts all of them
    experts, active               routed experts and the choices per token (kind `expert`)
    sequences, tokens, kv_heads, heads, head_dim, context   attention geometry; head_dim counts query-key and value dims
    taps, stride                  window of a convolution (1 for a matrix product)
    format, part                  number format and role of the weight operand
    moving                        number format of the operand that meets it
    level                         dependency depth; `scopes` are the module paths of the ops inside
    """

    kind: str
    name: str
    format: str = ""
    moving: str = ""
    part: str = ""
    count: int = 1
    launches: float = 1.0
    batch: Count = 1
    rows: Count = 0
    columns: Count = 0
    depth: Count = 0
    macs: Count = 0
    vector_ops: Count = 0
    weight_elements: Count = 0
    weight_bytes: Count = 0
    state_bytes: Count = 0
    input_bytes: Count = 0
    output_bytes: Count = 0
    experts: int = 0
    active: int = 0
    sequences: Count = 0
    tokens: Count = 0
    kv_heads: Count = 0
    heads: Count = 0
    head_dim: Count = 0
    context: Count = 0
    taps: Count = 1
    stride: Count = 1
    level: int = 0
    scope: str = ""
    ops: tuple[str, ...] = ()

    def merged_key(self) -> tuple[Any, ...]:
        """Kernels with equal keys take equal time."""
        return (*(getattr(self, name) for name in _COUNTED), layer_group(self.scope))


_COUNTED = tuple(f.name for f in fields(Kernel) if f.name not in ("name", "count", "launches", "level", "scope", "ops"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Lowering:
    """Fusion and launch rules of a runtime.

    fused_attention   scores, softmax and values run as one kernel and the scores stay on chip
    fused_head_most   query-key dims per head up to which attention is one kernel (0: any)
    chains            runs of op tokens (`kind` or `kind.fn`) that become one kernel when each feeds only the next
    epilogues         tokens that fold into the Einsum that feeds them
    concurrent        independent kernels overlap, so a wait happens once per dependency level
    named             a kernel that streams elements keeps its op's token as `part` and its result's format: for runtimes whose
                      functions differ in cost
    free              tokens that launch nothing (folded into neighbours, or done ahead of time)
    """

    fused_attention: bool = True
    fused_head_most: int = 0
    chains: tuple[tuple[str, ...], ...] = ()
    epilogues: tuple[str, ...] = ()
    concurrent: bool = False
    named: bool = False
    free: tuple[str, ...] = ()


@dataclass(frozen=True)
class KernelTable:
    """Distinct kernels of a graph with multiplicities, and the counts of each as sizes."""

    kernels: tuple[Kernel, ...]
    depth: int
    _cache: dict[Any, KernelArrays] = field(default_factory=dict, compare=False, repr=False)

    def evaluate(self, bindings: Mapping[str, int]) -> KernelArrays:
        """Counts as float arrays [kernels]. Results are kept: the same bindings are evaluated once."""
        key = tuple(sorted(bindings.items()))
        found = self._cache.get(key)
        if found is None:
            columns = {
                name: np.array([value_of(getattr(k, name), bindings) for k in self.kernels], dtype=np.float64)
                for name in COUNTS
            }
            found = KernelArrays(kernels=self.kernels, counts=columns)
            if len(self._cache) > 512:
                self._cache.clear()
            self._cache[key] = found
        return found


@dataclass(frozen=True)
class KernelArrays:
    """`counts[name]` is a float array [kernels]; attribute access gives the same arrays."""

    kernels: tuple[Kernel, ...]
    counts: Mapping[str, npt.NDArray[np.float64]]
    _memo: dict[Any, Any] = field(default_factory=dict, compare=False, repr=False)

    def __getattr__(self, name: str) -> npt.NDArray[np.float64]:
        try:
            return self.counts[name]
        except KeyError:
            raise AttributeError(name) from None

    def __len__(self) -> int:
        return len(self.kernels)

    def mask(self, *kinds: str) -> npt.NDArray[np.bool_]:
        """True where a kernel is of one of these kinds."""
        found = self._memo.get(kinds)
        if found is None:
            found = self._memo[kinds] = np.array([k.kind in kinds for k in self.kernels], dtype=bool)
        return found

    @property
    def integer(self) -> npt.NDArray[np.bool_]:
        """Products of 8-bit activations with weights of at most 8 bits: what INT8 units multiply."""
        found = self._memo.get("integer")
        if found is None:
            floats = ("", "f64", "f32", "f16", "bf16")
            both = [k.moving == "int8" and k.format not in floats and not k.format.endswith("-f16") for k in self.kernels]
            found = self._memo["integer"] = np.array(both, dtype=bool)
        return found

    @property
    def scores(self) -> npt.NDArray[np.bool_]:
        """Softmaxes of attention that run as kernels of their own."""
        found = self._memo.get("scores")
        if found is None:
            found = self._memo["scores"] = np.array([k.part == "scores" for k in self.kernels], dtype=bool)
        return found

    @property
    def tables(self) -> npt.NDArray[np.float64]:
        """Look-up tables of the weights of each kernel: one per `rows_per_table` output channels of a palette."""
        found = self._memo.get("tables")
        if found is None:
            found = self._memo["tables"] = np.array([_tables(k.format) for k in self.kernels], dtype=np.float64)
        per_row = np.abs(found)
        rows = self.counts["weight_elements"] / np.maximum(self.counts["depth"], 1.0)
        return np.where(found < 0, 1.0, np.ceil(rows * per_row))

    @property
    def formats(self) -> tuple[tuple[str, ...], npt.NDArray[np.intp]]:
        """Distinct weight formats, and for each kernel the position of its own."""
        found = self._memo.get("formats")
        if found is None:
            names = tuple(dict.fromkeys(k.format for k in self.kernels))
            place = {name: i for i, name in enumerate(names)}
            found = self._memo["formats"] = (names, np.array([place[k.format] for k in self.kernels], dtype=np.intp))
        return found


def _tables(name: str) -> float:
    """Tables per output channel; -1: one for the tensor; 0: the format has none."""
    fmt = find_format(name) if name.startswith(("pal", "lut", "sparse")) else None
    if fmt is None or not fmt.table_bits:
        return 0.0
    return 1.0 / fmt.rows_per_table if fmt.rows_per_table else -1.0


def concatenate(parts: Sequence[KernelArrays]) -> KernelArrays:
    """Kernels of several calls one after the other, to price them in one array call."""
    counts = {name: np.concatenate([part.counts[name] for part in parts]) for name in COUNTS}
    return KernelArrays(kernels=tuple(k for part in parts for k in part.kernels), counts=counts)


def layer_group(scope: str) -> str:
    """`layers.3.attn` -> `attn`: the group a breakdown shows."""
    parts = [p for p in scope.split(".") if p and not p.isdigit() and p != "layers"]
    return parts[0] if parts else "other"


def lower(graph: Graph, rules: Lowering) -> KernelTable:
    """Group the ops of a graph into kernels. Raises NoCostRule for an op kind without counts."""
    kernels = launched(graph, rules)
    depth = max((k.level for k in kernels), default=0)
    return KernelTable(kernels=merged(kernels), depth=depth)


def launched(graph: Graph, rules: Lowering) -> tuple[Kernel, ...]:
    """Every launch in order, before equal kernels are merged: `count` is 1, `launches` its share of the waits."""
    grouper = _Grouper(graph, rules)
    groups = grouper.groups()
    level_of: dict[str, int] = {}
    kernels: list[Kernel] = []
    known: dict[Any, Kernel | None] = {}  # layers repeat: groups of equal shape are counted once
    cached = cached_tensors(graph)
    for group in groups:
        reads = [n for op in group for n in op.inputs]
        level = 1 + max((level_of.get(n, 0) for n in reads), default=0)
        signature = _signature(graph, group, cached)
        if signature not in known:
            known[signature] = _kernel(graph, group, rules, cached)
        kernel = known[signature]
        if kernel is None:
            level = max((level_of.get(n, 0) for n in reads), default=0)
        for op in group:
            for name in op.outputs:
                level_of[name] = level
        if kernel is not None:
            names = tuple(op.name for op in group)
            kernels.append(_with(kernel, level=level, name=group[0].name, scope=group[0].scope, ops=names))
    if not rules.concurrent:
        return tuple(kernels)
    per_level = Counter(k.level for k in kernels)
    return tuple(_with(k, launches=1.0 / per_level[k.level]) for k in kernels)


def cached_tensors(graph: Graph) -> frozenset[str]:
    """States, and what a cache is called after rows were written into it or its layout was changed."""
    found = {t.name for t in graph.of_role(Role.STATE)}
    for op in graph.ops:
        if op.kind in ("update", "view", "move") and found.intersection(op.inputs):
            found.update(op.outputs)
    return frozenset(found)


def _signature(graph: Graph, group: tuple[Op, ...], cached: frozenset[str]) -> Any:
    """What the counts of a group depend on: kinds, attributes, operand shapes, formats and roles, inner wiring."""
    made = {name: i for i, name in enumerate(n for op in group for n in op.outputs)}
    return tuple(
        (
            op.kind,
            tuple(op.attrs.items()),
            tuple(
                (made.get(n), t.shape, t.format, t.role, t.part, n in cached)
                for n, t in zip(op.inputs, graph.inputs_of(op))
            ),
            tuple((t.shape, t.format) for t in graph.outputs_of(op)),
        )
        for op in group
    )


def merged(kernels: Sequence[Kernel]) -> tuple[Kernel, ...]:
    """Equal launches as one kernel with its multiplicity."""
    first: dict[tuple[Any, ...], Kernel] = {}
    count: dict[tuple[Any, ...], int] = {}
    launches: dict[tuple[Any, ...], float] = {}
    for kernel in kernels:
        key = kernel.merged_key()
        first.setdefault(key, kernel)
        count[key] = count.get(key, 0) + 1
        launches[key] = launches.get(key, 0.0) + kernel.launches
    return tuple(_with(kernel, count=count[key], launches=launches[key]) for key, kernel in first.items())


def _with(kernel: Kernel, **changes: Any) -> Kernel:
    return replace(kernel, **changes)


class _Grouper:
    """Assigns every op to one group, in program order."""

    def __init__(self, graph: Graph, rules: Lowering) -> None:
        self.graph = graph
        self.rules = rules
        self.readers = graph.readers()
        self.producer = {name: op for op in graph.ops for name in op.outputs}
        self.outputs = set(graph.outputs)
        self.taken: set[str] = set()

    def groups(self) -> list[tuple[Op, ...]]:
        found: list[tuple[Op, ...]] = []
        for op in self.graph.ops:
            if op.name in self.taken:
                continue
            group = self._group_from(op)
            self.taken.update(o.name for o in group)
            found.append(group)
        # A group runs when its last op may: order by the position of that op keeps producers first.
        position = {op.name: i for i, op in enumerate(self.graph.ops)}
        return sorted(found, key=lambda g: max(position[o.name] for o in g))

    def _group_from(self, op: Op) -> tuple[Op, ...]:
        if self.rules.fused_attention and op.kind == "einsum" and "pairs" in op.attrs:
            attention = self._attention(op)
            if attention:
                return attention
        if op.kind == "einsum":
            return self._with_epilogue(op)
        best: tuple[Op, ...] = (op,)
        for chain in self.rules.chains:
            run = self._chain(op, chain)
            if len(run) > len(best):
                best = run
        return best

    def _attention(self, scores: Op) -> tuple[Op, ...]:
        """scores -> (scale, cap, mask)* -> softmax -> values; empty when the pattern does not hold."""
        run = [scores]
        current = scores
        for _ in range(8):
            following = self._only_reader(current)
            if following is None or following.name in self.taken:
                return ()
            run.append(following)
            if following.kind == "einsum":
                fits = any(o.kind == "softmax" for o in run) and self._head_fits(scores)
                return tuple(run) if fits else ()
            if following.kind not in ("softmax", "elementwise", "view", "move"):
                return ()
            current = following
        return ()

    def _head_fits(self, scores: Op) -> bool:
        most = self.rules.fused_head_most
        if not most:
            return True
        sizes = einsum_sizes(scores, self.graph.inputs_of(scores), self.graph.outputs_of(scores))
        head = product(s for d, s in sizes.items() if d not in ("b", "t", "s", "g", "r", "h"))
        return isinstance(head, int) and head <= most

    def _with_epilogue(self, op: Op) -> tuple[Op, ...]:
        run = [op]
        while True:
            following = self._only_reader(run[-1])
            if following is None or token(following) not in self.rules.epilogues or following.name in self.taken:
                return tuple(run)
            run.append(following)

    def _chain(self, op: Op, chain: tuple[str, ...]) -> tuple[Op, ...]:
        if not matches(op, chain[0]):
            return ()
        run = [op]
        for wanted in chain[1:]:
            following = self._only_reader(run[-1])
            if following is None or not matches(following, wanted) or following.name in self.taken:
                return ()
            run.append(following)
        return tuple(run)

    def _only_reader(self, op: Op) -> Op | None:
        if len(op.outputs) != 1 or op.outputs[0] in self.outputs:
            return None
        readers = self.readers[op.outputs[0]]
        return readers[0] if len(readers) == 1 else None


def token(op: Op) -> str:
    """`kind.fn` where an op has a function, else `kind`."""
    fn = op.attrs.get("fn")
    return f"{op.kind}.{fn}" if isinstance(fn, str) else op.kind


def matches(op: Op, wanted: str) -> bool:
    return wanted in (op.kind, token(op))


def _kernel(graph: Graph, group: tuple[Op, ...], rules: Lowering, cached: frozenset[str]) -> Kernel | None:
    """The kernel of a group; None where nothing is launched."""
    if all(op.kind == "view" or matches_any(op, rules.free) for op in group):
        return None
    head = group[0]
    total = _group_work(graph, group)
    common: dict[str, Any] = {"name": head.name, "scope": head.scope, "ops": tuple(op.name for op in group)}
    if head.kind == "einsum" and group[-1].kind == "einsum" and len(group) > 1:
        return _attention_kernel(graph, group, total, common, cached)
    if head.kind == "einsum":
        return _einsum_kernel(graph, head, total, common)
    kind = "scan" if any(op.kind == "scan" for op in group) else "vector"
    extra: dict[str, Any] = {}
    if kind == "scan":
        scan = next(op for op in group if op.kind == "scan")
        extra["sequences"], extra["tokens"] = scan_sizes(scan, graph.inputs_of(scan))
        extra["part"] = str(scan.attrs["fn"])
    elif len(group) == 1 and head.kind == "softmax":
        # A softmax of its own may read its input more than once; that of attention is tuned with its products.
        extra["part"] = "scores" if "pairs" in head.attrs else "softmax"
    if rules.named:
        extra["part"], extra["format"] = token(head), graph.outputs_of(group[-1])[0].format
    return Kernel(
        kind=kind,
        vector_ops=total.vector_ops,
        macs=total.macs,
        weight_bytes=total.weight_bytes,
        state_bytes=total.state_bytes,
        input_bytes=total.input_bytes,
        output_bytes=total.output_bytes,
        **common,
        **extra,
    )


def matches_any(op: Op, tokens: Sequence[str]) -> bool:
    return any(matches(op, t) for t in tokens)


def _group_work(graph: Graph, group: tuple[Op, ...]) -> Work:
    """Counts of the ops, less the traffic of tensors that stay inside the group."""
    total = Work()
    for op in group:
        total = total + work_of(op, graph)
    for op, following in zip(group, group[1:]):
        for name in op.outputs:
            if name in following.inputs:
                inner = tensor_bytes(graph.tensors[name])
                total = total + Work(input_bytes=inner * -1, output_bytes=inner * -1)
    return total


def _einsum_kernel(graph: Graph, op: Op, total: Work, common: Mapping[str, Any]) -> Kernel:
    inputs, outputs = graph.inputs_of(op), graph.outputs_of(op)
    einsum = einsum_of(op)
    if len(einsum.inputs) < 2 or einsum.combine != "mul":
        return _vector_kernel(total, common)
    sizes = einsum_sizes(op, inputs, outputs)
    moving, fixed = inputs[0], inputs[1]
    if moving.role is Role.WEIGHT and fixed.role is not Role.WEIGHT:
        moving, fixed = fixed, moving
        left, right = einsum.inputs[1], einsum.inputs[0]
    else:
        left, right = einsum.inputs[0], einsum.inputs[1]
    left_dims = {d for axis in left for d in axis.dims}
    right_dims = {d for axis in right for d in axis.dims}
    out_dims = {axis.dims[0] for axis in einsum.output}
    batch = product(s for d, s in sizes.items() if d in left_dims and d in right_dims and d in out_dims)
    columns = product(s for d, s in sizes.items() if d in right_dims and d not in left_dims and d in out_dims)
    depth = product(s for d, s in sizes.items() if d not in out_dims)
    rows = product(s for d, s in sizes.items() if d in out_dims and d not in right_dims)
    windows = [axis for access in einsum.inputs for axis in access if not axis.is_plain]
    stride = product(max(c for c, _ in axis.terms) for axis in windows)
    taps = product(sizes[d] for axis in windows for d in axis.dims if d not in out_dims)
    routed = is_routed(op, fixed)
    if routed:  # rows counts (token, choice) pairs; the choices are their own dim
        rows = floordiv(rows, int(op.attrs["active"]))  # type: ignore[arg-type]
    elif columns == 1 and Role.WEIGHT not in (moving.role, fixed.role):
        return _vector_kernel(total, common)
    return Kernel(
        kind="expert" if routed else "linear",
        format=fixed.format if fixed.role is Role.WEIGHT else moving.format,
        moving=moving.format if fixed.role is Role.WEIGHT else "",
        part=fixed.part if fixed.role is Role.WEIGHT else "",
        batch=batch,
        rows=rows,
        columns=columns,
        depth=depth,
        macs=einsum_macs(op, sizes),
        vector_ops=total.vector_ops,
        weight_elements=fixed.elements if fixed.role is Role.WEIGHT else 0,
        weight_bytes=total.weight_bytes,
        state_bytes=total.state_bytes,
        input_bytes=total.input_bytes,
        output_bytes=total.output_bytes,
        experts=int(op.attrs["routed"]) if routed else 0,  # type: ignore[arg-type]
        active=int(op.attrs["active"]) if routed else 0,  # type: ignore[arg-type]
        taps=taps,
        stride=stride,
        **common,
    )


def _vector_kernel(total: Work, common: Mapping[str, Any]) -> Kernel:
    """An Einsum that only streams: a reduction, or a weighted sum over a few terms."""
    return Kernel(
        kind="vector",
        vector_ops=total.vector_ops + total.macs,
        weight_bytes=total.weight_bytes,
        input_bytes=total.input_bytes,
        output_bytes=total.output_bytes,
        state_bytes=total.state_bytes,
        **common,
    )


def _attention_kernel(
    graph: Graph, group: tuple[Op, ...], total: Work, common: Mapping[str, Any], cached: frozenset[str]
) -> Kernel:
    """Scores `b t g r d, b s g d -> b g r t s`: sequences b, tokens t, key/value heads g, query heads g*r, context s.

    Keys and values of a cache are state; those of an encoder were just computed and are activations like the queries.
    """
    scores, values = group[0], group[-1]
    sizes = einsum_sizes(scores, graph.inputs_of(scores), graph.outputs_of(scores))
    out = einsum_sizes(values, graph.inputs_of(values), graph.outputs_of(values))
    missing = [d for d in ("b", "t", "s") if d not in sizes]
    if missing:
        raise CostError(f"{scores.name}: attention scores need dims b, t and s, got {', '.join(sizes)}")
    heads = product(s for d, s in sizes.items() if d in ("g", "r", "h"))
    kv_heads = product(s for d, s in sizes.items() if d == "g" or (d == "h" and "g" not in sizes))
    qk_dim = product(s for d, s in sizes.items() if d not in ("b", "t", "s", "g", "r", "h"))
    v_dim = product(s for d, s in out.items() if d not in ("b", "t", "s", "g", "r", "h"))
    keys, vals = graph.inputs_of(scores)[1], graph.inputs_of(values)[1]
    operands = {t.name: t for t in (keys, vals)}.values()  # once where the values are the keys (latent attention)
    state: Count = sum((tensor_bytes(t) for t in operands if t.name in cached), start=0)
    computed: Count = sum((tensor_bytes(t) for t in operands if t.name not in cached), start=0)
    queries = graph.inputs_of(scores)[0]
    return Kernel(
        kind="attention",
        format=keys.format,
        sequences=sizes["b"],
        tokens=sizes["t"],
        kv_heads=kv_heads,
        heads=heads,
        head_dim=qk_dim + v_dim,
        context=sizes["s"],
        macs=total.macs,
        vector_ops=total.vector_ops,
        state_bytes=state,
        input_bytes=tensor_bytes(queries) + computed,
        output_bytes=tensor_bytes(graph.outputs_of(values)[0]),
        **common,
    )


def unpriced(graph: Graph) -> dict[str, int]:
    """Op kinds without a counting rule and how often each occurs; empty when the graph can be priced."""
    from orchard.cost.errors import NoCostRule

    found: dict[str, int] = {}
    for op in graph.ops:
        try:
            work_of(op, graph)
        except NoCostRule:
            found[op.kind] = found.get(op.kind, 0) + 1
    return found


__all__ = [
    "COUNTS",
    "KINDS",
    "Kernel",
    "KernelArrays",
    "KernelTable",
    "Lowering",
    "concatenate",
    "launched",
    "layer_group",
    "lower",
    "merged",
    "token",
    "unpriced",
]
