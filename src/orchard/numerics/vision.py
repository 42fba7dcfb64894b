"""Pictures: branches folded into one convolution, tokens merged by likeness, steps left out."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from orchard.numerics.fixtures.digits import RepBlock, RepNet


def folded(net: RepNet) -> nn.Module:
    """The same function with one 3x3 convolution per block: batch norms folded in, 1x1 and identity padded to
    3x3 [2101.03697]."""
    out = copy.deepcopy(net)
    out.blocks = nn.Sequential(*(_folded_block(b) for b in net.blocks if isinstance(b, RepBlock)))
    return out.eval().requires_grad_(False)


def _folded_block(block: RepBlock) -> nn.Module:
    width = block.three.out_channels
    identity = torch.zeros(width, width, 3, 3)
    identity[range(width), range(width), 1, 1] = 1.0
    kernels = (block.three.weight, F.pad(block.one.weight, [1, 1, 1, 1]), identity)
    conv = nn.Conv2d(width, width, 3, padding=1)
    weight, bias = torch.zeros_like(conv.weight), torch.zeros(width)
    for kernel, norm in zip(kernels, block.norms):
        assert isinstance(norm, nn.BatchNorm2d)
        assert norm.running_var is not None
        assert norm.running_mean is not None
        scale = norm.weight / (norm.running_var + norm.eps).sqrt()
        weight += kernel.detach() * scale.detach()[:, None, None, None]
        bias += (norm.bias - norm.running_mean * scale).detach()
    with torch.no_grad():
        conv.weight.copy_(weight)
        assert conv.bias is not None
        conv.bias.copy_(bias)
    return nn.Sequential(conv, nn.ReLU())


def merge_tokens(x: Tensor, keys: Tensor, merged: int) -> Tensor:
    """ToMe [2210.09461, section 3]: tokens after the first are split in two alternating sets; the `merged` of the first set
    most like one of the second (cosine of keys) join it by mean. [B, L, C] becomes [B, L - merged, C]; at most
    half of the tokens go."""
    body, k = x[:, 1:], F.normalize(keys[:, 1:], dim=-1)
    first, second = body[:, ::2], body[:, 1::2]
    merged = min(merged, first.shape[1], second.shape[1])
    if not merged:
        return x
    best, partner = (k[:, ::2] @ k[:, 1::2].transpose(1, 2)).max(dim=-1)
    order = best.argsort(dim=1, descending=True, stable=True)
    going, staying = order[:, :merged], order[:, merged:].sort(dim=1).values
    width = x.shape[-1]
    source = first.gather(1, going[..., None].expand(-1, -1, width))
    target = partner.gather(1, going)
    total = second.scatter_add(1, target[..., None].expand(-1, -1, width), source)
    count = torch.ones(second.shape[:2]).scatter_add(1, target, torch.ones_like(target, dtype=torch.float32))
    kept = first.gather(1, staying[..., None].expand(-1, -1, width))
    return torch.cat((x[:, :1], kept, total / count[..., None]), dim=1)
