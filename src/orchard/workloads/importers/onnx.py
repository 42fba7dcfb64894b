"""ONNX models, opsets 11 to 23, with quantize/dequantize pairs and the com.microsoft ops that transformers exports
hold.

The file is memory-mapped and read with our own wire reader: weights inside the file are never copied, external data is
never opened unless a tensor is small enough to be shape arithmetic. Shapes are inferred here, forward, with symbols
kept
as expressions over the inputs' `dim_param`s; `value_info` is only asked where a shape depends on run-time contents.
"""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from orchard.ir import Expr, GraphError, Size, ceildiv, parse_size, product, symbol
from orchard.workloads.importers.canonical import finish
from orchard.workloads.importers.common import (
    SMALL,
    Data,
    Imported,
    Lowering,
    Value,
    array,
    clean_symbol,
    is_float,
    show,
)
from orchard.workloads.importers.errors import ImportError_
from orchard.workloads.importers.files import mapped
from orchard.workloads.importers.inputs import bind_inputs
from orchard.workloads.importers.protowire import Message, Schema, decode
from orchard.workloads.importers.weights import WeightCount, stored_bytes

# ---- the parts of onnx.proto that a graph needs

_PAIR: Schema = {1: ("key", "str"), 2: ("value", "str")}
_TENSOR: Schema = {
    1: ("dims", ["int"]), 2: ("data_type", "int"), 4: ("float_data", ["float"]), 5: ("int32_data", ["int"]),
    7: ("int64_data", ["int"]), 8: ("name", "str"), 9: ("raw_data", "bytes"), 10: ("double_data", ["double"]),
    11: ("uint64_data", ["int"]), 13: ("external_data", [_PAIR]), 14: ("data_location", "int"),
}  # fmt: skip
_DIM: Schema = {1: ("dim_value", "int"), 2: ("dim_param", "str")}
_SHAPE: Schema = {1: ("dim", [_DIM])}
_TENSOR_TYPE: Schema = {1: ("elem_type", "int"), 2: ("shape", _SHAPE)}
_TYPE: Schema = {1: ("tensor_type", _TENSOR_TYPE)}
_VALUE_INFO: Schema = {1: ("name", "str"), 2: ("type", _TYPE)}
_ATTRIBUTE: dict[int, tuple[str, Any]] = {
    1: ("name", "str"), 2: ("f", "float"), 3: ("i", "int"), 4: ("s", "bytes"), 5: ("t", _TENSOR),
    7: ("floats", ["float"]), 8: ("ints", ["int"]), 9: ("strings", ["bytes"]), 20: ("type", "int"),
    21: ("ref_attr_name", "str"),
}  # fmt: skip
_NODE: Schema = {
    1: ("input", ["str"]), 2: ("output", ["str"]), 3: ("name", "str"), 4: ("op_type", "str"),
    5: ("attribute", [_ATTRIBUTE]), 7: ("domain", "str"), 9: ("metadata_props", [_PAIR]),
}  # fmt: skip
_GRAPH: Schema = {
    1: ("node", [_NODE]), 2: ("name", "str"), 5: ("initializer", [_TENSOR]), 11: ("input", [_VALUE_INFO]),
    12: ("output", [_VALUE_INFO]), 13: ("value_info", [_VALUE_INFO]),
}  # fmt: skip
_ATTRIBUTE[6] = ("g", _GRAPH)
_OPSET: Schema = {1: ("domain", "str"), 2: ("version", "int")}
_FUNCTION: Schema = {
    1: ("name", "str"), 4: ("input", ["str"]), 5: ("output", ["str"]), 6: ("attribute", ["str"]), 7: ("node", [_NODE]),
    10: ("domain", "str"), 11: ("attribute_proto", [_ATTRIBUTE]),
}  # fmt: skip
_MODEL: Schema = {
    1: ("ir_version", "int"), 2: ("producer_name", "str"), 7: ("graph", _GRAPH), 8: ("opset_import", [_OPSET]),
    25: ("functions", [_FUNCTION]),
}  # fmt: skip

_FORMATS = {
    1: "f32", 2: "uint8", 3: "int8", 4: "int16", 5: "int16", 6: "int32", 7: "int64", 9: "bool", 10: "f16", 11: "f64",
    12: "int32", 13: "int64", 16: "bf16", 17: "f8_e4m3", 18: "f8_e4m3", 19: "f8_e5m2", 20: "f8_e5m2", 21: "uint4",
    22: "int4", 23: "f4", 24: "uint8", 25: "int2", 26: "int2",
}  # fmt: skip
_NUMPY = {
    1: "<f4",
    2: "u1",
    3: "i1",
    4: "<u2",
    5: "<i2",
    6: "<i4",
    7: "<i8",
    9: "?",
    10: "<f2",
    11: "<f8",
    12: "<u4",
    13: "<u8",
}


@dataclass(slots=True)
class Op:
    """One ONNX node with its operands resolved; a missing optional operand is None."""

    type: str
    inputs: list[Value | None]
    outputs: list[str]
    attributes: Mapping[str, Any]
    name: str
    domain: str = ""

    def __getitem__(self, index: int) -> Value:
        value = self.inputs[index] if index < len(self.inputs) else None
        if value is None:
            raise ImportError_(f"ONNX node {self.name} ({self.type}): operand {index} is missing")
        return value

    def get(self, index: int) -> Value | None:
        return self.inputs[index] if index < len(self.inputs) else None

    def given(self) -> list[Value]:
        return [v for v in self.inputs if v is not None]

    def number(self, name: str, default: int = 0) -> int:
        value = self.attributes.get(name, default)
        return int(value) if isinstance(value, (int, float)) else default

    def real(self, name: str, default: float = 0.0) -> float:
        value = self.attributes.get(name, default)
        return float(value) if isinstance(value, (int, float)) else default

    def ints(self, name: str) -> list[int] | None:
        value = self.attributes.get(name)
        return [int(v) for v in value] if isinstance(value, list) else None

    def text(self, name: str, default: str = "") -> str:
        value = self.attributes.get(name, default)
        return value if isinstance(value, str) else default


Rule = Callable[["_Onnx", Op], Any]
_RULES: dict[str, Rule] = {}


R = TypeVar("R", bound=Rule)


def rule(*names: str) -> Callable[[R], R]:
    def register(function: R) -> R:
        for name in names:
            _RULES[name] = function
        return function

    return register


def import_onnx(
    path: str | Path, *, inputs: Mapping[str, Any] | None = None, assume_elementwise: Collection[str] = ()
) -> Imported:
    """The graph of an `.onnx` file. `inputs` binds symbolic sizes: {"input_ids": (1, 128)}."""
    path = Path(path)
    with mapped(path) as data:
        model = decode(data, _MODEL, str(path))
        return import_model_proto(model, path, inputs=inputs, assume_elementwise=assume_elementwise)


def import_model_proto(
    model: Message, path: Path, *, inputs: Mapping[str, Any] | None, assume_elementwise: Collection[str]
) -> Imported:
    if model.graph is None or not (model.graph.node or model.graph.output):
        raise ImportError_(f"{path}: no ONNX graph in this file")
    low = Lowering(path.stem, str(path), assume_elementwise=assume_elementwise)
    reader = _Onnx(model, low, path)
    outputs = reader.run(inputs)
    graph = finish(low, outputs)
    if inputs:
        graph = bind_inputs(graph, inputs)
    return Imported(
        graph=graph, name=path.stem, source_format="onnx", weights=reader.count().info(), warnings=tuple(low.warnings),
        metadata={"producer": model.producer_name, "opset": str(reader.opset)},
    )  # fmt: skip


@dataclass
class _Onnx:
    """One model on its way down. `env` maps ONNX names to values."""

    model: Message
    low: Lowering
    path: Path
    env: dict[str, Value] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.opset = max((o.version for o in self.model.opset_import if o.domain in ("", "ai.onnx")), default=0)
        self.functions = {(f.domain, f.name): f for f in self.model.functions}
        self.declared: dict[str, Message] = {}
        self.stored: dict[str, tuple[Value, int]] = {}
        self.auxiliary: set[int] = set()  # scales and zero points: stored, but no parameters
        self.depth = 0

    def count(self) -> WeightCount:
        counter = WeightCount()
        for value, data_type in self.stored.values():
            plain = _FORMATS[data_type]
            parameter = value.part != "constant" and id(value) not in self.auxiliary
            counter.add(value, plain, parameter=parameter)
        return counter

    def run(self, inputs: Mapping[str, Any] | None) -> list[Value]:
        graph = self.model.graph
        types: Counter[str] = Counter()
        self._types(graph.node, types, 0)
        self.low.check_known(types, _RULES)
        for info in (*graph.value_info, *graph.output):
            self.declared[info.name] = info
        for tensor in graph.initializer:
            self.env[tensor.name] = self.initializer(tensor)
        given = inputs or {}
        for info in graph.input:
            if info.name not in self.env:
                self.env[info.name] = self._input(info, given.get(info.name))
        self.nodes(graph.node)
        missing = [o.name for o in graph.output if o.name not in self.env]
        if missing:
            raise ImportError_(f"{self.path}: output {missing[0]!r} is made by no node")
        return [self.env[o.name] for o in graph.output]

    def _types(self, nodes: Sequence[Message], types: Counter[str], depth: int) -> None:
        if depth > 16:
            raise ImportError_(f"{self.path}: functions nest deeper than 16")
        for node in nodes:
            function = self.functions.get((node.domain, node.op_type))
            if node.op_type in ("Loop", "Scan", "SequenceMap"):
                raise ImportError_(
                    f"{self.path}: node {node.name} is a {node.op_type}; its work depends on run-time contents, so "
                    f"there is "
                    f"no one graph. Export the loop body by itself, or unroll it"
                )
            if function is not None:
                self._types(function.node, types, depth + 1)
            elif node.op_type == "If":
                for attribute in node.attribute:
                    if attribute.g is not None:
                        self._types(attribute.g.node, types, depth + 1)
            else:
                types[self.type_name(node)] += 1

    def type_name(self, node: Message) -> str:
        known = node.domain in (
            "",
            "ai.onnx",
            "com.microsoft",
            "ai.onnx.ml",
            "com.ms.internal.nhwc",
            "pkg.onnxscript.torch_lib",
        )
        return str(node.op_type) if known else f"{node.domain}::{node.op_type}"

    # -- leaves

    def initializer(self, tensor: Message) -> Value:
        data_type = tensor.data_type
        if data_type not in _FORMATS:
            raise ImportError_(
                f"{self.path}: initializer {tensor.name!r} has data type {data_type}, which holds no numbers"
            )
        shape = self.low.checked(tensor.dims)
        elements = product(shape)
        format = _FORMATS[data_type]
        data = self._contents(tensor, [int(s) for s in tensor.dims]) if isinstance(elements, int) else None
        constant = format in ("int64", "int32", "bool") or (isinstance(elements, int) and elements <= 1)
        value = self.low.weight(tensor.name, shape, format, part="constant" if constant else None, data=data)
        self._check_size(tensor, stored_bytes(format, shape))
        self.stored[tensor.name or value.name] = (value, data_type)
        return value

    def _check_size(self, tensor: Message, needed: int) -> None:
        if tensor.data_location != 1 and tensor.has("raw_data") and len(tensor.raw_data) < needed:
            raise ImportError_(
                f"{self.path}: initializer {tensor.name!r} holds {len(tensor.raw_data)} bytes, its shape needs {needed}"
            )

    def _contents(self, tensor: Message, shape: list[int]) -> Data | None:
        """The numbers of a small tensor: integers up to SMALL elements, others up to 16."""
        count = int(np.prod(shape, dtype=object)) if shape else 1
        limit = SMALL if _FORMATS[tensor.data_type] in ("int64", "int32", "bool") else 16
        if count > limit or tensor.data_type not in _NUMPY:
            return None
        raw = tensor.raw_data
        if tensor.data_location == 1:
            raw = self._external(tensor)
        dtype = np.dtype(_NUMPY[tensor.data_type])
        if raw is not None and len(raw) >= count * dtype.itemsize and len(raw):
            return array(np.frombuffer(raw, dtype, count).reshape(shape))
        for name in ("int64_data", "float_data", "int32_data", "double_data", "uint64_data"):
            listed = getattr(tensor, name)
            if len(listed) == count:
                values = np.array(listed)
                if tensor.data_type == 10 and name == "int32_data":
                    values = values.astype(np.uint16).view(np.float16)
                return array(values.reshape(shape))
        return array(np.zeros(shape)) if count == 0 else None

    def _external(self, tensor: Message) -> Any:
        entries = {e.key: e.value for e in tensor.external_data}
        place = self.path.parent / entries.get("location", "")
        try:
            if not place.resolve().is_relative_to(self.path.parent.resolve()):
                raise ImportError_(f"{self.path}: external data of {tensor.name!r} lies outside the model's folder")
            with place.open("rb") as file:
                file.seek(int(entries.get("offset", "0")))
                return file.read(min(int(entries.get("length", "0") or 0), SMALL * 8))
        except (OSError, ValueError):
            return None

    def _input(self, info: Message, given: Any) -> Value:
        shape = self.shape_of(info, inventing=True)
        kind = info.type.tensor_type if info.type is not None else None
        if shape is None or kind is None:
            raise ImportError_(f"{self.path}: input {info.name!r} has no tensor type, expected one with a shape")
        if given is not None and len(given) == len(shape):
            for axis, (size, wanted) in enumerate(zip(shape, given)):
                if isinstance(size, Expr) and isinstance(wanted, str) and wanted not in size.symbols():
                    names = size.symbols()
                    self.low.equal.update({n: symbol(clean_symbol(wanted)) for n in names if size == symbol(n)})
                    del axis
        return self.low.input(info.name, shape, _FORMATS.get(kind.elem_type, "f32"))

    def shape_of(self, info: Message, *, inventing: bool = False) -> tuple[Size, ...] | None:
        kind = info.type.tensor_type if info.type is not None else None
        if kind is None or kind.shape is None:
            return None
        sizes: list[Size] = []
        for axis, dim in enumerate(kind.shape.dim):
            if dim.has("dim_value"):
                sizes.append(int(dim.dim_value))
            elif dim.dim_param:
                sizes.append(self._named_size(dim.dim_param))
            elif inventing:
                sizes.append(symbol(clean_symbol(f"{info.name}_{axis}")))
            else:
                return None
        return tuple(sizes)

    def _named_size(self, text: str) -> Size:
        try:
            return parse_size(text) if re.fullmatch(r"[\w\s+*()-]+", text, re.ASCII) else symbol(clean_symbol(text))
        except GraphError:
            return symbol(clean_symbol(text))

    # -- nodes

    def nodes(self, nodes: Sequence[Message], outer: Mapping[str, Any] | None = None) -> None:
        for node in nodes:
            self._node(node, outer or {})

    def _node(self, node: Message, outer: Mapping[str, Any]) -> None:
        attributes = {a.name: self._attribute(a, outer) for a in node.attribute}
        inputs: list[Value | None] = []
        for name in node.input:
            if name and name not in self.env:
                raise ImportError_(f"{self.path}: node {node.name or node.op_type} reads {name!r}, which nothing makes")
            inputs.append(self.env[name] if name else None)
        function = self.functions.get((node.domain, node.op_type))
        if function is not None:
            self._inline(function, inputs, node.output, attributes)
            return
        op = Op(node.op_type, inputs, list(node.output), attributes, node.name or node.op_type, node.domain)
        with self.low.within(scope_of(node), f"{op.name} ({op.type})"):
            if op.type == "If":
                self._branch(op)
                return
            kind = self.type_name(node)
            handler = _RULES.get(kind)
            result = handler(self, op) if handler is not None else self._assume(kind, op)
        results = result if isinstance(result, (list, tuple)) else [result]
        for name, value in zip(op.outputs, results):
            if name and value is not None:
                self.env[name] = value

    def _attribute(self, attribute: Message, outer: Mapping[str, Any]) -> Any:
        if attribute.ref_attr_name:
            return outer.get(attribute.ref_attr_name)
        for name in ("i", "f", "ints", "floats", "t", "g"):
            if attribute.has(name):
                return getattr(attribute, name)
        if attribute.has("s"):
            return bytes(attribute.s[:4096]).decode("utf-8", "replace")
        if attribute.has("strings"):
            return [bytes(s[:256]).decode("utf-8", "replace") for s in attribute.strings]
        return {1: 0.0, 2: 0, 3: "", 6: [], 7: [], 8: []}.get(attribute.type)

    def _inline(
        self, function: Message, inputs: list[Value | None], outputs: Sequence[str], attributes: dict[str, Any]
    ) -> None:
        self.depth += 1
        if self.depth > 16:
            raise ImportError_(f"{self.path}: function {function.name} calls itself")
        saved, self.env = self.env, {n: v for n, v in zip(function.input, inputs) if v is not None}
        defaults = {a.name: self._attribute(a, {}) for a in function.attribute_proto}
        try:
            self.nodes(function.node, {**defaults, **attributes})
            made = [self.env.get(name) for name in function.output]
        finally:
            self.env = saved
            self.depth -= 1
        for name, value in zip(outputs, made):
            if name and value is not None:
                self.env[name] = value

    def _branch(self, op: Op) -> None:
        """An If whose condition is known, or whose branches both need no work, is its branch."""
        known = op[0].scalar
        branches = [op.attributes.get("then_branch"), op.attributes.get("else_branch")]
        if known is None or not all(isinstance(b, Message) for b in branches):
            raise self.low.fail(
                "an If whose condition depends on run-time contents; there is no one graph. Export with fixed "
                "shapes, or "
                "simplify the model so that the branch disappears"
            )
        branch: Any = branches[0] if known else branches[1]
        outer = dict(self.env)
        for tensor in branch.initializer:
            self.env[tensor.name] = self.initializer(tensor)
        self.nodes(branch.node)
        made = [self.env.get(o.name) for o in branch.output]
        self.env = outer
        for name, value in zip(op.outputs, made):
            if value is not None:
                self.env[name] = value

    def _assume(self, kind: str, op: Op) -> list[Value]:
        self.low.warn(f"{kind} is assumed to be elementwise, as asked")
        shape = self.declared_shape(op)
        tensors = op.given()
        if shape is None:
            shape = self.low.broadcast(*(v.shape for v in tensors))
        return [self.low.one("elementwise", tensors, shape, fn=op.type) for _ in op.outputs]

    def declared_shape(self, op: Op, index: int = 0) -> tuple[Size, ...] | None:
        info = self.declared.get(op.outputs[index]) if index < len(op.outputs) else None
        return self.shape_of(info) if info is not None else None

    def sizes(self, op: Op, index: int, what: str) -> list[Size]:
        """Known integers of an operand that is a shape, axes or pads."""
        value = op[index]
        if value.data is None:
            raise self.low.fail(
                f"{what} is computed at run time; export with constant {what}, or give fixed input shapes"
            )
        return list(value.data.reshape(-1))

    def ints(self, op: Op, index: int, what: str) -> list[int]:
        sizes = self.sizes(op, index, what)
        if not all(isinstance(s, (int, float)) for s in sizes):
            raise self.low.fail(f"{what} {show(sizes)} depends on a symbolic size")
        return [int(s) for s in sizes]  # type: ignore[arg-type]

    def axes(self, op: Op, index: int = 1) -> list[int] | None:
        """`axes` as an attribute (up to opset 12 or 17) or as an operand."""
        listed = op.ints("axes")
        if listed is not None:
            return listed
        return self.ints(op, index, "axes") if op.get(index) is not None else None


def scope_of(node: Message) -> str:
    """The module path: from the exporter's metadata, or from a name such as /encoder/layer.0/MatMul."""
    for pair in node.metadata_props:
        if pair.key == "pkg.torch.onnx.name_scopes" and len(pair.value) < 4096:
            try:
                scopes = ast.literal_eval(pair.value)
            except (ValueError, SyntaxError, RecursionError, MemoryError):
                break
            if isinstance(scopes, list) and len(scopes) >= 2:
                return re.sub(r"[^\w.]", "_", str(scopes[-2]))
    parts = node.name.strip("/").split("/")
    return re.sub(r"[^\w.]", "_", ".".join(parts[:-1]))[:200] if node.name.startswith("/") else ""


# ---- elementwise

_UNARY = {
    "Relu": "relu", "Sigmoid": "sigmoid", "Tanh": "tanh", "Exp": "exp", "Log": "log", "Sqrt": "sqrt", "Neg": "neg",
    "Abs": "abs", "Erf": "erf", "Sin": "sin", "Cos": "cos", "Reciprocal": "reciprocal", "Floor": "floor",
    "Ceil": "ceil",
    "Round": "round", "Sign": "sign", "Not": "not", "HardSwish": "hardswish", "HardSigmoid": "hardsigmoid",
    "Mish": "mish",
    "LeakyRelu": "leaky_relu", "Elu": "elu", "Selu": "selu", "Softplus": "softplus", "IsNaN": "isnan", "IsInf": "isinf",
    "QuickGelu": "quick_gelu", "FastGelu": "gelu_tanh", "Softsign": "softsign", "Celu": "elu",
    "ThresholdedRelu": "relu",
    "Tan": "tan", "Atan": "atan", "Acos": "acos", "Asin": "asin", "Sinh": "sinh", "Cosh": "cosh", "Swish": "silu",
    "BitwiseNot": "not", "Shrink": "hardshrink", "Rsqrt": "rsqrt",
}  # fmt: skip
_BINARY = {
    "Add": "add", "Sub": "sub", "Mul": "mul", "Div": "div", "Pow": "pow", "Mod": "mod", "And": "and", "Or": "or",
    "Xor": "xor",
    "Equal": "equal", "Less": "less", "LessOrEqual": "less_equal", "Greater": "greater",
    "GreaterOrEqual": "greater_equal",
    "PRelu": "prelu", "BitwiseAnd": "and", "BitwiseOr": "or", "BitShift": "shift", "BitwiseXor": "xor",
}  # fmt: skip


def _unary_rule(fn: str) -> Rule:
    def apply(c: _Onnx, op: Op) -> Value:
        y = c.low.elementwise(fn, op[0])
        return c.low.elementwise("gelu_tanh", c.low.elementwise("add", op[0], op[1])) if op.get(1) is not None else y

    return apply


def _binary_rule(fn: str) -> Rule:
    def apply(c: _Onnx, op: Op) -> Value:
        if fn == "div" and op[0].data is not None and not is_float(op[0].format):
            return c.low.elementwise("floordiv", op[0], op[1], format=op[0].format)
        if op.domain == "com.microsoft" or fn in ("pow", "shift"):
            return c.low.elementwise(fn, op[0], op[1], format=op[0].format)
        return c.low.elementwise(fn, op[0], op[1])

    return apply


for _name, _fn in _UNARY.items():
    _RULES[_name] = _unary_rule(_fn)
for _name, _fn in _BINARY.items():
    _RULES[_name] = _binary_rule(_fn)


@rule("Gelu", "BiasGelu")
def _gelu(c: _Onnx, op: Op) -> Value:
    x = c.low.elementwise("add", op[0], op[1]) if op.type == "BiasGelu" else op[0]
    return c.low.elementwise("gelu_tanh" if op.text("approximate") == "tanh" else "gelu", x)


@rule("Max", "Min", "Sum", "Mean")
def _variadic(c: _Onnx, op: Op) -> Value:
    fn = {"Max": "max", "Min": "min"}.get(op.type, "add")
    result = op[0]
    for value in op.given()[1:]:
        result = c.low.elementwise(fn, result, value)
    return result


@rule("Clip")
def _clip(c: _Onnx, op: Op) -> Value:
    bounds: list[float | None] = []
    for index, name in ((1, "min"), (2, "max")):
        value = op.get(index)
        if value is not None:
            bounds.append(value.scalar)
        else:
            bounds.append(op.real(name) if name in op.attributes else None)
    low, high = bounds
    return c.low.clamp(op[0], low, None if high is not None and high > 1e30 else high)


@rule("Where")
def _where(c: _Onnx, op: Op) -> Value:
    return c.low.elementwise("where", op[0], op[1], op[2])


@rule("Cast", "CastLike")
def _cast(c: _Onnx, op: Op) -> Value:
    format = op[1].format if op.type == "CastLike" else _FORMATS.get(op.number("to"), "f32")
    return c.low.cast(op[0], format)


@rule("Identity", "Dropout", "StopGradient", "OptionalGetElement")
def _identity(c: _Onnx, op: Op) -> list[Value]:
    mask = [c.low.one("elementwise", [op[0]], op[0].shape, "bool", fn="dropout")] if len(op.outputs) > 1 else []
    return [op[0], *mask]


@rule("CumSum", "CumProd")
def _cumulative(c: _Onnx, op: Op) -> Value:
    return c.low.one("reduce", [op[0]], op[0].shape, fn="cumsum")


# ---- constants and shape arithmetic


@rule("Constant")
def _constant(c: _Onnx, op: Op) -> Value:
    for key, value in op.attributes.items():
        if key == "value" and isinstance(value, Message):
            return c.initializer(value)
        if key in ("value_int", "value_ints"):
            return c.low.constant(array(value) if isinstance(value, list) else value, "int64")
        if key in ("value_float", "value_floats"):
            return c.low.constant(array(value) if isinstance(value, list) else float(value), "f32")
    raise c.low.fail("a constant that holds no numbers")


@rule("ConstantOfShape")
def _constant_of_shape(c: _Onnx, op: Op) -> Value:
    shape = c.low.checked(c.sizes(op, 0, "the shape"))
    fill = op.attributes.get("value")
    content = c.initializer(fill) if isinstance(fill, Message) else c.low.constant(0.0, "f32")
    count = product(shape)
    if content.data is not None and isinstance(count, int) and count <= 64:
        item = content.data.reshape(-1)[0]
        return c.low.constant(array([item] * count, [int(s) for s in shape if isinstance(s, int)]), content.format)
    return c.low.emit("fill", [], [shape], [content.format], fn="constant")[0]


@rule("Shape")
def _shape(c: _Onnx, op: Op) -> Value:
    start = op.number("start")
    end = op.number("end", op[0].ndim)
    return c.low.constant(array(list(op[0].shape)[start:end]), "int64", name="shape")


@rule("Size")
def _size(c: _Onnx, op: Op) -> Value:
    return c.low.constant(op[0].elements, "int64")


@rule("Range")
def _range(c: _Onnx, op: Op) -> Value:
    start, limit, step = (op[i].data.reshape(-1)[0] if op[i].data is not None else None for i in range(3))  # type: ignore[union-attr]
    if start is None or limit is None or not isinstance(step, (int, float)) or not step:
        shape = c.declared_shape(op)
        if shape is None:
            raise c.low.fail("a range whose length is computed at run time")
        return c.low.emit("fill", [], [shape], [op[0].format], fn="arange")[0]
    if isinstance(start, (int, float)) and isinstance(limit, (int, float)):
        count = max(int(-(-(limit - start) // step)), 0)
        if count <= SMALL:
            return c.low.constant(array([start + step * i for i in range(count)]), op[0].format)
        return c.low.emit("fill", [], [[count]], [op[0].format], fn="arange")[0]
    return c.low.emit("fill", [], [[ceildiv(limit - start, int(step))]], [op[0].format], fn="arange")[0]


@rule("EyeLike", "RandomNormalLike", "RandomUniformLike", "Multinomial", "Bernoulli")
def _like(c: _Onnx, op: Op) -> Value:
    fn = "random" if op.type != "EyeLike" else "constant"
    return c.low.emit("fill", [], [op[0].shape], [op[0].format], fn=fn)[0]


@rule("RandomNormal", "RandomUniform")
def _random(c: _Onnx, op: Op) -> Value:
    return c.low.emit("fill", [], [op.ints("shape") or []], ["f32"], fn="random")[0]


# ---- layout


@rule("Reshape")
def _reshape(c: _Onnx, op: Op) -> Value:
    x = op[0]
    if op[1].data is None:
        shape = c.declared_shape(op)
        if shape is None:
            raise c.low.fail("the target shape is computed at run time; give fixed input shapes")
        return c.low.reshape(x, shape)
    wanted = c.sizes(op, 1, "the shape")
    zero = op.number("allowzero")
    target = [
        x.shape[i] if isinstance(s, int) and s == 0 and not zero and i < x.ndim else s for i, s in enumerate(wanted)
    ]
    return c.low.reshape(x, target)


@rule("Flatten")
def _flatten(c: _Onnx, op: Op) -> Value:
    axis = op.number("axis", 1)
    axis = axis + op[0].ndim if axis < 0 else axis
    return c.low.reshape(op[0], [product(op[0].shape[:axis]), product(op[0].shape[axis:])])


@rule("Squeeze")
def _squeeze(c: _Onnx, op: Op) -> Value:
    return c.low.squeeze(op[0], c.axes(op))


@rule("Unsqueeze")
def _unsqueeze(c: _Onnx, op: Op) -> Value:
    return c.low.unsqueeze(op[0], c.axes(op) or [])


@rule("Transpose")
def _transpose(c: _Onnx, op: Op) -> Value:
    perm = op.ints("perm") or list(range(op[0].ndim))[::-1]
    return c.low.transpose(op[0], perm)


@rule("Expand")
def _expand(c: _Onnx, op: Op) -> Value:
    if op[1].data is None:
        shape = c.declared_shape(op)
        if shape is None:
            raise c.low.fail("the target shape is computed at run time; give fixed input shapes")
        return c.low.expand(op[0], shape)
    wanted = c.sizes(op, 1, "the shape")
    return c.low.expand(op[0], [1 if isinstance(s, int) and s == -1 else s for s in wanted])


@rule("Tile")
def _tile(c: _Onnx, op: Op) -> Value:
    repeats = c.sizes(op, 1, "repeats")
    shape = [s * r for s, r in zip(op[0].shape, repeats)]
    return op[0] if tuple(shape) == op[0].shape else c.low.one("move", [op[0]], shape, fn="tile")


@rule("Concat")
def _concat(c: _Onnx, op: Op) -> Value:
    return c.low.concat(op.given(), op.number("axis"))


@rule("Split", "SplitToSequence")
def _split(c: _Onnx, op: Op) -> tuple[Value, ...]:
    axis = c.low.axis(op[0], op.number("axis"))
    sizes: list[Size] | None = list(op.ints("split") or []) or None
    if sizes is None and op.get(1) is not None:
        sizes = c.sizes(op, 1, "the split")
    if sizes is None:
        count = op.number("num_outputs", len(op.outputs))
        part = ceildiv(op[0].shape[axis], count)
        sizes = [part] * (count - 1)
        rest = op[0].shape[axis]
        for size in sizes:
            rest = rest - size
        sizes.append(rest)
    return c.low.split(op[0], axis, sizes)


@rule("Slice")
def _slice(c: _Onnx, op: Op) -> Value:
    x = op[0]
    if op.ints("starts") is not None:
        starts: list[Size] = list(op.ints("starts") or [])
        ends: list[Size] = list(op.ints("ends") or [])
        axes = op.ints("axes") or list(range(len(starts)))
        steps = [1] * len(starts)
    else:
        if any(v is not None and v.data is None for v in op.inputs[1:3]):
            shape = c.declared_shape(op)
            if shape is None:
                raise c.low.fail("a slice whose bounds are computed at run time; give fixed input shapes")
            return c.low.one("move", [x], shape, fn="slice")
        starts, ends = c.sizes(op, 1, "starts"), c.sizes(op, 2, "ends")
        axes = c.ints(op, 3, "axes") if op.get(3) is not None else list(range(len(starts)))
        steps = c.ints(op, 4, "steps") if op.get(4) is not None else [1] * len(starts)
    for axis, start, end, step in zip(axes, starts, ends, steps):
        x = c.low.slice(x, axis, start, end, step)
    return x


@rule("Gather")
def _gather(c: _Onnx, op: Op) -> Value:
    return c.low.take(op[0], op[1], op.number("axis"))


@rule("GatherElements", "ScatterElements", "ScatterND", "Scatter", "ReverseSequence", "Trilu", "TensorScatter")
def _like_operand(c: _Onnx, op: Op) -> Value:
    shape = op[1].shape if op.type == "GatherElements" else op[0].shape
    fn = "gather" if op.type == "GatherElements" else "tril" if op.type == "Trilu" else "scatter"
    return c.low.one("move", op.given(), shape, fn=fn)


@rule("GatherND")
def _gather_nd(c: _Onnx, op: Op) -> Value:
    x, indices, batch = op[0], op[1], op.number("batch_dims")
    depth = indices.shape[-1]
    if not isinstance(depth, int):
        raise c.low.fail("GatherND with a symbolic index depth")
    return c.low.one("move", [x, indices], [*indices.shape[:-1], *x.shape[batch + depth :]], fn="gather")


@rule("Pad")
def _pad(c: _Onnx, op: Op) -> Value:
    x = op[0]
    pads = op.ints("pads") or c.ints(op, 1, "pads")
    axes = c.ints(op, 3, "axes") if op.get(3) is not None else list(range(x.ndim))
    before, after = [0] * x.ndim, [0] * x.ndim
    if len(pads) != 2 * len(axes):
        raise c.low.fail(f"{len(pads)} pads for {len(axes)} axes")
    for i, axis in enumerate(axes):
        before[c.low.axis(x, axis)], after[c.low.axis(x, axis)] = pads[i], pads[i + len(axes)]
    return c.low.pad(x, before, after)


@rule("DepthToSpace", "SpaceToDepth")
def _depth(c: _Onnx, op: Op) -> Value:
    n, ch, h, w = op[0].shape
    r = op.number("blocksize", 1)
    if op.type == "DepthToSpace":
        y = c.low.reshape(op[0], [n, c.low.divide(ch, r * r), r, r, h, w])
        return c.low.reshape(c.low.transpose(y, [0, 1, 4, 2, 5, 3]), [n, c.low.divide(ch, r * r), h * r, w * r])
    y = c.low.reshape(op[0], [n, ch, c.low.divide(h, r), r, c.low.divide(w, r), r])
    return c.low.reshape(
        c.low.transpose(y, [0, 3, 5, 1, 2, 4]), [n, ch * (r * r), c.low.divide(h, r), c.low.divide(w, r)]
    )


@rule("OneHot")
def _one_hot(c: _Onnx, op: Op) -> Value:
    depth = c.sizes(op, 1, "depth")[0]
    return c.low.one("move", [op[0]], [*op[0].shape, depth], op[2].format, fn="one_hot")


@rule("NonZero", "Unique", "NonMaxSuppression", "Compress")
def _data_dependent(c: _Onnx, op: Op) -> Any:
    shape = c.declared_shape(op) or (op[0].ndim, symbol(clean_symbol(f"{op.type.lower()}_{len(c.low.nodes)}")))
    if op.type == "NonMaxSuppression":
        shape = (symbol("selected"), 3)
    c.low.warn(f"{op.type} has a result whose size depends on contents; it is a free symbol")
    return c.low.one("move", op.given()[:2], shape, "int64", fn=op.type.lower())


# ---- contractions


@rule("MatMul", "FusedMatMul", "TransposeMatMul")
def _matmul(c: _Onnx, op: Op) -> Value:
    y = c.low.matmul(op[0], op[1], transpose_a=bool(op.number("transA")), transpose_b=bool(op.number("transB")))
    alpha = op.real("alpha", 1.0)
    return y if alpha == 1.0 else c.low.elementwise("mul", y, c.low.constant(alpha, "f32"))


@rule("Gemm", "FusedGemm")
def _gemm(c: _Onnx, op: Op) -> Value:
    x = c.low.swap(op[0], 0, 1) if op.number("transA") else op[0]
    y = c.low.linear(x, op[1], out_first=bool(op.number("transB")))
    bias = op.get(2)
    y = y if bias is None or op.real("beta", 1.0) == 0 else c.low.elementwise("add", y, bias)
    return _activated(c, op, y)


def _activated(c: _Onnx, op: Op, y: Value) -> Value:
    fn = op.text("activation")
    return c.low.elementwise(_UNARY.get(fn, fn.lower()), y) if fn else y


@rule("Einsum")
def _einsum(c: _Onnx, op: Op) -> Value:
    from orchard.workloads.importers.torch_export import contract

    equation = op.text("equation").replace(" ", "")
    operands = op.given()
    sizes = {
        k: s for t, v in zip(equation.split("->")[0].split(","), operands) for k, s in zip(t, v.shape) if "..." not in t
    }
    shape = c.declared_shape(op)
    right = equation.split("->")[1] if "->" in equation else ""
    if shape is None or all(k in sizes for k in right):
        shape = tuple(sizes[k] for k in right)
    return contract(c.low, equation, operands, shape)


@rule("Conv", "FusedConv", "NhwcConv", "NhwcFusedConv")
def _conv(c: _Onnx, op: Op) -> Value:
    x, w = op[0], op[1]
    nhwc = op.type.startswith("Nhwc")
    if nhwc:
        x = c.low.transpose(x, [0, x.ndim - 1, *range(1, x.ndim - 1)])
    d = w.ndim - 2
    stride, dilation, pads = _conv_attributes(c, op, x, w, d)
    y = c.low.conv(x, w, op.get(2), stride=stride, pad=pads, dilation=dilation, groups=op.number("group", 1))
    if op.get(3) is not None and op.type == "FusedConv":
        y = c.low.elementwise("add", y, op[3])
    y = _activated(c, op, y)
    return c.low.transpose(y, [0, *range(2, y.ndim), 1]) if nhwc else y


def _conv_attributes(
    c: _Onnx, op: Op, x: Value, w: Value, d: int
) -> tuple[list[int], list[int], list[tuple[int, int]]]:
    if d < 1:
        raise c.low.fail(f"a convolution with weight {show(w.shape)}")
    stride, dilation = op.ints("strides") or [1] * d, op.ints("dilations") or [1] * d
    listed = op.ints("pads") or [0] * (2 * d)
    pads = [(listed[i], listed[i + d]) for i in range(d)] if len(listed) == 2 * d else []
    auto = op.text("auto_pad", "NOTSET")
    if auto.startswith("SAME") and x.ndim == d + 2 and len(stride) == len(dilation) == d:
        pads = [_same(s, t, st, di) for s, t, st, di in zip(x.shape[2:], w.shape[2:], stride, dilation)]
    return stride, dilation, pads


def _same(size: Size, tap: Size, stride: int, dilation: int) -> tuple[int, int]:
    if not isinstance(tap, int):
        return (0, 0)
    span = (tap - 1) * dilation + 1
    total = max(span - 1, 0) if not isinstance(size, int) else max((-(-size // stride) - 1) * stride + span - size, 0)
    return total // 2, total - total // 2


@rule("ConvTranspose")
def _conv_transpose(c: _Onnx, op: Op) -> Value:
    d = op[1].ndim - 2
    stride, dilation, pads = _conv_attributes(c, op, op[0], op[1], d)
    extra = op.ints("output_padding") or [0] * d
    wanted = op.ints("output_shape")
    if wanted is not None and len(wanted) == d:
        pads = [(0, 0)] * d
        full = [
            (s - 1) * st + (t - 1) * di + 1 for s, st, t, di in zip(op[0].shape[2:], stride, op[1].shape[2:], dilation)
        ]
        cut = [f - w if isinstance(f, int) else 0 for f, w in zip(full, wanted)]
        pads = [(x // 2, x - x // 2) if isinstance(x, int) else (0, 0) for x in cut]
    return c.low.conv_transpose(
        op[0],
        op[1],
        op.get(2),
        stride=stride,
        pad=pads,
        dilation=dilation,
        output_pad=extra,
        groups=op.number("group", 1),
    )


# ---- quantization


def _scheme(scale: Value, bits: int, block: int = 0) -> str:
    """The number format of an integer weight with its scales."""
    if block:
        return f"int{bits}-b{block}"
    return f"int{bits}-channel" if scale.elements != 1 else f"int{bits}"


@rule("DequantizeLinear")
def _dequantize(c: _Onnx, op: Op) -> Value:
    x, scale = op[0], op[1]
    for extra in op.given()[1:]:
        c.auxiliary.add(id(extra))
    if x.producer is None and x.format in ("int8", "uint8", "int4", "uint4", "int2"):
        bits = int(x.format[-1])
        x.format = _scheme(scale, bits, op.number("block_size"))
        x.part = "other" if x.part == "constant" else x.part
    return c.low.one("elementwise", op.given(), x.shape, scale.format, fn="dequantize")


@rule("QuantizeLinear")
def _quantize(c: _Onnx, op: Op) -> Value:
    for extra in op.given()[1:]:
        c.auxiliary.add(id(extra))
    zero = op.get(2)
    format = zero.format if zero is not None else _FORMATS.get(op.number("output_dtype", 2), "uint8")
    if op[0].producer is None and op[0].data is None and op[0].part and op[1].elements != 1:
        op[0].format = f"{format}-channel" if format == "int8" else op[0].format
    return c.low.one("elementwise", op.given(), op[0].shape, format, fn="quantize")


@rule("DynamicQuantizeLinear")
def _dynamic_quantize(c: _Onnx, op: Op) -> list[Value]:
    y = c.low.one("elementwise", [op[0]], op[0].shape, "uint8", fn="quantize_dynamic")
    scale = c.low.one("reduce", [op[0]], [], "f32", fn="max")
    return [y, scale, c.low.constant(0, "uint8")]


def _stored_int8(c: _Onnx, weight: Value, *auxiliary: Value | None) -> Value:
    for extra in auxiliary:
        if extra is not None:
            c.auxiliary.add(id(extra))
    if weight.producer is None and weight.part == "constant":
        weight.part = "other"
    return weight


@rule("MatMulInteger", "MatMulIntegerToFloat", "DynamicQuantizeMatMul")
def _matmul_integer(c: _Onnx, op: Op) -> Value:
    y = c.low.matmul(op[0], _stored_int8(c, op[1], *op.inputs[2:]))
    y.format = "int32" if op.type == "MatMulInteger" else "f32"
    return y


@rule("ConvInteger")
def _conv_integer(c: _Onnx, op: Op) -> Value:
    w = _stored_int8(c, op[1], *op.inputs[2:])
    stride, dilation, pads = _conv_attributes(c, op, op[0], w, w.ndim - 2)
    y = c.low.conv(op[0], w, None, stride=stride, pad=pads, dilation=dilation, groups=op.number("group", 1))
    _format_of_producer(y, "int32")
    return y


def _format_of_producer(y: Value, format: str) -> None:
    y.format = format
    if y.producer is not None and y.producer.kind == "view":
        y.producer.inputs[0].format = format


@rule("QLinearMatMul", "QGemm")
def _qlinear_matmul(c: _Onnx, op: Op) -> Value:
    w = _stored_int8(c, op[3], op.get(4), op.get(5), op.get(1), op.get(2))
    y = c.low.matmul(op[0], w, transpose_a=bool(op.number("transA")), transpose_b=bool(op.number("transB")))
    bias = op.get(6) if op.type == "QGemm" else None
    if bias is not None:
        y = c.low.elementwise("add", y, bias, format=op[0].format)
    y.format = op[0].format
    return y


@rule("QLinearConv")
def _qlinear_conv(c: _Onnx, op: Op) -> Value:
    w = _stored_int8(c, op[3], op.get(4), op.get(5), op.get(1), op.get(2), op.get(6), op.get(7))
    stride, dilation, pads = _conv_attributes(c, op, op[0], w, w.ndim - 2)
    bias = op.get(8)
    y = c.low.conv(op[0], w, bias, stride=stride, pad=pads, dilation=dilation, groups=op.number("group", 1))
    _format_of_producer(y, op[0].format)
    return y


@rule("QLinearAdd", "QLinearMul")
def _qlinear_binary(c: _Onnx, op: Op) -> Value:
    return c.low.elementwise("add" if op.type == "QLinearAdd" else "mul", op[0], op[3], format=op[0].format)


@rule("QLinearSigmoid", "QLinearLeakyRelu", "QLinearSoftmax")
def _qlinear_unary(c: _Onnx, op: Op) -> Value:
    if op.type == "QLinearSoftmax":
        return c.low.softmax(op[0], op.number("axis", -1))
    return c.low.elementwise(op.type[7:].lower(), op[0])


@rule("QLinearGlobalAveragePool", "QLinearAveragePool")
def _qlinear_pool(c: _Onnx, op: Op) -> Value:
    return _global_pool(c, op) if "Global" in op.type else _pool(c, op)


@rule("QLinearConcat")
def _qlinear_concat(c: _Onnx, op: Op) -> Value:
    return c.low.concat(op.given()[2::3], op.number("axis"))


@rule("MatMulNBits", "MatMulBnb4")
def _matmul_nbits(c: _Onnx, op: Op) -> Value:
    n, k, bits, block = op.number("N"), op.number("K"), op.number("bits", 4), op.number("block_size", 32)
    if n < 1 or k < 1 or bits not in (1, 2, 3, 4, 8) or block < 2:
        raise c.low.fail(f"a weight of {n} x {k} with {bits} bits in blocks of {block}")
    packed = op[1]
    for extra in op.given()[2:]:
        if extra is not op.get(5):
            c.auxiliary.add(id(extra))
    weight = c.low.weight(packed.name, [n, k], f"int{bits}-b{block}")
    weight.part = weight.part if weight.part != "conv" else "other"
    for key, (value, _) in list(c.stored.items()):
        if value is packed:
            c.stored[key] = (weight, {4: 22, 2: 25}.get(bits, 3))
    y = c.low.linear(op[0], weight)
    bias = op.get(5)
    return y if bias is None else c.low.elementwise("add", y, bias)


@rule("GatherBlockQuantized")
def _gather_quantized(c: _Onnx, op: Op) -> Value:
    for extra in op.given()[2:]:
        c.auxiliary.add(id(extra))
    y = c.low.take(op[0], op[1], op.number("gather_axis"))
    y.format = op[2].format
    return y


# ---- norms, softmax, reductions


@rule("Softmax", "LogSoftmax", "Hardmax")
def _softmax(c: _Onnx, op: Op) -> Value:
    fn = "log_softmax" if op.type == "LogSoftmax" else "softmax"
    axis = op.number("axis", -1 if c.opset >= 13 else 1)
    if c.opset < 13 and op[0].ndim and axis % op[0].ndim != op[0].ndim - 1:
        flat = c.low.reshape(op[0], [product(op[0].shape[:axis]), product(op[0].shape[axis:])])
        return c.low.reshape(c.low.softmax(flat, -1, fn), op[0].shape)
    return c.low.softmax(op[0], axis, fn)


@rule("BatchNormalization", "SpatialBN")
def _batchnorm(c: _Onnx, op: Op) -> Value:
    for statistics in op.given()[3:5]:
        if statistics.producer is None:
            statistics.part = "constant"
    return c.low.norm("batchnorm", op[0], *op.given()[1:5])


@rule("InstanceNormalization")
def _instancenorm(c: _Onnx, op: Op) -> Value:
    return c.low.norm("instancenorm", op[0], op.get(1), op.get(2))


@rule("LayerNormalization", "SimplifiedLayerNormalization", "RMSNormalization")
def _layernorm(c: _Onnx, op: Op) -> Value:
    fn = "layernorm" if op.type == "LayerNormalization" else "rmsnorm"
    axis = c.low.axis(op[0], op.number("axis", -1))
    attrs: dict[str, Any] = {} if axis == op[0].ndim - 1 else {"axes": tuple(range(axis, op[0].ndim))}
    return c.low.norm(fn, op[0], op.get(1), op.get(2), **attrs)


@rule("SkipLayerNormalization", "SkipSimplifiedLayerNormalization")
def _skip_layernorm(c: _Onnx, op: Op) -> list[Value | None]:
    simple = "Simplified" in op.type
    x = c.low.elementwise("add", op[0], op[1])
    bias = op.get(3 if simple else 4)
    if bias is not None:
        x = c.low.elementwise("add", x, bias)
    y = c.low.norm("rmsnorm" if simple else "layernorm", x, op.get(2), None if simple else op.get(3))
    return [y, None, None, x]


@rule("EmbedLayerNormalization")
def _embed_layernorm(c: _Onnx, op: Op) -> list[Value | None]:
    ids, segments, words, positions, types, gamma, beta = (op.get(i) for i in range(7))
    if ids is None or words is None or positions is None:
        raise c.low.fail("an embedding without ids or tables")
    x = c.low.take(words, ids, 0)
    rows = c.low.slice(positions, 0, 0, ids.shape[-1])
    x = c.low.elementwise("add", x, c.low.unsqueeze(rows, [0]))
    if segments is not None and types is not None:
        x = c.low.elementwise("add", x, c.low.take(types, segments, 0))
    y = c.low.norm("layernorm", x, gamma, beta)
    return [y, c.low.constant(0, "int32"), x]


@rule("GroupNormalization", "GroupNorm", "SkipGroupNorm")
def _groupnorm(c: _Onnx, op: Op) -> Value:
    groups = op.number("num_groups", op.number("groups", 32))
    return c.low.norm("groupnorm", op[0], op.get(1), op.get(2), groups=groups)


@rule("LpNormalization", "MeanVarianceNormalization", "LRN")
def _other_norm(c: _Onnx, op: Op) -> Value:
    return c.low.norm({"LpNormalization": "l2norm", "LRN": "lrn"}.get(op.type, "instancenorm"), op[0])


@rule(
    "ReduceMean",
    "ReduceSum",
    "ReduceMax",
    "ReduceMin",
    "ReduceProd",
    "ReduceL2",
    "ReduceL1",
    "ReduceLogSumExp",
    "ReduceSumSquare",
    "ReduceLogSum",
)
def _reduce(c: _Onnx, op: Op) -> Value:
    axes = c.axes(op)
    if not axes and op.number("noop_with_empty_axes"):
        return op[0]
    return c.low.reduce(op.type[6:].lower(), op[0], axes, bool(op.number("keepdims", 1)))


@rule("ArgMax", "ArgMin")
def _argmax(c: _Onnx, op: Op) -> Value:
    return c.low.reduce(op.type.lower(), op[0], [op.number("axis")], bool(op.number("keepdims", 1)), "int64")


@rule("TopK")
def _topk(c: _Onnx, op: Op) -> tuple[Value, ...]:
    k = c.sizes(op, 1, "k")[0] if len(op.inputs) > 1 else op.number("k")
    axis = c.low.axis(op[0], op.number("axis", -1))
    shape = [k if i == axis else s for i, s in enumerate(op[0].shape)]
    formats = [op[0].format, "int64"]
    if axis == op[0].ndim - 1 and isinstance(k, int):
        return c.low.emit("topk", [op[0]], [shape, shape], formats, k=k)
    return c.low.emit("move", [op[0]], [shape, shape], formats, fn="sort")


# ---- pooling, resizing, recurrence


@rule("MaxPool", "AveragePool", "LpPool")
def _pool(c: _Onnx, op: Op) -> Value:
    kernel = op.ints("kernel_shape") or []
    d = len(kernel)
    stride, dilation = op.ints("strides") or [1] * d, op.ints("dilations") or [1] * d
    listed = op.ints("pads") or [0] * (2 * d)
    pads = [(listed[i], listed[i + d]) for i in range(d)] if len(listed) == 2 * d else []
    if op.text("auto_pad").startswith("SAME"):
        pads = [_same(s, k, st, 1) for s, k, st in zip(op[0].shape[2:], kernel, stride)]
    fn = "max" if op.type == "MaxPool" else "avg"
    return c.low.pool(fn, op[0], kernel, stride, pads, dilation, ceil=bool(op.number("ceil_mode")))


@rule("GlobalAveragePool", "GlobalMaxPool")
def _global_pool(c: _Onnx, op: Op) -> Value:
    return c.low.reduce("max" if "Max" in op.type else "mean", op[0], list(range(2, op[0].ndim)), True)


@rule("Resize", "Upsample")
def _resize(c: _Onnx, op: Op) -> Value:
    x = op[0]
    mode = {"linear": "bilinear", "cubic": "bicubic"}.get(op.text("mode", "nearest"), "nearest")
    sizes = op.get(3)
    if sizes is not None and sizes.data is not None and sizes.data.size == x.ndim:
        return c.low.resize(x, list(sizes.data.reshape(-1)), mode)
    scales = op.get(2) if op.type == "Resize" else op.get(1)
    factors: Any = op.attributes.get("scales")
    if scales is not None and scales.data is not None:
        factors = list(scales.data.reshape(-1))
    if isinstance(factors, list) and len(factors) == x.ndim:
        return c.low.resize(x, [_scaled(s, float(f)) for s, f in zip(x.shape, factors)], mode)
    shape = c.declared_shape(op)
    if shape is None:
        raise c.low.fail("a resize whose target is computed at run time; give fixed input shapes")
    return c.low.resize(x, shape, mode)


def _scaled(size: Size, factor: float) -> Size:
    if isinstance(size, int):
        return int(size * factor + 1e-6)
    return size * int(factor) if factor == int(factor) else size * int(factor * 16) // 16


@rule("GridSample", "RoiAlign", "MaxRoiPool", "AffineGrid")
def _grid_sample(c: _Onnx, op: Op) -> Value:
    if op.type == "GridSample":
        return c.low.one("resize", op.given(), [*op[0].shape[:2], *op[1].shape[1:-1]], fn="grid_sample")
    size = [op.number("output_height", 1), op.number("output_width", 1)]
    return c.low.one("resize", op.given(), [op[1].shape[0], op[0].shape[1], *size], fn=op.type.lower())


@rule("LSTM", "GRU", "RNN")
def _recurrent(c: _Onnx, op: Op) -> list[Value]:
    x, w, r, bias = op[0], op[1], op[2], op.get(3)
    if op.number("layout"):
        x = c.low.swap(x, 0, 1)
    directions, hidden = w.shape[0], r.shape[-1]
    if not isinstance(directions, int) or not isinstance(hidden, int) or not 1 <= directions <= 2:
        raise c.low.fail(f"a recurrent layer with weight {show(w.shape)}")

    def part(value: Value, i: int) -> Value:
        return c.low.squeeze(c.low.slice(value, 0, i, i + 1), [0])

    gates = {"LSTM": 4, "GRU": 3}.get(op.type, 1) * hidden
    biases = [c.low.slice(part(bias, i), 0, 0, gates) for i in range(directions)] if bias is not None else []
    y, last = c.low.recurrent(op.type.lower(), x, [(part(w, i), part(r, i)) for i in range(directions)], biases, hidden)
    t, b = x.shape[:2]
    y = c.low.reshape(y, [t, b, directions, hidden])
    y = c.low.transpose(y, [0, 2, 1, 3]) if not op.number("layout") else c.low.transpose(y, [1, 0, 2, 3])
    return [y, last, last]


# ---- attention


def _heads(c: _Onnx, x: Value, count: int) -> Value:
    """[b, s, h*d] to [b, h, s, d]; four axes stay."""
    if x.ndim == 4:
        return x
    if count < 1:
        raise c.low.fail("attention without a number of heads")
    b, s, m = x.shape
    return c.low.transpose(c.low.reshape(x, [b, s, count, c.low.divide(m, count)]), [0, 2, 1, 3])


def _merge(c: _Onnx, y: Value) -> Value:
    b, h, s, d = y.shape
    return c.low.reshape(c.low.transpose(y, [0, 2, 1, 3]), [b, s, h * d])


def _scale(op: Op, q: Value) -> float | None:
    scale = op.real("scale", 0.0)
    if scale:
        return scale
    width = q.shape[-1]
    return float(width) ** -0.5 if isinstance(width, int) else None


def _with_past(c: _Onnx, k: Value, past: Value | None) -> Value:
    return k if past is None or past.shape[2] == 0 else c.low.concat([past, k], 2)


@rule("Attention")
def _attention(c: _Onnx, op: Op) -> list[Value | None]:
    if "q_num_heads" in op.attributes or (op.domain in ("", "ai.onnx") and op.get(2) is not None and op[1].ndim >= 3):
        return _attention_23(c, op)
    x, weights, bias = op[0], op[1], op.get(2)
    heads = op.number("num_heads", 1)
    qkv = c.low.linear(x, weights, out_first=False)
    if bias is not None:
        qkv = c.low.elementwise("add", qkv, bias)
    widths: list[Size] = list(op.ints("qkv_hidden_sizes") or []) or [c.low.divide(qkv.shape[-1], 3)] * 3
    q, k, v = (_heads(c, part, heads) for part in c.low.split(qkv, 2, widths))
    mask = next((m for m in (op.get(5), op.get(3)) if m is not None), None)
    y = c.low.attention(q, k, v, mask, causal=bool(op.number("unidirectional")), scale=_scale(op, q))
    return [_merge(c, y), None]


def _attention_23(c: _Onnx, op: Op) -> list[Value | None]:
    flat = op[0].ndim == 3
    q = _heads(c, op[0], op.number("q_num_heads"))
    k, v = (_heads(c, op[i], op.number("kv_num_heads")) for i in (1, 2))
    k, v = _with_past(c, k, op.get(4)), _with_past(c, v, op.get(5))
    y = c.low.attention(q, k, v, op.get(3), causal=bool(op.number("is_causal")), scale=_scale(op, q))
    return [_merge(c, y) if flat else y, k, v]


@rule("MultiHeadAttention", "DecoderMaskedMultiHeadAttention")
def _multi_head(c: _Onnx, op: Op) -> list[Value | None]:
    heads = op.number("num_heads", 1)
    q, k, v, bias = op[0], op.get(1), op.get(2), op.get(3)
    if q.ndim == 5:  # [b, s, h, 3, d]
        b, s, h, _, d = q.shape
        q, k, v = (c.low.transpose(c.low.reshape(p, [b, s, h, d]), [0, 2, 1, 3]) for p in c.low.split(q, 3, [1, 1, 1]))
    elif k is None:
        raise c.low.fail("attention without keys")
    elif k.ndim == 5:  # [b, s, h, 2, d]
        b, s, h, _, d = k.shape
        k, v = (c.low.transpose(c.low.reshape(p, [b, s, h, d]), [0, 2, 1, 3]) for p in c.low.split(k, 3, [1, 1]))
        q = _heads(c, q, heads)
    else:
        if v is None:
            raise c.low.fail("attention without values")
        parts = [q, k, v]
        if bias is not None:
            sizes = [p.shape[-1] if p.ndim == 3 else p.shape[1] * p.shape[3] for p in parts]
            pieces = c.low.split(bias, 0, sizes)
            parts = [c.low.elementwise("add", p, b) if p.ndim == 3 else p for p, b in zip(parts, pieces)]
        q, k, v = (_heads(c, p, heads) for p in parts)
    assert k is not None
    assert v is not None
    k, v = _with_past(c, k, op.get(6)), _with_past(c, v, op.get(7))
    mask = next((m for m in (op.get(5), op.get(4)) if m is not None), None)
    y = c.low.attention(q, k, v, mask, causal=bool(op.number("unidirectional")), scale=_scale(op, q))
    return [_merge(c, y), k, v]


@rule("GroupQueryAttention")
def _group_query(c: _Onnx, op: Op) -> list[Value | None]:
    heads, groups = op.number("num_heads", 1), op.number("kv_num_heads", 1)
    q, k, v = op[0], op.get(1), op.get(2)
    if k is None or v is None:  # packed
        width = c.low.divide(q.shape[-1], heads + 2 * groups)
        q, k, v = c.low.split(q, 2, [width * heads, width * groups, width * groups])
    q, k, v = _heads(c, q, heads), _heads(c, k, groups), _heads(c, v, groups)
    if op.number("do_rotary"):
        tables = [t for t in (op.get(7), op.get(8)) if t is not None]
        q, k = (c.low.one("rope", [x, *tables], x.shape) for x in (q, k))
    k, v = _with_past(c, k, op.get(3)), _with_past(c, v, op.get(4))
    return [_merge(c, c.low.attention(q, k, v, None, causal=True, scale=_scale(op, q))), k, v]


@rule("RotaryEmbedding")
def _rotary(c: _Onnx, op: Op) -> Value:
    x = op[0]
    extra = [v for v in op.given()[1:] if is_float(v.format)]
    heads = op.number("num_heads")
    if x.ndim == 3 and heads:
        b, s, m = x.shape
        split = c.low.reshape(x, [b, s, heads, c.low.divide(m, heads)])
        return c.low.reshape(c.low.one("rope", [split, *extra], split.shape), x.shape)
    return c.low.one("rope", [x, *extra], x.shape)


@rule("BiasSplitGelu", "BiasAdd")
def _bias_split(c: _Onnx, op: Op) -> Value:
    x = c.low.elementwise("add", op[0], op[1])
    if op.type == "BiasAdd":
        return c.low.elementwise("add", x, op[2]) if op.get(2) is not None else x
    half = c.low.divide(x.shape[-1], 2)
    left, right = c.low.split(x, x.ndim - 1, [half, half])
    return c.low.elementwise("mul", left, c.low.elementwise("gelu", right))


@rule("STFT", "DFT", "MelWeightMatrix", "HannWindow", "HammingWindow")
def _signal(c: _Onnx, op: Op) -> Value:
    shape = c.declared_shape(op)
    if shape is None:
        raise c.low.fail("a spectrum whose shape is not declared; run shape inference first")
    return c.low.one("move", op.given(), shape, fn=op.type.lower())
