"""ConvNeXt (arXiv:2201.03545)."""

from __future__ import annotations

from orchard.ir import Graph
from orchard.workloads.vision.net import Net

SIZES = {"t": ((3, 3, 9, 3), 96), "s": ((3, 3, 27, 3), 96), "b": ((3, 3, 27, 3), 128), "l": ((3, 3, 27, 3), 192)}


def convnext(name: str, height: int, width: int, *, size: str) -> Graph:
    n = Net(name, height, width)
    layers, first = SIZES[size]
    x = n.layer_norm(n.conv(n.image, first, 4, 4))
    for stage, count in enumerate(layers):
        channels = first << stage
        if stage:
            x = n.conv(n.layer_norm(x), channels, 2, 2)
        for _ in range(count):
            y = n.layer_norm(n.depthwise(x, 7))
            x = n.add(x, n.scale(n.conv(n.conv(y, 4 * channels, act="gelu"), channels)))
    y = n.layer_norm(n.global_pool(x))
    return n.build(n.dense(n.b.view(y, y.shape[:2]), 1000))
