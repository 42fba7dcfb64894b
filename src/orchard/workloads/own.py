"""Configurations that build their own graphs: what the registry asks of a family that is no decoder and no encoder stack."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from orchard.ir import Graph


@dataclass(frozen=True, kw_only=True)
class OwnGraph(ABC):
    """A model family with graphs of its own: phase inference, and with a part `decoder` the phase decode."""

    name: str
    warnings: tuple[str, ...] = ()
    default_weights: str | None = None

    @property
    def parts(self) -> tuple[str, ...]:
        """Graphs the model consists of, the main one first."""
        return ("encoder",)

    @property
    def decoder(self) -> object | None:
        """What says how the decoder is made, None without one."""
        return None

    @property
    def shared(self) -> frozenset[str]:
        """Names of weights that stand in the graphs of several parts and exist once."""
        return frozenset()

    @abstractmethod
    def build(self, part: str, *, kv_format: str, activations: str) -> Graph:
        """The graph of a part."""
