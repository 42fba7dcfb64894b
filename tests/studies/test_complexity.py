"""Closed forms against the counts of the bound graph, against the prediction, and against arithmetic done by hand."""

from __future__ import annotations

import pytest
import sympy
from hypothesis import given, settings
from hypothesis import strategies as st

from orchard.cost.bound import call_ops, compulsory_bytes, peak_ops_per_s
from orchard.cost.lower import Lowering, lower
from orchard.cost.work import work_of_graph
from orchard.hw import HardwareArrays, load_chip
from orchard.ir import value_of
from orchard.studies.complexity import complexity, phase_forms
from orchard.studies.predict import make_plan, predict
from orchard.studies.request import Request
from orchard.workloads import load_model

MODELS = ("qwen3-4b", "gemma-3-4b", "qwen3-30b-a3b", "deepseek-coder-v2-lite")


def request(model: str, **fields: object) -> Request:
    return Request(model=model, chip="m4max", **{"weights": "q4_0", **fields})  # type: ignore[arg-type]


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize(("phase", "sizes"), [("prefill", (3, 40, 40)), ("prefill", (1, 2000, 2000)), ("decode", (2, 1, 1500))])
def test_forms_equal_the_counts_of_the_bound_graph(model: str, phase: str, sizes: tuple[int, int, int]) -> None:
    graph = load_model(model).graph(weights="q4_0")
    forms = {f.phase: f for f in phase_forms(graph)}[phase]
    bound = dict(zip("BTS", sizes))
    counted = work_of_graph(graph.bind(bound))
    assert value_of(forms.ops, bound) == pytest.approx(float(counted.ops), rel=1e-12)
    assert value_of(forms.weight_bytes, bound) == pytest.approx(float(counted.weight_bytes), rel=1e-12)
    both = forms.state_bytes + forms.activation_bytes
    assert value_of(both, bound) == pytest.approx(float(counted.state_bytes + counted.input_bytes + counted.output_bytes))


@settings(max_examples=15, deadline=None)
@given(batch=st.integers(1, 64), tokens=st.integers(1, 300), cached=st.integers(0, 3000))
def test_touched_bytes_are_what_the_bound_moves(batch: int, tokens: int, cached: int) -> None:
    """The bound reads weights and caches off fused kernels, the forms off single ops: the sums are the same bytes."""
    graph = load_model("qwen3-4b").graph(weights="q4_0")
    sizes = {"B": batch, "T": tokens, "S": cached + tokens}
    kernels = lower(graph, Lowering()).evaluate(sizes)
    from orchard.studies.complexity import _forms

    whole = _forms("any", graph)
    assert value_of(whole.touched_bytes, sizes) == pytest.approx(compulsory_bytes(kernels), rel=1e-9)
    assert call_ops(kernels) <= value_of(whole.ops, sizes) * (1 + 1e-9)  # the bound leaves softmax inside attention out


def test_cache_per_token_by_hand() -> None:
    """Qwen3 4B: 36 layers x 2 (K, V) x 8 heads x 128 x 2 bytes."""
    assert complexity(request("qwen3-4b"), with_chip=False).cache_bytes_per_token == 36 * 2 * 8 * 128 * 2


def test_decode_ops_by_hand() -> None:
    """The slope in context: scores and values are one MAC each per head dim, softmax 5 ops: 36 x 32 x (2 x 2 x 128 + 5)."""
    forms = complexity(request("qwen3-4b"), with_chip=False).phases[-1]
    one, two = (value_of(forms.ops, {"B": 1, "S": s}) for s in (1000, 1001))
    assert two - one == 36 * 32 * (2 * 2 * 128 + 5)


def test_sympy_text_reads_back() -> None:
    found = complexity(request("qwen3-30b-a3b"), with_chip=False)
    decode = found.phases[-1]
    B, S = sympy.symbols("B S", positive=True, integer=True)
    for name, text in decode.sympy_text().items():
        value = float(sympy.sympify(text, locals={"B": B, "S": S}).subs({B: 7, S: 900}))
        expected = decode.intensity(B=7, S=900) if name == "intensity" else value_of(getattr(decode, name), {"B": 7, "S": 900})
        assert value == pytest.approx(expected, rel=1e-9)


def test_the_batch_where_the_bound_changes() -> None:
    """Below the crossing memory takes longer, at it compute does; by the definition of the bound, not by the search."""
    asked = request("llama-3.1-8b", prompt=512)
    (crossing,) = [c for c in complexity(asked).machine.crossings if c.phase == "decode"]  # type: ignore[union-attr]
    assert crossing.bound is not None
    assert crossing.bound > 1
    plan, hw = make_plan(asked), HardwareArrays.of(load_chip("m4max"))

    def compute_longer(batch: int) -> bool:
        counts = plan.table.evaluate({"B": batch, "T": 1, "S": 512})
        return call_ops(counts) / peak_ops_per_s(counts, hw, "gpu") >= compulsory_bytes(counts) / float(hw["dram.bandwidth"])

    assert [compute_longer(b) for b in (crossing.bound - 1, crossing.bound)] == [False, True]


def test_context_at_which_the_cache_outweighs_the_weights() -> None:
    found = complexity(request("llama-3.1-8b"))
    context = found.machine.cache_equals_weights  # type: ignore[union-attr]
    decode = found.phases[-1]
    assert context is not None
    weights = value_of(decode.weight_bytes, {"B": 1})
    assert value_of(decode.state_bytes, {"B": 1, "S": context}) >= weights
    assert value_of(decode.state_bytes, {"B": 1, "S": context - 1}) < weights


def test_an_encoder_has_one_phase() -> None:
    assert [f.phase for f in complexity(request("bert-base-uncased", weights="f16"), with_chip=False).phases] == ["inference"]


def test_forms_and_prediction_tell_the_same_story() -> None:
    """Ops per byte above the ridge means the prediction's bound is set by compute."""
    found = complexity(request("llama-3.1-8b"))
    assert found.machine is not None
    prediction = predict("llama-3.1-8b", "m4max", weights="q4_0")
    assert found.phases[0].intensity(B=1, T=512) > found.machine.ridge
    assert prediction.phases["prefill"].bound_s == pytest.approx(
        prediction.phases["prefill"].ops / found.machine.peak_ops_per_s, rel=0.02
    )
