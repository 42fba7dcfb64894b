"""Which ops an engine can run, and why not: rules with their sources, stated once per op.

A rule looks at one op and its tensors and answers with what is wrong and what to change, or None. Sources are those of the chip
catalogue (`orchard.hw`, sources.yaml); "own judgement" has none.

| Neural Engine rule | limit | source |
|---|---|---|
| unsupported | recurrences, 3D convolution | hollance |
| | scatter, product reduction, sizes chosen by contents | bryngelson-ane |
| | sorting, weights chosen by contents | own judgement |
| generation | resize, crop and gather from H14 (A15, M2); sin, cos, arg-max from H15 (A16, M3) | bryngelson-ane |
| dynamic | sizes are fixed when a program is compiled | bryngelson-ane |
| rank | at most 5 axes | coreai-models |
| dimension | 16384 a size, 65536 from H16 (A17 Pro, M4) | bryngelson-ane |
| dtype | FP16; INT8 activations with INT8 weights from H16 | bryngelson-ane |
| kernel | 13 wide, 15 from H16 | bryngelson-ane |
| window | pooling wider than 13 or with stride above 2, dilation: uncertain, of the Core ML 3 era (does not block) | hollance |
| padding | the last axis is padded to 64 bytes (slower) | apple-ane-transformers |
| layout | a matrix product runs at a third of the rate of a 1x1 convolution (slower) | maderix-ane |
| operand | a tensor above `ane.operand_limit` passes through DRAM in blocks (slower) | 751k-m6 |
| palette | a table per output channel unpacks 4 times slower than one per tensor (slower) | coremltools-docs |
| blockwise | blocks of integers are expanded at load before H17 (M5) (slower) | bryngelson-ane |
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from math import prod

from orchard.ir import Graph, Op, Role, Tensor, parse_einsum
from orchard.ir.einsum import Einsum
from orchard.units import find_format

MOST_AXES = 5
KERNEL_WIDEST = {16384: 13, 65536: 15}
"""Widest FP16 kernel by the largest dimension of the generation: both grew with H16 (M4, A17 Pro)."""
ALIGN_BYTES = 64
POOL_WIDEST, POOL_STRIDE = 13, 2
ENGINES = ("ane", "gpu", "cpu")
H14, H15, H16, H17 = 14, 15, 16, 17
_BY_CONTENTS = ("nonzero", "unique", "nonmaxsuppression", "compress")
_SAMPLERS = ("gather", "one_hot")
FEW_ROWS = 8
"""Below this many positions a matrix product is bound by its weights, whatever its layout: own judgement."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One reason: `blocks` says whether the op leaves the engine or only runs slower there."""

    op: str
    scope: str
    kind: str
    rule: str
    reason: str
    change: str
    blocks: bool
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a Neural Engine takes. generation: 13 for H13 (A14, M1); operand_bytes: kept on chip, 0 where not known."""

    max_dim: int
    generation: int
    operand_bytes: float = 0.0

    @property
    def widest_kernel(self) -> int:
        return KERNEL_WIDEST.get(self.max_dim, 15)


@dataclass(frozen=True, slots=True)
class Reason:
    rule: str
    reason: str
    change: str
    blocks: bool
    source: str


Rule = Callable[[Op, Graph, Limits], Reason | None]


def generation_of(family: str, max_dim: int) -> int:
    """H number of the Neural Engine: A14 and M1 have 13, one more each year. From the limits where the name says nothing."""
    text = family.lower()
    digits = "".join(c for c in text[1:3] if c.isdigit())
    if text[:1] in ("a", "m") and digits:
        return int(digits) - 1 if text[0] == "a" else int(digits[:1]) + 12
    return H16 if max_dim > 16384 else H15


def ane_findings(
    graph: Graph, *, max_dim: int, generation: int | None = None, operand_bytes: float = 0.0
) -> Iterator[Finding]:
    """Everything that keeps ops off the Neural Engine or slows them there. `max_dim`: the chip's `ane.max_dim`."""
    found = generation if generation is not None else generation_of("", max_dim)
    limits = Limits(max_dim=max_dim, generation=found, operand_bytes=operand_bytes)
    yield from _findings(graph, _ANE_RULES, limits)


def gpu_findings(graph: Graph) -> Iterator[Finding]:
    """What the GPU does not take or runs badly. The GPU has no limits of its own on shapes."""
    yield from _findings(graph, _GPU_RULES, Limits(max_dim=2**31, generation=H17))


def cpu_findings(graph: Graph, *, generation: int = H17) -> Iterator[Finding]:
    """What the CPU runs badly; it takes every op."""
    yield from _findings(graph, _CPU_RULES, Limits(max_dim=2**31, generation=generation))


def _findings(graph: Graph, rules: Iterable[Rule], limits: Limits) -> Iterator[Finding]:
    rules = tuple(rules)
    for op in graph.ops:
        if op.kind == "view":
            continue
        for rule in rules:
            r = rule(op, graph, limits)
            if r is not None:
                yield Finding(
                    op=op.name, scope=op.scope, kind=op.kind, rule=r.rule, reason=r.reason, change=r.change, blocks=r.blocks,
                    source=r.source,
                )  # fmt: skip


# ---- the Neural Engine


def _unsupported(op: Op, graph: Graph, limits: Limits) -> Reason | None:
    fn = str(op.attrs.get("fn", op.kind))
    if op.kind in ("scan", "update"):
        change = "unroll it into products, or keep it on the CPU in one segment"
        return Reason("unsupported", f"{op.kind} ({fn}) never runs on the engine", change, True, "hollance")
    if op.kind == "move" and fn == "scatter":
        return Reason(
            "unsupported",
            "scatter never runs on the engine",
            "select with a mask, or add one-hot products",
            True,
            "bryngelson-ane",
        )
    if op.kind == "reduce" and fn == "prod":
        return Reason(
            "unsupported", "a product reduction never runs on the engine", "sum logarithms", True, "bryngelson-ane"
        )
    if op.kind == "move" and fn in _BY_CONTENTS:
        return Reason(
            "unsupported", f"{fn}: a size depends on contents", "keep it out of the model", True, "bryngelson-ane"
        )
    if op.kind == "topk" or (op.kind == "move" and fn == "sort"):
        return Reason(
            "unsupported", "sorting leaves the engine", "do it after the model, on the CPU", True, "own judgement"
        )
    if "routed" in op.attrs:
        return Reason(
            "unsupported",
            "weights are chosen by contents (experts)",
            "compute all experts, or run on the GPU",
            True,
            "own judgement",
        )
    if _window_axes(op) >= 3:
        return Reason(
            "unsupported", "3D convolution never runs on the engine", "split it into 2D convolutions", True, "hollance"
        )
    return None


def _generation(op: Op, graph: Graph, limits: Limits) -> Reason | None:
    fn = str(op.attrs.get("fn", ""))
    if limits.generation < H14 and (op.kind in ("resize", "gather") or (op.kind == "move" and fn in _SAMPLERS)):
        return Reason(
            "generation", f"{fn or op.kind} needs an A15, M2 or later", "do it before the model", True, "bryngelson-ane"
        )
    if limits.generation < H15 and (fn in ("argmax", "argmin") or (op.kind == "elementwise" and fn in ("sin", "cos"))):
        return Reason(
            "generation", f"{fn} needs an A16, M3 or later", "do it before or after the model", True, "bryngelson-ane"
        )
    return None


def _dynamic(op: Op, graph: Graph, limits: Limits) -> Reason | None:
    symbols = sorted({str(s) for t in _tensors(op, graph) for s in t.shape if not isinstance(s, int) and str(s) != "B"})
    if not symbols:
        return None
    return Reason("dynamic", f"size {symbols[0]} is not fixed", "export with fixed shapes", True, "bryngelson-ane")


def _rank(op: Op, graph: Graph, limits: Limits) -> Reason | None:
    if all(len(t.shape) <= MOST_AXES for t in _tensors(op, graph) if t.role is not Role.WEIGHT):
        return None
    return Reason("rank", f"more than {MOST_AXES} axes", "fold axes together", True, "coreai-models")


def _dimension(op: Op, graph: Graph, limits: Limits) -> Reason | None:
    largest = max((s for t in _tensors(op, graph) for s in t.shape if isinstance(s, int)), default=0)
    if largest <= limits.max_dim:
        return None
    reason = f"an axis of {largest:,}, at most {limits.max_dim:,}"
    return Reason("dimension", reason, f"split it into {-(-largest // limits.max_dim)} chunks", True, "bryngelson-ane")


def _dtype(op: Op, graph: Graph, limits: Limits) -> Reason | None:
    if not any(t.format in ("f32", "bf16", "f64") for t in _tensors(op, graph) if t.role is not Role.WEIGHT):
        return None
    return Reason("dtype", "computes in 32 bit or bfloat16", "convert to FP16", True, "bryngelson-ane")


def _kernel(op: Op, graph: Graph, limits: Limits) -> Reason | None:
    widest = _widest_window(op, graph)
    if widest <= limits.widest_kernel:
        return None
    reason = f"a kernel of {widest}, at most {limits.widest_kernel}"
    return Reason("kernel", reason, "split it into smaller kernels", True, "bryngelson-ane")


def _window(op: Op, graph: Graph, limits: Limits) -> Reason | None:
    if op.kind == "pool":
        kernel, stride = (_largest(op.attrs.get(n)) for n in ("kernel", "stride"))
        if kernel > POOL_WIDEST or stride > POOL_STRIDE:
            reason = f"pooling {kernel} wide with stride {stride} may leave the engine (above {POOL_WIDEST} or {POOL_STRIDE})"
            return Reason("window", reason, "pool twice, or reduce the mean", False, "hollance")
    if _dilation(op) > 1:
        return Reason(
            "window", "a dilated convolution may leave the engine", "use a larger plain kernel", False, "hollance"
        )
    return None


def _padding(op: Op, graph: Graph, limits: Limits) -> Reason | None:
    last = graph.outputs_of(op)[0].shape[-1:]
    if op.kind == "reduce" or not last or not isinstance(last[0], int) or not 0 < last[0] * 2 < ALIGN_BYTES:
        return None
    reason = f"the last axis of {last[0]} is padded {ALIGN_BYTES / (last[0] * 2):.1f} times"
    return Reason("padding", reason, "put the longest axis last: (B, C, 1, S)", False, "apple-ane-transformers")


def _layout(op: Op, graph: Graph, limits: Limits) -> Reason | None:
    rows = product_rows(op, graph)
    if rows is None or rows < FEW_ROWS:
        return None
    reason = "a matrix product with channels last runs at about a third of the rate"
    return Reason("layout", reason, "write it as a 1x1 convolution on (B, C, 1, S)", False, "maderix-ane")


def _operand(op: Op, graph: Graph, limits: Limits) -> Reason | None:
    largest = max((_f16_bytes(t) for t in _tensors(op, graph) if t.role is not Role.WEIGHT), default=0)
    if not limits.operand_bytes or largest <= limits.operand_bytes or op.kind in ("gather", "fill"):
        return None
    chunks = -(-largest // int(limits.operand_bytes))
    reason = f"a tensor of {largest / 2**20:.1f} MiB passes through DRAM, {limits.operand_bytes / 2**20:.1f} MiB stay on chip"
    return Reason("operand", reason, f"split the longest axis into {chunks} chunks", False, "751k-m6")


def _palette(op: Op, graph: Graph, limits: Limits) -> Reason | None:
    for tensor in _weights(op, graph):
        format = find_format(tensor.format)
        if format is not None and format.kind == "palette" and 0 < format.rows_per_table < 4:
            reason = f"{tensor.format}: many tables unpack slowly"
            return Reason(
                "palette", reason, "one table per tensor, or per 8 or more channels", False, "coremltools-docs"
            )
    return None


def _blockwise(op: Op, graph: Graph, limits: Limits) -> Reason | None:
    if limits.generation >= H17:
        return None
    for tensor in _weights(op, graph):
        format = find_format(tensor.format)
        if format is not None and format.family == "coreml" and format.kind == "block" and format.block > 1:
            reason = f"{tensor.format}: blocks are expanded to FP16 when the model loads"
            return Reason("blockwise", reason, "a palette, or one scale per channel", False, "bryngelson-ane")
    return None


_ANE_RULES: tuple[Rule, ...] = (
    _unsupported, _generation, _dynamic, _rank, _dimension, _dtype, _kernel, _window, _padding, _layout, _operand, _palette,
    _blockwise,
)  # fmt: skip


# ---- the GPU and the CPU


def _gpu_double(op: Op, graph: Graph, limits: Limits) -> Reason | None:
    if not any(t.format == "f64" for t in _tensors(op, graph)):
        return None
    return Reason("dtype", "Metal has no 64-bit floating point", "convert to FP32 or FP16", True, "metal-spec")


def _gpu_contents(op: Op, graph: Graph, limits: Limits) -> Reason | None:
    fn = str(op.attrs.get("fn", ""))
    if op.kind != "move" or fn not in _BY_CONTENTS:
        return None
    return Reason("unsupported", f"{fn}: the CPU waits for the size", "keep it out of the model", True, "own judgement")


def _gpu_steps(op: Op, graph: Graph, limits: Limits) -> Reason | None:
    steps = op.attrs.get("steps")
    if op.kind != "scan" or not isinstance(steps, int) or steps <= 1:
        return None
    reason = f"{op.attrs.get('fn')}: {steps} steps, one after the other"
    return Reason("steps", reason, "a form that works on chunks of steps", False, "own judgement")


def _gpu_wide(op: Op, graph: Graph, limits: Limits) -> Reason | None:
    if op.kind != "einsum" or not any(t.format == "f32" for t in _tensors(op, graph) if t.role is not Role.WEIGHT):
        return None
    return Reason("dtype", "moves twice the bytes of FP16", "convert to FP16", False, "metal-benchmarks")


def _cpu_bfloat(op: Op, graph: Graph, limits: Limits) -> Reason | None:
    wide = any(t.format == "bf16" for t in _tensors(op, graph))
    if op.kind != "einsum" or not wide or limits.generation >= H14:
        return None
    return Reason("dtype", "products of bfloat16 need an A15, M2 or later", "convert to FP16", False, "corsix-amx")


_GPU_RULES: tuple[Rule, ...] = (_gpu_double, _gpu_contents, _gpu_steps, _gpu_wide)
_CPU_RULES: tuple[Rule, ...] = (_cpu_bfloat,)


# ---- what rules look at


def _tensors(op: Op, graph: Graph) -> tuple[Tensor, ...]:
    return (*graph.inputs_of(op), *graph.outputs_of(op))


def _weights(op: Op, graph: Graph) -> Iterator[Tensor]:
    """Matrices that an Einsum reads."""
    return (t for t in graph.inputs_of(op) if op.kind == "einsum" and t.role is Role.WEIGHT and len(t.shape) > 1)


def _f16_bytes(tensor: Tensor) -> int:
    sizes = [s for s in tensor.shape if isinstance(s, int)]
    return 2 * prod(sizes) if len(sizes) == len(tensor.shape) else 0


def _largest(value: object) -> int:
    return max((v for v in value if isinstance(v, int)), default=0) if isinstance(value, tuple) else 0


def einsum_of_op(op: Op) -> Einsum | None:
    """The Einsum of an op of that kind."""
    if op.kind != "einsum":
        return None
    return parse_einsum(str(op.attrs["spec"]), str(op.attrs.get("combine", "mul")), str(op.attrs.get("reduce", "sum")))


def product_rows(op: Op, graph: Graph) -> int | None:
    """Rows of a product of activations with a stored matrix whose channels are the last axis on both sides; else None."""
    einsum = einsum_of_op(op)
    if einsum is None or "routed" in op.attrs:
        return None
    tensors = graph.inputs_of(op)[: len(einsum.inputs)]
    stored = [i for i, t in enumerate(tensors) if t.role is Role.WEIGHT]
    if len(tensors) != 2 or len(stored) != 1:
        return None
    x = einsum.inputs[1 - stored[0]]
    if any(len(axis.terms) > 1 for axis in x) or not x or not einsum.output:
        return None
    kept = {axis.dims[0] for axis in einsum.output}
    if x[-1].dims[0] in kept or einsum.output[-1].dims[0] in {axis.dims[0] for axis in x}:
        return None
    sizes = [s for axis, s in zip(x, tensors[1 - stored[0]].shape) if axis.dims[0] in kept and isinstance(s, int)]
    return prod(sizes)


def _window_axes(op: Op) -> int:
    einsum = einsum_of_op(op)
    return 0 if einsum is None else sum(len(axis.terms) > 1 for axis in einsum.inputs[0])


def _dilation(op: Op) -> int:
    """Largest factor of a tap in a window."""
    einsum = einsum_of_op(op)
    if einsum is None:
        return 1
    kept = {axis.dims[0] for axis in einsum.output if axis.is_plain}
    factors = [f for a in einsum.inputs for axis in a if len(axis.terms) > 1 for f, d in axis.terms if d not in kept]
    return max(factors, default=1)


def _widest_window(op: Op, graph: Graph) -> int:
    einsum = einsum_of_op(op)
    if einsum is None:
        return 0
    windowed = {d for access in einsum.inputs for axis in access if len(axis.terms) > 1 for d in axis.dims}
    taps = windowed - {axis.dims[0] for axis in einsum.output}
    found = 0
    for access, tensor in zip(einsum.inputs, graph.inputs_of(op)):
        for axis, size in zip(access, tensor.shape):
            if axis.is_plain and axis.dims[0] in taps and isinstance(size, int):
                found = max(found, size)
    return found
