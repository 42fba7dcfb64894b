"""The prediction contract: fields, sums, orders, refusals."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

import orchard
from orchard.studies.errors import StudyError
from orchard.studies.predict import predict_variants, stratum
from orchard.studies.request import Request
from orchard.units import OrchardError
from orchard.workloads import load_model

CONTRACT = {
    "schema", "model", "chip", "runtime", "engine", "fidelity", "phases", "memory", "warnings",
}  # fmt: skip
PHASE = {
    "tokens", "latency_s", "interval_s", "bound_s", "tokens_per_s", "energy_j", "ops", "dram_bytes", "bound_by",
}  # fmt: skip
MEMORY = {
    "weights_bytes", "kv_cache_bytes", "activation_peak_bytes", "total_bytes", "limit_bytes", "fits",
}  # fmt: skip


@pytest.fixture(scope="module")
def llama() -> orchard.Prediction:
    return orchard.predict("llama-3.1-8b", "m4max", weights="q4_k_m")


def test_the_json_has_the_fields_people_script_against(llama) -> None:
    found = json.loads(json.dumps(llama.to_dict(), allow_nan=False))
    assert set(found) >= CONTRACT
    assert found["schema"] == "orchard.prediction/1"
    assert set(found["model"]) == {"name", "params", "weight_bytes"}
    assert set(found["chip"]) >= {"id", "overrides"}
    assert set(found["phases"]) == {"prefill", "decode"}
    for phase in found["phases"].values():
        assert set(phase) >= PHASE
        assert set(phase["bound_by"]) == {"compute", "memory", "dispatch"}
        assert sum(phase["bound_by"].values()) == pytest.approx(1)
    assert set(found["memory"]) == MEMORY


def test_rates_and_latencies_agree(llama) -> None:
    prefill, decode = llama.phases["prefill"], llama.phases["decode"]
    assert prefill.tokens_per_s == pytest.approx(512 / prefill.latency_s)
    assert decode.tokens_per_s == pytest.approx(1 / decode.latency_s)  # latency is per token
    assert llama.ttft_s == prefill.latency_s
    assert decode.tokens == 128


def test_a_breakdown_sums_to_its_phase(llama) -> None:
    for name, phase in llama.phases.items():
        calls = 1  # 512 tokens are one chunk, decode is one step
        overhead = llama.profile.values()["call_s"] * calls
        assert sum(k.seconds for k in phase.kernels) + overhead == pytest.approx(phase.latency_s), name
        assert sum(k.ops for k in phase.kernels) == pytest.approx(phase.ops), name
        assert sum(k.bytes for k in phase.kernels) == pytest.approx(phase.dram_bytes), name
        for k in phase.kernels:
            assert k.seconds == pytest.approx(k.compute_s + k.memory_s + k.dispatch_s)
        assert [k.seconds for k in phase.kernels] == sorted((k.seconds for k in phase.kernels), reverse=True)


def test_batch_rates_sum_over_sequences() -> None:
    found = orchard.predict("qwen3-0.6b", "m1", batch=4, prompt=32, generate=8)
    prefill, decode = found.phases["prefill"], found.phases["decode"]
    assert prefill.tokens_per_s == pytest.approx(4 * 32 / prefill.latency_s)
    assert decode.tokens_per_s == pytest.approx(4 / decode.latency_s)
    alone = orchard.predict("qwen3-0.6b", "m1", prompt=32, generate=8)
    assert alone.phases["decode"].latency_s < decode.latency_s < 4 * alone.phases["decode"].latency_s


def test_a_phase_without_tokens_is_left_out() -> None:
    assert set(orchard.predict("qwen3-0.6b", "m1", prompt=0).phases) == {"decode"}
    only = orchard.predict("qwen3-0.6b", "m1", generate=0)
    assert set(only.phases) == {"prefill"}
    assert orchard.predict("qwen3-0.6b", "m1", prompt=0).ttft_s is None


def test_depth_makes_both_phases_slower() -> None:
    shallow, deep = (orchard.predict("qwen3-4b", "m1", depth=d) for d in (0, 8192))
    for name in ("prefill", "decode"):
        assert deep.phases[name].latency_s > shallow.phases[name].latency_s


def test_decode_after_a_prompt_is_decode_at_that_depth() -> None:
    a = orchard.predict("qwen3-0.6b", "m1", prompt=1000, generate=10).phases["decode"]
    b = orchard.predict("qwen3-0.6b", "m1", prompt=0, depth=1000, generate=10).phases["decode"]
    assert a == b  # intervals included


def test_bound_is_an_answer_of_its_own() -> None:
    bound = orchard.predict("qwen3-0.6b", "m1", fidelity="bound")
    estimate = orchard.predict("qwen3-0.6b", "m1")
    for name, phase in bound.phases.items():
        assert phase.latency_s == phase.bound_s == estimate.phases[name].bound_s <= estimate.phases[name].latency_s
        assert phase.interval_s == (phase.bound_s, phase.bound_s)


def test_strata_of_a_prediction_are_those_of_the_measurements() -> None:
    assert stratum("decode", is_moe=False, depth=64) == "decode"
    assert stratum("decode", is_moe=False, depth=1024) == "decode-deep"
    assert stratum("prefill", is_moe=False, tokens=16) == "small-batch"
    assert stratum("prefill", is_moe=False, batch=2) == "small-batch"
    assert stratum("decode", is_moe=True, batch=2) == "decode-moe"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"prompt": -1}, r"prompt: got -1, expected 0 to \d+"),
        ({"batch": 0}, "batch: got 0, expected 1 to"),
        ({"generate": 10**12}, "generate: got 1000000000000, expected"),
        ({"depth": 1.5}, "depth: got 1.5, expected a whole number"),
        ({"batch": True}, "batch: got True, expected a whole number"),
        ({"threads": 0}, "threads: got 0"),
        ({"prompt": 0, "generate": 0}, "nothing to predict"),
        ({"fidelity": "guess"}, "fidelity 'guess' is not known"),
        ({"kv": 16}, "kv: got 16, expected text"),
        ({"weights": "q4_k_x"}, "q4_k_x.*q4_k"),
        ({"kv": "q99"}, "q99"),
        ({"runtime": "llama"}, "runtime 'llama' is not known"),
        ({"engine": "tpu"}, "engine 'tpu' is not known"),
        ({"chip": "m1maxx"}, "m1max"),
        ({"model": "llama-3.1-9b"}, "llama-3.1-8b"),
        ({"overrides": {"gpu.coores": 4}}, r"gpu\.cores"),
        ({"overrides": {"dram.bandwidth": -4}}, "dram.bandwidth"),
    ],
)  # fmt: skip
def test_what_cannot_be_answered_is_one_sentence(change, message: str) -> None:
    request = {"model": "qwen3-0.6b", "chip": "m1", **change}
    with pytest.raises(OrchardError, match=message) as error:
        orchard.predict(**request)
    assert "\n" not in str(error.value)


def test_a_request_refuses_what_it_cannot_hold() -> None:
    with pytest.raises(StudyError, match="model: got None"):
        Request(model=None, chip="m1")  # type: ignore[arg-type]


# many variants


@pytest.mark.parametrize("engine", ["gpu", "cpu", "ane"])
def test_an_override_is_one_element_of_the_variants(engine: str) -> None:
    rates = np.array([50e9, 100e9, 273e9])
    request = Request(model="qwen3-0.6b", chip="m4pro", engine=engine, prompt=20, generate=4)
    together = predict_variants(request, {"dram.bandwidth": rates})
    for i, rate in enumerate(rates):
        alone = orchard.predict(
            "qwen3-0.6b", "m4pro", engine=engine, prompt=20, generate=4, overrides=[f"dram.bandwidth={rate / 1e9}GB/s"]
        )
        for name, phase in alone.phases.items():
            assert float(together[name].total[i]) == pytest.approx(phase.latency_s, rel=1e-9)


def test_a_parameter_the_engine_does_not_read_gives_equal_times_of_the_asked_shape() -> None:
    request = Request(model="qwen3-0.6b", chip="m1", engine="cpu", prompt=8, generate=2)
    for phase in predict_variants(request, {"gpu.cores": np.array([4.0, 8.0, 16.0])}).values():
        for part in (phase.total, phase.compute, phase.memory, phase.dispatch):
            assert part.shape == (3,)
            assert len(set(part.tolist())) == 1


# models that are not language models


def test_bert_is_one_inference_over_its_tokens() -> None:
    found = orchard.predict("bert-base-uncased", "m1", prompt=128)
    assert set(found.phases) == {"inference"}
    phase = found.phases["inference"]
    assert phase.tokens == 128
    assert found.memory.kv_cache == 0
    matrices = 12 * (4 * 768**2 + 2 * 768 * 3072)
    attention = 12 * 2 * 128 * 128 * 768
    products = 2 * (matrices * 128 + attention + 768**2)  # and the pooler
    assert products < phase.ops < 1.03 * products  # the rest are norms, activations and softmax


def test_vit_has_a_fixed_size_whatever_the_prompt() -> None:
    a, b = (orchard.predict("google/vit-base-patch16-224", "m1", prompt=p) for p in (1, 500))
    assert a.phases == b.phases
    assert a.phases["inference"].tokens == 1
    assert 2 * 17.0e9 < a.phases["inference"].ops < 2 * 18.2e9  # 17.6 GMACs in the papers


@pytest.mark.parametrize("size", ["tiny", "small", "large-v3"])
def test_whisper_runs_its_encoder_and_its_decoder(size: str) -> None:
    name = f"openai/whisper-{size}"
    found, model = orchard.predict(name, "m4", generate=100), load_model(name)
    assert set(found.phases) == {"inference", "decode"}
    assert found.weight_bytes == found.memory.weights == model.weight_bytes("f16")
    config = model.config
    assert found.memory.kv_cache == 2 * config.decoder.layers * config.hidden * 2 * (config.source.positions + 100)
    decode = found.phases["decode"]
    assert decode.tokens == 100
    assert decode.bound_s <= decode.latency_s
    assert found.ttft_s is None
    assert decode.latency_s < found.phases["inference"].latency_s
    assert json.dumps(found.to_dict(breakdown=True), allow_nan=False)


def test_whisper_s_encoder_alone_says_so() -> None:
    found = orchard.predict("openai/whisper-tiny", "m4", generate=0)
    assert set(found.phases) == {"inference"}
    assert any("decoder" in w for w in found.warnings)


def test_whisper_s_variants_price_both_graphs() -> None:
    request = Request(model="openai/whisper-tiny", chip="m4", generate=10)
    times = predict_variants(request, {"dram.bandwidth": np.array([6e10, 1.2e11])})
    alone = orchard.predict("openai/whisper-tiny", "m4", generate=10)
    for name, phase in alone.phases.items():
        assert float(times[name].total[1]) == pytest.approx(phase.latency_s)


@pytest.mark.parametrize(
    ("model", "sizes"), [("openai/whisper-tiny", {"generate": 449}), ("bert-base-uncased", {"prompt": 513})]
)
def test_more_tokens_than_positions_is_said(model: str, sizes) -> None:
    warned = orchard.predict(model, "m4", **sizes).warnings
    assert any("the model was made for" in w for w in warned)
    assert not any("made for" in w for w in orchard.predict(model, "m4", prompt=8, generate=8).warnings)


# energy


def test_energy_sums_and_is_labelled_wide(llama) -> None:
    for phase in llama.phases.values():
        low, high = phase.energy_interval_j
        assert low < phase.energy_j < high
        assert math.isfinite(phase.energy_j)
        assert 1 < phase.energy_j / phase.latency_s < 120  # watts of a laptop chip
