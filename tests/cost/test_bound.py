"""The physical bound: nothing is faster, on any chip, for any format; measured rows included."""

from __future__ import annotations

import time

import numpy as np
import pytest

import orchard
from orchard.cost.bound import all_ops, call_ops, compulsory_bytes, phase_bound
from orchard.cost.evaluate import Call
from orchard.cost.lower import Lowering, lower
from orchard.hw import HardwareArrays, chip_ids, load_chip
from orchard.units import OrchardError
from orchard.workloads import load_model

UNKNOWN = ("gpu", "ane")
ENGINES = {"gpu": "q4_k_m", "cpu": "q8_0", "ane": "pal4"}


@pytest.mark.parametrize("chip", chip_ids())
def test_bound_is_below_the_estimate_on_every_chip(chip: str) -> None:
    for engine, weights in ENGINES.items():
        def ask(engine: str = engine, weights: str = weights) -> orchard.Prediction:
            return orchard.predict("qwen3-0.6b", chip, engine=engine, weights=weights, prompt=64, generate=16)

        if chip.startswith("a20") and engine in UNKNOWN:  # figures nobody has published
            with pytest.raises(OrchardError, match=f"(?s)^[^\n]*{chip}[^\n]*$"):
                ask()
            continue
        found = ask()
        for phase in found.phases.values():
            assert 0 < phase.bound_s <= phase.latency_s
            assert phase.bound_s <= phase.interval_s[0] <= phase.latency_s <= phase.interval_s[1]


@pytest.mark.parametrize("model", ["qwen3-30b-a3b", "deepseek-v2-lite", "qwen3.5-0.8b", "gemma-3-1b", "gpt2"])
@pytest.mark.parametrize("weights", ["f16", "q8_0", "q4_0", "q4_k_m", "mlx-4bit-g64"])
def test_bound_is_below_the_estimate_for_every_model_and_format(model: str, weights: str) -> None:
    for chip in ("m1", "m2ultra_gpu60", "m5"):
        for batch, depth in ((1, 0), (4, 2000)):
            found = orchard.predict(model, chip, engine="gpu", weights=weights, batch=batch, depth=depth, prompt=40)
            for phase in found.phases.values():
                assert 0 < phase.bound_s <= phase.latency_s


def test_the_bound_is_the_larger_of_two_divisions() -> None:
    table = lower(load_model("llama-3.1-8b").graph(), Lowering())
    hw = HardwareArrays.of(load_chip("m1max"))
    call = Call({"B": 1, "T": 1, "S": 100})
    counts = table.evaluate(call.bindings)
    expected = compulsory_bytes(counts) / float(hw["dram.bandwidth"])
    assert float(phase_bound(table, [call], hw, "gpu", 0.0)) == pytest.approx(expected)  # decode streams
    assert float(phase_bound(table, [Call(call.bindings, 7.0)], hw, "gpu", 0.0)) == pytest.approx(7 * expected)
    wide = Call({"B": 1, "T": 512, "S": 512})
    peak = max(float(hw["gpu.fp16"]), float(hw["gpu.fp32"]))
    ops = call_ops(table.evaluate(wide.bindings))
    assert float(phase_bound(table, [wide], hw, "gpu", 0.0)) == pytest.approx(ops / peak)  # prefill computes


def test_a_cache_can_only_lower_the_bound() -> None:
    table = lower(load_model("qwen3-0.6b").graph(), Lowering())
    hw = HardwareArrays.of(load_chip("m1max"))
    calls = [Call({"B": 1, "T": 1, "S": 10})]
    bounds = [float(phase_bound(table, calls, hw, "gpu", size)) for size in (0.0, 1e6, 1e9, 1e12)]
    assert bounds == sorted(bounds, reverse=True)
    assert bounds[-1] > 0  # operations remain


def test_counted_operations_include_what_a_bound_leaves_out() -> None:
    counts = lower(load_model("qwen3-0.6b").graph(), Lowering()).evaluate({"B": 1, "T": 32, "S": 32})
    softmax = float((counts.vector_ops * counts.count)[~counts.mask("vector", "scan")].sum())
    assert all_ops(counts) == pytest.approx(call_ops(counts) + softmax)
    assert softmax > 0


def test_variants_of_a_chip_have_a_bound_each() -> None:
    table = lower(load_model("qwen3-0.6b").graph(), Lowering())
    hw = HardwareArrays.of(load_chip("m1"), {"dram.bandwidth": np.array([1e11, 2e11])})
    bound = phase_bound(table, [Call({"B": 1, "T": 1, "S": 10})], hw, "gpu", 0.0)
    assert bound.shape == (2,)
    assert bound[0] == pytest.approx(2 * bound[1])


def test_a_repeated_prediction_is_fast() -> None:
    def once() -> float:
        start = time.process_time()
        orchard.predict("llama-3.1-8b", "m4max", weights="q4_k_m")
        return time.process_time() - start

    once()
    assert min(once() for _ in range(10)) < 0.015  # the goal is 5 ms; a busy machine gets some slack
