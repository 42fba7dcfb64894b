"""Image encoder of Segment Anything (arXiv:2304.02643): a vision transformer that mostly attends in windows.

Every third block or so sees all places. Scores get two small products more, one for the distance along each axis.
"""

from __future__ import annotations

from orchard.ir import Graph, Tensor
from orchard.workloads.vision.net import Net

# width, blocks, heads, blocks that see everything
SIZES = {
    "b": (768, 12, 12, (2, 5, 8, 11)), "l": (1024, 24, 16, (5, 11, 17, 23)), "h": (1280, 32, 16, (7, 15, 23, 31)),
}  # fmt: skip
PATCH, WINDOW, OUT = 16, 14, 256


def sam_encoder(name: str, height: int, width: int, *, size: str) -> Graph:
    n = Net(name, height, width)
    c, blocks, heads, everywhere = SIZES[size]
    rows, columns = height // PATCH, width // PATCH
    x = n.move(n.conv(n.image, c, PATCH, PATCH), (n.image.shape[0], rows, columns, c))
    x = n.add(x, n.b.weight("positions", (1, rows, columns, c), part="position_embedding"))
    for layer in range(blocks):
        with n.b.scope(f"layers.{layer}"):
            y = n.layer_norm(x, last=True)
            x = n.add(x, _attention(n, y, heads, rows if layer in everywhere else WINDOW))
            x = n.add(x, n.dense(n.dense(n.layer_norm(x, last=True), 4 * c, act="gelu"), c))
    with n.b.scope("neck"):
        x = n.layer_norm(n.conv(n.move(x, (x.shape[0], c, rows, columns)), OUT, bias=False))
        return n.build(n.layer_norm(n.conv(x, OUT, 3, bias=False)))


def _attention(n: Net, x: Tensor, heads: int, side: int) -> Tensor:
    """Attention within windows of `side`; a picture that windows do not divide is padded."""
    batch, rows, columns, width = x.shape
    c = int(width)  # type: ignore[arg-type]
    tall, wide = -(-int(rows) // side), -(-int(columns) // side)  # type: ignore[arg-type]
    whole = (batch, tall * side, wide * side, c)
    y = x if whole == x.shape else n.move(x, whole, "pad")
    y = n.move(y, (batch * (tall * wide), side, side, c), "transpose") if tall * wide > 1 else y
    y = n.dense(n.b.view(_scores_and_values(n, y, heads, side, c), (y.shape[0], side, side, c)), c)
    y = n.move(y, whole) if tall * wide > 1 else n.b.view(y, whole)
    return y if whole == x.shape else n.move(y, x.shape, "slice")


def _scores_and_values(n: Net, x: Tensor, heads: int, side: int, c: int) -> Tensor:
    batch, d, t = x.shape[0], c // heads, side * side
    qkv = n.b.view(n.dense(x, 3 * c), (batch, t, 3, heads, d))
    q, k, v = (n.move(qkv, (batch, t, heads, d), "slice") for _ in range(3))
    scores = n.b.einsum("b t g d, b s g d -> b g t s", q, k, name="scores")
    grid = n.b.view(q, (batch, side, side, heads, d))
    tables = (n.b.weight(n.b._fresh(f"distance_{a}"), (2 * side - 1, d), part="position_embedding") for a in "yx")
    unfolded = [n.move(table, (side, side, d), "gather") for table in tables]
    down = n.b.einsum("b y x g d, y k d -> b g y x k", grid, unfolded[0], name="distance_rows")
    across = n.b.einsum("b y x g d, x k d -> b g y x k", grid, unfolded[1], name="distance_columns")
    scores = n.b.view(scores, (batch, heads, side, side, side, side))
    scores = n.add(scores, n.b.view(down, (batch, heads, side, side, side, 1)))
    scores = n.add(scores, n.b.view(across, (batch, heads, side, side, 1, side)))
    shares = n.b.softmax(n.b.view(scores, (batch, heads, t, t)))
    return n.b.einsum("b g t s, b s g d -> b t g d", shares, v, name="values")
