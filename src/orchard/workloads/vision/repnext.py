"""RepNeXt (arXiv:2406.16004), branches merged: a quarter of the channels each stays, meets 3x3, 7x7 and 1x11 + 11x1."""

from __future__ import annotations

from orchard.ir import Graph, Tensor
from orchard.workloads.vision.net import Net

SIZES = {
    "m0": ((40, 80, 160, 320), (2, 2, 9, 1)), "m1": ((48, 96, 192, 384), (3, 3, 15, 2)),
    "m2": ((56, 112, 224, 448), (3, 3, 15, 2)), "m3": ((64, 128, 256, 512), (3, 3, 13, 2)),
    "m4": ((64, 128, 256, 512), (5, 5, 25, 4)), "m5": ((80, 160, 320, 640), (7, 7, 35, 2)),
}  # fmt: skip


def repnext(name: str, height: int, width: int, *, size: str) -> Graph:
    n = Net(name, height, width)
    widths, blocks = SIZES[size]
    x = n.conv(n.conv(n.image, widths[0] // 2, 3, 2, act="gelu"), widths[0], 3, 2)
    for stage, (channels, count) in enumerate(zip(widths, blocks)):
        if stage:
            x = n.batch_norm(n.concat(n.depthwise(x, 3, 2), n.depthwise(x, 7, 2)))
            x = n.add(x, _mlp(n, x))
        for _ in range(count):
            x = n.add(x, _mlp(n, n.batch_norm(_mixed(n, x, channels // 4))))
    return n.classify(x)


def repnext_e(name: str, height: int, width: int, *, size: str) -> Graph:
    """The single-branch equivalent (sizes ending in E): one 11x11 convolution per block, norms merged."""
    n = Net(name, height, width)
    widths, blocks = SIZES[size]
    x = n.conv(n.conv(n.image, widths[0] // 2, 3, 2, act="gelu"), widths[0], 3, 2)
    for stage, count in enumerate(blocks):
        if stage:
            x = n.depthwise(x, 7, 2, multiple=2)
            x = n.add(x, _mlp(n, x))
        for _ in range(count):
            x = n.add(x, _mlp(n, n.depthwise(x, 11)))
    return n.classify(x)


def _mixed(n: Net, x: Tensor, quarter: int) -> Tensor:
    kept, small, middle, large = n.slices(x, quarter, quarter, quarter, quarter)
    large = n.depthwise(n.depthwise(large, (1, 11)), (11, 1))
    return n.concat(kept, n.depthwise(small, 3), n.depthwise(middle, 7), large)


def _mlp(n: Net, x: Tensor) -> Tensor:
    c = int(x.shape[1])  # type: ignore[arg-type]
    return n.conv(n.conv(x, 2 * c, act="gelu"), c)
