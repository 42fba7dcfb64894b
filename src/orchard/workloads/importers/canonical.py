"""One canonical form for what the importers lower: the same network from different sources ends as the same graph.

Passes, in order:
1. drop what no output needs, and layout ops that change nothing;
2. fold everything that depends on no input into leaves (a transposed weight is still that weight; a mask is a
constant);
3. recognise composites that runtimes run as one kernel. Scalar functions (gelu, silu, hard-swish, ...) and row
   functions (softmax, layer norm, RMS norm) are recognised *by value*: a region of elementwise ops and reductions with
   one tensor going in and one coming out is evaluated at sample points and compared with the known functions, so the
   order, the constants and the operator set of the source do not matter;
4. fold batch norm and biases into the contraction before them, scale and mask into attention's softmax, quantize and
   dequantize pairs into the ops between them, repeated key/value heads and transposes into the Einsums that read them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from orchard.ir import Graph, GraphError, Op, Role, Size, Tensor, parse_einsum, product, symbols_of, verify
from orchard.ir.einsum import Access, Axis, Einsum
from orchard.workloads.importers.common import Lowering, Node, Value
from orchard.workloads.importers.errors import ImportError_

_LAYOUT = ("transpose", "cast", "copy")
_MAX_REGION = 24


class Net:
    """The nodes with use counts; passes edit it in place."""

    def __init__(self, low: Lowering, outputs: Sequence[Value]) -> None:
        self.low = low
        self.nodes = low.nodes
        self.outputs = list(outputs)
        self.uses: dict[int, list[Node]] = {}
        self.refresh()

    def refresh(self) -> None:
        """Drop dead nodes and recount uses."""
        needed = {id(v) for v in self.outputs}
        kept: list[Node] = []
        for node in reversed(self.nodes):
            if any(id(o) in needed for o in node.outputs):
                kept.append(node)
                needed.update(id(v) for v in node.inputs)
        self.nodes = kept[::-1]
        self.uses = {}
        for node in self.nodes:
            for value in {id(v): v for v in node.inputs}.values():
                self.uses.setdefault(id(value), []).append(node)

    def users(self, value: Value) -> list[Node]:
        return self.uses.get(id(value), [])

    def is_output(self, value: Value) -> bool:
        return any(v is value for v in self.outputs)

    def only_user(self, value: Value) -> Node | None:
        """The one node that reads `value`, when no output does."""
        users = self.users(value)
        return users[0] if len(users) == 1 and not self.is_output(value) else None

    def replace(self, old: Value, new: Value) -> None:
        """All readers of `old` read `new`."""
        for node in self.uses.pop(id(old), []):
            node.inputs = [new if v is old else v for v in node.inputs]
            self.uses.setdefault(id(new), []).append(node)
        self.outputs = [new if v is old else v for v in self.outputs]

    def producer(self, value: Value, kind: str, *fns: str) -> Node | None:
        node = value.producer
        return node if node is not None and node.is_(kind, *fns) else None

    def sort(self) -> None:
        """Program order again, stable, after passes that inserted nodes."""
        index = {id(n): i for i, n in enumerate(self.nodes)}
        done: set[int] = set()
        order: list[Node] = []
        for root in self.nodes:
            stack: list[tuple[Node, bool]] = [(root, False)]
            while stack:
                node, ready = stack.pop()
                if id(node) in done:
                    continue
                if ready:
                    done.add(id(node))
                    order.append(node)
                    continue
                stack.append((node, True))
                for value in reversed(node.inputs):
                    before = value.producer
                    if before is not None and id(before) not in done and id(before) in index:
                        stack.append((before, False))
        self.nodes = order


def finish(low: Lowering, outputs: Sequence[Value]) -> Graph:
    """The canonical, verified graph. Raises ImportError_ where the result breaks a rule of the IR."""
    if not outputs:
        raise ImportError_(f"{low.where}: the model has no outputs")
    net = Net(low, outputs)
    for run in (
        drop_identities, fold_constants, recognise, drop_nan_guards, fold_padding, fold_batchnorm, fold_quantization,
        fold_bias, recognise_rope, fold_attention, fold_repeated_heads, fold_transposes, merge_views, fold_repeated_heads,
        fold_transposes, merge_views, fold_affine, fold_bias,
    ):  # fmt: skip
        run(net)
        net.refresh()
    net.sort()
    return _build(net)


# ---- 1. identities


def drop_identities(net: Net) -> None:
    """Views, casts, copies and one-input concatenations that change nothing."""
    for node in net.nodes:
        if len(node.inputs) != 1 or len(node.outputs) != 1:
            continue
        source, out = node.inputs[0], node.out
        same = source.shape == out.shape and source.format == out.format
        if (
            node.is_("move", "copy")
            or (same and node.is_("elementwise", "identity"))
            or (same and (node.kind == "view" or node.is_("move", "cast", "expand", "slice")))
            or (node.is_("move", "transpose") and node.attrs["perm"] == tuple(range(source.ndim)))
        ):
            net.replace(out, source)


# ---- 2. constants


def fold_constants(net: Net) -> None:
    """Leaves for all values that depend on no input.

    A chain of layout ops on one stored tensor stays that tensor, in its stored format. Anything else becomes a constant
    (or `folded`, when parameters went in). A table that is looked up stays a table. Constants whose shape has symbols
    become one `fill`.
    """
    constant: dict[int, Value] = {id(v): v for v in net.low.leaves if v.role is Role.WEIGHT}
    roots: dict[int, tuple[Value, ...]] = {}
    relayout: dict[int, bool] = {}
    made: dict[tuple[int, tuple[Size, ...]], Value] = {}

    def is_constant(value: Value) -> bool:
        return id(value) in constant or (value.producer is None and value.role is Role.WEIGHT)

    def roots_of(value: Value) -> tuple[Value, ...]:
        if value.producer is None:
            return () if value.part in ("constant",) and value.data is not None else (value,)
        return roots.get(id(value), ())

    for node in net.nodes:
        if not all(is_constant(v) for v in node.inputs) or node.attrs.get("fn") == "random":
            continue
        if node.kind == "gather" and any(r.part not in ("constant",) for r in roots_of(node.inputs[0])):
            continue
        first = node.inputs[:1] if node.is_("elementwise", "dequantize") else node.inputs
        found = {id(r): r for v in first for r in roots_of(v)}
        symbolic = any(symbols_of(s) for o in node.outputs for s in o.shape)
        if symbolic and any(r.part not in ("constant",) for r in found.values()):
            continue
        moves = node.kind == "view" or node.is_("move", *_LAYOUT) or node.is_("elementwise", "dequantize", "identity")
        for out in node.outputs:
            constant[id(out)] = out
            roots[id(out)] = tuple(found.values())
            relayout[id(out)] = moves and all(v.producer is None or relayout.get(id(v), False) for v in first)

    live = [n for n in net.nodes if not all(id(o) in constant for o in n.outputs)]
    read = {id(v) for n in live for v in n.inputs}
    for node in live:
        if node.kind == "einsum" or node.is_("move", "transpose"):
            # transposes of weights go into the Einsum's access instead (fold_transposes), so a tied table stays one
            node.inputs = [_through(v, constant, relayout, node, made, roots, read, net.low) for v in node.inputs]
        else:
            node.inputs = [_leaf(v, constant, relayout, made, roots, read, net.low) for v in node.inputs]
    net.outputs = [_leaf(v, constant, relayout, made, roots, read, net.low) for v in net.outputs]
    fills = {id(n): n for n in _producers(net.outputs) if n.kind == "fill"}
    fills |= {id(p): p for n in live for p in _producers(n.inputs) if p.kind == "fill"}
    moved = {
        id(p): p for n in live for p in _producers(n.inputs) if p.is_("move", "transpose") and id(p.out) in constant
    }
    net.nodes = [*fills.values(), *moved.values(), *(n for n in live if id(n) not in fills)]


def _producers(values: Iterable[Value]) -> list[Node]:
    return [v.producer for v in values if v.producer is not None]


def _through(
    value: Value, constant: dict[int, Value], relayout: dict[int, bool], node: Node,
    made: dict[tuple[int, tuple[Size, ...]], Value], roots: dict[int, tuple[Value, ...]], read: set[int], low: Lowering,
) -> Value:  # fmt: skip
    """Keep a transpose of a stored weight in front of an Einsum; leaves for everything else."""
    before = value.producer
    if id(value) in constant and before is not None and before.is_("move", "transpose") and node.kind == "einsum":
        before.inputs = [_leaf(v, constant, relayout, made, roots, read, low) for v in before.inputs]
        return value
    return _leaf(value, constant, relayout, made, roots, read, low)


def _leaf(
    value: Value, constant: dict[int, Value], relayout: dict[int, bool],
    made: dict[tuple[int, tuple[Size, ...]], Value], roots: dict[int, tuple[Value, ...]], read: set[int], low: Lowering,
) -> Value:  # fmt: skip
    if value.producer is None or id(value) not in constant:
        return value
    if any(symbols_of(s) for s in value.shape):
        key = (id(value), value.shape)
        if key not in made:
            node = Node(
                "fill", [], [Value(value.name, value.shape, value.format)], {"fn": "constant"}, value.producer.scope
            )
            node.out.producer = node
            made[key] = node.out
        return made[key]
    found = roots.get(id(value), ())
    root = found[0] if len(found) == 1 else None
    if root is not None and relayout.get(id(value)):
        key = (id(root), value.shape)
        if key not in made:
            name = root.name if id(root) not in read else f"{root.name}.{value.producer.fn or value.producer.kind}"
            made[key] = Value(name, value.shape, root.format, Role.WEIGHT, root.part, root.layer, value.data)
            low.leaves.append(made[key])
        return made[key]
    key = (id(value), value.shape)
    if key not in made:
        part = "other" if any(r.part != "constant" for r in found) else "constant"
        made[key] = Value(value.name, value.shape, value.format, Role.WEIGHT, part, data=value.data)
        low.leaves.append(made[key])
    return made[key]


# ---- 3. composites by value


def _erf(x: Any) -> Any:
    from scipy.special import erf

    return erf(x)


def _sigmoid(x: Any) -> Any:
    return 1.0 / (1.0 + np.exp(-x))


_EVALUATE: dict[str, Callable[..., Any]] = {
    "add": np.add, "sub": np.subtract, "mul": np.multiply, "div": np.divide, "pow": np.power, "exp": np.exp,
    "erf": _erf, "tanh": np.tanh, "sigmoid": _sigmoid, "sqrt": np.sqrt, "rsqrt": lambda x: 1 / np.sqrt(x),
    "reciprocal": lambda x: 1 / x, "relu": lambda x: np.maximum(x, 0), "relu6": lambda x: np.clip(x, 0, 6),
    "neg": np.negative, "abs": np.abs, "log": np.log, "square": np.square, "softplus": lambda x: np.log1p(np.exp(x)),
    "min": np.minimum, "max": np.maximum, "hardsigmoid": lambda x: np.clip(x / 6 + 0.5, 0, 1),
    "identity": lambda x: x, "scale": lambda x: x,
}  # fmt: skip

_REDUCE: dict[str, Callable[..., Any]] = {"mean": np.mean, "sum": np.sum, "max": np.max}

_SCALAR_FUNCTIONS: dict[str, Callable[[Any], Any]] = {
    "gelu": lambda x: 0.5 * x * (1 + _erf(x / math.sqrt(2))),
    "gelu_tanh": lambda x: 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
    "quick_gelu": lambda x: x * _sigmoid(1.702 * x),
    "silu": lambda x: x * _sigmoid(x),
    "hardswish": lambda x: x * np.clip(x / 6 + 0.5, 0, 1),
    "hardsigmoid": lambda x: np.clip(x / 6 + 0.5, 0, 1),
    "mish": lambda x: x * np.tanh(np.log1p(np.exp(x))),
    "relu": lambda x: np.maximum(x, 0),
    "relu6": lambda x: np.clip(x, 0, 6),
    "sigmoid": _sigmoid,
    "softplus": lambda x: np.log1p(np.exp(x)),
    "tanh": np.tanh,
}  # fmt: skip

_STARTERS = frozenset(
    {"erf", "tanh", "sigmoid", "exp", "sqrt", "rsqrt", "relu6", "clamp", "hardsigmoid", "pow", "softplus", "min", "max"}
)


def _row_functions(x: Any, eps: float) -> dict[str, Any]:
    mean = x.mean(-1, keepdims=True)
    centred = x - mean
    shifted = np.exp(x - x.max(-1, keepdims=True))
    return {
        "layernorm": centred / np.sqrt((centred**2).mean(-1, keepdims=True) + eps),
        "rmsnorm": x / np.sqrt((x**2).mean(-1, keepdims=True) + eps),
        "l2norm": x / np.sqrt((x**2).sum(-1, keepdims=True)),
        "softmax": shifted / shifted.sum(-1, keepdims=True),
        "log_softmax": np.log(shifted / shifted.sum(-1, keepdims=True)),
    }


def recognise(net: Net) -> None:
    """Replace regions that compute a known scalar or row function by one op, the largest region first."""
    position = {id(n): i for i, n in enumerate(net.nodes)}
    gone: set[int] = set()
    for node in reversed(net.nodes):
        if id(node) in gone or not (node.kind == "elementwise" or node.is_("move", "cast")):
            continue
        match = _match_region(net, node, position)
        if match is None:
            continue
        source, (kind, fn, axes), region = match
        gone.update(region)
        out = node.out
        node.kind, node.inputs, node.attrs = kind, [source], {"fn": fn}
        if kind == "norm":
            node.attrs = {"fn": fn} if axes == (source.ndim - 1,) else {"fn": fn, "axes": axes}
        elif kind == "softmax":
            node.attrs = {"axis": -1 if axes == (source.ndim - 1,) else axes[0]}
            if fn != "softmax":
                node.attrs["fn"] = fn
        out.name = fn
        gone.discard(id(node))
    net.nodes = [n for n in net.nodes if id(n) not in gone]
    net.refresh()


def _match_region(
    net: Net, last: Node, position: dict[int, int]
) -> tuple[Value, tuple[str, str, tuple[int, ...]], set[int]] | None:
    region = {id(last): last}
    frontier = _open_inputs([last], region)
    best: tuple[Value, tuple[str, str, tuple[int, ...]], set[int]] | None = None
    while len(region) <= _MAX_REGION and frontier:
        if len(frontier) == 1 and (len(region) > 1 or last.fn in ("max", "min")):
            found = _evaluate_region(last, region, frontier[0])
            if found is not None:
                best = (frontier[0], found, set(region))
        grow = max(frontier, key=lambda v: position.get(id(v.producer), -1))
        node = grow.producer
        if node is None or not _may_join(node) or net.is_output(grow):
            break
        if any(id(u) not in region for u in net.users(grow)):
            break
        region[id(node)] = node
        frontier = _open_inputs(list(region.values()), region)
    return best


def _may_join(node: Node) -> bool:
    if node.kind == "elementwise":
        return node.fn in _EVALUATE or node.fn == "clamp" or node.fn in _SCALAR_FUNCTIONS
    if node.kind == "view":
        return node.inputs[0].producer is not None and node.inputs[0].producer.kind == "reduce"
    return node.is_("reduce", "mean", "sum", "max") or node.is_("move", "cast", "expand")


def _open_inputs(nodes: Sequence[Node], region: dict[int, Node]) -> list[Value]:
    """Tensors that enter the region; known scalars do not count."""
    found: dict[int, Value] = {}
    for node in nodes:
        for value in node.inputs:
            if value.scalar is None and (value.producer is None or id(value.producer) not in region):
                found[id(value)] = value
    return list(found.values())


def _evaluate_region(last: Node, region: dict[int, Node], source: Value) -> tuple[str, str, tuple[int, ...]] | None:
    if source.shape != last.out.shape or source.role is Role.WEIGHT:
        return None
    reduces = [n for n in region.values() if n.kind == "reduce"]
    if not reduces and not any(n.fn in _STARTERS for n in region.values()):
        return None
    axes: set[tuple[int, ...]] = {n.attrs.get("axes", ()) for n in reduces}  # type: ignore[misc]
    if len(axes) > 1:
        return None
    over = next(iter(axes)) if axes else ()
    width = product(source.shape[a] for a in over) if over else 1
    if reduces and (not isinstance(width, int) or not 1 < width <= 1 << 16):
        width = 17
    spread = np.linspace(-9.0, 9.0, 165).reshape(5, 33)
    rows = np.random.default_rng(7).normal(size=(5, int(width))) * 2.5 if reduces else spread  # type: ignore[arg-type]
    values: dict[int, Any] = {id(source): rows}
    try:
        with np.errstate(all="ignore"):
            got = _value_of(last.out, values, region, 0)
    except (KeyError, ValueError, TypeError, RecursionError, OverflowError):
        return None
    if np.shape(got) != rows.shape or not np.all(np.isfinite(got)):
        return None
    if reduces:
        for eps in (0.0, *_epsilons(region)):
            for fn, expected in _row_functions(rows, eps).items():
                if np.allclose(got, expected, rtol=1e-3, atol=2e-4):
                    return ("softmax" if "softmax" in fn else "norm", fn, over)
        return None
    for fn, function in _SCALAR_FUNCTIONS.items():
        if np.allclose(got, function(rows), rtol=1e-4, atol=1e-5):
            return "elementwise", fn, ()
    return None


def _epsilons(region: dict[int, Node]) -> list[float]:
    found = [v.scalar for n in region.values() if n.fn in ("add", "max", "clamp") for v in n.inputs]
    return [e for e in found if e is not None and 0 < e < 1e-2]


def _value_of(value: Value, values: dict[int, Any], region: dict[int, Node], depth: int) -> Any:
    if id(value) in values:
        return values[id(value)]
    if value.scalar is not None:
        return value.scalar
    node = value.producer
    if node is None or id(node) not in region or depth > _MAX_REGION:
        raise KeyError(value.name)
    operands = [_value_of(v, values, region, depth + 1) for v in node.inputs]
    if node.kind == "reduce":
        result = _REDUCE[node.fn](operands[0], axis=-1, keepdims=True)
    elif node.kind in ("view", "move"):
        result = operands[0]
    elif node.fn == "clamp":
        bounds: Any = node.attrs.get("low", -np.inf), node.attrs.get("high", np.inf)
        result = np.clip(operands[0], *bounds)
    elif node.fn in _SCALAR_FUNCTIONS:
        result = _SCALAR_FUNCTIONS[node.fn](operands[0])
    else:
        result = _EVALUATE[node.fn](*operands)
    values[id(value)] = result
    return result


def drop_nan_guards(net: Net) -> None:
    """where(isnan(y), 0, y) after a softmax: exporters guard rows that are masked everywhere."""
    for node in net.nodes:
        if not node.is_("elementwise", "where") or len(node.inputs) != 3:
            continue
        for value in node.inputs[1:]:
            before = value.producer
            guard = node.inputs[0].producer
            if (
                before is not None
                and before.kind == "softmax"
                and guard is not None
                and guard.fn in ("isnan", "any", "not")
            ):
                net.replace(node.out, value)
                break


# ---- 4. folding into contractions


def fold_padding(net: Net) -> None:
    """Zeros put around the spatial axes of a convolution's or pool's input are that op's own padding."""
    for node in net.nodes:
        if not node.is_("move", "pad") or net.is_output(node.out):
            continue
        padded = [i for i, (a, b) in enumerate(zip(node.inputs[0].shape, node.out.shape)) if a != b]
        readers = net.users(node.out)
        if readers and all(_pads_itself(r, node.out, padded) for r in readers):
            net.replace(node.out, node.inputs[0])


def _pads_itself(reader: Node, value: Value, axes: Sequence[int]) -> bool:
    if reader.kind == "pool":
        return value is reader.inputs[0] and min(axes) >= 2
    if (
        reader.kind != "einsum"
        or reader.inputs[0] is not value
        or (len(reader.inputs) > 1 and reader.inputs[1] is value)
    ):
        return False
    access = parse_einsum(str(reader.attrs["spec"])).inputs[0]
    return all(not access[axis].is_plain for axis in axes)


def _channel_axis(einsum: Node) -> Size | None:
    """Length of the axis a bias of this Einsum runs over: n of a linear, k (or g) of a convolution."""
    spec = parse_einsum(str(einsum.attrs["spec"]))
    if len(spec.inputs) != 2:
        return None
    names = [a.dims[0] for a in spec.output]
    if any(not a.is_plain for a in spec.inputs[0]):
        shape = dict(zip(names, einsum.out.shape))
        if "g" in names:
            return shape["g"] * shape.get("k", 1)
        return shape.get("k")
    return einsum.out.shape[-1] if names else None


def _behind_view(net: Net, value: Value) -> Node | None:
    """The Einsum that made `value`, looking through one reshape that only it feeds."""
    node = value.producer
    if node is not None and node.kind == "view" and net.only_user(node.inputs[0]) is node:
        node = node.inputs[0].producer
    return node if node is not None and node.kind == "einsum" else None


def fold_batchnorm(net: Net) -> None:
    """Inference batch norm after a convolution or linear layer is part of its weights; the shift stays as a bias."""
    for node in net.nodes:
        if not node.is_("norm", "batchnorm") or len(node.inputs) < 2 or net.only_user(node.inputs[0]) is not node:
            continue
        einsum = _behind_view(net, node.inputs[0])
        if einsum is None or _channel_axis(einsum) != node.inputs[1].elements:
            continue
        if len(einsum.inputs) == 2:
            einsum.inputs.append(node.inputs[2] if len(node.inputs) > 2 else node.inputs[1])
        net.replace(node.out, node.inputs[0])


def fold_bias(net: Net) -> None:
    """einsum + bias: the addition of a stored vector over the output channels becomes the Einsum's last operand."""
    for node in net.nodes:
        if not node.is_("elementwise", "add") or len(node.inputs) != 2:
            continue
        for x, bias in (node.inputs, node.inputs[::-1]):
            if bias.role is not Role.WEIGHT or bias.scalar is not None or net.only_user(x) is not node:
                continue
            einsum = _behind_view(net, x)
            if einsum is None or len(einsum.inputs) != 2 or _channel_axis(einsum) != bias.elements:
                continue
            if x.shape == node.out.shape:
                einsum.inputs.append(bias)
                net.replace(node.out, x)
                break


def fold_affine(net: Net) -> None:
    """Scale and shift that follow a norm are its parameters."""
    for fn in ("mul", "add"):
        for node in net.nodes:
            if not node.is_("elementwise", fn) or len(node.inputs) != 2:
                continue
            for x, parameter in (node.inputs, node.inputs[::-1]):
                norm = x.producer
                if norm is None or norm.kind != "norm" or norm.fn == "batchnorm" or net.only_user(x) is not node:
                    continue
                if parameter.role is Role.WEIGHT and parameter.scalar is None and x.shape == node.out.shape:
                    norm.inputs.append(parameter)
                    net.replace(node.out, x)
                    break
        net.refresh()


def fold_quantization(net: Net) -> None:
    """Integer tensors flow between integer ops: `dequantize` disappears into its readers, `quantize` into its
    producer."""
    for node in net.nodes:
        if node.is_("elementwise", "dequantize") and node.inputs[0].role is not Role.WEIGHT:
            net.replace(node.out, node.inputs[0])
    net.refresh()
    for node in net.nodes:
        if not node.is_("elementwise", "quantize"):
            continue
        source = node.inputs[0]
        if source.producer is not None and net.only_user(source) is node:
            source.format = node.out.format
            net.replace(node.out, source)


def recognise_rope(net: Net) -> None:
    """x*cos + rotate_half(x)*sin, and the interleaved form, are one rotary embedding."""
    for node in net.nodes:
        if node.is_("elementwise", "add") and len(node.inputs) == 2:
            found = _rope_halves(node) or _rope_halves(node, swap=True)
            if found is not None:
                x, tables = found
                node.kind, node.inputs, node.attrs = "rope", [x, *tables], {}
                node.out.name = "rope"
        elif node.is_("move", "concat"):
            found = _rope_split(node)
            if found is not None and found[0].shape == node.out.shape:
                node.kind, node.inputs, node.attrs = "rope", [found[0], *found[1]], {}
                node.out.name = "rope"


def _rope_halves(node: Node, *, swap: bool = False) -> tuple[Value, list[Value]] | None:
    plain, turned = (v.producer for v in (reversed(node.inputs) if swap else node.inputs))
    if plain is None or turned is None or not plain.is_("elementwise", "mul") or not turned.is_("elementwise", "mul"):
        return None
    for rotated, sin in (turned.inputs, turned.inputs[::-1]):
        halves = _producer_through_views(rotated)
        if halves is None or not halves.is_("move", "concat") or len(halves.inputs) != 2:
            continue
        sources = [_rotation_source(v) for v in halves.inputs]
        if sources[0] is None or sources[0] is not sources[1]:
            continue
        for x, cos in (plain.inputs, plain.inputs[::-1]):
            if _skip_views(x) is sources[0] or x is sources[0]:
                return x, [cos, sin]
    return None


def _skip_views(value: Value) -> Value:
    while value.producer is not None and value.producer.kind == "view":
        value = value.producer.inputs[0]
    return value


def _producer_through_views(value: Value) -> Node | None:
    return _skip_views(value).producer


def _rotation_source(value: Value) -> Value | None:
    """x of slice(x) or neg(slice(x)), reshapes in between ignored."""
    value = _skip_views(value)
    node = value.producer
    if node is not None and (node.is_("elementwise", "neg") or _is_negation(node)):
        value = _skip_views(node.inputs[0] if node.inputs[0].scalar is None else node.inputs[1])
        node = value.producer
    if node is not None and node.is_("move", "slice", "gather"):
        return _skip_views(node.inputs[0])
    return None


def _is_negation(node: Node) -> bool:
    return node.is_("elementwise", "mul") and any(v.scalar == -1 for v in node.inputs)


def _rope_split(node: Node) -> tuple[Value, list[Value]] | None:
    """concat(x1*cos - x2*sin, x2*cos + x1*sin), halves or interleaved."""
    if len(node.inputs) != 2:
        return None
    parts = [_producer_through_views(v) for v in node.inputs]
    sources: dict[int, Value] = {}
    tables: dict[int, Value] = {}
    for part in parts:
        if part is None or not part.is_("elementwise", "sub", "add"):
            return None
        for factor in part.inputs:
            product_node = _producer_through_views(factor)
            if product_node is None or not product_node.is_("elementwise", "mul"):
                return None
            found = None
            for value in product_node.inputs:
                source = _rotation_source(value)
                if source is not None and found is None and source.shape == node.out.shape:
                    sources[id(source)] = source
                    found = value
                else:
                    tables[id(value)] = value
            if found is None:
                return None
    return (next(iter(sources.values())), list(tables.values())) if len(sources) == 1 else None


def fold_attention(net: Net) -> None:
    """scale and mask between two matrix products and a softmax belong to the softmax.

    Also a scale on the queries or keys before the product, since scaling commutes with it.
    """
    for node in net.nodes:
        if node.kind != "softmax" or len(node.inputs) != 1 or node.attrs.get("axis") != -1:
            continue
        if not any(u.kind == "einsum" for u in _users_through_views(net, node.out)):
            continue
        scale, masks = 1.0, []
        value = node.inputs[0]
        while True:
            step = _peel(net, value)
            if step is None:
                break
            value, factor, mask = step
            scale *= factor
            if mask is not None:
                masks.append(mask)
        scores = value.producer
        looked = scores.inputs[0].producer if scores is not None and scores.kind == "view" else scores
        if looked is None or looked.kind != "einsum":
            continue
        node.inputs = [value, *masks]
        for index in (0, 1):
            scale *= _take_scale(net, looked, index)
        if scale != 1.0:
            node.attrs["scale"] = scale * float(node.attrs.get("scale", 1.0))  # type: ignore[arg-type]
        net.refresh()


def _users_through_views(net: Net, value: Value) -> list[Node]:
    found: list[Node] = []
    for user in net.users(value):
        if user.kind == "view" or user.is_("move", "cast") or user.is_("elementwise", "dropout"):
            found.extend(_users_through_views(net, user.out))
        else:
            found.append(user)
    return found


def _peel(net: Net, value: Value) -> tuple[Value, float, Value | None] | None:
    """One step from the softmax towards the scores: (value before, factor, mask)."""
    node = value.producer
    if node is None or net.is_output(value) or len(net.users(value)) != 1 or node.kind not in ("elementwise", "move"):
        return None
    if node.is_("move", "cast"):
        return node.inputs[0], 1.0, None
    if node.kind == "move":
        return None
    if node.fn in ("mul", "div") and len(node.inputs) == 2:
        for index, (x, factor) in enumerate((node.inputs, node.inputs[::-1])):
            if factor.scalar and x.shape == value.shape and not (node.fn == "div" and index == 1):
                return x, factor.scalar if node.fn == "mul" else 1.0 / factor.scalar, None
        return None
    if node.fn in ("add", "sub", "where", "masked_fill", "max"):
        tensors = [v for v in node.inputs if v.scalar is None]
        full = [v for v in tensors if v.shape == value.shape and _has_scores(v)]
        if len(full) == 1:
            others = [v for v in tensors if v is not full[0]]
            return full[0], 1.0, others[0] if others else None
    return None


def _has_scores(value: Value) -> bool:
    """Whether elementwise ops lead from a matrix product to `value`."""
    for _ in range(8):
        node = value.producer
        if node is None:
            return False
        if node.kind == "einsum":
            return True
        if node.kind not in ("elementwise", "view") and not node.is_("move", "cast"):
            return False
        value = max(node.inputs, key=lambda v: (v.role is Role.ACTIVATION and v.scalar is None, v.ndim))
    return False


def _take_scale(net: Net, einsum: Node, index: int) -> float:
    """Remove a multiplication by a scalar from what feeds operand `index`, and return the factor."""
    path: list[Node] = []
    value = einsum.inputs[index]
    reader = einsum
    while value.producer is not None and net.only_user(value) is reader:
        node = value.producer
        if node.kind == "view" or node.is_("move", "transpose", "cast", "expand") or node.kind == "rope":
            path.append(node)
            reader, value = node, node.inputs[0]
            continue
        if node.is_("elementwise", "mul", "div") and len(node.inputs) == 2:
            for position, (x, factor) in enumerate((node.inputs, node.inputs[::-1])):
                if factor.scalar and x.shape == node.out.shape and not (node.fn == "div" and position == 1):
                    net.replace(node.out, x)
                    return factor.scalar if node.fn == "mul" else 1.0 / factor.scalar
        return 1.0
    return 1.0


def fold_repeated_heads(net: Net) -> None:
    """Key/value heads repeated for grouped queries are read in place: the Einsum gets a group dim instead.

    before: k[b,g,s,d] -> view [b,g,1,s,d] -> expand [b,g,r,s,d] -> view [b,g*r,s,d] -> b h t d, b h s d -> b h t s
    after:  b h r t d, b h s d -> b h r t s on k itself, with q and the result viewed as [b,g,r,...]
    """
    for node in list(net.nodes):
        if node.kind != "einsum":
            continue
        for index in range(min(2, len(node.inputs))):
            if _unrepeat(net, node, index):
                net.refresh()
                break
    _sink_views_of_softmax(net)


def _unrepeat(net: Net, node: Node, index: int) -> bool:
    path: list[Node] = []
    value = node.inputs[index]
    perm: tuple[int, ...] | None = None
    before = value.producer
    if before is not None and before.is_("move", "transpose"):
        perm = before.attrs["perm"]  # type: ignore[assignment]
        value = before.inputs[0]
    outer = value.producer
    if outer is None or outer.kind != "view":
        return False
    expand = outer.inputs[0].producer
    if expand is None or not expand.is_("move", "expand"):
        return False
    wide, narrow = expand.out.shape, expand.inputs[0].shape
    grown = [i for i, (w, n) in enumerate(zip(wide, narrow)) if w != n]
    if len(grown) != 1 or narrow[grown[0]] != 1 or grown[0] == 0:
        return False
    at = grown[0] - 1  # the head axis in the flattened shape
    flat = (*wide[:at], wide[at] * wide[at + 1], *wide[at + 2 :])
    if tuple(value.shape) != flat:
        return False
    path.append(expand)
    spec = parse_einsum(str(node.attrs["spec"]))
    if len(spec.inputs) != 2 or any(not a.is_plain for access in spec.inputs for a in access):
        return False
    access = list(spec.inputs[index])
    if perm is not None:
        unpermuted: list[Axis] = [access[0]] * len(access)
        for position, source in enumerate(perm):
            unpermuted[source] = access[position]
        access = unpermuted
    head = access[at].dims[0]
    other = 1 - index
    names = [a.dims[0] for a in spec.inputs[other]]
    out_names = [a.dims[0] for a in spec.output]
    if head not in names or head not in out_names:
        return False
    group, repeat = wide[at], wide[at + 1]
    fresh = "r" if "r" not in spec.dims else "rr"
    low = net.low
    base = low_reshape(net, expand.inputs[0], [*narrow[: at + 1], *narrow[at + 2 :]], node.scope)
    partner = node.inputs[other]
    spot = names.index(head)
    split = low_reshape(net, partner, [*partner.shape[:spot], group, repeat, *partner.shape[spot + 1 :]], node.scope)
    out_spot = out_names.index(head)
    out_shape = [*node.out.shape[:out_spot], group, repeat, *node.out.shape[out_spot + 1 :]]
    sides = [[str(a) for a in access], [*names[: spot + 1], fresh, *names[spot + 1 :]]]
    if index == 1:
        sides.reverse()
    out_letters = [*out_names[: out_spot + 1], fresh, *out_names[out_spot + 1 :]]
    old_out = node.out
    new_out = Value(old_out.name, tuple(out_shape), old_out.format, producer=node)
    node.inputs[index], node.inputs[other] = base, split
    node.attrs["spec"] = f"{' '.join(sides[0])}, {' '.join(sides[1])} -> {' '.join(out_letters)}"
    node.outputs = [new_out]
    back = Node("view", [new_out], [old_out], {}, node.scope)
    old_out.producer = back
    net.nodes.insert(_index(net.nodes, node) + 1, back)
    del low, path
    return True


def _index(nodes: list[Node], node: Node) -> int:
    return next(i for i, n in enumerate(nodes) if n is node)


def low_reshape(net: Net, value: Value, shape: Sequence[Size], scope: str) -> Value:
    """A view node put where `value` is ready; a view of a view becomes one view."""
    source = value
    while source.producer is not None and source.producer.kind == "view":
        source = source.producer.inputs[0]
    if source.shape == tuple(shape):
        return source
    node = Node("view", [source], [Value(value.name, tuple(shape), value.format)], {}, scope)
    node.out.producer = node
    at = _index(net.nodes, source.producer) + 1 if source.producer is not None else 0
    net.nodes.insert(at, node)
    return node.out


def _sink_views_of_softmax(net: Net) -> None:
    """softmax(view(x)) with the last axis kept is view(softmax(x)): so scores, softmax and product stay neighbours."""
    for node in list(net.nodes):
        if node.kind != "softmax" or node.attrs.get("axis") != -1:
            continue
        view = node.inputs[0].producer
        if view is None or view.kind != "view" or net.only_user(node.inputs[0]) is not node:
            continue
        source = view.inputs[0]
        if source.producer is None or source.producer.kind != "einsum" or source.shape[-1] != node.out.shape[-1]:
            continue
        old = node.out
        node.inputs[0] = source
        node.outputs = [Value("softmax", source.shape, old.format, producer=node)]
        back = Node("view", [node.out], [old], {}, node.scope)
        old.producer = back
        net.nodes.insert(_index(net.nodes, node) + 1, back)
    net.refresh()
    merge_views(net)


def merge_views(net: Net) -> None:
    """A view of a view is one view, and none when the shapes agree."""
    for node in net.nodes:
        if node.kind != "view":
            continue
        before = node.inputs[0].producer
        while before is not None and before.kind == "view":
            node.inputs[0] = before.inputs[0]
            before = node.inputs[0].producer
        if node.inputs[0].shape == node.out.shape:
            net.replace(node.out, node.inputs[0])
    net.refresh()


def fold_transposes(net: Net) -> None:
    """An Einsum reads its operands and writes its result in any axis order, so neighbours that only reorder
    disappear."""
    for _ in range(8):
        changed = _sink_transposes(net) | _swap_with_views(net)
        merge_views(net)
        for node in list(net.nodes):
            if node.is_("move", "transpose"):
                changed |= _fold_into_readers(net, node) or _fold_into_producer(net, node)
        net.refresh()
        if not changed:
            break
    for node in net.nodes:
        if node.is_("move", "transpose") and _moves_only_ones(node):
            node.kind, node.attrs = "view", {}


def _moves_only_ones(node: Node) -> bool:
    perm: tuple[int, ...] = node.attrs["perm"]  # type: ignore[assignment]
    kept = [p for p in perm if node.inputs[0].shape[p] != 1]
    return kept == sorted(kept)


def _sink_transposes(net: Net) -> bool:
    """f(transpose(x)) is transpose(f(x)) for rotary embeddings and one-input elementwise ops."""
    changed = _slice_before_transpose(net)
    for node in list(net.nodes):
        unary = node.kind == "elementwise" and sum(v.scalar is None for v in node.inputs) == 1
        if not (node.kind == "rope" or unary or node.is_("move", "cast")):
            continue
        index = next(i for i, v in enumerate(node.inputs) if v.scalar is None)
        before = node.inputs[index].producer
        if before is None or not before.is_("move", "transpose") or net.only_user(before.out) is not node:
            continue
        perm: tuple[int, ...] = before.attrs["perm"]  # type: ignore[assignment]
        source = before.inputs[0]
        if node.kind == "rope" and perm[-1] != source.ndim - 1:
            continue
        if node.out.shape != before.out.shape:
            continue
        old = node.out
        node.inputs[index] = source
        node.outputs = [Value(old.name, source.shape, old.format, producer=node)]
        moved = Node("move", [node.out], [old], {"fn": "transpose", "perm": perm}, before.scope)
        old.producer = moved
        net.nodes.insert(_index(net.nodes, node) + 1, moved)
        changed = True
        net.refresh()
    return changed


def _slice_before_transpose(net: Net) -> bool:
    """slice(transpose(x)) is transpose(slice(x)), also where several slices share the transpose."""
    changed = False
    for node in list(net.nodes):
        before = node.inputs[0].producer if node.is_("move", "slice") and len(node.inputs) == 1 else None
        if before is None or not before.is_("move", "transpose") or "axis" not in node.attrs:
            continue
        perm: tuple[int, ...] = before.attrs["perm"]  # type: ignore[assignment]
        axis, old = perm[node.attrs["axis"]], node.out  # type: ignore[index]
        source = before.inputs[0]
        shape = list(source.shape)
        shape[axis] = old.shape[node.attrs["axis"]]  # type: ignore[index]
        node.inputs, node.attrs["axis"] = [source], axis
        node.outputs = [Value(old.name, tuple(shape), old.format, producer=node)]
        moved = Node("move", [node.out], [old], {"fn": "transpose", "perm": perm}, before.scope)
        old.producer = moved
        net.nodes.insert(_index(net.nodes, node) + 1, moved)
        changed = True
    if changed:
        net.refresh()
    return changed


def _axis_groups(before: Sequence[Size], after: Sequence[Size]) -> list[tuple[list[int], list[int]]] | None:
    """How a reshape splits and merges axes: (axes before, axes after) with equal products, finest first."""
    groups: list[tuple[list[int], list[int]]] = []
    i = j = 0
    while i < len(before) or j < len(after):
        left, right = [i], [j]
        if i >= len(before) or j >= len(after):
            return None
        a, b = before[i], after[j]
        i, j = i + 1, j + 1
        while a != b:
            if isinstance(a, int) and isinstance(b, int):
                if a < b and i < len(before):
                    a, i, _ = a * before[i], i + 1, left.append(i)  # type: ignore[func-returns-value]
                elif b < a and j < len(after):
                    b, j, _ = b * after[j], j + 1, right.append(j)  # type: ignore[func-returns-value]
                else:
                    return None
            else:
                return None
        groups.append((left, right))
    return groups


def _swap_with_views(net: Net) -> bool:
    """Move a transpose across a reshape that only splits (towards the Einsum that reads) or merges (towards its
    maker)."""
    changed = False
    for node in list(net.nodes):
        if node.kind == "view":
            changed |= _split_before_transpose(net, node)
        elif node.is_("move", "transpose"):
            changed |= _merge_after_transpose(net, node)
    if changed:
        net.refresh()
    return changed


def _split_before_transpose(net: Net, view: Node) -> bool:
    """view(transpose(x)) = transpose(view(x)) where every axis is only split."""
    before = view.inputs[0].producer
    if before is None or not before.is_("move", "transpose") or net.only_user(before.out) is not view:
        return False
    readers = net.users(view.out)
    if not readers or any(r.kind != "einsum" for r in readers):
        return False
    groups = _axis_groups(before.out.shape, view.out.shape)
    if groups is None:
        return False
    wide = [[a for a in left if before.out.shape[a] != 1] or left[:1] for left, _ in groups]  # axes of size 1 may go
    if any(len(axes) != 1 for axes in wide):
        return False
    perm: tuple[int, ...] = before.attrs["perm"]  # type: ignore[assignment]
    parts = {perm[axes[0]]: right for axes, (_, right) in zip(wide, groups)}  # axis of x -> axes of the result
    order = [axis for source in sorted(parts) for axis in parts[source]]
    shape = tuple(view.out.shape[axis] for axis in order)
    split = Value(view.out.name, shape, view.out.format)
    back = tuple(order.index(axis) for axis in range(len(order)))
    first = Node("view", [before.inputs[0]], [split], {}, view.scope)
    split.producer = first
    view.kind, view.inputs, view.attrs = "move", [split], {"fn": "transpose", "perm": back}
    net.nodes.insert(_index(net.nodes, view), first)
    net.refresh()
    return True


def _merge_after_transpose(net: Net, node: Node) -> bool:
    """transpose(view(y)) = view(transpose(y)) where axes are only merged, y the result of an Einsum."""
    view = node.inputs[0].producer
    if view is None or view.kind != "view" or net.only_user(view.out) is not node:
        return False
    source = view.inputs[0]
    if source.producer is None or source.producer.kind != "einsum" or net.only_user(source) is not view:
        return False
    groups = _axis_groups(source.shape, view.out.shape)
    if groups is None or any(len(right) != 1 for _, right in groups):
        return False
    perm: tuple[int, ...] = node.attrs["perm"]  # type: ignore[assignment]
    parts = {right[0]: left for left, right in groups}
    fine = tuple(axis for merged in perm for axis in parts[merged])
    moved = Value(node.out.name, tuple(source.shape[axis] for axis in fine), node.out.format)
    first = Node("move", [source], [moved], {"fn": "transpose", "perm": fine}, node.scope)
    moved.producer = first
    node.kind, node.inputs, node.attrs = "view", [moved], {}
    net.nodes.insert(_index(net.nodes, node), first)
    net.refresh()
    return True


def _fold_into_readers(net: Net, node: Node) -> bool:
    readers = net.users(node.out)
    if net.is_output(node.out) or not readers or any(r.kind != "einsum" for r in readers):
        return False
    perm: tuple[int, ...] = node.attrs["perm"]  # type: ignore[assignment]
    for reader in readers:
        spec = parse_einsum(str(reader.attrs["spec"]))
        accesses = list(spec.inputs)
        for index, access in enumerate(accesses):
            if reader.inputs[index] is node.out:
                turned: list[Axis] = [access[0]] * len(access)
                for position, source in enumerate(perm):
                    turned[source] = access[position]
                accesses[index] = tuple(turned)
        if any(v is node.out for v in reader.inputs[len(accesses) :]):
            return False
        reader.attrs["spec"] = str(Einsum(tuple(accesses), spec.output))
    for reader in readers:
        reader.inputs = [node.inputs[0] if v is node.out else v for v in reader.inputs]
    net.refresh()
    return True


def _fold_into_producer(net: Net, node: Node) -> bool:
    source = node.inputs[0]
    einsum = source.producer
    if einsum is None or einsum.kind != "einsum" or net.only_user(source) is not node:
        return False
    perm: tuple[int, ...] = node.attrs["perm"]  # type: ignore[assignment]
    spec = parse_einsum(str(einsum.attrs["spec"]))
    output: Access = tuple(spec.output[p] for p in perm)
    einsum.attrs["spec"] = str(Einsum(spec.inputs, output))
    einsum.outputs = [node.out]
    node.out.producer = einsum
    net.nodes = [n for n in net.nodes if n is not node]
    net.refresh()
    return True


# ---- the graph


def _build(net: Net) -> Graph:
    low = net.low
    names = _Names()
    tensors: dict[str, Tensor] = {}
    known: dict[int, str] = {}
    ops: list[Op] = []

    def shape_of(value: Value) -> tuple[Size, ...]:
        return tuple(low.resolve(s) for s in value.shape) if low.equal else value.shape

    def add(value: Value, name: str, role: Role) -> str:
        unique = names.fresh(name)
        tensors[unique] = Tensor(
            name=unique, shape=shape_of(value), format=value.format, role=role, part=value.part, layer=value.layer
        )
        known[id(value)] = unique
        return unique

    for leaf in low.leaves:
        if leaf.role in (Role.INPUT, Role.STATE):
            add(leaf, leaf.name, leaf.role)
    wanted = {id(v) for n in net.nodes for v in n.inputs} | {id(v) for v in net.outputs}
    for leaf in low.leaves:
        if leaf.role is Role.WEIGHT and id(leaf) in wanted and id(leaf) not in known:
            add(leaf, leaf.name, Role.WEIGHT)
    for node in net.nodes:
        inputs = [v for v in node.inputs if not _is_immediate(node, v)]
        attrs = dict(node.attrs)
        scalars = [v.scalar for v in node.inputs if _is_immediate(node, v)]
        if scalars and scalars[0] is not None and math.isfinite(scalars[0]):
            attrs["scalar"] = scalars[0]
        reads = []
        for value in inputs:
            if id(value) not in known:
                add(value, value.name, Role.WEIGHT)
            reads.append(known[id(value)])
        prefix = f"{node.scope}." if node.scope else ""
        outputs = tuple(add(o, prefix + o.name, Role.ACTIVATION) for o in node.outputs)
        ops.append(
            Op(name=outputs[0], kind=node.kind, inputs=tuple(reads), outputs=outputs, attrs=attrs, scope=node.scope)
        )
    for value in net.outputs:
        if id(value) not in known:
            add(value, value.name, Role.WEIGHT)
    symbols = sorted({s for t in tensors.values() for size in t.shape for s in symbols_of(size)})
    symbols = sorted({*symbols, *(s for o in ops for a in o.attrs.values() for s in _attribute_symbols(a))})
    try:
        return verify(
            Graph(name=low.name, symbols=symbols, tensors=tensors, ops=ops, outputs=[known[id(v)] for v in net.outputs])
        )
    except GraphError as error:
        raise ImportError_(f"{low.where}: the imported graph is inconsistent: {error}") from error


def _attribute_symbols(value: Any) -> frozenset[str]:
    return symbols_of(value) if not isinstance(value, (str, float, bool, tuple)) else frozenset()


def _is_immediate(node: Node, value: Value) -> bool:
    """A known scalar operand of an elementwise op is part of the op, as long as a tensor is left."""
    if node.kind != "elementwise" or value.scalar is None or value.role is not Role.WEIGHT:
        return False
    tensors = [v for v in node.inputs if v.scalar is None or v.role is not Role.WEIGHT]
    return bool(tensors) and product(v for v in value.shape) == 1 and value.ndim <= max(t.ndim for t in tensors)


class _Names:
    def __init__(self) -> None:
        self.taken: set[str] = set()
        self.count: dict[str, int] = {}

    def fresh(self, base: str) -> str:
        name = base
        while name in self.taken:
            self.count[base] = self.count.get(base, 0) + 1
            name = f"{base}_{self.count[base]}"
        self.taken.add(name)
        return name
