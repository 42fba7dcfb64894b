"""From ops to kernels: nothing is lost, nothing counts twice, waits follow the graph's depth."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from orchard.cost.engines.gpu import expected_tiles
from orchard.cost.lower import COUNTS, Lowering, concatenate, layer_group, lower, token
from orchard.cost.profile import load_profile, profile_names
from orchard.cost.work import tensor_bytes, work_of
from orchard.ir import Builder, Graph, value_of
from orchard.workloads import load_model

MODELS = ["qwen3-0.6b", "qwen3-30b-a3b", "deepseek-v2-lite", "qwen3.5-0.8b", "gemma-3-1b", "bert-base-uncased"]
PLAIN = Lowering(fused_attention=False)
AT = {"B": 1, "T": 8, "S": 40}


def bound(name: str) -> Graph:
    graph = load_model(name).graph(weights="q8_0")
    return graph.bind({k: v for k, v in AT.items() if k in graph.symbols})


def rule_sets() -> dict[str, Lowering]:
    return {name: load_profile(name).lowering for name in profile_names()}


def kernels_of(graph: Graph, rules: Lowering):
    """(kernel, op names) of every launch before merging: a graph whose layers all differ in scope is not needed."""
    from orchard.cost import lower as module

    found = module._Grouper(graph, rules).groups()
    return [(module._kernel(graph, group, rules, module.cached_tensors(graph)), group) for group in found]


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("profile", ["llama.cpp-gpu", "llama.cpp-gpu-2023", "coreml-ane"])
def test_every_op_is_in_exactly_one_group_and_only_views_launch_nothing(name: str, profile: str) -> None:
    graph, rules = bound(name), rule_sets()[profile]
    groups = kernels_of(graph, rules)
    seen = Counter(op.name for _, group in groups for op in group)
    assert seen == Counter(op.name for op in graph.ops)
    for kernel, group in groups:
        if kernel is None:
            assert all(op.kind == "view" or token(op) in rules.free or op.kind in rules.free for op in group)


@pytest.mark.parametrize("name", MODELS)
def test_launches_are_the_depth_where_kernels_overlap_and_their_number_where_not(name: str) -> None:
    graph = bound(name)
    ordered, overlapped = (lower(graph, Lowering(concurrent=c)) for c in (False, True))
    launched = sum(k is not None for k, _ in kernels_of(graph, Lowering()))
    assert sum(k.count for k in ordered.kernels) == sum(k.count for k in overlapped.kernels) == launched
    assert sum(k.launches for k in ordered.kernels) == launched
    assert sum(k.launches for k in overlapped.kernels) == pytest.approx(overlapped.depth)
    assert overlapped.depth == longest_path(graph, Lowering()) <= launched


def longest_path(graph: Graph, rules: Lowering) -> int:
    """Independent depth: memoised recursion over groups, in kernels."""
    groups = kernels_of(graph, rules)
    home = {op.name: i for i, (_, group) in enumerate(groups) for op in group}
    producer = {n: op.name for op in graph.ops for n in op.outputs}
    before = [
        {home[producer[n]] for op in group for n in op.inputs if n in producer} - {i}
        for i, (_, group) in enumerate(groups)
    ]
    depth: dict[int, int] = {}
    for i, (kernel, _) in enumerate(groups):  # groups come in an order that runs
        depth[i] = max((depth[j] for j in before[i]), default=0) + (kernel is not None)
    return max(depth.values())


@pytest.mark.parametrize("name", MODELS)
def test_without_fusion_kernels_hold_the_counts_of_their_ops(name: str) -> None:
    graph = bound(name)
    table = lower(graph, PLAIN).evaluate({})
    ops = [work_of(op, graph) for op in graph.ops if op.kind != "view"]
    for term in ("weight_bytes", "state_bytes", "input_bytes", "output_bytes"):
        expected = sum(float(getattr(w, term)) for w in ops)
        assert float((table.counts[term] * table.count).sum()) == pytest.approx(expected), term
    # An Einsum that only streams is priced on the vector lanes: its MACs move from one column to the other.
    both = sum(float(w.macs + w.vector_ops) for w in ops)
    assert float(((table.macs + table.vector_ops) * table.count).sum()) == pytest.approx(both)
    assert float((table.macs * table.count).sum()) <= sum(float(w.macs) for w in ops)


@pytest.mark.parametrize("name", MODELS)
def test_fusion_removes_the_traffic_of_inner_tensors_and_no_work(name: str) -> None:
    graph = bound(name)
    rules = Lowering(
        fused_attention=False, chains=(("elementwise.silu", "elementwise.mul"),), epilogues=("elementwise.add",)
    )
    plain, fused = lower(graph, PLAIN).evaluate({}), lower(graph, rules).evaluate({})
    inner = 0.0
    for _, group in kernels_of(graph, rules):
        for op, following in zip(group, group[1:]):
            assert op.outputs[0] in following.inputs
            inner += float(tensor_bytes(graph.tensors[op.outputs[0]]))

    def total(arrays, *terms: str) -> float:
        return float(sum((arrays.counts[t] * arrays.count).sum() for t in terms))

    assert total(fused, "macs", "vector_ops") == pytest.approx(total(plain, "macs", "vector_ops"))
    assert total(fused, "weight_bytes") == pytest.approx(total(plain, "weight_bytes"))
    moved = total(plain, "input_bytes", "output_bytes") - total(fused, "input_bytes", "output_bytes")
    assert moved == pytest.approx(2 * inner)  # written once and read once


def test_fused_attention_keeps_scores_on_chip_and_reads_the_cache_once() -> None:
    graph = load_model("qwen3-0.6b").graph()
    at = {"B": 1, "T": 4, "S": 100}
    heads, kv_heads, dim, layers = 16, 8, 128, 28
    fused = [k for k in lower(graph, Lowering()).kernels if k.kind == "attention"]
    assert sum(k.count for k in fused) == layers
    for kernel in fused:
        assert value_of(kernel.state_bytes, at) == 2 * 2 * 100 * kv_heads * dim  # keys and values, f16
        assert value_of(kernel.input_bytes, at) == value_of(kernel.output_bytes, at) == 2 * 4 * heads * dim
        assert value_of(kernel.macs, at) == 2 * heads * dim * (97 + 98 + 99 + 100)
        assert (value_of(kernel.heads, at), value_of(kernel.kv_heads, at)) == (heads, kv_heads)
    split = lower(graph, PLAIN)
    assert not [k for k in split.kernels if k.kind == "attention"]
    assert sum(k.count for k in split.kernels) > sum(k.count for k in lower(graph, Lowering()).kernels)
    macs = [(t.evaluate(at).macs * t.evaluate(at).count).sum() for t in (split, lower(graph, Lowering()))]
    assert macs[0] == macs[1]


def test_an_encoder_s_keys_are_activations_not_state() -> None:
    table = lower(load_model("clip-vit-base-patch32").graph(), Lowering()).evaluate({"B": 1, "T": 8})
    assert float(table.state_bytes.sum()) == 0.0


def test_equal_layers_are_one_row_with_a_count() -> None:
    table = lower(load_model("llama-3.1-8b").graph(), Lowering())
    ffn = [k for k in table.kernels if k.name.endswith("ffn.up") or k.part == "ffn_up"]
    assert [k.count for k in ffn] == [32]
    assert len(table.kernels) < 40


def test_shapes_of_a_product_are_rows_columns_and_depth() -> None:
    b = Builder("g")
    x, w = b.input("x", (2, 3, 64)), b.weight("w", (64, 32), part="ffn_up")
    (kernel,) = lower(b.build([b.linear(x, w)]), Lowering()).kernels
    assert (kernel.kind, kernel.batch, kernel.rows, kernel.columns, kernel.depth) == ("linear", 1, 6, 32, 64)
    assert kernel.macs == kernel.batch * kernel.rows * kernel.columns * kernel.depth


def test_a_reader_outside_keeps_a_chain_apart() -> None:
    rules = Lowering(chains=(("elementwise.silu", "elementwise.mul"),))
    b = Builder("g")
    s = b.elementwise("silu", b.input("x", (4,)))
    together = lower(b.build([b.elementwise("mul", s, b.input("y", (4,)))]), rules)
    assert [k.count for k in together.kernels] == [1]
    b = Builder("g")
    s = b.elementwise("silu", b.input("x", (4,)))
    m = b.elementwise("mul", s, b.input("y", (4,)))
    apart = lower(b.build([b.elementwise("add", m, s)]), rules)
    assert sum(k.count for k in apart.kernels) == 3


def test_concatenated_kernels_keep_their_counts() -> None:
    table = lower(load_model("qwen3-0.6b").graph(), Lowering())
    parts = [table.evaluate({"B": 1, "T": 1, "S": s}) for s in (10, 20)]
    both = concatenate(parts)
    for name in COUNTS:
        assert np.array_equal(both.counts[name], np.concatenate([p.counts[name] for p in parts]))
    assert len(both) == 2 * len(parts[0])


@pytest.mark.parametrize(
    ("scope", "group"), [("layers.3.attn", "attn"), ("head", "head"), ("", "other"), ("layers.0.ffn.experts", "ffn")]
)
def test_layer_groups(scope: str, group: str) -> None:
    assert layer_group(scope) == group


# routed experts


@given(st.integers(1, 600), st.sampled_from([1 / 128, 8 / 128, 2 / 8, 0.5]), st.sampled_from([8, 16, 32]))
@settings(max_examples=60, deadline=None)
def test_expected_tiles_is_the_binomial_expectation(tokens: int, share: float, tile: int) -> None:
    loads = np.arange(tokens + 1)
    exact = float((np.ceil(loads / tile) * binom.pmf(loads, tokens, share)).sum())
    assert expected_tiles(tokens, share, tile) == pytest.approx(exact, rel=1e-6, abs=1e-9)


def test_expected_tiles_of_a_simulated_router() -> None:
    loads = np.random.default_rng(3).binomial(512, 8 / 128, size=20_000)
    assert expected_tiles(512, 8 / 128, 32) == pytest.approx(np.ceil(loads / 32).mean(), rel=0.02)


def test_an_expert_that_gets_every_token_needs_the_tiles_of_a_dense_product() -> None:
    assert expected_tiles(65, 1.0, 32) == 3


def test_distinct_experts_of_a_simulated_router() -> None:
    """Uniform routing without replacement per token, as the closed form assumes."""
    rng = np.random.default_rng(1)
    experts, active, tokens = 128, 8, 16
    seen = [len(np.unique(rng.random((tokens, experts)).argsort(1)[:, :active])) for _ in range(400)]
    graph = load_model("qwen3-30b-a3b").graph()
    kernel = next(k for k in lower(graph, Lowering()).kernels if k.kind == "expert")
    at = {"B": 1, "T": tokens, "S": tokens}
    per_expert = 2 * value_of(kernel.weight_elements, at) / experts
    assert value_of(kernel.weight_bytes, at) / per_expert == pytest.approx(np.mean(seen), rel=0.01)
    assert (kernel.experts, kernel.active) == (experts, active)
    assert value_of(kernel.rows, at) == tokens
