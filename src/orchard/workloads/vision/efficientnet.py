"""EfficientNet-B0 (arXiv:1905.11946)."""

from __future__ import annotations

from orchard.ir import Graph
from orchard.workloads.vision.mobilenet import inverted
from orchard.workloads.vision.net import Net

PLAN = (
    (3, 1, 16, 1, 1), (3, 6, 24, 2, 2), (5, 6, 40, 2, 2), (3, 6, 80, 3, 2), (5, 6, 112, 3, 1), (5, 6, 192, 4, 2),
    (3, 6, 320, 1, 1),
)  # fmt: skip
"""Kernel, expansion, channels, blocks, stride."""


def efficientnet_b0(name: str, height: int, width: int) -> Graph:
    n = Net(name, height, width)
    x = n.conv(n.image, 32, 3, 2, act="silu")
    for kernel, expansion, channels, blocks, stride in PLAN:
        for index in range(blocks):
            c = int(x.shape[1])  # type: ignore[arg-type]
            step = stride if not index else 1
            x = inverted(n, x, expansion * c, channels, kernel, step, act="silu", squeeze=c // 4, squeeze_act="silu")
    return n.classify(n.conv(x, 1280, act="silu"))
