"""Gemma 3n: alternating updates (AltUp, arXiv:2301.13310) around each layer and a low-rank residual (LAuReL) inside.

After the modelling code of transformers (gemma3n). N parallel streams [B, T, N, M]; a layer predicts all of them,
computes the first, and corrects the others by how far the prediction was off. The activation sparsity of some MLPs is
not modelled: no runtime known to us skips the zeros.
"""

from __future__ import annotations

from collections.abc import Callable

from orchard.ir import Tensor
from orchard.workloads.blocks import Build

Block = Callable[[Build, Tensor, int], Tensor]


def open_altup(build: Build, x: Tensor) -> Tensor:
    """The embedded tokens and N - 1 projections of them, scaled to the same magnitude: [B, T, N, M]."""
    return _stack(build, [x, *(_projected(build, x, x, i) for i in range(1, _streams(build)))])


def close_altup(build: Build, streams: Tensor) -> Tensor:
    """The mean of the first stream and projections of the others: [B, T, M]."""
    b, parts = build.b, _parts(build, streams)
    total = parts[0]
    for i, part in enumerate(parts[1:], 1):
        total = b.elementwise("add", total, _projected(build, part, parts[0], i), name="sum")
    return b.elementwise("scale", total, name="mean")


def altup_layer(
    build: Build, streams: Tensor, per_layer: Tensor, layer: int, mix: Block, feed_forward: Block
) -> Tensor:
    """One layer over N streams. `mix` is attention on normed input, `feed_forward` brings its own norms."""
    b, M, N = build.b, build.config.hidden, _streams(build)
    with b.scope(f"layers.{layer}.altup"):
        w_router = b.weight("w_router", (M, N), part="other", layer=layer)
        w_norm = b.weight("w_router_norm", (M,), part="norm", layer=layer)
        predicted = _predict(build, streams, w_router, w_norm, layer)
        x = _parts(build, predicted)[0]
    with b.scope(f"layers.{layer}.attn"):
        h = build.norm(x, M, layer)
        laurel = _laurel(build, h, layer)
        y = b.elementwise("add", x, build.norm(mix(build, h, layer), M, layer, "post_norm"), name="residual")
        y = b.elementwise("scale", b.elementwise("add", y, laurel, name="laurel_add"), name="laurel_scale")
    with b.scope(f"layers.{layer}.ffn"):
        y = b.elementwise("add", y, feed_forward(build, y, layer), name="residual")
    with b.scope(f"layers.{layer}.altup"):
        corrected = _correct(build, predicted, x, y, w_router, w_norm, layer)
    with b.scope(f"layers.{layer}.per_layer"):
        return _add_per_layer(build, corrected, per_layer, layer)


def _streams(build: Build) -> int:
    assert build.config.altup is not None
    return build.config.altup.streams


def _parts(build: Build, streams: Tensor) -> tuple[Tensor, ...]:
    B, T, N, M = streams.shape
    assert isinstance(N, int)
    return build.b.split(streams, *[(B, T, M)] * N, name="streams")


def _stack(build: Build, parts: list[Tensor]) -> Tensor:
    shape = (*parts[0].shape[:2], len(parts), parts[0].shape[2])
    (streams,) = build.b.op("move", parts, [shape], name="stack", attrs={"fn": "concat"})
    return streams


def _projected(build: Build, x: Tensor, like: Tensor, index: int) -> Tensor:
    """x through a square matrix, scaled to the magnitude of `like`."""
    M = build.config.hidden
    y = build.project("b t m, m n -> b t n", x, (M, M), name=f"project{index}", part="other", layer=None)
    return build.b.elementwise("match_magnitude", y, like, name=f"magnitude{index}")


def _modalities(build: Build, x: Tensor, w_router: Tensor, w_norm: Tensor) -> Tensor:
    """[B, T, N]: how the streams mix, from a token's active state."""
    b = build.b
    h = b.norm("rmsnorm", x, w_norm, name="router_norm")
    return b.elementwise("tanh", b.einsum("b t m, m n -> b t n", h, w_router, name="router"), name="router_act")


def _predict(build: Build, streams: Tensor, w_router: Tensor, w_norm: Tensor, layer: int) -> Tensor:
    b, N = build.b, _streams(build)
    modalities = _modalities(build, _parts(build, streams)[0], w_router, w_norm)
    spec, shape = "b t n, n j k -> b t j k", (N, N, N)
    mixing = build.project(spec, modalities, shape, name="predict", part="other", layer=layer)
    mixed = b.einsum("b t j m, b t j k -> b t k m", streams, mixing, name="predict_mix")
    return b.elementwise("add", mixed, streams, name="predict_add")


def _correct(
    build: Build, predicted: Tensor, before: Tensor, after: Tensor, w_router: Tensor, w_norm: Tensor, layer: int
) -> Tensor:
    b, N = build.b, _streams(build)
    modalities = _modalities(build, after, w_router, w_norm)
    spec = "b t n, n k -> b t k"
    weights = build.project(spec, modalities, (N, N), name="correct", part="other", layer=layer)
    innovation = b.elementwise("sub", after, before, name="innovation")
    spread = b.einsum("b t m, b t n -> b t n m", innovation, weights, name="correct_spread")
    return b.elementwise("add", predicted, spread, name="correct_add")


def _laurel(build: Build, h: Tensor, layer: int) -> Tensor:
    b, M, altup = build.b, build.config.hidden, build.config.altup
    assert altup is not None
    R = altup.laurel_rank
    y = build.project("b t m, m r -> b t r", h, (M, R), name="laurel_left", part="other", layer=layer)
    y = build.project("b t r, r m -> b t m", y, (R, M), name="laurel_right", part="other", layer=layer)
    return b.elementwise("add", h, build.norm(y, M, layer, "laurel_norm"), name="laurel")


def _add_per_layer(build: Build, streams: Tensor, per_layer: Tensor, layer: int) -> Tensor:
    """The gated slice of the second embedding table, added to all streams but the first."""
    b, M, ple = build.b, build.config.hidden, build.config.per_layer_embedding
    assert ple is not None
    first, *others = _parts(build, streams)
    x = b.elementwise("mul", first, b.weight("w_scale", (M,), part="other", layer=layer), name="scale")
    gate = build.project("b t m, m e -> b t e", x, (M, ple.dim), name="gate", part="other", layer=layer)
    gate = b.elementwise("mul", b.elementwise("gelu", gate), per_layer, name="mul")
    y = build.project("b t e, e m -> b t m", gate, (ple.dim, M), name="out", part="other", layer=layer)
    y = build.norm(y, M, layer, "post_norm")
    return _stack(build, [first, *(b.elementwise("add", other, y, name="add") for other in others)])
