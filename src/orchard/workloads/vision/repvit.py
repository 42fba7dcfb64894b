"""RepViT (arXiv:2307.09283), branches merged."""

from __future__ import annotations

from orchard.ir import Graph, Tensor
from orchard.workloads.vision.net import Net, round_channels

SIZES = {
    "m0.9": ((48, 96, 192, 384), (3, 3, 15, 2)), "m1.0": ((56, 112, 224, 448), (3, 3, 15, 2)),
    "m1.1": ((64, 128, 256, 512), (3, 3, 13, 2)), "m1.5": ((64, 128, 256, 512), (5, 5, 25, 4)),
    "m2.3": ((80, 160, 320, 640), (7, 7, 35, 2)),
}  # fmt: skip


def repvit(name: str, height: int, width: int, *, size: str) -> Graph:
    n = Net(name, height, width)
    return n.classify(_features(n, size))


def repvit_sam(name: str, height: int, width: int, *, size: str) -> Graph:
    """The image encoder of RepViT-SAM (arXiv:2312.05760): the features, and the neck of Segment Anything."""
    n = Net(name, height, width)
    x = n.layer_norm(n.conv(_features(n, size), 256, bias=False))
    return n.build(n.layer_norm(n.conv(x, 256, 3, bias=False)))


def _features(n: Net, size: str) -> Tensor:
    widths, blocks = SIZES[size]
    x = n.conv(n.conv(n.image, widths[0] // 2, 3, 2, act="gelu"), widths[0], 3, 2)
    for stage, (channels, count) in enumerate(zip(widths, blocks)):
        if stage:
            x = n.conv(n.depthwise(x, 3, 2), channels)
            x = _channels(n, x)
        for index in range(count):
            x = _mix(n, x, squeeze=index % 2 == 0 and index < count - 1)
    return x


def _mix(n: Net, x: Tensor, *, squeeze: bool) -> Tensor:
    c = int(x.shape[1])  # type: ignore[arg-type]
    y = n.depthwise(x, 3)
    y = n.squeeze_excite(y, round_channels(c / 4)) if squeeze else y
    return _channels(n, y)


def _channels(n: Net, x: Tensor) -> Tensor:
    c = int(x.shape[1])  # type: ignore[arg-type]
    return n.add(x, n.conv(n.conv(x, 2 * c, act="gelu"), c))
