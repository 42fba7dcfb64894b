"""MobileViT (arXiv:2110.02178): inverted bottlenecks, with transformers over 2x2 patches in the last three stages."""

from __future__ import annotations

from orchard.ir import Graph, Tensor
from orchard.workloads.vision.mobilenet import inverted
from orchard.workloads.vision.net import Net

# channels (stem, stages, head), width of the transformers, expansion of the bottlenecks
SIZES = {
    "xxs": ((16, 16, 24, 48, 64, 80, 320), (64, 80, 96), 2), "xs": ((16, 32, 48, 64, 80, 96, 384), (96, 120, 144), 4),
    "s": ((16, 32, 64, 96, 128, 160, 640), (144, 192, 240), 4),
}  # fmt: skip
HEADS = 4


def mobilevit(name: str, height: int, width: int, *, size: str) -> Graph:
    n = Net(name, height, width)
    channels, widths, expansion = SIZES[size]

    def bottleneck(x: Tensor, out: int, stride: int) -> Tensor:
        return inverted(n, x, expansion * int(x.shape[1]), out, 3, stride, act="silu")  # type: ignore[arg-type]

    x = bottleneck(n.conv(n.image, channels[0], 3, 2, act="silu"), channels[1], 1)
    for stride in (2, 1, 1):
        x = bottleneck(x, channels[2], stride)
    for out, inner, layers in zip(channels[3:], widths, (2, 4, 3)):
        x = _block(n, bottleneck(x, out, 2), inner, layers)
    return n.classify(n.conv(x, channels[6], act="silu"))


def _block(n: Net, x: Tensor, width: int, layers: int) -> Tensor:
    """Local convolutions, transformer among pixels of equal place in their patch, fusion with the input."""
    batch, c, h, w = x.shape
    channels, rows, columns = int(c), -(-int(h) // 2), -(-int(w) // 2)  # type: ignore[arg-type]
    y = n.conv(n.conv(x, channels, 3, act="silu"), width, bias=False)
    if (2 * rows, 2 * columns) != (h, w):  # patches must cover the image
        y = n.resize(y, 2 * rows, 2 * columns)
    y = n.move(y, (batch * 4, rows * columns, width))
    for _ in range(layers):
        y = n.add(y, n.attention(n.layer_norm(y), HEADS, width // HEADS, width // HEADS))
        y = n.add(y, n.dense(n.dense(n.layer_norm(y), 2 * width, act="silu"), width))
    y = n.move(n.layer_norm(y), (batch, width, 2 * rows, 2 * columns))
    if (2 * rows, 2 * columns) != (h, w):
        y = n.resize(y, int(h), int(w))  # type: ignore[arg-type]
    return n.conv(n.concat(x, n.conv(y, channels, act="silu")), channels, 3, act="silu")
