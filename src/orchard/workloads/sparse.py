"""DeepSeek-V4 layers: a window, compressed keys, an indexer that chooses among them, and hyper-connections around it
all.

After the modelling code of transformers (deepseek_v4). Weights are complete; the work is approximate, see
APPROXIMATIONS. B batch, T new tokens, S attended tokens, M model dim, H query heads, D head dim, N residual streams.
"""

from __future__ import annotations

from orchard.ir import Size, Tensor, floordiv, minimum
from orchard.ir.graph import Attribute
from orchard.ir.masks import causal_pairs
from orchard.workloads.attention import SCORES, VALUES
from orchard.workloads.blocks import Build
from orchard.workloads.config import SparseAttention

APPROXIMATIONS = (
    "sparse attention is approximate: windows are compressed as if tokens arrived in whole windows, all queries of "
    "one call read one set of chosen entries, hash-routed layers count as learned routing, and the Sinkhorn iterations "
    "of the hyper-connections count as one op"
)


def sparse_attention(build: Build, x: Tensor, layer: int) -> Tensor:
    """x [B, T, M] to [B, T, M]: queries through a low rank, one shared key/value head (keys are the values)."""
    b, config = build.b, build.config
    sparse, mixer = config.sparse, config.mixer(layer)
    assert sparse is not None
    assert config.window is not None
    B, T, M, H, D = build.batch, build.tokens, config.hidden, config.heads, config.head_dim

    q_a = build.project("b t m, m l -> b t l", x, (M, sparse.q_lora), name="q_a", part="attn_q_a", layer=layer)
    q_a = build.rmsnorm(q_a, sparse.q_lora, layer, "q_a_norm")
    shape = (sparse.q_lora, 1, H, D)
    q = build.project("b t l, l g r d -> b t g r d", q_a, shape, name="q_b", part="attn_q_b", layer=layer)
    q = b.rope(b.norm("rmsnorm", q, name="q_norm"), name="q_rope", dims=sparse.qk_rope)
    kv = build.project("b t m, m g d -> b t g d", x, (M, 1, D), name="kv", part="attn_k", layer=layer)
    kv = b.rope(build.rmsnorm(kv, D, layer, "kv_norm"), name="kv_rope", dims=sparse.qk_rope)
    cache = b.state(
        "window_cache", (B, minimum(build.context, config.window), 1, D),
        format=build.kv_format, part="k_cache", layer=layer,
    )  # fmt: skip
    keys = b.update(cache, kv, name="window_update")

    pairs = causal_pairs(T, build.context, config.window)
    attrs: dict[str, Attribute] = {"window": config.window}
    if mixer != "sliding":
        compressed, extra = _compressed_keys(build, x, q_a, layer, sparse)
        length = keys.shape[1] + compressed.shape[1]
        (keys,) = b.op("move", [keys, compressed], [(B, length, 1, D)], name="kv_concat", attrs={"fn": "concat"})
        pairs = pairs + extra
        attrs = {}
    attrs["pairs"] = pairs
    sinks = b.weight("sinks", (H,), part="other", layer=layer)
    weights = b.softmax(b.einsum(SCORES, q, keys, name="scores", **attrs), sinks, name="softmax", **attrs)
    y = b.einsum(VALUES, weights, keys, name="values", **attrs)
    y = b.rope(y, name="out_rope", dims=sparse.qk_rope)
    groups, rank = sparse.o_groups, sparse.o_lora
    y = b.view(y, (B, T, groups, H // groups * D), name="groups")
    y = build.project(
        "b t u e, u e l -> b t u l", y, (groups, H // groups * D, rank), name="o_a", part="attn_o", layer=layer
    )  # fmt: skip
    return build.project("b t u l, u l m -> b t m", y, (groups, rank, M), name="o_b", part="attn_o", layer=layer)


def _compressed_keys(build: Build, x: Tensor, q_a: Tensor, layer: int, sparse: SparseAttention) -> tuple[Tensor, Size]:
    """(compressed keys this layer attends to, extra pairs). `csa` compresses a little and lets an indexer choose `topk`
    entries; `hca` compresses a lot and attends to all. Dropping the floor in pos/ratio is at most one entry per query.
    """
    b, config, T, S = build.b, build.config, build.tokens, build.context
    if config.mixer(layer) == "hca":
        ratio = sparse.ratios[1]
        return _compress(build, x, config.head_dim, 1, ratio, layer, ""), floordiv(causal_pairs(T, S), ratio)
    ratio = sparse.ratios[0]
    entries = _compress(build, x, config.head_dim, 2, ratio, layer, "")
    chosen = _index(build, x, q_a, ratio, layer, sparse)
    length = minimum(floordiv(S, ratio), sparse.index_topk)
    (picked,) = b.op(
        "move", [entries, chosen], [(build.batch, length, 1, config.head_dim)], name="pick", attrs={"fn": "gather"}
    )  # fmt: skip
    return picked, floordiv(causal_pairs(T, S, sparse.index_topk * ratio), ratio)


def _compress(build: Build, x: Tensor, width: int, series: int, ratio: int, layer: int, name: str) -> Tensor:
    """One entry of `width` per `ratio` tokens, appended to its cache: a gated sum of the window, normed and rotated."""
    b, config, sparse = build.b, build.config, build.config.sparse
    assert sparse is not None
    B, T, M = build.batch, build.tokens, config.hidden
    spec, both = "b t m, m e -> b t e", (M, series * width)
    kv = build.project(spec, x, both, name=f"{name}compress_kv", part="attn_k", layer=layer)
    gate = build.project(spec, x, both, name=f"{name}compress_gate", part="other", layer=layer)
    bias = b.weight(f"{name}compress_bias", (ratio, series * width), part="other", layer=layer, format="f32")
    (rows,) = b.op(
        "reduce", [kv, gate, bias], [(B, floordiv(T + ratio - 1, ratio), 1, width)], name=f"{name}compress",
        attrs={"fn": "sum", "axes": (1,)},
    )  # fmt: skip
    rows = b.rope(
        build.rmsnorm(rows, width, layer, f"{name}compress_norm"), name=f"{name}compress_rope", dims=sparse.qk_rope
    )
    cache = b.state(
        f"{name}compressed_cache", (B, floordiv(build.context, ratio), 1, width),
        format=build.kv_format, part="k_cache", layer=layer,
    )  # fmt: skip
    return b.update(cache, rows, name=f"{name}compressed_update")


def _index(build: Build, x: Tensor, q_a: Tensor, ratio: int, layer: int, sparse: SparseAttention) -> Tensor:
    """Which compressed entries each token attends to: scores sum_h w_h relu(q_h . k), the best `topk`. [B, T, k]"""
    b, config = build.b, build.config
    B, T, S, H, D = build.batch, build.tokens, build.context, sparse.index_heads, sparse.index_dim
    keys = _compress(build, x, D, 2, ratio, layer, "index_")
    keys = b.view(keys, (B, keys.shape[1], D), name="index_keys")
    q = build.project(
        "b t l, l h d -> b t h d", q_a, (sparse.q_lora, H, D), name="index_q", part="other", layer=layer
    )  # fmt: skip
    q = b.rope(q, name="index_rope", dims=sparse.qk_rope)
    weights = build.project(
        "b t m, m h -> b t h", x, (config.hidden, H), name="index_weights", part="other", layer=layer
    )
    pairs = floordiv(causal_pairs(T, S), ratio)
    scores = b.einsum("b t h d, b s d -> b t h s", q, keys, name="index_scores", pairs=pairs)
    scores = b.einsum("b t h s, b t h -> b t s", b.elementwise("relu", scores), weights, name="index_sum")
    k = minimum(floordiv(S, ratio), sparse.index_topk)
    top = (B, T, k)
    _, chosen = b.op("topk", [scores], [top, top], name="index_topk", formats=[b.activations, "i32"], attrs={"k": k})
    return chosen


def open_streams(build: Build, streams: Tensor, layer: int | None) -> tuple[Tensor, Tensor, Tensor]:
    """Hyper-connection into a block: (block input [B, T, M], how its output spreads [B, T, N], how streams mix [B, T,
    N, N]).
    """
    b, M, N = build.b, build.config.hidden, build.config.streams
    B, T = build.batch, build.tokens
    flat = b.norm("rmsnorm", b.view(streams, (B, T, N * M), name="flat"), name="hc_norm")
    wide = (2 + N) * N
    w = build.project("b t e, e c -> b t c", flat, (N * M, wide), name="hc", part="other", layer=layer, format="f32")
    base = b.weight("hc_base", (wide,), part="other", layer=layer, format="f32")
    scale = b.weight("hc_scale", (3,), part="other", layer=layer, format="f32")
    # three scales, one per part of w, repeated over the part: one gather-like read, no op of its own
    w = b.norm("sinkhorn", w, base, scale, name="hc_sinkhorn")
    pre, post, mix = b.split(w, (B, T, N), (B, T, N), (B, T, N, N), name="hc_parts")
    return b.einsum("b t n m, b t n -> b t m", streams, pre, name="hc_collapse"), post, mix


def close_streams(build: Build, streams: Tensor, y: Tensor, post: Tensor, mix: Tensor) -> Tensor:
    """Streams after a block: mixed among themselves, plus the block's output spread over them."""
    b = build.b
    mixed = b.einsum("b t j n, b t j m -> b t n m", mix, streams, name="hc_mix")
    return b.elementwise("add", mixed, b.einsum("b t n, b t m -> b t n m", post, y, name="hc_spread"), name="hc_add")


def collapse_streams(build: Build, streams: Tensor) -> Tensor:
    """The last collapse, before the final norm."""
    b, M, N = build.b, build.config.hidden, build.config.streams
    B, T = streams.shape[0], streams.shape[1]
    flat = b.norm("rmsnorm", b.view(streams, (B, T, N * M), name="flat"), name="hc_norm")
    w = build.project("b t e, e n -> b t n", flat, (N * M, N), name="hc", part="other", layer=None, format="f32")
    base = b.weight("hc_base", (N,), part="other", format="f32")
    scale = b.weight("hc_scale", (1,), part="other", format="f32")
    w = b.elementwise("sigmoid_scale", w, scale, base, name="hc_sigmoid")
    return b.einsum("b t n m, b t n -> b t m", streams, w, name="hc_collapse")
