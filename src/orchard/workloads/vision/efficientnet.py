"""EfficientNet (arXiv:1905.11946): B0, and the larger ones with its widths and depths multiplied."""

from __future__ import annotations

import math

from orchard.ir import Graph
from orchard.workloads.vision.mobilenet import inverted
from orchard.workloads.vision.net import Net, round_channels

PLAN = (
    (3, 1, 16, 1, 1), (3, 6, 24, 2, 2), (5, 6, 40, 2, 2), (3, 6, 80, 3, 2), (5, 6, 112, 3, 1), (5, 6, 192, 4, 2),
    (3, 6, 320, 1, 1),
)  # fmt: skip
"""Kernel, expansion, channels, blocks, stride."""
SIZES = {"b0": (1.0, 1.0), "b1": (1.0, 1.1), "b2": (1.1, 1.2), "b3": (1.2, 1.4), "b4": (1.4, 1.8)}
"""Factors of width and depth."""


def efficientnet(name: str, height: int, width: int, *, size: str) -> Graph:
    n = Net(name, height, width)
    wider, deeper = SIZES[size]
    x = n.conv(n.image, round_channels(32 * wider), 3, 2, act="silu")
    for kernel, expansion, channels, blocks, stride in PLAN:
        for index in range(math.ceil(blocks * deeper)):
            c = int(x.shape[1])  # type: ignore[arg-type]
            x = inverted(
                n, x, expansion * c, round_channels(channels * wider), kernel, stride if not index else 1,
                act="silu", squeeze=c // 4, squeeze_act="silu",
            )  # fmt: skip
    return n.classify(n.conv(x, round_channels(1280 * wider), act="silu"))
