"""DeepLabV3 on MobileNetV2 (arXiv:1801.04381, section 6.3): output stride 16, one 1x1 branch and one of the pooled image."""

from __future__ import annotations

from orchard.ir import Graph
from orchard.workloads.vision.mobilenet import V2, inverted
from orchard.workloads.vision.net import Net

CLASSES, WIDTH = 21, 256
"""Classes of PASCAL VOC with background; channels of each branch."""


def deeplab_mobilenet_v2(name: str, height: int, width: int) -> Graph:
    n = Net(name, height, width)
    x = n.conv(n.image, 32, 3, 2, act="relu6")
    side = 2
    for expansion, channels, blocks, stride in V2:
        for index in range(blocks):
            step = stride if not index and side < 16 else 1  # beyond a 16th, holes in the kernels instead of strides
            side *= step
            inner = expansion * int(x.shape[1])  # type: ignore[arg-type]
            x = inverted(n, x, inner, channels, 3, step, act="relu6")
    h, w = (int(s) for s in x.shape[2:])  # type: ignore[arg-type]
    pooled = n.resize(n.conv(n.global_pool(x), WIDTH, act="relu"), h, w)
    y = n.conv(n.concat(n.conv(x, WIDTH, act="relu"), pooled), WIDTH, act="relu")
    y = n.resize(n.conv(y, CLASSES), height, width)
    return n.build(n.b.op("reduce", [y], [(y.shape[0], height, width)], attrs={"fn": "argmax", "axes": (1,)})[0])
