"""Distinct indices that boxes of dims touch on an affine axis, and how many are new when a window moves. Exact integers.

A set of indices is a Python integer used as a bit set: bit i says that index i is touched. The index set of `a*p + b*r` is the
sumset of the two dims' sets, spread by their coefficients.
"""

from __future__ import annotations

from functools import lru_cache

from orchard.ir.einsum import Axis


def box(size: int) -> int:
    """The bit set {0 … size-1}."""
    return (1 << size) - 1


@lru_cache(maxsize=65536)
def spread(mask: int, coefficient: int) -> int:
    """Every index of `mask` times `coefficient`."""
    if coefficient == 1:
        return mask
    result = 0
    index = 0
    while mask:
        if mask & 1:
            result |= 1 << (index * coefficient)
        mask >>= 1
        index += 1
    return result


@lru_cache(maxsize=65536)
def sumset(left: int, right: int) -> int:
    """All sums of an index of `left` and one of `right`."""
    if left.bit_count() < right.bit_count():
        left, right = right, left
    result = 0
    while right:
        low = right & -right
        result |= left << (low.bit_length() - 1)
        right ^= low
    return result


def axis_set(axis: Axis, masks: dict[str, int]) -> int:
    """Index set of `axis` when each of its dims runs over `masks[dim]`."""
    result = 1
    for coefficient, dim in axis.terms:
        result = sumset(result, spread(masks[dim], coefficient))
    return result


@lru_cache(maxsize=262144)
def axis_footprint(axis: Axis, sizes: tuple[int, ...]) -> int:
    """Distinct indices on `axis` when its dims (in term order) run over contiguous blocks of `sizes`."""
    if axis.is_plain or len(axis.terms) == 1:
        return sizes[0]
    if len(axis.terms) == 2:
        return _two_term_footprint(axis, sizes)
    return axis_set(axis, {dim: box(size) for dim, size in zip(axis.dims, sizes)}).bit_count()


def _two_term_footprint(axis: Axis, sizes: tuple[int, ...]) -> int:
    """|{a*i + b*j : i < x, j < y}|. Divide by the gcd; with coprime a, b two pairs meet iff they differ by multiples of (b, -a),
    so the pairs that repeat an earlier sum are those with i >= b and j < y - a: (x - b)+ (y - a)+ of them."""
    from math import gcd

    (a, _), (b, _) = axis.terms
    x, y = sizes
    common = gcd(a, b)
    a, b = a // common, b // common
    return x * y - max(0, x - b) * max(0, y - a)
