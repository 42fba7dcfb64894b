"""Hugging Face config.json of families with graphs of their own: T5, wav2vec 2.0."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from orchard.workloads.errors import ModelError
from orchard.workloads.fields import Fields, read_json
from orchard.workloads.hf import default_weights, model_name
from orchard.workloads.own import OwnGraph
from orchard.workloads.t5 import T5Config, t5_from_fields
from orchard.workloads.wav2vec2 import Wav2Vec2Config, wav2vec2_from_fields

OWN: Mapping[str, tuple[Callable[..., OwnGraph], Callable[[Fields], dict[str, Any]]]] = {
    "mt5": (T5Config, t5_from_fields),
    "t5": (T5Config, t5_from_fields),
    "wav2vec2": (Wav2Vec2Config, wav2vec2_from_fields),
}
"""Configuration class and reader by model_type."""


def own_from_file(path: Path, values: Mapping[str, Any] | None = None) -> OwnGraph:
    """The configuration that a config.json describes. Raises ModelError as `hf.decoder_from_file` does."""
    values = read_json(path) if values is None else values
    where = str(path)
    fields = Fields(values, where)
    make, read = OWN[fields.text("model_type")]
    weights, notes = default_weights(values.get("quantization_config") or values.get("quantization"))
    fields.ignore("quantization_config", "quantization")
    try:
        config = make(name=model_name(path, values), **read(fields))
    except ModelError as error:
        raise ModelError(str(error) if where in str(error) else f"{where}: {error}") from None
    unread = [f"{where}: field {key!r} is not understood and has no effect" for key in fields.unread()]
    return replace(config, warnings=(*config.warnings, *notes, *unread), default_weights=weights)
