"""Configuration files are read here and nowhere else: bounded, typed, and with every unread key accounted for."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from orchard.workloads.errors import ModelError

MAX_BYTES = 5_000_000
_MISSING: Any = object()

# Keys that say nothing about shapes or work: training, tokens, precision of the maker, generation, bookkeeping.
_HARMLESS = """
logit_scale_init_value median_filter_width _attn_implementation _commit_hash _name_or_path _remove_final_layer_norm
activation_dropout apply_spec_augment architectures attention_dropout attention_multiplier attention_probs_dropout_prob
attention_scale attn_implementation attn_pdrop audio_config audio_soft_tokens_per_image audio_token_id audio_token_index
auto_map aux_loss_alpha bad_words_ids begin_suppress_tokens block_multiple_of block_size boa_token_id boi_token_id
boi_token_index bos_token_id chunk_size chunk_size_feed_forward classifier_dropout classifier_proj_size
compress_rope_theta cross_attention_hidden_size custom_pipelines decoder_layerdrop decoder_start_token_id
diversity_penalty do_sample dropout dropout_rate dtype early_stopping embd_pdrop embedding_dropout
embedding_initializer_range encoder_layerdrop encoder_no_repeat_ngram_size eoa_token_id eoa_token_index eoi_token_id
eoi_token_index eos_token_id ep_size expand experts_per_token exponential_decay_length_penalty finetuning_task
forced_bos_token_id forced_decoder_ids forced_eos_token_id freq_shift gradient_checkpointing hidden_dropout
hidden_dropout_prob id2label image_token_id image_token_index init_std initial_context_length initializer_factor
initializer_range  is_encoder_decoder label2id language layer_norm_eps layer_norm_epsilon layerdrop layernorm_epsilon
length_penalty logit_scale_init_value long_factor mamba_ssm_cache_dtype mamba_ssm_dtype mask_feature_length
mask_feature_min_masks mask_feature_prob mask_time_length mask_time_min_masks mask_time_prob mask_token_id max_length
max_window_layers median_filter_length min_length mm_tokens_per_image model_type moe_shared_expert_overlap
mtp_hybrid_override_pattern mtp_layers_block_type mtp_num_hidden_layers mtp_use_dedicated_embeddings n_group
no_repeat_ngram_size norm_eps norm_epsilon num_beam_groups num_beams num_expert_group num_logits_to_keep num_mtp_layers
num_nextn_predict_layers num_return_sequences original_max_position_embeddings output_attentions output_hidden_states
output_router_logits output_scores pad_token_id pooler_act pooler_output_size position_embedding_type prefix
pretraining_tp problem_type pruned_heads qa_dropout qk_head_dim query_pre_attn_scalar remove_invalid_values
reorder_and_upcast_attn repetition_penalty rescale_prenorm_residual resid_pdrop residual_dropout residual_in_fp32
return_dict return_dict_in_generate rms_norm_eps rope_interleave rope_is_neox_style rope_local_base_freq rope_scaling
rope_theta rope_type rotary_emb_base routed_scaling_factor router_aux_loss_coef router_jitter_noise router_z_loss_coef
scale_attn_by_inverse_layer_idx scale_attn_weights scale_embedding sep_token_id seq_aux seq_classif_dropout short_factor
slow_but_exact summary_activation summary_first_dropout summary_proj_to_labels summary_type summary_use_proj
suppress_tokens swiglu_alpha swiglu_limit task_specific_params temperature text_config tie_encoder_decoder
time_step_floor time_step_limit time_step_max time_step_min tokenizer_class top_k top_p topk_group torch_dtype
torchscript training_dtype transformers.js_config transformers_version typical_p unk_token_id unsloth_fixed
unsloth_version use_bfloat16 use_bidirectional_attention use_cache use_flash_attn use_mamba_kernels
use_weighted_layer_sum video_token_id video_token_index vision_config vision_end_token_id vision_soft_tokens_per_image
vision_start_token_id vision_token_id
"""
IGNORED = frozenset(_HARMLESS.split())


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file. Raises ModelError for a file that is too big, truncated, or no JSON object."""
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise ModelError(f"{path}: {size} bytes, expected a configuration of at most {MAX_BYTES}")
        text = path.read_bytes()[: MAX_BYTES + 1].decode("utf-8")
        value = json.loads(text, object_pairs_hook=_unique)
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror or error})") from None
    except UnicodeDecodeError:
        raise ModelError(f"{path}: not UTF-8 text, expected a JSON configuration") from None
    except RecursionError:
        raise ModelError(f"{path}: nested too deeply for a configuration") from None
    except _DuplicateKeyError as error:
        raise ModelError(f"{path}: key {str(error)[:60]!r} stands twice in one object") from None
    except ValueError as error:
        raise ModelError(f"{path}: not valid JSON ({str(error)[:80]})") from None
    if not isinstance(value, dict):
        raise ModelError(f"{path}: holds a JSON {type(value).__name__}, expected an object with model_type")
    return value


class _DuplicateKeyError(Exception):
    pass


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise _DuplicateKeyError(key)
        found[key] = value
    return found


class Fields:
    """Typed access to a configuration's keys. Each reader takes alternative names; what is never asked for is `unread`.

    `read` are the keys asked for so far; a corrected copy of the values goes on with the same set.

    Raises ModelError that names the key and `where` for a missing key or a value of the wrong type.
    """

    def __init__(self, values: Mapping[str, Any], where: str, read: set[str] | None = None) -> None:
        self.values = values
        self.where = where
        self.read = set() if read is None else read

    def integer(self, *names: str, default: Any = _MISSING) -> Any:
        """A whole number from 0 to 10^12; null counts as absent."""
        name, value = self._find(names, default)
        if name is None:
            return value
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= 10**12:
            raise self._wrong(name, value, "a whole number >= 0")
        return value

    def number(self, *names: str, default: Any = _MISSING) -> Any:
        name, value = self._find(names, default)
        if name is None:
            return value
        if isinstance(value, bool) or not isinstance(value, (int, float)) or value != value or abs(value) > 1e18:
            raise self._wrong(name, value, "a number")
        return value

    def flag(self, *names: str, default: Any = _MISSING) -> Any:
        name, value = self._find(names, default)
        if name is None:
            return value
        if not isinstance(value, bool):
            raise self._wrong(name, value, "true or false")
        return value

    def text(self, *names: str, default: Any = _MISSING) -> Any:
        name, value = self._find(names, default)
        if name is None:
            return value
        if not isinstance(value, str) or len(value) > 100_000:
            raise self._wrong(name, value, "a string")
        return value

    def words(self, *names: str, default: Any = _MISSING) -> Any:
        """A list of strings."""
        name, value = self._find(names, default)
        if name is None:
            return value
        if not isinstance(value, list) or not all(isinstance(v, str) for v in value):
            raise self._wrong(name, value, "a list of strings")
        return value

    def integers(self, *names: str, default: Any = _MISSING) -> Any:
        """A list of whole numbers (true and false count as 1 and 0)."""
        name, value = self._find(names, default)
        if name is None:
            return value
        if not isinstance(value, list) or not all(isinstance(v, int) for v in value):
            raise self._wrong(name, value, "a list of whole numbers")
        return [int(v) for v in value]

    def table(self, *names: str, default: Any = _MISSING) -> Any:
        name, value = self._find(names, default)
        if name is None:
            return value
        if not isinstance(value, dict):
            raise self._wrong(name, value, "an object")
        return value

    def ignore(self, *names: str) -> None:
        """Keys that are understood and change nothing here."""
        self.read.update(names)

    def has(self, name: str) -> bool:
        return self.values.get(name) is not None

    def unread(self) -> list[str]:
        """Keys nobody asked for and that are not known to be harmless; those that are off (null, false, 0) neither."""
        return sorted(
            key
            for key, value in self.values.items()
            if key not in self.read and key not in IGNORED and not _is_off(value)
        )

    def _find(self, names: tuple[str, ...], default: Any) -> tuple[str | None, Any]:
        self.read.update(names)
        for name in names:
            if self.values.get(name) is not None:
                return name, self.values[name]
        if default is _MISSING:
            raise ModelError(f"{self.where}: lacks {' or '.join(names)}")
        return None, default

    def _wrong(self, name: str, value: object, expected: str) -> ModelError:
        text = repr(value)
        shown = text if len(text) <= 40 else text[:36] + "..."
        return ModelError(f"{self.where}: {name} is {shown}, expected {expected}")


def _is_off(value: object) -> bool:
    return value is None or value is False or value == 0 or value in ("", [], {})
