"""MobileNetV4 (arXiv:2404.10518): universal inverted bottlenecks; hybrid sizes add attention with shared keys and values."""

from __future__ import annotations

from orchard.ir import Graph, Tensor
from orchard.workloads.vision.net import Net, round_channels

# conv: kernel, stride, channels.  fused: kernel, stride, expanded, channels.
# uib: first depthwise (0: none), middle depthwise (0: none), stride, expanded by, channels.
# mqa: heads, width of a head, stride of the keys and values.
SIZES: dict[str, tuple[tuple[object, ...], ...]] = {
    "s": (
        ("conv", 3, 2, 32), ("conv", 3, 2, 32), ("conv", 1, 1, 32), ("conv", 3, 2, 96), ("conv", 1, 1, 64),
        ("uib", 5, 5, 2, 3, 96), ("uib", 0, 3, 1, 2, 96), ("uib", 0, 3, 1, 2, 96), ("uib", 0, 3, 1, 2, 96),
        ("uib", 0, 3, 1, 2, 96), ("uib", 3, 0, 1, 4, 96), ("uib", 3, 3, 2, 6, 128), ("uib", 5, 5, 1, 4, 128),
        ("uib", 0, 5, 1, 4, 128), ("uib", 0, 5, 1, 3, 128), ("uib", 0, 3, 1, 4, 128), ("uib", 0, 3, 1, 4, 128),
        ("conv", 1, 1, 960),
    ),
    "m": (
        ("conv", 3, 2, 32), ("fused", 3, 2, 128, 48), ("uib", 3, 5, 2, 4, 80), ("uib", 3, 3, 1, 2, 80),
        ("uib", 3, 5, 2, 6, 160), ("uib", 3, 3, 1, 4, 160), ("uib", 3, 3, 1, 4, 160), ("uib", 3, 5, 1, 4, 160),
        ("uib", 3, 3, 1, 4, 160), ("uib", 3, 0, 1, 4, 160), ("uib", 0, 0, 1, 2, 160), ("uib", 3, 0, 1, 4, 160),
        ("uib", 5, 5, 2, 6, 256), ("uib", 5, 5, 1, 4, 256), ("uib", 3, 5, 1, 4, 256), ("uib", 3, 5, 1, 4, 256),
        ("uib", 0, 0, 1, 4, 256), ("uib", 3, 0, 1, 4, 256), ("uib", 3, 5, 1, 2, 256), ("uib", 5, 5, 1, 4, 256),
        ("uib", 0, 0, 1, 4, 256), ("uib", 0, 0, 1, 4, 256), ("uib", 5, 0, 1, 2, 256), ("conv", 1, 1, 960),
    ),
    "l": (
        ("conv", 3, 2, 24), ("fused", 3, 2, 96, 48), ("uib", 3, 5, 2, 4, 96), ("uib", 3, 3, 1, 4, 96),
        ("uib", 3, 5, 2, 4, 192), *[("uib", 3, 3, 1, 4, 192)] * 3, ("uib", 3, 5, 1, 4, 192),
        *[("uib", 5, 3, 1, 4, 192)] * 5, ("uib", 3, 0, 1, 4, 192), ("uib", 5, 5, 2, 4, 512),
        *[("uib", 5, 5, 1, 4, 512)] * 3, ("uib", 5, 0, 1, 4, 512), ("uib", 5, 3, 1, 4, 512), ("uib", 5, 0, 1, 4, 512),
        ("uib", 5, 0, 1, 4, 512), ("uib", 5, 3, 1, 4, 512), ("uib", 5, 5, 1, 4, 512), *[("uib", 5, 0, 1, 4, 512)] * 3,
        ("conv", 1, 1, 960),
    ),
    "hybrid-m": (
        ("conv", 3, 2, 32), ("fused", 3, 2, 128, 48), ("uib", 3, 5, 2, 4, 80), ("uib", 3, 3, 1, 2, 80),
        ("uib", 3, 5, 2, 6, 160), ("uib", 0, 0, 1, 2, 160), ("uib", 3, 3, 1, 4, 160), ("uib", 3, 5, 1, 4, 160),
        ("mqa", 4, 64, 2), ("uib", 3, 3, 1, 4, 160), ("mqa", 4, 64, 2), ("uib", 3, 0, 1, 4, 160), ("mqa", 4, 64, 2),
        ("uib", 3, 3, 1, 4, 160), ("mqa", 4, 64, 2), ("uib", 3, 0, 1, 4, 160),
        ("uib", 5, 5, 2, 6, 256), ("uib", 5, 5, 1, 4, 256), ("uib", 3, 5, 1, 4, 256), ("uib", 3, 5, 1, 4, 256),
        ("uib", 0, 0, 1, 2, 256), ("uib", 3, 5, 1, 2, 256), ("uib", 0, 0, 1, 2, 256), ("uib", 0, 0, 1, 4, 256),
        ("mqa", 4, 64, 1), ("uib", 3, 0, 1, 4, 256), ("mqa", 4, 64, 1), ("uib", 5, 5, 1, 4, 256), ("mqa", 4, 64, 1),
        ("uib", 5, 0, 1, 4, 256), ("mqa", 4, 64, 1), ("uib", 5, 0, 1, 4, 256), ("conv", 1, 1, 960),
    ),
}  # fmt: skip


def mobilenet_v4(name: str, height: int, width: int, *, size: str) -> Graph:
    n = Net(name, height, width)
    x, hybrid = n.image, size.startswith("hybrid")
    for kind, *plan in SIZES[size]:
        numbers = [int(p) for p in plan]  # type: ignore[call-overload]
        if kind == "conv":
            kernel, stride, channels = numbers
            x = n.conv(x, channels, kernel, stride, act="relu")
        elif kind == "fused":
            kernel, stride, expanded, channels = numbers
            x = n.conv(n.conv(x, expanded, kernel, stride, act="relu"), channels)
        elif kind == "mqa":
            x = n.add(x, n.scale(_shared_attention(n, n.batch_norm(x), *numbers)))
        else:
            x = _universal(n, x, *numbers, scaled=hybrid)
    return n.build(n.dense(n.b.view(n.conv(n.global_pool(x), 1280, act="relu"), (x.shape[0], 1280)), 1000))


def _shared_attention(n: Net, x: Tensor, heads: int, width: int, stride: int) -> Tensor:
    """Attention whose heads share one set of keys and values, taken at every `stride`-th pixel."""
    c, h, w = (int(s) for s in x.shape[1:])  # type: ignore[arg-type]
    q = n.b.view(n.conv(x, heads * width, bias=False), (x.shape[0], heads, width, h * w))
    k, v = (n.heads(n.conv(n.depthwise(x, 3, 2) if stride > 1 else x, width, bias=False), 1) for _ in range(2))
    keys, values = (n.b.view(t, (x.shape[0], width, t.shape[3])) for t in (k, v))
    scores = n.b.einsum("b g d t, b d s -> b g t s", q, keys, name="scores")
    y = n.b.einsum("b g t s, b e s -> b g e t", n.b.softmax(scores), values, name="values")
    return n.conv(n.b.view(y, (x.shape[0], heads * width, h, w)), c, bias=False)


def _universal(
    n: Net, x: Tensor, first: int, middle: int, stride: int, expansion: int, out: int, *, scaled: bool = False
) -> Tensor:  # fmt: skip
    c = int(x.shape[1])  # type: ignore[arg-type]
    y = n.depthwise(x, first, 1 if middle else stride) if first else x
    y = n.conv(y, round_channels(expansion * c), act="relu")
    y = n.depthwise(y, middle, stride, act="relu") if middle else y
    y = n.conv(y, out)
    y = n.scale(y) if scaled else y
    return n.add(x, y) if stride == 1 and c == out else y
