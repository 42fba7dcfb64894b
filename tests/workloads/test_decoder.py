"""Decoder graphs: work against torch's own counter, caches in closed form, and the conventions cost models rely on."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest

from orchard.ir import Graph, Role, bind, parse_einsum, parse_graph, print_graph, product
from orchard.units import ROLES
from orchard.workloads import ModelError, build_decoder, catalog, causal_pairs, load_model
from orchard.workloads.config import DecoderConfig, Experts

LLAMA = DecoderConfig(
    name="tiny", layers=3, hidden=64, heads=4, kv_heads=2, head_dim=16, vocab=160, ffn=96
)  # fmt: skip
GPT2 = catalog.decoder_config(
    "tiny-gpt2", "gpt2",
    {"layers": 3, "hidden": 64, "heads": 4, "kv_heads": 4, "head_dim": 16, "ffn": 256, "vocab": 160,
     "learned_positions": 64},
)  # fmt: skip


def macs(graph: Graph, *, masked: bool, **sizes: int) -> int:
    """Multiply-adds of all Einsums; with `masked`, attention counts the pairs its mask leaves."""
    total = 0
    for op in graph.ops:
        if op.kind != "einsum":
            continue
        einsum = parse_einsum(str(op.attrs["spec"]))
        tensors = graph.inputs_of(op)[: len(einsum.inputs)]
        routed = "routed" in op.attrs
        shapes = [t.shape[1:] if routed and t.part.startswith("expert") else t.shape for t in tensors]
        dims = einsum.sizes(shapes, graph.outputs_of(op)[0].shape)
        points = product(dims[d] for d in einsum.dims)
        if masked and "pairs" in op.attrs:
            points = product([dims[d] for d in einsum.dims if d not in ("t", "s")]) * op.attrs["pairs"]  # type: ignore[operator]
        total += bind(points, sizes)
    return total


@pytest.mark.parametrize(("config", "model_type"), [(LLAMA, "llama"), (GPT2, "gpt2")], ids=["llama", "gpt2"])
def test_prefill_macs_match_torch(config, model_type):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    from torch.utils.flop_counter import FlopCounterMode

    names = {
        "llama": {"num_hidden_layers": 3, "hidden_size": 64, "num_attention_heads": 4, "num_key_value_heads": 2,
                  "intermediate_size": 96, "vocab_size": 160},
        "gpt2": {"n_layer": 3, "n_embd": 64, "n_head": 4, "vocab_size": 160, "n_positions": 64},
    }  # fmt: skip
    theirs = transformers.AutoConfig.for_model(model_type, **names[model_type], attn_implementation="eager")
    model = transformers.AutoModelForCausalLM.from_config(theirs).eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(torch.zeros((2, 24), dtype=torch.long), logits_to_keep=1)
    flops = 2 * macs(build_decoder(config), masked=False, B=2, T=24, S=24)
    assert counter.get_total_flops() == flops


def test_masked_macs_in_closed_form():
    """Projections and MLP per token, head once per sequence, attention 2 D per pair and query head."""
    B, T, S = 2, 10, 50
    c = LLAMA
    per_token = c.layers * (2 * 64 * 64 + 2 * 64 * 32 + 3 * 64 * 96)
    attention = c.layers * c.heads * 2 * 16 * causal_pairs(T, S)
    expected = B * (T * per_token + attention + 64 * 160)
    assert macs(build_decoder(c), masked=True, B=B, T=T, S=S) == expected


def state_elements(name: str, part: str | None = None, **sizes: int) -> int:
    graph = load_model(name).graph()
    return sum(bind(t.elements, sizes) for t in graph.of_role(Role.STATE) if part is None or t.part == part)


@pytest.mark.parametrize(
    ("name", "per_token"),
    [
        ("llama-3.1-8b", 32 * 2 * 8 * 128),
        ("llama-2-7b", 32 * 2 * 32 * 128),
        ("phi-2", 32 * 2 * 32 * 80),
        ("qwen3-30b-a3b", 48 * 2 * 4 * 128),
        ("deepseek-r1", 61 * (512 + 64)),  # latent, no separate values
        ("glm-4.7-flash", 47 * (512 + 64)),
    ],
)
def test_cache_elements_per_token(name, per_token):
    assert state_elements(name, B=3, T=1, S=1000) == 3 * 1000 * per_token


def test_sliding_layers_cache_only_their_window():
    full, sliding = 5, 29
    per_token = 2 * 4 * 256
    assert state_elements("gemma-3-4b", B=1, T=1, S=9000) == per_token * (full * 9000 + sliding * 1024)
    assert state_elements("gemma-3-4b", B=1, T=1, S=700) == per_token * 34 * 700


def test_shared_layers_have_no_cache_of_their_own():
    """Gemma 4 E2B: 15 of 35 layers own a cache, three of them global (every fifth) with heads of 512."""
    expected = 2 * (3 * 512 * 5000 + 12 * 256 * 512)
    assert state_elements("gemma-4-e2b", B=1, T=1, S=5000) == expected


def test_recurrent_states_do_not_grow():
    delta = 24 * (32 * 128 * 128 + 3 * (2 * 16 * 128 + 32 * 128))
    assert state_elements("qwen3.5-4b", "recurrent", B=1, T=7, S=100) == delta
    assert state_elements("qwen3.5-4b", "recurrent", B=1, T=1, S=9) == delta
    mamba = 23 * (64 * 64 * 128 + 3 * (64 * 64 + 2 * 8 * 128))
    assert state_elements("nemotron-3-nano-30b-a3b", "recurrent", B=1, T=1, S=9) == mamba
    assert state_elements("lfm2.5-350m", "recurrent", B=1, T=1, S=9) == 10 * 2 * 1024


def test_state_formats_follow_the_argument():
    graph = load_model("llama-3.2-1b").graph(kv_format="q8_0")
    assert {t.format for t in graph.of_role(Role.STATE)} == {"q8_0"}


@pytest.mark.parametrize("name", ["gemma-4-e2b", "gpt-oss-20b", "qwen3.5-4b", "deepseek-v4-flash", "lfm2-8b-a1b"])
def test_every_weight_has_a_role_that_schemes_know(name):
    graph = load_model(name).graph()
    assert {w.part for w in graph.weights} <= ROLES


@pytest.mark.parametrize(
    "name", ["gpt2", "phi-2", "gemma-4-e2b", "gpt-oss-20b", "qwen3.5-0.8b", "glm-4.7-flash", "lfm2.5-350m"]
)
def test_graphs_round_trip_through_text(name):
    graph = load_model(name).graph()
    assert parse_graph(print_graph(graph)) == graph


def test_binding_keeps_a_graph_valid_and_whole():
    for name in ("gemma-3-1b", "gpt-oss-20b", "deepseek-v4-flash", "nemotron-3-nano-30b-a3b"):
        graph = load_model(name).graph()
        for sizes in ({"B": 1, "T": 1, "S": 2048}, {"B": 2, "T": 512, "S": 512}):
            for op in graph.ops:
                if "pairs" in op.attrs:
                    assert bind(op.attrs["pairs"], sizes) >= 0  # type: ignore[arg-type]
            bound = graph.bind(sizes)
            assert all(isinstance(s, int) for t in bound.tensors.values() for s in t.shape)


def test_skipping_shared_prefill_leaves_one_token_for_the_upper_layers():
    plain = load_model("gemma-4-e2b").graph()
    short = load_model("gemma-4-e2b").graph(skip_shared_prefill=True)
    assert short.parameters == plain.parameters
    shared = [op for op in short.ops if op.scope.startswith("layers.20.")]
    assert all(
        t.shape[1] == 1 for op in shared for t in short.outputs_of(op) if op.kind == "einsum" and op.name[-1] == "q"
    )
    one = {"B": 1, "T": 1, "S": 100}
    assert macs(plain, masked=True, **one) == macs(short, masked=True, **one)
    many = {"B": 1, "T": 100, "S": 100}
    assert macs(short, masked=True, **many) < 0.65 * macs(plain, masked=True, **many)


def test_routed_einsums_count_the_chosen_experts_only():
    config = replace(
        LLAMA, ffn=None, moe=Experts(experts=8, active=2, ffn=48, shared_ffn=80)
    )  # fmt: skip
    graph = build_decoder(config)
    routed = [op for op in graph.ops if "routed" in op.attrs]
    assert len(routed) == 3 * 3
    assert all(op.attrs["routed"] == 8 and op.attrs["active"] == 2 for op in routed)
    attention = 2 * 64 * 64 + 2 * 64 * 32
    moe = 64 * 8 + 2 * 3 * 64 * 48 + 3 * 64 * 80 + 2 * 64  # router, two experts, shared expert, weighted sum
    pairs = 4 * 2 * 16 * causal_pairs(5, 5)
    assert macs(graph, masked=True, B=1, T=5, S=5) == 3 * (5 * (attention + moe) + pairs) + 64 * 160


def test_head_runs_on_the_last_token_and_a_tied_one_reads_the_embedding():
    graph = build_decoder(replace(LLAMA, tied_embeddings=True))
    last = graph.ops[-1]
    assert [str(s) for s in graph.tensors[last.outputs[0]].shape] == ["B", "1", "160"]
    assert last.inputs[1] == "embed.tokens"
    assert graph.parameters == build_decoder(LLAMA).parameters - 160 * 64


def test_building_is_fast():
    """Budget 60 ms for 32 layers, 250 ms for 126, with room for a busy machine."""
    for name, budget_s in (("llama-3.1-8b", 0.12), ("llama-3.1-405b", 0.5)):
        config = load_model(name).config
        best = min(_seconds(config) for _ in range(3))
        assert best < budget_s


def _seconds(config) -> float:
    start = time.process_time()
    build_decoder(config)
    return time.process_time() - start


def test_loading_one_model_is_fast():
    catalog.entry("Qwen/Qwen3-4B")
    start = time.process_time()
    config = catalog.entry("google/gemma-3-4b-it")
    catalog.decoder_config(config.name, config.architecture, config.fields)
    assert time.process_time() - start < 0.02


def test_graphs_are_built_once():
    assert load_model("gpt2").graph() is load_model("openai-community/GPT2").graph()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layers": 0}, "layers is 0, expected a whole number from 1"),
        ({"heads": 3}, "3 heads do not divide among 2 kv_heads"),
        ({"mixers": ("full",)}, "mixers names 1 layers, expected 3"),
        ({"mixers": ("full", "magic", "full")}, "mixers is 'magic', expected one of full, sliding"),
        ({"mixers": ("sliding",) * 3}, "sliding layers need window"),
        ({"mixers": ("delta",) * 3}, "delta layers need delta"),
        ({"ffn": None}, "dense layers need ffn"),
        ({"feed_forwards": ("moe",) * 3}, "moe layers need moe"),
        ({"kv_shared_layers": 3}, "3 kv_shared_layers of 3 layers"),
        ({"norm": "batchnorm"}, "norm is 'batchnorm', expected one of rmsnorm, layernorm"),
        ({"rotary": 1.5}, "rotary is 1.5"),
    ],
)
def test_a_configuration_that_does_not_hold_together(change, message):
    with pytest.raises(ModelError, match=message):
        replace(LLAMA, **change)
