"""MobileOne (arXiv:2206.04040), branches merged into one convolution each, as it is deployed."""

from __future__ import annotations

from orchard.ir import Graph
from orchard.workloads.vision.net import Net

WIDTHS = {
    "s0": (0.75, 1.0, 1.0, 2.0), "s1": (1.5, 1.5, 2.0, 2.5), "s2": (1.5, 2.0, 2.5, 4.0), "s3": (2.0, 2.5, 3.0, 4.0),
    "s4": (3.0, 3.5, 3.5, 4.0),
}  # fmt: skip


def mobileone(name: str, height: int, width: int, *, size: str) -> Graph:
    n = Net(name, height, width)
    widths = WIDTHS[size]
    x = n.conv(n.image, min(64, int(64 * widths[0])), 3, 2, act="relu")
    for stage, (blocks, channels) in enumerate(zip((2, 8, 10, 1), (64, 128, 256, 512))):
        for index in range(blocks):
            # S4 has squeeze and excite in the last five blocks of stage 3 and in stage 4
            squeeze = size == "s4" and (stage == 3 or (stage == 2 and index >= 5))
            x = n.depthwise(x, 3, 1 if index else 2)
            x = n.squeeze_excite(x, int(x.shape[1]) // 16) if squeeze else x  # type: ignore[arg-type]
            x = n.conv(n.act(x, "relu"), int(channels * widths[stage]))
            x = n.squeeze_excite(x, int(x.shape[1]) // 16) if squeeze else x  # type: ignore[arg-type]
            x = n.act(x, "relu")
    return n.classify(x)
