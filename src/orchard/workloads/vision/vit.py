"""Vision transformers as image encoders of MobileCLIP (arXiv:2311.17049): B/16 with a stem of convolutions, L/14 plain."""

from __future__ import annotations

from orchard.ir import Graph, Tensor
from orchard.workloads.diffusion.attention import attention
from orchard.workloads.vision.net import Net

# width, blocks, heads, patch, stem of convolutions, width of the space shared with text
SIZES = {"b": (768, 12, 12, 16, True, 512), "l": (1024, 24, 16, 14, False, 768)}


def vit_encoder(name: str, height: int, width: int, *, size: str) -> Graph:
    n = Net(name, height, width)
    c, blocks, heads, patch, stem, out = SIZES[size]
    if stem:
        x = n.conv(n.conv(n.image, c // 4, 4, 4, act="gelu"), c // 4, 2, 2, act="gelu")
        x = n.tokens(n.conv(x, c, 2, 2))
    else:
        x = n.tokens(n.conv(n.image, c, patch, patch, bias=False, valid=True))
    batch, t, _ = x.shape
    x = n.add(x, n.b.weight("positions", (t, c), part="position_embedding"))
    first = n.b.weight("class_token", (1, 1, c), part="other")
    (x,) = n.b.op("move", [first, x], [(batch, t + 1, c)], name="concat", attrs={"fn": "concat"})
    x = x if stem else n.layer_norm(x)
    for layer in range(blocks):
        with n.b.scope(f"layers.{layer}"):
            x = n.add(x, _attention(n, n.layer_norm(x), heads, c))
            x = n.add(x, n.dense(n.dense(n.layer_norm(x), 4 * c, act="gelu"), c))
    y = n.b.view(n.move(x, (batch, 1, c), "slice"), (batch, c))
    return n.build(n.dense(n.layer_norm(y), out, bias=False))


def _attention(n: Net, x: Tensor, heads: int, c: int) -> Tensor:
    return n.dense(attention(n, n.dense(x, c), n.dense(x, c), n.dense(x, c), heads), c)
