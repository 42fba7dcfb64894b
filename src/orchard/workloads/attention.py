"""Softmax attention over a cache: grouped heads (MHA, GQA, MQA) and latent heads (MLA).

B batch, T new tokens, S attended tokens, M model dim, G key/value heads, R query heads per key/value head, D head dim.
Scores, softmax and values are three ops that carry `pairs`: how many (query, key) pairs the mask leaves per batch entry
and head. A fusing runtime (flash attention) runs them as one kernel; that is the runtime profile's business.
"""

from __future__ import annotations

from orchard.ir import Size, Tensor, minimum
from orchard.ir.graph import Attribute
from orchard.ir.masks import causal_pairs
from orchard.workloads.blocks import Build

SCORES = "b t g r d, b s g d -> b g r t s"
VALUES = "b g r t s, b s g d -> b t g r d"


def grouped_attention(build: Build, x: Tensor, layer: int) -> Tensor:
    """x [B, T, M] to [B, T, M]. Layers that share a cache compute queries only."""
    b, config = build.b, build.config
    G, R, D = config.attention_heads(layer)
    M = config.hidden
    gate: Tensor | None = None
    k: Tensor | None
    v: Tensor | None
    if config.fused_qkv:
        q, k, v = _fused_qkv(build, x, layer)
    else:
        q, gate = _queries(build, x, layer)
        k, v = _unused_keys(build, layer) if config.shares_cache(layer) else _keys_and_values(build, x, layer)
    if config.qk_norm != "none":
        q = _head_norm(build, q, layer, "q_norm")
    q = _rotate(build, q, layer, "q_rope")
    if k is not None and v is not None:
        keys, values = _extend_cache(build, k, v, layer)
    else:
        keys, values = build.caches[config.mixer(layer)]

    y = masked_attention(build, q, keys, values, layer)
    if gate is not None:
        y = b.elementwise("mul", y, b.elementwise("sigmoid", gate, name="gate_sigmoid"), name="gate_mul")
    return build.project(
        "b t g r d, g r d m -> b t m", y, (G, R, D, M),
        name="o", part="attn_o", layer=layer, bias=(M,) if config.o_bias else None,
    )  # fmt: skip


def masked_attention(build: Build, q: Tensor, keys: Tensor, values: Tensor, layer: int) -> Tensor:
    """q [B, T, G, R, D] over keys [B, S, G, D] and values [B, S, G, E] to [B, T, G, R, E], under the layer's mask."""
    b, config = build.b, build.config
    window = config.window if config.mixer(layer) == "sliding" else None
    attrs: dict[str, Attribute] = {"pairs": causal_pairs(build.tokens, build.context, window)}
    if window is not None:
        attrs["window"] = window
    sinks = []
    if config.attention_sinks:
        sinks.append(b.weight("sinks", (config.heads,), part="other", layer=layer))
    scores = b.einsum(SCORES, q, keys, name="scores", **attrs)
    if config.positions == "alibi":
        scores = b.elementwise("alibi", scores, name="alibi")
    if config.attention_softcap:
        scores = b.elementwise("softcap", scores, name="softcap")
    weights = b.softmax(scores, *sinks, name="softmax", **attrs)
    return b.einsum(VALUES, weights, values, name="values", **attrs)


def _queries(build: Build, x: Tensor, layer: int) -> tuple[Tensor, Tensor | None]:
    """Queries [B, T, G, R, D], and the output gate of the same shape where the model has one."""
    config = build.config
    G, R, D = config.attention_heads(layer)
    width = 2 * D if config.attn_output_gate else D
    q = build.project(
        "b t m, m g r d -> b t g r d", x, (config.hidden, G, R, width),
        name="q", part="attn_q", layer=layer, bias=(G, R, width) if config.qkv_bias else None,
    )  # fmt: skip
    if not config.attn_output_gate:
        return q, None
    shape = (build.batch, build.tokens, G, R, D)
    parts = build.b.split(q, shape, shape, name="q_gate")
    return parts[0], parts[1]


def _keys_and_values(build: Build, x: Tensor, layer: int) -> tuple[Tensor, Tensor]:
    """New keys and values [B, T, G, D]. With k_eq_v, full layers have no value matrix: values are the raw keys."""
    config = build.config
    G, _, D = config.attention_heads(layer)
    bias = (G, D) if config.qkv_bias else None
    spec = "b t m, m g d -> b t g d"
    k = build.project(spec, x, (config.hidden, G, D), name="k", part="attn_k", layer=layer, bias=bias)
    if config.k_eq_v and config.mixer(layer) == "full":
        return k, k
    return k, build.project(spec, x, (config.hidden, G, D), name="v", part="attn_v", layer=layer, bias=bias)


def _unused_keys(build: Build, layer: int) -> tuple[None, None]:
    """Layers that share a cache project no keys; some files keep the matrices all the same, and memory holds them."""
    config = build.config
    if config.unused_kv_weights:
        G, _, D = config.attention_heads(layer)
        build.b.weight("w_k", (config.hidden, G, D), part="attn_k", layer=layer)
        build.b.weight("w_v", (config.hidden, G, D), part="attn_v", layer=layer)
        if config.qk_norm == "head":
            build.b.weight("w_k_norm", (D,), part="norm", layer=layer)
    return None, None


def _fused_qkv(build: Build, x: Tensor, layer: int) -> tuple[Tensor, Tensor, Tensor]:
    """One matrix for queries, keys and values; the three parts are views of its output."""
    config = build.config
    G, R, D = config.attention_heads(layer)
    width = G * (R + 2) * D
    qkv = build.project(
        "b t m, m e -> b t e", x, (config.hidden, width),
        name="qkv", part="attn_qkv", layer=layer, bias=(width,) if config.qkv_bias else None,
    )  # fmt: skip
    head = (build.batch, build.tokens, G)
    q, k, v = build.b.split(qkv, (*head, R, D), (*head, D), (*head, D), name="qkv_parts")
    return q, k, v


def _head_norm(build: Build, x: Tensor, layer: int, name: str) -> Tensor:
    """Norm of queries or keys: over each head, or (`full`) over all heads at once."""
    D = x.shape[-1]
    assert isinstance(D, int)
    if build.config.qk_norm == "head":
        return build.norm(x, D, layer, name)
    width: Size = 1
    for size in x.shape[2:]:
        width = width * size
    assert isinstance(width, int)
    flat = build.b.view(x, (*x.shape[:2], width), name=f"{name}_flat")
    return build.b.view(build.norm(flat, width, layer, name), x.shape, name=f"{name}_heads")


def _rotate(build: Build, x: Tensor, layer: int, name: str) -> Tensor:
    config = build.config
    if config.positions != "rope" or config.mixer(layer) in config.no_rope_mixers or layer in config.no_rope_layers:
        return x
    D = x.shape[-1]
    assert isinstance(D, int)
    return build.b.rope(x, name=name, dims=int(D * config.rotary))


def _extend_cache(build: Build, k: Tensor, v: Tensor, layer: int) -> tuple[Tensor, Tensor]:
    """Normed and rotated keys, and values, written into this layer's cache; returns the caches after the write."""
    b, config = build.b, build.config
    mixer = config.mixer(layer)
    if config.qk_norm != "none":
        k = _head_norm(build, k, layer, "k_norm")
    if config.v_norm:
        v = b.norm("rmsnorm", v, name="v_norm")
    k = _rotate(build, k, layer, "k_rope")
    length = minimum(build.context, config.window) if mixer == "sliding" and config.window else build.context
    shape = (build.batch, length, *k.shape[2:])
    k_cache = b.state("k_cache", shape, format=build.kv_format, part="k_cache", layer=layer)
    v_cache = b.state("v_cache", shape, format=build.kv_format, part="v_cache", layer=layer)
    build.caches[mixer] = (b.update(k_cache, k, name="k_update"), b.update(v_cache, v, name="v_update"))
    return build.caches[mixer]


def latent_attention(build: Build, x: Tensor, layer: int) -> Tensor:
    """Multi-head latent attention in its absorbed form: one shared latent key/value of kv_lora + qk_rope per token.

    Absorbed means that the key up-projection is applied to the queries and the value up-projection to the result, so
    that attention runs over the cached latents themselves (DeepSeek-V2, section 2.1.3). H heads, N qk_nope, P qk_rope,
    C kv_lora, V v_head.
    """
    b, config = build.b, build.config
    mla = config.mla
    assert mla is not None
    B, T, M, H = build.batch, build.tokens, config.hidden, config.heads
    N, P, C, V = mla.qk_nope, mla.qk_rope, mla.kv_lora, mla.v_head

    if mla.q_lora is None:
        q = build.project("b t m, m h d -> b t h d", x, (M, H, N + P), name="q", part="attn_q", layer=layer)
    else:
        q_a = build.project("b t m, m l -> b t l", x, (M, mla.q_lora), name="q_a", part="attn_q_a", layer=layer)
        q_a = build.rmsnorm(q_a, mla.q_lora, layer, "q_a_norm")
        shape = (mla.q_lora, H, N + P)
        q = build.project("b t l, l h d -> b t h d", q_a, shape, name="q_b", part="attn_q_b", layer=layer)
    q_nope, q_rope = b.split(q, (B, T, H, N), (B, T, H, P), name="q_parts")

    kv_a = build.project("b t m, m c -> b t c", x, (M, C + P), name="kv_a", part="attn_kv_a", layer=layer)
    latent, k_rope = b.split(kv_a, (B, T, C), (B, T, P), name="kv_parts")
    latent = build.rmsnorm(latent, C, layer, "kv_a_norm")
    q_rope, k_rope = b.rope(q_rope, name="q_rope", dims=P), b.rope(k_rope, name="k_rope", dims=P)

    w_k = b.weight("w_k_b", (H, N, C), part="attn_kv_b", layer=layer)
    w_v = b.weight("w_v_b", (H, C, V), part="attn_kv_b", layer=layer)
    q_latent = b.einsum("b t h n, h n c -> b t h c", q_nope, w_k, name="q_absorb")
    (q_all,) = b.op("move", [q_latent, q_rope], [(B, T, 1, H, C + P)], name="q_concat", attrs={"fn": "concat"})
    (k_all,) = b.op("move", [latent, k_rope], [(B, T, 1, C + P)], name="k_concat", attrs={"fn": "concat"})
    cache = b.state(
        "latent_cache", (B, build.context, 1, C + P), format=build.kv_format, part="k_cache", layer=layer
    )  # fmt: skip
    keys = b.update(cache, k_all, name="latent_update")
    values, _ = b.split(keys, (B, build.context, 1, C), (B, build.context, 1, P), name="latent_parts")

    y = b.view(masked_attention(build, q_all, keys, values, layer), (B, T, H, C), name="heads")
    y = b.einsum("b t h c, h c v -> b t h v", y, w_v, name="v_absorb")
    return build.project("b t h v, h v m -> b t m", y, (H, V, M), name="o", part="attn_o", layer=layer)
