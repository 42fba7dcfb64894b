"""What every model of an architecture has in common: defaults for `DecoderConfig`, named as Hugging Face's model_type.

Source: the modelling code of Hugging Face transformers 5 (model_type = directory name there); the parameter counts that
follow from these tables are compared with it in the tests.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from orchard.workloads.sparse import APPROXIMATIONS

_LAYERNORM = {"norm": "layernorm", "norm_bias": True, "mlp": "gelu"}
_ALL_BIASES = {"qkv_bias": True, "o_bias": True, "mlp_bias": True}
_GEMMA = {"mlp": "geglu", "embedding_scale": True, "tied_embeddings": True}
_QWEN3_NEXT = {"qk_norm": "head", "attn_output_gate": True, "rotary": 0.25, "pattern": "3 delta, full"}
_SIGMOID = {"score": "sigmoid", "correction_bias": True}

FAMILIES: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "llama": {},
        "mistral": {},
        "ministral3": {},
        "mixtral": {"moe": {"score": "softmax"}},
        "qwen2": {"qkv_bias": True},
        "qwen2_moe": {"qkv_bias": True, "moe": {"shared_gate": True, "normalize": False}},
        "qwen3": {"qk_norm": "head"},
        "qwen3_moe": {"qk_norm": "head"},
        "qwen3_next": {**_QWEN3_NEXT, "moe": {"shared_gate": True}},
        "qwen3_5": _QWEN3_NEXT,
        "qwen3_5_moe": {**_QWEN3_NEXT, "moe": {"shared_gate": True}},
        "gemma": _GEMMA,
        "gemma2": {
            **_GEMMA, "norm_placement": "sandwich", "pattern": "sliding, full",
            "attention_softcap": True, "logit_softcap": True,
        },
        "gemma3": {**_GEMMA, "norm_placement": "sandwich", "qk_norm": "head", "pattern": "5 sliding, full"},
        "gemma3n": {
            **_GEMMA, "norm_placement": "sandwich", "qk_norm": "head", "v_norm": True, "logit_softcap": True,
            "pattern": "4 sliding, full", "unused_kv_weights": True,
        },
        "apple_afm": {
            "qk_norm": "head", "tied_embeddings": True, "default_weights": "apple-2bit-qat",
            "warnings": (
                "dimensions are not published by Apple as a configuration; they come from its 2025 report and from an "
                "analysis of its adapter toolkit, see models.yaml",
            ),
        },
        "gemma4": {
            **_GEMMA, "norm_placement": "sandwich", "qk_norm": "head", "v_norm": True, "layer_scalar": True,
            "logit_softcap": True, "pattern": "5 sliding, full", "unused_kv_weights": True,
            "moe": {"parallel_dense": True},
        },
        "phi": {
            **_LAYERNORM, **_ALL_BIASES, "parallel_block": True, "shared_norm": True, "head_bias": True, "rotary": 0.4,
        },
        "mamba": {"positions": "none", "tied_embeddings": True},
        "phi3": {"fused_qkv": True, "fused_gate_up": True},
        "gpt2": {**_LAYERNORM, **_ALL_BIASES, "fused_qkv": True, "positions": "learned", "tied_embeddings": True},
        "gpt_neox": {**_LAYERNORM, **_ALL_BIASES, "fused_qkv": True, "parallel_block": True, "rotary": 0.25},
        "gpt_oss": {
            "qkv_bias": True, "o_bias": True, "attention_sinks": True, "pattern": "sliding, full",
            "moe": {"score": "topk_softmax", "router_bias": True, "bias": True}, "default_weights": "mxfp4",
        },
        "olmo": {"norm": "layernorm", "norm_scale": False},
        "olmoe": {"qk_norm": "full", "moe": {"normalize": False}},
        "opt": {**_LAYERNORM, **_ALL_BIASES, "mlp": "relu", "positions": "learned", "tied_embeddings": True},
        "gptj": {
            **_LAYERNORM, "mlp_bias": True, "head_bias": True, "parallel_block": True, "shared_norm": True,
        },
        "falcon": {**_LAYERNORM, "fused_qkv": True, "tied_embeddings": True},
        "bloom": {
            **_LAYERNORM, **_ALL_BIASES, "fused_qkv": True, "positions": "alibi", "embedding_norm": True,
            "tied_embeddings": True,
        },
        "granite": {},
        "minicpm": {"tied_embeddings": True},
        "minicpm3": {"embedding_scale": True, "residual_scale": True, "logit_scale": True, "tied_embeddings": True},
        "seed_oss": {"qkv_bias": True},
        "stablelm": {"norm": "layernorm", "norm_bias": True, "rotary": 0.25},
        "starcoder2": {**_LAYERNORM, **_ALL_BIASES, "tied_embeddings": True},
        "cohere": {
            "norm": "layernorm", "parallel_block": True, "shared_norm": True, "logit_scale": True,
            "tied_embeddings": True,
        },
        "exaone": {},
        "exaone4": {"norm_placement": "post", "qk_norm": "head", "pattern": "3 sliding, full"},
        "glm4": {"norm_placement": "sandwich", "qkv_bias": True, "fused_gate_up": True, "rotary": 0.5},
        "glm4_moe": {"moe": _SIGMOID, "rotary": 0.5},
        "olmo2": {"norm_placement": "post", "qk_norm": "full"},
        "smollm3": {"no_rope_interval": 4, "tied_embeddings": True},
        "deepseek_v2": {"moe": {"normalize": False}},
        "deepseek_v3": {"moe": _SIGMOID},
        "deepseek_v4": {
            "streams": 4, "attention_sinks": True, "moe": {"score": "sqrtsoftplus", "correction_bias": True},
            "warnings": (APPROXIMATIONS,),
        },
        "glm4_moe_lite": {"moe": _SIGMOID},
        "lfm2": {"qk_norm": "head", "tied_embeddings": True},
        "lfm2_moe": {"qk_norm": "head", "tied_embeddings": True, "moe": _SIGMOID},
        "nemotron_h": {"positions": "none", "mlp": "relu2", "moe": _SIGMOID},
    }
)  # fmt: skip
