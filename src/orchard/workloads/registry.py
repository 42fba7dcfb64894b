"""The front door: a name or a path in, a model out.

model = load_model("qwen3-4b")
graph = model.graph(kv_format="f16")        # symbols B, T, S; see decoder.py
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from orchard.ir import Graph
from orchard.workloads import catalog, hf
from orchard.workloads.config import DecoderConfig
from orchard.workloads.decoder import build_decoder
from orchard.workloads.quantize import apply_weights, weight_bytes


@dataclass(frozen=True, kw_only=True)
class Model:
    """A model that is ready to become a graph.

    family: `decoder` (phases prefill and decode; symbols B, T, S) or `encoder` (phase inference).
    source: where the dimensions come from. default_weights: the weight scheme of the published files, if not 16 bit.
    """

    name: str
    family: str
    config: DecoderConfig
    source: str = ""
    warnings: tuple[str, ...] = ()
    default_weights: str | None = None
    notes: tuple[tuple[str, str], ...] = field(default=())

    def graph(
        self,
        *,
        weights: str | None = None,
        kv_format: str = "f16",
        activations: str = "f16",
        skip_shared_prefill: bool = False,
    ) -> Graph:
        """The graph with 16-bit weights, or in the weight scheme `weights`; built once per set of arguments."""
        plain = _decoder_graph(self.config, kv_format, activations, skip_shared_prefill)
        if weights is None:
            return plain
        return _weighted(self.config, weights, kv_format, activations, skip_shared_prefill)

    def weight_bytes(self, weights: str) -> int:
        """Bytes of all weights in the scheme `weights`, as a file or memory holds them."""
        return weight_bytes(self.graph(weights=weights))

    @property
    def params(self) -> int:
        """All weight elements, tied ones once."""
        return self.graph().parameters


def load_model(name_or_path: str | Path) -> Model:
    """A built-in model by name, or one from a Hugging Face config.json or the folder that holds it.

    Raises ModelError for an unknown name (with the nearest ones) or a file that does not describe a known model.
    """
    path = Path(name_or_path)
    if path.suffix == ".json" or path.is_dir():
        return _from_config(path / "config.json" if path.is_dir() else path)
    full, others = catalog.find(str(name_or_path))
    return _builtin(full, others)


def model_names() -> tuple[str, ...]:
    """Full names of all built-in models."""
    return catalog.builtin_names()


def _from_config(path: Path) -> Model:
    config = hf.decoder_from_file(path)
    return Model(
        name=config.name,
        family="decoder",
        config=config,
        source=str(path),
        warnings=config.warnings,
        default_weights=config.default_weights,
    )


@lru_cache(maxsize=128)
def _builtin(full: str, others: tuple[str, ...]) -> Model:
    found = catalog.entry(full)
    config = catalog.decoder_config(full, found.architecture, found.fields)
    return Model(
        name=full,
        family="decoder",
        config=config,
        source=str(found.notes.get("verification", "")),
        warnings=config.warnings,
        default_weights=config.default_weights,
        notes=(("also called so", ", ".join(others)),) if others else (),
    )


@lru_cache(maxsize=64)
def _decoder_graph(config: DecoderConfig, kv_format: str, activations: str, skip_shared_prefill: bool) -> Graph:
    return build_decoder(
        config, kv_format=kv_format, activations=activations, skip_shared_prefill=skip_shared_prefill
    )  # fmt: skip


@lru_cache(maxsize=64)
def _weighted(
    config: DecoderConfig, weights: str, kv_format: str, activations: str, skip_shared_prefill: bool
) -> Graph:
    return apply_weights(_decoder_graph(config, kv_format, activations, skip_shared_prefill), weights)
