"""Values, nodes, and what an import returns; known contents of small tensors and how they fold."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from orchard.ir import Attribute, Expr, Graph, Role, Size, floordiv, product

Data = np.ndarray[Any, Any]
Shape = tuple[Size, ...]
SMALL = 4096
"""Tensors of up to this many elements may carry their contents, for shape arithmetic and scalars."""
MAX_ELEMENTS = 1 << 50
MAX_NDIM = 16


@dataclass(eq=False, slots=True)
class Value:
    """One tensor on the way to the graph. `data` holds known contents (numbers, or sizes over symbols)."""

    name: str
    shape: Shape
    format: str
    role: Role = Role.ACTIVATION
    part: str = ""
    layer: int | None = None
    data: Data | None = None
    producer: Node | None = None

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def elements(self) -> Size:
        return product(self.shape)

    @property
    def scalar(self) -> float | None:
        """The value of a known one-element tensor."""
        if self.data is None or self.data.size != 1:
            return None
        item = self.data.reshape(-1)[0]
        return None if isinstance(item, (Expr, str, bytes)) else float(item)

    def __repr__(self) -> str:
        return f"%{self.name}: {self.format}[{', '.join(map(str, self.shape))}]"


@dataclass(eq=False, slots=True)
class Node:
    """One op on the way to the graph."""

    kind: str
    inputs: list[Value]
    outputs: list[Value]
    attrs: dict[str, Attribute]
    scope: str = ""

    @property
    def fn(self) -> str:
        return str(self.attrs.get("fn", ""))

    @property
    def out(self) -> Value:
        return self.outputs[0]

    def is_(self, kind: str, *fns: str) -> bool:
        return self.kind == kind and (not fns or self.fn in fns)

    def __repr__(self) -> str:
        return f"{self.outputs} = {self.kind}({self.inputs}) {self.attrs}"


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightInfo:
    """Weights as the source stores them, before anything is folded.

    `parameters` counts trainable elements once; `bytes` is what they occupy, tables and scales included; `formats` maps
    each number format to its bytes. Buffers (running means, position ids, masks) are counted apart.
    """

    parameters: int = 0
    bytes: int = 0
    formats: Mapping[str, int] = field(default_factory=dict)
    tensors: int = 0
    buffer_elements: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Imported:
    """What came out of a model file or object."""

    graph: Graph
    name: str
    source_format: str
    weights: WeightInfo
    warnings: tuple[str, ...] = ()
    metadata: Mapping[str, str] = field(default_factory=dict)


FLOATS = ("f64", "f32", "f16", "bf16", "f8_e4m3", "f8_e5m2")
_RANK = {f: i for i, f in enumerate(("bool", "uint8", "int8", "int16", "int32", "int64", "f16", "bf16", "f32", "f64"))}
COMPARISONS = frozenset({"equal", "not_equal", "less", "less_equal", "greater", "greater_equal", "isnan", "isinf"})
LOGIC = frozenset({"and", "or", "not", "xor"})
FOLD: dict[str, Callable[..., Any]] = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "neg": lambda a: a * -1,
    "floordiv": lambda a, b: _floordiv(a, b),
    "div": lambda a, b: a / b if isinstance(a, float) or isinstance(b, float) else _floordiv(a, b),
    "equal": lambda a, b: a == b,
    "less": lambda a, b: _compare(a, b, lambda x, y: x < y),
    "greater": lambda a, b: _compare(a, b, lambda x, y: x > y),
    "less_equal": lambda a, b: _compare(a, b, lambda x, y: x <= y),
    "greater_equal": lambda a, b: _compare(a, b, lambda x, y: x >= y),
    "not": lambda a: not a,
    "and": lambda a, b: bool(a) and bool(b),
    "or": lambda a, b: bool(a) or bool(b),
    "min": lambda a, b: _extreme(a, b, smaller=True),
    "max": lambda a, b: _extreme(a, b, smaller=False),
    "mod": lambda a, b: a % b,
    "abs": abs,
    "sqrt": lambda a: float(a) ** 0.5,
    "pow": lambda a, b: a**b,
    "where": lambda c, a, b: a if c else b,
    "reciprocal": lambda a: 1.0 / a,
    "ceil": lambda a: -(-a // 1),
    "floor": lambda a: a // 1,
    "identity": lambda a: a,
}


def _floordiv(a: Any, b: Any) -> Any:
    if isinstance(a, Expr) or isinstance(b, Expr):
        return floordiv(a, b)
    return a // b


def _compare(a: Any, b: Any, decide: Callable[[Any, Any], bool]) -> bool:
    if isinstance(a, Expr) or isinstance(b, Expr):
        raise NotKnownError
    return decide(a, b)


def _extreme(a: Any, b: Any, *, smaller: bool) -> Any:
    from orchard.ir import maximum, minimum

    if isinstance(a, Expr) or isinstance(b, Expr):
        return minimum(a, b) if smaller else maximum(a, b)
    return min(a, b) if smaller else max(a, b)


class NotKnownError(Exception):
    """Contents that depend on a symbol's value."""


def array(values: Any, shape: Sequence[int] | None = None) -> Data:
    """An object array of Python numbers or sizes (never nested sequences)."""
    flat = list(values) if isinstance(values, (list, tuple)) else None
    if flat is not None:
        result: Data = np.empty(len(flat), dtype=object)
        for index, item in enumerate(flat):
            result[index] = item.item() if isinstance(item, np.generic) else item
    elif isinstance(values, np.ndarray):
        result = np.empty(values.shape, dtype=object)
        result.reshape(-1)[:] = values.reshape(-1).tolist()
    else:
        result = np.empty((), dtype=object)
        result[()] = values
    return result if shape is None else result.reshape(tuple(shape))


def is_float(format: str) -> bool:
    return format.startswith(("f", "bf"))


def clean_name(name: str) -> str:
    """A name the graph's text form can print."""
    text = re.sub(r"[^\w./-]+", "_", name.replace("::", ".").replace(":", "_"), flags=re.ASCII).strip("./-")
    return text[:160] if text and re.match(r"[A-Za-z_0-9]", text) else f"v_{text}"[:160]


def clean_symbol(name: str) -> str:
    """An identifier for a symbolic size."""
    text = re.sub(r"\W+", "_", name, flags=re.ASCII).strip("_")[:60] or "N"
    return text if text.isidentifier() and text.isascii() else f"n_{text}"


def show(shape: Sequence[Size]) -> str:
    return "[" + ", ".join(str(s) for s in shape) + "]"


def promote(inputs: Sequence[Value]) -> str:
    """The wider format of operands; known scalars do not widen, and a compressed weight takes its partner's."""
    tensors = [v for v in inputs if v.scalar is None] or list(inputs)
    plain = [v.format for v in tensors if v.format in _RANK]
    if not plain:
        return "f32"
    floats = [f for f in plain if is_float(f)]
    return max(floats or plain, key=lambda f: _RANK[f])


def cast_data(data: Data, format: str) -> Data:
    """Known contents as Python ints, floats or bools."""

    def convert(item: Any) -> Any:
        if isinstance(item, Expr):
            return item
        if format == "bool":
            return bool(item)
        if is_float(format):
            return float(item)
        return int(item) if item == item and abs(item) != float("inf") else 0

    result: Data = np.empty(data.shape, dtype=object)
    result.reshape(-1)[:] = [convert(i) for i in data.reshape(-1)]
    return result
