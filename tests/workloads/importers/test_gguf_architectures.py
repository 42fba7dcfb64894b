"""GGUF architectures: the rebuilt graph holds each tensor of the file in the file's format, to the byte.

Every matrix of a layer gets another format, so a weight matched with the wrong tensor shows in the sum.
"""

import numpy as np
import pytest

gguf = pytest.importorskip("gguf")

from orchard.ir.count import macs  # noqa: E402
from orchard.workloads import weight_bytes  # noqa: E402
from orchard.workloads.importers import import_model  # noqa: E402

Q = gguf.GGMLQuantizationType
MIX = (Q.Q4_K, Q.Q5_K, Q.Q6_K, Q.Q3_K, Q.Q8_0, Q.Q4_0, Q.IQ4_XS)
H, HEADS, KV, D, FFN, VOCAB, LAYERS, EXPERTS = 256, 4, 2, 64, 512, 96, 2, 4
ATTENTION = {"attn_q": (H, H), "attn_k": (KV * D, H), "attn_v": (KV * D, H), "attn_output": (H, H)}
MLP = {"ffn_gate": (FFN, H), "ffn_up": (FFN, H), "ffn_down": (H, FFN)}
NORMS = {"attn_norm": (H,), "ffn_norm": (H,)}
FUSED = {"attn_qkv": (H + 2 * KV * D, H), "attn_output": (H, H)}
WHOLE = {"attn_qkv": (3 * H, H), "attn_output": (H, H), "ffn_up": (FFN, H), "ffn_down": (H, FFN)}
MOE = {
    "ffn_gate_inp": (EXPERTS, H), "ffn_gate_exps": (EXPERTS, FFN, H), "ffn_up_exps": (EXPERTS, FFN, H),
    "ffn_down_exps": (EXPERTS, H, FFN),
}  # fmt: skip
HEAD_NORMS = {"attn_q_norm": (D,), "attn_k_norm": (D,)}
LATENT = {
    "attn_q_a": (256, H), "attn_q_a_norm": (256,), "attn_q_b": (HEADS * 96, 256), "attn_kv_a_mqa": (256 + 32, H),
    "attn_kv_a_norm": (256,), "attn_kv_b": (HEADS * (64 + 64), 256), "attn_output": (H, HEADS * 64),
}  # fmt: skip
SHARED = {"ffn_gate_shexp": (FFN, H), "ffn_up_shexp": (FFN, H), "ffn_down_shexp": (H, FFN)}


def biased(*names, of):
    """`.bias` vectors for matrices [rows, columns], or [experts, rows, columns]."""
    return {f"{n}.bias": of[n][:-1] for n in names}


def norm_biases(*names):
    return {f"{n}.bias": (H,) for n in names}


LATENT_META = {
    "attention.kv_lora_rank": 256, "attention.q_lora_rank": 256, "attention.key_length": 96, "attention.value_length": 64,
    "rope.dimension_count": 32, "leading_dense_block_count": 1, "expert_count": EXPERTS, "expert_used_count": 2,
    "expert_shared_count": 1,
}  # fmt: skip
EXPERT_META = {"expert_count": EXPERTS, "expert_used_count": 2}

# name: architecture, tensors of a layer (first layer where it differs), tensors of the model, metadata
MODELS = {
    "llama": ("llama", NORMS | ATTENTION | MLP, None, {"output": (VOCAB, H)}, {}),
    "qwen3moe": ("qwen3moe", NORMS | ATTENTION | HEAD_NORMS | MOE, None, {"output": (VOCAB, H)}, EXPERT_META),
    "gpt-oss": (
        "gpt-oss",
        {"attn_norm": (H,), "post_attention_norm": (H,), "attn_sinks": (HEADS,)} | ATTENTION | MOE
        | biased(*ATTENTION, of=ATTENTION) | biased(*MOE, of=MOE),
        None, {"output": (VOCAB, H)}, EXPERT_META | {"attention.sliding_window": 128},
    ),
    "deepseek2": (
        "deepseek2", NORMS | LATENT | MOE | SHARED | {"exp_probs_b.bias": (EXPERTS,)}, NORMS | LATENT | MLP,
        {"output": (VOCAB, H)}, LATENT_META | {"expert_gating_func": 2},
    ),
    "gemma": ("gemma", NORMS | ATTENTION | MLP, None, {}, {}),
    "gemma2": (
        "gemma2", NORMS | {"post_attention_norm": (H,), "post_ffw_norm": (H,)} | ATTENTION | MLP, None, {},
        {"attention.sliding_window": 128},
    ),
    "gemma3": (
        "gemma3", NORMS | {"post_attention_norm": (H,), "post_ffw_norm": (H,)} | HEAD_NORMS | ATTENTION | MLP, None, {},
        {"attention.sliding_window": 128},
    ),
    "phi3": ("phi3", NORMS | FUSED | {"ffn_up": (2 * FFN, H), "ffn_down": (H, FFN)}, None, {"output": (VOCAB, H)}, {}),
    "gpt2": (
        "gpt2", NORMS | norm_biases("attn_norm", "ffn_norm") | WHOLE | biased(*WHOLE, of=WHOLE), None,
        {"position_embd": (64, H), "output_norm.bias": (H,)}, {"attention.head_count_kv": HEADS},
    ),
    "gptneox": (
        "gptneox", NORMS | norm_biases("attn_norm", "ffn_norm") | WHOLE | biased(*WHOLE, of=WHOLE), None,
        {"output": (VOCAB, H), "output_norm.bias": (H,)}, {"attention.head_count_kv": HEADS, "rope.dimension_count": 16},
    ),
}  # fmt: skip


def write(path, arch, layer, first, whole, metadata, latent=Q.Q8_0):
    writer = gguf.GGUFWriter(path, arch)
    numbers = {
        "block_count": LAYERS, "embedding_length": H, "attention.head_count": HEADS, "attention.head_count_kv": KV,
        "feed_forward_length": FFN, "context_length": 64,
    } | metadata  # fmt: skip
    for key, value in numbers.items():
        writer.add_uint32(f"{arch}.{key}", value)
    listed = [("token_embd", (VOCAB, H)), ("output_norm", (H,)), *whole.items()]
    for i in range(LAYERS):
        listed += [(f"blk.{i}.{n}", s) for n, s in (first if first and i == 0 else layer).items()]
    for index, (name, shape) in enumerate(listed):
        full = name if name.endswith((".bias", "sinks.weight")) else f"{name}.weight"
        if len(shape) == 1 or ".bias" in full:
            writer.add_tensor(full, np.zeros(shape, np.float32))
            continue
        kind = latent if "attn_kv_b" in name else MIX[index % len(MIX)]
        block, size = gguf.GGML_QUANT_SIZES[kind]
        writer.add_tensor(full, np.zeros((*shape[:-1], shape[-1] // block * size), np.uint8), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.mark.parametrize("name", MODELS)
def test_parameters_and_bytes_are_the_files(name, tmp_path):
    found = import_model(write(tmp_path / "m.gguf", *MODELS[name]))
    assert not [w for w in found.warnings if "no tensor" in w]
    assert found.graph.parameters == found.weights.parameters
    assert weight_bytes(found.graph) == found.weights.bytes
    assert len({t.format for t in found.graph.weights}) > 4


def test_products_of_a_plain_decoder(tmp_path):
    found = import_model(write(tmp_path / "m.gguf", *MODELS["llama"]))
    bound = found.graph.bind({"B": 1, "T": 1, "S": 10})
    matrices = sum(np.prod(s) for s in (ATTENTION | MLP).values())
    assert macs(bound) == LAYERS * (matrices + 2 * 10 * H) + VOCAB * H


def test_blocks_that_do_not_fit_are_told(tmp_path):
    found = import_model(write(tmp_path / "m.gguf", *MODELS["deepseek2"], latent=Q.Q4_K))
    assert any("counted: q4_k as q4_0" in w for w in found.warnings)
    assert weight_bytes(found.graph) == found.weights.bytes  # both have 4.5 bits
