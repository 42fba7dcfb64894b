"""Ops as text: `gemm:m=64,k=64,n=64`, `conv:…`, or an Einsum with sizes: `Q[h,m] = A[h,m,e] * B[h,e]; h=12,m=64,e=32`."""

from __future__ import annotations

import re
from collections.abc import Mapping

from orchard.ir import Einsum, parse_einsum
from orchard.ir.errors import GraphError
from orchard.mapping.errors import MappingError
from orchard.mapping.problem import Problem

_TENSOR = re.compile(r"\s*([A-Za-z_]\w*)\s*\[([^\[\]]*)\]\s*\Z")
_INPUT_NAMES = ("I", "W", *(f"I{i}" for i in range(3, 33)))
_SHORTHANDS = {
    "gemm": ({"m", "k", "n"}, {"b"}),
    "conv": ({"c", "k", "p", "q", "r", "s"}, {"n", "stride", "dilation", "groups"}),
}


def is_op(text: str) -> bool:
    """Whether a text names an op rather than a model: `kind:size=…`, or an Einsum."""
    return bool(re.match(r"\s*\w+:\s*(\w+\s*=|\Z)", text)) or "->" in text or ("=" in text and "[" in text)


def parse_op(text: str, sizes: Mapping[str, int] | None = None) -> Problem:
    """Read one op. `sizes` adds to, or replaces, what the text says. Raises MappingError with what was expected."""
    head, _, rest = text.partition(":")
    if head.strip() in _SHORTHANDS and "->" not in text and "[" not in text:
        return _shorthand(head.strip(), {**parse_sizes(rest), **(sizes or {})})
    body, _, tail = text.partition(";")
    given = {**parse_sizes(tail), **(sizes or {})}
    if "->" in body:
        einsum = _einsum(body)
        return Problem("einsum", einsum, given, (*_INPUT_NAMES[: len(einsum.inputs)], "O"))
    if "=" in body and "[" in body:
        return _indexed(body, given)
    known = ", ".join(f"{name}:…" for name in _SHORTHANDS)
    raise MappingError(
        f"op {text[:80]!r}: expected {known}, 'm k, k n -> m n; m=64,…' or 'C[m,n] = A[m,k] * B[k,n]; m=64,…'"
    )


def parse_sizes(text: str) -> dict[str, int]:
    """`m=64,k=64` as numbers. Raises MappingError with the part that does not fit."""
    sizes: dict[str, int] = {}
    for part in filter(None, (p.strip() for p in text.split(","))):
        match = re.fullmatch(r"([A-Za-z_]\w*)\s*=\s*(\d{1,13})", part)
        if match is None:
            raise MappingError(f"size {part[:40]!r}: expected e.g. 'm=64'")
        if match[1] in sizes:
            raise MappingError(f"size {part[:40]!r}: {match[1]} is given twice")
        sizes[match[1]] = int(match[2])
    return sizes


def _einsum(text: str) -> Einsum:
    try:
        return parse_einsum(text.strip())
    except GraphError as error:
        raise MappingError(str(error)) from None


def _shorthand(kind: str, sizes: dict[str, int]) -> Problem:
    needed, optional = _SHORTHANDS[kind]
    for name in sorted(needed - sizes.keys()):
        raise MappingError(f"{kind}: {name} is missing, expected {kind}:{','.join(f'{n}=…' for n in sorted(needed))}")
    for name in sorted(sizes.keys() - needed - optional):
        raise MappingError(f"{kind}: unknown {name!r}, known: {', '.join(sorted(needed | optional))}")
    if kind == "gemm":
        batched = "b" in sizes
        text = "b m k, b k n -> b m n" if batched else "m k, k n -> m n"
        return Problem("gemm", _einsum(text), sizes, ("A", "B", "C"))
    return _conv(sizes)


def _conv(given: dict[str, int]) -> Problem:
    stride, dilation, groups = (given.pop(name, 1) for name in ("stride", "dilation", "groups"))
    if min(stride, dilation, groups) < 1:
        raise MappingError("conv: stride, dilation and groups are whole numbers >= 1")
    if given["c"] % groups or given["k"] % groups:
        raise MappingError(f"conv: {groups} groups do not divide c={given['c']} and k={given['k']}")
    window = f"({stride}*p+{dilation}*r) ({stride}*q+{dilation}*s)"
    n, g = ("n " if "n" in given else ""), ("g " if groups > 1 else "")
    einsum = _einsum(f"{n}{g}c {window}, {g}k c r s -> {n}{g}k p q")
    sizes = {**given, "c": given["c"] // groups, "k": given["k"] // groups}
    return Problem("conv", einsum, {**sizes, "g": groups} if groups > 1 else sizes, ("I", "W", "O"))


def _indexed(body: str, sizes: dict[str, int]) -> Problem:
    left, _, right = body.partition("=")
    names, accesses = [], []
    for part in _factors(left, right):
        match = _TENSOR.match(part)
        if match is None:
            raise MappingError(f"op {body.strip()[:80]!r}: {part.strip()[:40]!r} is no tensor, expected e.g. 'A[m,k]'")
        names.append(match[1])
        axes = [axis.strip() for axis in match[2].split(",")]
        accesses.append(" ".join(f"({axis})" if "+" in axis or "*" in axis else axis for axis in axes))
    einsum = _einsum(f"{', '.join(accesses[1:])} -> {accesses[0]}")
    return Problem(names[0], einsum, sizes, (*names[1:], names[0]))


def _factors(left: str, right: str) -> list[str]:
    """The output and the operands: `*` inside brackets belongs to an index."""
    return [left, *re.split(r"\*(?![^\[]*\])", right)]
