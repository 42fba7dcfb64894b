"""VGG (arXiv:1409.1556): 3x3 convolutions and three dense layers."""

from __future__ import annotations

from orchard.ir import Graph
from orchard.workloads.vision.net import Net

LAYERS = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}


def vgg(name: str, height: int, width: int, *, depth: int) -> Graph:
    n = Net(name, height, width)
    x = n.image
    for convolutions, channels in zip(LAYERS[depth], (64, 128, 256, 512, 512)):
        for _ in range(convolutions):
            x = n.conv(x, channels, 3, act="relu")
        x = n.pool(x, "max", 2, 2)
    batch, c, h, w = x.shape
    y = n.b.view(x, (batch, c * h * w))
    return n.build(n.dense(n.dense(n.dense(y, 4096, act="relu"), 4096, act="relu"), 1000))
