"""DenseNet (arXiv:1608.06993): every layer reads all earlier ones of its block."""

from __future__ import annotations

from orchard.ir import Graph
from orchard.workloads.vision.net import Net

LAYERS = {121: (6, 12, 24, 16), 161: (6, 12, 36, 24), 169: (6, 12, 32, 32), 201: (6, 12, 48, 32)}


def densenet(name: str, height: int, width: int, *, depth: int) -> Graph:
    growth, first = (48, 96) if depth == 161 else (32, 64)
    n = Net(name, height, width)
    x = n.pool(n.conv(n.image, first, 7, 2, act="relu"), "max", 3, 2)
    channels = first
    for block, layers in enumerate(LAYERS[depth]):
        for _ in range(layers):
            y = n.act(n.batch_norm(x), "relu")
            y = n.conv(n.conv(y, 4 * growth, act="relu"), growth, 3, bias=False)
            x = n.concat(x, y)
            channels += growth
        if block < 3:
            channels //= 2
            x = n.pool(n.conv(n.act(n.batch_norm(x), "relu"), channels, bias=False), "avg", 2, 2)
    return n.classify(n.act(n.batch_norm(x), "relu"))
