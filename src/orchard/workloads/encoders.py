"""Encoders: BERT-like text models, vision transformers, CLIP towers, Whisper.

Symbols: B inputs, and T tokens per text. Images and audio have a fixed size. Phase: inference, one pass. Whisper's
decoder is a graph of its own (symbols B, T, S) that reads the cross-attention keys and values its encoder pass has
made. M model dim, H heads, D head dim, F inner width.
"""

from __future__ import annotations

from dataclasses import dataclass

from orchard.ir import Builder, Graph, Size, Tensor
from orchard.ir.graph import Attribute
from orchard.ir.masks import causal_pairs
from orchard.workloads.attention import SCORES, VALUES
from orchard.workloads.blocks import project
from orchard.workloads.config import PLAIN_MLPS, check_choice, check_numbers
from orchard.workloads.errors import ModelError


@dataclass(frozen=True, slots=True, kw_only=True)
class Text:
    """Token embeddings: `positions` rows, `types` segment rows (0: none), a norm after the sum or not."""

    vocab: int
    positions: int
    types: int = 0
    norm: bool = True

    def __post_init__(self) -> None:
        check_numbers(self, "text", ("vocab", "positions"))
        check_numbers(self, "text", ("types",), least=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """Patch embeddings of a height x width picture, plus `extra` learned tokens (class, distillation)."""

    height: int
    width: int
    patch: int
    channels: int = 3
    extra: int = 1
    bias: bool = True
    norm: bool = False

    def __post_init__(self) -> None:
        check_numbers(self, "image", ("height", "width", "patch", "channels"))
        check_numbers(self, "image", ("extra",), least=0)
        if min(self.height, self.width) < self.patch or max(self.height, self.width) > 100_000:
            raise ModelError(
                f"image: {self.height} x {self.width} with patches of {self.patch}, expected at least one patch"
            )

    @property
    def tokens(self) -> int:
        return (self.height // self.patch) * (self.width // self.patch) + self.extra


@dataclass(frozen=True, slots=True, kw_only=True)
class Audio:
    """Log-mel frames through two convolutions, the second of stride 2: `positions` tokens from twice as many."""

    mel_bins: int
    positions: int

    def __post_init__(self) -> None:
        check_numbers(self, "audio", ("mel_bins", "positions"))


@dataclass(frozen=True, slots=True, kw_only=True)
class CrossDecoder:
    """Whisper's text decoder: causal self-attention, cross-attention to the encoder, MLP; tied head."""

    layers: int
    heads: int
    ffn: int
    vocab: int
    positions: int

    def __post_init__(self) -> None:
        check_numbers(self, "decoder", ("layers", "heads", "ffn", "vocab", "positions"))
        if self.layers > 10_000:
            raise ModelError(f"decoder: layers is {self.layers}, expected at most 10000")


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderConfig:
    """A stack of bidirectional transformer layers over one kind of input.

    norm_placement: `post` (BERT) or `pre` (ViT, Whisper, CLIP), the latter with a final norm. pooler: a tanh layer on
    the first token. labels: width of a classifier on the first token, 0 for none. projection: width of a bias-free
    projection of the pooled token (CLIP), 0 for none. causal: masked as in a decoder (CLIP's text tower).
    """

    name: str
    architecture: str
    layers: int
    hidden: int
    heads: int
    ffn: int
    source: Text | Image | Audio
    mlp: str = "gelu"
    norm_placement: str = "post"
    final_norm: bool = True
    qkv_bias: bool = True
    key_bias: bool = True
    pooler: bool = False
    pooled_norm: bool = False
    labels: int = 0
    projection: int = 0
    causal: bool = False
    decoder: CrossDecoder | None = None
    partner: EncoderConfig | None = None
    warnings: tuple[str, ...] = ()
    default_weights: str | None = None

    def __post_init__(self) -> None:
        where = f"model {self.name}"
        check_numbers(self, where, ("layers", "hidden", "heads", "ffn"))
        check_numbers(self, where, ("labels", "projection"), least=0)
        check_choice(f"{where}: mlp", self.mlp, PLAIN_MLPS)
        check_choice(f"{where}: norm_placement", self.norm_placement, ("pre", "post"))
        if self.layers > 10_000:
            raise ModelError(f"{where}: layers is {self.layers}, expected at most 10000")
        for heads in (self.heads, self.decoder.heads if self.decoder else 1):
            if self.hidden % heads:
                raise ModelError(f"{where}: hidden size {self.hidden} does not divide among {heads} heads")


def build_encoder(config: EncoderConfig, *, activations: str = "f16") -> Graph:
    """One inference pass. Outputs: the last hidden states or, where the model has one, its pooled or classified token.

    With a `decoder`, the pass ends with the cross-attention keys and values of every decoder layer. With a `partner`
    (CLIP's other tower) both run, and the output is the matrix of similarities.
    """
    texts = any(isinstance(c.source, Text) for c in (config, config.partner) if c is not None)
    b = Builder(config.name, symbols=("B", "T") if texts else ("B",), activations=activations)
    if config.partner is not None:
        return b.build(outputs=[_similarities(b, config, config.partner)])
    y = _tower(b, config)
    if config.decoder is not None:
        return b.build(outputs=_cross_keys_and_values(b, config, config.decoder, y))
    return b.build(outputs=[y])


def _tower(b: Builder, config: EncoderConfig) -> Tensor:
    x = _embed(b, config)
    for layer in range(config.layers):
        x = _layer(b, config, x, layer)
    with b.scope("head"):
        return _head(b, config, x)


def _embed(b: Builder, config: EncoderConfig) -> Tensor:
    with b.scope("embed"):
        match config.source:
            case Text():
                return _embed_text(b, config, config.source)
            case Image():
                return _embed_image(b, config, config.source)
            case Audio():
                return _embed_audio(b, config, config.source)


def _embed_text(b: Builder, config: EncoderConfig, text: Text) -> Tensor:
    M, B, T = config.hidden, b.sym("B"), b.sym("T")
    tokens = b.input("tokens", (B, T), format="i32")
    x = b.gather(b.weight("tokens", (text.vocab, M), part="embedding"), tokens, name="rows")
    if text.types:
        types = b.weight("types", (text.types, M), part="position_embedding")
        rows = b.gather(types, b.input("type_ids", (B, T), format="i32"), name="type_rows")
        x = b.elementwise("add", x, rows, name="add_types")
    positions = b.weight("positions", (text.positions, M), part="position_embedding")
    rows = b.gather(positions, b.input("position_ids", (T,), format="i32"), name="position_rows")
    x = b.elementwise("add", x, rows, name="add_positions")
    return _norm(b, x, M, None) if text.norm else x


def _embed_image(b: Builder, config: EncoderConfig, image: Image) -> Tensor:
    M, B, P = config.hidden, b.sym("B"), image.patch
    rows, columns = image.height // P, image.width // P
    pixels = b.input("pixels", (B, image.channels, image.height, image.width))
    w = b.weight("w_patch", (M, image.channels, P, P), part="conv")
    (x,) = b.op(
        "einsum", [pixels, w], [(B, rows, columns, M)], name="patches",
        attrs={"spec": f"b c ({P}*p+r) ({P}*q+s), m c r s -> b p q m"},
    )  # fmt: skip
    if image.bias:
        x = b.elementwise("add", x, b.weight("b_patch", (M,), part="bias"), name="patches_bias")
    x = b.view(x, (B, rows * columns, M), name="patch_tokens")
    if image.extra:
        tokens = b.weight("extra_tokens", (1, image.extra, M), part="other")
        (x,) = b.op("move", [tokens, x], [(B, image.tokens, M)], name="concat", attrs={"fn": "concat"})
    x = b.elementwise(
        "add", x, b.weight("positions", (image.tokens, M), part="position_embedding"), name="add_positions"
    )
    return _norm(b, x, M, None) if image.norm else x


def _embed_audio(b: Builder, config: EncoderConfig, audio: Audio) -> Tensor:
    M, B, frames = config.hidden, b.sym("B"), 2 * audio.positions
    x = b.input("mel", (B, audio.mel_bins, frames))
    for index, (channels, stride) in enumerate(((audio.mel_bins, 1), (M, 2)), 1):
        w = b.weight(f"w_conv{index}", (M, channels, 3), part="conv")
        window = "(p+r)" if stride == 1 else f"({stride}*p+r)"
        shape = (B, M, frames // stride)
        (x,) = b.op("einsum", [x, w], [shape], name=f"conv{index}", attrs={"spec": f"b c {window}, m c r -> b m p"})
        bias = b.weight(f"b_conv{index}", (M, 1), part="bias")
        x = b.elementwise("gelu", b.elementwise("add", x, bias, name=f"conv{index}_bias"), name=f"conv{index}_act")
    (x,) = b.op("move", [x], [(B, audio.positions, M)], name="transpose", attrs={"fn": "transpose"})
    positions = b.weight("positions", (audio.positions, M), part="position_embedding")
    return b.elementwise("add", x, positions, name="add_positions")


def _layer(b: Builder, config: EncoderConfig, x: Tensor, layer: int) -> Tensor:
    pre, M = config.norm_placement == "pre", config.hidden
    tokens = x.shape[1]
    attrs: dict[str, Attribute] = {"pairs": causal_pairs(tokens, tokens) if config.causal else tokens * tokens}
    with b.scope(f"layers.{layer}.attn"):
        h = _norm(b, x, M, layer) if pre else x
        q = _heads(b, config, h, "q", layer, groups=True)
        k, v = _heads(b, config, h, "k", layer), _heads(b, config, h, "v", layer)
        x = b.elementwise("add", x, _attend(b, q, k, v, M, layer, attrs), name="residual")
        x = x if pre else _norm(b, x, M, layer)
    with b.scope(f"layers.{layer}.ffn"):
        h = _norm(b, x, M, layer) if pre else x
        x = b.elementwise("add", x, _mlp(b, h, M, config.ffn, config.mlp, layer), name="residual")
        return x if pre else _norm(b, x, M, layer)


def _heads(b: Builder, config: EncoderConfig, x: Tensor, name: str, layer: int, groups: bool = False) -> Tensor:
    """Queries [B, T, H, 1, D], or keys and values [B, T, H, D]."""
    M, H = config.hidden, config.heads
    D = M // H
    bias = config.qkv_bias and (name != "k" or config.key_bias)
    shape, spec = ((M, H, 1, D), "b t m, m g r d -> b t g r d") if groups else ((M, H, D), "b t m, m g d -> b t g d")
    return project(b, spec, x, shape, name=name, part=f"attn_{name}", layer=layer, bias=shape[1:] if bias else None)


def _attend(
    b: Builder, q: Tensor, k: Tensor, v: Tensor, width: int, layer: int, attrs: dict[str, Attribute], name: str = ""
) -> Tensor:
    """Attention of q [B, T, H, 1, D] over k, v [B, S, H, D], and the output projection: [B, T, M]."""
    weights = b.softmax(b.einsum(SCORES, q, k, name=f"{name}scores", **attrs), name=f"{name}softmax", **attrs)
    y = b.einsum(VALUES, weights, v, name=f"{name}values", **attrs)
    H, D = width // _int(q.shape[4]), _int(q.shape[4])
    return project(
        b, "b t g r d, g r d m -> b t m", y, (H, 1, D, width),
        name=f"{name}o", part="attn_o", layer=layer, bias=(width,),
    )  # fmt: skip


def _mlp(b: Builder, x: Tensor, width: int, inner: int, fn: str, layer: int) -> Tensor:
    up = project(
        b, "b t m, m f -> b t f", x, (width, inner), name="up", part="ffn_up", layer=layer, bias=(inner,)
    )  # fmt: skip
    h = b.elementwise(fn, up, name="act")
    return project(
        b, "b t f, f m -> b t m", h, (inner, width), name="down", part="ffn_down", layer=layer, bias=(width,)
    )  # fmt: skip


def _norm(b: Builder, x: Tensor, width: int, layer: int | None, name: str = "norm") -> Tensor:
    parameters = [b.weight(f"{kind}_{name}", (width,), part="norm", layer=layer) for kind in ("w", "b")]
    return b.norm("layernorm", x, *parameters, name=name)


def _head(b: Builder, config: EncoderConfig, x: Tensor) -> Tensor:
    M = config.hidden
    if config.norm_placement == "pre" and config.final_norm:
        x = _norm(b, x, M, None)
    if not (config.pooler or config.labels or config.projection or config.pooled_norm):
        return x
    (x,) = b.op("move", [x], [(x.shape[0], 1, M)], name="first_token", attrs={"fn": "slice"})
    if config.pooled_norm:
        x = _norm(b, x, M, None, "pooled_norm")
    if config.pooler:
        spec = "b t m, m n -> b t n"
        x = project(b, spec, x, (M, M), name="pooler", part="other", layer=None, bias=(M,))
        x = b.elementwise("tanh", x, name="pooler_act")
    if config.labels:
        x = project(
            b, "b t m, m v -> b t v", x, (M, config.labels),
            name="classifier", part="head", layer=None, bias=(config.labels,),
        )  # fmt: skip
    if config.projection:
        shape = (M, config.projection)
        x = project(b, "b t m, m v -> b t v", x, shape, name="projection", part="other", layer=None)
    return x


def _similarities(b: Builder, config: EncoderConfig, partner: EncoderConfig) -> Tensor:
    """CLIP: both towers on B inputs each, normed projections, B x B similarities times a learned scale."""
    found: list[Tensor] = []
    for tower in (config, partner):
        with b.scope("text" if isinstance(tower.source, Text) else "vision"):
            y = _tower(b, tower)
            found.append(b.norm("l2norm", b.view(y, (b.sym("B"), tower.projection)), name="unit"))
    y = b.einsum("i p, j p -> i j", *found, name="similarity")
    return b.elementwise("mul", y, b.weight("logit_scale", (1,), part="other"), name="scaled")


def _cross_keys_and_values(b: Builder, config: EncoderConfig, decoder: CrossDecoder, x: Tensor) -> list[Tensor]:
    """Keys and values of every decoder layer's cross-attention, computed once per input."""
    M, H = config.hidden, decoder.heads
    shape, spec = (M, H, M // H), "b t m, m g d -> b t g d"
    made: list[Tensor] = []
    for layer in range(decoder.layers):
        with b.scope(f"cross.{layer}"):
            made.append(project(b, spec, x, shape, name="k", part="attn_k", layer=layer))
            made.append(project(b, spec, x, shape, name="v", part="attn_v", layer=layer, bias=shape[1:]))
    return made


def build_cross_decoder(config: EncoderConfig, *, kv_format: str = "f16", activations: str = "f16") -> Graph:
    """Whisper's decoder over B, T, S as in decoder.py; its output is the logits [B, 1, vocab] of the last token.

    The cross-attention keys and values are states of fixed length that the encoder pass has filled.
    """
    decoder = config.decoder
    if decoder is None or not isinstance(config.source, Audio):
        raise ModelError(f"model {config.name}: has no decoder part")
    b = Builder(f"{config.name} decoder", symbols=("B", "T", "S"), activations=activations)
    B, T, S, M = b.sym("B"), b.sym("T"), b.sym("S"), config.hidden
    with b.scope("embed"):
        table = b.weight("tokens", (decoder.vocab, M), part="embedding")
        x = b.gather(table, b.input("tokens", (B, T), format="i32"), name="rows")
        positions = b.weight("positions", (decoder.positions, M), part="position_embedding")
        rows = b.gather(positions, b.input("position_ids", (T,), format="i32"), name="position_rows")
        x = b.elementwise("add", x, rows, name="add_positions")
    for layer in range(decoder.layers):
        x = _cross_layer(b, config, decoder, x, S, layer, kv_format)
    with b.scope("head"):
        (x,) = b.op("move", [x], [(B, 1, M)], name="last_token", attrs={"fn": "slice"})
        return b.build(outputs=[b.einsum("b t m, v m -> b t v", _norm(b, x, M, None), table, name="logits")])


def _cross_layer(
    b: Builder, config: EncoderConfig, decoder: CrossDecoder, x: Tensor, context: Size, layer: int, kv_format: str
) -> Tensor:
    M, H = config.hidden, decoder.heads
    D, B, T = M // H, x.shape[0], x.shape[1]
    assert isinstance(config.source, Audio)

    def state(name: str, length: Size) -> Tensor:
        return b.state(name, (B, length, H, D), format=kv_format, part="k_cache", layer=layer)

    def heads(h: Tensor, name: str, biased: bool) -> Tensor:
        shape, spec = (M, H, D), "b t m, m g d -> b t g d"
        return project(
            b, spec, h, shape, name=name, part=f"attn_{name}", layer=layer, bias=shape[1:] if biased else None
        )  # fmt: skip

    def queries(h: Tensor) -> Tensor:
        shape = (M, H, 1, D)
        return project(
            b, "b t m, m g r d -> b t g r d", h, shape, name="q", part="attn_q", layer=layer, bias=shape[1:]
        )  # fmt: skip

    with b.scope(f"layers.{layer}.attn"):
        h = _norm(b, x, M, layer)
        q, k, v = queries(h), heads(h, "k", False), heads(h, "v", True)
        k, v = (
            b.update(state("k_cache", context), k, name="k_update"),
            b.update(state("v_cache", context), v, name="v_update"),
        )
        attrs: dict[str, Attribute] = {"pairs": causal_pairs(T, context)}
        x = b.elementwise("add", x, _attend(b, q, k, v, M, layer, attrs), name="residual")
    with b.scope(f"layers.{layer}.cross"):
        q = queries(_norm(b, x, M, layer))
        frames = config.source.positions
        y = _attend(b, q, state("k_cross", frames), state("v_cross", frames), M, layer, {"pairs": T * frames})
        x = b.elementwise("add", x, y, name="residual")
    with b.scope(f"layers.{layer}.ffn"):
        y = _mlp(b, _norm(b, x, M, layer), M, decoder.ffn, config.mlp, layer)
        return b.elementwise("add", x, y, name="residual")


def _int(size: Size) -> int:
    assert isinstance(size, int)
    return size
