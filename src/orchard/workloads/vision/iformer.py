"""iFormer (arXiv:2501.15369): ConvNeXt-like blocks, then single-head modulation attention; norms merged.

The `faster` sizes attend within windows of 16 x 16, as the authors measure dense prediction.
"""

from __future__ import annotations

from orchard.ir import Graph, Tensor
from orchard.workloads.vision.net import Net

# widths, expansion of convolution blocks, of attention's MLPs, blocks per stage (convolution, attention, attention in
# the last stage)
SIZES = {
    "t": ((32, 64, 128, 256), 3, 2, (2, 2, 6, 3, 2)), "s": ((32, 64, 176, 320), 4, 3, (2, 2, 9, 3, 2)),
    "m": ((48, 96, 192, 384), 4, 3, (2, 2, 9, 4, 2)), "l": ((48, 96, 256, 384), 4, 3, (2, 2, 8, 8, 2)),
    "l2": ((64, 128, 256, 512), 4, 3, (3, 3, 12, 11, 3)),
}  # fmt: skip


def iformer(name: str, height: int, width: int, *, size: str, window: int = 0) -> Graph:
    n = Net(name, height, width)
    widths, expansion, mlp, (first, second, third, attention, last) = SIZES[size]
    x = n.conv(n.image, widths[0] // 2, 5, 2, act="gelu")
    x = n.conv(n.conv(x, 2 * widths[0], 5, 2, act="gelu"), widths[0])
    for count, channels in zip((first, second, third), widths):
        x = n.conv(x, channels, 3, 2) if x.shape[1] != channels else x
        for _ in range(count):
            x = _convolve(n, x, expansion)
    x = _attend_in_windows(n, x, mlp, attention, window)
    x = n.conv(_convolve(n, x, expansion), widths[3], 3, 2)
    for _ in range(last):
        x = _attend(n, x, mlp, 4)
    return n.classify(x)


def _convolve(n: Net, x: Tensor, expansion: int) -> Tensor:
    c = int(x.shape[1])  # type: ignore[arg-type]
    return n.add(x, n.conv(n.conv(n.depthwise(x, 7), expansion * c, act="gelu"), c))


def _attend_in_windows(n: Net, x: Tensor, mlp: int, count: int, window: int) -> Tensor:
    """All but the last block see windows where the image is larger than one."""
    batch, c, h, w = x.shape
    tiles = (int(h) // window) * (int(w) // window) if window else 1  # type: ignore[arg-type]
    if tiles <= 1:
        for _ in range(count):
            x = _attend(n, x, mlp, 2)
        return x
    x = n.move(x, (batch * tiles, c, window, window))
    for _ in range(count - 1):
        x = _attend(n, x, mlp, 2)
    return _attend(n, n.move(x, (batch, c, h, w)), mlp, 2)


def _attend(n: Net, x: Tensor, mlp: int, reduction: int) -> Tensor:
    """Position by a depthwise convolution, attention of one head whose values meet a gate, MLP."""
    batch, c, h, w = x.shape
    width = int(c)  # type: ignore[arg-type]
    x = n.depthwise(x, 3)
    q, k = (n.heads(n.conv(x, width // reduction), 1) for _ in range(2))
    v, gate = n.slices(n.conv(x, 2 * width, act="sigmoid"), width, width)
    y = n.b.view(n.attend(q, k, n.heads(v, 1)), (batch, c, h, w))
    x = n.add(x, n.conv(n.mul(y, gate), width))
    return n.add(x, n.conv(n.conv(x, mlp * width, act="gelu"), width))
