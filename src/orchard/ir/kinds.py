"""Op kinds: what each one computes, its attributes, and its shape rule. An unknown kind is an error that lists these.

| kind | inputs -> outputs | attributes |
|---|---|---|
| einsum | operands -> y | spec; combine, reduce; routed, active (experts); pairs (masked attention); groups by dims |
| elementwise | 1..n (broadcast) -> y | fn: add, mul, silu, gelu, relu, sigmoid, tanh, exp, scale, ... |
| softmax | x [, sink] -> y | axis (default -1); pairs (masked attention) |
| norm | x [, scale, shift, mean, variance] -> y | fn: rmsnorm, layernorm, groupnorm, batchnorm, instancenorm, l2norm |
| rope | x -> y | rotary position embedding on the last axis |
| gather | table, indices -> y | rows of the first axis of table, looked up, not streamed |
| update | state, rows -> state' | writes `rows` into a cache; only the rows move |
| scan | x... -> y | fn: gated_delta, mamba1, mamba2, lstm, gru; state: elements; ops_per_step; macs; time_axis (1, or 0) |
| topk | scores -> values, indices | k |
| reduce | x -> y | fn: sum, mean, max; axes |
| pool | x -> y | fn: max, avg; kernel, stride |
| resize | x -> y | fn: nearest, bilinear |
| fill | -> y | fn: constant, arange, random: written without reading anything (a mask whose size is symbolic) |
| view | x -> y... | reshape, transpose or split that no kernel runs for (all elements of x, in one or more parts) |
| move | x... -> y... | fn: transpose, concat, slice, pad, copy, cast, gather: data moves, nothing is computed |
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from orchard.ir.einsum import parse_einsum
from orchard.ir.errors import GraphError
from orchard.ir.graph import Graph, Op, Tensor
from orchard.ir.size import Expr, Size, product

ShapeRule = Callable[[Op, Sequence[Tensor], Sequence[Tensor]], None]

_RULES: dict[str, ShapeRule] = {}


def shape_rule(kind: str) -> Callable[[ShapeRule], ShapeRule]:
    """Register the check of one kind's operands, attributes and shapes."""

    def register(rule: ShapeRule) -> ShapeRule:
        _RULES[kind] = rule
        return rule

    return register


def kinds() -> tuple[str, ...]:
    """All known op kinds."""
    return tuple(sorted(_RULES))


def verify(graph: Graph) -> Graph:
    """Check every op against its kind's rule and return the graph. Raises GraphError naming op, got and expected."""
    for op in graph.ops:
        rule = _RULES.get(op.kind)
        if rule is None:
            raise GraphError(f"op {op.name}: unknown kind {op.kind!r}; known: {', '.join(kinds())}")
        rule(op, graph.inputs_of(op), graph.outputs_of(op))
    return graph


def _need(op: Op, condition: bool, expected: str) -> None:
    if not condition:
        raise GraphError(f"op {op.name} ({op.kind}): expected {expected}")


def _same(op: Op, got: Sequence[Size], expected: Sequence[Size]) -> None:
    if tuple(got) != tuple(expected):
        raise GraphError(f"op {op.name} ({op.kind}): output shape {_show(got)}, expected {_show(expected)}")


def _show(shape: Sequence[Size]) -> str:
    return "[" + ", ".join(str(s) for s in shape) + "]"


def broadcast(op: Op, shapes: Sequence[Sequence[Size]]) -> tuple[Size, ...]:
    """NumPy broadcasting over sizes. Raises GraphError where two sizes differ and neither is 1."""
    ndim = max(len(s) for s in shapes)
    result: list[Size] = []
    for axis in range(ndim):
        found: Size = 1
        for shape in shapes:
            position = axis - (ndim - len(shape))
            size = shape[position] if position >= 0 else 1
            if size == 1 or size == found:
                continue
            if found != 1:
                raise GraphError(f"op {op.name} ({op.kind}): axis {axis} is {found} and {size}, cannot broadcast")
            found = size
        result.append(found)
    return tuple(result)


@shape_rule("einsum")
def _einsum(op: Op, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> None:
    spec = op.attrs.get("spec")
    _need(op, isinstance(spec, str), "an attribute spec such as 'm k, k n -> m n'")
    einsum = parse_einsum(str(spec), str(op.attrs.get("combine", "mul")), str(op.attrs.get("reduce", "sum")))
    _need(op, len(outputs) == 1 and len(inputs) >= len(einsum.inputs), f"{len(einsum.inputs)} operands and one output")
    shapes = [_routed_shape(op, t) for t in inputs[: len(einsum.inputs)]]
    try:
        einsum.sizes(shapes, outputs[0].shape)
    except GraphError as error:
        raise GraphError(f"op {op.name}: {error}") from None


def _routed_shape(op: Op, tensor: Tensor) -> tuple[Size, ...]:
    """Expert weights carry a leading expert axis that routing picks from; the Einsum is over one expert's slice."""
    return tensor.shape[1:] if "routed" in op.attrs and tensor.part.startswith("expert") else tensor.shape


@shape_rule("elementwise")
def _elementwise(op: Op, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> None:
    _need(op, isinstance(op.attrs.get("fn"), str), "an attribute fn such as add")
    _need(op, len(inputs) >= 1 and len(outputs) == 1, "at least one input and one output")
    _same(op, outputs[0].shape, broadcast(op, [t.shape for t in inputs]))


def _unary(op: Op, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> None:
    _need(op, len(inputs) >= 1 and len(outputs) == 1, "an input and one output")
    _same(op, outputs[0].shape, inputs[0].shape)


for _kind in ("softmax", "norm", "rope"):
    shape_rule(_kind)(_unary)


@shape_rule("gather")
def _gather(op: Op, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> None:
    _need(op, len(inputs) == 2 and len(outputs) == 1, "a table, indices and one output")
    _same(op, outputs[0].shape, (*inputs[1].shape, *inputs[0].shape[1:]))


@shape_rule("update")
def _update(op: Op, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> None:
    _need(op, len(inputs) == 2 and len(outputs) == 1, "a state, rows and one output")
    _same(op, outputs[0].shape, inputs[0].shape)
    _need(op, len(inputs[0].shape) == len(inputs[1].shape), f"rows with {len(inputs[0].shape)} axes")


@shape_rule("scan")
def _scan(op: Op, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> None:
    _need(op, len(inputs) >= 1 and len(outputs) >= 1, "inputs and outputs")
    for key in ("fn", "state", "ops_per_step"):
        _need(op, key in op.attrs, f"an attribute {key}")


@shape_rule("topk")
def _topk(op: Op, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> None:
    k = op.attrs.get("k")
    _need(op, isinstance(k, (int, Expr)) and len(inputs) == 1 and len(outputs) == 2, "k, one input and two outputs")
    for output in outputs:
        _same(op, output.shape, (*inputs[0].shape[:-1], k))  # type: ignore[arg-type]


def _free(op: Op, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> None:
    _need(op, len(inputs) >= 1 and len(outputs) >= 1, "inputs and outputs")


for _kind in ("reduce", "pool", "resize", "move"):
    shape_rule(_kind)(_free)


@shape_rule("fill")
def _fill(op: Op, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> None:
    _need(op, not inputs and len(outputs) == 1, "no input and one output")


@shape_rule("view")
def _view(op: Op, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> None:
    _need(op, len(inputs) == 1 and len(outputs) >= 1, "one input and at least one output")
    expected = product(inputs[0].shape)
    got: Size = 0
    for output in outputs:
        got = got + product(output.shape)
    if got != expected:
        raise GraphError(f"op {op.name} (view): {got} elements out, expected {expected}")
