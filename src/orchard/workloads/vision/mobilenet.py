"""MobileNet V1 (arXiv:1704.04861), V2 (1801.04381) and V3 (1905.02244)."""

from __future__ import annotations

from orchard.ir import Graph, Tensor
from orchard.workloads.vision.net import Net, round_channels


def mobilenet_v1(name: str, height: int, width: int, *, multiplier: float = 1.0) -> Graph:
    n = Net(name, height, width)
    x = n.conv(n.image, round_channels(32 * multiplier), 3, 2, act="relu6")
    plan = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *[(512, 1)] * 5, (1024, 2), (1024, 1))
    for channels, stride in plan:
        x = n.conv(n.depthwise(x, 3, stride, act="relu6"), round_channels(channels * multiplier), act="relu6")
    return n.classify(x)


V2 = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
"""Expansion, channels, blocks, stride."""


def mobilenet_v2(name: str, height: int, width: int, *, multiplier: float = 1.0) -> Graph:
    n = Net(name, height, width)
    x = n.conv(n.image, round_channels(32 * multiplier), 3, 2, act="relu6")
    for expansion, channels, blocks, stride in V2:
        for index in range(blocks):
            inner, out = expansion * int(x.shape[1]), round_channels(channels * multiplier)  # type: ignore[arg-type]
            x = inverted(n, x, inner, out, 3, stride if not index else 1, act="relu6")
    return n.classify(n.conv(x, round_channels(1280 * max(1.0, multiplier)), act="relu6"))


def inverted(
    n: Net, x: Tensor, inner: int, out: int, kernel: int, stride: int, *, act: str, squeeze: int = 0,
    gate: str = "sigmoid", squeeze_act: str = "relu",
) -> Tensor:  # fmt: skip
    """Expand, depthwise, squeeze and excite, project; a residual where the shape allows one."""
    y = n.conv(x, inner, act=act) if inner != x.shape[1] else x
    y = n.depthwise(y, kernel, stride, act=act)
    y = n.squeeze_excite(y, squeeze, gate=gate, act=squeeze_act) if squeeze else y
    y = n.conv(y, out)
    return n.add(x, y) if stride == 1 and x.shape[1] == out else y


LARGE = (
    (3, 16, 16, 0, "relu", 1), (3, 64, 24, 0, "relu", 2), (3, 72, 24, 0, "relu", 1), (5, 72, 40, 1, "relu", 2),
    (5, 120, 40, 1, "relu", 1), (5, 120, 40, 1, "relu", 1), (3, 240, 80, 0, "hardswish", 2),
    (3, 200, 80, 0, "hardswish", 1), (3, 184, 80, 0, "hardswish", 1), (3, 184, 80, 0, "hardswish", 1),
    (3, 480, 112, 1, "hardswish", 1), (3, 672, 112, 1, "hardswish", 1), (5, 672, 160, 1, "hardswish", 2),
    (5, 960, 160, 1, "hardswish", 1), (5, 960, 160, 1, "hardswish", 1),
)  # fmt: skip
SMALL = (
    (3, 16, 16, 1, "relu", 2), (3, 72, 24, 0, "relu", 2), (3, 88, 24, 0, "relu", 1), (5, 96, 40, 1, "hardswish", 2),
    (5, 240, 40, 1, "hardswish", 1), (5, 240, 40, 1, "hardswish", 1), (5, 120, 48, 1, "hardswish", 1),
    (5, 144, 48, 1, "hardswish", 1), (5, 288, 96, 1, "hardswish", 2), (5, 576, 96, 1, "hardswish", 1),
    (5, 576, 96, 1, "hardswish", 1),
)  # fmt: skip
"""Kernel, expanded channels, channels, squeeze and excite, activation, stride."""


def mobilenet_v3(name: str, height: int, width: int, *, large: bool, multiplier: float = 1.0) -> Graph:
    n = Net(name, height, width)
    x = n.conv(n.image, round_channels(16 * multiplier), 3, 2, act="hardswish")
    before = 16
    for kernel, expanded, channels, squeeze, act, stride in LARGE if large else SMALL:
        # the expansion is a ratio to the block's input, which is rounded first
        inner = round_channels(expanded / before * int(x.shape[1]))  # type: ignore[arg-type]
        out, before = round_channels(channels * multiplier), channels
        x = inverted(
            n, x, inner, out, kernel, stride, act=act, squeeze=round_channels(inner / 4) if squeeze else 0,
            gate="hardsigmoid",
        )  # fmt: skip
    x = n.conv(x, 6 * int(x.shape[1]), act="hardswish")  # type: ignore[arg-type]
    y = n.dense(n.global_pool(x, keep=False), 1280 if large else 1024, act="hardswish")
    return n.build(n.dense(y, 1000))
