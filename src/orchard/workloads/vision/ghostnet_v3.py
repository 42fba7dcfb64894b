"""GhostNetV3 (arXiv:2404.11202), branches merged: half the channels by cheap depthwise convolutions, gated shortcuts."""

from __future__ import annotations

from orchard.ir import Graph, Tensor
from orchard.workloads.vision.net import Net, round_channels

# kernel, expanded channels, channels, squeeze and excite, stride
PLAN = (
    (3, 16, 16, 0, 1), (3, 48, 24, 0, 2), (3, 72, 24, 0, 1), (5, 72, 40, 1, 2), (5, 120, 40, 1, 1), (3, 240, 80, 0, 2),
    (3, 200, 80, 0, 1), (3, 184, 80, 0, 1), (3, 184, 80, 0, 1), (3, 480, 112, 1, 1), (3, 672, 112, 1, 1),
    (5, 672, 160, 1, 2), (5, 960, 160, 0, 1), (5, 960, 160, 1, 1), (5, 960, 160, 0, 1), (5, 960, 160, 1, 1),
)  # fmt: skip


def ghostnet_v3(name: str, height: int, width: int, *, multiplier: float = 1.0) -> Graph:
    n = Net(name, height, width)

    def scaled(channels: float) -> int:
        return round_channels(channels * multiplier, 4)

    x = n.conv(n.image, scaled(16), 3, 2, act="relu")
    for index, (kernel, expanded, channels, squeeze, stride) in enumerate(PLAN):
        x = _bottleneck(n, x, scaled(expanded), scaled(channels), kernel, stride, bool(squeeze), gated=index > 1)
    x = n.conv(x, scaled(960), act="relu")
    y = n.conv(n.global_pool(x), 1280, act="relu")
    return n.build(n.dense(n.b.view(y, (y.shape[0], 1280)), 1000))


def _ghost(n: Net, x: Tensor, out: int, act: str) -> Tensor:
    half = -(-out // 2)
    y = n.conv(x, half, act=act)
    return n.concat(y, n.depthwise(y, 3, act=act))


def _gate(n: Net, x: Tensor, out: int, height: int, width: int) -> Tensor:
    """A sigmoid map computed at half the resolution."""
    y = n.conv(n.pool(x, "avg", 2, 2, valid=True), out)
    y = n.act(n.depthwise(n.depthwise(y, (1, 5)), (5, 1)), "sigmoid")
    return n.resize(y, height, width, "nearest")


def _bottleneck(
    n: Net, x: Tensor, inner: int, out: int, kernel: int, stride: int, squeeze: bool, *, gated: bool
) -> Tensor:
    c, h, w = (int(s) for s in x.shape[1:])  # type: ignore[arg-type]
    y = _ghost(n, x, inner, "relu")
    y = n.mul(y, _gate(n, x, inner, h, w)) if gated else y
    y = n.depthwise(y, kernel, 2) if stride == 2 else y
    y = n.squeeze_excite(y, round_channels(inner / 4, 4), gate="hardsigmoid") if squeeze else y
    y = _ghost(n, y, out, "")
    if stride > 1 or c != out:
        x = n.conv(n.depthwise(x, kernel, stride), out)
    return n.add(x, y)
