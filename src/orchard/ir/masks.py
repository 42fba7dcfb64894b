"""How many (query, key) pairs a causal attention really computes, as a closed form in T new and S attended tokens."""

from __future__ import annotations

from fractions import Fraction
from functools import lru_cache
from typing import Any

from orchard.ir.size import Size, maximum, minimum


@lru_cache(maxsize=256)
def causal_pairs(tokens: Size, context: Size, window: int | None = None) -> Size:
    """Sum over queries i = 0..T-1 of min(P + i + 1, window), where P = S - T tokens are cached already. T <= S.

    Without a window every query sees all keys up to itself: T*S - T*(T-1)/2. With one, the first
    n = clamp(window - P, 0, T) queries see fewer than `window` keys (an arithmetic series), the others exactly
    `window`.
    """
    full = tokens * context - _half(tokens * (tokens - 1))
    if window is None:
        return full
    cached = context - tokens
    short = minimum(tokens, maximum(window - cached, 0))
    return short * cached + _half(short * (short + 1)) + (tokens - short) * window


def _half(value: Size) -> Size:
    """value / 2 for an even value."""
    if isinstance(value, int):
        return value // 2
    halved: Any = value * Fraction(1, 2)
    return halved  # type: ignore[no-any-return]
