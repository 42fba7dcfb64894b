"""ResNet (arXiv:1512.03385), the v1.5 form that frameworks ship: the stride sits on the 3x3 convolution."""

from __future__ import annotations

from orchard.ir import Graph, Tensor
from orchard.workloads.vision.net import Net

LAYERS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}


def resnet(name: str, height: int, width: int, *, depth: int) -> Graph:
    n = Net(name, height, width)
    return n.classify(features(n, depth))


def features(n: Net, depth: int) -> Tensor:
    """The last features, a 32nd of the image's side."""
    x = n.pool(n.conv(n.image, 64, 7, 2, act="relu"), "max", 3, 2)
    for stage, blocks in enumerate(LAYERS[depth]):
        for index in range(blocks):
            stride = 2 if stage and not index else 1
            x = (_bottleneck if depth >= 50 else _basic)(n, x, 64 << stage, stride)
    return x


def _basic(n: Net, x: Tensor, width: int, stride: int) -> Tensor:
    y = n.conv(n.conv(x, width, 3, stride, act="relu"), width, 3)
    if stride > 1 or x.shape[1] != width:
        x = n.conv(x, width, 1, stride)
    return n.act(n.add(x, y), "relu")


def _bottleneck(n: Net, x: Tensor, width: int, stride: int) -> Tensor:
    y = n.conv(n.conv(n.conv(x, width, act="relu"), width, 3, stride, act="relu"), 4 * width)
    if stride > 1 or x.shape[1] != 4 * width:
        x = n.conv(x, 4 * width, 1, stride)
    return n.act(n.add(x, y), "relu")
