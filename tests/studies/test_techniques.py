"""Techniques inside a prediction: composed costs, the verification curve, and what has no rule."""

from __future__ import annotations

import pytest

from orchard.studies.predict import Prediction, chip_of, make_plan, predict
from orchard.studies.request import Request
from orchard.studies.technique_runs import verification
from orchard.techniques import TechniqueError
from orchard.units import OrchardError

MODEL = "qwen3-0.6b"


def with_(*apply: str, chip: str = "m4", model: str = MODEL, **options: object) -> Prediction:
    return predict(model, chip, apply=apply, **{"weights": "f16", "runtime": "llama.cpp", **options})  # type: ignore[arg-type]


def test_grids_cost_what_their_format_costs() -> None:
    assert with_("gptq:group=64").phases["decode"].latency_s == with_("rtn:bits=4,group=64").phases["decode"].latency_s


def test_techniques_compose() -> None:
    both = with_("palettize:bits=4,group=16", "kv-quant:bits=8", runtime=None, depth=4096)
    one = with_("palettize:bits=4,group=16", runtime=None, depth=4096)
    assert both.profile.engine == "ane"
    assert both.techniques == ("palettize:bits=4,group=16,vector=1", "kv-quant:bits=8")
    assert both.weight_bytes == one.weight_bytes
    assert both.memory.kv_cache == pytest.approx(one.memory.kv_cache * 8.5 / 16)  # q8_0: 8.5 bits
    assert both.phases["decode"].latency_s < one.phases["decode"].latency_s


def test_a_cache_format_by_technique_equals_the_option() -> None:
    assert with_("kv-quant:bits=4").phases["decode"].latency_s == with_(kv="q4_0").phases["decode"].latency_s


def test_speculation_follows_its_formula() -> None:
    """Decode per token = (g c + v(g + 1)) / E of the plain pass, with v from the engine model."""
    plain, found = with_(), with_("early-exit:exit=4,tokens=3,acceptance=0.5")
    request = found.request
    curve = verification(make_plan(request), request, chip_of(request), (1, 4))
    expected = 1 + 0.5 + 0.25 + 0.125
    verify = curve[4] * plain.phases["decode"].latency_s
    draft = found.phases["decode"].latency_s * expected - verify
    assert 0 < draft < 3 * plain.phases["decode"].latency_s
    assert curve[1] == 1.0
    phase = found.phases["decode"]
    assert sum(phase.bound_by.values()) == pytest.approx(1)
    assert sum(k.seconds for k in phase.kernels) < phase.latency_s * 1.001  # call_s is no kernel's
    assert phase.bound_s <= phase.latency_s


def test_a_perfect_free_draft_gains_what_verification_leaves() -> None:
    found, plain = with_("multi-token-heads:tokens=3,acceptance=1,cost=0"), with_()
    request = plain.request
    v = verification(make_plan(request), request, chip_of(request), (4,))[4]
    gain = plain.phases["decode"].latency_s / found.phases["decode"].latency_s
    assert gain == pytest.approx(4 / v, rel=1e-6)


def test_matrix_units_make_verification_cheaper() -> None:
    curves = []
    for chip in ("m1pro", "m5pro"):
        request = Request(model="llama-3.1-8b", chip=chip, weights="q4_0")
        curves.append(verification(make_plan(request), request, chip_of(request), (5,))[5])
    assert curves[0] > 1.5 > curves[1] >= 1.0


def test_activation_sparsity_saves_bytes_of_one_row_only() -> None:
    plain, found = with_(), with_("activation-sparsity:sparsity=0.5")
    assert found.phases["decode"].dram_bytes < plain.phases["decode"].dram_bytes
    assert found.phases["prefill"].latency_s == plain.phases["prefill"].latency_s
    with pytest.raises(TechniqueError, match="price one sequence"):
        with_("activation-sparsity", batch=2)


def test_weights_in_flash_bound_decode_by_flash() -> None:
    found = with_("flash-offload:resident=0,ssd=1")
    assert found.phases["decode"].latency_s == pytest.approx(with_().memory.weights / 1e9)
    assert found.memory.weights == 0


def test_batching_and_steps_are_run_parameters() -> None:
    assert with_("batching:size=4").phases["decode"].latency_s == with_(batch=4).phases["decode"].latency_s
    few = predict("stable-diffusion-1.5", "m4", apply=["step-reduction:steps=4"])
    assert few.steps == 4
    cached = predict("stable-diffusion-1.5", "m4", apply=["feature-cache:interval=3"])
    whole = predict("stable-diffusion-1.5", "m4")
    assert 1.0 < whole.phases["inference"].latency_s / cached.phases["inference"].latency_s < 3.0


def test_plain_attention_writes_its_scores() -> None:
    plain, fused = with_("flash-attention:on=false", prompt=2048), with_(prompt=2048)
    assert plain.phases["prefill"].dram_bytes > fused.phases["prefill"].dram_bytes
    assert plain.phases["prefill"].latency_s > fused.phases["prefill"].latency_s


@pytest.mark.parametrize(
    ("apply", "options", "message"),
    [
        ("activation-sparsity", {"engine": "ane", "runtime": None}, "no cost rule on ane"),
        ("k-quant", {"engine": "ane", "runtime": "coreml"}, "no kernels for formats of llama.cpp"),
        ("feature-cache", {}, "no denoiser"),
        ("expert-offload", {}, "has no experts"),
        ("early-exit:exit=99", {}, "28 layers"),
        ("eagle", {"generate": 0}, "--generate is 0"),
        ("eagle", {"batch": 2}, "price one"),
        ("eagle", {"fidelity": "simulation"}, "the simulator has no rule"),
        ("speculative:draft=resnet50", {}, "no language model"),
    ],
)
def test_what_has_no_rule_is_an_error(apply: str, options: dict[str, object], message: str) -> None:
    with pytest.raises(OrchardError, match=message):
        with_(apply, **options)
