"""SHViT (arXiv:2401.16456): single-head attention on a part of the channels, norms merged."""

from __future__ import annotations

from orchard.ir import Graph, Tensor
from orchard.workloads.vision.net import Net, round_channels

# widths, blocks, attending channels; the first stage does not attend
SIZES = {
    "s1": ((128, 224, 320), (2, 4, 5), (0, 48, 68)), "s2": ((128, 308, 448), (2, 4, 5), (0, 66, 96)),
    "s3": ((192, 352, 448), (3, 5, 5), (0, 75, 96)), "s4": ((224, 336, 448), (4, 7, 6), (0, 72, 96)),
}  # fmt: skip
KEY = 16


def shvit(name: str, height: int, width: int, *, size: str) -> Graph:
    n = Net(name, height, width)
    widths, blocks, parts = SIZES[size]
    x = n.image
    for share in (8, 4, 2):
        x = n.conv(x, widths[0] // share, 3, 2, act="relu")
    x = n.conv(x, widths[0], 3, 2)
    for stage, (channels, count, part) in enumerate(zip(widths, blocks, parts)):
        x = _down(n, x, channels) if stage else x
        for _ in range(count):
            x = n.depthwise(x, 3)  # its residual is merged
            x = n.add(x, _attention(n, x, part)) if part else x
            x = _mlp(n, x)
    return n.classify(x)


def _mlp(n: Net, x: Tensor) -> Tensor:
    c = int(x.shape[1])  # type: ignore[arg-type]
    return n.add(x, n.conv(n.conv(x, 2 * c, act="relu"), c))


def _down(n: Net, x: Tensor, out: int) -> Tensor:
    x = _mlp(n, n.depthwise(x, 3))
    inner = 4 * int(x.shape[1])  # type: ignore[arg-type]
    y = n.depthwise(n.conv(x, inner, act="relu"), 3, 2, act="relu")
    y = n.conv(n.squeeze_excite(y, round_channels(inner / 4)), out)
    return _mlp(n, n.depthwise(y, 3))


def _attention(n: Net, x: Tensor, part: int) -> Tensor:
    batch, c, h, w = x.shape
    whole = int(c)  # type: ignore[arg-type]
    x1, x2 = n.slices(x, part, whole - part)
    q, k, v = n.slices(n.conv(n.group_norm(x1, 1), 2 * KEY + part), KEY, KEY, part)
    y = n.b.view(n.attend(*(n.heads(t, 1) for t in (q, k, v))), (batch, part, h, w))
    return n.conv(n.act(n.concat(y, x2), "relu"), whole)
