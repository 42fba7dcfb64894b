"""What every importer lowers to: values with known shapes, nodes of the IR's kinds, and helpers per kind of op.

An importer walks its source program once and calls one method of `Lowering` per source op. The methods fill in output
shapes (so symbols survive where the source format lost them), follow small integer tensors as data (so `Shape`,
`Gather`,
`Concat` chains end as sizes), and never touch weight contents. `orchard.workloads.importers.canonical` then turns the
nodes into one canonical form, so that the same network from different sources becomes the same graph.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from orchard.ir import Attribute, Expr, Graph, Role, Size, floordiv, product, symbol, symbols_of
from orchard.workloads.importers.errors import ImportError_, UnsupportedOps

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
_COMPARISONS = frozenset({"equal", "not_equal", "less", "less_equal", "greater", "greater_equal", "isnan", "isinf"})
_LOGIC = frozenset({"and", "or", "not", "xor"})
_FOLD: dict[str, Callable[..., Any]] = {
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
        raise _NotKnownError
    return decide(a, b)


def _extreme(a: Any, b: Any, *, smaller: bool) -> Any:
    from orchard.ir import maximum, minimum

    if isinstance(a, Expr) or isinstance(b, Expr):
        return minimum(a, b) if smaller else maximum(a, b)
    return min(a, b) if smaller else max(a, b)


class _NotKnownError(Exception):
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


class Lowering:
    """Collects values and nodes. `where` names the file or object in error sentences."""

    def __init__(self, name: str, where: str, *, assume_elementwise: Collection[str] = ()) -> None:
        self.name = name
        self.where = where
        self.scope = ""
        self.at = ""  # the source op being lowered, for error sentences
        self.nodes: list[Node] = []
        self.leaves: list[Value] = []
        self.warnings: list[str] = []
        self.equal: dict[str, Size] = {}  # symbols found equal to another size
        self.assumed = frozenset(assume_elementwise)
        self._warned: Counter[str] = Counter()

    # ---- errors and notes

    def fail(self, problem: str) -> ImportError_:
        place = f"{self.where}: {self.at}: " if self.at else f"{self.where}: "
        return ImportError_(place + problem)

    def warn(self, text: str) -> None:
        self._warned[text] += 1
        if self._warned[text] == 1:
            self.warnings.append(text)

    def check_known(self, types: Counter[str], known: Collection[str]) -> None:
        """Raise UnsupportedOps for all types that have no rule and are not assumed elementwise."""
        missing = {t: n for t, n in types.items() if t not in known and not self.is_assumed(t)}
        if missing:
            raise UnsupportedOps(self.where, missing)

    def is_assumed(self, op_type: str) -> bool:
        return op_type in self.assumed or op_type.split("::")[-1] in self.assumed

    # ---- leaves

    def input(self, name: str, shape: Sequence[Size], format: str) -> Value:
        return self._leaf(Value(clean_name(name), self.checked(shape), format, Role.INPUT))

    def state(self, name: str, shape: Sequence[Size], format: str) -> Value:
        return self._leaf(Value(clean_name(name), self.checked(shape), format, Role.STATE))

    def weight(
        self, name: str, shape: Sequence[Size], format: str, *, part: str | None = None, data: Data | None = None
    ) -> Value:
        """A stored tensor. `part` "buffer" or "constant" marks what is no parameter."""
        value = Value(clean_name(name), self.checked(shape), format, Role.WEIGHT, data=data)
        value.part = part_of(name, value.shape) if part is None else part
        value.layer = layer_of(name)
        return self._leaf(value)

    def constant(self, data: Any, format: str = "int64", *, name: str = "constant") -> Value:
        """A tensor with known contents."""
        known = data if isinstance(data, np.ndarray) and data.dtype == object else array(data)
        return Value(clean_name(name), known.shape, format, Role.WEIGHT, "constant", data=known)

    def _leaf(self, value: Value) -> Value:
        self.leaves.append(value)
        return value

    def checked(self, shape: Sequence[Size]) -> Shape:
        """`shape` as a tuple of sizes. Raises ImportError_ for negative, absurd or too many axes."""
        sizes: list[Size] = [s if isinstance(s, Expr) else int(s) for s in shape]
        if len(sizes) > MAX_NDIM:
            raise self.fail(f"a tensor with {len(sizes)} axes, expected at most {MAX_NDIM}")
        total = 1
        for size in sizes:
            if isinstance(size, int):
                if size < 0:
                    raise self.fail(f"a tensor of shape {show(sizes)}, expected sizes >= 0")
                total *= max(size, 1)
        if total > MAX_ELEMENTS:
            raise self.fail(f"a tensor of shape {show(sizes)}, more than 2^50 elements")
        return tuple(sizes)

    # ---- nodes

    def emit(
        self,
        kind: str,
        inputs: Sequence[Value],
        shapes: Sequence[Sequence[Size]],
        formats: Sequence[str] | None = None,
        *,
        name: str = "",
        **attrs: Any,
    ) -> tuple[Value, ...]:
        """A node of any kind with explicit output shapes; formats default to that of the first input."""
        base = clean_name(name or str(attrs.get("fn", kind)))
        outputs = [
            Value(
                base if len(shapes) == 1 else f"{base}.{i}",
                self.checked(s),
                formats[i] if formats else inputs[0].format,
            )
            for i, s in enumerate(shapes)
        ]
        node = Node(kind, list(inputs), outputs, dict(attrs), self.scope)
        for output in outputs:
            output.producer = node
        self.nodes.append(node)
        return tuple(outputs)

    def one(
        self, kind: str, inputs: Sequence[Value], shape: Sequence[Size], format: str | None = None, **attrs: Any
    ) -> Value:
        return self.emit(kind, inputs, [shape], [format or inputs[0].format], **attrs)[0]

    # ---- sizes

    def same(self, a: Size, b: Size) -> Size:
        """The common size of two axes that the program says are equal; records `symbol = size` where they differ."""
        a, b = self.resolve(a), self.resolve(b)
        if a == b:
            return a
        for name_side, other in ((a, b), (b, a)):
            if isinstance(name_side, Expr):
                names = name_side.symbols()
                if len(names) == 1 and name_side == symbol(next(iter(names))) and not names & symbols_of(other):
                    self.equal[next(iter(names))] = other
                    return other
        if isinstance(a, Expr) or isinstance(b, Expr):
            return a if isinstance(b, Expr) else b
        raise self.fail(f"sizes {a} and {b} meet, expected them equal")

    def resolve(self, size: Size) -> Size:
        from orchard.ir import substitute

        while isinstance(size, Expr) and self.equal and size.symbols() & self.equal.keys():
            size = substitute(size, self.equal)
        return size

    def broadcast(self, *shapes: Sequence[Size]) -> Shape:
        """NumPy broadcasting over sizes."""
        ndim = max((len(s) for s in shapes), default=0)
        result: list[Size] = []
        for axis in range(ndim):
            found: Size = 1
            for shape in shapes:
                position = axis - (ndim - len(shape))
                size = shape[position] if position >= 0 else 1
                if size == 1 or size == found:
                    continue
                found = size if found == 1 else self.same(found, size)
            result.append(found)
        return tuple(result)

    def axis(self, value: Value, axis: int) -> int:
        """`axis` counted from the front. Raises ImportError_ outside the tensor."""
        if not -max(value.ndim, 1) <= axis < max(value.ndim, 1):
            raise self.fail(f"axis {axis} of a tensor with {value.ndim} axes")
        return axis % max(value.ndim, 1)

    # ---- elementwise

    def elementwise(self, fn: str, *inputs: Value, format: str | None = None, **attrs: Any) -> Value:
        """Broadcasting elementwise op; contents are followed when all inputs are known and small."""
        shape = self.broadcast(*(v.shape for v in inputs))
        if format is None:
            format = "bool" if fn in _COMPARISONS or fn in _LOGIC else _promote(inputs[1:] if fn == "where" else inputs)
        known = self._fold(fn, inputs, format) if not attrs else None
        if known is not None:
            return self.constant(known, format, name=fn)
        return self.one("elementwise", inputs, shape, format, fn=fn, **attrs)

    def _fold(self, fn: str, inputs: Sequence[Value], format: str) -> Data | None:
        operands = [v.data for v in inputs if v.data is not None]
        if fn not in _FOLD or len(operands) != len(inputs):
            return None
        try:
            if int(np.prod(np.broadcast_shapes(*(o.shape for o in operands)))) > SMALL:
                return None
            result = np.frompyfunc(_FOLD[fn], len(operands), 1)(*operands)
        except (_NotKnownError, ZeroDivisionError, ValueError, TypeError, OverflowError, AttributeError):
            return None
        folded = array(result) if not isinstance(result, np.ndarray) else result
        if folded.size > SMALL:
            return None
        return cast_data(folded, format)

    def clamp(self, x: Value, low: float | None, high: float | None) -> Value:
        if low == 0 and high is None:
            return self.elementwise("relu", x)
        if low == 0 and high == 6:
            return self.elementwise("relu6", x)
        attrs: dict[str, Any] = {k: float(v) for k, v in (("low", low), ("high", high)) if v is not None}
        return self.elementwise("clamp", x, format=x.format, **attrs)

    def cast(self, x: Value, format: str) -> Value:
        if x.data is not None and x.role is Role.WEIGHT:
            return self.constant(cast_data(x.data, format), format, name=x.name)
        return x if x.format == format else self.one("move", [x], x.shape, format, fn="cast")

    # ---- layout

    def reshape(self, x: Value, shape: Sequence[Size]) -> Value:
        """`shape` may hold one -1. Raises ImportError_ where the element counts differ."""
        target: list[Size] = list(shape)
        holes = [i for i, s in enumerate(target) if isinstance(s, int) and s == -1]
        if len(holes) > 1:
            raise self.fail(f"reshape to {show(target)}, expected at most one -1")
        if holes:
            rest = product(s for i, s in enumerate(target) if i != holes[0])
            target[holes[0]] = self.divide(x.elements, rest)
        target = [self.resolve(s) for s in target]
        got, want = self.resolve(product(target)), self.resolve(x.elements)
        if got != want:
            if isinstance(got, int) and isinstance(want, int):
                raise self.fail(f"reshape of {show(x.shape)} to {show(target)}: {want} elements against {got}")
            self._unify_product(target, x.shape)
        if x.data is not None and all(isinstance(s, int) for s in target):
            return self.constant(x.data.reshape([int(s) for s in target if isinstance(s, int)]), x.format, name=x.name)
        if tuple(target) == x.shape:
            return x
        return self.one("view", [x], target)

    def divide(self, total: Size, part: Size) -> Size:
        """`total / part`, exact where the polynomials divide."""
        if part == 1:
            return total
        if isinstance(part, int):
            if part == 0:
                return 0
            if isinstance(total, int):
                if total % part:
                    raise self.fail(f"{total} elements do not divide by {part}")
                return total // part
            return floordiv(total, part)
        quotient = divide_exact(total, part)
        return floordiv(total, part) if quotient is None else quotient

    def _unify_product(self, target: list[Size], shape: Sequence[Size]) -> None:
        """A reshape whose symbols differ from the operand's: cancel what is common and equate a single leftover."""
        left = [self.resolve(s) for s in shape]
        right = list(target)
        for size in list(right):
            if size in left:
                left.remove(size)
                right.remove(size)
        a, b = product(left), product(right)
        for one, other in ((b, a), (a, b)):
            if isinstance(one, Expr) and len(one.terms) == 1:
                self.same(one, other)
                break
        for index, size in enumerate(target):
            target[index] = self.resolve(size)

    def transpose(self, x: Value, perm: Sequence[int]) -> Value:
        order = [p % max(x.ndim, 1) for p in perm]
        if sorted(order) != list(range(x.ndim)):
            raise self.fail(f"transpose of {x.ndim} axes by {tuple(perm)}")
        if order == list(range(x.ndim)):
            return x
        shape = [x.shape[p] for p in order]
        if x.data is not None:
            return self.constant(x.data.transpose(order), x.format, name=x.name)
        return self.one("move", [x], shape, fn="transpose", perm=tuple(order))

    def swap(self, x: Value, a: int, b: int) -> Value:
        order = list(range(x.ndim))
        a, b = self.axis(x, a), self.axis(x, b)
        order[a], order[b] = order[b], order[a]
        return self.transpose(x, order)

    def unsqueeze(self, x: Value, axes: Sequence[int]) -> Value:
        ndim = x.ndim + len(axes)
        positions = {a % ndim for a in axes}
        rest = iter(x.shape)
        return self.reshape(x, [1 if i in positions else next(rest) for i in range(ndim)])

    def squeeze(self, x: Value, axes: Sequence[int] | None = None) -> Value:
        if axes is None:
            return self.reshape(x, [s for s in x.shape if s != 1])
        gone = {self.axis(x, a) for a in axes}
        return self.reshape(x, [s for i, s in enumerate(x.shape) if i not in gone])

    def flatten(self, x: Value, start: int, end: int = -1) -> Value:
        if x.ndim == 0:
            return self.reshape(x, [1])
        first, last = self.axis(x, start), self.axis(x, end)
        return self.reshape(x, [*x.shape[:first], product(x.shape[first : last + 1]), *x.shape[last + 1 :]])

    def expand(self, x: Value, shape: Sequence[Size]) -> Value:
        """Broadcast to `shape`; -1 keeps an axis."""
        lead = len(shape) - x.ndim
        wanted = [
            (x.shape[i - lead] if i >= lead else 1) if isinstance(s, int) and s == -1 else s
            for i, s in enumerate(shape)
        ]
        target = self.broadcast(x.shape, wanted)
        if target == x.shape:
            return x
        if x.data is not None and all(isinstance(s, int) for s in target) and product(target) <= SMALL:  # type: ignore[operator]
            return self.constant(np.broadcast_to(x.data, [int(s) for s in target if isinstance(s, int)]), x.format)
        if lead > 0:
            x = self.reshape(x, [*([1] * lead), *x.shape])
        return x if target == x.shape else self.one("move", [x], target, fn="expand")

    def concat(self, inputs: Sequence[Value], axis: int) -> Value:
        if not inputs:
            raise self.fail("concatenation of nothing")
        axis = self.axis(inputs[0], axis)
        inputs = [v for v in inputs if not (v.shape and len(v.shape) == 1 and v.shape[0] == 0)] or list(inputs)
        shape = list(inputs[0].shape)
        for other in inputs[1:]:
            if other.ndim != len(shape):
                raise self.fail(f"concatenation of {show(shape)} and {show(other.shape)}")
            for i in range(len(shape)):
                shape[i] = shape[i] + other.shape[i] if i == axis else self.same(shape[i], other.shape[i])
        if all(v.data is not None for v in inputs) and sum(v.data.size for v in inputs if v.data is not None) <= SMALL:
            data = np.concatenate([v.data for v in inputs if v.data is not None], axis=axis)
            return self.constant(data, inputs[0].format)
        if len(inputs) == 1:
            return inputs[0]
        return self.one("move", inputs, shape, fn="concat", axis=axis)

    def slice(self, x: Value, axis: int, start: Size, stop: Size, step: int = 1) -> Value:
        """Python slice semantics on one axis: negative numbers count from the end, ends are clipped."""
        axis = self.axis(x, axis)
        size = x.shape[axis]
        begin, end = _clip(start, size), _clip(stop, size)
        if step == 0:
            raise self.fail("a slice with step 0")
        if step < 0:
            return self._reverse_slice(x, axis, start, stop, step)
        length = end - begin
        if isinstance(length, int):
            length = max(length, 0)
        if step != 1:
            length = floordiv(length + (step - 1), step)
        if x.data is not None and isinstance(begin, int) and isinstance(end, int):
            cut = [slice(None)] * x.ndim
            cut[axis] = slice(begin, end, step)
            return self.constant(x.data[tuple(cut)], x.format)
        if length == size and step == 1:
            return x
        shape = [*x.shape[:axis], length, *x.shape[axis + 1 :]]
        extra: dict[str, Any] = {"start": begin} if isinstance(begin, int) else {}
        return self.one("move", [x], shape, fn="slice", axis=axis, step=step, **extra)

    def _reverse_slice(self, x: Value, axis: int, start: Size, stop: Size, step: int) -> Value:
        size = x.shape[axis]
        if isinstance(size, int) and isinstance(start, int) and isinstance(stop, int):
            picked = range(size)[slice(start, None if stop < -size else stop, step)]
            if x.data is not None:
                return self.constant(np.take(x.data, list(picked), axis=axis), x.format)
            size = len(picked)
        return self.one("move", [x], [*x.shape[:axis], size, *x.shape[axis + 1 :]], fn="flip", axis=axis)

    def split(self, x: Value, axis: int, sizes: Sequence[Size]) -> tuple[Value, ...]:
        parts: list[Value] = []
        at: Size = 0
        for size in sizes:
            parts.append(self.slice(x, axis, at, at + size))
            at = at + size
        return tuple(parts)

    def pad(self, x: Value, before: Sequence[int], after: Sequence[int]) -> Value:
        if not any(before) and not any(after):
            return x
        shape = [s + b + a for s, b, a in zip(x.shape, before, after)]
        return self.one("move", [x], shape, fn="pad", before=tuple(before), after=tuple(after))

    def take(self, x: Value, indices: Value, axis: int) -> Value:
        """`x` picked by `indices` along `axis`: rows of a table are a gather, anything else a data move."""
        axis = self.axis(x, axis)
        shape = (*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :])
        if x.data is not None and indices.data is not None and all(isinstance(i, int) for i in indices.data.flat):
            picks = indices.data.astype(np.int64) if indices.data.size else np.zeros(indices.data.shape, np.int64)
            limit = x.data.shape[axis] if x.data.ndim else 1
            if picks.size and (picks.min() < -limit or picks.max() >= limit):
                raise self.fail(f"an index outside an axis of size {limit}")
            picked = np.take(x.data, picks, axis=axis)
            return self.constant(picked if isinstance(picked, np.ndarray) else array(picked), x.format)
        if indices.ndim == 0 and indices.scalar is not None:
            at = int(indices.scalar)
            stop: Size = x.shape[axis] if at == -1 else at + 1
            return self.squeeze(self.slice(x, axis, at, stop), [axis])
        if axis == 0:
            return self.one("gather", [x, indices], shape)
        return self.one("move", [x, indices], shape, fn="gather", axis=axis)

    # ---- contractions

    def einsum(
        self, spec: str, inputs: Sequence[Value], shape: Sequence[Size], bias: Value | None = None, **attrs: Any
    ) -> Value:
        """One Einsum with its output shape. A bias is one more operand, added on the way out."""
        operands = [*inputs, bias] if bias is not None else list(inputs)
        return self.one("einsum", operands, shape, _promote(inputs), spec=spec, **attrs)

    def linear(self, x: Value, w: Value, bias: Value | None = None, *, out_first: bool = True) -> Value:
        """x[..., k] times w[n, k] (`out_first`) or w[k, n]."""
        if w.ndim != 2 or x.ndim < 1 or x.ndim > 8:
            raise self.fail(f"a linear layer on {show(x.shape)} with weight {show(w.shape)}")
        n, k = w.shape if out_first else w.shape[::-1]
        self.same(k, x.shape[-1])
        lead = " ".join("abcdefgh"[: x.ndim - 1])
        spec = f"{lead} k, {'n k' if out_first else 'k n'} -> {lead} n".strip()
        return self.einsum(spec, [x, w], [*x.shape[:-1], n], bias)

    def matmul(self, a: Value, b: Value, *, transpose_a: bool = False, transpose_b: bool = False) -> Value:
        """NumPy matmul with broadcasting; the transposes swap the last two axes."""
        if a.ndim == 0 or b.ndim == 0:
            raise self.fail("a matrix product with a scalar")
        if a.ndim == 1:
            return self.squeeze(self.matmul(self.reshape(a, [1, *a.shape]), b, transpose_b=transpose_b), [-2])
        if b.ndim == 1:
            return self.squeeze(self.matmul(a, self.reshape(b, [*b.shape, 1]), transpose_a=transpose_a), [-1])
        if b.ndim == 2 and not transpose_a:
            return self.linear(a, b, out_first=transpose_b)
        batch = self.broadcast(a.shape[:-2], b.shape[:-2])
        m, k = (a.shape[-1], a.shape[-2]) if transpose_a else (a.shape[-2], a.shape[-1])
        n, k2 = (b.shape[-2], b.shape[-1]) if transpose_b else (b.shape[-1], b.shape[-2])
        self.same(k, k2)
        left = self._batch_letters(a.shape[:-2], batch, "u")
        right = self._batch_letters(b.shape[:-2], batch, "x")
        out = list("abcdefgh"[: len(batch)])
        spec = (
            f"{' '.join([*left, *('k m' if transpose_a else 'm k').split()])}, "
            f"{' '.join([*right, *('n k' if transpose_b else 'k n').split()])} -> {' '.join([*out, 'm', 'n'])}"
        )
        return self.einsum(spec, [a, b], [*batch, m, n])

    def _batch_letters(self, shape: Sequence[Size], batch: Sequence[Size], spare: str) -> list[str]:
        """Letters of batch axes; an axis of size 1 that broadcasts gets a letter of its own."""
        lead = len(batch) - len(shape)
        names = "abcdefgh"[: len(batch)]
        return [
            f"{spare}{names[lead + i]}" if size == 1 and batch[lead + i] != 1 else names[lead + i]
            for i, size in enumerate(shape)
        ]

    def conv(
        self,
        x: Value,
        w: Value,
        bias: Value | None = None,
        *,
        stride: Sequence[int],
        pad: Sequence[tuple[int, int]],
        dilation: Sequence[int],
        groups: int = 1,
    ) -> Value:
        """x[n, g*c, spatial...] with w[g*k, c, taps...]; `pad` is (before, after) per spatial axis."""
        d = w.ndim - 2
        self._check_conv(x, w, stride, pad, dilation, groups, d)
        spatial = [
            self.conv_size(s, tap, st, p, di)
            for s, tap, st, p, di in zip(x.shape[2:], w.shape[2:], stride, pad, dilation)
        ]
        n, channels = x.shape[:2]
        c, k_all = w.shape[1], w.shape[0]
        window = " ".join(
            f"({_times(st, o)}+{_times(di, t)})" for st, di, o, t in zip(stride, dilation, "pqo"[:d], "rst"[:d])
        )
        out, taps = " ".join("pqo"[:d]), " ".join("rst"[:d])
        if groups == 1:
            self.same(c, channels)
            return self.einsum(f"n c {window}, k c {taps} -> n k {out}", [x, w], [n, k_all, *spatial], bias)
        k = self.divide(k_all, groups)
        if c == 1 and k == 1:
            return self.einsum(f"n g {window}, g c {taps} -> n g {out}", [x, w], [n, groups, *spatial], bias)
        self.same(c * groups, channels)
        grouped = self.reshape(x, [n, groups, c, *x.shape[2:]])
        weight = self.reshape(w, [groups, k, c, *w.shape[2:]])
        y = self.einsum(
            f"n g c {window}, g k c {taps} -> n g k {out}", [grouped, weight], [n, groups, k, *spatial], bias
        )
        return self.reshape(y, [n, k_all, *spatial])

    def _check_conv(
        self,
        x: Value,
        w: Value,
        stride: Sequence[int],
        pad: Sequence[Any],
        dilation: Sequence[int],
        groups: int,
        d: int,
    ) -> None:
        if not 1 <= d <= 3 or x.ndim != d + 2 or not len(stride) == len(pad) == len(dilation) == d:
            raise self.fail(
                f"a convolution on {show(x.shape)} with weight {show(w.shape)}, expected 1 to 3 spatial axes"
            )
        if groups < 1 or min(stride) < 1 or min(dilation) < 1:
            raise self.fail(f"a convolution with stride {tuple(stride)}, dilation {tuple(dilation)}, groups {groups}")

    def conv_size(
        self, size: Size, tap: Size, stride: int, pad: tuple[int, int], dilation: int = 1, *, ceil: bool = False
    ) -> Size:
        span = (tap - 1) * dilation + 1
        room = size + (pad[0] + pad[1]) - span
        if isinstance(room, int) and room < 0:
            raise self.fail(f"a window of {span} on an axis of {size} with padding {pad}")
        if not ceil:
            return floordiv(room, stride) + 1 if stride != 1 else room + 1
        length = floordiv(room + (stride - 1), stride) + 1
        if isinstance(length, int) and isinstance(size, int) and (length - 1) * stride >= size + pad[0]:
            length -= 1  # a window that would start in the padding behind is dropped
        return length

    def conv_transpose(
        self,
        x: Value,
        w: Value,
        bias: Value | None = None,
        *,
        stride: Sequence[int],
        pad: Sequence[tuple[int, int]],
        dilation: Sequence[int],
        output_pad: Sequence[int],
        groups: int = 1,
    ) -> Value:
        """x[n, g*c, spatial...] with w[g*c, k, taps...]. MACs: each input element meets each tap of each output
        channel.

        Where the kernel is a multiple of the stride and the output exactly stride times the input, every output phase u
        is a plain convolution with kernel/stride taps: y[s*p+u] = sum over t of x[p+t] w[t, u]. Otherwise it is the
        product with all taps followed by the overlapping sum (col2im).
        """
        d = w.ndim - 2
        self._check_conv(x, w, stride, pad, dilation, groups, d)
        n, sizes, taps = x.shape[0], x.shape[2:], w.shape[2:]
        out = [
            (s - 1) * st + ((t - 1) * di + 1) + (op - p[0] - p[1])
            for s, st, t, di, op, p in zip(sizes, stride, taps, dilation, output_pad, pad)
        ]
        c, k = self.divide(w.shape[0], groups), w.shape[1]
        if groups > 1:
            x = self.reshape(x, [n, groups, c, *sizes])
            w = self.reshape(w, [groups, c, *w.shape[1:]])
        g, lead, channels = ("g ", [groups], groups) if groups > 1 else ("", [], 1)
        phases = all(
            isinstance(t, int) and t % st == 0 and di == 1 and o == s * st
            for t, st, di, o, s in zip(taps, stride, dilation, out, sizes)
        )
        pos, tap, phase = "pqo"[:d], "rst"[:d], "uvw"[:d]
        if phases:
            w = self.reshape(
                w, [*w.shape[: w.ndim - d], *(v for t, st in zip(taps, stride) for v in (self.divide(t, st), st))]
            )
            window = " ".join(f"({p}+{t})" for p, t in zip(pos, tap))
            weights = " ".join(f"{t} {u}" for t, u in zip(tap, phase))
            result = " ".join(f"{p} {u}" for p, u in zip(pos, phase))
            shape = [n, *lead, k, *(v for s, st in zip(sizes, stride) for v in (s, st))]
            y = self.einsum(f"n {g}c {window}, {g}c k {weights} -> n {g}k {result}", [x, w], shape, bias)
        else:
            spec = f"n {g}c {' '.join(pos)}, {g}c k {' '.join(tap)} -> n {g}k {' '.join(pos)} {' '.join(tap)}"
            y = self.einsum(spec, [x, w], [n, *lead, k, *sizes, *taps])
            y = self.one(
                "reduce", [y, bias] if bias is not None else [y], [n, *lead, k, *out], fn="sum", window="col2im"
            )
        return self.reshape(y, [n, k * channels, *out])

    # ---- attention and other composites

    def attention(
        self,
        q: Value,
        k: Value,
        v: Value,
        mask: Value | None = None,
        *,
        causal: bool = False,
        scale: float | None = None,
    ) -> Value:
        """q[..., h, t, d], k[..., g, s, d], v[..., g, s, e]; h is a multiple of g. Scale and mask are the softmax's."""
        if q.ndim < 3:
            lead = 3 - q.ndim
            q, k, v = (self.unsqueeze(x, list(range(lead))) for x in (q, k, v))
            return self.squeeze(self.attention(q, k, v, mask, causal=causal, scale=scale), list(range(lead)))
        *lead_shape, h, t, d = q.shape
        g, s, e = k.shape[-3], k.shape[-2], v.shape[-1]
        self.same(d, k.shape[-1])
        attrs: dict[str, Any] = {"causal": True} if causal else {}
        if scale is not None:
            attrs["scale"] = float(scale)
        extra = [mask] if mask is not None else []
        shapes = self.broadcast(lead_shape, k.shape[:-3])
        names = list("abcefg"[: len(shapes)])
        qn = " ".join(self._batch_letters(lead_shape, shapes, "u"))
        kn = " ".join(self._batch_letters(k.shape[:-3], shapes, "x"))
        bn = " ".join(names)
        if h == g or g == 1 or not isinstance(h, int) or not isinstance(g, int):
            heads = "h" if h == g else "o"
            scores = self.einsum(f"{qn} h t d, {kn} {heads} s d -> {bn} h t s", [q, k], [*shapes, h, t, s])
            weights = self.emit("softmax", [scores, *extra], [scores.shape], name="softmax", axis=-1, **attrs)[0]
            return self.einsum(f"{bn} h t s, {kn} {heads} s e -> {bn} h t e", [weights, v], [*shapes, h, t, e])
        if h % g:
            raise self.fail(f"attention with {h} query heads and {g} key heads, expected a multiple")
        r = h // g
        grouped = self.reshape(q, [*lead_shape, g, r, t, d])
        scores = self.einsum(f"{qn} h r t d, {kn} h s d -> {bn} h r t s", [grouped, k], [*shapes, g, r, t, s])
        weights = self.emit("softmax", [scores, *extra], [scores.shape], name="softmax", axis=-1, **attrs)[0]
        y = self.einsum(f"{bn} h r t s, {kn} h s e -> {bn} h r t e", [weights, v], [*shapes, g, r, t, e])
        return self.reshape(y, [*shapes, h, t, e])

    def softmax(self, x: Value, axis: int = -1, fn: str = "softmax") -> Value:
        axis = self.axis(x, axis)
        attrs: dict[str, Any] = {"axis": -1 if axis == x.ndim - 1 else axis}
        if fn != "softmax":
            attrs["fn"] = fn
        return self.emit("softmax", [x], [x.shape], name=fn, **attrs)[0]

    def norm(self, fn: str, x: Value, *parameters: Value | None, **attrs: Any) -> Value:
        return self.emit("norm", [x, *(p for p in parameters if p is not None)], [x.shape], name=fn, fn=fn, **attrs)[0]

    def reduce(self, fn: str, x: Value, axes: Sequence[int] | None, keepdims: bool, format: str | None = None) -> Value:
        gone = sorted({self.axis(x, a) for a in axes}) if axes else list(range(x.ndim))
        shape = [1 if i in gone else s for i, s in enumerate(x.shape) if keepdims or i not in gone]
        if x.data is not None and fn in ("prod", "sum", "max", "min") and len(gone) == x.ndim:
            folded = _reduce_data(fn, x.data)
            if folded is not None:
                return self.constant(array([folded], [1] * x.ndim) if keepdims else array(folded), x.format)
        return self.one("reduce", [x], shape, format, fn=fn, axes=tuple(gone))

    def pool(
        self,
        fn: str,
        x: Value,
        kernel: Sequence[int],
        stride: Sequence[int],
        pad: Sequence[tuple[int, int]],
        dilation: Sequence[int] | None = None,
        *,
        ceil: bool = False,
    ) -> Value:
        d = len(kernel)
        dilation = dilation or [1] * d
        if x.ndim < d + 1 or not len(stride) == len(pad) == len(dilation) == d or min(stride) < 1:
            raise self.fail(f"pooling of {show(x.shape)} with a window of {tuple(kernel)}")
        lead = x.shape[: x.ndim - d]
        sizes = [
            self.conv_size(s, k, st, p, di, ceil=ceil)
            for s, k, st, p, di in zip(x.shape[-d:], kernel, stride, pad, dilation)
        ]
        return self.one("pool", [x], [*lead, *sizes], fn=fn, kernel=tuple(kernel), stride=tuple(stride))

    def resize(self, x: Value, shape: Sequence[Size], fn: str) -> Value:
        return x if tuple(shape) == x.shape else self.one("resize", [x], shape, fn=fn)

    def recurrent(
        self, fn: str, x: Value, weights: Sequence[tuple[Value, Value]], biases: Sequence[Value], hidden: int
    ) -> tuple[Value, Value]:
        """LSTM, GRU or RNN over x[t, b, i], one (input, recurrent) weight pair per direction, gates stacked first.

        The input product runs for the whole sequence; the recurrent one runs step by step inside the scan, whose `macs`
        say so. Returns the outputs [t, b, directions*hidden] and the last state [directions, b, hidden].
        """
        gates = {"lstm": 4, "gru": 3}.get(fn, 1)
        t, b, _ = x.shape
        d = len(weights)
        outputs: list[Value] = []
        for index, (w, r) in enumerate(weights):
            bias = biases[index] if index < len(biases) else None
            projected = self.einsum("t b i, g i -> t b g", [x, w], [t, b, gates * hidden], bias)
            outputs.append(
                self.one(
                    "scan", [projected, r], [t, b, hidden], x.format, fn=fn,
                    state=b * (hidden * (2 if fn == "lstm" else 1)),
                    ops_per_step=b * (2 * gates * hidden * hidden + gates * hidden * 4),
                    steps=t, macs=t * b * (gates * hidden * hidden),
                )
            )  # fmt: skip
        y = outputs[0] if d == 1 else self.concat(outputs, 2)
        last = self.one("move", [y], [d, b, hidden], fn="slice")
        return y, last

    @contextmanager
    def within(self, scope: str, at: str) -> Iterator[None]:
        """Ops inside belong to module `scope` and to the source op `at`."""
        before = self.scope, self.at
        self.scope, self.at = scope, at
        try:
            yield
        finally:
            self.scope, self.at = before


def divide_exact(total: Size, part: Expr) -> Size | None:
    """`total / part` for a single-term part whose factors all terms of `total` hold; None otherwise."""
    if not isinstance(total, Expr):
        return 0 if total == 0 else None
    if total == part:
        return 1
    if len(part.terms) == 1:
        (monomial, coefficient), *_ = part.terms.items()
        need = dict(monomial)
        result: Size = 0
        for atoms, factor in total.terms.items():
            have = dict(atoms)
            for atom, power in need.items():
                have[atom] = have.get(atom, 0) - power
            if (
                any(power < 0 for power in have.values())
                or not isinstance(factor, int)
                or not isinstance(coefficient, int)
            ):
                return None
            if factor % coefficient:
                return None
            kept = tuple(sorted(((a, p) for a, p in have.items() if p), key=lambda item: str(item[0])))
            result = result + (Expr({kept: factor // coefficient}) if kept else factor // coefficient)
        return result
    return _polynomial_ratio(total, part)


def _polynomial_ratio(total: Expr, part: Expr) -> Size | None:
    """Try `total = q * part` with q the ratio of leading terms, a monomial or integer: covers (S+1)*B*8 / (S+1)."""
    lead_total, lead_part = next(iter(total.terms.items())), next(iter(part.terms.items()))
    quotient = divide_exact(Expr({lead_total[0]: lead_total[1]}), Expr({lead_part[0]: lead_part[1]}))
    return quotient if quotient is not None and quotient * part == total else None


def _clip(position: Size, size: Size) -> Size:
    """A Python slice bound counted from the front and clipped to the axis."""
    if isinstance(position, int):
        if position < 0:
            moved = size + position
            return max(moved, 0) if isinstance(moved, int) else moved
        if isinstance(size, int):
            return min(position, size)
        return size if position >= 2**31 - 1 else position
    return position


def _times(factor: int, dim: str) -> str:
    return dim if factor == 1 else f"{factor}*{dim}"


def _promote(inputs: Sequence[Value]) -> str:
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


def _reduce_data(fn: str, data: Data) -> Any:
    items = list(data.reshape(-1))
    if not items or (fn in ("max", "min") and any(isinstance(i, Expr) for i in items)):
        return None
    if fn == "prod":
        return product(items)
    if fn == "sum":
        return sum(items)
    return max(items) if fn == "max" else min(items)


_PARTS: tuple[tuple[str, str], ...] = (
    (r"(lm_head|output_projection|classifier|score|head|fc)\.weight$|^output\.weight$", "head"),
    (r"(pos|position)[\w]*(emb|enc)", "position_embedding"),
    (r"(embed_tokens|word_embeddings|wte|token_embd|embedding|embeddings|shared|tok_embeddings)\b.*weight$",
    "embedding"),
    (r"experts.*gate_up_proj|experts.*w13", "expert_gate_up"),
    (r"experts.*(gate_proj|w1\b)", "expert_gate"),
    (r"experts.*(down_proj|w2\b)", "expert_down"),
    (r"experts.*(up_proj|w3\b)", "expert_up"),
    (r"shared_expert.*gate_proj", "shared_gate"),
    (r"shared_expert.*up_proj", "shared_up"),
    (r"shared_expert.*down_proj", "shared_down"),
    (r"(mlp|block_sparse_moe|feed_forward)\.(gate|router)\b", "router"),
    (r"(qkv|c_attn|query_key_value|in_proj_weight|Wqkv)", "attn_qkv"),
    (r"(q_proj|q_lin|query|to_q|wq|\.q\b|\bq\b|attn_q)", "attn_q"),
    (r"(k_proj|k_lin|\bkey|to_k|wk|\.k\b|\bk\b|attn_k)", "attn_k"),
    (r"(v_proj|v_lin|value|to_v|wv|\.v\b|\bv\b|attn_v)", "attn_v"),
    (r"(o_proj|out_proj|out_lin|to_out|attention\.output|attn\.proj|attn\.c_proj|wo|attn_output|\.o\b)", "attn_o"),
    (r"(gate_up_proj)", "ffn_gate_up"),
    (r"(gate_proj|ffn_gate)", "ffn_gate"),
    (r"(up_proj|c_fc|fc1|lin1|intermediate|wi\b|ffn_up|dense_h_to_4h)", "ffn_up"),
    (r"(down_proj|mlp\.c_proj|fc2|lin2|output\.dense|wo\b|ffn_down|dense_4h_to_h)", "ffn_down"),
)  # fmt: skip
_PART_RULES = tuple((re.compile(pattern, re.I), part) for pattern, part in _PARTS)


def part_of(name: str, shape: Sequence[Size]) -> str:
    """What a weight is for, from its name and number of axes: the roles of `orchard.units`."""
    if len(shape) <= 1:
        return "bias" if name.endswith("bias") else "norm" if re.search(r"norm|ln|bn", name, re.I) else "bias"
    for pattern, part in _PART_RULES:
        if pattern.search(name):
            return part
    return "conv" if len(shape) >= 3 else "other"


def layer_of(name: str) -> int | None:
    """The first number in a dotted name that stands alone: `model.layers.3.mlp` is layer 3."""
    match = re.search(r"(?:^|[./])(?:layers?|h|blocks?|blk|encoder|decoder)[./_](\d{1,4})(?=[./_])", name)
    return int(match.group(1)) if match else None
