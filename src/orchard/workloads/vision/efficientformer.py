"""EfficientFormer (arXiv:2206.01191): pooling blocks on the image, then attention blocks on 7x7 tokens."""

from __future__ import annotations

from orchard.ir import Graph, Tensor
from orchard.workloads.vision.net import Net

SIZES = {
    "l1": ((3, 2, 6, 4), (48, 96, 224, 448), 1), "l3": ((4, 4, 12, 6), (64, 128, 320, 512), 4),
    "l7": ((6, 6, 18, 8), (96, 192, 384, 768), 8),
}  # fmt: skip


def efficientformer(name: str, height: int, width: int, *, size: str) -> Graph:
    n = Net(name, height, width)
    layers, widths, attention = SIZES[size]
    x = n.conv(n.conv(n.image, widths[0] // 2, 3, 2, act="relu"), widths[0], 3, 2, act="relu")
    for stage, (count, channels) in enumerate(zip(layers, widths)):
        if stage:
            x = n.conv(x, channels, 3, 2)
        last = attention if stage == 3 else 0
        for _ in range(count - last):
            x = pooling_block(n, x, channels)
    x = n.tokens(x)
    for _ in range(attention):
        x = n.add(x, n.scale(n.attention(n.layer_norm(x), 8, 32, 128, position_bias=True)))
        inner = 4 * widths[3]
        x = n.add(x, n.scale(n.dense(n.dense(n.layer_norm(x), inner, act="gelu"), widths[3])))
    x = n.layer_norm(x)
    (y,) = n.b.op("reduce", [x], [(x.shape[0], widths[3])], attrs={"fn": "mean", "axes": (1,)})
    return n.build(n.dense(y, 1000), n.dense(y, 1000))  # classifier and distillation head


def pooling_block(n: Net, x: Tensor, channels: int) -> Tensor:
    x = n.add(x, n.scale(n.pool(x, "avg", 3, 1)))
    return n.add(x, n.scale(n.conv(n.conv(x, 4 * channels, act="gelu"), channels)))
