"""The auto-encoder of latent diffusion (arXiv:2112.10752): pictures to latents of an eighth of their side, and back."""

from __future__ import annotations

from orchard.ir import Graph, Tensor
from orchard.workloads.diffusion.attention import attention
from orchard.workloads.vision.net import Net

WIDTHS = (128, 256, 512, 512)
LAYERS = 2


def vae_decoder(name: str, height: int, width: int, *, channels: int = 4, post: bool = True) -> Graph:
    """Latents [B, channels, H/8, W/8] to a picture. post: a 1x1 convolution comes first (Stable Diffusion 3 has none)."""
    n = Net(name, height // 8, width // 8, channels, "latents")
    with n.b.scope("in"):
        x = n.conv(n.image, channels) if post else n.image
        x = n.conv(x, WIDTHS[-1], 3)
    x = _middle(n, x)
    for level, c in reversed(list(enumerate(WIDTHS))):
        with n.b.scope(f"up{level}"):
            for _ in range(LAYERS + 1):
                x = _residual(n, x, c)
            if level:
                h, w = (2 * int(s) for s in x.shape[2:])  # type: ignore[arg-type]
                x = n.conv(n.resize(x, h, w, "nearest"), c, 3)
    with n.b.scope("out"):
        return n.build(n.conv(n.act(n.group_norm(x, 32), "silu"), 3, 3))


def vae_encoder(name: str, height: int, width: int, *, channels: int = 4, post: bool = True) -> Graph:
    """A picture to mean and variance of its latents [B, 2 x channels, H/8, W/8]."""
    n = Net(name, height, width)
    with n.b.scope("in"):
        x = n.conv(n.image, WIDTHS[0], 3)
    for level, c in enumerate(WIDTHS):
        with n.b.scope(f"down{level}"):
            for _ in range(LAYERS):
                x = _residual(n, x, c)
            x = n.conv(x, c, 3, 2) if level < len(WIDTHS) - 1 else x
    x = _middle(n, x)
    with n.b.scope("out"):
        x = n.conv(n.act(n.group_norm(x, 32), "silu"), 2 * channels, 3)
        return n.build(n.conv(x, 2 * channels) if post else x)


def _middle(n: Net, x: Tensor) -> Tensor:
    with n.b.scope("middle"):
        c, h, w = (int(s) for s in x.shape[1:])  # type: ignore[arg-type]
        x = _residual(n, x, c)
        y = n.tokens(n.group_norm(x, 32))
        y = n.dense(attention(n, n.dense(y, c), n.dense(y, c), n.dense(y, c), 1), c)
        return _residual(n, n.add(x, n.image_of(y, h, w)), c)


def _residual(n: Net, x: Tensor, c: int) -> Tensor:
    y = n.conv(n.act(n.group_norm(x, 32), "silu"), c, 3)
    y = n.conv(n.act(n.group_norm(y, 32), "silu"), c, 3)
    return n.add(x if x.shape[1] == c else n.conv(x, c), y)
