"""Parameter counts, exactly, against Hugging Face transformers: config.json in, every element of the checkpoint
counted.

Each model is built twice from the same small configuration: by transformers on the meta device (parameters plus
persistent buffers, shared tensors once), and by us from the config.json that transformers writes.
"""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from orchard.workloads import build_decoder, hf

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

SMALL = {
    "hidden_size": 64,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 160,
    "num_hidden_layers": 4,
}
DENSE = {**SMALL, "intermediate_size": 96}
NO_GROUPS = {k: v for k, v in SMALL.items() if k != "num_key_value_heads"}
HEAD = {"head_dim": 24}
ROUTED = {"moe_intermediate_size": 48, "num_experts": 8, "num_experts_per_tok": 2}
DELTA = {
    "linear_num_key_heads": 2, "linear_num_value_heads": 4, "linear_key_head_dim": 16, "linear_value_head_dim": 8,
}  # fmt: skip
MLA = {"kv_lora_rank": 32, "q_lora_rank": 40, "qk_rope_head_dim": 8, "qk_nope_head_dim": 12, "v_head_dim": 16}
DEEPSEEK = {"n_routed_experts": 8, "n_shared_experts": 2, "num_experts_per_tok": 2, "moe_intermediate_size": 48}
MHA = {**DENSE, "num_key_value_heads": 4}
GPT = {"n_embd": 64, "n_layer": 3, "n_head": 4, "vocab_size": 160, "n_positions": 128}

CASES: list[tuple[str, str, dict[str, object]]] = [
    ("llama", "llama", {**DENSE, **HEAD}),
    ("llama tied, biased", "llama", {**DENSE, "tie_word_embeddings": True, "attention_bias": True, "mlp_bias": True}),
    ("mistral", "mistral", {**DENSE, "sliding_window": 32}),
    ("ministral3", "ministral3", DENSE),
    ("mixtral", "mixtral", {**DENSE, "num_local_experts": 4}),
    ("qwen2", "qwen2", DENSE),
    ("qwen2_moe", "qwen2_moe", {**DENSE, **ROUTED, "shared_expert_intermediate_size": 80, "mlp_only_layers": [1]}),
    ("qwen3", "qwen3", {**DENSE, **HEAD}),
    ("qwen3_moe", "qwen3_moe", {**DENSE, **HEAD, **ROUTED, "decoder_sparse_step": 2}),
    ("qwen3_next", "qwen3_next", {**DENSE, **HEAD, **ROUTED, **DELTA, "shared_expert_intermediate_size": 80}),
    ("qwen3_5", "qwen3_5_text", {**DENSE, **HEAD, **DELTA}),
    ("qwen3_5_moe", "qwen3_5_moe_text", {**SMALL, **HEAD, **ROUTED, **DELTA, "shared_expert_intermediate_size": 80}),
    ("gemma", "gemma", {**DENSE, **HEAD}),
    ("gemma2", "gemma2", {**DENSE, **HEAD}),
    ("gemma3", "gemma3_text", {**DENSE, **HEAD, "num_hidden_layers": 7}),
    (
        "gemma3n", "gemma3n_text",
        {**DENSE, **HEAD, "num_hidden_layers": 10, "hidden_size_per_layer_input": 16, "vocab_size_per_layer_input": 99,
         "num_kv_shared_layers": 4, "laurel_rank": 6, "altup_num_inputs": 3,
         "activation_sparsity_pattern": [0.0] * 10},
    ),
    ("gemma4 dense", "gemma4_text", {**DENSE, **HEAD, "num_hidden_layers": 7, "hidden_size_per_layer_input": 0}),
    (
        "gemma4 E", "gemma4_text",
        {**DENSE, **HEAD, "num_hidden_layers": 12, "hidden_size_per_layer_input": 16, "vocab_size_per_layer_input": 99,
         "num_kv_shared_layers": 5, "use_double_wide_mlp": True},
    ),
    (
        "gemma4 experts", "gemma4_text",
        {**DENSE, **HEAD, "num_hidden_layers": 6, "hidden_size_per_layer_input": 0, "enable_moe_block": True,
         "num_experts": 8, "top_k_experts": 2, "moe_intermediate_size": 48, "attention_k_eq_v": True,
         "num_global_key_value_heads": 1, "global_head_dim": 40},
    ),
    ("phi", "phi", {**MHA}),
    ("phi3", "phi3", {**DENSE, "pad_token_id": 0}),
    ("gpt2", "gpt2", GPT),
    ("gptj", "gptj", {**GPT, "rotary_dim": 8}),
    ("gpt_neox", "gpt_neox", {**NO_GROUPS, "intermediate_size": 96}),
    ("gpt_oss", "gpt_oss", {**DENSE, **HEAD, "num_local_experts": 4, "num_experts_per_tok": 2}),
    ("opt", "opt", {**NO_GROUPS, "ffn_dim": 96, "word_embed_proj_dim": 32}),
    ("falcon 7b", "falcon", NO_GROUPS),
    ("falcon 40b", "falcon", {**SMALL, "num_kv_heads": 2, "new_decoder_architecture": True}),
    ("bloom", "bloom", {"hidden_size": 64, "n_layer": 3, "n_head": 4, "vocab_size": 160}),
    ("olmo", "olmo", DENSE),
    ("olmo2", "olmo2", DENSE),
    ("olmoe", "olmoe", {**DENSE, "num_experts": 4, "num_experts_per_tok": 2}),
    ("smollm3", "smollm3", {**DENSE, "pad_token_id": 0}),
    ("granite", "granite", {**DENSE, "residual_multiplier": 0.2}),
    ("deepseek_v2", "deepseek_v2", {**MHA, **MLA, **DEEPSEEK, "q_lora_rank": None, "first_k_dense_replace": 1}),
    ("deepseek_v3", "deepseek_v3", {**MHA, **MLA, **DEEPSEEK, "first_k_dense_replace": 2}),
    (
        "deepseek_v4", "deepseek_v4",
        {**SMALL, **HEAD, **DEEPSEEK, "num_key_value_heads": 1, "n_shared_experts": 1, "q_lora_rank": 40,
         "o_lora_rank": 12, "o_groups": 2, "index_n_heads": 3, "index_head_dim": 10, "index_topk": 8,
         "num_hash_layers": 0, "sliding_window": 16,
         "layer_types": ["sliding_attention", "compressed_sparse_attention", "heavily_compressed_attention",
                         "sliding_attention"]},
    ),
    ("minicpm3", "minicpm3", {**MHA, **MLA}),
    ("glm4", "glm4", {**DENSE, **HEAD, "pad_token_id": 0}),
    ("glm4_moe", "glm4_moe", {**DENSE, **DEEPSEEK, "use_qk_norm": True}),
    ("glm4_moe_lite", "glm4_moe_lite", {**MHA, **MLA, **DEEPSEEK}),
    ("lfm2", "lfm2", {**DENSE, "full_attn_idxs": [1, 3]}),
    (
        "lfm2_moe", "lfm2_moe",
        {**DENSE, **ROUTED, "num_dense_layers": 1, "layer_types": ["conv", "full_attention", "conv", "full_attention"]},
    ),
    (
        "nemotron_h", "nemotron_h",
        {**DENSE, **HEAD, **DEEPSEEK, "n_shared_experts": 1, "moe_shared_expert_intermediate_size": 56, "n_groups": 2,
         "ssm_state_size": 16, "mamba_num_heads": 4, "mamba_head_dim": 8,
         "layers_block_type": ["linear_attention", "moe", "full_attention", "mlp", "linear_attention"]},
    ),
    ("cohere", "cohere", {**DENSE, "use_qk_norm": False}),
    ("stablelm", "stablelm", DENSE),
    ("starcoder2", "starcoder2", DENSE),
    ("exaone4", "exaone4", DENSE),
    ("seed_oss", "seed_oss", {**DENSE, **HEAD}),
]  # fmt: skip


def checkpoint_elements(model) -> int:
    """Parameters once each, plus the buffers a checkpoint stores."""
    stored = set(model.state_dict())
    buffers = sum(b.numel() for n, b in model.named_buffers() if n in stored)
    return sum(p.numel() for p in model.parameters()) + buffers


@pytest.mark.parametrize(("model_type", "options"), [c[1:] for c in CASES], ids=[c[0] for c in CASES])
def test_parameters_are_those_of_transformers(model_type, options, tmp_path):
    config = transformers.AutoConfig.for_model(model_type, **options)
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(config)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(config.to_dict()))
    ours = hf.decoder_from_file(path)
    if ours.unused_kv_weights:  # transformers drops what Gemma 4 files hold for layers without keys of their own
        ours = replace(ours, unused_kv_weights=False)
    graph = build_decoder(ours)
    assert graph.parameters == checkpoint_elements(model)
    assert not [w for w in ours.warnings if "not understood" in w]
