"""RecNeXt (arXiv:2412.19628): convolutions on ever smaller images, added up on the way back, norms merged."""

from __future__ import annotations

from orchard.ir import Graph, Tensor
from orchard.workloads.vision.net import Net
from orchard.workloads.vision.repnext import SIZES

KERNEL = 5


def recnext(name: str, height: int, width: int, *, size: str) -> Graph:
    n = Net(name, height, width)
    widths, blocks = SIZES[size]
    x = n.conv(n.conv(n.image, widths[0] // 2, 3, 2, act="gelu"), widths[0], 3, 2)
    for stage, (channels, count) in enumerate(zip(widths, blocks)):
        if stage:
            x = n.conv(x, channels, 7, 2, groups=channels // 2)
            x = n.add(x, _mlp(n, x, channels))
        for _ in range(count):
            x = n.add(x, _mlp(n, _recursive(n, x, 4 - stage), channels))
    return n.classify(x)


def _recursive(n: Net, x: Tensor, levels: int) -> Tensor:
    """One convolution of stride 2 applied `levels` times; each result is convolved, enlarged and added to the next."""
    c = int(x.shape[1])  # type: ignore[arg-type]
    down = n.b.weight(n.b._fresh("down_w"), (c, KERNEL, KERNEL), part="conv")
    features = [x]
    for _ in range(levels):
        features.append(n.conv(features[-1], c, KERNEL, 2, groups=c, bias=False, shared=down))
    y: Tensor | None = None
    for feature, larger in zip(features[:0:-1], features[-2::-1]):
        y = n.conv(feature if y is None else n.add(feature, y), c, KERNEL, groups=c, bias=False)
        y = n.resize(y, *(int(s) for s in larger.shape[2:]))  # type: ignore[arg-type]
    return n.depthwise(x if y is None else n.add(x, y), KERNEL)


def _mlp(n: Net, x: Tensor, c: int) -> Tensor:
    return n.conv(n.conv(x, 2 * c, act="gelu"), c)
