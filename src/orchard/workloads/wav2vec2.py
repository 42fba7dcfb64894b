"""wav2vec 2.0 (arXiv:2006.11477): convolutions over raw audio, then a transformer over frames of 20 ms.

Symbols: B recordings, T frames; the seven convolutions read the 320 T + 80 samples (16 kHz) that make T frames.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from orchard.ir import Builder, Graph, Size, Tensor
from orchard.workloads.attention import SCORES, VALUES
from orchard.workloads.blocks import project
from orchard.workloads.config import check_numbers
from orchard.workloads.errors import ModelError
from orchard.workloads.fields import Fields
from orchard.workloads.own import OwnGraph


@dataclass(frozen=True, kw_only=True)
class Wav2Vec2Config(OwnGraph):
    """Sizes as in config.json.

    channels, kernels, strides: the convolutions; layered: each has a layer norm and a bias (large models), else the first
    has a group norm; pre_norm: norms stand before the blocks; labels: characters of a recogniser, 0 for none.
    """

    layers: int
    hidden: int
    heads: int
    ffn: int
    channels: tuple[int, ...]
    kernels: tuple[int, ...]
    strides: tuple[int, ...]
    layered: bool = False
    conv_bias: bool = False
    pre_norm: bool = False
    position_kernel: int = 128
    position_groups: int = 16
    labels: int = 0

    def __post_init__(self) -> None:
        where = f"model {self.name}"
        check_numbers(self, where, ("layers", "hidden", "heads", "ffn", "position_kernel", "position_groups"))
        if not len(self.channels) == len(self.kernels) == len(self.strides) or not self.channels:
            raise ModelError(f"{where}: conv_dim, conv_kernel and conv_stride have different lengths")
        if self.hidden % self.heads or self.hidden % self.position_groups:
            raise ModelError(f"{where}: hidden size {self.hidden} does not divide among heads or position groups")

    def build(self, part: str, *, kv_format: str, activations: str) -> Graph:
        del part, kv_format
        b = Builder(self.name, symbols=("B", "T"), activations=activations)
        with b.scope("features"):
            x = _features(b, self)
        with b.scope("embed"):
            x = _positions(b, self, x)
            x = x if self.pre_norm else _norm(b, x, None)
        for layer in range(self.layers):
            x = _layer(b, self, x, layer)
        with b.scope("head"):
            x = _norm(b, x, None) if self.pre_norm else x
            if self.labels:
                shape, bias = (self.hidden, self.labels), (self.labels,)
                x = project(b, "b t m, m v -> b t v", x, shape, name="head", part="head", layer=None, bias=bias)
            return b.build([x])


def wav2vec2_from_fields(f: Fields) -> dict[str, Any]:
    """config.json of wav2vec2."""
    names = f.words("architectures", default=[])
    f.ignore(
        "num_feat_extract_layers", "feat_extract_activation", "feat_proj_dropout", "final_dropout", "codevector_dim",
        "contrastive_logits_temperature", "ctc_loss_reduction", "ctc_zero_infinity", "diversity_loss_weight",
        "feat_extract_dropout", "feat_quantizer_dropout", "num_codevector_groups", "num_codevectors_per_group",
        "num_negatives", "proj_codevector_dim", "hidden_act", "add_adapter", "tdnn_dim", "tdnn_dilation", "tdnn_kernel",
        "xvector_output_dim", "adapter_kernel_size", "adapter_stride", "num_adapter_layers", "output_hidden_size",
    )  # fmt: skip
    vocab = f.integer("vocab_size", default=32)
    return {
        "layers": f.integer("num_hidden_layers"), "hidden": f.integer("hidden_size"),
        "heads": f.integer("num_attention_heads"), "ffn": f.integer("intermediate_size"),
        "channels": tuple(f.integers("conv_dim")), "kernels": tuple(f.integers("conv_kernel")),
        "strides": tuple(f.integers("conv_stride")), "conv_bias": f.flag("conv_bias", default=False),
        "layered": f.text("feat_extract_norm", default="group") == "layer",
        "pre_norm": f.flag("do_stable_layer_norm", default=False),
        "position_kernel": f.integer("num_conv_pos_embeddings", default=128),
        "position_groups": f.integer("num_conv_pos_embedding_groups", default=16),
        "labels": vocab if names and names[0].endswith("CTC") else 0,
    }  # fmt: skip


def _lengths(config: Wav2Vec2Config, frames: Size) -> list[Size]:
    """Samples that come in, and what every convolution makes of them: the fewest that give `frames`."""
    lengths = [frames]
    for kernel, stride in zip(reversed(config.kernels), reversed(config.strides)):
        lengths.append((lengths[-1] - 1) * stride + kernel)
    return lengths[::-1]


def _features(b: Builder, config: Wav2Vec2Config) -> Tensor:
    B = b.sym("B")
    lengths = _lengths(config, b.sym("T"))
    x = b.input("audio", (B, 1, lengths[0]))
    for index, (c, kernel, stride) in enumerate(zip(config.channels, config.kernels, config.strides)):
        w = b.weight(f"w_conv{index}", (c, x.shape[1], kernel), part="conv")
        shape, spec = (B, c, lengths[index + 1]), f"b c ({stride}*p+r), m c r -> b m p"
        (x,) = b.op("einsum", [x, w], [shape], name=f"conv{index}", attrs={"spec": spec})
        if config.conv_bias:
            x = b.elementwise("add", x, b.weight(f"b_conv{index}", (c, 1), part="bias"), name=f"conv{index}_bias")
        if config.layered or not index:
            parameters = [b.weight(f"{k}_norm{index}", (c,), part="norm") for k in "wb"]
            x = b.norm("layernorm" if config.layered else "groupnorm", x, *parameters)
        x = b.elementwise("gelu", x)
    (x,) = b.op("move", [x], [(B, b.sym("T"), config.channels[-1])], name="frames", attrs={"fn": "transpose"})
    c, M = config.channels[-1], config.hidden
    x = _norm(b, x, None)
    return project(b, "b t c, c m -> b t m", x, (c, M), name="projection", part="other", layer=None, bias=(M,))


def _positions(b: Builder, config: Wav2Vec2Config, x: Tensor) -> Tensor:
    """A convolution over time in groups tells places apart; its weight norm is folded."""
    B, T, M = x.shape
    G, K = config.position_groups, config.position_kernel
    width = config.hidden // G
    (y,) = b.op("move", [x], [(B, G, width, T)], name="channels_first", attrs={"fn": "transpose"})
    w = b.weight("w_position", (G, width, width, K), part="conv")
    spec = "b g c (p+r), g m c r -> b g m p"
    (y,) = b.op("einsum", [y, w], [(B, G, width, T)], name="position_conv", attrs={"spec": spec})
    (y,) = b.op("move", [y], [(B, T, M)], name="channels_last", attrs={"fn": "transpose"})
    y = b.elementwise("add", y, b.weight("b_position", (M,), part="bias"), name="position_bias")
    return b.elementwise("add", x, b.elementwise("gelu", y), name="add_positions")


def _norm(b: Builder, x: Tensor, layer: int | None) -> Tensor:
    parameters = [b.weight(b._fresh(f"{k}_norm"), (x.shape[-1],), part="norm", layer=layer) for k in "wb"]
    return b.norm("layernorm", x, *parameters)


def _layer(b: Builder, config: Wav2Vec2Config, x: Tensor, layer: int) -> Tensor:
    pre = config.pre_norm
    with b.scope(f"layers.{layer}.attn"):
        y = _attention(b, config, _norm(b, x, layer) if pre else x, layer)
        x = b.elementwise("add", x, y, name="residual")
        x = x if pre else _norm(b, x, layer)
    with b.scope(f"layers.{layer}.ffn"):
        h = _norm(b, x, layer) if pre else x
        M, F = config.hidden, config.ffn
        h = project(b, "b t m, m f -> b t f", h, (M, F), name="up", part="ffn_up", layer=layer, bias=(F,))
        h = b.elementwise("gelu", h, name="act")
        h = project(b, "b t f, f m -> b t m", h, (F, M), name="down", part="ffn_down", layer=layer, bias=(M,))
        x = b.elementwise("add", x, h, name="residual")
        return x if pre else _norm(b, x, layer)


def _attention(b: Builder, config: Wav2Vec2Config, x: Tensor, layer: int) -> Tensor:
    M, H, T = config.hidden, config.heads, x.shape[1]
    D = M // H
    spec = "b t m, m g r d -> b t g r d"
    q = project(b, spec, x, (M, H, 1, D), name="q", part="attn_q", layer=layer, bias=(H, 1, D))
    k, v = (
        project(b, "b t m, m g d -> b t g d", x, (M, H, D), name=n, part=f"attn_{n}", layer=layer, bias=(H, D))
        for n in "kv"
    )
    scores = b.softmax(b.einsum(SCORES, q, k, name="scores", pairs=T * T), pairs=T * T)
    y = b.einsum(VALUES, scores, v, name="values", pairs=T * T)
    spec = "b t g r d, g r d m -> b t m"
    return project(b, spec, y, (H, 1, D, M), name="o", part="attn_o", layer=layer, bias=(M,))
