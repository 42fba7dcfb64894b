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

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from orchard.cost.lower import Kernel, cached_tensors
from orchard.cost.work import einsum_of, einsum_sizes, is_routed, matrix_bytes
from orchard.ir import Einsum, Graph, Op, Role, Tensor, distinct, product, value_of
from orchard.ir.einsum import Access
from orchard.mapping.ops import parse_op
from orchard.mapping.problem import Problem
from orchard.units import number_format


@dataclass(frozen=True)
class Part:
    """One Einsum of a kernel: `times` equal products, of which `density` of the MACs are needed. `bits` is the arithmetic
    that the widest input asks for: 8, 16 or 32."""

    text: str
    problem: Problem
    times: float
    density: float
    bits: int


@dataclass(frozen=True, slots=True)
class _Classes:
    """Sizes of a product's plain dims: in all operands, in I and O, in W and O, in no output."""

    batch: int
    rows: int
    columns: int
    depth: int


class Products:
    """The products of one graph. `on_chip_bytes`: what the largest memory of the engine holds; `weights_stay`: whether all
    weights stay in the last-level cache between calls."""

    def __init__(self, graph: Graph, on_chip_bytes: float, *, weights_stay: bool) -> None:
        self.graph = graph
        self.ops = {op.name: op for op in graph.ops}
        self.on_chip_bytes = on_chip_bytes
        self.weights_stay = weights_stay
        self.caches = cached_tensors(graph)

    def parts(self, kernel: Kernel, bindings: Mapping[str, int]) -> tuple[Part, ...]:
        """The products inside a kernel, () for one that only streams."""
        if kernel.kind not in ("linear", "expert", "attention"):
            return ()
        ops = [self.ops[name] for name in kernel.ops]
        einsums = [op for op in ops if op.kind == "einsum"]
        inner = {name for op in ops[: ops.index(einsums[-1])] for name in op.outputs}
        return tuple(self._part(op, bindings, inner) for op in einsums)

    def _part(self, op: Op, bindings: Mapping[str, int], inner: set[str]) -> Part:
        einsum, inputs, output = einsum_of(op), self.graph.inputs_of(op), self.graph.outputs_of(op)[0]
        sizes = {d: round(value_of(s, bindings)) for d, s in einsum_sizes(op, inputs, [output]).items()}
        operands = list(zip(einsum.inputs, inputs))
        routed = any(is_routed(op, t) for t in inputs)
        if routed:
            operands = operands[:2]  # the third names the experts and moves no data
        elif len(operands) == 2 and operands[0][1].role is Role.WEIGHT and operands[1][1].role is not Role.WEIGHT:
            operands.reverse()
        accesses = tuple(access for access, _ in operands)
        found = _classes(accesses, einsum, sizes)
        times = 1.0
        if routed:
            active = int(str(op.attrs["active"]))
            times = float(distinct(int(str(op.attrs["routed"])), active, max(1, found.rows // active)))  # type: ignore[arg-type]
            found = replace(found, rows=max(1, round(found.rows / times)))
        text = _text(accesses, einsum, sizes, found)
        problem = self._with_tensors(parse_op(text), op, (*(t for _, t in operands), output), sizes, bindings, inner)
        widest = max(problem.bits[t] for t in problem.inputs)
        return Part(
            text, problem, times, _density(op, sizes, bindings), 8 if widest <= 9 else 16 if widest <= 17 else 32
        )

    def _with_tensors(
        self, problem: Problem, op: Op, tensors: Sequence[Tensor], sizes: Mapping[str, int], bindings: Mapping[str, int],
        inner: set[str],
    ) -> Problem:  # fmt: skip
        bits, resident = {}, set()
        for name, tensor in zip(problem.tensors, tensors):
            bits[name] = _bits(op, tensor, sizes)
            whole = value_of(tensor.elements, bindings) * bits[name] / 8
            if self._stays(tensor, whole, inner):
                resident.add(name)
        return replace(problem, bits=bits, resident=frozenset(resident))

    def _stays(self, tensor: Tensor, whole_bytes: float, inner: set[str]) -> bool:
        if tensor.name in inner:
            return True
        if tensor.role is Role.WEIGHT:
            return self.weights_stay
        return tensor.role is not Role.STATE and tensor.name not in self.caches and whole_bytes <= self.on_chip_bytes


def _bits(op: Op, tensor: Tensor, sizes: Mapping[str, int]) -> float:
    """Bits per element: of a weight with its scales and tables."""
    fmt = number_format(tensor.format)
    if tensor.role is not Role.WEIGHT or not (fmt.row_bits or fmt.table_bits):
        return float(fmt.bits)
    einsum = einsum_of(op)
    access = einsum.inputs[min(op.inputs.index(tensor.name), len(einsum.inputs) - 1)]
    kept = {axis.dims[0] for axis in einsum.output}
    dims = {d for axis in access for d in axis.dims}
    rows = product(sizes[d] for d in dims if d in kept)
    columns = product(sizes[d] for d in dims if d not in kept)
    return value_of(matrix_bytes(tensor, rows, columns), {}) * 8 / value_of(tensor.elements, {})


def _density(op: Op, sizes: Mapping[str, int], bindings: Mapping[str, int]) -> float:
    if "pairs" not in op.attrs:
        return 1.0
    return min(1.0, value_of(op.attrs["pairs"], bindings) / (sizes["t"] * sizes["s"]))  # type: ignore[arg-type]


def _classes(accesses: Sequence[Access], einsum: Einsum, sizes: Mapping[str, int]) -> _Classes:
    first, *others = [{d for axis in access for d in axis.dims} for access in accesses]
    second = others[0] if others else set()
    out = {axis.dims[0] for axis in einsum.output}
    windowed = {d for access in accesses for axis in access if not axis.is_plain for d in axis.dims}
    plain = [d for d in einsum.dims if d not in windowed]

    def size(keep: Callable[[str], bool]) -> int:
        total = 1
        for dim in plain:
            total *= sizes[dim] if keep(dim) else 1
        return total

    return _Classes(
        batch=size(lambda d: d in out and d in first and d in second),
        rows=size(lambda d: d in out and d not in second),
        columns=size(lambda d: d in out and d in second and d not in first),
        depth=size(lambda d: d not in out),
    )


def _text(accesses: Sequence[Access], einsum: Einsum, sizes: Mapping[str, int], found: _Classes) -> str:
    """The op as `gemm:…`, `conv:…`, or the Einsum itself where neither says it."""
    if len(accesses) == 2 and all(axis.is_plain for access in accesses for axis in access):
        batch = f"b={found.batch}," if found.batch > 1 else ""
        return f"gemm:{batch}m={found.rows},k={found.depth},n={found.columns}"
    conv = _conv(accesses, einsum, sizes, found) if len(accesses) == 2 else ""
    return conv or f"{einsum}; " + ",".join(f"{d}={sizes[d]}" for d in einsum.dims)


def _conv(accesses: Sequence[Access], einsum: Einsum, sizes: Mapping[str, int], found: _Classes) -> str:
    """`conv:…` where one or two axes of the first operand slide by the same stride and dilation, else ""."""
    windows = [axis for axis in accesses[0] if not axis.is_plain]
    out = {axis.dims[0] for axis in einsum.output}
    if not 1 <= len(windows) <= 2 or any(len(axis.terms) != 2 for axis in windows):
        return ""
    steps: set[tuple[int, int]] = set()
    size = {"p": 1, "q": 1, "r": 1, "s": 1}
    for axis, (outer, tap) in zip(windows, (("p", "r"), ("q", "s"))):
        moving = [(c, d) for c, d in axis.terms if d in out]
        fixed = [(c, d) for c, d in axis.terms if d not in out]
        if len(moving) != 1:
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
