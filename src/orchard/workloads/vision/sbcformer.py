"""SBCFormer (arXiv:2311.03747): a local stream of convolutions gated by attention on a pooled copy."""

from __future__ import annotations

from orchard.ir import Graph, Tensor
from orchard.workloads.vision.net import Net

# widths, key width, heads, attention blocks
SIZES = {
    "xs": ((96, 160, 288), 16, (3, 5, 6), (2, 3, 2)), "s": ((96, 192, 320), 16, (3, 5, 7), (2, 4, 3)),
    "b": ((128, 256, 384), 24, (4, 6, 8), (2, 4, 3)),
}  # fmt: skip
POOL, LOCAL, MIXERS = (4, 2, 1), (2, 2, 1), 2


def sbcformer(name: str, height: int, width: int, *, size: str) -> Graph:
    n = Net(name, height, width)
    widths, key, heads, blocks = SIZES[size]
    x = n.image
    for share in (4, 2, 1):
        x = n.conv(x, widths[0] // share, 3, 2, act="relu")
    for stage, channels in enumerate(widths):
        x = n.conv(x, channels, 3, 2) if stage else x
        x = _block(n, x, key, heads[stage], blocks[stage], stage)
    return n.build(n.dense(n.layer_norm(n.global_pool(x, keep=False)), 1000))


def _inverted(n: Net, x: Tensor) -> Tensor:
    c = int(x.shape[1])  # type: ignore[arg-type]
    return n.add(x, n.conv(n.depthwise(n.conv(x, 2 * c, act="gelu"), 3, act="gelu"), c))


def _block(n: Net, x: Tensor, key: int, heads: int, count: int, stage: int) -> Tensor:
    c, pool = int(x.shape[1]), POOL[stage]  # type: ignore[arg-type]
    for _ in range(LOCAL[stage]):
        x = _inverted(n, x)
    local = x
    y = n.pool(x, "avg", pool, pool, valid=True) if pool > 1 else x
    for _ in range(MIXERS):
        y = _inverted(n, y)
    h, w = (int(s) for s in y.shape[2:])  # type: ignore[arg-type]
    y = n.tokens(y)
    for _ in range(count):
        y = n.add(y, _attention(n, n.layer_norm(y), key, heads, h, w))
        y = n.add(y, n.dense(n.dense(n.layer_norm(y), 4 * c, act="gelu"), c))
    y = n.image_of(y, h, w)
    y = n.upsample(y, c, pool, groups=c) if pool > 1 else y
    gated = n.mul(local, n.conv(y, c, act="hardsigmoid"))
    return n.conv(n.concat(y, gated), c)


def _attention(n: Net, x: Tensor, key: int, heads: int, h: int, w: int) -> Tensor:
    """Queries, keys and values from one 1x1 convolution; values also pass a depthwise one."""
    batch, t, c = x.shape
    both, value = 2 * key * heads, 2 * key * heads
    qk, v = n.slices(n.conv(n.image_of(x, h, w), both + value), both, value)
    v = n.add(v, n.depthwise(v, 3, act="gelu"))
    q, k = n.slices(qk, both // 2, both // 2)
    y = n.attend(n.heads(q, heads), n.heads(k, heads), n.heads(v, heads), bias=True)
    return n.dense(n.move(y, (batch, t, value)), int(c))  # type: ignore[arg-type]
