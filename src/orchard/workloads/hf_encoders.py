"""Hugging Face config.json of encoder models: BERT, DistilBERT, RoBERTa, ViT, DeiT, CLIP, Whisper."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from orchard.workloads.encoders import Audio, CrossDecoder, EncoderConfig, Image, Text
from orchard.workloads.errors import ModelError
from orchard.workloads.fields import Fields, read_json
from orchard.workloads.hf import activation, default_weights, model_name

Reader = Callable[[Fields], dict[str, Any]]


def encoder_from_file(path: Path, values: Mapping[str, Any] | None = None) -> EncoderConfig:
    """The encoder that a config.json describes. `values` are its contents if they are read already.

    Raises ModelError as `hf.decoder_from_file` does.
    """
    values = read_json(path) if values is None else values
    where = str(path)
    fields = Fields(values, where)
    architecture = fields.text("model_type")
    weights, notes = default_weights(values.get("quantization_config") or values.get("quantization"))
    fields.ignore("quantization_config", "quantization")
    try:
        read = ENCODERS[architecture](fields)
        config = EncoderConfig(name=model_name(path, values), architecture=architecture, **read)
    except ModelError as error:
        raise ModelError(str(error) if where in str(error) else f"{where}: {error}") from None
    unread = [f"{where}: field {key!r} is not understood and has no effect" for key in fields.unread()]
    return replace(config, warnings=(*config.warnings, *notes, *unread), default_weights=weights)


def _task(f: Fields) -> tuple[str, int]:
    """(what the published model is for, number of labels): read from `architectures` and the label table."""
    names = f.words("architectures", default=[])
    labels = f.table("id2label", default={})
    count = f.integer("num_labels", "_num_labels", default=len(labels) or 2)
    return (names[0] if names else ""), count


def _bert(f: Fields) -> dict[str, Any]:
    task, labels = _task(f)
    f.ignore("tie_word_embeddings")  # ties a head for pre-training that inference does not run
    return {
        "layers": f.integer("num_hidden_layers"),
        "hidden": f.integer("hidden_size"),
        "heads": f.integer("num_attention_heads"),
        "ffn": f.integer("intermediate_size"),
        "mlp": activation(f, "hidden_act", gated=False, default="gelu"),
        "source": Text(
            vocab=f.integer("vocab_size"),
            positions=f.integer("max_position_embeddings"),
            types=f.integer("type_vocab_size", default=0),
        ),
        "pooler": True,
        "labels": labels if task.endswith("SequenceClassification") else 0,
    }


def _distilbert(f: Fields) -> dict[str, Any]:
    task, labels = _task(f)
    classifies = task.endswith("SequenceClassification")
    f.ignore("sinusoidal_pos_embds", "tie_weights_", "tie_word_embeddings")
    return {
        "layers": f.integer("n_layers", "num_hidden_layers"),
        "hidden": f.integer("dim", "hidden_size"),
        "heads": f.integer("n_heads", "num_attention_heads"),
        "ffn": f.integer("hidden_dim"),
        "mlp": activation(f, "activation", gated=False, default="gelu"),
        "source": Text(vocab=f.integer("vocab_size"), positions=f.integer("max_position_embeddings")),
        "pooler": classifies,
        "labels": labels if classifies else 0,
    }


def _picture(f: Fields) -> tuple[int, int]:
    """image_size is one number or [height, width]."""
    if isinstance(f.values.get("image_size"), list):
        size = f.integers("image_size")
        if len(size) != 2:
            raise ModelError(f"{f.where}: image_size has {len(size)} numbers, expected height and width")
        return size[0], size[1]
    side = f.integer("image_size")
    return side, side


def _vit(f: Fields) -> dict[str, Any]:
    task, labels = _task(f)
    classifies = task.endswith(("ImageClassification", "ImageClassificationWithTeacher"))
    height, width = _picture(f)
    hidden = f.integer("hidden_size")
    f.ignore("encoder_stride")
    if f.integer("pooler_output_size", default=hidden) != hidden and not classifies:
        raise ModelError(f"{f.where}: pooler_output_size differs from hidden_size, which is not supported")
    return {
        "layers": f.integer("num_hidden_layers"),
        "hidden": hidden,
        "heads": f.integer("num_attention_heads"),
        "ffn": f.integer("intermediate_size"),
        "mlp": activation(f, "hidden_act", gated=False, default="gelu"),
        "source": Image(
            height=height,
            width=width,
            patch=f.integer("patch_size"),
            channels=f.integer("num_channels", default=3),
            extra=2 if f.text("model_type") == "deit" else 1,
        ),
        "norm_placement": "pre",
        "qkv_bias": f.flag("qkv_bias", default=True),
        "pooler": not classifies,
        "labels": labels if classifies else 0,
    }


def _clip_vision(f: Fields) -> dict[str, Any]:
    height, width = _picture(f)
    image = Image(
        height=height, width=width, patch=f.integer("patch_size"), bias=False, norm=True,
        channels=f.integer("num_channels", default=3),
    )  # fmt: skip
    return {**_clip(f, image), "final_norm": False, "pooled_norm": True}


def _clip_text(f: Fields) -> dict[str, Any]:
    text = Text(vocab=f.integer("vocab_size"), positions=f.integer("max_position_embeddings"), norm=False)
    names = f.words("architectures", default=[])
    width = f.integer("projection_dim", default=512) if names and names[0].endswith("WithProjection") else 0
    return {**_clip(f, text), "causal": True, "projection": width}


def _clip(f: Fields, source: Text | Image) -> dict[str, Any]:
    f.ignore("projection_dim")
    return {
        "layers": f.integer("num_hidden_layers"),
        "hidden": f.integer("hidden_size"),
        "heads": f.integer("num_attention_heads"),
        "ffn": f.integer("intermediate_size"),
        "mlp": activation(f, "hidden_act", gated=False, default="quick_gelu"),
        "source": source,
        "norm_placement": "pre",
    }


def _clip_both(f: Fields) -> dict[str, Any]:
    width = f.integer("projection_dim", default=512)
    f.ignore("text_config_dict", "vision_config_dict", "tie_word_embeddings")
    text, vision = (Fields(f.table(f"{part}_config"), f"{f.where}: {part}_config") for part in ("text", "vision"))
    partner = EncoderConfig(
        name="text", architecture="clip_text_model", **{**_clip_text(text), "projection": width}
    )  # fmt: skip
    return {**_clip_vision(vision), "projection": width, "partner": partner}


def _whisper(f: Fields) -> dict[str, Any]:
    f.ignore("num_hidden_layers", "median_filter_width", "tie_word_embeddings")
    return {
        "layers": f.integer("encoder_layers"),
        "hidden": f.integer("d_model"),
        "heads": f.integer("encoder_attention_heads"),
        "ffn": f.integer("encoder_ffn_dim"),
        "mlp": activation(f, "activation_function", gated=False, default="gelu"),
        "source": Audio(mel_bins=f.integer("num_mel_bins"), positions=f.integer("max_source_positions", default=1500)),
        "norm_placement": "pre",
        "key_bias": False,
        "decoder": CrossDecoder(
            layers=f.integer("decoder_layers"),
            heads=f.integer("decoder_attention_heads"),
            ffn=f.integer("decoder_ffn_dim"),
            vocab=f.integer("vocab_size"),
            positions=f.integer("max_target_positions", default=448),
        ),
    }


ENCODERS: Mapping[str, Reader] = {
    "bert": _bert,
    "clip": _clip_both,
    "clip_text_model": _clip_text,
    "clip_vision_model": _clip_vision,
    "deit": _vit,
    "distilbert": _distilbert,
    "roberta": _bert,
    "vit": _vit,
    "whisper": _whisper,
    "xlm-roberta": _bert,
}
"""Readers of encoder architectures by model_type; each returns fields of `EncoderConfig`."""
