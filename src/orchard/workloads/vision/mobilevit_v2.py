"""MobileViTv2 (arXiv:2206.02680): separable self-attention over 2x2 patches."""

from __future__ import annotations

from orchard.ir import Graph, Tensor
from orchard.workloads.vision.mobilenet import inverted
from orchard.workloads.vision.net import Net


def mobilevit_v2(name: str, height: int, width: int, *, multiplier: float = 1.0) -> Graph:
    n = Net(name, height, width)
    c = [int(v * multiplier) for v in (32, 64, 128, 256, 384, 512)]
    x = n.conv(n.image, c[0], 3, 2, act="silu")
    x = inverted(n, x, 2 * c[0], c[1], 3, 1, act="silu")
    x = inverted(n, x, 2 * c[1], c[2], 3, 2, act="silu")
    x = inverted(n, x, 2 * c[2], c[2], 3, 1, act="silu")
    for channels, layers in zip(c[3:], (2, 4, 3)):
        x = inverted(n, x, 2 * int(x.shape[1]), channels, 3, 2, act="silu")  # type: ignore[arg-type]
        x = _block(n, x, channels // 2, layers)
    return n.classify(x)


def _block(n: Net, x: Tensor, width: int, layers: int) -> Tensor:
    channels = int(x.shape[1])  # type: ignore[arg-type]
    y = n.conv(n.depthwise(x, 3, act="silu"), width, bias=False)
    batch, c, h, w = y.shape
    y = n.move(y, (batch, c, 4, h * w // 4))
    for _ in range(layers):
        y = n.add(y, _separable(n, n.layer_norm(y), width))
        y = n.add(y, n.conv(n.conv(n.layer_norm(y), 2 * width, act="silu"), width))
    y = n.move(n.layer_norm(y), (batch, c, h, w))
    return n.conv(y, channels)


def _separable(n: Net, x: Tensor, width: int) -> Tensor:
    batch, _, patch, count = x.shape
    scores = n.b.softmax(n.conv(x, 1))
    keys = n.conv(x, width)
    values = n.conv(x, width, act="relu")
    (context,) = n.b.op("reduce", [n.mul(keys, scores)], [(batch, width, patch, 1)], attrs={"fn": "sum", "axes": (3,)})
    del count
    return n.conv(n.mul(values, context), width)
