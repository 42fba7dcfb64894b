"""Weight schemes on whole models: file sizes that public tools print, and the layout schemes see."""

from __future__ import annotations

import pytest

from orchard.ir import Builder
from orchard.units import FormatError
from orchard.workloads import apply_weights, load_model, weight_bytes, weight_shapes

# GiB as llama-bench prints it for the public GGUF files (llama.cpp discussion 4167; gpt-oss: ggml-org's own file)
FILES = [
    ("llama-2-7b", "f16", 12.55),
    ("llama-2-7b", "q8_0", 6.67),
    ("llama-2-7b", "q4_0", 3.56),
    ("llama-3.1-8b", "q4_k_m", 4.58),
    ("llama-3.1-8b", "f16", 14.96),
    ("gpt-oss-20b", "mxfp4", 11.27),
]


@pytest.mark.parametrize(("name", "scheme", "gib"), FILES)
def test_file_sizes(name, scheme, gib):
    assert load_model(name).weight_bytes(scheme) / 2**30 == pytest.approx(gib, abs=0.0051)


def test_a_scheme_sees_rows_and_columns_with_the_contraction_last():
    shapes = weight_shapes(load_model("qwen3-30b-a3b").graph())
    assert shapes["layers.0.attn.w_q"] == (32 * 128, 2048)
    assert shapes["layers.0.attn.w_o"] == (2048, 32 * 128)
    assert shapes["layers.0.ffn.w_expert_gate"] == (128, 768, 2048)
    assert shapes["layers.0.ffn.w_expert_down"] == (128, 2048, 768)
    assert shapes["embed.tokens"] == (151936, 2048)
    assert shapes["layers.0.attn.w_norm"] == (2048,)


def test_layout_follows_the_einsum_not_the_storage_order():
    b = Builder("two", symbols=("T",))
    x = b.input("x", (b.sym("T"), 64))
    y = b.einsum("t m, n m -> t n", x, b.weight("w", (32, 64), part="ffn_up", layer=0))
    assert weight_shapes(b.build([y])) == {"w": (32, 64)}


def test_formats_change_and_nothing_else_does():
    graph = load_model("qwen3-0.6b").graph()
    quantized = apply_weights(graph, "q4_0")
    assert {w.format for w in quantized.weights} == {"q4_0", "q6_k", "f32"}
    assert apply_weights(quantized, "f16").ops == graph.ops
    assert weight_bytes(quantized) < weight_bytes(graph) / 2


def test_a_tied_head_lifts_the_embedding():
    tied = apply_weights(load_model("llama-3.2-1b").graph(), "q4_0")
    untied = apply_weights(load_model("llama-2-7b").graph(), "q4_0")
    assert tied.tensors["embed.tokens"].format == "q6_k"
    assert untied.tensors["embed.tokens"].format == "q4_0"
    assert untied.tensors["head.w_logits"].format == "q6_k"


def test_unknown_scheme():
    with pytest.raises(FormatError, match="q4_k_mm"):
        load_model("gpt2").graph(weights="q4_k_mm")
