"""SwiftFormer (arXiv:2303.15446): additive attention, linear in the number of tokens."""

from __future__ import annotations

from orchard.ir import Graph, Tensor
from orchard.workloads.vision.net import Net

SIZES = {
    "xs": ((3, 3, 6, 4), (48, 56, 112, 220)), "s": ((3, 3, 9, 6), (48, 64, 168, 224)),
    "l1": ((4, 3, 10, 5), (48, 96, 192, 384)), "l3": ((4, 4, 12, 6), (64, 128, 320, 512)),
}  # fmt: skip


def swiftformer(name: str, height: int, width: int, *, size: str) -> Graph:
    n = Net(name, height, width)
    layers, widths = SIZES[size]
    x = n.conv(n.conv(n.image, widths[0] // 2, 3, 2, act="relu"), widths[0], 3, 2, act="relu")
    for stage, (count, channels) in enumerate(zip(layers, widths)):
        if stage:
            x = n.conv(x, channels, 3, 2)
        for index in range(count):
            if index < count - 1:
                x = n.add(x, n.scale(n.conv(n.conv(n.depthwise(x, 3), 4 * channels, act="gelu"), channels)))
            else:
                x = _encoder(n, x, channels)
    y = n.global_pool(n.batch_norm(x), keep=False)
    return n.build(n.dense(y, 1000), n.dense(y, 1000))  # classifier and distillation head


def _encoder(n: Net, x: Tensor, c: int) -> Tensor:
    x = n.add(x, n.scale(n.conv(n.conv(n.depthwise(x, 3), c, act="gelu"), c)))
    h, w = (int(s) for s in x.shape[2:])  # type: ignore[arg-type]
    x = n.add(x, n.scale(n.image_of(_additive(n, n.tokens(x), c), h, w)))
    return n.add(x, n.scale(n.conv(n.conv(n.batch_norm(x), 4 * c, act="gelu"), c)))


def _additive(n: Net, x: Tensor, c: int) -> Tensor:
    q = n.b.norm("l2norm", n.dense(x, c))
    k = n.b.norm("l2norm", n.dense(x, c))
    weight = n.b.weight(n.b._fresh("w_global"), (c, 1), part="other")
    a = n.b.norm("l2norm", n.b.linear(q, weight, name="global_score"))
    (g,) = n.b.op("reduce", [n.mul(q, a)], [(x.shape[0], 1, c)], attrs={"fn": "sum", "axes": (1,)})
    return n.dense(n.add(n.dense(n.mul(k, g), c), q), c)
