"""Layer 2: model families and importers. A name, a configuration or a file becomes a workload graph."""

from typing import TYPE_CHECKING, Any

from orchard.ir.masks import causal_pairs
from orchard.ir.weights import apply_weights, weight_bytes, weight_shapes
from orchard.workloads.config import DecoderConfig
from orchard.workloads.decoder import build_decoder
from orchard.workloads.errors import ModelError
from orchard.workloads.registry import Model, load_model, model_names

if TYPE_CHECKING:
    from orchard.workloads.encoders import EncoderConfig, build_cross_decoder, build_encoder

__all__ = [
    "DecoderConfig",
    "EncoderConfig",
    "Model",
    "ModelError",
    "apply_weights",
    "build_cross_decoder",
    "build_decoder",
    "build_encoder",
    "causal_pairs",
    "load_model",
    "model_names",
    "weight_bytes",
    "weight_shapes",
]


def __getattr__(name: str) -> Any:
    """Encoders are imported when somebody asks for them."""
    if name in ("EncoderConfig", "build_cross_decoder", "build_encoder"):
        from orchard.workloads import encoders

        return getattr(encoders, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
