"""What a decoder is made of: plain numbers, checked where they are born. `decoder.py` turns them into a graph.

A layer is a *mixer* (what moves information between tokens) and a *feed-forward* part (what works on one token):

| mixer | what it is |
|---|---|
| full | softmax attention over all cached tokens |
| sliding | softmax attention over the last `window` tokens |
| delta | gated DeltaNet linear attention with a short convolution (Qwen3-Next, Qwen3.5) |
| mamba1 | Mamba: selective scan over channels (mamba-130m to 2.8b) |
| mamba2 | Mamba-2 state-space layer (Nemotron-H) |
| conv | gated short convolution (LFM2) |
| csa, hca | compressed sparse attention of DeepSeek-V4, see `sparse.py` |
| none | no mixer (Nemotron-H puts mixer and feed-forward into layers of their own) |

Feed-forward parts are `dense`, `moe` and `none`.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from orchard.workloads.errors import ModelError

MIXERS = ("full", "sliding", "delta", "mamba1", "mamba2", "conv", "csa", "hca", "none")
FEED_FORWARDS = ("dense", "moe", "none")
NORMS = ("rmsnorm", "layernorm")
GATED_MLPS = {"swiglu": "silu", "geglu": "gelu", "reglu": "relu"}
PLAIN_MLPS = ("gelu", "relu", "relu2", "silu")
LARGEST = {"layers": 10_000, "hidden": 1_000_000, "vocab": 100_000_000, "heads": 100_000, "head_dim": 100_000}


@dataclass(frozen=True, slots=True, kw_only=True)
class Experts:
    """A mixture of experts. `active` routed experts of width `ffn` work on each token; `shared_ffn` is always on.

    `score`: how router logits become weights: `softmax`, `sigmoid` or `sqrtsoftplus` (then top-k), or `topk_softmax`
    (the softmax of the chosen k). `router_bias` is added to the logits, `correction_bias` only steers the choice.
    """

    experts: int
    active: int
    ffn: int
    shared_ffn: int = 0
    dense_layers: int = 0
    score: str = "softmax"
    normalize: bool = True
    bias: bool = False
    router_bias: bool = False
    correction_bias: bool = False
    shared_gate: bool = False
    parallel_dense: bool = False

    def __post_init__(self) -> None:
        check_numbers(self, "moe", ("experts", "active", "ffn"))
        check_numbers(self, "moe", ("shared_ffn", "dense_layers"), least=0)
        if self.active > self.experts:
            raise ModelError(f"moe: {self.active} active of {self.experts} experts, expected at most all of them")
        if self.experts > 100_000:
            raise ModelError(f"moe.experts is {self.experts}, expected at most 100000")
        check_choice("moe.score", self.score, ("softmax", "sigmoid", "sqrtsoftplus", "topk_softmax"))


@dataclass(frozen=True, slots=True, kw_only=True)
class LatentAttention:
    """Multi-head latent attention (DeepSeek-V2, arXiv:2405.04434). The cache holds kv_lora + qk_rope per token."""

    q_lora: int | None
    kv_lora: int
    qk_nope: int
    qk_rope: int
    v_head: int

    def __post_init__(self) -> None:
        check_numbers(self, "mla", ("kv_lora", "qk_nope", "qk_rope", "v_head"))
        if self.q_lora is not None and self.q_lora <= 0:
            raise ModelError(f"mla.q_lora is {self.q_lora}, expected > 0 or nothing")


@dataclass(frozen=True, slots=True, kw_only=True)
class GatedDelta:
    """Gated DeltaNet (arXiv:2412.06464): per value head a key_dim x value_dim state, and a causal convolution before
    it.
    """

    key_heads: int
    value_heads: int
    key_dim: int
    value_dim: int
    conv_kernel: int = 4

    def __post_init__(self) -> None:
        check_numbers(self, "delta", tuple(f.name for f in fields(self)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Mamba2:
    """Mamba-2 (arXiv:2405.21060): per head a head_dim x state matrix; B and C are shared by heads/groups heads."""

    heads: int
    head_dim: int
    state: int
    groups: int
    conv_kernel: int = 4
    conv_bias: bool = True

    def __post_init__(self) -> None:
        check_numbers(self, "mamba", ("heads", "head_dim", "state", "groups", "conv_kernel"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Mamba1:
    """Mamba (arXiv:2312.00752): per channel of `inner` a row of `state` elements; `rank` of the step size's projection."""

    inner: int
    state: int
    rank: int
    conv_kernel: int = 4
    conv_bias: bool = True
    bias: bool = False

    def __post_init__(self) -> None:
        check_numbers(self, "selective", ("inner", "state", "rank", "conv_kernel"))


@dataclass(frozen=True, slots=True, kw_only=True)
class SparseAttention:
    """DeepSeek-V4's attention: one shared key/value head, a window, and compressed keys of which `topk` are chosen.

    `ratios`: tokens per compressed entry of `csa` (chosen by an indexer) and `hca` (all attended) layers.
    """

    q_lora: int
    o_lora: int
    o_groups: int
    qk_rope: int
    index_topk: int
    index_heads: int
    index_dim: int
    ratios: tuple[int, int] = (4, 128)

    def __post_init__(self) -> None:
        check_numbers(
            self, "sparse", ("q_lora", "o_lora", "o_groups", "qk_rope", "index_topk", "index_heads", "index_dim")
        )
        object.__setattr__(self, "ratios", tuple(self.ratios))
        if len(self.ratios) != 2 or not all(isinstance(r, int) and r > 0 for r in self.ratios):
            raise ModelError(f"sparse: ratios is {_short(self.ratios)}, expected two whole numbers > 0")


@dataclass(frozen=True, slots=True, kw_only=True)
class PerLayerEmbedding:
    """Gemma 3n/4 E models: each layer adds a gated slice of a second embedding table [vocab, layers x dim]."""

    dim: int
    vocab: int

    def __post_init__(self) -> None:
        check_numbers(self, "per_layer_embedding", ("dim", "vocab"))


@dataclass(frozen=True, slots=True, kw_only=True)
class AltUp:
    """Gemma 3n: parallel streams that a layer predicts and corrects, and the rank of its low-rank residual."""

    streams: int
    laurel_rank: int

    def __post_init__(self) -> None:
        check_numbers(self, "altup", ("streams", "laurel_rank"))
        if not 2 <= self.streams <= 64:
            raise ModelError(f"altup: streams is {self.streams}, expected 2 to 64")


@dataclass(frozen=True, slots=True, kw_only=True)
class DecoderConfig:
    """A decoder-only language model. Sizes are elements; raises ModelError naming the field that does not fit.

    mixers, feed_forwards: one word per layer; empty means all `full`, and `dense` or (after `moe.dense_layers`) `moe`.
    norm_placement: `pre`; `sandwich` adds one after each part (Gemma); `post` has only the latter (OLMo 2).
    qk_norm: none, `head` (over each head), `full` (over all heads at once).
    positions: `rope`, `learned` (a table of `learned_positions` rows), `alibi`, `none`. `rotary` is the share of
    head_dim that is rotated. `global_*` replace head_dim and kv_heads in `full` layers (Gemma 4).
    kv_shared_layers: the last layers that read the cache of the last own-cache layer with the same mixer.
    unused_kv_weights: the published files still hold key and value matrices for those layers (stored, never read).
    streams: residual streams that hyper-connections mix (DeepSeek-V4); 1 is the plain residual.
    default_weights: the weight scheme the published files come in, if not 16 bit.
    """

    name: str
    architecture: str = "llama"
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab: int
    ffn: int | None = None
    tied_embeddings: bool = False
    mixers: tuple[str, ...] = ()
    feed_forwards: tuple[str, ...] = ()
    window: int | None = None

    norm: str = "rmsnorm"
    norm_bias: bool = False
    norm_scale: bool = True
    norm_placement: str = "pre"
    final_norm: bool = True
    embedding_norm: bool = False
    parallel_block: bool = False
    shared_norm: bool = False

    mlp: str = "swiglu"
    mlp_bias: bool = False
    fused_gate_up: bool = False
    double_wide_mlp: bool = False

    qkv_bias: bool = False
    o_bias: bool = False
    head_bias: bool = False
    fused_qkv: bool = False
    qk_norm: str = "none"
    v_norm: bool = False
    k_eq_v: bool = False
    attn_output_gate: bool = False
    attention_sinks: bool = False
    attention_softcap: bool = False
    logit_softcap: bool = False
    global_head_dim: int | None = None
    global_kv_heads: int | None = None
    kv_shared_layers: int = 0
    unused_kv_weights: bool = False

    positions: str = "rope"
    learned_positions: int = 0
    rotary: float = 1.0
    no_rope_mixers: tuple[str, ...] = ()
    no_rope_layers: tuple[int, ...] = ()

    embedding_scale: bool = False
    residual_scale: bool = False
    logit_scale: bool = False
    layer_scalar: bool = False
    embedding_dim: int | None = None

    moe: Experts | None = None
    mla: LatentAttention | None = None
    delta: GatedDelta | None = None
    mamba: Mamba2 | None = None
    selective: Mamba1 | None = None
    conv_kernel: int | None = None
    conv_bias: bool = False
    sparse: SparseAttention | None = None
    per_layer_embedding: PerLayerEmbedding | None = None
    streams: int = 1
    altup: AltUp | None = None

    max_positions: int | None = None
    default_weights: str | None = None
    warnings: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        where = f"model {self.name}"
        for key, largest in LARGEST.items():
            value = getattr(self, key)
            if not isinstance(value, int) or isinstance(value, bool) or not 0 < value <= largest:
                raise ModelError(f"{where}: {key} is {_short(value)}, expected a whole number from 1 to {largest}")
        check_numbers(self, where, ("kv_heads", "streams"))
        check_numbers(self, where, ("kv_shared_layers", "learned_positions"), least=0)
        for key in ("ffn", "window", "global_head_dim", "global_kv_heads", "conv_kernel", "embedding_dim"):
            if getattr(self, key) is not None:
                check_numbers(self, where, (key,))
        if self.heads % self.kv_heads or self.heads % (self.global_kv_heads or 1):
            kv = self.kv_heads if self.heads % self.kv_heads else self.global_kv_heads
            raise ModelError(f"{where}: {self.heads} heads do not divide among {kv} kv_heads")
        if not 0 < self.rotary <= 1:
            raise ModelError(f"{where}: rotary is {self.rotary}, expected a share in (0, 1]")
        check_choice(f"{where}: norm", self.norm, NORMS)
        check_choice(f"{where}: norm_placement", self.norm_placement, ("pre", "sandwich", "post"))
        check_choice(f"{where}: mlp", self.mlp, (*GATED_MLPS, *PLAIN_MLPS))
        check_choice(f"{where}: qk_norm", self.qk_norm, ("none", "head", "full"))
        check_choice(f"{where}: positions", self.positions, ("rope", "learned", "alibi", "none"))
        self._check_layers(where)

    def _check_layers(self, where: str) -> None:
        for key, words in (("mixers", MIXERS), ("feed_forwards", FEED_FORWARDS)):
            got = getattr(self, key)
            if got and len(got) != self.layers:
                raise ModelError(f"{where}: {key} names {len(got)} layers, expected {self.layers}")
            for word in got:
                check_choice(f"{where}: {key}", word, words)
        if self.kv_shared_layers >= self.layers:
            raise ModelError(f"{where}: {self.kv_shared_layers} kv_shared_layers of {self.layers} layers")
        needs = {
            "sliding": ("window", self.window), "delta": ("delta", self.delta), "mamba2": ("mamba", self.mamba),
            "mamba1": ("selective", self.selective),
            "conv": ("conv_kernel", self.conv_kernel), "csa": ("sparse", self.sparse), "hca": ("sparse", self.sparse),
        }  # fmt: skip
        for mixer in set(self.mixers):
            if mixer in needs and needs[mixer][1] is None:
                raise ModelError(f"{where}: {mixer} layers need {needs[mixer][0]}")
        if self.altup is not None and self.per_layer_embedding is None:
            raise ModelError(f"{where}: altup needs per_layer_embedding")
        parts = {self.feed_forward(i) for i in range(self.layers)}
        if "dense" in parts and self.ffn is None:
            raise ModelError(f"{where}: dense layers need ffn")
        if "moe" in parts and self.moe is None:
            raise ModelError(f"{where}: moe layers need moe")
        own = {self.mixer(i) for i in range(self.layers - self.kv_shared_layers)}
        for index in range(self.layers - self.kv_shared_layers, self.layers):
            if self.mixer(index) not in own:
                raise ModelError(f"{where}: layer {index} shares the cache of no earlier {self.mixer(index)} layer")

    def mixer(self, layer: int) -> str:
        return self.mixers[layer] if self.mixers else "full"

    def feed_forward(self, layer: int) -> str:
        if self.feed_forwards:
            return self.feed_forwards[layer]
        return "moe" if self.moe is not None and layer >= self.moe.dense_layers else "dense"

    def shares_cache(self, layer: int) -> bool:
        return layer >= self.layers - self.kv_shared_layers

    def ffn_width(self, layer: int) -> int:
        """Width of the dense MLP of `layer`; shared-cache layers may have twice the usual."""
        assert self.ffn is not None
        return self.ffn * 2 if self.double_wide_mlp and self.shares_cache(layer) else self.ffn

    def attention_heads(self, layer: int) -> tuple[int, int, int]:
        """(key/value heads G, query heads per key/value head R, head dim D) of an attention layer."""
        is_global = self.mixer(layer) == "full"
        kv_heads = self.global_kv_heads if is_global and self.global_kv_heads else self.kv_heads
        head_dim = self.global_head_dim if is_global and self.global_head_dim else self.head_dim
        return kv_heads, self.heads // kv_heads, head_dim


def expand_pattern(text: str, layers: int) -> tuple[str, ...]:
    """`5 sliding, full` as one word per layer, repeated (and cut) to `layers`. Raises ModelError for other text."""
    words: list[str] = []
    for part in text.split(","):
        pieces = part.split()
        if len(pieces) == 2 and pieces[0].isdecimal() and 0 < int(pieces[0]) <= 10_000:
            words += [pieces[1]] * int(pieces[0])
        elif len(pieces) == 1:
            words.append(pieces[0])
        else:
            raise ModelError(f"pattern {text[:60]!r}: expected words with counts such as '5 sliding, full'")
    return tuple(words[i % len(words)] for i in range(layers))


BLOCKS = {
    "M": ("mamba2", "none"),
    "S": ("mamba1", "none"),
    "E": ("none", "moe"),
    "*": ("full", "none"),
    "-": ("none", "dense"),
}
"""Letters of a Nemotron-H pattern: (mixer, feed-forward) of each layer."""


def expand_blocks(text: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """`MEM*E` as (mixers, feed_forwards)."""
    unknown = [letter for letter in text if letter not in BLOCKS]
    if unknown:
        raise ModelError(f"block pattern {text[:60]!r}: {unknown[0]!r} is not one of {', '.join(BLOCKS)}")
    return tuple(BLOCKS[c][0] for c in text), tuple(BLOCKS[c][1] for c in text)


def check_numbers(owner: Any, where: str, names: tuple[str, ...], *, least: int = 1) -> None:
    """Raise ModelError unless every named field of `owner` is a whole number from `least` to 10^9."""
    for name in names:
        value = getattr(owner, name)
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= 10**9:
            raise ModelError(f"{where}: {name} is {_short(value)}, expected a whole number from {least} to 10^9")


def check_choice(where: str, value: str, words: tuple[str, ...]) -> None:
    """Raise ModelError unless `value` is one of `words`."""
    if value not in words:
        raise ModelError(f"{where} is {_short(value)}, expected one of {', '.join(words)}")


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 40 else text[:36] + "..."
