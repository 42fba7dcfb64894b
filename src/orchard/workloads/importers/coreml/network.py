"""Walks a network in the old Core ML format (NeuralNetwork.proto): inputs, weights, layers in order.

Two layouts exist. With the rank-5 mapping (specification versions 1 to 3, and later files that say so) a feature of 1 or 3
axes is [sequence, batch, C, H, W]; sequence and batch are 1 here and the value is [1, C, H, W]. With the exact mapping
values have the axes their layers say. A layer that acts on channels or pixels counts axes from the end in both.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from orchard.ir import product
from orchard.workloads.importers.coreml.compressed import log2
from orchard.workloads.importers.coreml.flexible import flexible
from orchard.workloads.importers.coreml.network_schema import LAYER_TYPES
from orchard.workloads.importers.errors import ImportError_
from orchard.workloads.importers.lowering import Lowering, Value, array, show
from orchard.workloads.importers.protowire import Message
from orchard.workloads.importers.weights import WeightCount

Rule = Callable[["Network", "Layer"], Any]
R = TypeVar("R", bound=Rule)
RULES: dict[str, Rule] = {}
_ARRAY_TYPES = {65568: "f32", 65600: "f64", 131104: "int32", 65552: "f16", 131080: "int8"}
_LOOPS = ("loop", "branch", "loopBreak", "loopContinue")


def rule(*names: str) -> Callable[[R], R]:
    def register(function: R) -> R:
        for name in names:
            RULES[name] = function
        return function

    return register


@dataclass(slots=True)
class Layer:
    """One layer with its operands resolved. `dims`: declared shapes of the outputs, where the file has them."""

    type: str
    name: str
    params: Message
    inputs: list[Value]
    outputs: list[str]
    dims: list[tuple[int, ...]]

    @property
    def x(self) -> Value:
        if not self.inputs:
            raise ImportError_(f"layer {self.name!r} of a Core ML network has no input")
        return self.inputs[0]


@dataclass
class Network:
    """One network on its way down. `env` maps blob names to values."""

    network: Message
    description: Message
    low: Lowering
    env: dict[str, Value] = field(default_factory=dict)
    weights: WeightCount = field(default_factory=WeightCount)

    @property
    def exact(self) -> bool:
        return bool(self.network.array_mapping == 1)

    def run(self) -> list[Value]:
        types = Counter(_type_of(layer) for layer in self.network.layers)
        loops = sorted(t for t in types if t in _LOOPS)
        if loops:
            raise self.low.fail(
                f"the network holds control flow ({', '.join(loops)}); its work depends on run-time contents, so there is "
                f"no one graph. Convert the loop body by itself, or unroll it"
            )
        self.low.check_known(types, RULES)
        for feature in self.description.input:
            self.env[feature.name] = self._input(feature)
        for layer in self.network.layers:
            self._layer(layer)
        return self._outputs()

    def _outputs(self) -> list[Value]:
        named = [self.env[f.name] for f in self.description.output if f.name in self.env]
        if named:
            return named
        read = {name for layer in self.network.layers for name in layer.inputs}
        return [self.env[n] for layer in self.network.layers for n in layer.outputs if n not in read and n in self.env]

    def _input(self, feature: Message) -> Value:
        found = flexible(feature)
        if found is None:
            raise self.low.fail(f"input {feature.name!r} is neither an image nor an array")
        shape = found.sizes
        if feature.type.image is not None:
            rank5 = self.exact and self.network.image_mapping == 0
            return self.low.input(feature.name, [1, *shape] if rank5 else shape, "f32")
        format = _ARRAY_TYPES.get(feature.type.array.data_type, "f32")
        if not self.exact:
            if len(shape) not in (1, 3):
                raise self.low.fail(f"input {feature.name!r} has {len(shape)} axes, expected 1 or 3 in this layout")
            shape = [1, *shape, 1, 1] if len(shape) == 1 else [1, *shape]
        return self.low.input(feature.name, shape, format)

    def _layer(self, message: Message) -> None:
        kind = _type_of(message)
        with self.low.within("", f"{message.name} ({kind})"):
            missing = [n for n in message.inputs if n not in self.env]
            if missing:
                raise self.low.fail(f"reads {missing[0]!r}, which no layer before it makes")
            dims = [tuple(d.sizes) for d in message.output_dims]
            layer = Layer(
                kind, message.name, getattr(message, kind) if kind in LAYER_TYPES else message,
                [self.env[n] for n in message.inputs], list(message.outputs), dims,
            )  # fmt: skip
            handler = RULES.get(kind)
            result = handler(self, layer) if handler is not None else self._assume(layer)
            results = result if isinstance(result, (list, tuple)) else [result]
            for index, (name, value) in enumerate(zip(layer.outputs, results)):
                self._check(layer, index, value)
                self.env[name] = value

    def _check(self, layer: Layer, index: int, value: Value) -> None:
        """Declared sizes must agree with ours where the file declares them in the same number of axes."""
        if not self.exact or index >= len(layer.dims) or len(layer.dims[index]) != value.ndim:
            return
        for ours, theirs in zip(value.shape, layer.dims[index]):
            if isinstance(ours, int) and theirs > 0 and ours != theirs:
                raise self.low.fail(f"computed shape {show(value.shape)}, the file says {show(layer.dims[index])}")

    def _assume(self, layer: Layer) -> list[Value]:
        self.low.warn(f"{layer.type} is assumed to be elementwise, as asked")
        shape = self.low.broadcast(*(v.shape for v in layer.inputs))
        return [self.low.one("elementwise", layer.inputs, shape, fn=layer.type) for _ in layer.outputs]

    # -- weights

    def weight(
        self, layer: Layer, name: str, stored: Message | None, shape: Sequence[int], *, parameter: bool = True
    ) -> Value:
        """A stored tensor in the format it is stored in, counted once. Raises ImportError_ where bytes are missing."""
        if stored is None:
            raise self.low.fail(f"{name} is missing")
        sizes = self.low.checked(shape)
        elements = product(sizes)
        assert isinstance(elements, int)
        format, size, needed = _storage(stored, elements, int(shape[0]) if shape else 1)
        if not needed or size < needed:
            raise self.low.fail(f"{name} holds {size} bytes, its shape {show(shape)} needs {needed or 'some'}")
        value = self.low.weight(
            f"{layer.name}.{name}", sizes, format, part=None if parameter else "constant", data=_numbers(stored, elements, shape)
        )  # fmt: skip
        self.weights.add(value, format, parameter=parameter, size=size)
        return value

    def declared(self, layer: Layer, what: str, index: int = 0) -> tuple[int, ...]:
        """The shape the file declares for an output. Raises ImportError_ where it has none."""
        if index >= len(layer.dims) or not layer.dims[index] or min(layer.dims[index]) < 1:
            raise self.low.fail(
                f"{what} depends on run-time contents, and the file declares no sizes; convert with fixed shapes"
            )
        return layer.dims[index]


def _type_of(layer: Message) -> str:
    return next((name for name in layer.fields if name in LAYER_TYPES), "layer of a later specification")


def _storage(stored: Message, elements: int, rows: int) -> tuple[str, int, int]:
    """Format, bytes in the file (tables and scales too) and bytes the shape needs."""
    for name, width in (("f32", 4), ("f16", 2)):
        if stored.has(name) and len(getattr(stored, name)):
            return name, len(getattr(stored, name)), elements * width
    if stored.has("int8") and len(stored.int8):
        return "int8-channel", len(stored.int8), elements
    raw, how = len(stored.raw), stored.quantization
    bits = how.bits if how is not None else 8
    if how is None or not 1 <= bits <= 8:
        return "f32", 0, 0
    if how.table is not None:
        return f"pal{log2(2**bits)}", raw + len(how.table.entries), -(-elements * bits // 8)
    extra = len(how.linear.scale) + len(how.linear.bias) if how.linear is not None else 0
    channel = how.linear is not None and len(how.linear.scale) > 4
    known = {5: 6, 7: 8, 1: 2}.get(bits, bits)  # the next width that has a name; the true bytes are counted apart
    return f"int{known}{'-channel' if channel else ''}", raw + extra, -(-elements * bits // 8)


def _numbers(stored: Message, elements: int, shape: Sequence[int]) -> Any:
    """Contents of scalars and tiny tensors, so that constants stay constants."""
    if elements > 16 or not stored.has("f32") or len(stored.f32) != 4 * elements:
        return None
    return array(list(struct.unpack(f"<{elements}f", stored.f32)), list(shape))
