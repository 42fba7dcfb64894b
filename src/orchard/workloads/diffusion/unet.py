"""The U-Net of latent diffusion (arXiv:2112.10752) as Stable Diffusion 1, 2 and XL (arXiv:2307.01952) use it.

Inputs: `latents` [B, 4, H/8, W/8], `time` [B, 320] (the step as sines), `text` [B, 77, D]; XL also `added` [B, 2816]
(pooled text and sizes of the picture). Guidance runs it with batch 2: with and without the prompt.
"""

from __future__ import annotations

from dataclasses import dataclass

from orchard.ir import Graph, Tensor
from orchard.workloads.diffusion.attention import attention
from orchard.workloads.vision.net import Net

TEXT_TOKENS = 77


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """widths, transformer blocks and heads per level (0 blocks: convolutions alone); text: width of the prompt; layers:
    blocks per level on the way down, one more on the way up."""

    widths: tuple[int, ...]
    blocks: tuple[int, ...]
    heads: tuple[int, ...]
    text: int
    added: int = 0
    layers: int = 2


SHAPES = {
    "sd1": Shape(widths=(320, 640, 1280, 1280), blocks=(1, 1, 1, 0), heads=(8, 8, 8, 8), text=768),
    "small": Shape(widths=(320, 640, 1280, 1280), blocks=(1, 1, 1, 0), heads=(8, 8, 8, 8), text=768, layers=1),
    "sd2": Shape(widths=(320, 640, 1280, 1280), blocks=(1, 1, 1, 0), heads=(5, 10, 20, 20), text=1024),
    "xl": Shape(widths=(320, 640, 1280), blocks=(0, 2, 10), heads=(5, 10, 20), text=2048, added=2816),
}


def unet(name: str, height: int, width: int, *, version: str) -> Graph:
    shape = SHAPES[version]
    n = Net(name, height // 8, width // 8, 4, "latents")
    batch = n.b.sym("B")
    text = n.b.input("text", (batch, TEXT_TOKENS, shape.text))
    time = _time(n, shape)
    with n.b.scope("in"):
        x = n.conv(n.image, shape.widths[0], 3)
    skips = [x]
    for level, c in enumerate(shape.widths):
        for index in range(shape.layers):
            with n.b.scope(f"down{level}.{index}"):
                x = _level(n, x, c, time, text, shape, level)
                skips.append(x)
        if level < len(shape.widths) - 1:
            with n.b.scope(f"down{level}.shrink"):
                x = n.conv(x, c, 3, 2)
                skips.append(x)
    with n.b.scope("middle"):
        x = _residual(n, x, shape.widths[-1], time)
        x = _transformer(n, x, text, shape.heads[-1], max(1, shape.blocks[-1]))
        x = _residual(n, x, shape.widths[-1], time)
    for level, c in reversed(list(enumerate(shape.widths))):
        for index in range(shape.layers + 1):
            with n.b.scope(f"up{level}.{index}"):
                x = _level(n, n.concat(x, skips.pop()), c, time, text, shape, level)
        if level:
            with n.b.scope(f"up{level}.grow"):
                h, w = (int(s) for s in skips[-1].shape[2:])  # type: ignore[arg-type]
                x = n.conv(n.resize(x, h, w, "nearest"), c, 3)
    with n.b.scope("out"):
        return n.build(n.conv(n.act(n.group_norm(x, 32), "silu"), 4, 3))


def _time(n: Net, shape: Shape) -> Tensor:
    """The embedding of the step, and for XL of the added conditions, [B, 4 x first width]."""
    with n.b.scope("time"):
        wide = 4 * shape.widths[0]
        time = n.b.input("time", (n.b.sym("B"), shape.widths[0]))
        y = n.dense(n.dense(time, wide, act="silu"), wide)
        if shape.added:
            added = n.b.input("added", (n.b.sym("B"), shape.added))
            y = n.add(y, n.dense(n.dense(added, wide, act="silu"), wide))
        return n.act(y, "silu")


def _level(n: Net, x: Tensor, c: int, time: Tensor, text: Tensor, shape: Shape, level: int) -> Tensor:
    x = _residual(n, x, c, time)
    return _transformer(n, x, text, shape.heads[level], shape.blocks[level]) if shape.blocks[level] else x


def _residual(n: Net, x: Tensor, c: int, time: Tensor) -> Tensor:
    y = n.conv(n.act(n.group_norm(x, 32), "silu"), c, 3)
    y = n.add(y, n.b.view(n.dense(time, c), (time.shape[0], c, 1, 1)))
    y = n.conv(n.act(n.group_norm(y, 32), "silu"), c, 3)
    return n.add(x if x.shape[1] == c else n.conv(x, c), y)


def _transformer(n: Net, x: Tensor, text: Tensor, heads: int, count: int) -> Tensor:
    c, h, w = (int(s) for s in x.shape[1:])  # type: ignore[arg-type]
    y = n.conv(n.group_norm(x, 32), c)
    y = n.tokens(y)
    for _ in range(count):
        y = n.add(y, _attention(n, n.layer_norm(y), None, heads, c))
        y = n.add(y, _attention(n, n.layer_norm(y), text, heads, c))
        y = n.add(y, _gated(n, n.layer_norm(y), c))
    return n.add(x, n.conv(n.image_of(y, h, w), c))


def _attention(n: Net, x: Tensor, other: Tensor | None, heads: int, c: int) -> Tensor:
    """Self-attention, or attention to the text."""
    source = x if other is None else other
    q, k, v = n.dense(x, c, bias=False), n.dense(source, c, bias=False), n.dense(source, c, bias=False)
    return n.dense(attention(n, q, k, v, heads), c)


def _gated(n: Net, x: Tensor, c: int) -> Tensor:
    """GEGLU: half of the wide layer gates the other half."""
    wide = n.dense(x, 8 * c)
    halves = [n.move(wide, (*wide.shape[:-1], 4 * c), "slice") for _ in range(2)]
    return n.dense(n.mul(halves[0], n.act(halves[1], "gelu")), c)
