"""Uniform grids: integers times a scale, by granularity. Weights are [O, I]; blocks run along the inputs."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from orchard.numerics.errors import NumericsError


@dataclass(frozen=True, kw_only=True)
class Grid:
    """A grid of 2^bits levels. `block`: inputs that share a scale; 0: one per output channel; -1: one for the tensor.

    Symmetric: levels -2^(b-1) to 2^(b-1)-1, scale max|w| / (2^(b-1)-1). `full_range`: scale 2 max|w| / (2^b-1), a finer step
    that cuts half a step off the largest positive weights, as GPTQ of coremltools and torchao have it. Asymmetric: levels
    0 to 2^b-1 over [min, max], widened to hold zero, with a rounded zero point.
    """

    bits: int = 8
    block: int = 0
    symmetric: bool = True
    full_range: bool = False

    def __post_init__(self) -> None:
        if not 2 <= self.bits <= 16:
            raise NumericsError(f"a uniform grid of {self.bits} bits, expected 2 to 16")

    @property
    def levels(self) -> tuple[int, int]:
        half = 1 << (self.bits - 1)
        return (-half, half - 1) if self.symmetric else (0, 2 * half - 1)

    @property
    def bits_per_weight(self) -> float:
        """With 16-bit scales, and zero points of `bits` where there are any; scales per channel or tensor count nothing."""
        if self.block <= 0:
            return float(self.bits)
        return self.bits + (16 if self.symmetric else 16 + self.bits) / self.block


@dataclass(frozen=True)
class Quantized:
    """Integers [rows, width] with scale and zero point [rows, 1]; `values` are what they stand for, in the source's shape."""

    integers: Tensor
    scale: Tensor
    zero: Tensor
    shape: torch.Size

    @property
    def values(self) -> Tensor:
        return ((self.integers - self.zero) * self.scale).reshape(self.shape)


def rows_of(weight: Tensor, block: int) -> Tensor:
    """The weight as rows that share a scale. Raises NumericsError where blocks do not fit the inputs."""
    if block < 0:
        return weight.reshape(1, -1)
    if block == 0:
        return weight.reshape(weight.shape[0], -1)
    flat = weight.reshape(weight.shape[0], -1)
    if flat.shape[1] % block:
        raise NumericsError(f"blocks of {block} inputs do not divide {flat.shape[1]} inputs; expected a divisor, or 0")
    return flat.reshape(-1, block)


def scale_zero(rows: Tensor, grid: Grid) -> tuple[Tensor, Tensor]:
    """Scale and zero point [rows, 1]; rows of zeros get scale 1."""
    low, high = grid.levels
    if grid.symmetric:
        scale = rows.abs().amax(dim=1, keepdim=True) / ((high - low) / 2 if grid.full_range else high)
        scale = torch.where(scale > 0, scale, torch.ones_like(scale))
        return scale, torch.zeros_like(scale)
    least, most = rows.amin(dim=1, keepdim=True).clamp(max=0), rows.amax(dim=1, keepdim=True).clamp(min=0)
    scale = (most - least) / (high - low)
    scale = torch.where(scale > 0, scale, torch.ones_like(scale))
    return scale, (low - least / scale).round().clamp(low, high)


def to_integers(rows: Tensor, scale: Tensor, zero: Tensor, grid: Grid) -> Tensor:
    low, high = grid.levels
    return (rows / scale + zero).round().clamp(low, high)


def quantize(weight: Tensor, grid: Grid) -> Quantized:
    """Round to nearest, ties to even."""
    rows = rows_of(weight, grid.block)
    scale, zero = scale_zero(rows, grid)
    return Quantized(to_integers(rows, scale, zero, grid), scale, zero, weight.shape)


def round_to_nearest(weight: Tensor, grid: Grid) -> Tensor:
    """The weight as the grid holds it."""
    return quantize(weight, grid).values


def half_quadratic(weight: Tensor, grid: Grid, *, rounds: int = 20, p: float = 0.7) -> Tensor:
    """HQQ: zero points refitted so that the error is small in an l_p norm, p < 1 [Badri & Shaji 2023, eqs. 3 to 6].

    Alternates shrinkage of the error with the mean that is left as zero point, the penalty growing by 1 % a round from 10;
    errors count in steps of the grid, so that the unit of the weight decides nothing. Ends when a round is worse.
    """
    grid = Grid(bits=grid.bits, block=grid.block, symmetric=False)
    rows = rows_of(weight, grid.block)
    scale, zero = scale_zero(rows, grid)
    beta, best, best_error = 10.0, None, float("inf")
    for _ in range(rounds):
        integers = to_integers(rows, scale, zero, grid)
        values = (integers - zero) * scale
        error = rows / scale + zero - integers
        total = float(error.abs().pow(p).sum())
        if total >= best_error:
            break
        best, best_error = values, total
        size = error.abs().clamp(min=1e-12)
        shrunk = error.sign() * (size - size.pow(p - 1) / beta).clamp(min=0)
        zero = (integers + shrunk - rows / scale).mean(dim=1, keepdim=True)
        beta *= 1.01
    assert best is not None
    return best.reshape(weight.shape)


def fake_quantize(x: Tensor, bits: int, *, scale: Tensor | None = None) -> Tensor:
    """Activations on a symmetric grid: one scale per last axis of `x` (per token) unless a static one is given."""
    high = (1 << (bits - 1)) - 1
    if scale is None:
        scale = (x.abs().amax(dim=-1, keepdim=True) / high).clamp(min=1e-12)
    return (x / scale).round().clamp(-high - 1, high) * scale
