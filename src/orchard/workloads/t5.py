"""T5 (arXiv:1910.10683): an encoder and a decoder with relative positions and without biases.

Encoder: symbols B texts of T tokens; its outputs are the keys and values of every cross-attention. Decoder: symbols B, T
new tokens, S cached ones, E tokens of the encoder, whose keys and values are states.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from orchard.ir import Builder, Graph, Size, Tensor
from orchard.ir.masks import causal_pairs
from orchard.workloads.attention import SCORES, VALUES
from orchard.workloads.blocks import project
from orchard.workloads.config import check_numbers
from orchard.workloads.fields import Fields
from orchard.workloads.own import OwnGraph


@dataclass(frozen=True, kw_only=True)
class T5Config(OwnGraph):
    """Sizes as in config.json. gated: the inner layer has a gate (v1.1). tied: the head is the embedding."""

    layers: int
    decoder_layers: int
    hidden: int
    heads: int
    head_dim: int
    ffn: int
    vocab: int
    buckets: int = 32
    gated: bool = False
    tied: bool = True

    def __post_init__(self) -> None:
        where = f"model {self.name}"
        check_numbers(self, where, ("layers", "hidden", "heads", "head_dim", "ffn", "vocab", "buckets"))
        check_numbers(self, where, ("decoder_layers",), least=0)

    @property
    def parts(self) -> tuple[str, ...]:
        return ("encoder", "decoder") if self.decoder_layers else ("encoder",)

    @property
    def decoder(self) -> T5Config | None:
        return self if self.decoder_layers else None

    @property
    def shared(self) -> frozenset[str]:
        return frozenset({"embed.tokens"})

    def build(self, part: str, *, kv_format: str, activations: str) -> Graph:
        return _decoder(self, kv_format, activations) if part == "decoder" else _encoder(self, activations)


def t5_from_fields(f: Fields) -> dict[str, Any]:
    """config.json of t5 and mt5."""
    names = f.words("architectures", default=[])
    layers = f.integer("num_layers")
    inner = f.text("feed_forward_proj", default="relu")
    f.ignore(
        "relative_attention_max_distance", "n_positions", "output_past", "dense_act_fn", "is_gated_act", "dropout_rate"
    )
    decoder_layers = f.integer("num_decoder_layers", default=layers)
    alone = bool(names) and names[0].endswith("EncoderModel")
    return {
        "layers": layers, "decoder_layers": 0 if alone else decoder_layers, "hidden": f.integer("d_model"),
        "heads": f.integer("num_heads"), "head_dim": f.integer("d_kv"), "ffn": f.integer("d_ff"),
        "vocab": f.integer("vocab_size"), "buckets": f.integer("relative_attention_num_buckets", default=32),
        "gated": inner.startswith("gated"), "tied": f.flag("tie_word_embeddings", default=True),
    }  # fmt: skip


def _encoder(config: T5Config, activations: str) -> Graph:
    b = Builder(config.name, symbols=("B", "T"), activations=activations)
    x, _ = _embedded(b, config)
    T = b.sym("T")
    position = _position_bias(b, config, T, T)
    for layer in range(config.layers):
        with b.scope(f"layers.{layer}.attn"):
            h = _norm(b, x, config, layer)
            q, k, v = _queries(b, config, h, layer), _heads(b, config, h, "k", layer), _heads(b, config, h, "v", layer)
            x = _add(b, x, _attend(b, config, q, k, v, layer, position, T * T))
        x = _feed(b, config, x, layer)
    with b.scope("head"):
        x = _norm(b, x, config, None)
    if not config.decoder_layers:
        return b.build([x])
    made = []
    for layer in range(config.decoder_layers):
        with b.scope(f"cross.{layer}"):
            made += [_heads(b, config, x, name, layer) for name in ("k", "v")]
    return b.build(made)


def _decoder(config: T5Config, kv_format: str, activations: str) -> Graph:
    b = Builder(f"{config.name} decoder", symbols=("B", "T", "S", "E"), activations=activations)
    B, T, S, E = (b.sym(s) for s in "BTSE")
    x, table = _embedded(b, config)
    position = _position_bias(b, config, T, S)
    for layer in range(config.decoder_layers):

        def state(name: str, length: Size, layer: int = layer) -> Tensor:
            shape = (B, length, config.heads, config.head_dim)
            return b.state(name, shape, format=kv_format, part="k_cache", layer=layer)

        with b.scope(f"layers.{layer}.attn"):
            h = _norm(b, x, config, layer)
            q = _queries(b, config, h, layer)
            k, v = (b.update(state(f"{n}_cache", S), _heads(b, config, h, n, layer), name=f"{n}_update") for n in "kv")
            x = _add(b, x, _attend(b, config, q, k, v, layer, position, causal_pairs(T, S)))
        with b.scope(f"layers.{layer}.cross"):
            q = _queries(b, config, _norm(b, x, config, layer), layer)
            x = _add(b, x, _attend(b, config, q, state("k_cross", E), state("v_cross", E), layer, None, T * E))
        x = _feed(b, config, x, layer)
    with b.scope("head"):
        (x,) = b.op("move", [x], [(B, 1, config.hidden)], name="last_token", attrs={"fn": "slice"})
        x = _norm(b, x, config, None)
        if config.tied:
            return b.build([b.einsum("b t m, v m -> b t v", b.elementwise("scale", x), table, name="logits")])
        return b.build([b.linear(x, b.weight("w_head", (config.hidden, config.vocab), part="head"), name="logits")])


def _embedded(b: Builder, config: T5Config) -> tuple[Tensor, Tensor]:
    """The looked-up rows, and the table."""
    with b.scope("embed"):
        table = b.weight("tokens", (config.vocab, config.hidden), part="embedding")
        return b.gather(table, b.input("tokens", (b.sym("B"), b.sym("T")), format="i32"), name="rows"), table


def _position_bias(b: Builder, config: T5Config, tokens: Size, context: Size) -> Tensor:
    """One number per head and bucket of distance, looked up for every pair: [H, 1, T, S]. All layers share it."""
    with b.scope("embed"):
        table = b.weight("distances", (config.buckets, config.heads), part="position_embedding")
        rows = b.gather(table, b.input("buckets", (tokens, context), format="i32"), name="distance_rows")
        shape = (config.heads, 1, tokens, context)
        return b.op("move", [rows], [shape], name="distance_heads", attrs={"fn": "transpose"})[0]


def _norm(b: Builder, x: Tensor, config: T5Config, layer: int | None) -> Tensor:
    return b.norm("rmsnorm", x, b.weight("w_norm", (config.hidden,), part="norm", layer=layer))


def _queries(b: Builder, config: T5Config, x: Tensor, layer: int) -> Tensor:
    shape = (config.hidden, config.heads, 1, config.head_dim)
    return project(b, "b t m, m g r d -> b t g r d", x, shape, name="q", part="attn_q", layer=layer)


def _heads(b: Builder, config: T5Config, x: Tensor, name: str, layer: int) -> Tensor:
    shape = (config.hidden, config.heads, config.head_dim)
    return project(b, "b t m, m g d -> b t g d", x, shape, name=name, part=f"attn_{name}", layer=layer)


def _attend(
    b: Builder, config: T5Config, q: Tensor, k: Tensor, v: Tensor, layer: int, position: Tensor | None, pairs: Size
) -> Tensor:  # fmt: skip
    scores = b.einsum(SCORES, q, k, name="scores", pairs=pairs)
    if position is not None:
        scores = b.elementwise("add", scores, position, name="position_add")
    y = b.einsum(VALUES, b.softmax(scores, pairs=pairs), v, name="values", pairs=pairs)
    shape = (config.heads, 1, config.head_dim, config.hidden)
    return project(b, "b t g r d, g r d m -> b t m", y, shape, name="o", part="attn_o", layer=layer)


def _feed(b: Builder, config: T5Config, x: Tensor, layer: int) -> Tensor:
    M, F = config.hidden, config.ffn

    def up(h: Tensor, name: str) -> Tensor:
        return project(b, "b t m, m f -> b t f", h, (M, F), name=name, part=f"ffn_{name}", layer=layer)

    with b.scope(f"layers.{layer}.ffn"):
        h = _norm(b, x, config, layer)
        if config.gated:
            h = b.elementwise("mul", b.elementwise("gelu_tanh", up(h, "gate")), up(h, "up"), name="gated")
        else:
            h = b.elementwise("relu", up(h, "up"), name="act")
        return _add(b, x, project(b, "b t f, f m -> b t m", h, (F, M), name="down", part="ffn_down", layer=layer))


def _add(b: Builder, x: Tensor, y: Tensor) -> Tensor:
    return b.elementwise("add", x, y, name="residual")


ENCODER_DECODERS: Mapping[str, Any] = {"t5": t5_from_fields, "mt5": t5_from_fields}
"""Readers by model_type; each returns fields of `T5Config`."""
