"""`Lowering` of layout ops: reshape, transpose, slice, concatenation, gather."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from orchard.ir import Expr, Size, floordiv, product
from orchard.workloads.importers.lowering.base import Base
from orchard.workloads.importers.lowering.values import SMALL, Value, array, show


class Layout(Base):
    """Ops that move or rename axes; known contents are followed."""

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
        inputs = [v for v in inputs if v.shape != (0,)] or list(inputs)  # torch: a cache that is still empty
        axis = self.axis(inputs[0], axis)
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
