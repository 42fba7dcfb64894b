"""Rounding that looks at the inputs: GPTQ, AWQ, SmoothQuant. Weights [O, I], Gram matrices [I, I] of the inputs."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from orchard.numerics.uniform import Grid, round_to_nearest, rows_of, scale_zero, to_integers

DAMPING = 0.01
"""Share of the mean diagonal that is added to it [2210.17323, section 3.3]."""
AWQ_STEPS = 11
"""Exponents tried, 0 to 1 [2306.00978 uses 20]."""


def damped(gram: Tensor, share: float = DAMPING) -> Tensor:
    """X'X in double precision with its diagonal raised; inputs that are always zero get a diagonal of one."""
    h = gram.double().clone()
    diagonal = h.diagonal()
    diagonal[diagonal == 0] = 1.0
    diagonal += share * diagonal.mean()
    return h


def feedback(gram: Tensor) -> Tensor:
    """Upper Cholesky factor U of the inverse of the damped Gram matrix: row j spreads the error of input j over those after it.

    U[j, j:] / U[j, j] are the coefficients of the exact least-squares correction with inputs before j fixed [2210.17323, step 3].
    """
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(damped(gram)))
    factor: Tensor = torch.linalg.cholesky(inverse, upper=True)
    return factor


def gptq(weight: Tensor, gram: Tensor, grid: Grid, *, by_activity: bool = False) -> Tensor:
    """GPTQ: inputs rounded one after the other, the error of each spread over the rest. Scales are those of the weights as
    they stand when their block begins. `by_activity` takes inputs by falling Gram diagonal, scales of the blocks in the
    original order taken first (static groups)."""
    order = (
        torch.argsort(gram.diagonal(), descending=True, stable=True) if by_activity else torch.arange(weight.shape[1])
    )
    w, factor = weight.double()[:, order].clone(), feedback(gram[order][:, order])
    scales = _static_scales(weight.double(), grid)
    static = scales if by_activity or grid.block <= 0 else None
    out = torch.empty_like(w)
    scale = zero = torch.empty(0)
    for j in range(w.shape[1]):
        if static is not None:
            scale, zero = static[0][:, order[j], None], static[1][:, order[j], None]
        elif j % grid.block == 0:
            scale, zero = scale_zero(rows_of(w[:, j : j + grid.block].contiguous(), 0), grid)
        column = w[:, j : j + 1]
        out[:, j : j + 1] = (to_integers(column, scale, zero, grid) - zero) * scale
        error = (column - out[:, j : j + 1]) / factor[j, j]
        w[:, j:] -= error * factor[j, j:]
    back = torch.empty_like(out)
    back[:, order] = out
    return back.to(weight.dtype)


def _static_scales(weight: Tensor, grid: Grid) -> tuple[Tensor, Tensor]:
    """Scale and zero point of every weight [O, I]."""
    rows = rows_of(weight, grid.block)
    scale, zero = scale_zero(rows, grid)
    return scale.expand_as(rows).reshape(weight.shape), zero.expand_as(rows).reshape(weight.shape)


@dataclass(frozen=True)
class Scaled:
    """A weight rounded after its inputs were scaled up by `scale` [I]; `exponent` is the one chosen."""

    values: Tensor
    scale: Tensor
    exponent: float


def awq(weight: Tensor, mean_abs: Tensor, gram: Tensor, grid: Grid, *, steps: int = AWQ_STEPS) -> Scaled:
    """AWQ: inputs scaled by mean|x|^a, normalised to sqrt(max min) = 1; a has the least output error
    [2306.00978, eq. 5]."""
    best: tuple[float, Scaled] | None = None
    for step in range(steps):
        exponent = step / (steps - 1)
        scale = mean_abs.clamp(min=1e-8).pow(exponent)
        scale = scale / (scale.max() * scale.min()).sqrt()
        values = round_to_nearest(weight * scale, grid) / scale
        error = output_error(weight - values, gram)
        if best is None or error < best[0]:
            best = error, Scaled(values, scale, exponent)
    assert best is not None
    return best[1]


def output_error(difference: Tensor, gram: Tensor) -> float:
    """Sum of squares of the change of the outputs over the inputs behind `gram`: tr(D G D')."""
    d = difference.double()
    return float(((d @ gram.double()) * d).sum())


def smoothing(max_abs: Tensor, weights: list[Tensor], exponent: float = 0.5) -> Tensor:
    """SmoothQuant scales [I]: max|x|^a / max|w|^(1-a); inputs are divided by them, weights multiplied [2211.10438, eq. 4]."""
    largest = torch.stack([w.abs().amax(dim=0) for w in weights]).amax(dim=0)
    return (max_abs.clamp(min=1e-5).pow(exponent) / largest.clamp(min=1e-5).pow(1 - exponent)).clamp(min=1e-5)
