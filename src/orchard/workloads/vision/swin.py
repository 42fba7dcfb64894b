"""Swin Transformer (arXiv:2103.14030): attention within windows of 7 x 7 that shift every second block."""

from __future__ import annotations

from orchard.ir import Graph, Tensor
from orchard.workloads.vision.net import Net

# width of the first stage, blocks per stage
SIZES = {"t": (96, (2, 2, 6, 2)), "s": (96, (2, 2, 18, 2)), "b": (128, (2, 2, 18, 2)), "l": (192, (2, 2, 18, 2))}
HEAD = 32


def swin(name: str, height: int, width: int, *, size: str, window: int = 7) -> Graph:
    n = Net(name, height, width)
    channels, blocks = SIZES[size]
    x = n.move(n.conv(n.image, channels, 4, 4), (n.image.shape[0], height // 4, width // 4, channels))
    x = n.layer_norm(x, last=True)
    for stage, count in enumerate(blocks):
        x = _merge(n, x) if stage else x
        for index in range(count):
            x = _block(n, x, window, shifted=index % 2 == 1)
    x = n.layer_norm(x, last=True)
    (x,) = n.b.op("reduce", [x], [(x.shape[0], x.shape[3])], attrs={"fn": "mean", "axes": (1, 2)})
    return n.build(n.dense(x, 1000))


def _merge(n: Net, x: Tensor) -> Tensor:
    """Four neighbours become one pixel of twice the channels."""
    batch, h, w, c = x.shape
    parts = [n.move(x, (batch, int(h) // 2, int(w) // 2, c), "slice") for _ in range(4)]  # type: ignore[arg-type]
    shape = (*parts[0].shape[:3], 4 * int(c))  # type: ignore[arg-type]
    (y,) = n.b.op("move", parts, [shape], name="concat", attrs={"fn": "concat"})
    return n.dense(n.layer_norm(y, last=True), 2 * int(c), bias=False)  # type: ignore[arg-type]


def _block(n: Net, x: Tensor, window: int, *, shifted: bool) -> Tensor:
    batch, *sides, c = x.shape
    h, w = (int(s) for s in sides)  # type: ignore[arg-type]
    window = min(window, h, w)
    shifted = shifted and window < min(h, w)
    rows, columns = -(-h // window), -(-w // window)
    y = n.layer_norm(x, last=True)
    if (rows * window, columns * window) != (h, w):
        y = n.move(y, (batch, rows * window, columns * window, c), "pad")
    y = _rolled(n, y) if shifted else y
    y = n.move(y, (batch * (rows * columns), window * window, c))  # partition
    y = n.attention(y, int(c) // HEAD, HEAD, HEAD, position_bias=True, mask=rows * columns if shifted else 0)  # type: ignore[arg-type]
    y = n.move(y, (batch, rows * window, columns * window, c))
    y = _rolled(n, y) if shifted else y
    if (rows * window, columns * window) != (h, w):
        y = n.move(y, (batch, h, w, c), "slice")
    x = n.add(x, y)
    return n.add(x, n.dense(n.dense(n.layer_norm(x, last=True), 4 * int(c), act="gelu"), int(c)))  # type: ignore[arg-type]


def _rolled(n: Net, x: Tensor) -> Tensor:
    return n.move(x, x.shape, "roll")
