"""The multimodal diffusion transformer of Stable Diffusion 3 (arXiv:2403.03206): text and picture attend to each other.

Inputs: `latents` [B, 16, H/8, W/8], `text` [B, 333, 4096] (77 of CLIP, 256 of T5), `pooled` [B, 2048], `time` [B, 256].
"""

from __future__ import annotations

from orchard.ir import Graph, Tensor
from orchard.workloads.diffusion.attention import attention
from orchard.workloads.vision.net import Net

BLOCKS = {"medium": 24, "large": 38}
TEXT_TOKENS, TEXT, POOLED, TIME = 333, 4096, 2048, 256
LATENT, PATCH = 16, 2
"""Channels of the latents, side of a patch."""


def mmdit(name: str, height: int, width: int, *, size: str) -> Graph:
    n = Net(name, height // 8, width // 8, LATENT, "latents")
    c = 64 * BLOCKS[size]
    batch = n.b.sym("B")
    with n.b.scope("in"):
        rows, columns = height // 8 // PATCH, width // 8 // PATCH
        x = n.tokens(n.conv(n.image, c, PATCH, PATCH))
        x = n.add(x, n.b.weight("positions", (rows * columns, c), part="constant"))  # sines
        text = n.dense(n.b.input("text", (batch, TEXT_TOKENS, TEXT)), c)
        condition = n.dense(n.dense(n.b.input("time", (batch, TIME)), c, act="silu"), c)
        pooled = n.dense(n.dense(n.b.input("pooled", (batch, POOLED)), c, act="silu"), c)
        condition = n.act(n.add(condition, pooled), "silu")
    for layer in range(BLOCKS[size]):
        with n.b.scope(f"layers.{layer}"):
            x, text = _block(n, x, text, condition, c, last=layer == BLOCKS[size] - 1)
    with n.b.scope("out"):
        (shift, scale) = _modulation(n, condition, 2, c)
        y = n.dense(_modulated(n, x, shift, scale), PATCH * PATCH * LATENT)
        return n.build(n.move(y, (batch, LATENT, height // 8, width // 8)))


def _block(n: Net, x: Tensor, text: Tensor, condition: Tensor, c: int, *, last: bool) -> tuple[Tensor, Tensor]:
    """Each side has its own weights; both attend to the two sequences laid end to end. The last block drops the text."""
    shift, scale, gate, shift2, scale2, gate2 = _modulation(n, condition, 6, c)
    their = _modulation(n, condition, 2 if last else 6, c)
    sides = (_modulated(n, text, their[0], their[1]), _modulated(n, x, shift, scale))
    q, k, v = (n.concat(*(n.dense(side, c) for side in sides), axis=1) for _ in range(3))
    y = attention(n, q, k, v, c // 64)
    own = n.dense(n.move(y, x.shape, "slice"), c)
    x = _feed(n, n.add(x, n.mul(own, gate)), shift2, scale2, gate2, c)
    if last:
        return x, text
    other = n.dense(n.move(y, text.shape, "slice"), c)
    text = n.add(text, n.mul(other, their[2]))
    return x, _feed(n, text, their[3], their[4], their[5], c)


def _feed(n: Net, x: Tensor, shift: Tensor, scale: Tensor, gate: Tensor, c: int) -> Tensor:
    y = n.dense(n.dense(_modulated(n, x, shift, scale), 4 * c, act="gelu_tanh"), c)
    return n.add(x, n.mul(y, gate))


def _modulation(n: Net, condition: Tensor, count: int, c: int) -> tuple[Tensor, ...]:
    y = n.dense(condition, count * c)
    return tuple(n.move(y, (condition.shape[0], 1, c), "slice") for _ in range(count))


def _modulated(n: Net, x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """A layer norm without weights, times 1 + scale, plus shift: one fused multiply-add per element."""
    return n.b.elementwise("affine", n.b.norm("layernorm", x), scale, shift)
