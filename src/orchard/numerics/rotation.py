"""Orthogonal transforms: Hadamard where the width allows, random otherwise. x W' = (x Q)(W Q)' for any orthogonal Q."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def hadamard(size: int) -> Tensor:
    """Sylvester's matrix over sqrt(size), in double precision. `size` has to be a power of two."""
    assert size & (size - 1) == 0, size
    h = torch.ones(1, 1, dtype=torch.float64)
    while h.shape[0] < size:
        h = torch.cat((torch.cat((h, h), dim=1), torch.cat((h, -h), dim=1)))
    return h / math.sqrt(size)


def orthogonal(size: int, *, seed: int) -> Tensor:
    """A random orthogonal matrix: a Hadamard with random signs where `size` is a power of two; an odd factor is
    a random rotation, joined by a Kronecker product [QuaRot, 2404.00456, section 4]."""
    generator = torch.Generator().manual_seed(seed)
    two = size & -size
    odd = size // two
    signs = torch.randint(0, 2, (size,), generator=generator).double() * 2 - 1
    left = _random(odd, generator) if odd > 1 else torch.ones(1, 1, dtype=torch.float64)
    return signs[:, None] * torch.kron(left, hadamard(two))


def _random(size: int, generator: torch.Generator) -> Tensor:
    """Haar measure: QR of a Gaussian with the signs of R's diagonal taken out."""
    q, r = torch.linalg.qr(torch.randn(size, size, dtype=torch.float64, generator=generator))
    haar: Tensor = (q * r.diagonal().sign()).contiguous()
    return haar


def fast_hadamard(x: Tensor) -> Tensor:
    """x times the Hadamard matrix along the last axis by butterflies: n log2 n adds."""
    size = x.shape[-1]
    assert size & (size - 1) == 0, size
    y, width = x, 1
    while width < size:
        y = y.reshape(*x.shape[:-1], -1, 2, width)
        a, b = y[..., 0, :], y[..., 1, :]
        y = torch.stack((a + b, a - b), dim=-2)
        width *= 2
    return y.reshape(x.shape) / math.sqrt(size)
