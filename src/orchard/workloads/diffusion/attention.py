"""Attention between two sequences, as the denoisers of all diffusion models use it."""

from __future__ import annotations

from orchard.ir import Tensor
from orchard.workloads.vision.net import Net


def attention(n: Net, q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
    """q [B, T, C] over k, v [B, S, C] in `heads` heads: [B, T, C]. Every query sees every key."""
    batch, t, c = q.shape
    s, width = k.shape[1], int(c) // heads  # type: ignore[arg-type]
    q = n.b.view(q, (batch, t, heads, 1, width))
    k, v = (n.b.view(x, (batch, s, heads, width)) for x in (k, v))
    pairs = t * s
    scores = n.b.einsum("b t g r d, b s g d -> b g r t s", q, k, name="scores", pairs=pairs)
    y = n.b.einsum("b g r t s, b s g d -> b t g r d", n.b.softmax(scores, pairs=pairs), v, name="values", pairs=pairs)
    return n.b.view(y, (batch, t, c))
