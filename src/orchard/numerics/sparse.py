"""Zeros: by magnitude, by Wanda, by SparseGPT; anywhere, n of m, whole channels. And factors of low rank."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from orchard.numerics.calibrated import damped, feedback
from orchard.numerics.errors import NumericsError

SPARSE_BLOCK = 128
"""Inputs between two choices of the mask of SparseGPT [2301.00774, section 3.4]."""


@dataclass(frozen=True, kw_only=True)
class Zeros:
    """Which weights go: a share of each output channel, or all but `n` of `m` neighbouring inputs where m > 0."""

    share: float = 0.5
    n: int = 0
    m: int = 0

    def mask(self, score: Tensor) -> Tensor:
        """True where a weight stays [O, I]: the largest scores, the first in a tie."""
        if not self.m:
            kept = score.shape[1] - int(score.shape[1] * self.share)
            return _largest(score, kept)
        if score.shape[1] % self.m:
            raise NumericsError(
                f"{self.n}:{self.m} zeros need inputs in whole blocks of {self.m}, got {score.shape[1]}"
            )
        return _largest(score.reshape(-1, self.m), self.n).reshape(score.shape)


def _largest(score: Tensor, kept: int) -> Tensor:
    order = torch.argsort(score, dim=1, descending=True, stable=True)[:, :kept]
    return torch.zeros_like(score, dtype=torch.bool).scatter_(1, order, True)


def magnitude(weight: Tensor, zeros: Zeros) -> Tensor:
    return weight * zeros.mask(weight.abs())


def wanda(weight: Tensor, gram: Tensor, zeros: Zeros) -> Tensor:
    """|w| times the norm of its input decides [2306.11695, eq. 1]."""
    return weight * zeros.mask(weight.abs() * gram.diagonal().clamp(min=0).sqrt().to(weight.dtype))


def sparse_gpt(weight: Tensor, gram: Tensor, zeros: Zeros) -> Tensor:
    """SparseGPT: w^2 / U[j,j]^2 decides, block by block, and the loss of each zero is spread over inputs to come [2301.00774]."""
    w, factor = weight.double().clone(), feedback(gram)
    inputs = w.shape[1]
    step = zeros.m or min(SPARSE_BLOCK, inputs)
    for start in range(0, inputs, step):
        stop = min(start + step, inputs)
        keep = zeros.mask(w[:, start:stop].pow(2) / factor.diagonal()[start:stop].pow(2))
        for j in range(start, stop):
            error = torch.where(keep[:, j - start], 0.0, w[:, j]) / factor[j, j]
            w[:, j:] -= error[:, None] * factor[j, j:]
            w[:, j] *= keep[:, j - start]
    return w.to(weight.dtype)


def feedforward_channels(up: Tensor, down: Tensor, gram: Tensor, keep: int) -> Tensor:
    """Indices [keep] of the inner channels that stay: largest norm of their part of the output, sqrt(E[h^2]) |down|."""
    score = gram.diagonal().clamp(min=0).sqrt() * down.norm(dim=0)
    assert len(score) == up.shape[0]
    return torch.sort(torch.argsort(score, descending=True, stable=True)[:keep]).values


def rank_for(shape: torch.Size, share: float) -> int:
    """Rank whose two factors have `share` of the weights, at least 1."""
    out, inputs = shape
    return max(1, int(share * out * inputs / (out + inputs)))


def low_rank(weight: Tensor, rank: int, gram: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Factors [O, r] and [r, I] of least squared error; with a Gram matrix of least output error, by whitening: the SVD of W L
    with L the Cholesky factor of the damped Gram matrix, L taken out again [2403.07378]."""
    w = weight.double()
    lower = None if gram is None else torch.linalg.cholesky(damped(gram))
    left, values, right = torch.linalg.svd(w if lower is None else w @ lower, full_matrices=False)
    tall, wide = left[:, :rank] * values[:rank], right[:rank]
    if lower is not None:
        wide = torch.linalg.solve_triangular(lower, wide, upper=False, left=False)
    return tall.to(weight.dtype), wide.to(weight.dtype)


def residual_low_rank(weight: Tensor, rounded: Tensor, rank: int, gram: Tensor | None = None) -> Tensor:
    """`rounded` plus the best factors of what rounding lost [LoRC, 2303.08302]."""
    tall, wide = low_rank(weight - rounded, rank, gram)
    return rounded + tall @ wide
