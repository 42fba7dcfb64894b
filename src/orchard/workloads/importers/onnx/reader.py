"""Walks an ONNX model: leaves, nodes, functions, constant branches."""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from orchard.ir import Expr, GraphError, Size, parse_size, product, symbol
from orchard.workloads.importers.errors import ImportError_
from orchard.workloads.importers.lowering import SMALL, Data, Lowering, Value, array, clean_symbol, show
from orchard.workloads.importers.onnx.schema import FORMATS, NUMPY
from orchard.workloads.importers.protowire import Message
from orchard.workloads.importers.weights import WeightCount, stored_bytes


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


SEQUENCE_OPS = (
    "SequenceConstruct", "SequenceEmpty", "SplitToSequence", "SequenceLength", "ConcatFromSequence", "SequenceAt",
    "SequenceInsert", "SequenceErase",
)  # fmt: skip
Rule = Callable[["Reader", Op], Any]
RULES: dict[str, Rule] = {}


R = TypeVar("R", bound=Rule)


def rule(*names: str) -> Callable[[R], R]:
    def register(function: R) -> R:
        for name in names:
            RULES[name] = function
        return function

    return register


@dataclass
class Reader:
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
        self.sequences: dict[str, list[Value]] = {}  # lists of tensors by their ONNX name
        self.depth = 0

    def count(self) -> WeightCount:
        counter = WeightCount()
        for value, data_type in self.stored.values():
            plain = FORMATS[data_type]
            parameter = value.part != "constant" and id(value) not in self.auxiliary
            counter.add(value, plain, parameter=parameter)
        return counter

    def run(self, inputs: Mapping[str, Any] | None) -> list[Value]:
        graph = self.model.graph
        types: Counter[str] = Counter()
        self._types(graph.node, types, 0)
        self.low.check_known(types, {*RULES, *SEQUENCE_OPS})
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
        if data_type not in FORMATS:
            raise ImportError_(
                f"{self.path}: initializer {tensor.name!r} has data type {data_type}, which holds no numbers"
            )
        shape = self.low.checked(tensor.dims)
        elements = product(shape)
        format = FORMATS[data_type]
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
        limit = SMALL if FORMATS[tensor.data_type] in ("int64", "int32", "bool") else 16
        if count > limit or tensor.data_type not in NUMPY:
            return None
        raw = tensor.raw_data
        if tensor.data_location == 1:
            raw = self._external(tensor)
        dtype = np.dtype(NUMPY[tensor.data_type])
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
        return self.low.input(info.name, shape, FORMATS.get(kind.elem_type, "f32"))

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
            if name in self.sequences:
                inputs.append(None)
                continue
            if name and name not in self.env:
                raise ImportError_(f"{self.path}: node {node.name or node.op_type} reads {name!r}, which nothing makes")
            inputs.append(self.env[name] if name else None)
        function = self.functions.get((node.domain, node.op_type))
        if function is not None:
            self._inline(function, inputs, node.output, attributes)
            return
        op = Op(node.op_type, inputs, list(node.output), attributes, node.name or node.op_type, node.domain)
        if node.op_type in SEQUENCE_OPS and node.domain in ("", "ai.onnx"):
            with self.low.within(scope_of(node), f"{op.name} ({op.type})"):
                self._sequence(op, list(node.input))
            return
        with self.low.within(scope_of(node), f"{op.name} ({op.type})"):
            if op.type == "If":
                self._branch(op)
                return
            kind = self.type_name(node)
            handler = RULES.get(kind)
            result = handler(self, op) if handler is not None else self._assume(kind, op)
        results = result if isinstance(result, (list, tuple)) else [result]
        for name, value in zip(op.outputs, results):
            if name and value is not None:
                self.env[name] = value

    def _sequence(self, op: Op, names: Sequence[str]) -> None:
        """Sequences of known length are lists; nothing runs for them."""
        held = next((self.sequences[n] for n in names if n in self.sequences), [])
        out = op.outputs[0]
        if op.type == "SequenceConstruct":
            self.sequences[out] = op.given()
        elif op.type == "SequenceEmpty":
            self.sequences[out] = []
        elif op.type == "SplitToSequence":
            keep = bool(op.number("keepdims", 1)) or op.get(1) is not None
            self.sequences[out] = self._pieces(op, keep)
        elif op.type == "SequenceLength":
            self.env[out] = self.low.constant(len(held), "int64")
        elif op.type == "ConcatFromSequence":
            axis = op.number("axis")
            parts = [self.low.unsqueeze(v, [axis]) for v in held] if op.number("new_axis") else held
            self.env[out] = self.low.concat(parts, axis)
        else:
            self._pick(op, held)

    def _pick(self, op: Op, held: list[Value]) -> None:
        """One element of a sequence, or a sequence with one more or fewer; the position has to be known."""
        position = op.inputs[2 if op.type == "SequenceInsert" else 1] if len(op.inputs) > 1 else None
        where = position.scalar if position is not None else len(held) if op.type == "SequenceInsert" else -1.0
        last = len(held) if op.type == "SequenceInsert" else len(held) - 1
        if where is None or not -len(held) - 1 <= where <= last:
            raise self.low.fail(f"position {where} of a sequence of {len(held)}")
        at = int(where)
        if op.type == "SequenceAt":
            self.env[op.outputs[0]] = held[at]
        elif op.type == "SequenceErase":
            self.sequences[op.outputs[0]] = [v for i, v in enumerate(held) if i != at % max(len(held), 1)]
        else:
            self.sequences[op.outputs[0]] = [*held[:at], op[1], *held[at:]]

    def _pieces(self, op: Op, keep: bool) -> list[Value]:
        x, axis = op[0], self.low.axis(op[0], op.number("axis"))
        whole = x.shape[axis]
        if not isinstance(whole, int):
            raise self.low.fail(f"a split of the open size {whole}")
        given = self.ints(op, 1, "the split") if op.get(1) is not None else [1]
        step = max(given[0], 1)
        sizes = given if op.get(1) is not None and op[1].ndim else [min(step, whole - at) for at in range(0, whole, step)]
        parts = self.low.split(x, axis, sizes)
        return list(parts) if keep else [self.low.squeeze(p, [axis]) for p in parts]

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
