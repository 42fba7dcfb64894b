"""Core ML: ML programs (.mlpackage, .mlmodel) and, through `coreml_layers`, the old neural-network format.

The specification is read with our own wire reader, so coremltools (3 s to import) is not needed and weight files are never
opened: every tensor's type is in the program. Compressed weights (constexpr_* ops, nested ones too) become one weight in
the format that is stored, with its true bytes.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from orchard.ir import Size, product, symbol
from orchard.workloads.importers.canonical import finish
from orchard.workloads.importers.common import Imported, Lowering, Value, array, clean_symbol, is_float, show
from orchard.workloads.importers.errors import ImportError_
from orchard.workloads.importers.files import mapped
from orchard.workloads.importers.inputs import bind_inputs
from orchard.workloads.importers.protowire import Message, Schema, decode
from orchard.workloads.importers.weights import WeightCount

# ---- the parts of Model.proto and MIL.proto that a graph needs

_DIMENSION: Schema = {1: ("constant", {1: ("size", "int")}), 2: ("unknown", {1: ("variadic", "bool")})}
_TENSOR_TYPE: Schema = {1: ("data_type", "int"), 2: ("rank", "int"), 3: ("dimensions", [_DIMENSION])}
_VALUE_TYPE: dict[int, tuple[str, Any]] = {1: ("tensor", _TENSOR_TYPE)}
_VALUE_TYPE[5] = ("state", {1: ("wrapped", _VALUE_TYPE)})
_VALUE_TYPE[2] = ("list", {1: ("type", _VALUE_TYPE)})
_NAMED: Schema = {1: ("name", "str"), 2: ("type", _VALUE_TYPE)}
_TENSOR_VALUE: Schema = {
    1: ("floats", {1: ("values", ["float"])}), 2: ("ints", {1: ("values", ["int"])}),
    3: ("bools", {1: ("values", ["bool"])}), 4: ("strings", {1: ("values", ["str"])}),
    5: ("longs", {1: ("values", ["int"])}), 6: ("doubles", {1: ("values", ["double"])}),
    7: ("bytes", {1: ("values", "bytes")}),
}  # fmt: skip
_IMMEDIATE: dict[int, tuple[str, Any]] = {1: ("tensor", _TENSOR_VALUE)}
_VALUE: Schema = {
    2: ("type", _VALUE_TYPE), 3: ("immediate", _IMMEDIATE),
    5: ("blob", {1: ("file", "str"), 2: ("offset", "int")}),
}  # fmt: skip
_IMMEDIATE[3] = ("list", {1: ("values", [_VALUE])})
_BINDING: Schema = {1: ("name", "str"), 2: ("value", _VALUE)}
_ARGUMENT: Schema = {1: ("arguments", [_BINDING])}
_BLOCK: dict[int, tuple[str, Any]] = {1: ("inputs", [_NAMED]), 2: ("outputs", ["str"])}
_OPERATION: Schema = {
    1: ("type", "str"), 2: ("inputs", ("map", _ARGUMENT)), 3: ("outputs", [_NAMED]), 4: ("blocks", [_BLOCK]),
    5: ("attributes", ("map", _VALUE)),
}  # fmt: skip
_BLOCK[3] = ("operations", [_OPERATION])
_FUNCTION: Schema = {1: ("inputs", [_NAMED]), 2: ("opset", "str"), 3: ("blocks", ("map", _BLOCK))}
_PROGRAM: Schema = {1: ("version", "int"), 2: ("functions", ("map", _FUNCTION))}

_SIZES: Schema = {1: ("shape", ["int"])}
_RANGE: Schema = {1: ("lower", "int"), 2: ("upper", "int")}
_ARRAY: Schema = {
    1: ("shape", ["int"]), 2: ("data_type", "int"), 21: ("enumerated", {1: ("shapes", [_SIZES])}),
    31: ("range", {1: ("sizes", [_RANGE])}),
}  # fmt: skip
_IMAGE: Schema = {1: ("width", "int"), 2: ("height", "int"), 3: ("color", "int")}
_FEATURE: Schema = {
    1: ("name", "str"),
    3: ("type", {4: ("image", _IMAGE), 5: ("array", _ARRAY), 1000: ("optional", "bool")}),
}
_DESCRIPTION: Schema = {1: ("input", [_FEATURE]), 10: ("output", [_FEATURE]), 21: ("default_function", "str")}

_TYPES = {
    1: "bool", 10: "f16", 11: "f32", 12: "f64", 13: "bf16", 21: "int8", 22: "int16", 23: "int32", 24: "int64", 25: "int4",
    31: "uint8", 32: "int16", 33: "int32", 34: "int64", 35: "uint4", 36: "int2", 37: "int1", 38: "int6", 39: "int3",
    40: "f8_e4m3", 41: "f8_e5m2",
}  # fmt: skip
_BITS = {1: 8, 21: 8, 25: 4, 31: 8, 35: 4, 36: 2, 37: 1, 38: 6, 39: 3}
_CASTS = {"fp16": "f16", "fp32": "f32", "fp64": "f64", "int8": "int8", "uint8": "uint8", "int16": "int16", "uint16": "int16",
          "int32": "int32", "int64": "int64", "bool": "bool", "string": "int32"}  # fmt: skip


def import_coreml(
    path: str | Path, *, inputs: Mapping[str, Any] | None = None, assume_elementwise: Collection[str] = ()
) -> Imported:
    """The graph of an `.mlpackage` folder or `.mlmodel` file. `inputs` binds flexible sizes."""
    from orchard.workloads.importers import coreml_layers as layers

    path = Path(path)
    model_path = _model_file(path)
    schema: Schema = {
        1: ("version", "int"), 2: ("description", _DESCRIPTION), 500: ("network", layers.NETWORK),
        303: ("network_regressor", layers.NETWORK), 403: ("network_classifier", layers.NETWORK), 502: ("program", _PROGRAM),
        202: ("pipeline", {1: ("models", ["bytes"])}), 200: ("pipeline_classifier", {1: ("pipeline", "bytes")}),
        201: ("pipeline_regressor", {1: ("pipeline", "bytes")}),
    }  # fmt: skip
    with ExitStack() as stack:
        data = stack.enter_context(mapped(model_path))
        model = decode(data, schema, str(path))
        low = Lowering(path.stem, str(path), assume_elementwise=assume_elementwise)
        network = model.network or model.network_classifier or model.network_regressor
        if model.program is not None:
            program = _Program(model, low, path)
            outputs, weights = program.run(), program.count()
            kind = "coreml"
        elif network is not None:
            outputs, weights = layers.lower(network, model.description, low)
            kind = "coreml-neuralnetwork"
        elif any(model.has(n) for n in ("pipeline", "pipeline_classifier", "pipeline_regressor")):
            raise ImportError_(f"{path}: a pipeline of several models; import its parts one by one")
        else:
            raise ImportError_(
                f"{path}: holds neither an ML program nor a neural network (trees and the like have no graph)"
            )
        graph = finish(low, outputs)
    if inputs:
        graph = bind_inputs(graph, inputs)
    return Imported(
        graph=graph, name=path.stem, source_format=kind, weights=weights.info(), warnings=tuple(low.warnings),
        metadata={"specification_version": str(model.version)},
    )  # fmt: skip


def _model_file(path: Path) -> Path:
    """The specification inside an .mlpackage: what Manifest.json names, inside the package."""
    if not path.is_dir():
        return path
    manifest = path / "Manifest.json"
    try:
        listed = json.loads(manifest.read_text(encoding="utf-8"))
        entry = listed["itemInfoEntries"][listed["rootModelIdentifier"]]["path"]
        found = path / "Data" / str(entry)
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        raise ImportError_(f"{path}: no readable Manifest.json, expected a Core ML package") from None
    if not found.resolve().is_relative_to(path.resolve()) or not found.is_file():
        raise ImportError_(f"{path}: Manifest.json names {str(entry)[:80]!r}, which is not in the package")
    return found


Rule = Callable[["_Program", "Op"], Any]
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
    """One MIL operation with its operands resolved: values, lists of values, or literals."""

    type: str
    operands: Mapping[str, Any]
    outputs: Sequence[Message]

    def __getitem__(self, name: str) -> Value:
        found = self.operands.get(name)
        if not isinstance(found, Value):
            raise ImportError_(f"operand {name!r} of a Core ML {self.type} is missing")
        return found

    def get(self, name: str) -> Value | None:
        found = self.operands.get(name)
        return found if isinstance(found, Value) else None

    def values(self, name: str) -> list[Value]:
        found = self.operands.get(name)
        return [v for v in found if isinstance(v, Value)] if isinstance(found, list) else [self[name]]

    def literal(self, name: str) -> list[Any] | None:
        found = self.operands.get(name)
        if isinstance(found, Value) and found.data is not None:
            return list(found.data.reshape(-1))
        return None

    def ints(self, name: str) -> list[int] | None:
        found = self.literal(name)
        return (
            [int(v) for v in found] if found is not None and all(isinstance(v, (int, float)) for v in found) else None
        )

    def int(self, name: str, default: int) -> int:
        found = self.ints(name)
        return found[0] if found else default

    def flag(self, name: str) -> bool:
        return bool(self.int(name, 0))

    def real(self, name: str, default: float) -> float:
        found = self.literal(name)
        return float(found[0]) if found and isinstance(found[0], (int, float)) else default

    def text(self, name: str, default: str = "") -> str:
        found = self.literal(name)
        return str(found[0]) if found and isinstance(found[0], str) else default


@dataclass
class _Program:
    """One ML program on its way down. `env` maps MIL names to values."""

    model: Message
    low: Lowering
    path: Path
    env: dict[str, Any] = field(default_factory=dict)
    stored: dict[int, tuple[Value, int, bool]] = field(default_factory=dict)  # id -> value, bytes, parameter

    def count(self) -> WeightCount:
        counter = WeightCount()
        for value, size, parameter in self.stored.values():
            counter.add(value, value.format, parameter=parameter, size=size)
        return counter

    def run(self) -> list[Value]:
        functions = self.model.program.functions
        wanted = self.model.description.default_function if self.model.description is not None else ""
        name = wanted if wanted in functions else "main" if "main" in functions else next(iter(functions), "")
        function = functions.get(name)
        if function is None or not function.blocks:
            raise ImportError_(f"{self.path}: an ML program without functions")
        if len(functions) > 1:
            self.low.warn(f"functions {', '.join(sorted(functions))}: this is {name!r}")
        block = function.blocks.get(function.opset) or next(iter(function.blocks.values()))
        types: Counter[str] = Counter()
        self._types(block, types)
        self.low.check_known(types, {*_RULES, "const"})
        for declared in function.inputs:
            self.env[declared.name] = self._input(declared)
        for operation in block.operations:
            self._operation(operation)
        missing = [o for o in block.outputs if not isinstance(self.env.get(o), Value)]
        if missing:
            raise ImportError_(f"{self.path}: output {missing[0]!r} is made by no operation")
        return [self.env[o] for o in block.outputs]

    def _types(self, block: Message, types: Counter[str]) -> None:
        for operation in block.operations:
            if operation.type in ("while_loop", "cond", "make_list"):
                raise ImportError_(
                    f"{self.path}: the program holds control flow ({operation.type}); its work depends on run-time "
                    f"contents, so there is no one graph. Convert the loop body by itself, or unroll it"
                )
            types[operation.type] += 1

    def _input(self, declared: Message) -> Value:
        kind = declared.type
        if kind is not None and kind.state is not None:
            shape, format = self.type_of(kind.state.wrapped, declared.name, inventing=True)
            return self.low.state(declared.name, shape or (), format)
        shape, format = self.type_of(kind, declared.name, inventing=True)
        return self.low.input(declared.name, shape or (), format)

    def type_of(
        self, kind: Message | None, name: str, *, inventing: bool = False
    ) -> tuple[tuple[Size, ...] | None, str]:
        """Shape (None where a size is not known) and format of a declared tensor."""
        if kind is None or kind.tensor is None:
            raise ImportError_(f"{self.path}: {name!r} is no tensor")
        sizes: list[Size] = []
        known = True
        for axis, dim in enumerate(kind.tensor.dimensions):
            if dim.constant is not None:
                sizes.append(int(dim.constant.size))
            elif inventing:
                sizes.append(symbol(clean_symbol(f"{name}_{axis}")))
            else:
                known = False
        return (tuple(sizes) if known else None), _TYPES.get(kind.tensor.data_type, "f32")

    def _operation(self, operation: Message) -> None:
        with self.low.within("", self._label(operation)):
            if operation.type == "const":
                self.env[operation.outputs[0].name] = self._constant(operation)
                return
            operands = {k: self._argument(a) for k, a in operation.inputs.items()}
            for key, value in operation.attributes.items():
                if key not in ("name",) and key not in operands:
                    operands[key] = self._literal(
                        value, f"{operation.outputs[0].name}_{key}" if operation.outputs else key
                    )
            op = Op(operation.type, operands, operation.outputs)
            handler = _RULES.get(operation.type)
            result = handler(self, op) if handler is not None else self._assume(op)
            results = result if isinstance(result, (list, tuple)) else [result]
            for declared, value in zip(operation.outputs, results):
                self.env[declared.name] = self._settle(declared, value)

    def _label(self, operation: Message) -> str:
        return f"{operation.outputs[0].name if operation.outputs else '?'} ({operation.type})"

    def _settle(self, declared: Message, value: Any) -> Any:
        """The declared type has the last word on formats; shapes must agree."""
        if not isinstance(value, Value) or declared.type is None or declared.type.tensor is None:
            return value
        shape, format = self.type_of(declared.type, declared.name)
        if shape is not None and value.shape != shape:
            agree = len(shape) == value.ndim and all(
                a == b or not isinstance(a, int) or not isinstance(b, int) for a, b in zip(shape, value.shape)
            )
            if not agree:
                raise self.low.fail(f"computed shape {show(value.shape)}, the program says {show(shape)}")
        if value.producer is not None:
            value.format = format
        return value

    def _assume(self, op: Op) -> list[Value]:
        self.low.warn(f"{op.type} is assumed to be elementwise, as asked")
        tensors = [v for v in op.operands.values() if isinstance(v, Value) and v.data is None]
        made = []
        for declared in op.outputs:
            shape, format = self.type_of(declared.type, declared.name)
            made.append(self.low.one("elementwise", tensors, shape or tensors[0].shape, format, fn=op.type))
        return made

    def declared(self, op: Op, index: int = 0) -> tuple[Size, ...] | None:
        return self.type_of(op.outputs[index].type, op.outputs[index].name)[0]

    def need_shape(self, op: Op, what: str, index: int = 0) -> tuple[Size, ...]:
        shape = self.declared(op, index)
        if shape is None:
            raise self.low.fail(f"{what} depends on run-time contents or a flexible size; convert with fixed shapes")
        return shape

    # -- constants

    def _argument(self, argument: Message) -> Any:
        found = [self._binding(b) for b in argument.arguments]
        return found[0] if len(found) == 1 else found

    def _binding(self, binding: Message) -> Any:
        if binding.value is not None:
            return self._literal(binding.value, "literal")
        if binding.name not in self.env:
            raise ImportError_(f"{self.path}: {binding.name!r} is read before anything makes it")
        return self.env[binding.name]

    def _constant(self, operation: Message) -> Value:
        value = operation.attributes.get("val")
        if value is None:
            raise self.low.fail("a constant without a value")
        made: Value = self._literal(value, operation.outputs[0].name)
        return made

    def _literal(self, value: Message, name: str) -> Any:
        kind = value.type
        if kind is None or kind.tensor is None:
            return None
        data_type = kind.tensor.data_type
        if data_type == 2:
            return self._strings(value, name)
        shape, format = self.type_of(kind, name)
        if shape is None:
            raise self.low.fail("a constant of unknown shape")
        elements = product(shape)
        data = self._numbers(value, shape, data_type) if isinstance(elements, int) and elements <= 4096 else None
        constant = not is_float(format) or (data is not None and elements == 1)
        leaf = self.low.weight(name, shape, format, part="constant" if constant else None, data=data)
        bits = _BITS.get(data_type, 0) or {"f16": 16, "bf16": 16, "int16": 16, "f64": 64, "int64": 64}.get(format, 32)
        if value.has("blob") or elements != 1:
            size = -(-int(elements) * bits // 8) if isinstance(elements, int) else 0
            self.stored[id(leaf)] = (leaf, size, not constant)
        return leaf

    def _strings(self, value: Message, name: str) -> Value | None:
        tensor = value.immediate.tensor if value.immediate is not None else None
        texts = tensor.strings.values if tensor is not None and tensor.strings is not None else []
        data = np.empty(len(texts), dtype=object)
        data[:] = texts
        return Value(name, (len(texts),), "uint8", data=data)

    def _numbers(self, value: Message, shape: Sequence[Size], data_type: int) -> Any:
        tensor = value.immediate.tensor if value.immediate is not None else None
        if tensor is None:
            return None
        sizes = [int(s) for s in shape if isinstance(s, int)]
        count = int(np.prod(sizes, dtype=np.int64)) if sizes else 1
        for name in ("floats", "ints", "bools", "longs", "doubles"):
            part = getattr(tensor, name)
            if part is not None and len(part.values) == count:
                return array(np.array(part.values).reshape(sizes))
        raw = tensor.bytes.values if tensor.bytes is not None else b""
        code = {10: "<f2", 21: "i1", 31: "u1", 22: "<i2", 32: "<u2", 11: "<f4", 23: "<i4"}.get(data_type)
        if code is not None and len(raw) == count * np.dtype(code).itemsize:
            return array(np.frombuffer(raw, code).reshape(sizes))
        return None

    def compressed(self, op: Op, format: str, shape: Sequence[Size], *parts: str) -> Value:
        """One weight in its stored form; the tensors it is made of are counted inside it."""
        size = 0
        for name in parts:
            value = op.get(name)
            if value is not None and id(value) in self.stored:
                size += self.stored.pop(id(value))[1]
        name = op.outputs[0].name
        weight = self.low.weight(name, shape, format)
        if len(shape) > 1 and weight.part in ("bias", "norm"):
            weight.part = "other"
        self.stored[id(weight)] = (weight, size, True)
        return weight


# ---- compressed weights


@rule("constexpr_lut_to_dense")
def _lut(c: _Program, op: Op) -> Value:
    """Indices into look-up tables. iOS16: flat indices and a shape; iOS18: tables [groups..., 2^bits, vector]."""
    lut = op[("lut")]
    given = op.ints("shape")
    if given is not None:
        entries = lut.elements
        bits = _log2(entries)
        return c.compressed(op, f"pal{bits}", given, "indices", "lut")
    indices = op["indices"]
    vector = lut.shape[-1] if isinstance(lut.shape[-1], int) else 1
    bits = _log2(lut.shape[-2])
    shape = c.declared(op) or indices.shape
    groups = product(lut.shape[:-2])
    suffix = _group_suffix(shape, groups)
    name = f"pal{bits}{suffix}" + (f"-v{vector}" if vector > 1 else "")
    return c.compressed(op, name, shape, "indices", "lut")


def _log2(entries: Size) -> int:
    bits = max(int(entries).bit_length() - 1, 1) if isinstance(entries, int) else 4
    return bits if bits in (1, 2, 3, 4, 6, 8) else 8


def _group_suffix(shape: Sequence[Size], groups: Size) -> str:
    rows = shape[0] if shape else 1
    if not isinstance(groups, int) or not isinstance(rows, int) or groups <= 1:
        return ""
    return "-channel" if groups >= rows else f"-g{rows // groups}"


@rule("constexpr_blockwise_shift_scale")
def _blockwise(c: _Program, op: Op) -> Value:
    data, scale = op["data"], op["scale"]
    bits = {"int4": 4, "uint4": 4, "int2": 2, "int3": 3, "int6": 6, "int1": 1}.get(data.format, 8)
    if data.producer is None and data.format.startswith(("pal", "sparse")):  # a palette whose table is scaled again
        return c.compressed(op, data.format, data.shape, "data", "scale", "offset")
    blocks = [a // b for a, b in zip(data.shape, scale.shape) if isinstance(a, int) and isinstance(b, int) and b]
    inner = [b for b in blocks[1:] if b > 1]
    grouped = any(isinstance(s, int) and s > 1 for s in scale.shape[1:])
    if grouped and inner and bits in (2, 3, 4, 8):
        format = f"int{bits}-b{max(inner)}"
    elif scale.elements == 1:
        format = f"int{bits}"
    else:
        format = f"int{bits}-channel" if bits in (2, 3, 4, 6, 8) else f"int{bits}"
    return c.compressed(op, format, data.shape, "data", "scale", "offset")


@rule("constexpr_affine_dequantize")
def _affine(c: _Program, op: Op) -> Value:
    data, scale = op["quantized_data"], op.get("scale")
    channel = scale is not None and scale.elements != 1
    format = "int8-channel" if channel else "int8"
    return c.compressed(op, format, data.shape, "quantized_data", "scale", "zero_point")


@rule("constexpr_sparse_to_dense")
def _sparse(c: _Program, op: Op) -> Value:
    values = op["nonzero_data"]
    mask = op["mask"]
    shape = op.ints("shape") or c.declared(op) or mask.shape
    if values.format.startswith(("pal", "int")):
        return c.compressed(op, values.format, shape, "nonzero_data", "mask")
    total, kept = product(shape), values.elements
    share = 1 - kept / total if isinstance(total, int) and isinstance(kept, int) and total else 0.5
    return c.compressed(op, f"sparse{min(max(round(100 * share), 1), 99)}-f16", shape, "nonzero_data", "mask")


@rule("constexpr_lut_to_sparse")
def _lut_sparse(c: _Program, op: Op) -> tuple[Value, Value]:
    """Palettized survivors of pruning: (mask, indices) in, (mask, values) out."""
    lut, values = op["lut"], op["indices_nonzero_data"]
    bits = _log2(lut.shape[-2] if lut.ndim >= 2 else lut.elements)
    mask = op["indices_mask"]
    return mask, c.compressed(op, f"pal{bits}", values.shape, "indices_nonzero_data", "lut")


@rule("constexpr_sparse_blockwise_shift_scale")
def _sparse_blockwise(c: _Program, op: Op) -> tuple[Value, Value]:
    values = op["nonzero_data"]
    bits = 4 if values.format in ("int4", "uint4") else 8
    kept = values.format if values.format.startswith("pal") else f"int{bits}-channel"
    return op["data_mask"], c.compressed(op, kept, values.shape, "nonzero_data", "scale", "offset")


@rule("constexpr_cast")
def _constexpr_cast(c: _Program, op: Op) -> Value:
    source: Value | None = op.get("source_val")
    if source is None:
        raise c.low.fail("a constexpr_cast without a source")
    return c.low.cast(source, c.type_of(op.outputs[0].type, "cast")[1])


# ---- elementwise

_UNARY = {
    "abs": "abs", "acos": "acos", "asin": "asin", "atan": "atan", "atanh": "atan", "ceil": "ceil", "cos": "cos",
    "cosh": "cosh", "erf": "erf", "exp": "exp", "exp2": "exp", "floor": "floor", "log": "log", "logical_not": "not",
    "round": "round", "rsqrt": "rsqrt", "inverse": "reciprocal", "sigmoid": "sigmoid", "sign": "sign", "silu": "silu",
    "sin": "sin", "sinh": "sinh", "sqrt": "sqrt", "square": "square", "tan": "tan", "tanh": "tanh", "relu": "relu",
    "relu6": "relu6", "softplus": "softplus", "softsign": "softsign", "leaky_relu": "leaky_relu", "elu": "elu",
    "sigmoid_hard": "hardsigmoid", "scaled_tanh": "tanh", "thresholded_relu": "relu", "threshold": "clamp",
    "linear_activation": "scale", "clamped_relu": "clamp", "prelu": "prelu", "softplus_parametric": "softplus",
}  # fmt: skip
_BINARY = {
    "add": "add", "sub": "sub", "mul": "mul", "real_div": "div", "floor_div": "floordiv", "pow": "pow", "mod": "mod",
    "maximum": "max", "minimum": "min", "equal": "equal", "not_equal": "not_equal", "less": "less",
    "less_equal": "less_equal", "greater": "greater", "greater_equal": "greater_equal", "logical_and": "and",
    "logical_or": "or", "logical_xor": "xor",
}  # fmt: skip


def _unary_rule(fn: str) -> Rule:
    return lambda c, op: c.low.elementwise(fn, op["x"])


def _binary_rule(fn: str) -> Rule:
    return lambda c, op: c.low.elementwise(fn, op["x"], op["y"])


for _name, _fn in _UNARY.items():
    _RULES[_name] = _unary_rule(_fn)
for _name, _fn in _BINARY.items():
    _RULES[_name] = _binary_rule(_fn)


@rule("gelu")
def _gelu(c: _Program, op: Op) -> Value:
    fn = "gelu_tanh" if op.text("mode") == "TANH_APPROXIMATION" else "gelu"
    return c.low.elementwise("quick_gelu" if op.text("mode") == "SIGMOID_APPROXIMATION" else fn, op["x"])


@rule("clip")
def _clip(c: _Program, op: Op) -> Value:
    high = op.real("beta", float("inf"))
    return c.low.clamp(op["x"], op.real("alpha", float("-inf")), None if high > 1e30 else high)


@rule("select")
def _select(c: _Program, op: Op) -> Value:
    return c.low.elementwise("where", op["cond"], op["a"], op["b"])


@rule("cast")
def _cast(c: _Program, op: Op) -> Value:
    return c.low.cast(op["x"], _CASTS.get(op.text("dtype"), "f32"))


@rule("identity")
def _identity(c: _Program, op: Op) -> Value:
    return op["x"]


@rule("quantize", "dequantize")
def _quantize(c: _Program, op: Op) -> Value:
    x = op["input"]
    format = c.type_of(op.outputs[0].type, "y")[1]
    return c.low.one("elementwise", [x], x.shape, format, fn=op.type)


# ---- shapes and constants


@rule("shape")
def _shape(c: _Program, op: Op) -> Value:
    return c.low.constant(array(list(op["x"].shape)), "int32")


@rule("fill", "fill_like", "random_normal", "random_uniform", "random_bernoulli", "random_categorical")
def _fill(c: _Program, op: Op) -> Value:
    shape = c.declared(op)
    if shape is None:
        sizes = op.literal("shape")
        shape = tuple(sizes) if sizes is not None else c.need_shape(op, "the shape")
    fn = "random" if op.type.startswith("random") else "constant"
    return c.low.emit("fill", [], [shape], [c.type_of(op.outputs[0].type, "fill")[1]], fn=fn)[0]


@rule("range_1d")
def _range(c: _Program, op: Op) -> Value:
    bounds = [op.literal(n) for n in ("start", "end", "step")]
    if all(b is not None for b in bounds):
        start, end, step = (b[0] for b in bounds if b is not None)
        if all(isinstance(v, (int, float)) for v in (start, end, step)) and step:
            count = max(int(-(-(end - start) // step)), 0)
            if count <= 4096:
                return c.low.constant(array([start + step * i for i in range(count)]), "int32")
        length = end - start
        return c.low.emit("fill", [], [[length]], ["int32"], fn="arange")[0]
    return c.low.emit("fill", [], [c.need_shape(op, "the range")], ["int32"], fn="arange")[0]


# ---- layout


@rule("reshape")
def _reshape(c: _Program, op: Op) -> Value:
    declared = c.declared(op)
    if declared is not None:
        return c.low.reshape(op["x"], declared)
    wanted = op.literal("shape")
    if wanted is None:
        raise c.low.fail("the target shape is computed at run time; convert with fixed shapes")
    return c.low.reshape(op["x"], [op["x"].shape[i] if s == 0 else s for i, s in enumerate(wanted)])


@rule("reshape_like")
def _reshape_like(c: _Program, op: Op) -> Value:
    return c.low.reshape(op["x"], c.need_shape(op, "the shape"))


@rule("transpose")
def _transpose(c: _Program, op: Op) -> Value:
    return c.low.transpose(op["x"], op.ints("perm") or [])


@rule("expand_dims")
def _expand_dims(c: _Program, op: Op) -> Value:
    return c.low.unsqueeze(op["x"], op.ints("axes") or [0])


@rule("squeeze")
def _squeeze(c: _Program, op: Op) -> Value:
    return c.low.squeeze(op["x"], op.ints("axes"))


@rule("flatten2d")
def _flatten(c: _Program, op: Op) -> Value:
    axis = op.int("axis", 1)
    x = op["x"]
    return c.low.reshape(x, [product(x.shape[:axis]), product(x.shape[axis:])])


@rule("concat")
def _concat(c: _Program, op: Op) -> Value:
    return c.low.concat(op.values("values"), op.int("axis", 0))


@rule("stack")
def _stack(c: _Program, op: Op) -> Value:
    values = op.values("values")
    axis = op.int("axis", 0) % (values[0].ndim + 1)
    return c.low.concat([c.low.unsqueeze(v, [axis]) for v in values], axis)


@rule("split")
def _split(c: _Program, op: Op) -> tuple[Value, ...]:
    axis = c.low.axis(op["x"], op.int("axis", 0))
    sizes: list[Size] = list(op.ints("split_sizes") or [])
    if not sizes:
        count = max(op.int("num_splits", len(op.outputs)), 1)
        sizes = [c.low.divide(op["x"].shape[axis], count)] * count
    return c.low.split(op["x"], axis, sizes)


@rule("slice_by_index")
def _slice(c: _Program, op: Op) -> Value:
    x = op["x"]
    begin, end = op.literal("begin"), op.literal("end")
    if begin is None or end is None or len(begin) != x.ndim or len(end) != x.ndim:
        return c.low.one("move", [x], c.need_shape(op, "the slice"), fn="slice")
    stride = op.ints("stride") or [1] * x.ndim
    masks = [op.ints(n) or [0] * x.ndim for n in ("begin_mask", "end_mask", "squeeze_mask")]
    gone = [i for i in range(x.ndim) if masks[2][i]]
    for i in range(x.ndim):
        size = x.shape[i]
        if i in gone:
            stop: Size = size if begin[i] == -1 else begin[i] + 1
            x = c.low.slice(x, i, begin[i], stop)
        elif stride[i] > 0:
            x = c.low.slice(x, i, 0 if masks[0][i] else begin[i], size if masks[1][i] else end[i], stride[i])
        else:
            x = c.low.one("move", [x], x.shape, fn="flip", axis=i)
    return c.low.squeeze(x, gone) if gone else x


@rule("slice_by_size")
def _slice_by_size(c: _Program, op: Op) -> Value:
    x, begin, size = op["x"], op.literal("begin"), op.ints("size")
    if begin is None or size is None:
        return c.low.one("move", [x], c.need_shape(op, "the slice"), fn="slice")
    for i, (start, count) in enumerate(zip(begin, size)):
        x = c.low.slice(x, i, start, x.shape[i] if count == -1 else start + count)
    return x


@rule("slice_update")
def _slice_update(c: _Program, op: Op) -> Value:
    x, update = op["x"], op["update"]
    if x.ndim == update.ndim:
        return c.low.one("update", [x, update], x.shape)
    return c.low.one("move", [x, update], x.shape, fn="scatter")


@rule("read_state")
def _read_state(c: _Program, op: Op) -> Value:
    return op["input"]


@rule("coreml_update_state")
def _update_state(c: _Program, op: Op) -> Value:
    return op["value"]


@rule("pad")
def _pad(c: _Program, op: Op) -> Value:
    x, amounts = op["x"], op.ints("pad")
    if amounts is None or min(amounts, default=0) < 0 or len(amounts) > 2 * x.ndim:
        return c.low.one("move", [x], c.need_shape(op, "the padding"), fn="pad")
    pairs = [(0, 0)] * (x.ndim - len(amounts) // 2) + list(zip(amounts[::2], amounts[1::2]))
    return c.low.pad(x, [b for b, _ in pairs], [a for _, a in pairs])


@rule("tile")
def _tile(c: _Program, op: Op) -> Value:
    x, reps = op["x"], op.literal("reps")
    if reps is None:
        return c.low.one("move", [x], c.need_shape(op, "the repeats"), fn="tile")
    shape = [s * r for s, r in zip(x.shape, reps)]
    if all(r == 1 or s == 1 for s, r in zip(x.shape, reps)):
        return c.low.expand(x, shape)
    return c.low.one("move", [x], shape, fn="tile")


@rule("gather")
def _gather(c: _Program, op: Op) -> Value:
    if op.int("batch_dims", 0):
        return c.low.one("move", [op["x"], op["indices"]], c.need_shape(op, "the gather"), fn="gather")
    return c.low.take(op["x"], op["indices"], op.int("axis", 0))


@rule("gather_along_axis", "gather_nd", "one_hot", "non_zero", "scatter", "scatter_along_axis", "scatter_nd", "reverse",
      "reverse_sequence", "band_part", "sliding_windows", "space_to_batch", "batch_to_space", "crop", "argsort",
      "non_maximum_suppression", "classify", "complex_stft", "complex_fft", "complex_rfft", "complex_irfft", "complex_abs",
      "complex", "complex_real", "complex_imag", "list_gather")  # fmt: skip
def _move(c: _Program, op: Op) -> list[Value]:
    fn = {"gather_along_axis": "gather", "gather_nd": "gather", "reverse": "flip"}.get(op.type, op.type.split("_")[0])
    tensors = [
        v
        for k, v in op.operands.items()
        if isinstance(v, Value)
        and k in ("x", "data", "indices", "updates", "boxes", "scores", "input", "real_data", "imag_data")
    ]
    made = []
    for index, declared in enumerate(op.outputs):
        shape, format = self_type(c, declared)
        if shape is None:
            shape = (
                tensors[0].shape
                if op.type
                in (
                    "reverse",
                    "band_part",
                    "scatter",
                    "scatter_along_axis",
                    "scatter_nd",
                    "argsort",
                    "reverse_sequence",
                )
                else c.need_shape(op, "the result", index)
            )
        made.append(c.low.one("move", tensors, shape, format, fn=fn))
    return made


def self_type(c: _Program, declared: Message) -> tuple[tuple[Size, ...] | None, str]:
    return c.type_of(declared.type, declared.name)


@rule("pixel_shuffle", "pixel_unshuffle", "depth_to_space", "space_to_depth")
def _shuffle(c: _Program, op: Op) -> Value:
    x = op["x"]
    n, ch, h, w = x.shape
    r = op.int("upscale_factor", op.int("downscale_factor", op.int("block_size", 1)))
    if op.type in ("pixel_shuffle", "depth_to_space"):
        k = c.low.divide(ch, r * r)
        y = c.low.reshape(x, [n, k, r, r, h, w])
        return c.low.reshape(c.low.transpose(y, [0, 1, 4, 2, 5, 3]), [n, k, h * r, w * r])
    y = c.low.reshape(x, [n, ch, c.low.divide(h, r), r, c.low.divide(w, r), r])
    return c.low.reshape(
        c.low.transpose(y, [0, 1, 3, 5, 2, 4]), [n, ch * (r * r), c.low.divide(h, r), c.low.divide(w, r)]
    )


# ---- contractions


@rule("linear")
def _linear(c: _Program, op: Op) -> Value:
    return c.low.linear(op["x"], op["weight"], _bias(op))


def _bias(op: Op) -> Value | None:
    """A bias; converters put zeros there when the source had none, which stay a bias of the file."""
    return op.get("bias")


@rule("matmul")
def _matmul(c: _Program, op: Op) -> Value:
    return c.low.matmul(op["x"], op["y"], transpose_a=op.flag("transpose_x"), transpose_b=op.flag("transpose_y"))


@rule("einsum")
def _einsum(c: _Program, op: Op) -> Value:
    from orchard.workloads.importers.torch_export import contract

    return contract(c.low, op.text("equation"), op.values("values"), c.need_shape(op, "the einsum"))


def _window(
    c: _Program, op: Op, x: Value, taps: Sequence[Size], d: int
) -> tuple[list[int], list[int], list[tuple[int, int]]]:
    stride, dilation = op.ints("strides") or [1] * d, op.ints("dilations") or [1] * d
    kind = op.text("pad_type", "valid")
    listed = op.ints("pad") or [0] * (2 * d)
    pads = list(zip(listed[::2], listed[1::2])) if kind == "custom" else [(0, 0)] * d
    if kind.startswith("same"):
        pads = []
        for size, tap, st, di in zip(x.shape[-d:], taps, stride, dilation):
            span = (tap - 1) * di + 1
            total = (
                max((-(-size // st) - 1) * st + span - size, 0)
                if isinstance(size, int) and isinstance(span, int)
                else 0
            )
            pads.append((total // 2, total - total // 2))
    return stride, dilation, pads


@rule("conv", "conv_quantized")
def _conv(c: _Program, op: Op) -> Value:
    x, w = op["x"], op["weight"]
    stride, dilation, pads = _window(c, op, x, w.shape[2:], w.ndim - 2)
    return c.low.conv(x, w, _bias(op), stride=stride, pad=pads, dilation=dilation, groups=op.int("groups", 1))


@rule("conv_transpose")
def _conv_transpose(c: _Program, op: Op) -> Value:
    x, w = op["x"], op["weight"]
    d = w.ndim - 2
    stride, dilation, pads = _window(c, op, x, w.shape[2:], d)
    extra = [0] * d
    declared = c.declared(op)
    if declared is not None and len(stride) == len(dilation) == len(pads) == d:
        full = [(s - 1) * st + (t - 1) * di + 1 for s, st, t, di in zip(x.shape[2:], stride, w.shape[2:], dilation)]
        extra = [
            o - (f - p[0] - p[1]) if isinstance(f, int) and isinstance(o, int) else 0
            for o, f, p in zip(declared[2:], full, pads)
        ]
    return c.low.conv_transpose(
        x, w, _bias(op), stride=stride, pad=pads, dilation=dilation, output_pad=extra, groups=op.int("groups", 1)
    )


@rule("scaled_dot_product_attention")
def _sdpa(c: _Program, op: Op) -> Value:
    q = op["query"]
    width = q.shape[-1]
    scale = float(width) ** -0.5 if isinstance(width, int) else None
    return c.low.attention(q, op["key"], op["value"], op.get("attn_mask"), scale=scale)


# ---- norms, softmax, reductions


@rule("layer_norm")
def _layer_norm(c: _Program, op: Op) -> Value:
    x = op["x"]
    axes = sorted(c.low.axis(x, a) for a in op.ints("axes") or [-1])
    attrs: dict[str, Any] = {} if axes == [x.ndim - 1] else {"axes": tuple(axes)}
    return c.low.norm("layernorm", x, op.get("gamma"), op.get("beta"), **attrs)


@rule("batch_norm")
def _batch_norm(c: _Program, op: Op) -> Value:
    for name in ("mean", "variance"):
        statistics = op.get(name)
        if statistics is not None and id(statistics) in c.stored:
            value, size, _ = c.stored[id(statistics)]
            statistics.part = "constant"
            c.stored[id(statistics)] = (value, size, False)
    gamma = op.get("gamma") or op["variance"]
    return c.low.norm("batchnorm", op["x"], gamma, op.get("beta"), op["mean"], op["variance"])


@rule("instance_norm", "l2_norm", "local_response_norm")
def _norm(c: _Program, op: Op) -> Value:
    fn = {"instance_norm": "instancenorm", "l2_norm": "l2norm"}.get(op.type, "lrn")
    return c.low.norm(fn, op["x"], op.get("gamma"), op.get("beta"))


@rule("softmax")
def _softmax(c: _Program, op: Op) -> Value:
    return c.low.softmax(op["x"], op.int("axis", -1))


@rule(
    *(
        f"reduce_{n}"
        for n in ("mean", "sum", "max", "min", "prod", "l1_norm", "l2_norm", "log_sum", "log_sum_exp", "sum_square")
    )
)
def _reduce(c: _Program, op: Op) -> Value:
    fn = {"log_sum_exp": "logsumexp", "l2_norm": "l2", "l1_norm": "l1"}.get(op.type[7:], op.type[7:])
    return c.low.reduce(fn, op["x"], op.ints("axes"), op.flag("keep_dims"))


@rule("reduce_argmax", "reduce_argmin")
def _argmax(c: _Program, op: Op) -> Value:
    return c.low.reduce(op.type[7:], op["x"], [op.int("axis", -1)], op.flag("keep_dims"), "int32")


@rule("cumsum")
def _cumsum(c: _Program, op: Op) -> Value:
    return c.low.one("reduce", [op["x"]], op["x"].shape, fn="cumsum")


@rule("topk")
def _topk(c: _Program, op: Op) -> tuple[Value, ...]:
    x, k = op["x"], op.int("k", 1)
    axis = c.low.axis(x, op.int("axis", -1))
    shape = [k if i == axis else s for i, s in enumerate(x.shape)]
    kind: dict[str, Any] = {"k": k} if axis == x.ndim - 1 else {"fn": "sort"}
    return c.low.emit("topk" if "k" in kind else "move", [x], [shape, shape], [x.format, "int32"], **kind)


# ---- pooling, resizing, recurrence


@rule("max_pool", "avg_pool", "l2_pool")
def _pool(c: _Program, op: Op) -> Value:
    x, kernel = op["x"], op.ints("kernel_sizes") or []
    stride, dilation, pads = _window(c, op, x, kernel, len(kernel))
    fn = "max" if op.type == "max_pool" else "avg"
    return c.low.pool(fn, x, kernel, stride, pads, dilation, ceil=op.flag("ceil_mode"))


@rule("upsample_nearest_neighbor", "upsample_bilinear", "resize_nearest_neighbor", "resize_bilinear", "resize", "resample",
      "crop_resize", "affine")  # fmt: skip
def _resize(c: _Program, op: Op) -> Value:
    x = op["x"]
    fn = "nearest" if "nearest" in op.type else "bilinear"
    shape = c.declared(op)
    if shape is None:
        factors = [op.real("scale_factor_height", 1.0), op.real("scale_factor_width", 1.0)]
        if not op.type.startswith("upsample") or any(f != int(f) for f in factors):
            shape = c.need_shape(op, "the target size")
        else:
            shape = (*x.shape[:-2], x.shape[-2] * int(factors[0]), x.shape[-1] * int(factors[1]))
    return c.low.resize(x, shape, fn)


@rule("lstm", "gru", "rnn")
def _recurrent(c: _Program, op: Op) -> list[Value]:
    pairs = [(op["weight_ih"], op["weight_hh"])]
    biases = [b for b in (op.get("bias"), op.get("bias_back")) if b is not None]
    if op.get("weight_ih_back") is not None:
        pairs.append((op["weight_ih_back"], op["weight_hh_back"]))
    hidden = pairs[0][1].shape[-1]
    if not isinstance(hidden, int) or op["x"].ndim != 3:
        raise c.low.fail(f"a recurrent layer on {show(op['x'].shape)}")
    y, last = c.low.recurrent(op.type, op["x"], pairs, biases, hidden)
    b, width = op["x"].shape[1], hidden * len(pairs)
    if not op.flag("output_sequence"):
        y = c.low.slice(y, 0, -1, y.shape[0])
    state = c.low.reshape(last, [b, width])
    return [y, state, state]
