"""`--fail-if`: what reads, what is refused, and what each name means."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchard.app.conditions import ConditionError, facts, parse_condition

PHASE = {
    "tokens": 100, "latency_s": 0.5, "interval_s": [0.4, 0.6], "bound_s": 0.3, "tokens_per_s": 200.0, "energy_j": 3.0,
    "bound_by": {"compute": 0.75, "memory": 0.25, "dispatch": 0.0},
}  # fmt: skip
ANSWER: dict[str, Any] = {
    "ttft_s": 0.5,
    "phases": {"prefill": PHASE, "decode": {**PHASE, "tokens": 10, "latency_s": 0.02, "energy_j": 0.5}},
    "memory": {"total_bytes": 3 * 10**9, "weights_bytes": 2**31, "kv_cache_bytes": 0, "limit_bytes": 4 * 10**9, "fits": True},
}  # fmt: skip


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("prefill.latency_ms>499", True),
        ("prefill.latency_ms > 501", False),
        ("decode.tokens_per_s<=200", True),
        ("ttft_ms>=500", True),
        ("latency_ms>699", True),  # 500 ms prompt + 10 tokens of 20 ms
        ("latency_ms>701", False),
        ("energy_j==8", True),  # 3 J + 10 tokens of 0.5 J
        ("memory_gb>2.9", True),
        ("weights_gib!=2", False),
        ("fits==false", False),
        ("fits != FALSE", True),
        ("prefill.compute_share>0.7", True),
        ("decode.high_ms<1e3", True),
    ],
)
def test_conditions_over_an_answer(text: str, holds: bool) -> None:
    assert parse_condition(text).holds(facts(ANSWER)) is holds


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("latency", "expected name, comparison and number"),
        ("latency_ms>fast", "no number"),
        ("latency_ms>nan", "no number"),
        ("latency_ms>inf", "no number"),
        ("fits>true", "compares with == or !="),
        ("__import__('os')>1", "expected name, comparison and number"),
        ("latency_ms>1 and fits==true", "expected name, comparison and number"),
        ("x" * 500 + ">1", "expected name, comparison and number"),
    ],
)
def test_refuses_what_is_no_comparison(text: str, says: str) -> None:
    with pytest.raises(ConditionError, match=says):
        parse_condition(text)


def test_an_unknown_name_names_the_nearest() -> None:
    with pytest.raises(ConditionError, match=r"no 'prefill\.latncy_ms'; did you mean prefill\.latency_ms"):
        parse_condition("prefill.latncy_ms>1").holds(facts(ANSWER))


def test_truth_values_do_not_compare_with_numbers() -> None:
    with pytest.raises(ConditionError, match="fits compares with true or false"):
        parse_condition("fits==1").holds(facts(ANSWER))


@given(st.text(max_size=40))
def test_any_text_reads_or_is_refused(text: str) -> None:
    with contextlib.suppress(ConditionError):
        parse_condition(text)
