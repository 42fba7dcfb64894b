"""StarNet (arXiv:2403.19967): two branches multiplied."""

from __future__ import annotations

from orchard.ir import Graph
from orchard.workloads.vision.net import Net

SIZES = {
    "s1": (24, (2, 2, 8, 3), 4), "s2": (32, (1, 2, 6, 2), 4), "s3": (32, (2, 2, 8, 4), 4), "s4": (32, (3, 3, 12, 5), 4),
}  # fmt: skip


def starnet(name: str, height: int, width: int, *, size: str) -> Graph:
    n = Net(name, height, width)
    first, layers, expansion = SIZES[size]
    x = n.conv(n.image, 32, 3, 2, act="relu6")
    for stage, count in enumerate(layers):
        channels = first << stage
        x = n.conv(x, channels, 3, 2)
        for _ in range(count):
            y = n.depthwise(x, 7)
            y = n.mul(n.conv(y, expansion * channels, act="relu6"), n.conv(y, expansion * channels))
            x = n.add(x, n.depthwise(n.conv(y, channels), 7))
    return n.classify(n.batch_norm(x))
