"""A decoder-only language model as a graph: embed, layers, head, in reading order.

Symbols: B sequences, T new tokens per sequence, S tokens attended to (cached and new). Prefill of a prompt of n tokens
is T = S = n; one decode step at depth d is T = 1, S = d + 1.
"""

from __future__ import annotations

from dataclasses import replace

from orchard.ir import Builder, Graph, Tensor
from orchard.workloads.altup import altup_layer, close_altup, open_altup
from orchard.workloads.attention import grouped_attention, latent_attention
from orchard.workloads.blocks import Build
from orchard.workloads.config import DecoderConfig
from orchard.workloads.feedforward import dense, mixture
from orchard.workloads.mixers import gated_delta, mamba1, mamba2, short_conv
from orchard.workloads.sparse import close_streams, collapse_streams, open_streams, sparse_attention


def build_decoder(
    config: DecoderConfig, *, kv_format: str = "f16", activations: str = "f16", skip_shared_prefill: bool = False
) -> Graph:
    """The verified graph of `config` over B, T and S; its output is the logits [B, 1, vocab] of the last token.

    kv_format is the number format of the cache. skip_shared_prefill: layers that only read an earlier layer's cache
    work on the last token alone, as MLX does for Gemma 4 E models (the others' results for earlier tokens are never
    used).
    """
    b = Builder(config.name, symbols=("B", "T", "S"), activations=activations)
    build = Build(b, config, b.sym("B"), b.sym("T"), b.sym("S"), kv_format)
    tokens = b.input("tokens", (build.batch, build.tokens), format="i32")
    with b.scope("embed"):
        table, x, extra = _embed(build, tokens)
    for layer in range(config.layers):
        if skip_shared_prefill and config.kv_shared_layers and layer == config.layers - config.kv_shared_layers:
            with b.scope("last_token"):
                x, extra = (
                    _last(build, x, "x"),
                    [_last(build, e, "per_layer") if i >= layer else e for i, e in enumerate(extra)],
                )
            build = replace(build, tokens=1)
        x = _layer(build, x, extra[layer] if extra else None, layer)
    with b.scope("head"):
        logits = _head(build, x, table)
    return b.build(outputs=[logits])


def _embed(build: Build, tokens: Tensor) -> tuple[Tensor, Tensor, list[Tensor]]:
    """(embedding table, x [B, T, M], one per-layer input [B, T, dim] for each layer or none)."""
    b, config = build.b, build.config
    width = config.embedding_dim or config.hidden
    table = b.weight("tokens", (config.vocab, width), part="embedding")
    x = b.gather(table, tokens, name="rows")
    if config.embedding_scale:
        x = b.elementwise("scale", x)
    if width != config.hidden:
        x = build.project("b t e, e m -> b t m", x, (width, config.hidden), name="in", part="other", layer=None)
    if config.positions == "learned":
        positions = b.weight("positions", (config.learned_positions, config.hidden), part="position_embedding")
        index = b.input("position_ids", (build.tokens,), format="i32")
        x = b.elementwise("add", x, b.gather(positions, index, name="position_rows"), name="add_positions")
    if config.embedding_norm:
        x = build.norm(x, config.hidden, None, "norm")
    if config.streams > 1:
        shape = (build.batch, build.tokens, config.streams, config.hidden)
        (x,) = b.op("move", [x], [shape], name="streams", attrs={"fn": "copy"})
    extra = _per_layer_inputs(build, tokens, x)
    return table, open_altup(build, x) if config.altup else x, extra


def _per_layer_inputs(build: Build, tokens: Tensor, x: Tensor) -> list[Tensor]:
    """Gemma 3n/4 E models: (rows of the second table + a projection of x) / sqrt 2, one slice per layer."""
    b, config, ple = build.b, build.config, build.config.per_layer_embedding
    if ple is None:
        return []
    B, T, L, M = build.batch, build.tokens, config.layers, config.hidden
    table = b.weight("per_layer_tokens", (ple.vocab, L * ple.dim), part="per_layer_embedding")
    rows = b.elementwise("scale", b.gather(table, tokens, name="per_layer_rows"), name="per_layer_rows_scale")
    projected = build.project(
        "b t m, m e -> b t e", x, (M, L * ple.dim), name="per_layer_projection", part="other", layer=None
    )  # fmt: skip
    projected = b.elementwise("scale", b.view(projected, (B, T, L, ple.dim)), name="per_layer_projection_scale")
    projected = build.norm(projected, ple.dim, None, "per_layer_norm")
    both = b.elementwise("add", projected, b.view(rows, (B, T, L, ple.dim)), name="per_layer_add")
    both = b.elementwise("scale", both, name="per_layer_scale")
    return list(b.split(both, *[(B, T, ple.dim)] * L, name="per_layer"))


def _layer(build: Build, x: Tensor, per_layer: Tensor | None, layer: int) -> Tensor:
    b, config = build.b, build.config
    mixer, part = config.mixer(layer), config.feed_forward(layer)
    if config.parallel_block:
        return _parallel_layer(build, x, layer)
    if config.streams > 1:
        return _streamed_layer(build, x, layer)
    if config.altup is not None and per_layer is not None:
        return altup_layer(build, x, per_layer, layer, _mix, _feed_forward)
    if mixer != "none":
        with b.scope(f"layers.{layer}.{_MIXER_SCOPE.get(mixer, 'attn')}"):
            h = x if config.norm_placement == "post" else build.norm(x, config.hidden, layer)
            h = _mix(build, h, layer)
            if config.norm_placement != "pre":
                h = build.norm(h, config.hidden, layer, "post_norm")
            x = build.add(x, h)
    if part != "none":
        with b.scope(f"layers.{layer}.ffn"):
            x = build.add(x, _feed_forward(build, x, layer))
    if per_layer is not None:
        with b.scope(f"layers.{layer}.per_layer"):
            x = _add_per_layer(build, x, per_layer, layer)
    if config.layer_scalar:
        scalar = b.weight(f"layers.{layer}.scalar", (1,), part="other", layer=layer)
        with b.scope(f"layers.{layer}.ffn"):
            x = b.elementwise("mul", x, scalar, name="layer_scalar")
    return x


_MIXER_SCOPE = {"delta": "delta", "mamba1": "mamba", "mamba2": "mamba", "conv": "conv"}


def _mix(build: Build, x: Tensor, layer: int) -> Tensor:
    match build.config.mixer(layer):
        case "delta":
            return gated_delta(build, x, layer)
        case "mamba1":
            return mamba1(build, x, layer)
        case "mamba2":
            return mamba2(build, x, layer)
        case "conv":
            return short_conv(build, x, layer)
        case _:
            if build.config.sparse:
                return sparse_attention(build, x, layer)
            return latent_attention(build, x, layer) if build.config.mla else grouped_attention(build, x, layer)


def _feed_forward(build: Build, x: Tensor, layer: int) -> Tensor:
    """Norms and MLP or experts of one layer, without the residual addition."""
    b, config = build.b, build.config
    M, moe = config.hidden, config.moe
    h = x if config.norm_placement == "post" else build.norm(x, M, layer)
    if config.feed_forward(layer) == "dense":
        y = dense(build, h, config.ffn_width(layer), layer)
    elif moe is not None and moe.parallel_dense:  # Gemma 4: MLP and experts side by side, each with norms of its own
        y = build.norm(dense(build, h, moe.shared_ffn, layer), M, layer, "dense_post_norm")
        experts = mixture(build, build.norm(x, M, layer, "expert_norm"), layer, router_input=x)
        y = b.elementwise("add", y, build.norm(experts, M, layer, "expert_post_norm"), name="expert_add")
    else:
        y = mixture(build, h, layer)
    return y if config.norm_placement == "pre" else build.norm(y, M, layer, "post_norm")


def _parallel_layer(build: Build, x: Tensor, layer: int) -> Tensor:
    """x + attention(norm(x)) + mlp(norm(x)); GPT-NeoX has two norms, Phi-2, GPT-J and Cohere share one."""
    b, config = build.b, build.config
    with b.scope(f"layers.{layer}.attn"):
        h = build.norm(x, config.hidden, layer)
        attended = _mix(build, h, layer)
    with b.scope(f"layers.{layer}.ffn"):
        if not config.shared_norm:
            h = build.norm(x, config.hidden, layer)
        y = dense(build, h, config.ffn_width(layer), layer)
        return build.add(x, b.elementwise("add", attended, y, name="join"))


def _streamed_layer(build: Build, streams: Tensor, layer: int) -> Tensor:
    """DeepSeek-V4: residual streams [B, T, N, M], collapsed before each part and spread again after it."""
    b, M = build.b, build.config.hidden
    with b.scope(f"layers.{layer}.attn"):
        x, post, mix = open_streams(build, streams, layer)
        streams = close_streams(build, streams, _mix(build, build.norm(x, M, layer), layer), post, mix)
    with b.scope(f"layers.{layer}.ffn"):
        x, post, mix = open_streams(build, streams, layer)
        return close_streams(build, streams, _feed_forward(build, x, layer), post, mix)


def _add_per_layer(build: Build, x: Tensor, per_layer: Tensor, layer: int) -> Tensor:
    b, config, ple = build.b, build.config, build.config.per_layer_embedding
    assert ple is not None
    gate = build.project("b t m, m e -> b t e", x, (config.hidden, ple.dim), name="gate", part="other", layer=layer)
    gate = b.elementwise("mul", b.elementwise("gelu", gate), per_layer, name="mul")
    y = build.project("b t e, e m -> b t m", gate, (ple.dim, config.hidden), name="out", part="other", layer=layer)
    return build.add(x, build.norm(y, config.hidden, layer, "post_norm"))


def _last(build: Build, x: Tensor, name: str) -> Tensor:
    """The last token of x [B, T, ...]."""
    (last,) = build.b.op("move", [x], [(x.shape[0], 1, *x.shape[2:])], name=f"last_{name}", attrs={"fn": "slice"})
    return last


def _head(build: Build, x: Tensor, table: Tensor) -> Tensor:
    """Logits [B, 1, vocab] of the last token. A tied head reads the embedding table itself."""
    b, config = build.b, build.config
    x = _last(build, x, "token")
    if config.streams > 1:
        x = collapse_streams(build, x)
    if config.altup is not None:
        x = close_altup(build, x)
    if config.final_norm:
        x = build.norm(x, config.hidden, None)
    width = config.embedding_dim or config.hidden
    if width != config.hidden:
        x = build.project("b t m, m e -> b t e", x, (config.hidden, width), name="out", part="other", layer=None)
    if config.tied_embeddings:
        logits = b.einsum("b t m, v m -> b t v", x, table, name="logits")
    else:
        logits = build.project(
            "b t m, m v -> b t v", x, (width, config.vocab), name="logits", part="head", layer=None
        )  # fmt: skip
    if config.head_bias:
        bias = b.weight("b_logits", (config.vocab,), part="bias")
        logits = b.elementwise("add", logits, bias, name="logits_bias")
    if config.logit_scale:
        logits = b.elementwise("scale", logits, name="logits_scale")
    if config.logit_softcap:
        logits = b.elementwise("softcap", logits, name="logits_softcap")
    return logits
