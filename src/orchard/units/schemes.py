"""Weight schemes: what a file-format name such as q4_k_m stores each tensor of a model in.

A scheme maps (role of the tensor, layer, shape, traits of the model) to a NumberFormat. Three kinds:
- llama.cpp files: the rules of its quantizer (src/llama-quant.cpp, September 2026), restated here. They depend on the
  role, the layer's place in the stack, the expert count and the GQA factor; without an importance matrix.
- MLX files: one affine format for every matrix whose rows divide into groups, embedding and head included.
- Core ML and others: one format for the matrices, with the exceptions their makers publish.
Any number format is also the name of a uniform scheme (`f16`, `pal4`, `int8-channel`).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from orchard.units.errors import FormatError
from orchard.units.formats import (
    BF16,
    F16,
    F32,
    NumberFormat,
    canonical_spelling,
    find_format,
    format_names,
    number_format,
)
from orchard.units.suggest import did_you_mean

ROLES: frozenset[str] = frozenset(
    {
        "embedding", "head", "tied_head", "per_layer_embedding", "position_embedding",
        "attn_q", "attn_k", "attn_v", "attn_o", "attn_qkv", "attn_q_a", "attn_q_b", "attn_kv_a", "attn_kv_b",
        "ffn_gate", "ffn_up", "ffn_down", "ffn_gate_up", "expert_gate", "expert_up", "expert_down", "expert_gate_up",
        "shared_gate", "shared_up", "shared_down", "shared_gate_up", "router", "norm", "bias", "conv", "ssm", "other",
        "constant",
    }
)  # fmt: skip

_EMBEDDINGS = frozenset({"embedding", "tied_head", "per_layer_embedding"})
_HEADS = frozenset({"head", "tied_head"})
_ATTN_V = frozenset({"attn_v", "attn_kv_b"})  # the quantizer treats MLA's kv_b as a value matrix
# A fused qkv follows the rule the measured files were made with (the CI files of Pythia match it to 0.02 MiB).
# Quantizers from 2026 on treat it as a value matrix, which moves a file by less than 1 % (q2_k: up to 6 %).
_FUSED_QKV = {"q3_k_m": "q4_k", "q3_k_l": "q4_k", "iq3_m": "q4_k", "q4_k_m": "q5_k", "q5_k_m": "q6_k"}
_FFN_DOWN = frozenset({"ffn_down", "expert_down", "shared_down"})
_FFN_UP = frozenset(f"{part}_{matrix}" for part in ("ffn", "expert", "shared") for matrix in ("gate", "up", "gate_up"))
_EXPERTS = frozenset({"expert_gate", "expert_up", "expert_down", "expert_gate_up"})
_NEVER_MATRIX = frozenset({"norm", "bias", "conv", "position_embedding", "constant"})

Family = Literal["llama.cpp", "mlx", "coreml", "plain"]


@dataclass(frozen=True, slots=True)
class Tensor:
    """What a rule may look at. `layer`: index in the stack, 0 outside it; `gqa`: query heads per key/value head."""

    role: str
    layer: int
    n_layers: int
    shape: tuple[int, ...]
    n_experts: int
    gqa: int
    tied: bool


Rule = Callable[[Tensor], NumberFormat]


@dataclass(frozen=True, slots=True)
class Scheme:
    """A named mixture. `exact`: the rule reproduces the files people measure; `note`: what it rests on."""

    name: str
    family: Family
    default: NumberFormat
    rule: Rule
    exact: bool = True
    note: str = ""

    def format_for(
        self,
        role: str,
        layer: int | None,
        n_layers: int,
        shape: tuple[int, ...],
        *,
        n_experts: int = 0,
        gqa: int = 1,
        tied: bool = False,
    ) -> NumberFormat:
        """Format of one tensor. Shapes are (rows, columns) with the contraction dim last; experts add a leading dim.

        `tied`: the embedding doubles as the output head (implied by role "tied_head"). Raises FormatError for an
        unknown role.
        """
        if role not in ROLES:
            raise FormatError(f"tensor role {role!r} is not known{did_you_mean(role, ROLES) or '; see units.ROLES'}")
        return self.rule(Tensor(role, layer or 0, n_layers, tuple(shape), n_experts, gqa, tied or role == "tied_head"))

    def __str__(self) -> str:
        return self.name


@lru_cache(maxsize=256)
def scheme(name: str) -> Scheme:
    """The scheme called `name`, any case. Raises FormatError with the nearest names."""
    found = _find(name) if isinstance(name, str) and len(name) <= 64 else None
    if found is None:
        shown = name if isinstance(name, str) and len(name) <= 40 else str(name)[:36] + "..."
        usual = "; expected one such as f16, q8_0, q4_k_m, mlx-4bit-g64 or pal4"
        hint = did_you_mean(str(name), scheme_names()) or usual
        raise FormatError(f"weight format {shown!r} is not known{hint}")
    return found


def scheme_names() -> list[str]:
    """Names to list and to suggest from (the open families have more: `int4-g32`, `pal4-g16`, `q4_k_s_r4`)."""
    named = ["mlx-4bit-g64", "mlx-8bit-g64", "mlx-6bit-g64", "mlx-mixed-4/6bit", "ud-q4_k_m", *_SPECIAL]
    return sorted({*_FTYPES, *named, *format_names()})


def _find(name: str) -> Scheme | None:
    text = canonical_spelling(name)
    if (weights := re.fullmatch(r"(w\d)a(?:4|8|16)", text)) is not None:  # w8a8: the activations are another option
        text = weights[1]
    if text in _SPECIAL:
        return _SPECIAL[text]()
    if text.startswith("ud-") and (base := re.sub("_k_xl$", "_k_m", text[3:].replace("-", "_"))) in _FTYPES:
        return _unsloth(text, base)
    if (large := re.fullmatch(r"(q[2-6]_k)_x?l", text)) is not None and text not in _FTYPES:
        return _large_embeddings(text, _SAME_AS.get(large[1], large[1]))
    if (mixed := _mlx_mixed(text)) is not None:
        return mixed
    if text.startswith("mlx-") and (fmt := find_format(text) or find_format(text[4:])) is not None:
        return Scheme(text, "mlx", fmt, _mlx(fmt))
    if "+mlx-" in text:
        return _experts_and_rest(text)
    stem, _, rows = text.rpartition("_r")
    if rows in ("4", "8", "16") and stem in _FTYPES and stem not in _OWN_INTERLEAVED:
        return _interleaved(text, stem, rows)
    if text in _FTYPES:
        return Scheme(text, "llama.cpp", _FTYPES[text], _llama_cpp(text))
    fmt = find_format(text)
    if fmt is not None:
        return _uniform(text, fmt)
    if text.startswith("coreml-") and (fmt := find_format(text[7:])) is not None:  # coreml-pal4
        return Scheme(text, "coreml", fmt, _matrices(fmt, fmt))
    return None


# ---------------------------------------------------------------------------------------------- llama.cpp

_FTYPES: dict[str, NumberFormat] = {
    name: number_format(base)
    for name, base in {
        "f32": "f32", "f16": "f16", "bf16": "bf16", "q4_0": "q4_0", "q4_1": "q4_1", "q5_0": "q5_0", "q5_1": "q5_1",
        "q8_0": "q8_0", "q6_0": "q6_0", "q1_0": "q1_0", "q2_0": "q2_0", "tq1_0": "tq1_0", "tq2_0": "tq2_0",
        "q2_k": "q2_k", "q2_k_s": "q2_k", "q3_k": "q3_k", "q3_k_s": "q3_k", "q3_k_m": "q3_k", "q3_k_l": "q3_k",
        "q4_k": "q4_k", "q4_k_s": "q4_k", "q4_k_m": "q4_k", "q5_k": "q5_k", "q5_k_s": "q5_k", "q5_k_m": "q5_k",
        "q6_k": "q6_k", "iq1_s": "iq1_s", "iq1_m": "iq1_m", "iq2_xxs": "iq2_xxs", "iq2_xs": "iq2_xs",
        "iq2_s": "iq2_xs", "iq2_m": "iq2_s",  # the S mixture is made of the XS type, the M mixture of the S type
        "iq3_xxs": "iq3_xxs", "iq3_xs": "iq3_s", "iq3_s": "iq3_s", "iq3_m": "iq3_s",
        "iq4_nl": "iq4_nl", "iq4_xs": "iq4_xs",
    }.items()
}  # fmt: skip
_SAME_AS = {"q3_k": "q3_k_m", "q4_k": "q4_k_m", "q5_k": "q5_k_m"}  # llama-quantize: the bare names mean the M mixtures

_LOWEST = frozenset({"iq1_s", "iq1_m", "iq2_xxs", "iq2_xs", "iq2_s", "iq2_m"})
_HEAD_Q5_K = _LOWEST | {"iq3_xxs"}
# attention output of the 8-expert models
_EIGHT_EXPERT_O_Q5_K = frozenset(
    {"q2_k", "iq3_xs", "iq3_xxs", "q3_k_s", "q3_k_m", "iq4_nl", "q4_k_s", "q4_k_m", "iq3_s", "iq3_m", "iq4_xs"}
)
_EMBEDDING: dict[str, str] = {
    "iq2_xxs": "q2_k", "iq2_xs": "q2_k", "iq1_s": "q2_k", "iq1_m": "q2_k", "iq2_s": "iq3_s", "iq2_m": "iq3_s",
    "iq3_xxs": "iq3_s", "tq1_0": "q4_k", "tq2_0": "q4_k", "q2_0": "q4_k",
}  # fmt: skip
_OUTPUT: dict[str, str] = {"q2_k": "q3_k", "iq3_xxs": "iq3_s", "q3_k_m": "q4_k", "q3_k_l": "q5_k", "iq3_m": "q4_k"}
_FALLBACK: dict[str, str] = {
    **dict.fromkeys(("iq1_s", "iq1_m", "iq2_xxs", "iq2_xs", "iq2_s", "iq3_xxs", "iq3_s", "iq4_xs"), "iq4_nl"),
    **dict.fromkeys(("q2_0", "q2_k", "q3_k", "tq1_0", "tq2_0"), "q4_0"),
    "q4_k": "q5_0", "q5_k": "q5_1", "q6_k": "q8_0",
}  # fmt: skip


_OWN_INTERLEAVED = frozenset({"iq1_s", "iq1_m"})  # their _r4 forms are types of their own, with fewer bits


def _interleaved(name: str, ftype: str, rows: str) -> Scheme:
    """`q4_k_s_r4`: the file of ik_llama.cpp with the rows of its block types interleaved; embeddings are not."""
    plain = _llama_cpp(ftype)

    def rule(t: Tensor) -> NumberFormat:
        fmt = plain(t)
        if t.role in _EMBEDDINGS or fmt.kind != "block":
            return fmt
        return find_format(f"{fmt.name}_r{rows}") or fmt

    default = find_format(f"{_FTYPES[ftype].name}_r{rows}") or _FTYPES[ftype]
    return Scheme(name, "llama.cpp", default, rule, note="same bits as without interleaved rows")


def _llama_cpp(ftype: str) -> Rule:
    ftype = _SAME_AS.get(ftype, ftype)
    default = _FTYPES[ftype]
    quantized = default.family in ("ggml", "ik")

    def rule(t: Tensor) -> NumberFormat:
        if not _llama_cpp_may_quantize(t):
            return F32
        if not quantized:
            return default
        return _fitting(number_format(_llama_cpp_type(ftype, default.name, t)), t.shape)

    return rule


def _llama_cpp_may_quantize(t: Tensor) -> bool:
    """Vectors, norms, routers, convolutions and position tables stay as converted: f32."""
    return len(t.shape) >= 2 and t.role not in _NEVER_MATRIX and t.role != "router"


def _fitting(fmt: NumberFormat, shape: tuple[int, ...]) -> NumberFormat:
    """`fmt`, or what the quantizer falls back to when rows do not divide into its blocks: a 32-block type, then f16."""
    if shape[-1] % fmt.block == 0:
        return fmt
    fallback = number_format(_FALLBACK.get(fmt.name, "f16"))
    return fallback if shape[-1] % fallback.block == 0 else F16


def use_more_bits(layer: int, n_layers: int) -> bool:
    """First and last eighth of the stack, and every third layer between: where the M mixtures spend a better type."""
    return layer < n_layers // 8 or layer >= 7 * n_layers // 8 or (layer - n_layers // 8) % 3 == 2


def _llama_cpp_type(ftype: str, default: str, t: Tensor) -> str:
    if t.role in _HEADS or (t.tied and t.role in _EMBEDDINGS):
        return _head_type(ftype, default, t)
    if t.role in _EMBEDDINGS:
        return _EMBEDDING.get(ftype, default)
    if ftype in _LOWEST:
        return _lowest_type(ftype, default, t)
    if t.role in _ATTN_V:
        return _value_type(ftype, default, t)
    if t.role == "attn_qkv":
        return _FUSED_QKV.get(ftype, default)
    if t.role in ("attn_k", "attn_q"):
        if t.role == "attn_k" and t.n_experts == 8:
            return "q8_0"
        return {"iq3_xs": "iq3_xxs", "iq3_xxs": "iq2_s"}.get(ftype, default)
    if t.role in _FFN_DOWN:
        return _down_type(ftype, default, t)
    if t.role == "attn_o":
        if t.n_experts == 8:
            return "q5_k" if ftype in _EIGHT_EXPERT_O_Q5_K else default
        return _OUTPUT.get(ftype, default)
    if t.role in _FFN_UP and ftype == "iq3_xs" and t.n_layers // 8 <= t.layer < 7 * t.n_layers // 8:
        return "iq3_xxs"
    return default


def _head_type(ftype: str, default: str, t: Tensor) -> str:
    if t.shape[-1] % number_format(default).block:
        return "q8_0"
    if ftype in _HEAD_Q5_K:
        return "q5_k"
    return "q8_0" if default == "q8_0" else "q6_k"


def _lowest_type(ftype: str, default: str, t: Tensor) -> str:
    better = "iq3_s" if ftype in ("iq2_s", "iq2_m") else "q2_k"
    if t.role in _ATTN_V:
        return "q4_k" if t.gqa >= 4 or t.n_experts >= 4 else better
    if t.role == "attn_k" and t.n_experts == 8:
        return "q4_k"
    if t.role in _FFN_DOWN and t.layer < t.n_layers // 8:
        return better
    if t.role == "attn_o":
        if t.n_experts == 8:
            return "q5_k"
        return {"iq1_s": "iq2_xxs", "iq1_m": "iq2_xxs", "iq2_s": "iq3_s", "iq2_m": "iq3_s"}.get(ftype, default)
    return default


def _value_type(ftype: str, default: str, t: Tensor) -> str:
    if t.n_experts == 8:
        return "q8_0"
    chosen = default
    if ftype == "q2_k":
        chosen = "q4_k" if t.gqa >= 4 else "q3_k"
    elif ftype == "iq3_xxs":
        chosen = "q4_k" if t.gqa >= 4 else "iq3_s"
    elif ftype == "iq3_m" or (ftype in ("q2_k_s", "iq3_xs", "iq3_s") and t.gqa >= 4):
        chosen = "q4_k"
    elif ftype == "q3_k_m":
        chosen = "q5_k" if t.layer < 2 else "q4_k"
    elif ftype == "q3_k_l" or (ftype in ("iq4_nl", "iq4_xs") and t.gqa >= 4):
        chosen = "q5_k"
    elif ftype in ("q4_k_m", "q5_k_m") and use_more_bits(t.layer, t.n_layers):
        chosen = "q6_k"
    elif ftype == "q4_k_s" and t.layer < 4:
        chosen = "q5_k"
    # the 70B class (80 layers, shared key/value heads) can afford more for its small value matrix
    if t.n_layers == 80 and t.gqa > 1 and chosen in ("q3_k", "q4_k"):
        return "q5_k"
    return chosen


def _down_type(ftype: str, default: str, t: Tensor) -> str:
    first_eighth = t.layer < t.n_layers // 8
    more = use_more_bits(t.layer, t.n_layers)
    if ftype == "q2_k":
        return "q3_k"
    if ftype == "q2_k_s":
        return "q4_k" if first_eighth else default
    if ftype == "iq3_xxs":
        return "q4_k" if first_eighth else "q3_k"
    if ftype == "q3_k_m":
        return "q5_k" if t.layer < t.n_layers // 16 else "q4_k"
    if ftype == "iq3_m":
        return "q4_k" if first_eighth or (t.n_experts == 8 and more) else default
    if ftype == "q3_k_l":
        return "q5_k"
    if ftype in ("q4_k_m", "q5_k_m"):
        return "q6_k" if more else default
    if ftype in ("iq4_nl", "iq4_xs", "q4_k_s"):
        return "q5_k" if first_eighth else default
    return default


# ---------------------------------------------------------------------------------------------- MLX


def _mlx(fmt: NumberFormat, router: NumberFormat | None = None) -> Rule:
    """Every matrix whose rows divide into groups; the rest stays f16. Routers of expert models are kept at 8 bits."""
    gate = router or number_format("int8-g64")

    def rule(t: Tensor) -> NumberFormat:
        if len(t.shape) < 2 or t.role in _NEVER_MATRIX:
            return F16
        chosen = gate if t.role == "router" and fmt.element_bits < 8 else fmt
        return chosen if t.shape[-1] % chosen.block == 0 else F16

    return rule


def _mlx_mixed(text: str) -> Scheme | None:
    """`mlx-mixed-4/6bit`: mlx-lm's recipes. Value and down projections of the better layers, and the head, get more."""
    if not text.startswith("mlx-mixed-"):
        return None
    low, _, high = text.removeprefix("mlx-mixed-").removesuffix("bit").replace("_", "/").partition("/")
    if not (low in "23456" and len(low) == 1 and high in ("4", "5", "6", "8")):
        return None
    low_rule, high_rule = (_mlx(number_format(f"int{bits}-g64")) for bits in (low, high))

    def rule(t: Tensor) -> NumberFormat:
        improved = t.role in _FFN_DOWN or t.role in ("attn_v", "attn_kv_a", "attn_kv_b")
        wants_high = t.role == "head" or (improved and use_more_bits(t.layer, t.n_layers))
        return (high_rule if wants_high else low_rule)(t)

    note = "mlx-lm recipe; a tied head keeps the low bits of the embedding"
    return Scheme(f"mlx-mixed-{low}/{high}bit", "mlx", number_format(f"int{low}-g64"), rule, note=note)


def _experts_and_rest(text: str) -> Scheme | None:
    """`mxfp4+mlx-8bit`: experts in the first format, every other matrix in the second."""
    first, _, second = text.partition("+")
    experts, rest = find_format(first), find_format(second)
    if experts is None or rest is None:
        return None
    expert_rule, rest_rule = _mlx(experts), _mlx(rest)

    def rule(t: Tensor) -> NumberFormat:
        return (expert_rule if t.role in _EXPERTS else rest_rule)(t)

    return Scheme(text, "mlx", experts, rule, note="mlx-community files of gpt-oss")


# ---------------------------------------------------------------------------------------------- uniform and special


def _uniform(name: str, fmt: NumberFormat) -> Scheme:
    if fmt.family == "mlx":
        return Scheme(name, "mlx", fmt, _mlx(fmt))
    if fmt.family in ("ggml", "ik") and fmt.name not in ("mxfp4", "nvfp4"):
        return Scheme(name, "llama.cpp", fmt, _ggml_default(fmt), note="head q6_k, other matrices in the named type")
    return Scheme(name, "coreml" if fmt.family == "coreml" else "plain", fmt, _matrices(fmt, fmt))


def _ggml_default(fmt: NumberFormat) -> Rule:
    def rule(t: Tensor) -> NumberFormat:
        if not _llama_cpp_may_quantize(t):
            return F32
        is_head = t.role in _HEADS or (t.tied and t.role in _EMBEDDINGS)
        head = "q8_0" if fmt.element_bits >= 8 else "q6_k"
        return _fitting(number_format(head) if is_head else fmt, t.shape)

    return rule


def _matrices(fmt: NumberFormat, embedding: NumberFormat) -> Rule:
    """`fmt` for matrices and convolutions, `embedding` for embeddings and head; vectors stay f16 (f32 under f32)."""
    small = fmt if fmt.name in ("f32", "bf16") else F16

    def rule(t: Tensor) -> NumberFormat:
        if len(t.shape) < 2 or t.role in ("norm", "bias", "position_embedding"):
            return small
        chosen = embedding if t.role in _EMBEDDINGS or t.role in _HEADS else fmt
        return chosen if chosen.pads or t.shape[-1] % chosen.block == 0 else F16

    return rule


def _large_embeddings(name: str, base: str) -> Scheme:
    """`q4_k_l` and the like: the M mixture with embedding and head in q8_0."""
    mixture, wide = _llama_cpp(base), _llama_cpp("q8_0")

    def rule(t: Tensor) -> NumberFormat:
        return (wide if t.role in _EMBEDDINGS or t.role in _HEADS else mixture)(t)

    return Scheme(name, "llama.cpp", _FTYPES[base], rule, note="M mixture, embedding and head q8_0")


def _unsloth(name: str, base: str) -> Scheme:
    """`ud-q4_k_m`: tuned file by file. In expert models the experts follow the mixture and the rest is q8_0."""
    mixture, rest = _llama_cpp(base), _llama_cpp("q8_0")

    def rule(t: Tensor) -> NumberFormat:
        keep = t.n_experts > 0 and t.role not in _EXPERTS and t.role not in _EMBEDDINGS and t.role not in _HEADS
        return (rest if keep else mixture)(t)

    note = "approximation: every such file differs; prefer the file's own size"
    return Scheme(name, "llama.cpp", _FTYPES[base], rule, exact=False, note=note)


def _mxfp4() -> Scheme:
    """llama.cpp's MXFP4 files: experts mxfp4, other matrices q8_0. Without experts: every matrix mxfp4, as MLX does."""
    fp4, rest, uniform = number_format("mxfp4"), _llama_cpp("q8_0"), _mlx(number_format("mxfp4"))

    def rule(t: Tensor) -> NumberFormat:
        if not t.n_experts:
            return uniform(t)
        return _fitting(fp4, t.shape) if t.role in _EXPERTS else rest(t)

    return Scheme("mxfp4", "llama.cpp", fp4, rule, note="experts mxfp4, rest q8_0; without experts all mxfp4")


def _special(name: str, matrices: str, embedding: str, *, exact: bool, note: str) -> Callable[[], Scheme]:
    def build() -> Scheme:
        fmt = number_format(matrices)
        return Scheme(name, "coreml", fmt, _matrices(fmt, number_format(embedding)), exact=exact, note=note)

    return build


def _nvfp4() -> Scheme:
    """Ollama's MLX files: nvfp4 but for embeddings (a tied head with them) and routers, which stay bf16."""
    fmt = number_format("nvfp4")
    uniform = _mlx(fmt)

    def rule(t: Tensor) -> NumberFormat:
        return BF16 if t.role in _EMBEDDINGS or t.role == "router" else uniform(t)

    return Scheme("nvfp4", "mlx", fmt, rule, note="embeddings bf16; mlx-nvfp4 is the variant with nvfp4 embeddings")


_SPECIAL: dict[str, Callable[[], Scheme]] = {
    "mxfp4": _mxfp4,
    "nvfp4": _nvfp4,
    "bf16": lambda: Scheme("bf16", "plain", BF16, _matrices(BF16, BF16)),
    "apple-2bit-qat": _special(
        "apple-2bit-qat", "int2-channel", "int4-channel", exact=False,
        note="Apple's foundation model report (2025): 2-bit decoder weights, 4-bit embedding",
    ),
    "coreml-lut6": _special(
        "coreml-lut6", "pal6-g8", "pal6-g8", exact=True,
        note="ANEMLL: one 64-entry table per 8 output channels; 396.06 MB for 4096 x 128256",
    ),
    "coreml-lut4": _special("coreml-lut4", "pal4-g8", "pal4-g8", exact=True, note="ANEMLL, as coreml-lut6"),
    "coreml-int4-palettized": _special(
        "coreml-int4-palettized", "pal4-g32", "int8-channel", exact=False,
        note="4-bit tables per group of 32 channels, embeddings 8-bit; group size as converters default to",
    ),
    "coreml-4bit-mixed": _special(
        "coreml-4bit-mixed", "pal4", "f16", exact=False, note="4-bit palettes in the blocks, embedding and head f16",
    ),
}  # fmt: skip
