"""Passes in text: a small graph before, the changed lines after; and refusals with their messages."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from orchard.ir import Graph, parse_graph, print_graph
from orchard.techniques import NO_RULE, TECHNIQUES, TechniqueError, load_cards, load_claims, parse_all, parse_technique
from orchard.techniques.base import GraphPass
from orchard.techniques.rewrite import all_logits

LINEAR = """graph "g" (B)
%x: f16[B, 64] = input
%w: f16[64, 128] = weight part=ffn_up layer=0
%y: f16[B, 128] = einsum(%x, %w) spec="b m, m n -> b n" @layers.0.ffn
return %y
"""
CONV = """graph "g" (B)
%x: f16[B, 8, 9, 9] = input
%w: f16[16, 8, 3, 3] = weight part=conv
%y: f16[B, 16, 7, 7] = einsum(%x, %w) spec="n c (p+r) (q+s), k c r s -> n k p q"
return %y
"""
ATTENTION = """graph "g" (B, T, S)
%q: f16[B, T, 8, 1, 64] = input
%k: f16[B, T, 8, 64] = input
%v: f16[B, T, 8, 64] = input
%kc: f16[B, S, 8, 64] = state part=k_cache layer=0
%vc: f16[B, S, 8, 64] = state part=v_cache layer=0
%ku: f16[B, S, 8, 64] = update(%kc, %k) @layers.0.attn
%vu: f16[B, S, 8, 64] = update(%vc, %v) @layers.0.attn
%s: f16[B, 8, 1, T, S] = einsum(%q, %ku) spec="b t g r d, b s g d -> b g r t s" pairs={T*S} @layers.0.attn
%p: f16[B, 8, 1, T, S] = softmax(%s) pairs={T*S} @layers.0.attn
%y: f16[B, T, 8, 1, 64] = einsum(%p, %vu) spec="b g r t s, b s g d -> b t g r d" pairs={T*S} @layers.0.attn
return %y
"""


def applied(text: str, before: str) -> Graph:
    technique = parse_technique(text)
    assert isinstance(technique, GraphPass)
    return technique.apply(parse_graph(before))


@pytest.mark.parametrize(
    ("text", "stored"),
    [
        ("rtn:bits=4,group=32", "int4-b32"), ("rtn:bits=8", "int8-channel"), ("gptq", "int4-b64"),
        ("awq:bits=3,group=64", "int3-b64-asym"),
        ("palettize:bits=4,group=16", "pal4-g16"), ("palettize:bits=8,vector=4", "pal8-v4"),
        ("palette-sensitive", "pal3-channel"),
        ("palette-scale", "pal4-scale"), ("prune:sparsity=0.75", "sparse75-f16"), ("prune-nm", "sparse50-f16"),
        ("sparse-palette", "sparse40-pal4"), ("k-quant:type=q4_0", "q4_0"),
    ],
)  # fmt: skip
def test_weight_formats(text: str, stored: str) -> None:
    after = applied(text.replace("gptq", "gptq:group=64"), LINEAR)
    assert f"%w: {stored}[64, 128]" in print_graph(after)
    assert "%y: f16[B, 128]" in print_graph(after)


def test_survivors_of_pruning_become_indices() -> None:
    graph = parse_graph(LINEAR)
    for technique in parse_all(["prune:sparsity=0.4", "palettize:bits=4"]):
        assert isinstance(technique, GraphPass)
        graph = technique.apply(graph)
    assert graph.tensors["w"].format == "sparse40-pal4"


def test_integer_activations_keep_what_comes_out() -> None:
    text = LINEAR.replace("return %y", '%z: f16[B, 128] = elementwise(%y) fn="silu"\nreturn %z')
    after = applied("w8a8", text)
    assert after.tensors["w"].format == "int8-channel"
    assert after.tensors["y"].format == "int8"
    assert after.tensors["z"].format == "f16"


def test_low_rank_is_two_products_with_the_share_of_weights_asked_for() -> None:
    after = applied("low-rank:keep=0.75", LINEAR)
    assert '%y.rank: f16[B, 32] = einsum(%x, %y.u) spec="b m, m z -> b z"' in print_graph(after)
    assert after.parameters == 0.75 * 64 * 128  # rank 32: 32 (64 + 128)


def test_an_adapter_is_added_to_the_product() -> None:
    after = applied("lora:rank=4", LINEAR)
    assert after.parameters == 64 * 128 + 4 * (64 + 128)
    assert '%y: f16[B, 128] = elementwise(%y.main, %y.side) fn="add"' in print_graph(after)


def test_separated_convolution() -> None:
    after = applied("depthwise", CONV)
    assert after.parameters == 8 * 9 + 16 * 8
    assert 'spec="n c (p+r) (q+s), c r s -> n c p q"' in print_graph(after)


def test_batch_norm_folds_into_the_product_before() -> None:
    text = CONV.replace("return %y", '%z: f16[B, 16, 7, 7] = norm(%y) fn="batchnorm"\nreturn %z')
    after = applied("reparameterize", text)
    assert [op.kind for op in after.ops] == ["einsum"]


def test_fewer_key_value_heads() -> None:
    after = applied("gqa:groups=2", ATTENTION)
    assert after.tensors["kc"].shape == (*parse_graph(ATTENTION).tensors["kc"].shape[:2], 2, 64)
    assert after.tensors["q"].shape[2:] == (2, 4, 64)


def test_a_window_bounds_cache_and_pairs() -> None:
    after = applied("kv-evict:budget=16", ATTENTION)
    bound = after.bind({"B": 1, "T": 1, "S": 100})
    assert bound.tensors["kc"].shape == (1, 16, 8, 64)
    assert next(op for op in bound.ops if op.kind == "softmax").attrs["pairs"] == 16
    short = after.bind({"B": 1, "T": 1, "S": 10})
    assert short.tensors["kc"].shape[1] == next(op for op in short.ops if op.kind == "softmax").attrs["pairs"] == 10


def test_cache_formats_reach_what_is_read() -> None:
    after = applied("kv-quant:bits=4,v_bits=8", ATTENTION)
    assert [after.tensors[n].format for n in ("kc", "ku", "vc", "vu", "y")] == ["q4_0", "q4_0", "q8_0", "q8_0", "f16"]


def test_linear_attention_has_a_state_without_context() -> None:
    after = applied("linear-attention:every=0", ATTENTION)
    assert [op.kind for op in after.ops] == ["scan"]
    assert not any("S" in str(t.shape) for t in after.of_role(after.tensors["y.state"].role))


def test_all_logits_leaves_other_graphs_alone() -> None:
    graph = parse_graph(LINEAR)
    assert all_logits(graph) == graph


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["palettize", "prune-nm"], "prune-nm on a palettized tensor"),
        (["palettize", "prune"], "put prune before palettize, or use sparse-palette"),
        (["rtn", "low-rank"], "low-rank comes after rtn, expected before it"),
        (["rtn", "rtn:bits=4"], "rtn stands twice"),
        (["eagle", "prompt-lookup"], "one of them proposes the tokens of a round"),
        (["activation-sparsity", "batching"], "rarely zero together"),
        (["palettise"], "did you mean palettize"),
        (["palettize:bit=4"], "did you mean bits"),
        (["palettize:bits=5"], "bits=5, expected one of 1, 2, 3, 4, 6, 8"),
        (["palettize:bits=four"], "bits=four, expected a whole number"),
        (["prune:sparsity=1.5"], "sparsity=1.5, expected 0.01 to 0.99"),
        (["prune:sparsity=nan"], "expected a number"),
        (["fusion:on=yes"], "expected true or false"),
        (["speculative"], "draft= is missing"),
        (["w4a4"], "no Apple engine multiplies 4-bit integers"),
        (["palettize:bits=4,bits=2"], "bits stands twice"),
    ],
)  # fmt: skip
def test_refusals(texts: list[str], message: str) -> None:
    with pytest.raises(TechniqueError, match=message):
        parse_all(texts)


@pytest.mark.parametrize(
    ("text", "before", "message"),
    [
        ("depthwise", LINEAR, "no convolution over a window"), ("kv-quant", LINEAR, "keeps no keys and values"),
        ("gptq:group=64", LINEAR.replace("f16[64, 128]", "pal4[64, 128]"), "stored as pal4 already"),
        ("gqa:groups=3", ATTENTION, "8 key/value heads for 8 query heads"), ("layout", LINEAR, "no transpose"),
        ("layer-drop:count=1", LINEAR, "keep the first and the last"), ("rtn:skip=head", LINEAR, "expected parts of g: ffn_up"),
    ],
)  # fmt: skip
def test_a_pass_that_finds_nothing_says_so(text: str, before: str, message: str) -> None:
    with pytest.raises(TechniqueError, match=message):
        applied(text, before)


def test_cards_and_passes_belong_together() -> None:
    cards = load_cards()
    assert len(cards) >= 45
    assert set(cards) == set(TECHNIQUES) | set(NO_RULE)
    assert not set(TECHNIQUES) & set(NO_RULE)
    assert all(card.example.startswith("before:") and "after:" in card.example for card in cards.values() if not card.no_rule)


def test_the_page_names_every_technique_once() -> None:
    page = (Path(__file__).parents[2] / "docs" / "techniques.md").read_text(encoding="utf-8")
    table = page.partition("## By their usual names\n")[2].partition("\n\n")[0]
    rows = [line.split("|")[1:4] for line in table.splitlines()[2:]]
    priced, unpriced = (sorted(n for row in rows for n in re.findall(r"`([\w-]+)`", row[column])) for column in (1, 2))
    assert (priced, unpriced) == (sorted(TECHNIQUES), sorted(NO_RULE))


def test_every_claim_has_a_card() -> None:
    claims = load_claims()
    assert len(claims) == 379
    assert len({c.id for c in claims}) == len(claims)
    assert {c.card for c in claims} <= set(load_cards())
