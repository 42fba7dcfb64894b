"""Core AI models (.aimodel): the MLIR program, with composites such as attention and norms inlined and recognised again.

coreai-core reads its own bytecode; it does so in a process of its own, because it is native code and files may be damaged.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from orchard.ir import Size, product, symbol
from orchard.workloads.importers.canonical import finish
from orchard.workloads.importers.coreml.compressed import group_suffix, linear_format, log2
from orchard.workloads.importers.errors import ImportError_
from orchard.workloads.importers.inputs import bind_inputs
from orchard.workloads.importers.isolated import run_isolated
from orchard.workloads.importers.lowering import Imported, Lowering, Value, array, clean_symbol, is_float, show
from orchard.workloads.importers.weights import WeightCount, stored_bytes

_TYPES = {
    "f64": "f64", "f32": "f32", "f16": "f16", "bf16": "bf16", "si64": "int64", "ui64": "int64", "si32": "int32",
    "ui32": "int32", "si16": "int16", "ui16": "int16", "si8": "int8", "ui8": "uint8", "si4": "int4", "ui4": "uint4",
    "i1": "bool", "i8": "int8", "i32": "int32", "i64": "int64", "ui2": "int2", "ui1": "int1", "ui3": "int3", "ui6": "int6",
    "si2": "int2", "f8E4M3FN": "f8_e4m3", "f8E5M2": "f8_e5m2", "i4": "int4",
}  # fmt: skip
_TENSOR = re.compile(r"^(?:tensor|!coreai\.handle|!coreai\.\w+)<(?:tensor<)?((?:[\d?]+x)*)([A-Za-z]\w*)")


def import_coreai(
    path: str | Path, *, inputs: Mapping[str, Any] | None = None, assume_elementwise: Collection[str] = ()
) -> Imported:
    """The entry graph of an `.aimodel` folder. `inputs` binds dynamic sizes."""
    path = Path(path)
    if not (path / "main.mlirb").is_file():
        raise ImportError_(f"{path}: no main.mlirb in it, expected a Core AI model folder")
    graphs = run_isolated("orchard.workloads.importers.coreai_child", str(path), str(path))
    return lower(graphs, path.stem, str(path), inputs, assume_elementwise)


def lower(graphs: Any, name: str, where: str, inputs: Mapping[str, Any] | None, assumed: Collection[str]) -> Imported:
    """A walked program to a graph."""
    if not isinstance(graphs, list) or not graphs:
        raise ImportError_(f"{where}: a Core AI program without graphs")
    low = Lowering(name, where, assume_elementwise=assumed)
    walker = _Walker(low, {g["name"]: g for g in graphs})
    public = [g for g in graphs if not g["private"]]
    entry = next((g for g in public if g["name"] == "main"), (public or graphs)[0])
    if len(public) > 1:
        low.warn(f"functions {', '.join(g['name'] for g in public)}: this is {entry['name']!r}")
    types = Counter(op["name"].removeprefix("coreai.") for g in graphs for op in g["operations"])
    flow = [t for t in ("while", "if") if t in types]
    if flow:
        raise ImportError_(f"{where}: the program holds control flow ({', '.join(flow)}), so there is no one graph")
    low.check_known(types, {*_RULES, "constant", "output", "invoke"})
    outputs = walker.entry(entry)
    graph = finish(low, outputs)
    if inputs:
        graph = bind_inputs(graph, inputs)
    return Imported(
        graph=graph, name=name, source_format="coreai", weights=walker.count(), warnings=tuple(low.warnings)
    )


def tensor_type(text: str) -> tuple[list[int | None], str] | None:
    """([sizes, None where dynamic], format) of `tensor<1x?x768xf16>` or a handle to one; None for tokens."""
    match = _TENSOR.match(text)
    if match is None or "sparse_tensor_encoding" in text or match.group(2) not in _TYPES:
        return None
    return [None if s == "?" else int(s) for s in match.group(1).split("x") if s], _TYPES[match.group(2)]


Rule = Callable[["_Walker", "Op"], Any]
R = TypeVar("R", bound=Rule)
_RULES: dict[str, Rule] = {}


def rule(*names: str) -> Callable[[R], R]:
    def register(function: R) -> R:
        for name in names:
            _RULES[name] = function
        return function

    return register


@dataclass(slots=True)
class Op:
    """One operation: operands, declared results, attributes."""

    name: str
    inputs: list[Value]
    results: Sequence[Any]
    attrs: Mapping[str, str]

    def ints(self, index: int) -> list[int]:
        data = self.inputs[index].data
        if data is None or not all(isinstance(v, (int, float)) for v in data.flat):
            raise ImportError_(f"operand {index} of a Core AI {self.name} is not constant")
        return [int(v) for v in data.reshape(-1)]

    def sizes(self, index: int) -> list[Size] | None:
        data = self.inputs[index].data
        return None if data is None else list(data.reshape(-1))

    @property
    def format(self) -> str:
        found = tensor_type(self.results[0][1])
        return found[1] if found else "f32"

    @property
    def shape(self) -> tuple[int, ...] | None:
        found = tensor_type(self.results[0][1])
        sizes = [s for s in found[0] if s is not None] if found else []
        return tuple(sizes) if found and len(sizes) == len(found[0]) else None


class _Walker:
    def __init__(self, low: Lowering, graphs: Mapping[str, Any]) -> None:
        self.low, self.graphs, self.depth = low, graphs, 0
        self.stored: dict[int, tuple[Value, int | None, bool]] = {}
        self.masks: dict[int, Value] = {}  # bit masks of sparse values
        self.written: dict[int, Value] = {}  # what a state holds now

    def count(self) -> Any:
        counter = WeightCount()
        for value, size, parameter in self.stored.values():
            counter.add(value, value.format, parameter=parameter, size=size)
        return counter.info()

    def entry(self, graph: Any) -> list[Value]:
        arguments = []
        for index, (_, text) in enumerate(graph["arguments"]):
            kind = tensor_type(text)
            name = graph["names"][index] if index < len(graph["names"]) else f"input_{index}"
            if kind is None:
                raise self.low.fail(f"input {name!r} of type {text[:60]}, expected a tensor")
            shape = [symbol(clean_symbol(f"{name}_{i}")) if s is None else s for i, s in enumerate(kind[0])]
            stateful = not text.startswith("tensor")
            arguments.append((self.low.state if stateful else self.low.input)(name, shape, kind[1]))
        made = self.run(graph, arguments)
        return [*made, *(v for v in self.written.values() if all(v is not o for o in made))]

    def run(self, graph: Any, arguments: Sequence[Value]) -> list[Value]:
        self.depth += 1
        if self.depth > 32:
            raise self.low.fail("graphs call each other more than 32 deep")
        env: dict[int, Value] = {key: value for (key, _), value in zip(graph["arguments"], arguments)}
        outputs: list[Value] = []
        for operation in graph["operations"]:
            name = operation["name"].removeprefix("coreai.")
            operands = [env[k] for k in operation["in"] if k in env]
            with self.low.within("", name):
                if name == "output":
                    outputs = operands
                    continue
                if name == "constant":
                    env[operation["out"][0][0]] = self._constant(operation)
                    continue
                if name == "invoke":
                    callee = re.search(r"@([\w.]+)", operation["attrs"].get("callee", ""))
                    if callee is None or callee.group(1) not in self.graphs:
                        raise self.low.fail("a call of a graph that is not there")
                    results: Any = self.run(self.graphs[callee.group(1)], operands)
                else:
                    op = Op(name, operands, operation["out"], operation.get("attrs", {}))
                    handler = _RULES.get(name)
                    results = handler(self, op) if handler is not None else self._assume(op)
            listed = results if isinstance(results, (list, tuple)) else [results]
            for (key, text), value in zip(operation["out"], listed):
                if isinstance(value, Value):
                    self._settle(name, text, value)
                    env[key] = value
        self.depth -= 1
        return outputs

    def _settle(self, name: str, text: str, value: Value) -> None:
        kind = tensor_type(text)
        if kind is None:
            return
        agree = len(kind[0]) == value.ndim and all(
            a is None or not isinstance(b, int) or a == b for a, b in zip(kind[0], value.shape)
        )
        if not agree:
            raise ImportError_(f"{self.low.where}: {name}: computed shape {show(value.shape)}, the program says {text}")
        if value.producer is not None:
            value.format = kind[1]

    def _constant(self, operation: Any) -> Value:
        key, text = operation["out"][0]
        kind = tensor_type(text)
        if kind is None:
            raise self.low.fail(f"a constant of type {text[:60]}")
        shape, format = [s or 0 for s in kind[0]], kind[1]
        content = operation.get("data")
        data = array(content, shape) if content is not None and None not in content else None
        single = product(shape) == 1
        constant = not is_float(format) or single
        value = self.low.weight(f"constant_{key}", shape, format, part="constant" if constant else None, data=data)
        if not single:  # a splat is stored as one element
            self.stored[id(value)] = (value, stored_bytes(format, [1]) if operation.get("splat") else None, not constant)
        return value

    def _assume(self, op: Op) -> list[Value]:
        self.low.warn(f"{op.name} is assumed to be elementwise, as asked")
        return [self.low.one("elementwise", op.inputs, op.shape or op.inputs[0].shape, op.format, fn=op.name)]

    def compressed(self, op: Op, format: str, shape: Sequence[Size]) -> Value:
        """One weight in its stored form; its parts are counted inside it."""
        size = 0
        for part in (*op.inputs, *(self.masks[id(v)] for v in op.inputs if id(v) in self.masks)):
            if id(part) in self.stored:
                value, own, _ = self.stored.pop(id(part))
                size += stored_bytes(value.format, value.shape) if own is None else own
        weight = self.low.weight(f"{op.name}_{len(self.stored)}", shape, format)
        self.stored[id(weight)] = (weight, size, True)
        return weight


# ---- rules

_ELEMENTWISE = {
    "abs": "abs", "acos": "acos", "asin": "asin", "atan": "atan", "cos": "cos", "cosh": "cosh", "erf": "erf", "exp": "exp",
    "log": "log", "not": "not", "relu": "relu", "round": "round", "rsqrt": "rsqrt", "sigmoid": "sigmoid", "silu": "silu",
    "sin": "sin", "sinh": "sinh", "sqrt": "sqrt", "tan": "tan", "tanh": "tanh", "add": "add", "sub": "sub", "mul": "mul",
    "divide": "div", "floor_divide": "floordiv", "modulo": "mod", "pow": "pow", "maximum": "max", "minimum": "min",
    "and": "and", "or": "or", "xor": "xor", "bitwise_and": "and", "bitwise_or": "or", "bitwise_xor": "xor", "equal": "equal",
    "not_equal": "not_equal", "greater": "greater", "where": "where",
}  # fmt: skip


def _elementwise_rule(fn: str) -> Rule:
    return lambda w, op: w.low.elementwise(fn, *op.inputs, format=op.format)


for _name, _fn in _ELEMENTWISE.items():
    _RULES[_name] = _elementwise_rule(_fn)
    _RULES[f"decomposable.broadcasting_{_name}"] = _elementwise_rule(_fn)


@rule("gelu")
def _gelu(w: _Walker, op: Op) -> Value:
    return w.low.elementwise("gelu_tanh" if "tanh" in op.attrs.get("approximate", "") else "gelu", op.inputs[0])


@rule("cast")
def _cast(w: _Walker, op: Op) -> Value:
    return w.low.cast(op.inputs[0], op.format)


@rule("get_shape")
def _get_shape(w: _Walker, op: Op) -> Value:
    return w.low.constant(array(list(op.inputs[0].shape)), "int32")


@rule("broadcast_shapes")
def _broadcast_shapes(w: _Walker, op: Op) -> Value:
    shapes = [op.sizes(i) for i in range(len(op.inputs))]
    if any(s is None for s in shapes):
        raise w.low.fail("shapes that are computed at run time")
    return w.low.constant(array(list(w.low.broadcast(*(s for s in shapes if s is not None)))), "int32")


@rule("reshape")
def _reshape(w: _Walker, op: Op) -> Value:
    target = op.shape if op.shape is not None else op.sizes(1)
    if target is None:
        raise w.low.fail("the target shape is computed at run time; give fixed input shapes")
    return w.low.reshape(op.inputs[0], target)


@rule("expand_dims", "shrink_dims")
def _dims(w: _Walker, op: Op) -> Value:
    return (w.low.unsqueeze if op.name == "expand_dims" else w.low.squeeze)(op.inputs[0], op.ints(1))


@rule("transpose")
def _transpose(w: _Walker, op: Op) -> Value:
    return w.low.transpose(op.inputs[0], op.ints(1))


@rule("broadcast_to", "broadcast_in_dims", "tile")
def _broadcast(w: _Walker, op: Op) -> Value:
    x = op.inputs[0]
    shape: Sequence[Size] | None = op.shape
    if shape is None and op.name != "broadcast_in_dims":
        sizes = op.sizes(1)
        if sizes is not None:
            shape = sizes if op.name == "broadcast_to" else [s * r for s, r in zip(x.shape, sizes)]
    if shape is None:
        raise w.low.fail("the target shape is computed at run time; give fixed input shapes")
    if op.name == "tile" and any(s not in (1, t) for s, t in zip(x.shape, shape)):
        return w.low.one("move", [x], shape, fn="tile")
    return w.low.expand(x, shape)


@rule("concat")
def _concat(w: _Walker, op: Op) -> Value:
    return w.low.concat(op.inputs[1:], op.ints(0)[0])


@rule("split")
def _split(w: _Walker, op: Op) -> tuple[Value, ...]:
    axis = w.low.axis(op.inputs[0], op.ints(2)[0])
    sizes = []
    for _, text in op.results:
        kind = tensor_type(text)
        if kind is None or kind[0][axis] is None:
            raise w.low.fail("a split of unknown sizes")
        sizes.append(kind[0][axis] or 0)
    return w.low.split(op.inputs[0], axis, sizes)


@rule("slice")
def _slice(w: _Walker, op: Op) -> Value:
    x = op.inputs[0]
    start, end = op.sizes(1), op.sizes(2)
    if start is None or end is None or len(start) != x.ndim:
        if op.shape is None:
            raise w.low.fail("a slice whose bounds are computed at run time; give fixed input shapes")
        return w.low.one("move", [x], op.shape, fn="slice")
    for axis, (a, b, step) in enumerate(zip(start, end, op.ints(3))):
        x = w.low.slice(x, axis, a, b, step)
    return x


@rule("slice_update")
def _slice_update(w: _Walker, op: Op) -> Value:
    return w.low.one("update", [op.inputs[0], op.inputs[4]], op.inputs[0].shape)


@rule("pad")
def _pad(w: _Walker, op: Op) -> Value:
    amounts = op.ints(1)
    return w.low.pad(op.inputs[0], amounts[::2], amounts[1::2])


@rule("gather_nd")
def _gather_nd(w: _Walker, op: Op) -> Value:
    x, indices = op.inputs[0], op.inputs[1]
    depth = indices.shape[-1]
    if depth == 1:
        return w.low.take(x, w.low.reshape(indices, indices.shape[:-1]), 0)
    shape = [*indices.shape[:-1], *x.shape[int(depth) if isinstance(depth, int) else 1 :]]
    return w.low.one("move", [x, indices], shape, fn="gather")


@rule("gather_along_axis", "scatter_along_axis", "scatter_nd", "reverse", "sort", "argsort", "non_zero")
def _move(w: _Walker, op: Op) -> list[Value]:
    tensors = [v for v in op.inputs if v.producer is not None or v.data is None] or op.inputs[:1]
    made = []
    for _, text in op.results:
        kind = tensor_type(text)
        if kind is None:
            continue
        shape: list[Size] = [s if s is not None else symbol("n") for s in kind[0]]
        if None in kind[0]:
            shape = list(op.inputs[1 if op.name == "gather_along_axis" else 0].shape)
        fn = {"reverse": "flip", "argsort": "sort"}.get(op.name, op.name.split("_")[0])
        made.append(w.low.one("move", tensors, shape, kind[1], fn=fn))
    return made


@rule("range")
def _range(w: _Walker, op: Op) -> Value:
    bounds = [v.data.reshape(-1)[0] if v.data is not None else None for v in op.inputs]
    start, stop, step = bounds[:3]
    if all(isinstance(v, (int, float)) for v in bounds[:3]) and step:
        count = max(int(-(-(stop - start) // step)), 0)  # type: ignore[operator]
        if count <= 4096:
            return w.low.constant(array([start + step * i for i in range(count)]), op.format)
    length = op.shape[0] if op.shape else (stop - start if stop is not None and start is not None else symbol("n"))
    return w.low.emit("fill", [], [[length]], [op.format], fn="arange")[0]


@rule("batch_matmul", "decomposable.broadcasting_batch_matmul")
def _matmul(w: _Walker, op: Op) -> Value:
    x, y = op.inputs
    if y.role.value == "weight" and y.ndim > 2 and all(s == 1 for s in y.shape[:-2]):
        y = w.low.reshape(y, y.shape[-2:])
    return w.low.matmul(x, y)


@rule("conv2d", "conv3d")
def _conv(w: _Walker, op: Op) -> Value:
    x, weight = op.inputs[:2]
    d = weight.ndim - 2
    return w.low.conv(
        x, weight, stride=op.ints(2), pad=[(0, 0)] * d, dilation=op.ints(3), groups=op.ints(4)[0]
    )  # fmt: skip


@rule("conv_transpose2d", "conv_transpose3d")
def _conv_transpose(w: _Walker, op: Op) -> Value:
    x, weight = op.inputs[:2]
    d = weight.ndim - 2
    amounts = op.ints(3)
    pads = list(zip(amounts[::2], amounts[1::2])) if len(amounts) == 2 * d else [(p, p) for p in amounts]
    return w.low.conv_transpose(
        x, weight, stride=op.ints(2), pad=pads, dilation=op.ints(4), output_pad=op.ints(5), groups=op.ints(6)[0]
    )


@rule("softmax")
def _softmax(w: _Walker, op: Op) -> Value:
    return w.low.softmax(op.inputs[0], op.ints(1)[0])


@rule(
    "reduce_mean",
    "reduce_sum",
    "reduce_max",
    "reduce_min",
    "reduce_product",
    "reduce",
    "all",
    "any",
    "reduce_index",
    "argmax",
)
def _reduce(w: _Walker, op: Op) -> Value:
    fn = {"reduce_product": "prod", "reduce": "sum", "reduce_index": "argmax"}.get(
        op.name, op.name.removeprefix("reduce_")
    )
    axes = op.ints(1) if len(op.inputs) > 1 else None
    y = w.low.reduce(fn, op.inputs[0], axes, True, op.format)
    return y if op.shape is None else w.low.reshape(y, op.shape)


@rule("scan")
def _scan(w: _Walker, op: Op) -> Value:
    """A running sum or product along one axis, not a loop."""
    return w.low.one("reduce", [op.inputs[0]], op.inputs[0].shape, op.format, fn="cumsum")


@rule("max_pool_2d", "sum_pool_2d", "max_pool_3d", "sum_pool_3d")
def _pool(w: _Walker, op: Op) -> Value:
    x, kernel = op.inputs[0], op.ints(1)
    d = len(kernel)
    ceil = "max" in op.name and len(op.inputs) > 4 and bool(op.ints(4)[0])
    fn = "max" if "max" in op.name else "avg"
    return w.low.pool(fn, x, kernel, op.ints(2), [(0, 0)] * d, op.ints(3), ceil=ceil)


@rule("interpolate", "interpolate_coordinates")
def _interpolate(w: _Walker, op: Op) -> Value:
    if op.shape is None:
        raise w.low.fail("a resize whose target is computed at run time; give fixed input shapes")
    fn = "nearest" if "nearest" in str(op.attrs) else "bilinear"
    return w.low.resize(op.inputs[0], op.shape, fn)


@rule("read_handle")
def _read(w: _Walker, op: Op) -> Value:
    return w.written.get(id(op.inputs[0]), op.inputs[0])


@rule("write_handle")
def _write(w: _Walker, op: Op) -> list[Value]:
    """Later reads of the state see the value; what is written last is kept like an output."""
    w.written[id(op.inputs[0])] = op.inputs[1]
    return []


@rule("create_token", "join_token", "target_spec")
def _nothing(w: _Walker, op: Op) -> list[Value]:
    return []


@rule("lut_to_dense")
def _lut(w: _Walker, op: Op) -> Value:
    indices, lut = op.inputs[:2]
    shape = op.shape or indices.shape
    entries = lut.shape[-2] if lut.ndim > 1 else lut.elements
    groups = product(lut.shape[:-2]) if lut.ndim > 2 else 1
    vector = lut.shape[-1] if lut.ndim > 1 and isinstance(lut.shape[-1], int) else 1
    name = f"pal{log2(entries)}{group_suffix(shape, groups)}" + (f"-v{vector}" if vector > 1 else "")
    return w.compressed(op, name, shape)


@rule("blockwise_shift_scale", "dequantize")
def _blockwise(w: _Walker, op: Op) -> Value:
    data, scale = op.inputs[:2]
    if data.producer is not None or data.role.value != "weight":
        return w.low.one("elementwise", [data], data.shape, op.format, fn="dequantize")
    bits = {"int4": 4, "uint4": 4, "int2": 2, "int3": 3, "int6": 6}.get(data.format, 8)
    offset = op.inputs[2] if len(op.inputs) > 2 and w.stored.get(id(op.inputs[2]), (None, None))[1] is None else None
    format = data.format if data.format.startswith("f8") else linear_format(bits, data, scale, offset)
    return w.compressed(op, format, data.shape)


@rule("build_sparse_with_bitmask", "lut_to_sparse_with_bitmask")
def _build_sparse(w: _Walker, op: Op) -> Value:
    """Survivors of pruning with their mask; for a table, operands are sparse indices and the table."""
    values = op.inputs[0]
    if op.name == "build_sparse_with_bitmask":
        w.masks[id(values)] = op.inputs[1]
        return values
    mask = w.masks.pop(id(values), None)
    made = w.compressed(op, f"pal{log2(op.inputs[1].shape[-2])}", values.shape)
    if mask is not None:
        w.masks[id(made)] = mask
    return made


@rule("sparse_with_bitmask_to_dense")
def _sparse(w: _Walker, op: Op) -> Value:
    shape, kept = op.shape or op.inputs[0].shape, op.inputs[0].elements
    total = product(shape)
    share = 1 - kept / total if isinstance(kept, int) and isinstance(total, int) and total else 0.5
    kind = op.inputs[0].format.split("-")[0]
    stored = kind if kind.startswith("pal") or kind in ("int4", "int8") else "f16"
    return w.compressed(op, f"sparse{min(max(round(100 * share), 1), 99)}-{stored}", shape)
