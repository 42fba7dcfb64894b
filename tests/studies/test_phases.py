"""How a prompt and a generation become forward calls."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchard.studies.phases import MOST_CALLS, decode_calls, encoder_calls, prefill_calls


@given(st.integers(1, 4000), st.integers(0, 5000), st.integers(1, 9), st.sampled_from([64, 512, 2048]))
def test_chunks_cover_the_prompt_once(prompt: int, depth: int, batch: int, chunk: int) -> None:
    calls = prefill_calls(prompt=prompt, depth=depth, batch=batch, chunk=chunk)
    per_sequence = max(1, chunk // batch) if batch > 1 else chunk
    if -(-prompt // per_sequence) > MOST_CALLS:
        return
    covered: list[int] = []
    for call in calls:
        assert call.weight == 1
        assert call.bindings["B"] == batch
        new, context = call.bindings["T"], call.bindings["S"]
        assert new * batch <= max(chunk, batch)
        covered.extend(range(context - new, context))
    assert covered == list(range(depth, depth + prompt))


@given(st.integers(20_000, 400_000), st.sampled_from([64, 512]))
def test_a_sampled_prompt_keeps_its_calls_and_nearly_its_tokens(prompt: int, chunk: int) -> None:
    calls = prefill_calls(prompt=prompt, depth=0, batch=1, chunk=chunk)
    assert len(calls) == MOST_CALLS
    assert sum(c.weight for c in calls) == pytest.approx(-(-prompt // chunk))
    tokens = sum(c.weight * c.bindings["T"] for c in calls)
    assert tokens == pytest.approx(prompt, rel=1.5 / MOST_CALLS)  # at most the last, partial chunk is over-weighted
    assert all(c.bindings["S"] <= prompt for c in calls)
    mean = sum(c.weight * c.bindings["S"] for c in calls) / sum(c.weight for c in calls)
    assert mean == pytest.approx((prompt + chunk) / 2, rel=0.05)


@given(st.integers(1, 5000), st.integers(0, 100_000), st.integers(1, 8))
def test_decode_is_one_mean_step(generate: int, context: int, batch: int) -> None:
    calls = decode_calls(generate=generate, context=context, batch=batch)
    assert sum(c.weight for c in calls) == pytest.approx(1)
    for call in calls:
        assert call.bindings["T"] == 1
        assert context + 1 <= call.bindings["S"] <= context + generate
    steps = range(context + 1, context + generate + 1)
    mean = sum(c.weight * c.bindings["S"] for c in calls)
    assert abs(mean - sum(steps) / len(steps)) <= 1


def test_encoders_bind_what_their_graph_has() -> None:
    assert encoder_calls(batch=2, tokens=None, symbols=("B",))[0].bindings == {"B": 2}
    assert encoder_calls(batch=2, tokens=9, symbols=("B", "T"))[0].bindings == {"B": 2, "T": 9}
