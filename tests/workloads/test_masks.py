"""causal_pairs against counting every pair."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from orchard.ir import bind, symbol
from orchard.workloads import causal_pairs

T, S = symbol("T"), symbol("S")


def counted(tokens: int, context: int, window: int | None) -> int:
    """Query i stands at position context - tokens + i and sees keys 0..position, the last `window` of them."""
    pairs = 0
    for position in range(context - tokens, context):
        keys = [k for k in range(context) if k <= position and (window is None or k > position - window)]
        pairs += len(keys)
    return pairs


@given(st.integers(1, 24), st.integers(0, 24), st.one_of(st.none(), st.integers(1, 40)))
def test_pairs_are_those_a_mask_leaves(tokens, cached, window):
    context = tokens + cached
    expected = counted(tokens, context, window)
    assert causal_pairs(tokens, context, window) == expected
    assert bind(causal_pairs(T, S, window), {"T": tokens, "S": context}) == expected
    assert bind(causal_pairs(1, S, window), {"S": context}) == counted(1, context, window)
