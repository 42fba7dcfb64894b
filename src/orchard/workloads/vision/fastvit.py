"""FastViT (arXiv:2303.14189), branches merged; attention in the last stage of the SA and MA sizes.

The image encoders of MobileCLIP (arXiv:2311.17049, S0 to S2; arXiv:2508.20691, S3 and S4) and FastViTHD (arXiv:2412.13303)
are larger ones, the last three with a fifth stage.
"""

from __future__ import annotations

from orchard.ir import Graph, Tensor
from orchard.workloads.vision.net import Net

SIZES = {
    "t8": ((2, 2, 4, 2), (48, 96, 192, 384), 3, False), "t12": ((2, 2, 6, 2), (64, 128, 256, 512), 3, False),
    "s12": ((2, 2, 6, 2), (64, 128, 256, 512), 4, False), "sa12": ((2, 2, 6, 2), (64, 128, 256, 512), 4, True),
    "sa24": ((4, 4, 12, 4), (64, 128, 256, 512), 4, True), "sa36": ((6, 6, 18, 6), (64, 128, 256, 512), 4, True),
    "ma36": ((6, 6, 18, 6), (76, 152, 304, 608), 4, True),
}  # fmt: skip


def fastvit(name: str, height: int, width: int, *, size: str) -> Graph:
    n = Net(name, height, width)
    layers, widths, expansion, attends = SIZES[size]
    x = n.conv(n.image, widths[0], 3, 2, act="gelu")
    x = n.conv(n.depthwise(x, 3, 2, act="gelu"), widths[0], act="gelu")
    for stage, (count, channels) in enumerate(zip(layers, widths)):
        if stage:  # patch embedding: a large-kernel convolution in groups, then 1x1
            x = n.conv(x, channels, 7, 2, groups=int(x.shape[1]), act="gelu")  # type: ignore[arg-type]
            x = n.conv(x, channels, act="gelu")
        if stage == 3 and attends:
            x = n.add(x, n.depthwise(x, 7))
        for _ in range(count):
            x = _attention(n, x) if stage == 3 and attends else n.depthwise(x, 3)
            y = n.conv(n.conv(n.depthwise(x, 7), expansion * channels, act="gelu"), channels)
            x = n.add(x, y)
    x = n.depthwise(x, 3, multiple=2)
    x = n.act(n.squeeze_excite(x, int(x.shape[1]) // 16), "gelu")  # type: ignore[arg-type]
    return n.classify(x)


def _attention(n: Net, x: Tensor) -> Tensor:
    c, h, w = (int(s) for s in x.shape[1:])  # type: ignore[arg-type]
    y = n.tokens(n.batch_norm(x))
    return n.add(x, n.scale(n.image_of(n.attention(y, c // 32, 32, 32, qkv_bias=False), h, w)))


# blocks per stage, width of the first stage, expansion, stages whose downsampling has squeeze and excite, width of the
# projection to the space shared with text
ENCODERS = {
    "mci0": ((2, 6, 10, 2), 64, 3, (2, 3), 512), "mci1": ((4, 12, 20, 4), 64, 3, (2, 3), 512),
    "mci2": ((4, 12, 24, 4), 80, 3, (2, 3), 512), "mci3": ((2, 12, 24, 4, 2), 96, 4, (), 768),
    "mci4": ((2, 12, 24, 4, 4), 128, 4, (), 768),
}  # fmt: skip


def fastvit_encoder(name: str, height: int, width: int, *, size: str) -> Graph:
    """An image encoder: stages from the fourth on attend, and the pooled features are projected."""
    n = Net(name, height, width)
    layers, first, expansion, squeezed, out = ENCODERS[size]
    x = n.conv(n.image, first, 3, 2, act="gelu")
    x = n.conv(n.depthwise(x, 3, 2, act="gelu"), first, act="gelu")
    for stage, count in enumerate(layers):
        channels = first * 2**stage
        if stage:
            x = n.conv(x, channels, 7, 2, groups=channels // 2)
            x = n.squeeze_excite(x, channels // 4) if stage in squeezed else x
            x = n.conv(n.act(x, "gelu"), channels, act="gelu")
        x = n.depthwise(x, 7) if stage >= 3 else x  # position, its residual merged
        for _ in range(count):
            x = _encoder_attention(n, x, layered=size in ("mci3", "mci4")) if stage >= 3 else n.depthwise(x, 3)
            x = n.add(x, n.scale(n.conv(n.conv(n.depthwise(x, 7), expansion * channels, act="gelu"), channels)))
    x = n.depthwise(x, 3, multiple=2)
    x = n.act(n.squeeze_excite(x, int(x.shape[1]) // 16), "gelu")  # type: ignore[arg-type]
    return n.build(n.dense(n.global_pool(x, keep=False), out, bias=False))


def _encoder_attention(n: Net, x: Tensor, *, layered: bool) -> Tensor:
    """`layered`: a layer norm over channels where the smaller encoders have a batch norm."""
    c, h, w = (int(s) for s in x.shape[1:])  # type: ignore[arg-type]
    y = n.tokens(n.layer_norm(x) if layered else n.batch_norm(x))
    return n.add(x, n.scale(n.image_of(n.attention(y, c // 32, 32, 32, qkv_bias=False), h, w)))
