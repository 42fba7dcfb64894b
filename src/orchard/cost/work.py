"""Counts first: what one op must compute and touch, as exact sizes. No machine is known here.

Counts are ints for a bound graph and closed forms for a symbolic one. One MAC is two ops; `vector_ops` are all others
(adds, exps, compares), counted per element with the factor that the rule states. Bytes are compulsory: each operand once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from fractions import Fraction
from functools import lru_cache
from typing import Any

from orchard.cost.errors import NoCostRule
from orchard.ir import Einsum, Graph, Op, Role, Size, Tensor, distinct, floordiv, parse_einsum, product
from orchard.units import bytes_of, number_format

Count = Any
"""A count: int, Fraction or Expr. All support + and *; `orchard.ir.value_of` turns one into a float."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """Counts of one op or of a sum of ops.

    macs               multiply-accumulates
    vector_ops         other scalar operations
    weight_bytes       weights touched (expected value where routing picks experts)
    state_bytes        KV cache or recurrent state read and written
    input_bytes        activations read
    output_bytes       activations written
    """

    macs: Count = 0
    vector_ops: Count = 0
    weight_bytes: Count = 0
    state_bytes: Count = 0
    input_bytes: Count = 0
    output_bytes: Count = 0

    @property
    def ops(self) -> Count:
        """Operations; 1 MAC = 2 ops."""
        return self.macs * 2 + self.vector_ops

    @property
    def bytes(self) -> Count:
        """All bytes touched once."""
        return self.weight_bytes + self.state_bytes + self.input_bytes + self.output_bytes

    def __add__(self, other: Work) -> Work:
        return Work(**{f.name: getattr(self, f.name) + getattr(other, f.name) for f in fields(self)})


WorkRule = Callable[[Op, Sequence[Tensor], Sequence[Tensor]], Work]
_RULES: dict[str, WorkRule] = {}


def cost_rule(kind: str) -> Callable[[WorkRule], WorkRule]:
    """Register the counting rule of one op kind."""

    def register(rule: WorkRule) -> WorkRule:
        _RULES[kind] = rule
        return rule

    return register


def work_of(op: Op, graph: Graph) -> Work:
    """Counts of one op. Raises NoCostRule for a kind without a rule."""
    rule = _RULES.get(op.kind)
    if rule is None:
        raise NoCostRule(f"{op.name}: no cost rule for {op.kind!r}; known: {', '.join(sorted(_RULES))}")
    return rule(op, graph.inputs_of(op), graph.outputs_of(op))


def work_of_graph(graph: Graph) -> Work:
    """Counts of all ops, each operand of each op once; nothing is assumed to stay on chip between ops."""
    total = Work()
    for op in graph.ops:
        total = total + work_of(op, graph)
    return total


def tensor_bytes(tensor: Tensor) -> Count:
    """Bytes of a whole tensor at the bits per element of its number format, block scales included."""
    return _bytes(tensor.shape, tensor.format)


@lru_cache(maxsize=1 << 14)
def _bytes(shape: tuple[Size, ...], fmt: str) -> Count:
    return product(shape) * (Fraction(number_format(fmt).bits) / 8)


def matrix_bytes(tensor: Tensor, rows: Size, columns: Size) -> Count:
    """Bytes of a weight stored as [rows, columns], columns contracted: per-row scales and look-up tables included."""
    fmt = number_format(tensor.format)
    if not (fmt.row_bits or fmt.table_bits) or not isinstance(rows, int) or not isinstance(columns, int):
        return tensor_bytes(tensor)
    if rows * columns > 0 and (fmt.pads or columns % fmt.block == 0):
        return bytes_of(fmt, (rows, columns)) * floordiv(tensor.elements, rows * columns)
    return tensor_bytes(tensor)


def einsum_of(op: Op) -> Einsum:
    """The Einsum of an op of kind `einsum`."""
    return parse_einsum(str(op.attrs["spec"]), str(op.attrs.get("combine", "mul")), str(op.attrs.get("reduce", "sum")))


def einsum_sizes(op: Op, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> dict[str, Size]:
    """Size of each dim; expert weights are seen as one expert's slice."""
    einsum = einsum_of(op)
    shapes = [slice_shape(op, t) for t in inputs[: len(einsum.inputs)]]
    return einsum.sizes(shapes, outputs[0].shape)


def slice_shape(op: Op, tensor: Tensor) -> tuple[Size, ...]:
    """Shape an op sees of a tensor: expert weights [experts, ...] are routed, one slice at a time."""
    return tensor.shape[1:] if is_routed(op, tensor) else tensor.shape


def is_routed(op: Op, tensor: Tensor) -> bool:
    return "routed" in op.attrs and tensor.part.startswith("expert")


def einsum_macs(op: Op, sizes: dict[str, Size]) -> Count:
    """Points of the iteration space. `pairs` replaces the product of dims t and s where a mask removes some of them."""
    if "pairs" in op.attrs:
        return product(size for dim, size in sizes.items() if dim not in ("t", "s")) * op.attrs["pairs"]  # type: ignore[operator]
    return product(sizes.values())


@cost_rule("einsum")
def einsum_work(op: Op, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> Work:
    sizes = einsum_sizes(op, inputs, outputs)
    points = einsum_macs(op, sizes)
    is_product = op.attrs.get("combine", "mul") == "mul" and len(einsum_of(op).inputs) >= 2
    weights = state = read = 0
    for tensor in inputs:
        if tensor.role is Role.WEIGHT:
            weights = weights + _weight_bytes(op, tensor, sizes)
        elif tensor.role is Role.STATE:
            state = state + tensor_bytes(tensor)
        else:
            read = read + tensor_bytes(tensor)
    return Work(
        macs=points if is_product else 0,
        vector_ops=0 if is_product else points,
        weight_bytes=weights,
        state_bytes=state,
        input_bytes=read,
        output_bytes=tensor_bytes(outputs[0]),
    )


def _weight_bytes(op: Op, tensor: Tensor, sizes: dict[str, Size]) -> Count:
    """All of a dense weight; of expert weights the expected distinct experts that the tokens of this call touch."""
    einsum = einsum_of(op)
    kept = {axis.dims[0] for axis in einsum.output}
    access = einsum.inputs[min(op.inputs.index(tensor.name), len(einsum.inputs) - 1)]
    weight_dims = {d for axis in access for d in axis.dims}
    rows = product(sizes[d] for d in weight_dims if d in kept)
    whole = matrix_bytes(tensor, rows, product(sizes[d] for d in weight_dims if d not in kept))
    if not is_routed(op, tensor):
        return whole
    experts = int(op.attrs["routed"])  # type: ignore[arg-type]
    active = int(op.attrs["active"])  # type: ignore[arg-type]
    pairs = product(sizes[d] for d in kept if d not in weight_dims)
    return whole * Fraction(1, experts) * distinct(experts, active, floordiv(pairs, active))


VECTOR_OPS_PER_ELEMENT = {
    # Elementwise functions, operations per output element. Transcendentals count as their usual polynomial length on SIMD
    # units (a convention, not a measurement; they never decide a kernel that streams its operands).
    "gelu": 8, "gelu_tanh": 8, "silu": 5, "sigmoid": 4, "tanh": 6, "exp": 4, "softplus": 6, "erf": 8, "swish": 5,
    "hardswish": 4, "mish": 8,
}  # fmt: skip


@cost_rule("elementwise")
def elementwise_work(op: Op, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> Work:
    per_element = VECTOR_OPS_PER_ELEMENT.get(str(op.attrs["fn"]), max(1, len(inputs) - 1))
    return _streamed(inputs, outputs, outputs[0].elements * per_element)


@cost_rule("softmax")
def softmax_work(op: Op, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> Work:
    """5 operations per element: max, subtract, exp, sum, divide. `pairs` counts only unmasked elements."""
    elements: Count = outputs[0].elements
    if "pairs" in op.attrs:
        elements = product(outputs[0].shape[:-2]) * op.attrs["pairs"]  # type: ignore[operator]
    return _streamed(inputs, outputs, elements * 5)


@cost_rule("norm")
def norm_work(op: Op, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> Work:
    """RMS norm: square, sum, scale, multiply (4); the centred norms add mean and shift (7). Batch norm folds to 2."""
    per_element = {"rmsnorm": 4, "l2norm": 3, "batchnorm": 2}.get(str(op.attrs.get("fn", "")), 7)
    return _streamed(inputs, outputs, outputs[0].elements * per_element)


@cost_rule("rope")
def rope_work(op: Op, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> Work:
    """Two multiplies and an add per element."""
    return _streamed(inputs, outputs, outputs[0].elements * 3)


@cost_rule("gather")
def gather_work(op: Op, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> Work:
    """Rows are looked up: the table is touched only where indices point."""
    table, indices = inputs
    row_bits = product(table.shape[1:]) * Fraction(number_format(table.format).bits)
    rows = indices.elements
    touched = rows * row_bits * Fraction(1, 8)
    is_weight = table.role is Role.WEIGHT
    return Work(
        weight_bytes=touched if is_weight else 0,
        input_bytes=tensor_bytes(indices) + (0 if is_weight else touched),
        output_bytes=tensor_bytes(outputs[0]),
    )


@cost_rule("update")
def update_work(op: Op, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> Work:
    """The new rows are read and written into the state; the rest of the state is not touched."""
    state, rows = inputs
    written = rows.elements * Fraction(number_format(state.format).bits) * Fraction(1, 8)
    return Work(input_bytes=tensor_bytes(rows), state_bytes=written)


@cost_rule("scan")
def scan_work(op: Op, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> Work:
    """`ops_per_step` per token and sequence; the state (elements per sequence, f32) is read and written once a call.

    Recurrent products (LSTM, GRU: the attribute `macs`) are part of `ops_per_step`, two operations each: they run step after
    step, a vector at a time, on the lanes that do the gates.
    """
    sequences, steps = scan_sizes(op, inputs)
    tokens = sequences * steps
    state = sequences * op.attrs["state"] * 4  # type: ignore[operator]
    streamed = _streamed(inputs, outputs, tokens * op.attrs["ops_per_step"])  # type: ignore[operator]
    return streamed + Work(state_bytes=state * 2)


def scan_sizes(op: Op, inputs: Sequence[Tensor]) -> tuple[Size, Size]:
    """(sequences, steps) of a scan: the first two axes of its first operand, time first where `time_axis` is 0."""
    first, second = inputs[0].shape[:2]
    return (second, first) if op.attrs.get("time_axis") == 0 else (first, second)


@cost_rule("topk")
def topk_work(op: Op, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> Work:
    return _streamed(inputs, outputs, inputs[0].elements * 2)


@cost_rule("reduce")
def reduce_work(op: Op, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> Work:
    return _streamed(inputs, outputs, inputs[0].elements)


@cost_rule("pool")
def pool_work(op: Op, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> Work:
    kernel = op.attrs.get("kernel", (1,))
    taps = product(kernel) if isinstance(kernel, tuple) else kernel  # type: ignore[arg-type]
    return _streamed(inputs, outputs, outputs[0].elements * taps)  # type: ignore[operator]


@cost_rule("resize")
def resize_work(op: Op, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> Work:
    taps = 1 if op.attrs.get("fn") == "nearest" else 7  # bilinear: 4 weighted reads
    return _streamed(inputs, outputs, outputs[0].elements * taps)


@cost_rule("fill")
def fill_work(op: Op, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> Work:
    """Written without reading anything."""
    return Work(output_bytes=tensor_bytes(outputs[0]))


@cost_rule("view")
def view_work(op: Op, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> Work:
    """Only the header changes."""
    return Work()


@cost_rule("move")
def move_work(op: Op, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> Work:
    """What is written has been read: a slice reads its part, not the whole operand."""
    written = sum((tensor_bytes(t) for t in outputs), start=0)
    return Work(input_bytes=written, output_bytes=written)


def _streamed(inputs: Sequence[Tensor], outputs: Sequence[Tensor], vector_ops: Count) -> Work:
    weights = state = read = 0
    for tensor in inputs:
        if tensor.role is Role.WEIGHT:
            weights = weights + tensor_bytes(tensor)
        elif tensor.role is Role.STATE:
            state = state + tensor_bytes(tensor)
        else:
            read = read + tensor_bytes(tensor)
    written = sum((tensor_bytes(t) for t in outputs), start=0)
    return Work(vector_ops=vector_ops, weight_bytes=weights, state_bytes=state, input_bytes=read, output_bytes=written)
