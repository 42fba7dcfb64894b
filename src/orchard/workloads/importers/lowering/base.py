"""The bottom of `Lowering`: errors, leaves, nodes, sizes, elementwise ops."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np

from orchard.ir import Expr, Role, Size, symbol, symbols_of
from orchard.units import did_you_mean
from orchard.workloads.importers.errors import ImportError_, UnsupportedOps
from orchard.workloads.importers.lowering.parts import layer_of, part_of
from orchard.workloads.importers.lowering.values import (
    COMPARISONS,
    FOLD,
    LOGIC,
    MAX_ELEMENTS,
    MAX_NDIM,
    SMALL,
    Data,
    Node,
    NotKnownError,
    Shape,
    Value,
    array,
    cast_data,
    clean_name,
    promote,
    show,
)


class Base:
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
        """Raise UnsupportedOps for all types that have no rule and are not assumed elementwise, ImportError_ for an
        assumed one that the model does not hold."""
        missing = {t: n for t, n in types.items() if t not in known and not self.is_assumed(t)}
        if missing:
            raise UnsupportedOps(self.where, missing)
        present = {*types, *(t.split("::")[-1] for t in types)}
        for name in sorted(self.assumed - present):
            raise ImportError_(
                f"{self.where}: --assume-elementwise {name[:60]!r}: no op of the model has this type{did_you_mean(name, types)}"
            )

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
            format = "bool" if fn in COMPARISONS or fn in LOGIC else promote(inputs[1:] if fn == "where" else inputs)
        known = self._fold(fn, inputs, format) if not attrs else None
        if known is not None:
            return self.constant(known, format, name=fn)
        return self.one("elementwise", inputs, shape, format, fn=fn, **attrs)

    def _fold(self, fn: str, inputs: Sequence[Value], format: str) -> Data | None:
        operands = [v.data for v in inputs if v.data is not None]
        if fn not in FOLD or len(operands) != len(inputs):
            return None
        try:
            if int(np.prod(np.broadcast_shapes(*(o.shape for o in operands)))) > SMALL:
                return None
            result = np.frompyfunc(FOLD[fn], len(operands), 1)(*operands)
        except (NotKnownError, ZeroDivisionError, ValueError, TypeError, OverflowError, AttributeError):
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
