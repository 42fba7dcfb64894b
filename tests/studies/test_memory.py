"""What has to be in memory at once, against a simulation that keeps every buffer by name."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import orchard
from orchard.hw import load_chip
from orchard.ir import Builder, Graph
from orchard.studies.memory import live_peak, memory_limit, memory_need
from orchard.units import number_format
from orchard.workloads import load_model

ops = st.lists(st.tuples(st.sampled_from(["add", "relu", "view"]), st.integers(0, 30), st.integers(0, 30)), max_size=14)


def random_graph(steps) -> Graph:
    b = Builder("g")
    made = [b.input("x", (4, 6))]
    for kind, first, second in steps:
        a, c = made[first % len(made)], made[second % len(made)]
        if kind == "view":
            made.append(b.view(a, (4, 6)))
        else:
            made.append(b.elementwise(kind, *((a, c) if kind == "add" else (a,))))
    return b.build([b.elementwise("relu", made[-1])])


def simulated_peak(graph: Graph) -> int:
    """Buffers by root name; one is needed at a step when it was made and something it backs is read now or later."""
    root: dict[str, str] = {t: t for t in graph.tensors}
    for op in graph.ops:
        if op.kind == "view":
            root[op.outputs[0]] = root[op.inputs[0]]
    born = {op.outputs[0]: i for i, op in enumerate(graph.ops) if op.kind != "view"}
    uses: dict[str, set[int]] = {name: {i} for name, i in born.items()}
    for i, op in enumerate(graph.ops):
        for name in op.inputs:
            uses.get(root[name], set()).add(i)
    for name in graph.outputs:
        uses.get(root[name], set()).add(len(graph.ops))
    size = 4 * 6 * 2
    return max(sum(size for n, b in born.items() if b <= i <= max(uses[n])) for i in range(len(graph.ops)))


@given(ops)
@settings(max_examples=200, deadline=None)
def test_live_peak_is_the_simulated_peak(steps) -> None:
    graph = random_graph(steps)
    assert live_peak(graph, {}) == simulated_peak(graph)


def test_a_view_keeps_its_storage() -> None:
    b = Builder("g")
    big = b.elementwise("relu", b.input("x", (100,)))
    seen = b.view(big, (10, 10))
    small = b.elementwise("relu", b.input("y", (100,)))
    graph = b.build([b.elementwise("add", b.view(small, (10, 10)), seen)])
    assert live_peak(graph, {}) == 3 * 200  # both operands and the sum


@pytest.mark.parametrize("kv", ["f16", "q8_0"])
def test_kv_cache_is_two_times_layers_heads_dim_context(kv: str) -> None:
    found = orchard.predict("llama-3.1-8b", "m4max", kv=kv, batch=2, prompt=100, generate=28, depth=1000).memory
    per_token = 2 * 32 * 8 * 128 * number_format(kv).bytes_per_element
    assert found.kv_cache == pytest.approx(2 * (1000 + 100 + 28) * per_token, rel=1e-6)


def test_a_sliding_window_holds_no_more_than_its_window() -> None:
    short, long = (orchard.predict("gemma-3-1b", "m4max", depth=d).memory.kv_cache for d in (8_000, 16_000))
    assert long < 1.9 * short  # only the global layers grow


def test_latent_attention_caches_its_latent() -> None:
    found = orchard.predict("deepseek-v2-lite", "m4max", prompt=1000, generate=0, weights="q4_k_m").memory
    assert found.kv_cache == 27 * 1000 * (512 + 64) * 2  # layers x tokens x (latent + rotary key) x f16


def test_total_and_fits() -> None:
    found = orchard.predict("llama-3.1-8b", "m4max", weights="q4_0").memory
    assert found.total == found.weights + found.kv_cache + found.activation_peak
    assert found.fits == (found.total <= found.limit)
    assert found.to_dict()["total_bytes"] == found.total


def test_what_does_not_fit_is_an_answer() -> None:
    found = orchard.predict("llama-3.1-70b", "m1", weights="f16", prompt=16, generate=4)
    assert not found.memory.fits
    assert any("does not fit: needs" in w and "m1" in w for w in found.warnings)
    assert found.phases["decode"].latency_s > 0


def test_the_gpu_may_use_less_than_the_cpu() -> None:
    soc = load_chip("m1max")
    assert memory_limit(soc, "gpu") < memory_limit(soc, "cpu") < soc["dram.capacity"]


def test_memory_grows_with_each_size() -> None:
    graph, soc = load_model("qwen3-0.6b").graph(), load_chip("m1")

    def need(b: int, t: int, s: int) -> int:
        at = {"B": b, "T": t, "S": s}
        return memory_need(graph, soc, "gpu", largest=at, final=at).total

    assert need(1, 1, 100) < need(1, 1, 200) < need(2, 1, 200) < need(2, 64, 200)
