"""From the kernels of a model to problems for the mapper: the Einsums inside, in one canonical form, so that equal work is
mapped once.

Dims that stand in the same operands are one dim for a mapper, so every product of two operands is `gemm:m,k,n` (and `b` for
dims in all operands) and every convolution `conv:c,k,p,q,r,s,…`; the text runs in `orchard map` as it stands.

What the mapper is told about the surroundings of an op, always in favour of the hardware, as the physical bound does:

* An activation that fits in the largest memory of the engine is taken from there and left there (`resident`): the kernels
  before and after may keep it on the chip. Weights are resident where all weights of the model fit, so that they stay
  between calls; caches are not. What one kernel keeps to itself (attention scores) never leaves the chip.
* Of masked attention only the unmasked share of the MACs costs time (`density`).
* Routed experts count as so many products of one expert as distinct experts are expected, each with its share of the rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from orchard.cost.lower import Kernel
from orchard.cost.work import einsum_of, einsum_sizes, is_routed, slice_shape, work_of
from orchard.ir import Einsum, Graph, Op, Role, Tensor, distinct, product, value_of
from orchard.mapping.ops import parse_op
from orchard.mapping.problem import Problem
from orchard.units import number_format


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What is known around an op: bytes that stay on the chip, whether all weights do, and which tensors are caches."""

    on_chip_bytes: float
    weights_stay: bool
    caches: frozenset[str]


@dataclass(frozen=True)
class Part:
    """One Einsum of a kernel: `times` equal products, of which `density` of the MACs are needed; the operands' widest input
    decides the arithmetic: `bits` is 8, 16 or 32."""

    text: str
    problem: Problem
    times: float
    density: float
    bits: int


def parts_of(kernel: Kernel, graph: Graph, bindings: Mapping[str, int], around: Surroundings) -> tuple[Part, ...]:
    """The products inside a kernel, () for one that only streams."""
    if kernel.kind not in ("linear", "expert", "attention"):
        return ()
    ops = [op for op in (graph.op(name) for name in kernel.ops) if op.kind == "einsum"]
    inner = {name for op in ops[:-1] for name in _reach(graph, op, kernel.ops)}
    return tuple(_part(op, graph, bindings, around, inner) for op in ops)


def _reach(graph: Graph, op: Op, names: Sequence[str]) -> set[str]:
    """Tensors that a kernel makes from `op` on and passes on inside itself."""
    found = set(op.outputs)
    for name in names:
        following = graph.op(name)
        if following.kind != "einsum" and found.intersection(following.inputs):
            found.update(following.outputs)
    return found


def _part(op: Op, graph: Graph, bindings: Mapping[str, int], around: Surroundings, inner: set[str]) -> Part:
    einsum, inputs, output = einsum_of(op), graph.inputs_of(op), graph.outputs_of(op)[0]
    sizes = {d: round(value_of(s, bindings)) for d, s in einsum_sizes(op, inputs, [output]).items()}
    routed = any(is_routed(op, t) for t in inputs)
    operands = list(zip(einsum.inputs, inputs))[: 2 if routed else None]  # the third names experts, and moves no data
    if len(operands) == 2 and operands[0][1].role is Role.WEIGHT and operands[1][1].role is not Role.WEIGHT:
        operands.reverse()
    einsum = Einsum(tuple(a for a, _ in operands), einsum.output) if not routed else einsum
    times = 1.0
    classes = _classes(einsum, sizes)
    if routed:
        pairs = classes.rows
        times = value_of(distinct(int(str(op.attrs["routed"])), int(str(op.attrs["active"])), pairs // int(str(op.attrs["active"]))), {})
        classes = replace(classes, rows=max(1, round(pairs / times)))
    text = _text(einsum, sizes, classes)
    tensors = (*(t for _, t in operands), output)
    problem = _with_tensors(parse_op(text), op, graph, tensors, bindings, around, inner)
    widest = max(problem.bits[t] for t in problem.inputs)
    bits = 8 if widest <= 9 else 16 if widest <= 17 else 32
    return Part(text, problem, times, _density(op, sizes, bindings), bits)


def _density(op: Op, sizes: Mapping[str, int], bindings: Mapping[str, int]) -> float:
    if "pairs" not in op.attrs:
        return 1.0
    return min(1.0, value_of(op.attrs["pairs"], bindings) / (sizes["t"] * sizes["s"]))  # type: ignore[arg-type]


@dataclass(frozen=True)
class _Classes:
    """Sizes of a product's plain dims: in all operands, in I and O, in W and O, in no output."""

    batch: int
    rows: int
    columns: int
    depth: int


def _classes(einsum: Einsum, sizes: Mapping[str, int]) -> _Classes:
    first = {d for axis in einsum.inputs[0] if axis.is_plain for d in axis.dims}
    second = {d for axis in einsum.inputs[1] if axis.is_plain for d in axis.dims}
    out = {axis.dims[0] for axis in einsum.output}
    windowed = {d for access in einsum.inputs for axis in access if not axis.is_plain for d in axis.dims}
    plain = [d for d in einsum.dims if d not in windowed]

    def size(keep: object) -> int:
        assert callable(keep)
        return int(product(sizes[d] for d in plain if keep(d)))

    return _Classes(
        batch=size(lambda d: d in out and d in first and d in second),
        rows=size(lambda d: d in out and d not in second),
        columns=size(lambda d: d in out and d in second and d not in first),
        depth=size(lambda d: d not in out),
    )


def _text(einsum: Einsum, sizes: Mapping[str, int], found: _Classes) -> str:
    """The op as `gemm:…`, `conv:…`, or the Einsum itself where neither says it."""
    windows = [axis for axis in einsum.inputs[0] if not axis.is_plain]
    if len(einsum.inputs) == 2 and not windows and all(axis.is_plain for axis in einsum.inputs[1]):
        batch = f"b={found.batch}," if found.batch > 1 else ""
        return f"gemm:{batch}m={found.rows},k={found.depth},n={found.columns}"
    conv = _conv(einsum, sizes, found)
    if conv:
        return conv
    return f"{einsum}; " + ",".join(f"{d}={sizes[d]}" for d in einsum.dims)


def _conv(einsum: Einsum, sizes: Mapping[str, int], found: _Classes) -> str:
    windows = [axis for axis in einsum.inputs[0] if not axis.is_plain]
    out = {axis.dims[0] for axis in einsum.output}
    if len(einsum.inputs) != 2 or not 1 <= len(windows) <= 2 or any(len(axis.terms) != 2 for axis in windows):
        return ""
    steps: set[tuple[int, int]] = set()
    size = {"p": 1, "q": 1, "r": 1, "s": 1}
    for axis, (outer, tap) in zip(windows, (("p", "r"), ("q", "s"))):
        moving = [(c, d) for c, d in axis.terms if d in out]
        fixed = [(c, d) for c, d in axis.terms if d not in out]
        if len(moving) != 1 or len(fixed) != 1:
            return ""
        steps.add((moving[0][0], fixed[0][0]))
        size[outer], size[tap] = sizes[moving[0][1]], sizes[fixed[0][1]]
    if len(steps) != 1:
        return ""
    (stride, dilation), groups = steps.pop(), found.batch
    extra = "".join(f",{k}={v}" for k, v in (("stride", stride), ("dilation", dilation), ("groups", groups)) if v > 1)
    images = f"n={found.rows}," if found.rows > 1 else ""
    shape = ",".join(f"{k}={v}" for k, v in size.items())
    return f"conv:{images}c={found.depth * groups},k={found.columns * groups},{shape}{extra}"


def _with_tensors(
    problem: Problem, op: Op, graph: Graph, tensors: Sequence[Tensor], bindings: Mapping[str, int],
    around: Surroundings, inner: set[str],
) -> Problem:  # fmt: skip
    bits, resident = {}, set()
    for name, tensor in zip(problem.tensors, tensors):
        elements = value_of(product(slice_shape(op, tensor)), bindings)
        bits[name] = _bits(op, graph, tensor, elements)
        if tensor.name in inner:
            resident.add(name)
        elif tensor.role is Role.WEIGHT:
            resident.update({name} if around.weights_stay else ())
        elif tensor.role is not Role.STATE and tensor.name not in around.caches:
            whole = value_of(tensor.elements, bindings) * bits[name] / 8
            resident.update({name} if whole <= around.on_chip_bytes else ())
    return replace(problem, bits=bits, resident=frozenset(resident))


def _bits(op: Op, graph: Graph, tensor: Tensor, elements: float) -> float:
    """Bits per element: of a weight with its scales and tables."""
    fmt = number_format(tensor.format)
    if tensor.role is Role.WEIGHT and (fmt.row_bits or fmt.table_bits) and not is_routed(op, tensor):
        return float(work_of(op, graph).weight_bytes) * 8 / elements
    return float(fmt.bits)
