"""What is done to keys and values: fewer bits by token or channel, and positions that are forgotten. Tensors are [B, G, L, D]."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from orchard.numerics.errors import NumericsError

Axis = Literal["token", "channel"]
Policy = Literal["window", "sinks", "heavy", "snap"]
CHUNK = 32
"""Tokens that share a scale per channel [KIVI, 2402.02750]."""


def quantize_cache(x: Tensor, bits: int, *, axis: Axis, recent: int = 0) -> Tensor:
    """Keys or values on asymmetric grids: a scale per token and head, or per channel over CHUNK tokens. The last `recent` tokens
    a query sees would be exact in a running cache; in a pass over a whole sequence only the last `recent` tokens are."""
    if bits >= 16:
        return x
    tokens = x.shape[2]
    stop = max(0, tokens - recent)
    old, new = x[:, :, :stop], x[:, :, stop:]
    if not stop:
        return x
    if axis == "token":
        return torch.cat((_asymmetric(old, bits, 3), new), dim=2)
    parts = [_asymmetric(part, bits, 2) for part in old.split(CHUNK, dim=2)]
    return torch.cat((*parts, new), dim=2)


def _asymmetric(x: Tensor, bits: int, axis: int) -> Tensor:
    low, high = x.amin(dim=axis, keepdim=True), x.amax(dim=axis, keepdim=True)
    scale = ((high - low) / ((1 << bits) - 1)).clamp(min=1e-12)
    return ((x - low) / scale).round() * scale + low


def window_mask(tokens: int, window: int, sinks: int = 0) -> Tensor:
    """[L, L], True where a query (row) still sees a token: the `window` last, and the first `sinks`; causal."""
    distance = torch.arange(tokens)[:, None] - torch.arange(tokens)[None, :]
    return (distance >= 0) & ((distance < window) | (torch.arange(tokens) < sinks)[None, :])


def heavy_mask(scores: Tensor, budget: int) -> Tensor:
    """H2O [2306.14048]: half of the budget for recent tokens, half for those with most attention so far; once gone is gone.

    `scores` [B, H, L, L] causal; the accumulation counts only what is still there.
    """
    recent, heavy = budget - budget // 2, budget // 2
    tokens = scores.shape[-1]
    alive = torch.ones(*scores.shape[:2], tokens, dtype=torch.bool)
    total = torch.zeros(*scores.shape[:2], tokens)
    masks = []
    for row in range(tokens):
        alive_now = alive & (torch.arange(tokens) <= row)
        masks.append(alive_now)
        total += scores[:, :, row].masked_fill(~alive_now, -torch.inf).softmax(-1)
        if row + 1 > budget:
            old = torch.arange(tokens) <= row - recent
            rank = total.masked_fill(~(alive & old), -torch.inf)
            keep = torch.zeros_like(alive)
            if heavy:
                keep.scatter_(-1, rank.topk(heavy, dim=-1).indices, True)
            alive = torch.where(old, keep & alive, alive)
    return torch.stack(masks, dim=2)


def snap_mask(scores: Tensor, budget: int, *, prompt: int, watch: int = 16) -> Tensor:
    """SnapKV [2404.14469]: after a prompt of `prompt` tokens each head keeps those that its last `watch` queries attend to most,
    and those queries' own positions; `budget` in all. Later tokens are all kept."""
    tokens = scores.shape[-1]
    if not watch < prompt <= tokens or budget <= watch:
        raise NumericsError(
            f"budget {budget} of a prompt of {prompt} in {tokens} tokens, expected {watch} < budget and prompt"
        )
    seen = scores[:, :, prompt - watch : prompt, : prompt - watch].softmax(-1).sum(2)
    best = seen.topk(min(budget - watch, seen.shape[-1]), -1).indices
    chosen = torch.zeros_like(seen, dtype=torch.bool).scatter_(-1, best, True)
    after = torch.ones(*scores.shape[:2], tokens - prompt + watch, dtype=torch.bool)
    kept = torch.cat((chosen, after), dim=-1)[:, :, None, :]
    rows = torch.arange(tokens)[:, None]
    return torch.where(rows < prompt, torch.ones_like(kept), kept)
