"""MobileViG (arXiv:2307.00395) and MobileViGv2 (arXiv:2406.05850): graph convolution over rolled images, norms merged."""

from __future__ import annotations

from orchard.ir import Graph, Tensor
from orchard.workloads.vision.net import Net

V1 = {
    "ti": ((2, 2, 6, 2), (42, 84, 168, 256), 512), "s": ((3, 3, 9, 3), (42, 84, 176, 256), 512),
    "m": ((3, 3, 9, 3), (42, 84, 224, 400), 768), "b": ((5, 5, 15, 5), (42, 84, 240, 464), 768),
}  # fmt: skip
V2 = {
    "ti": (((2, 0), (2, 2), (6, 2), (2, 2)), (32, 64, 128, 256), 512),
    "s": (((3, 0), (3, 3), (9, 3), (3, 3)), (32, 64, 128, 256), 512),
    "m": (((3, 0), (3, 3), (9, 3), (3, 3)), (32, 64, 192, 384), 512),
    "b": (((3, 0), (3, 3), (9, 3), (3, 3)), (64, 128, 256, 512), 768),
}  # fmt: skip
HOPS = (0, 8, 4, 2)
"""Distance of the neighbours in a stage of version 2."""


def mobilevig(name: str, height: int, width: int, *, size: str) -> Graph:
    n = Net(name, height, width)
    blocks, widths, head = V1[size]
    x = _stem(n, widths[0])
    for stage, (count, channels) in enumerate(zip(blocks, widths)):
        x = n.conv(x, channels, 3, 2) if stage else x
        for _ in range(count):
            x = _graph_block(n, x) if stage == 3 else _inverted(n, x)
    return _head(n, x, head)


def mobilevig_v2(name: str, height: int, width: int, *, size: str) -> Graph:
    n = Net(name, height, width)
    blocks, widths, head = V2[size]
    x = _stem(n, widths[0])
    for stage, ((local, graphs), channels) in enumerate(zip(blocks, widths)):
        x = n.conv(x, channels, 3, 2) if stage else x
        for _ in range(local):
            x = _inverted(n, x)
        for _ in range(graphs):
            x = _graph_block_v2(n, x, HOPS[stage])
    return _head(n, x, head)


def _stem(n: Net, c: int) -> Tensor:
    return n.conv(n.conv(n.image, c // 2, 3, 2, act="gelu"), c, 3, 2, act="gelu")


def _inverted(n: Net, x: Tensor) -> Tensor:
    c = int(x.shape[1])  # type: ignore[arg-type]
    return n.add(x, n.scale(n.conv(n.depthwise(n.conv(x, 4 * c, act="gelu"), 3, act="gelu"), c)))


def _rolled(n: Net, x: Tensor, hop: int, axis: int) -> Tensor:
    """The image moved by `hop` along an axis, what falls out comes in on the other side."""

    def part(size: int) -> Tensor:
        return n.move(x, tuple(size if i == axis else s for i, s in enumerate(x.shape)), "slice")

    size = int(x.shape[axis])  # type: ignore[arg-type]
    parts = [part(hop), part(size - hop)]
    return n.b.op("move", parts, [x.shape], name="concat", attrs={"fn": "concat"})[0]


def _relative(n: Net, x: Tensor, rolls: list[tuple[int, int]]) -> Tensor:
    """The image beside the largest difference between it and its neighbours."""
    largest = n.b.elementwise("sub", x, x)
    for hop, axis in rolls:
        largest = n.b.elementwise("max", largest, n.b.elementwise("sub", x, _rolled(n, x, hop, axis)))
    return n.concat(x, largest)


def _graph_block(n: Net, x: Tensor) -> Tensor:
    c, h, w = (int(s) for s in x.shape[1:])  # type: ignore[arg-type]
    rolls = [(hop, 2) for hop in range(2, h, 2)] + [(hop, 3) for hop in range(2, w, 2)]
    y = n.conv(_relative(n, n.conv(x, c), rolls), 2 * c, act="gelu")
    x = n.add(x, n.conv(y, c))
    return n.add(x, n.conv(n.conv(x, 4 * c, act="gelu"), c))


def _graph_block_v2(n: Net, x: Tensor, hop: int) -> Tensor:
    c = int(x.shape[1])  # type: ignore[arg-type]
    y = n.conv(n.depthwise(x, 7), c)
    y = n.conv(_relative(n, y, [(hop, 2), (hop, 2), (hop, 3), (hop, 3)]), c, act="gelu")
    x = n.add(x, n.scale(n.conv(y, c)))
    return n.add(x, n.scale(n.conv(n.conv(x, 4 * c, act="gelu"), c)))


def _head(n: Net, x: Tensor, width: int) -> Graph:
    y = n.conv(n.global_pool(x), width, act="gelu")
    y = n.b.view(y, (y.shape[0], width))
    return n.build(n.dense(y, 1000), n.dense(y, 1000))  # classifier and distillation head
