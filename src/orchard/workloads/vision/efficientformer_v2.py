"""EfficientFormerV2 (arXiv:2212.08059): depthwise MLP blocks, with attention of mixed heads in the last two stages."""

from __future__ import annotations

from orchard.ir import Graph, Tensor
from orchard.workloads.vision.net import Net

# widths, expansions per block of each stage, attention blocks at the end of the last two stages
SIZES = {
    "s0": ((32, 48, 96, 176), ((4,) * 2, (4,) * 2, (4, 3, 3, 3, 4, 4), (4, 3, 3, 4)), 2),
    "s1": ((32, 48, 120, 224), ((4,) * 3, (4,) * 3, (4, 4, 3, 3, 3, 3, 4, 4, 4), (4, 4, 3, 3, 4, 4)), 2),
    "s2": (
        (32, 64, 144, 288),
        ((4,) * 4, (4,) * 4, (4, 4, 3, 3, 3, 3, 3, 3, 4, 4, 4, 4), (4, 4, 3, 3, 3, 3, 4, 4)), 4,
    ),
    "l": (
        (40, 80, 192, 384),
        ((4,) * 5, (4,) * 5, (4, 4, 4, 4, 3, 3, 3, 3, 3, 3, 3, 4, 4, 4, 4), (4, 4, 4, 3, 3, 3, 3, 4, 4, 4)), 6,
    ),
}  # fmt: skip
HEADS, KEY = 8, 32


def efficientformer_v2(name: str, height: int, width: int, *, size: str) -> Graph:
    n = Net(name, height, width)
    widths, expansions, attention = SIZES[size]
    x = n.conv(n.conv(n.image, widths[0] // 2, 3, 2, act="gelu"), widths[0], 3, 2, act="gelu")
    for stage, (channels, blocks) in enumerate(zip(widths, expansions)):
        if stage:
            y = n.conv(x, channels, 3, 2)
            x = n.add(_down(n, x, channels), y) if stage == 3 else y
        for index, expansion in enumerate(blocks):
            if stage >= 2 and index >= len(blocks) - attention:
                x = n.add(x, n.scale(_attention(n, x, 2 if stage == 2 else 1)))
            y = n.depthwise(n.conv(x, expansion * channels, act="gelu"), 3, act="gelu")
            x = n.add(x, n.scale(n.conv(y, channels)))
    y = n.global_pool(x, keep=False)
    return n.build(n.dense(y, 1000), n.dense(y, 1000))  # classifier and distillation head


def _attention(n: Net, x: Tensor, stride: int) -> Tensor:
    c, height, width = (int(s) for s in x.shape[1:])  # type: ignore[arg-type]
    x = n.depthwise(x, 3, stride) if stride > 1 else x
    q, k = (n.heads(n.conv(x, HEADS * KEY), HEADS) for _ in range(2))
    v = n.conv(x, 4 * HEADS * KEY)
    y = n.attend(q, k, n.heads(v, HEADS), bias=True, talking=True)
    y = n.add(n.b.view(y, v.shape), n.depthwise(v, 3))
    y = n.resize(y, height, width) if stride > 1 else y
    return n.conv(n.act(y, "gelu"), c)


def _down(n: Net, x: Tensor, out: int) -> Tensor:
    """Attention whose queries stand on every second pixel, with half the key width."""
    q = n.add(n.depthwise(x, 3, 2), n.pool(x, "avg", 1, 2))
    q = n.heads(n.conv(q, HEADS * KEY // 2), HEADS)
    k = n.heads(n.conv(x, HEADS * KEY // 2), HEADS)
    v = n.conv(x, 2 * HEADS * KEY)
    local = n.depthwise(v, 3, 2)
    y = n.b.view(n.attend(q, k, n.heads(v, HEADS), bias=True), local.shape)
    return n.conv(n.act(n.add(y, local), "gelu"), out)
