"""Hugging Face config.json to a configuration of ours. One function per group of architectures, in alphabetical tables.

A reader returns fields of `DecoderConfig` on top of the family defaults in families.py. Keys that no reader asks for
and that are not known to be harmless (fields.py) become warnings; so does what a model has and we do not model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from orchard.workloads.catalog import decoder_config
from orchard.workloads.config import LARGEST, DecoderConfig
from orchard.workloads.errors import ModelError
from orchard.workloads.families import FAMILIES
from orchard.workloads.fields import Fields, read_json

Reader = Callable[[Fields], dict[str, Any]]

_ACTIVATIONS = {
    "silu": "silu", "swish": "silu", "swiglu": "silu", "gelu": "gelu", "gelu_new": "gelu", "gelu_fast": "gelu",
    "gelu_pytorch_tanh": "gelu", "gelu_python": "gelu", "quick_gelu": "gelu", "relu": "relu", "relu2": "relu2",
}  # fmt: skip
_GATED = {"silu": "swiglu", "gelu": "geglu", "relu": "reglu"}
_LAYER_TYPES = {
    "full_attention": "full", "attention": "full", "sliding_attention": "sliding", "linear_attention": "delta",
    "conv": "conv", "compressed_sparse_attention": "csa", "heavily_compressed_attention": "hca",
}  # fmt: skip


def decoder_from_file(path: Path, values: Mapping[str, Any] | None = None) -> DecoderConfig:
    """The decoder that a config.json describes. `values` are its contents if they are read already.

    Raises ModelError: unreadable file, unknown architecture (the known ones are listed), missing or impossible field.
    """
    values = read_json(path) if values is None else values
    where = str(path)
    inner, warnings = _text_part(values, where)
    model_type = Fields(inner, where).text("model_type")
    found = READERS.get(model_type)
    if found is None:
        raise ModelError(f"{where}: architecture {model_type[:60]!r} is not known; known: {', '.join(sorted(READERS))}")
    architecture, reader = found
    fields = Fields(inner, where)
    read = reader(fields)
    quantization = inner.get("quantization_config") or inner.get("quantization")
    weights, notes = default_weights(quantization or values.get("quantization_config") or values.get("quantization"))
    fields.ignore("quantization_config", "quantization")
    if weights is not None:
        read["default_weights"] = weights
    warnings += notes
    warnings += [f"{where}: field {key!r} is not understood and has no effect" for key in fields.unread()]
    try:
        config = decoder_config(model_name(path, values), architecture, read)
    except ModelError as error:
        raise ModelError(f"{where}: {error}") from None
    return replace(config, warnings=(*config.warnings, *warnings))


def _text_part(values: Mapping[str, Any], where: str) -> tuple[Mapping[str, Any], list[str]]:
    """The language model inside a multimodal configuration (or the configuration itself), and what is left out."""
    inner = values.get("text_config")
    if not isinstance(inner, dict):
        return values, []
    inner = dict(inner)
    inner.setdefault("model_type", values.get("model_type"))
    if "tie_word_embeddings" not in inner and "tie_word_embeddings" in values:
        inner["tie_word_embeddings"] = values["tie_word_embeddings"]
    left_out = [name for name in ("vision", "audio") if values.get(f"{name}_config")]
    return inner, [f"{where}: the {name} part is not modelled, only the language model" for name in left_out]


def model_name(path: Path, values: Mapping[str, Any]) -> str:
    """What a configuration calls its model, else the name of its folder, else of the file."""
    given = values.get("_name_or_path")
    if isinstance(given, str) and given and len(given) <= 200:
        return given
    folder = path.resolve().parent.name
    return folder if path.name == "config.json" and folder else path.stem


def default_weights(quantization: object) -> tuple[str | None, list[str]]:
    """The weight scheme of a quantization_config (GPTQ, AWQ, mxfp4, fp8, MLX), and warnings about what is unclear."""
    if not isinstance(quantization, dict):
        return None, []
    method = quantization.get("quant_method", "mlx" if "group_size" in quantization else None)
    bits, group = quantization.get("bits", quantization.get("w_bit")), quantization.get("group_size")
    if method == "mxfp4" or quantization.get("mode") == "mxfp4":
        return "mxfp4", []
    if method == "fp8":
        return "fp8", []
    if method in ("mlx", "gptq", "awq") and bits in (2, 3, 4, 5, 6, 8) and isinstance(group, int):
        return (f"mlx-{bits}bit-g{group}" if method == "mlx" else f"int{bits}-g{group}"), []
    if method == "bitsandbytes":
        return ("int4-g64" if quantization.get("load_in_4bit") else "int8-channel"), []
    shown = str(method)[:40]
    return None, [f"quantization {shown!r} of the file is not understood; give the weight format yourself"]


# ---------------------------------------------------------------------------------------------- shared pieces


def _common(f: Fields) -> dict[str, Any]:
    """What nearly every Llama-like configuration holds."""
    heads = f.integer("num_attention_heads", "n_head")
    hidden = f.integer("hidden_size", "n_embd")
    layers = f.integer("num_hidden_layers", "n_layer", "num_layers")
    if layers > LARGEST["layers"]:  # before anything of that length is made
        raise ModelError(f"{f.where}: layers is {layers}, expected a whole number from 1 to {LARGEST['layers']}")
    read: dict[str, Any] = {
        "layers": layers,
        "hidden": hidden,
        "heads": heads,
        "kv_heads": f.integer("num_key_value_heads", default=heads),
        "head_dim": f.integer("head_dim", default=hidden // max(heads, 1)),
        "vocab": f.integer("vocab_size"),
        "max_positions": f.integer("max_position_embeddings", "n_positions", default=None),
    }
    tied = f.flag("tie_word_embeddings", default=None)
    if tied is not None:
        read["tied_embeddings"] = tied
    rope = f.table("rope_parameters", default={})
    share = f.number("partial_rotary_factor", "rotary_pct", default=rope.get("partial_rotary_factor"))
    if isinstance(share, (int, float)) and 0 < share <= 1:
        read["rotary"] = float(share)
    return read


def activation(f: Fields, *names: str, gated: bool = True, default: str = "silu") -> str:
    """The MLP word (`swiglu`, `gelu`, ...) for an activation's name, with or without a gate."""
    word = f.text(*names, default=default)
    if word not in _ACTIVATIONS:
        raise ModelError(f"{f.where}: {names[0]} is {word[:40]!r}, expected one of {', '.join(_ACTIVATIONS)}")
    plain = _ACTIVATIONS[word]
    if gated and plain not in _GATED:
        raise ModelError(f"{f.where}: {names[0]} is {word!r}, expected one of {', '.join(_GATED)} in a gated MLP")
    return _GATED[plain] if gated else plain


def _mixers(f: Fields, layers: int, window_key: str = "sliding_window") -> dict[str, Any]:
    """Mixers from layer_types and sliding_window, where they are given; a window beyond all positions has no effect."""
    window = f.integer(window_key, default=None) or None
    types = f.words("layer_types", default=None)
    read: dict[str, Any] = {"window": window}
    if types is None:
        return read
    unknown = [t for t in types if t not in _LAYER_TYPES]
    if unknown:
        known = ", ".join(_LAYER_TYPES)
        raise ModelError(f"{f.where}: layer_types has {unknown[0][:40]!r}, expected one of {known}")
    if len(types) < layers:
        raise ModelError(f"{f.where}: layer_types names {len(types)} layers, num_hidden_layers is {layers}")
    read["mixers"] = tuple(_LAYER_TYPES[t] for t in types[:layers])
    if window is None and "sliding" in read["mixers"]:
        raise ModelError(f"{f.where}: lacks {window_key}, which its sliding layers need")
    return read


def _llama(f: Fields) -> dict[str, Any]:
    read = _common(f)
    read["ffn"] = f.integer("intermediate_size")
    read["mlp"] = activation(f, "hidden_act", "hidden_activation")
    bias = f.flag("attention_bias", default=None)
    if bias is not None:
        read["qkv_bias"] = read["o_bias"] = bias
    read["mlp_bias"] = f.flag("mlp_bias", default=False)
    return read


def _llama_windowed(f: Fields) -> dict[str, Any]:
    """Llama with sliding_window on all layers (Mistral, Phi-3, Starcoder2) unless layer_types says otherwise."""
    read = _llama(f)
    read |= _mixers(f, read["layers"])
    window, positions = read["window"], read["max_positions"]
    if "mixers" not in read and window is not None:
        if positions is not None and window >= positions:
            read["window"] = None
        else:
            read["pattern"] = "sliding"
    return read


def _qwen2(f: Fields) -> dict[str, Any]:
    """Qwen 2 and 3: sliding layers only with use_sliding_window, and then those from max_window_layers on."""
    read = _llama(f)
    mixers = _mixers(f, read["layers"])
    first = f.integer("max_window_layers", default=0)
    if f.flag("use_sliding_window", default=False) and mixers["window"] is not None:
        read["window"] = mixers["window"]
        read["mixers"] = mixers.get("mixers") or tuple(
            "sliding" if layer >= first else "full" for layer in range(read["layers"])
        )
    return read


def _experts(f: Fields, *count: str, ffn: str = "moe_intermediate_size") -> dict[str, Any]:
    read = {
        "experts": f.integer(*count),
        "active": f.integer("num_experts_per_tok", "experts_per_token", "top_k_experts"),
        "ffn": f.integer(ffn),
    }
    normalize = f.flag("norm_topk_prob", default=None)
    if normalize is not None:
        read["normalize"] = normalize
    return read


def _sparse_steps(f: Fields, layers: int) -> tuple[str, ...]:
    """Qwen: a layer has experts if it is not in mlp_only_layers and every decoder_sparse_step-th counts."""
    step = f.integer("decoder_sparse_step", default=1)
    dense = set(f.integers("mlp_only_layers", default=[]))
    sparse = (step > 0 and layer not in dense and (layer + 1) % step == 0 for layer in range(layers))
    return tuple("moe" if s else "dense" for s in sparse)


# ---------------------------------------------------------------------------------------------- architectures


def _mixtral(f: Fields) -> dict[str, Any]:
    read = _llama_windowed(f)
    read["moe"] = _experts(f, "num_local_experts", "num_experts", ffn="intermediate_size")
    return read


def _olmoe(f: Fields) -> dict[str, Any]:
    f.ignore("clip_qkv")
    read = _llama(f)
    read["moe"] = {"normalize": False, **_experts(f, "num_experts", "num_local_experts", ffn="intermediate_size")}
    return read


def _qwen_moe(f: Fields) -> dict[str, Any]:
    read = _qwen2(f)
    bias = f.flag("qkv_bias", default=None)
    if bias is not None:
        read["qkv_bias"] = bias
    read["moe"] = _experts(f, "num_experts", "num_local_experts")
    shared = f.integer("shared_expert_intermediate_size", default=0)
    read["moe"]["shared_ffn"] = shared
    read["feed_forwards"] = _sparse_steps(f, read["layers"])
    return read


def _qwen3_next(f: Fields) -> dict[str, Any]:
    """Qwen3-Next and Qwen3.5, with or without experts."""
    has_experts = f.has("num_experts") or f.has("num_local_experts")
    read = _common(f)
    read["ffn"] = f.integer("intermediate_size", default=None) if has_experts else f.integer("intermediate_size")
    read["mlp"] = activation(f, "hidden_act")
    read["qkv_bias"] = read["o_bias"] = f.flag("attention_bias", default=False)
    interval = f.integer("full_attention_interval", default=4)
    mixers = _mixers(f, read["layers"])
    read["mixers"] = mixers.get("mixers") or tuple(
        "full" if (layer + 1) % max(interval, 1) == 0 else "delta" for layer in range(read["layers"])
    )
    f.ignore("attn_output_gate", "output_gate_type")
    read["delta"] = {
        "key_heads": f.integer("linear_num_key_heads"),
        "value_heads": f.integer("linear_num_value_heads"),
        "key_dim": f.integer("linear_key_head_dim"),
        "value_dim": f.integer("linear_value_head_dim"),
        "conv_kernel": f.integer("linear_conv_kernel_dim", default=4),
    }
    if has_experts:
        read["moe"] = _experts(f, "num_experts", "num_local_experts")
        read["moe"]["shared_ffn"] = f.integer("shared_expert_intermediate_size", default=0)
        read["feed_forwards"] = _sparse_steps(f, read["layers"])
    return read


def _gemma2(f: Fields) -> dict[str, Any]:
    """Gemma 2 and 3: sliding layers by layer_types, or by a pattern of so many to one."""
    read = _llama(f)
    read |= _mixers(f, read["layers"])
    every = f.integer("sliding_window_pattern", "_sliding_window_pattern", default=None)
    if "mixers" not in read and every:
        read["pattern"] = f"{every - 1} sliding, full" if every > 1 else "full"
    read["attention_softcap"] = f.number("attn_logit_softcapping", default=None) is not None
    read["logit_softcap"] = f.number("final_logit_softcapping", default=None) is not None
    return read


def _gemma4(f: Fields) -> dict[str, Any]:
    read = _llama(f)
    read |= _mixers(f, read["layers"])
    per_layer = f.table("per_layer_config", default={})
    override = next((v for v in per_layer.values() if isinstance(v, dict)), {})
    read["global_head_dim"] = f.integer("global_head_dim", default=override.get("head_dim", 512))
    read["k_eq_v"] = f.flag("attention_k_eq_v", default=False)
    kv_heads = f.integer("num_global_key_value_heads", default=override.get("num_key_value_heads"))
    read["global_kv_heads"] = kv_heads if read["k_eq_v"] else None
    read["kv_shared_layers"] = f.integer("num_kv_shared_layers", default=0)
    read["double_wide_mlp"] = f.flag("use_double_wide_mlp", default=False)
    read["logit_softcap"] = f.number("final_logit_softcapping", default=None) is not None
    dim = f.integer("hidden_size_per_layer_input", default=0)
    if dim:
        read["per_layer_embedding"] = {"dim": dim, "vocab": f.integer("vocab_size_per_layer_input", default=262144)}
    read["rotary"] = 1.0
    if f.flag("enable_moe_block", default=False):
        read["moe"] = {**_experts(f, "num_experts", "num_local_experts"), "shared_ffn": read["ffn"]}
    f.ignore("vocab_size_per_layer_input", "num_experts", "top_k_experts", "moe_intermediate_size")
    return read


def _gemma3n(f: Fields) -> dict[str, Any]:
    widths = f.values.get("intermediate_size")
    if isinstance(widths, list):
        if not widths or any(w != widths[0] for w in widths):
            raise ModelError(f"{f.where}: intermediate_size differs between layers, which is not supported")
        f = Fields({**f.values, "intermediate_size": widths[0]}, f.where, f.read)
    read = _llama(f)
    read |= _mixers(f, read["layers"])
    read["kv_shared_layers"] = f.integer("num_kv_shared_layers", default=0)
    read["logit_softcap"] = f.number("final_logit_softcapping", default=None) is not None
    read["per_layer_embedding"] = {
        "dim": f.integer("hidden_size_per_layer_input"), "vocab": f.integer("vocab_size_per_layer_input"),
    }  # fmt: skip
    read["altup"] = {"streams": f.integer("altup_num_inputs"), "laurel_rank": f.integer("laurel_rank")}
    f.ignore("altup_active_idx", "altup_coef_clip", "altup_correct_scale", "activation_sparsity_pattern")
    return read


def _gpt2(f: Fields) -> dict[str, Any]:
    read = _common(f)
    read["ffn"] = f.integer("n_inner", default=4 * read["hidden"])
    read["mlp"] = activation(f, "activation_function", gated=False, default="gelu_new")
    read["learned_positions"] = f.integer("n_positions", "n_ctx", default=1024)
    f.ignore("n_ctx")
    return read


def _gpt_neox(f: Fields) -> dict[str, Any]:
    read = _common(f)
    read["ffn"] = f.integer("intermediate_size")
    read["mlp"] = activation(f, "hidden_act", gated=False, default="gelu")
    read["qkv_bias"] = read["o_bias"] = f.flag("attention_bias", default=True)
    read["parallel_block"] = f.flag("use_parallel_residual", default=True)
    return read


def _gptj(f: Fields) -> dict[str, Any]:
    read = _common(f)
    read["ffn"] = f.integer("n_inner", default=4 * read["hidden"])
    read["mlp"] = activation(f, "activation_function", gated=False, default="gelu_new")
    read["rotary"] = min(1.0, f.integer("rotary_dim", default=64) / max(read["head_dim"], 1)) or 1.0
    return read


def _phi(f: Fields) -> dict[str, Any]:
    read = _common(f)
    read["ffn"] = f.integer("intermediate_size")
    read["mlp"] = activation(f, "hidden_act", gated=False, default="gelu_new")
    if f.flag("qk_layernorm", default=False):
        read["qk_norm"] = "head"
    return read


def _gpt_oss(f: Fields) -> dict[str, Any]:
    read = _common(f)
    read |= _mixers(f, read["layers"])
    read["qkv_bias"] = read["o_bias"] = f.flag("attention_bias", default=True)
    f.ignore("hidden_act")
    read["moe"] = _experts(f, "num_local_experts", "num_experts", ffn="intermediate_size")
    return read


def _opt(f: Fields) -> dict[str, Any]:
    read = _common(f)
    read["ffn"] = f.integer("ffn_dim")
    read["mlp"] = activation(f, "activation_function", gated=False, default="relu")
    read["learned_positions"] = f.integer("max_position_embeddings", default=2048) + 2  # two rows for padding
    read["qkv_bias"] = read["o_bias"] = read["mlp_bias"] = f.flag("enable_bias", default=True)
    if not f.flag("layer_norm_elementwise_affine", default=True):
        read["norm_scale"] = read["norm_bias"] = False
    if not f.flag("do_layer_norm_before", default=True):
        read["norm_placement"], read["final_norm"] = "post", False
    width = f.integer("word_embed_proj_dim", default=read["hidden"])
    read["embedding_dim"] = None if width == read["hidden"] else width
    return read


def _falcon(f: Fields) -> dict[str, Any]:
    read = _common(f)
    heads = read["heads"]
    new = f.flag("new_decoder_architecture", default=False)
    multi_query = f.flag("multi_query", default=True)
    kv_heads = f.integer("num_kv_heads", "n_head_kv", default=heads)
    read["kv_heads"] = kv_heads if new or not multi_query else 1
    read["ffn"] = f.integer("ffn_hidden_size", default=4 * read["hidden"])
    read["mlp"] = activation(f, "activation", gated=False, default="gelu")
    read["qkv_bias"] = read["o_bias"] = read["mlp_bias"] = f.flag("bias", default=False)
    read["parallel_block"] = f.flag("parallel_attn", default=True)
    norms = f.integer("num_ln_in_parallel_attn", default=2 if new else 1)
    read["shared_norm"] = read["parallel_block"] and norms == 1
    read["positions"] = "alibi" if f.flag("alibi", default=False) else "rope"
    return read


def _bloom(f: Fields) -> dict[str, Any]:
    read = _common(f)
    read["ffn"] = 4 * read["hidden"]
    f.ignore("apply_residual_connection_post_layernorm", "seq_length", "offset_alibi", "n_inner", "skip_bias_add")
    f.ignore("attention_softmax_in_fp32", "bias_dropout_fusion", "masked_softmax_fusion", "skip_bias_add_qkv")
    return read


def _smollm3(f: Fields) -> dict[str, Any]:
    read = _qwen2(f)
    interval = f.integer("no_rope_layer_interval", default=4)
    flags = f.integers("no_rope_layers", default=None)  # 1 = rope, 0 = none
    if flags is not None:
        read["no_rope_interval"] = None
        read["no_rope_layers"] = tuple(i for i, uses_rope in enumerate(flags) if not uses_rope)
    elif interval:
        read["no_rope_interval"] = interval
    return read


def _scaled(*names: str) -> Reader:
    """Llama with constant factors on embeddings, residuals or logits (Granite, MiniCPM)."""

    def reader(f: Fields) -> dict[str, Any]:
        read = _llama(f)
        factors = [f.number(name, default=1.0) for name in names]
        read["embedding_scale"], read["residual_scale"], read["logit_scale"] = (factor != 1 for factor in factors)
        return read

    return reader


def _mla(f: Fields) -> dict[str, Any]:
    """Latent attention with or without experts: DeepSeek V2/V3, Kimi K2, GLM-4.7-Flash, MiniCPM3."""
    read = _llama(f)
    read["kv_heads"] = read["heads"]
    read["qkv_bias"] = read["o_bias"] = False
    q_lora = f.integer("q_lora_rank", default=None)
    read["mla"] = {
        "q_lora": q_lora or None,
        "kv_lora": f.integer("kv_lora_rank"),
        "qk_nope": f.integer("qk_nope_head_dim"),
        "qk_rope": f.integer("qk_rope_head_dim"),
        "v_head": f.integer("v_head_dim"),
    }
    read["head_dim"] = read["mla"]["qk_nope"] + read["mla"]["qk_rope"]
    read["rotary"] = 1.0
    f.ignore("scale_emb", "scale_depth", "dim_model_base")  # MiniCPM3's factors, always on in its family
    if f.has("n_routed_experts"):
        read |= _deepseek_experts(f, read["layers"])
    return read


def _deepseek_experts(f: Fields, layers: int) -> dict[str, Any]:
    moe = _experts(f, "n_routed_experts")
    moe["shared_ffn"] = moe["ffn"] * f.integer("n_shared_experts", default=0)
    score = f.text("scoring_func", default=None)
    if score is not None:
        moe["score"] = score
    method = f.text("topk_method", default=None)
    if method is not None:
        moe["correction_bias"] = method == "noaux_tc"
    types = f.words("mlp_layer_types", default=None)
    dense = f.integer("first_k_dense_replace", default=0 if types else 1)
    f.integer("moe_layer_freq", default=1)
    moe["dense_layers"] = dense if types is None else sum(1 for t in types[:layers] if t == "dense")
    return {"moe": moe}


_V4_RATIOS = {0: "sliding", 4: "csa", 128: "hca"}


def _deepseek_v4(f: Fields) -> dict[str, Any]:
    read = _common(f)
    layers, head_dim = read["layers"], read["head_dim"]
    rotated = f.integer("qk_rope_head_dim", default=None) or int(head_dim * read.pop("rotary", 0.125))
    read |= _mixers(f, layers)
    ratios = f.integers("compress_ratios", default=None)
    if "mixers" not in read and ratios is not None and len(ratios) >= layers and set(ratios) <= set(_V4_RATIOS):
        read["mixers"] = tuple(_V4_RATIOS[r] for r in ratios[:layers])
    if "mixers" not in read:
        raise ModelError(f"{f.where}: lacks layer_types or compress_ratios (0, 4 or 128 for each layer)")
    rates = f.table("compress_rates", default={})
    read["sparse"] = {
        "q_lora": f.integer("q_lora_rank"), "o_lora": f.integer("o_lora_rank"), "o_groups": f.integer("o_groups"),
        "qk_rope": rotated, "index_topk": f.integer("index_topk"), "index_heads": f.integer("index_n_heads"),
        "index_dim": f.integer("index_head_dim"),
        "ratios": (rates.get("compressed_sparse_attention", 4), rates.get("heavily_compressed_attention", 128)),
    }  # fmt: skip
    read["streams"] = f.integer("hc_mult", default=4)
    f.ignore("hc_sinkhorn_iters", "hc_eps", "mlp_layer_types", "num_hash_layers", "hidden_act", "attention_bias")
    f.ignore("default_partial_rotary_factor", "default_num_hash_layers", "default_compress_rates", "mlp_bias")
    f.ignore("compress_rate_csa", "compress_rate_hca", "expert_dtype")
    moe = _experts(f, "n_routed_experts", "num_local_experts")
    read["moe"] = {**moe, "shared_ffn": moe["ffn"] * f.integer("n_shared_experts", default=1)}
    read["moe"]["score"] = f.text("scoring_func", default="sqrtsoftplus")
    f.ignore("topk_method")
    return read


def _glm4_moe(f: Fields) -> dict[str, Any]:
    read = _llama(f)
    read["o_bias"] = False
    read["qk_norm"] = "head" if f.flag("use_qk_norm", default=False) else "none"
    read |= _deepseek_experts(f, read["layers"])
    return read


def _lfm2(f: Fields) -> dict[str, Any]:
    read = _common(f)
    read["ffn"] = _lfm2_width(f, f.integer("intermediate_size", "block_ff_dim"))
    f.ignore(
        "conv_dim", "conv_dim_out", "block_dim", "block_use_swiglu", "block_mlp_init_scale", "block_out_init_scale"
    )
    f.ignore(
        "block_norm_eps", "block_use_xavier_init", "conv_use_xavier_init", "num_heads", "use_pos_enc", "hidden_act"
    )
    read |= _mixers(f, read["layers"])
    attention = f.integers("full_attn_idxs", default=None)
    if "mixers" not in read and attention is not None:
        read["mixers"] = tuple("full" if i in set(attention) else "conv" for i in range(read["layers"]))
    if "mixers" not in read:
        raise ModelError(f"{f.where}: lacks layer_types or full_attn_idxs")
    read["conv_kernel"] = f.integer("conv_L_cache", default=3)
    read["conv_bias"] = f.flag("conv_bias", default=False)
    if f.has("num_experts"):
        read["moe"] = {
            **_experts(f, "num_experts", "num_local_experts"),
            "dense_layers": f.integer("num_dense_layers", default=0),
        }
        read["moe"]["correction_bias"] = f.flag("use_expert_bias", default=True)
    return read


def _lfm2_width(f: Fields, width: int) -> int:
    """LFM2 states a nominal width that the model adjusts: 2/3 of it, times a factor, rounded up to a multiple."""
    factor: float
    multiple: int
    factor, multiple = f.number("block_ffn_dim_multiplier", default=1.0), f.integer("block_multiple_of", default=256)
    if f.has("num_experts") or not f.flag("block_auto_adjust_ff_dim", default=True):
        return width
    width = int(factor * int(2 * width / 3))
    return multiple * -(-width // max(multiple, 1))


_NEMOTRON_BLOCKS = {
    "linear_attention": "M", "mamba": "M", "moe": "E", "full_attention": "*", "attention": "*", "mlp": "-",
}  # fmt: skip


def _nemotron_h(f: Fields) -> dict[str, Any]:
    blocks = f.text("hybrid_override_pattern", default=None)
    words = f.words("layers_block_type", default=None)
    if blocks is None:
        if words is None:
            raise ModelError(f"{f.where}: lacks hybrid_override_pattern or layers_block_type")
        unknown = [w for w in words if w not in _NEMOTRON_BLOCKS]
        if unknown:
            raise ModelError(f"{f.where}: layers_block_type has {unknown[0][:40]!r}")
        blocks = "".join(_NEMOTRON_BLOCKS[w] for w in words)
    heads = f.integer("num_attention_heads")
    hidden = f.integer("hidden_size")
    f.ignore("num_hidden_layers", "mamba_hidden_act", "sliding_window", "attention_head_dim", "use_bias")
    f.ignore("mamba_proj_bias", "hidden_act")
    read: dict[str, Any] = {
        "layers": len(blocks), "hidden": hidden, "heads": heads, "vocab": f.integer("vocab_size"), "blocks": blocks,
        "kv_heads": f.integer("num_key_value_heads", default=heads),
        "head_dim": f.integer("head_dim", "attention_head_dim", default=hidden // max(heads, 1)),
        "ffn": f.integer("intermediate_size", default=None),
        "max_positions": f.integer("max_position_embeddings", default=None),
        "tied_embeddings": f.flag("tie_word_embeddings", default=False),
        "mlp": activation(f, "mlp_hidden_act", gated=False, default="relu2"),
        "mlp_bias": f.flag("mlp_bias", default=False),
        "mamba": {
            "heads": f.integer("mamba_num_heads"), "head_dim": f.integer("mamba_head_dim"),
            "state": f.integer("ssm_state_size"), "groups": f.integer("n_groups"),
            "conv_kernel": f.integer("conv_kernel", default=4), "conv_bias": f.flag("use_conv_bias", default=True),
        },
    }  # fmt: skip
    if "E" in blocks:
        read["moe"] = _experts(f, "n_routed_experts")
        shared = f.integer("moe_shared_expert_intermediate_size", default=0)
        read["moe"]["shared_ffn"] = shared * f.integer("n_shared_experts", default=1)
        if f.has("moe_latent_size"):
            raise ModelError(f"{f.where}: moe_latent_size (experts in a latent space) is not supported")
    f.ignore("n_routed_experts", "n_shared_experts", "moe_intermediate_size", "moe_shared_expert_intermediate_size")
    f.ignore("num_experts_per_tok", "norm_topk_prob")
    return read


def _mamba(f: Fields) -> dict[str, Any]:
    hidden, layers = f.integer("hidden_size"), f.integer("num_hidden_layers")
    expand = f.integer("expand", default=2)
    rank = -(-hidden // 16) if f.values.get("time_step_rank", "auto") == "auto" else f.integer("time_step_rank")
    f.ignore(
        "time_step_rank", "time_step_scale", "time_step_init_scheme", "hidden_act", "use_mambapy", "use_falcon_mambapy"
    )
    f.ignore("d_inner", "d_model", "fused_add_norm", "n_layer", "pad_vocab_size_multiple", "rms_norm", "ssm_cfg")
    f.ignore("use_associative_scan")
    return {
        "layers": layers, "hidden": hidden, "heads": 1, "kv_heads": 1, "head_dim": hidden,
        "vocab": f.integer("vocab_size"), "blocks": "S" * min(layers, LARGEST["layers"]),
        "tied_embeddings": f.flag("tie_word_embeddings", default=True),
        "selective": {
            "inner": f.integer("intermediate_size", default=expand * hidden), "state": f.integer("state_size", default=16),
            "rank": rank, "conv_kernel": f.integer("conv_kernel", default=4),
            "conv_bias": f.flag("use_conv_bias", default=True), "bias": f.flag("use_bias", default=False),
        },
    }  # fmt: skip


def _cohere(f: Fields) -> dict[str, Any]:
    read = _llama_windowed(f) if f.has("layer_types") or f.has("sliding_window") else _llama(f)
    read["qk_norm"] = "head" if f.flag("use_qk_norm", default=False) else "none"
    read["logit_scale"] = f.number("logit_scale", default=1.0) != 1
    return read


def _stablelm(f: Fields) -> dict[str, Any]:
    read = _llama(f)
    read["qkv_bias"], read["o_bias"] = f.flag("use_qkv_bias", default=False), False
    read["qk_norm"] = "head" if f.flag("qk_layernorm", default=False) else "none"
    read["parallel_block"] = read["shared_norm"] = f.flag("use_parallel_residual", default=False)
    return read


def _starcoder2(f: Fields) -> dict[str, Any]:
    read = _common(f)
    read |= _mixers(f, read["layers"])
    if read["window"] is not None:
        read["pattern"] = "sliding"
    read["ffn"] = f.integer("intermediate_size")
    read["mlp"] = activation(f, "hidden_act", gated=False, default="gelu")
    read["qkv_bias"] = read["o_bias"] = read["mlp_bias"] = f.flag("use_bias", default=True)
    f.ignore("norm_type", "mlp_type")
    return read


def _exaone(f: Fields) -> dict[str, Any]:
    """EXAONE 3 (names of its own)."""
    read = _common(f)
    read["ffn"] = f.integer("intermediate_size")
    read["mlp"] = activation(f, "activation_function", "hidden_act")
    return read


def _exaone4(f: Fields) -> dict[str, Any]:
    read = _llama(f)
    read |= _mixers(f, read["layers"])
    f.ignore("sliding_window_pattern")
    if "mixers" in read and read["window"] is not None:
        read["no_rope_mixers"] = ("full",)  # rope on sliding layers only where the model has both
    return read


def _glm4(f: Fields) -> dict[str, Any]:
    read = _llama(f)
    read["o_bias"] = False
    return read


def _seed_oss(f: Fields) -> dict[str, Any]:
    read = _llama(f)
    read["o_bias"] = f.flag("attention_out_bias", default=False)
    return read


READERS: Mapping[str, tuple[str, Reader]] = {
    "bloom": ("bloom", _bloom),
    "cohere": ("cohere", _cohere),
    "deepseek_v2": ("deepseek_v2", _mla),
    "deepseek_v3": ("deepseek_v3", _mla),
    "deepseek_v4": ("deepseek_v4", _deepseek_v4),
    "exaone": ("exaone", _exaone),
    "exaone4": ("exaone4", _exaone4),
    "falcon": ("falcon", _falcon),
    "gemma": ("gemma", _llama),
    "gemma2": ("gemma2", _gemma2),
    "gemma3": ("gemma3", _gemma2),
    "gemma3_text": ("gemma3", _gemma2),
    "gemma3n": ("gemma3n", _gemma3n),
    "gemma3n_text": ("gemma3n", _gemma3n),
    "gemma4": ("gemma4", _gemma4),
    "gemma4_text": ("gemma4", _gemma4),
    "glm4": ("glm4", _glm4),
    "glm4_moe": ("glm4_moe", _glm4_moe),
    "glm4_moe_lite": ("glm4_moe_lite", _mla),
    "gpt2": ("gpt2", _gpt2),
    "gpt_neox": ("gpt_neox", _gpt_neox),
    "gpt_oss": ("gpt_oss", _gpt_oss),
    "gptj": ("gptj", _gptj),
    "granite": ("granite", _scaled("embedding_multiplier", "residual_multiplier", "logits_scaling")),
    "kimi_k2": ("deepseek_v3", _mla),
    "lfm2": ("lfm2", _lfm2),
    "lfm2_moe": ("lfm2_moe", _lfm2),
    "llama": ("llama", _llama),
    "mamba": ("mamba", _mamba),
    "minicpm": ("minicpm", _scaled("scale_emb", "scale_depth", "dim_model_base")),
    "minicpm3": ("minicpm3", _mla),
    "ministral": ("mistral", _llama_windowed),
    "ministral3": ("ministral3", _llama_windowed),
    "mistral": ("mistral", _llama_windowed),
    "mixtral": ("mixtral", _mixtral),
    "nemotron_h": ("nemotron_h", _nemotron_h),
    "olmo": ("olmo", _llama),
    "olmo2": ("olmo2", _llama),
    "olmoe": ("olmoe", _olmoe),
    "opt": ("opt", _opt),
    "phi": ("phi", _phi),
    "phi3": ("phi3", _llama_windowed),
    "qwen2": ("qwen2", _qwen2),
    "qwen2_5_vl_text": ("qwen2", _qwen2),
    "qwen2_moe": ("qwen2_moe", _qwen_moe),
    "qwen2_vl_text": ("qwen2", _qwen2),
    "qwen3": ("qwen3", _qwen2),
    "qwen3_5": ("qwen3_5", _qwen3_next),
    "qwen3_5_moe": ("qwen3_5_moe", _qwen3_next),
    "qwen3_5_moe_text": ("qwen3_5_moe", _qwen3_next),
    "qwen3_5_text": ("qwen3_5", _qwen3_next),
    "qwen3_moe": ("qwen3_moe", _qwen_moe),
    "qwen3_next": ("qwen3_next", _qwen3_next),
    "qwen3_vl_moe_text": ("qwen3_moe", _qwen_moe),
    "qwen3_vl_text": ("qwen3", _qwen2),
    "seed_oss": ("seed_oss", _seed_oss),
    "smollm3": ("smollm3", _smollm3),
    "stablelm": ("stablelm", _stablelm),
    "starcoder2": ("starcoder2", _starcoder2),
}
assert all(architecture in FAMILIES for architecture, _ in READERS.values())
