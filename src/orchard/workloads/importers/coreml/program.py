"""Walks an ML program: types, constants, operations."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from orchard.ir import Size, product, symbol
from orchard.workloads.importers.coreml.schema import BITS, TYPES
from orchard.workloads.importers.errors import ImportError_
from orchard.workloads.importers.lowering import Lowering, Value, array, clean_symbol, is_float, show
from orchard.workloads.importers.protowire import Message
from orchard.workloads.importers.weights import WeightCount

Rule = Callable[["Program", "Op"], Any]
R = TypeVar("R", bound=Rule)
RULES: dict[str, Rule] = {}


def rule(*names: str) -> Callable[[R], R]:
    def register(function: R) -> R:
        for name in names:
            RULES[name] = function
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
class Program:
    """One ML program on its way down. `env` maps MIL names to values."""

    model: Message
    low: Lowering
    path: Path
    env: dict[str, Any] = field(default_factory=dict)
    stored: dict[int, tuple[Value, int, bool]] = field(default_factory=dict)  # id -> value, bytes, parameter
    states: list[str] = field(default_factory=list)
    written: dict[str, Value] = field(default_factory=dict)  # last value of each state by its name
    blobs: dict[tuple[str, int, str, tuple[Size, ...]], Value] = field(default_factory=dict)  # weights of the weight file

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
        self.low.check_known(types, {*RULES, "const"})
        for declared in function.inputs:
            self.env[declared.name] = self._input(declared)
        for operation in block.operations:
            self._operation(operation)
        missing = [o for o in block.outputs if not isinstance(self.env.get(o), Value)]
        if missing:
            raise ImportError_(f"{self.path}: output {missing[0]!r} is made by no operation")
        made = [self.env[o] for o in block.outputs]
        return [*made, *(v for v in self.written.values() if all(v is not o for o in made))]

    def write_state(self, state: Value, value: Value) -> None:
        """Later reads of the state see `value`; what is written last is kept like an output."""
        for name in self.states:
            if self.env[name] is state:
                self.env[name] = self.written[name] = value

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
            self.states.append(declared.name)
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
        return (tuple(sizes) if known else None), TYPES.get(kind.tensor.data_type, "f32")

    def _operation(self, operation: Message) -> None:
        with self.low.within("", self._label(operation)):
            if not operation.outputs and operation.type != "write_state":
                raise self.low.fail("an operation without a result")
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
            handler = RULES.get(operation.type)
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

    def _argument(self, argument: Message | None) -> Any:
        if argument is None:
            raise self.low.fail("an operand without a value")
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
        if value.blob is not None:  # one place of the weight file is one weight, however often it is named
            known = self.blobs.get((value.blob.file, value.blob.offset, format, shape))
            if known is not None:
                return known
        leaf = self.low.weight(name, shape, format, part="constant" if constant else None, data=data)
        bits = BITS.get(data_type, 0) or {"f16": 16, "bf16": 16, "int16": 16, "f64": 64, "int64": 64}.get(format, 32)
        if value.has("blob") or elements != 1:
            size = -(-int(elements) * bits // 8) if isinstance(elements, int) else 0
            self.stored[id(leaf)] = (leaf, size, not constant)
        if value.blob is not None:
            self.blobs[value.blob.file, value.blob.offset, format, shape] = leaf
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
        code = {10: "<f2", 21: "i1", 31: "u1", 22: "<i2", 32: "<u2", 11: "<f4", 23: "<i4", 33: "<u4",
            12: "<f8", 24: "<i8", 34: "<u8"}.get(data_type)
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
