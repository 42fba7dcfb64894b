"""The front door: a name or a path in, a model out.

model = load_model("qwen3-4b")
graph = model.graph(kv_format="f16")        # symbols B, T, S; see decoder.py
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from orchard.ir import Graph, bind
from orchard.ir.weights import apply_weights, weight_bytes, weight_shapes
from orchard.workloads import catalog
from orchard.workloads.config import DecoderConfig
from orchard.workloads.decoder import build_decoder
from orchard.workloads.errors import ModelError
from orchard.workloads.own import OwnGraph

if TYPE_CHECKING:
    from orchard.workloads.diffusion.pipelines import PipelineConfig
    from orchard.workloads.encoders import EncoderConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkConfig:
    """A built-in network with inputs of fixed size; `orchard.workloads.networks` lists them."""

    name: str
    height: int | None = None
    width: int | None = None
    warnings: tuple[str, ...] = ()
    default_weights: str | None = None
    decoder: None = None


@dataclass(frozen=True, kw_only=True)
class Model:
    """A model that is ready to become a graph.

    family: `decoder` (phases prefill and decode; symbols B, T, S), `encoder` (phase inference; symbols B and, for
    text, T), `network` (an image network; phase inference, symbol B) or `pipeline` (several models that make one
    picture). parts: graphs the model consists of, the main one first; Whisper has `encoder` and `decoder`, the latter
    with the symbols of a decoder; a pipeline has its denoiser, then its other components. source: where the dimensions
    come from. default_weights: the weight scheme of the published files, if not 16 bit. others: further
    built-in models that answer to the same short name.
    """

    name: str
    family: str
    config: DecoderConfig | EncoderConfig | NetworkConfig | PipelineConfig | OwnGraph
    source: str = ""
    warnings: tuple[str, ...] = ()
    default_weights: str | None = None
    others: tuple[str, ...] = ()

    @property
    def parts(self) -> tuple[str, ...]:
        components = getattr(self.config, "components", ())
        if components:
            return tuple(c.part for c in sorted(components, key=lambda c: not c.per_step))
        if isinstance(self.config, OwnGraph):
            return self.config.parts
        both = not isinstance(self.config, DecoderConfig) and self.config.decoder is not None
        return ("encoder", "decoder") if both else (self.family,)

    @property
    def serves(self) -> str:
        """Which runtime profiles answer for it: those of image networks or of language models."""
        return "network" if self.family in ("network", "pipeline") else "language"

    def graph(
        self,
        *,
        weights: str | None = None,
        kv_format: str = "f16",
        activations: str = "f16",
        skip_shared_prefill: bool = False,
        part: str | None = None,
    ) -> Graph:
        """The graph of a part (default: the main one) with 16-bit weights, or in the weight scheme `weights`.

        Built once per set of arguments. kv_format, skip_shared_prefill: see `build_decoder`; encoders have no use for
        them. Raises ModelError for a part the model does not have, FormatError for an unknown scheme.
        """
        part = part or self.parts[0]
        if part not in self.parts:
            raise ModelError(f"model {self.name}: no part {part!r}; it has {', '.join(self.parts)}")
        if self.family == "pipeline":
            return self.component(part).graph(weights=weights, kv_format=kv_format, activations=activations)
        return _graph(self.config, part, weights, kv_format, activations, skip_shared_prefill)

    def component(self, part: str) -> Model:
        """The model that a part of a pipeline is."""
        from orchard.workloads.diffusion.pipelines import PipelineConfig

        assert isinstance(self.config, PipelineConfig)
        name = self.config.component(part).model
        from orchard.workloads.networks import NETWORKS

        if name not in NETWORKS:
            return load_model(name)
        height = self.config.height or self.config.size
        return load_network(name, height, self.config.width or height)

    def weight_bytes(self, weights: str | None = None) -> int:
        """Bytes of all weights in a scheme (default: 16 bit), as a file or memory holds them."""
        graphs = [self.graph(weights=weights, part=part) for part in self.parts]
        return sum(weight_bytes(g, self.shared if i else ()) for i, g in enumerate(graphs))

    @property
    def params(self) -> int:
        """All weight elements of all parts, tied ones once."""
        graphs = [self.graph(part=part) for part in self.parts]
        twice = sum(bind(w.elements, {}) for g in graphs[1:] for w in g.weights if w.name in self.shared)
        return sum(g.parameters for g in graphs) - twice

    @property
    def shared(self) -> frozenset[str]:
        """Names of weights that stand in the graphs of several parts and exist once."""
        return self.config.shared if isinstance(self.config, OwnGraph) else frozenset()


def load_model(name_or_path: str | Path) -> Model:
    """A built-in model by name, or one from a Hugging Face config.json or the folder that holds it.

    Raises ModelError for an unknown name (with the nearest ones) or a file that does not describe a known model.
    """
    path = Path(name_or_path)
    is_folder = bool(name_or_path) and os.path.isdir(path)  # unlike Path.is_dir, False for a text too long to be a path
    if is_folder and not (path / "config.json").exists():
        raise ModelError(
            f"{path}: the folder holds no config.json and is no .mlpackage or .aimodel; "
            f"expected a model's name, a model file or the folder of a Hugging Face model"
        )
    if path.suffix == ".json" or is_folder:
        return _from_config(path / "config.json" if is_folder else path)
    from orchard.workloads.networks import NETWORKS

    if str(name_or_path).lower() in NETWORKS:
        return load_network(str(name_or_path))
    from orchard.workloads.diffusion.pipelines import PIPELINES

    if str(name_or_path).lower() in PIPELINES:
        return load_pipeline(str(name_or_path))
    from orchard.workloads.recurrent import NETWORKS as RECURRENT
    from orchard.workloads.recurrent import RecurrentConfig

    if str(name_or_path).lower() in RECURRENT:
        return _model(RecurrentConfig(name=str(name_or_path).lower()), "built-in architecture")
    full, others = catalog.find(str(name_or_path), chain(NETWORKS, PIPELINES, RECURRENT))
    return _builtin(full, others)


def model_names() -> tuple[str, ...]:
    """Full names of all built-in models."""
    return catalog.builtin_names()


def _from_config(path: Path) -> Model:
    from orchard.workloads import hf
    from orchard.workloads.fields import read_json
    from orchard.workloads.hf_encoders import ENCODERS, encoder_from_file
    from orchard.workloads.hf_own import OWN, own_from_file

    values = read_json(path)
    model_type = values.get("model_type")
    if isinstance(model_type, str) and model_type in ENCODERS:
        return _model(encoder_from_file(path, values), str(path))
    if isinstance(model_type, str) and model_type in OWN:
        return _model(own_from_file(path, values), str(path))
    if isinstance(model_type, str) and model_type not in hf.READERS and "text_config" not in values:
        known = ", ".join(sorted([*hf.READERS, *ENCODERS, *OWN]))
        raise ModelError(f"{path}: architecture {model_type[:60]!r} is not known; known: {known}")
    return _model(hf.decoder_from_file(path, values), str(path))


@lru_cache(maxsize=128)
def _builtin(full: str, others: tuple[str, ...]) -> Model:
    found = catalog.entry(full)
    if "config" in found.fields:
        from orchard.workloads.hf_encoders import encoder_from_file
        from orchard.workloads.hf_own import OWN, own_from_file

        values = {"model_type": found.architecture, "_name_or_path": full, **found.fields["config"]}
        own = found.architecture in OWN
        config: DecoderConfig | EncoderConfig | OwnGraph = (
            own_from_file(Path(full), values) if own else encoder_from_file(Path(full), values)
        )
    else:
        config = catalog.decoder_config(full, found.architecture, found.fields)
    return _model(config, str(found.notes.get("verification", "")), others)


@lru_cache(maxsize=128)
def load_network(name: str, height: int | None = None, width: int | None = None) -> Model:
    """A built-in image network, at an image size (default: the one it is published with)."""
    config = NetworkConfig(name=name.lower(), height=height, width=width)
    return Model(name=config.name, family="network", config=config, source="built-in architecture")


@lru_cache(maxsize=32)
def load_pipeline(name: str, height: int | None = None, width: int | None = None) -> Model:
    """A built-in pipeline, for pictures of a size (default: the one it was trained for; sides are multiples of 64)."""
    from orchard.workloads.diffusion.pipelines import pipeline

    for side in (height, width):
        if side is not None and side % 64:
            raise ModelError(f"pipeline {name}: a side of {side} pixels, expected a multiple of 64")
    config = replace(pipeline(name), height=height, width=width)
    return Model(name=config.name, family="pipeline", config=config, source=config.source)


def _model(config: DecoderConfig | EncoderConfig | OwnGraph, source: str, others: tuple[str, ...] = ()) -> Model:
    return Model(
        name=config.name,
        family="decoder" if isinstance(config, DecoderConfig) else "encoder",
        config=config,
        source=source,
        warnings=config.warnings,
        default_weights=config.default_weights,
        others=others,
    )


@lru_cache(maxsize=64)
def _graph(
    config: DecoderConfig | EncoderConfig | NetworkConfig | OwnGraph,
    part: str,
    weights: str | None,
    kv_format: str,
    activations: str,
    skip_shared_prefill: bool,
) -> Graph:
    if isinstance(config, NetworkConfig):
        from orchard.workloads.networks import build_network

        return _network_weights(build_network(config.name, config.height, config.width), weights or "f16")
    if weights is not None:
        return apply_weights(_graph(config, part, None, kv_format, activations, skip_shared_prefill), weights)
    if isinstance(config, DecoderConfig):
        skip = skip_shared_prefill and config.kv_shared_layers > 0
        return build_decoder(config, kv_format=kv_format, activations=activations, skip_shared_prefill=skip)
    if isinstance(config, OwnGraph):
        return config.build(part, kv_format=kv_format, activations=activations)
    from orchard.workloads.encoders import build_cross_decoder, build_encoder

    if part == "decoder":
        return build_cross_decoder(config, kv_format=kv_format, activations=activations)
    return build_encoder(config, activations=activations)


def _network_weights(graph: Graph, name: str) -> Graph:
    """Convolutions and dense layers in the format a scheme gives to plain matrices; biases and norms stay 16 bit."""
    from orchard.units import scheme

    chosen = scheme(name)
    shapes = weight_shapes(graph)
    return graph.with_formats(
        {
            w.name: chosen.format_for("ffn_up", 0, 1, shapes[w.name]).name
            for w in graph.weights
            if w.part == "conv" and len(shapes[w.name]) == 2
        }
    )
