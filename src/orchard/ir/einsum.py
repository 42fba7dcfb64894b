"""Einsums over named dims with affine index expressions: matrix products, attention scores, convolutions, reductions.

Text form, dims separated by spaces, operands by commas, sliding windows in parentheses:

    b t m, m n -> b t n                                  linear
    b t g r d, b s g d -> b g r t s                      attention scores, grouped query heads
    n g c (2*p+r) (2*q+s), g k c r s -> n g k p q        convolution, stride 2, g groups
    b t m -> b t                                         sum over m

An axis is an affine sum of dims with positive integer coefficients. `combine` says how operands meet (`mul`, `add`),
`reduce` how the dims missing from the output are folded (`sum`, `max`). The iteration space is the product of all dims.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from orchard.ir.errors import GraphError, ParseError
from orchard.ir.size import Size, product

_DIM = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_TERM = re.compile(r"(?:(\d+)\s*\*\s*)?([A-Za-z_][A-Za-z0-9_]*)\Z")


@dataclass(frozen=True, slots=True)
class Axis:
    """One tensor axis as an affine sum of (coefficient, dim) pairs. A plain axis has one term, coefficient 1."""

    terms: tuple[tuple[int, str], ...]
    dims: tuple[str, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "dims", tuple(dim for _, dim in self.terms))  # asked for all the time

    @property
    def is_plain(self) -> bool:
        return len(self.terms) == 1 and self.terms[0][0] == 1

    def extent(self, sizes: Mapping[str, Size]) -> Size:
        """Distinct-index span when each dim runs over `sizes`: 1 + sum of coefficient x (size - 1). Unpadded."""
        total: Size = 1
        for coefficient, dim in self.terms:
            total = total + (sizes[dim] - 1) * coefficient
        return total

    def __str__(self) -> str:
        if self.is_plain:
            return self.terms[0][1]
        return "(" + "+".join(dim if c == 1 else f"{c}*{dim}" for c, dim in self.terms) + ")"


Access = tuple[Axis, ...]


@dataclass(frozen=True, slots=True)
class Einsum:
    """`inputs` and `output` as index accesses. Verified when built: output axes are plain and distinct."""

    inputs: tuple[Access, ...]
    output: Access
    combine: str = "mul"
    reduce: str = "sum"

    def __post_init__(self) -> None:
        if not self.inputs:
            raise GraphError("einsum: no input operand, expected at least one")
        for axis in self.output:
            if not axis.is_plain:
                raise GraphError(f"einsum {self}: output axis {axis} is not a plain dim")
        out = [axis.dims[0] for axis in self.output]
        if len(set(out)) != len(out):
            raise GraphError(f"einsum {self}: a dim stands twice in the output")
        missing = [d for d in out if not any(d in axis.dims for access in self.inputs for axis in access)]
        if missing:
            raise GraphError(f"einsum {self}: output dim {missing[0]!r} is in no input")

    @property
    def dims(self) -> tuple[str, ...]:
        """All dims: those of the output first, then reduced ones in order of appearance."""
        seen = dict.fromkeys(axis.dims[0] for axis in self.output)
        for access in self.inputs:
            for axis in access:
                seen.update(dict.fromkeys(axis.dims))
        return tuple(seen)

    @property
    def reduced_dims(self) -> tuple[str, ...]:
        kept = {axis.dims[0] for axis in self.output}
        return tuple(d for d in self.dims if d not in kept)

    def sizes(self, shapes: Sequence[Sequence[Size]], output: Sequence[Size]) -> dict[str, Size]:
        """Size of every dim, from the operand shapes and the output shape.

        Plain axes fix their dim. Every dim must stand alone on some axis. A windowed axis may be shorter than its
        unpadded extent (padding) but never longer by a full stride. Raises GraphError naming axis, got, expected.
        """
        accesses = (*self.inputs, self.output)
        all_shapes = (*shapes, output)
        if len(all_shapes) != len(accesses):
            raise GraphError(f"einsum {self}: {len(shapes)} operands, expected {len(self.inputs)}")
        sizes: dict[str, Size] = {}
        for position, (access, shape) in enumerate(zip(accesses, all_shapes)):
            if len(access) != len(shape):
                raise GraphError(f"einsum {self}: operand {position} has {len(shape)} axes, expected {len(access)}")
            for axis, size in zip(access, shape):
                if axis.is_plain:
                    known = sizes.setdefault(axis.dims[0], size)
                    if known != size:
                        raise GraphError(f"einsum {self}: dim {axis.dims[0]!r} is {known} and {size}")
        unknown = [d for d in self.dims if d not in sizes]
        if unknown:
            raise GraphError(f"einsum {self}: dim {unknown[0]!r} has no size; let it stand alone on an axis")
        for access, shape in zip(accesses, all_shapes):
            for axis, size in zip(access, shape):
                if not axis.is_plain:
                    self._check_window(axis, size, sizes)
        return sizes

    def _check_window(self, axis: Axis, size: Size, sizes: Mapping[str, Size]) -> None:
        extent = axis.extent(sizes)
        slack = max(coefficient for coefficient, _ in axis.terms)
        if isinstance(extent, int) and isinstance(size, int) and size >= extent + slack:
            raise GraphError(f"einsum {self}: axis {axis} spans {extent}, the operand has {size}")

    def iterations(self, sizes: Mapping[str, Size]) -> Size:
        """Points of the iteration space; one MAC each for combine=mul, reduce=sum with two operands."""
        return product(sizes[d] for d in self.dims)

    def __str__(self) -> str:
        sides = [", ".join(" ".join(str(a) for a in access) for access in self.inputs)]
        sides.append(" ".join(str(a) for a in self.output))
        return " -> ".join(sides).rstrip()


@lru_cache(maxsize=4096)
def parse_einsum(text: str, combine: str = "mul", reduce: str = "sum") -> Einsum:
    """Read the text form above. Raises ParseError with the part that does not fit."""
    if len(text) > 2000:
        raise ParseError(f"einsum of {len(text)} characters: expected at most 2000")
    sides = text.split("->")
    if len(sides) != 2:
        raise ParseError(f"einsum {text!r}: expected one '->'")
    inputs = tuple(_parse_access(part, text) for part in sides[0].split(","))
    return Einsum(inputs, _parse_access(sides[1], text), combine, reduce)


def _parse_access(text: str, whole: str) -> Access:
    axes: list[Axis] = []
    for token in re.findall(r"\([^()]*\)|[^\s()]+|[()]", text):
        if token.startswith("(") and token.endswith(")") and len(token) > 2:
            axes.append(Axis(tuple(_parse_term(t, whole) for t in token[1:-1].split("+"))))
        elif _DIM.match(token):
            axes.append(Axis(((1, token),)))
        else:
            raise ParseError(f"einsum {whole!r}: {token!r} is no dim, expected a name or '(2*p+r)'")
    return tuple(axes)


def _parse_term(text: str, whole: str) -> tuple[int, str]:
    match = _TERM.match(text.strip())
    if match is None or match.group(1) == "0":
        raise ParseError(f"einsum {whole!r}: {text!r} is no index term, expected 'dim' or '2*dim'")
    return int(match.group(1) or 1), match.group(2)
