"""Fewer bits per weight: grids and palettes on every product."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from orchard.numerics import calibrated, sparse
from orchard.numerics.methods.base import SPARSE_FROM, Evidence, WeightNumeric
from orchard.numerics.palette import palettize, vector_palette
from orchard.numerics.surgery import zero_share
from orchard.numerics.uniform import Grid, half_quadratic, quantize, round_to_nearest
from orchard.techniques.base import option

BITS = "bits per weight"
GROUP = "inputs that share a scale; 0: one scale per output channel, -1: one for the tensor"
FULL_RANGE = "the step is 2 max / (2^bits - 1), as in coremltools and torchao, not max / (2^(bits-1) - 1)"
TABLE_GROUP = "output channels that share a table; 0: one table for the tensor"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rtn(WeightNumeric):
    """Round to the nearest level of a symmetric grid."""

    name: ClassVar[str] = "rtn"
    bits: int = option(8, BITS, least=2, most=8)
    group: int = option(0, GROUP, least=-1, most=4096)
    full_range: bool = option(False, FULL_RANGE)

    @property
    def grid(self) -> Grid:
        return Grid(bits=self.bits, block=self.group, full_range=self.full_range)

    def changed(self, name: str, weight: Tensor, evidence: Evidence) -> Tensor:  # noqa: ARG002 - data-free
        return round_to_nearest(weight, self.grid)

    def bits_per_weight(self) -> float:
        return self.grid.bits_per_weight


@dataclass(frozen=True, slots=True, kw_only=True)
class LeadingBits(WeightNumeric):
    """The first `kept` bits of a weight stored in `bits`: what a draft reads of planes that both models share. The part
    that is not
    read counts as its middle."""

    name: ClassVar[str] = "leading-bits"
    bits: int = option(8, "bits of the whole weight", least=3, most=8)
    kept: int = option(3, "leading bits that are read", least=2, most=7)
    group: int = option(0, GROUP, least=-1, most=4096)

    def changed(self, name: str, weight: Tensor, evidence: Evidence) -> Tensor:  # noqa: ARG002 - data-free
        if self.kept >= self.bits:
            return round_to_nearest(weight, Grid(bits=self.bits, block=self.group))
        found = quantize(weight, Grid(bits=self.bits, block=self.group))
        step = 1 << (self.bits - self.kept)
        middle = torch.floor(found.integers / step) * step + (step - 1) / 2
        return (middle * found.scale).reshape(weight.shape)

    def bits_per_weight(self) -> float:
        return float(self.kept)


@dataclass(frozen=True, slots=True, kw_only=True)
class Gptq(Rtn):
    """GPTQ with 1 % damping; every product from the inputs of the model before any is rounded."""

    name: ClassVar[str] = "gptq"
    bits: int = option(4, BITS, least=2, most=8)
    group: int = option(128, GROUP, least=-1, most=4096)

    def changed(self, name: str, weight: Tensor, evidence: Evidence) -> Tensor:
        return calibrated.gptq(weight, evidence.inputs[name].gram, self.grid)


@dataclass(frozen=True, slots=True, kw_only=True)
class Awq(Rtn):
    """AWQ: the exponent of each product by its own output error; the inverse scale is folded or multiplied, exact either way."""

    name: ClassVar[str] = "awq"
    bits: int = option(4, BITS, least=2, most=8)
    group: int = option(128, GROUP, least=-1, most=4096)

    def changed(self, name: str, weight: Tensor, evidence: Evidence) -> Tensor:
        seen = evidence.inputs[name]
        return calibrated.awq(weight, seen.mean_abs, seen.gram, self.grid).values


@dataclass(frozen=True, slots=True, kw_only=True)
class Hqq(WeightNumeric):
    """HQQ: asymmetric grid, zero points by half-quadratic splitting, no data."""

    name: ClassVar[str] = "hqq"
    bits: int = option(4, BITS, least=2, most=8)
    group: int = option(64, GROUP, least=-1, most=4096)

    @property
    def grid(self) -> Grid:
        return Grid(bits=self.bits, block=self.group, symmetric=False)

    def changed(self, name: str, weight: Tensor, evidence: Evidence) -> Tensor:  # noqa: ARG002 - data-free
        return half_quadratic(weight, self.grid)

    def bits_per_weight(self) -> float:
        return self.grid.bits_per_weight


@dataclass(frozen=True, slots=True, kw_only=True)
class Palettize(WeightNumeric):
    """k-means tables by 25 rounds of Lloyd's algorithm from quantile starts; `vector` > 1: one table of vectors."""

    name: ClassVar[str] = "palettize"
    bits: int = option(4, "bits of an index", least=1, most=8)
    group: int = option(0, TABLE_GROUP, least=0, most=65536)
    vector: int = option(1, "neighbouring weights that share an index", least=1, most=16)
    scale: bool = option(False, "each output channel has a scale of its own")
    sensitive: bool = option(False, "errors count by the Fisher diagonal")

    def changed(self, name: str, weight: Tensor, evidence: Evidence) -> Tensor:
        if self.vector > 1:
            return vector_palette(weight, self.bits, self.vector, seed=evidence.seed).values
        weights = evidence.fisher[name] if self.sensitive else None
        sparse_already = zero_share(weight) >= SPARSE_FROM
        return palettize(
            weight, self.bits, group=self.group, weights=weights, scale=self.scale, keep_zeros=sparse_already
        ).values

    def bits_per_weight(self) -> float:
        """Of the indices alone: tables are a few hundred bytes per tensor or group."""
        return self.bits / self.vector


@dataclass(frozen=True, slots=True, kw_only=True)
class DenseAndSparse(WeightNumeric):
    """SqueezeLLM, SpQR: a share of the largest weights exact, the others on a grid."""

    name: ClassVar[str] = "dense-and-sparse"
    bits: int = option(4, BITS, least=2, most=8)
    group: int = option(64, GROUP, least=-1, most=4096)
    outliers: float = option(0.0045, "share of the weights kept apart", least=0.0001, most=0.2)

    def changed(self, name: str, weight: Tensor, evidence: Evidence) -> Tensor:  # noqa: ARG002 - data-free
        count = max(1, int(weight.numel() * self.outliers))
        apart = torch.zeros(weight.numel(), dtype=torch.bool)
        apart[torch.argsort(weight.abs().flatten(), descending=True, stable=True)[:count]] = True
        mask = apart.reshape(weight.shape)
        return torch.where(
            mask, weight, round_to_nearest(weight.masked_fill(mask, 0.0), Grid(bits=self.bits, block=self.group))
        )

    def bits_per_weight(self) -> float:
        return Grid(bits=self.bits, block=self.group).bits_per_weight + 48 * self.outliers


@dataclass(frozen=True, slots=True, kw_only=True)
class LowRankCorrection(WeightNumeric):
    """LoRC: round to nearest, then the best factors of what was lost, whitened by the inputs."""

    name: ClassVar[str] = "low-rank-correction"
    bits: int = option(4, BITS, least=2, most=8)
    group: int = option(64, GROUP, least=-1, most=4096)
    rank: int = option(8, "rank of the correction", least=1, most=1024)

    def changed(self, name: str, weight: Tensor, evidence: Evidence) -> Tensor:
        rounded = round_to_nearest(weight, Grid(bits=self.bits, block=self.group))
        return sparse.residual_low_rank(weight, rounded, self.rank, evidence.inputs[name].gram)


@dataclass(frozen=True, slots=True, kw_only=True)
class Prune(WeightNumeric):
    """Zeros anywhere: a share of each output channel."""

    name: ClassVar[str] = "prune"
    sparsity: float = option(0.5, "share of zeros", least=0.01, most=0.99)
    by: str = option("magnitude", "what decides", among=("magnitude", "wanda", "sparsegpt"))

    @property
    def zeros(self) -> sparse.Zeros:
        return sparse.Zeros(share=self.sparsity)

    def changed(self, name: str, weight: Tensor, evidence: Evidence) -> Tensor:
        if self.by == "magnitude":
            return sparse.magnitude(weight, self.zeros)
        method = sparse.wanda if self.by == "wanda" else sparse.sparse_gpt
        return method(weight, evidence.inputs[name].gram, self.zeros)


@dataclass(frozen=True, slots=True, kw_only=True)
class PruneNm(Prune):
    """n of m neighbouring inputs stay."""

    name: ClassVar[str] = "prune-nm"
    sparsity: float = option(0.5, "not used: n and m say it", least=0.01, most=0.99)
    n: int = option(2, "weights kept of every m", least=1, most=31)
    m: int = option(4, "inputs in a block", among=(2, 4, 8, 16, 32))

    @property
    def zeros(self) -> sparse.Zeros:
        return sparse.Zeros(n=self.n, m=self.m)


@dataclass(frozen=True, slots=True, kw_only=True)
class LowRank(WeightNumeric):
    """Each weight as the product of two factors; `whiten` weighs errors by the inputs (SVD-LLM)."""

    name: ClassVar[str] = "low-rank"
    keep: float = option(0.8, "share of the weights of a matrix that its factors have", least=0.02, most=1.0)
    whiten: bool = option(True, "least output error instead of least weight error")

    def changed(self, name: str, weight: Tensor, evidence: Evidence) -> Tensor:
        gram = evidence.inputs[name].gram if self.whiten else None
        tall, wide = sparse.low_rank(weight, sparse.rank_for(weight.shape, self.keep), gram)
        return tall @ wide
