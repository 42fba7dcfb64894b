"""Recurrent networks: LSTM language models and the GRU network of RNNoise. Symbols: B sequences, T steps.

One `scan` per layer holds the recurrence: per step and sequence the product of the last output with the recurrent weights
(`macs` in all) and the gates. The product with the input runs for all steps at once, as runtimes do it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from orchard.ir import Builder, Graph, Tensor
from orchard.workloads.errors import ModelError
from orchard.workloads.own import OwnGraph

GATES = {"lstm": 4, "gru": 3}
GATE_OPS = 4
"""Operations per gate and step beside the product: two sums, the activation's share, the product with the state."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stacked:
    """A language model: embedding of `width`, equal layers, a projection to the vocabulary. Weights are not shared."""

    cell: str
    layers: int
    width: int
    vocab: int
    params: float
    source: str

    def build(self, b: Builder) -> Tensor:
        B, T = b.sym("B"), b.sym("T")
        with b.scope("embed"):
            table = b.weight("tokens", (self.vocab, self.width), part="embedding")
            x = b.gather(table, b.input("tokens", (B, T), format="i32"), name="rows")
        for layer in range(self.layers):
            with b.scope(f"layers.{layer}.{self.cell}"):
                x = recurrent(b, self.cell, x, self.width)
        with b.scope("head"):
            y = b.linear(x, b.weight("w_head", (self.width, self.vocab), part="head"), name="logits")
            return b.elementwise("add", y, b.weight("b_head", (self.vocab,), part="bias"), name="logits_bias")


@dataclass(frozen=True, slots=True, kw_only=True)
class Denoiser:
    """RNNoise (arXiv:1709.08243): 42 features of a frame of 10 ms to 22 gains, through three GRUs; T frames."""

    features: int = 42
    voice: int = 24
    noise: int = 48
    denoise: int = 96
    gains: int = 22
    cell: str = "gru"
    params: float = 87_503
    source: str = "arXiv:1709.08243"

    def build(self, b: Builder) -> Tensor:
        x = b.input("features", (b.sym("B"), b.sym("T"), self.features))
        first = _dense(b, x, self.voice, "tanh")
        voice = recurrent(b, "gru", first, self.voice)
        noise = recurrent(b, "gru", _joined(b, first, voice, x), self.noise)
        cleaned = recurrent(b, "gru", _joined(b, voice, noise, x), self.denoise)
        gains = _dense(b, cleaned, self.gains, "sigmoid")
        return _joined(b, gains, _dense(b, voice, 1, "sigmoid"))


NETWORKS: Mapping[str, Stacked | Denoiser] = {
    "lstm-ptb-medium": Stacked(cell="lstm", layers=2, width=650, vocab=10000, params=20e6, source="arXiv:1409.2329"),
    "lstm-ptb-large": Stacked(cell="lstm", layers=2, width=1500, vocab=10000, params=66e6, source="arXiv:1409.2329"),
    "rnnoise": Denoiser(),
}
"""`params`: as published."""


@dataclass(frozen=True, kw_only=True)
class RecurrentConfig(OwnGraph):
    """A recurrent network by name."""

    def __post_init__(self) -> None:
        if self.name not in NETWORKS:
            raise ModelError(f"model {self.name[:80]!r} is no recurrent network; known: {', '.join(NETWORKS)}")

    def build(self, part: str, *, kv_format: str, activations: str) -> Graph:
        del part, kv_format
        b = Builder(self.name, symbols=("B", "T"), activations=activations)
        return b.build([NETWORKS[self.name].build(b)])


def recurrent(b: Builder, cell: str, x: Tensor, width: int) -> Tensor:
    """x [B, T, I] to the outputs [B, T, width] of one layer. One bias per gate: the second of some libraries adds to it."""
    gates = GATES[cell]
    B, T, inner = x.shape
    w = b.weight(b._fresh("w_input"), (inner, gates * width), part="ssm")
    bias = b.weight(b._fresh("b_gates"), (gates * width,), part="bias")
    r = b.weight(b._fresh("w_recurrent"), (width, gates * width), part="ssm")
    projected = b.elementwise("add", b.linear(x, w, name="gates"), bias, name="gates_bias")
    products = gates * width * width
    return b.op(
        "scan", [projected, r], [(B, T, width)], name=cell,
        attrs={
            "fn": cell, "state": width * (2 if cell == "lstm" else 1), "macs": B * T * products,
            "ops_per_step": 2 * products + gates * width * GATE_OPS,
        },
    )[0]  # fmt: skip


def _dense(b: Builder, x: Tensor, out: int, act: str) -> Tensor:
    y = b.linear(x, b.weight(b._fresh("w_dense"), (x.shape[-1], out), part="other"))
    return b.elementwise(act, b.elementwise("add", y, b.weight(b._fresh("b_dense"), (out,), part="bias")))


def _joined(b: Builder, *parts: Tensor) -> Tensor:
    width = 0
    for part in parts:
        width = width + part.shape[2]  # type: ignore[assignment]
    shape = (*parts[0].shape[:2], width)
    return b.op("move", list(parts), [shape], name="concat", attrs={"fn": "concat"})[0]
