"""Next-ViT (arXiv:2207.05501): convolutional attention in groups, attention over pooled keys at the end of stages."""

from __future__ import annotations

from orchard.ir import Graph, Tensor
from orchard.workloads.vision.net import Net

BLOCKS = {"s": 10, "b": 20, "l": 30}
"""Blocks of the third stage; every fifth attends."""
HEAD = 32


def nextvit(name: str, height: int, width: int, *, size: str) -> Graph:
    n = Net(name, height, width)
    x = n.conv(n.conv(n.conv(n.image, 64, 3, 2, act="relu"), 32, 3, act="relu"), 64, 3, act="relu")
    x = n.conv(x, 64, 3, 2, act="relu")
    stages = (
        ([96] * 3, 8), ([192] * 3 + [256], 4), ([384, 384, 384, 384, 512] * (BLOCKS[size] // 5), 2), ([768, 768, 1024], 1),
    )  # fmt: skip
    for stage, (widths, reduction) in enumerate(stages):
        for index, channels in enumerate(widths):
            stride = 2 if stage and not index else 1
            attends = bool(stage) and channels != widths[0]
            x = _attention_block(n, x, channels, reduction) if attends else _block(n, x, channels, stride)
    return n.classify(n.batch_norm(x))


def _embed(n: Net, x: Tensor, out: int, stride: int) -> Tensor:
    x = n.pool(x, "avg", 2, 2) if stride == 2 else x
    return n.conv(x, out) if stride == 2 or x.shape[1] != out else x


def _mix(n: Net, x: Tensor) -> Tensor:
    c = int(x.shape[1])  # type: ignore[arg-type]
    return n.add(x, n.conv(n.conv(x, c, 3, groups=c // HEAD, act="relu"), c, bias=False))


def _mlp(n: Net, x: Tensor, expansion: int) -> Tensor:
    """The norm before it is merged into its first convolution."""
    c = int(x.shape[1])  # type: ignore[arg-type]
    return n.add(x, n.conv(n.conv(x, expansion * c, act="relu"), c))


def _block(n: Net, x: Tensor, out: int, stride: int) -> Tensor:
    return _mlp(n, _mix(n, _embed(n, x, out, stride)), 3)


def _attention_block(n: Net, x: Tensor, out: int, reduction: int) -> Tensor:
    """Three quarters of the channels attend, the last quarter is convolved."""
    attending = out * 3 // 4
    x = _embed(n, x, attending, 1)
    h, w = (int(s) for s in x.shape[2:])  # type: ignore[arg-type]
    tokens = n.tokens(x)
    x = n.add(x, n.image_of(_attention(n, tokens, attending, reduction), h, w))
    local = _mix(n, n.conv(x, out - attending))
    return _mlp(n, n.concat(x, local), 2)


def _attention(n: Net, x: Tensor, c: int, reduction: int) -> Tensor:
    batch, t = x.shape[:2]
    heads, pooled = c // HEAD, x
    if reduction > 1:
        keys = int(t) // reduction**2  # type: ignore[arg-type]
        window = reduction**2
        (pooled,) = n.b.op(
            "pool", [x], [(batch, keys, c)], attrs={"fn": "avg", "kernel": (window,), "stride": window}
        )  # fmt: skip
    s = pooled.shape[1]
    q = n.b.view(n.dense(x, c), (batch, t, heads, 1, HEAD))
    k, v = (n.b.view(n.dense(pooled, c), (batch, s, heads, HEAD)) for _ in range(2))
    scores = n.b.einsum("b t g r d, b s g d -> b g r t s", q, k, name="scores")
    y = n.b.einsum("b g r t s, b s g d -> b t g r d", n.b.softmax(scores), v, name="values")
    return n.dense(n.b.view(y, (batch, t, c)), c)
