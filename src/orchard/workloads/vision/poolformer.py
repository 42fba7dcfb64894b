"""PoolFormer (arXiv:2111.11418)."""

from __future__ import annotations

from orchard.ir import Graph, Tensor
from orchard.workloads.vision.net import Net

LAYERS = {"s12": (2, 2, 6, 2), "s24": (4, 4, 12, 4)}


def poolformer(name: str, height: int, width: int, *, size: str) -> Graph:
    n = Net(name, height, width)
    x = n.conv(n.image, 64, 7, 4)
    for stage, (count, channels) in enumerate(zip(LAYERS[size], (64, 128, 320, 512))):
        if stage:
            x = n.conv(x, channels, 3, 2)
        for _ in range(count):
            x = n.add(x, n.scale(n.pool(_norm(n, x), "avg", 3, 1)))
            x = n.add(x, n.scale(n.conv(n.conv(_norm(n, x), 4 * channels, act="gelu"), channels)))
    return n.classify(_norm(n, x))


def _norm(n: Net, x: Tensor) -> Tensor:
    parameters = [n.b.weight(n.b._fresh(f"norm_{k}"), (x.shape[1],), part="norm") for k in ("w", "b")]
    return n.b.norm("groupnorm", x, *parameters)
