"""Techniques that change how weights are stored: grids, palettes, zeros. What they cost is the cost of their format."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from orchard.ir import Graph, Tensor
from orchard.ir.weights import apply_weights, weight_shapes
from orchard.techniques.base import GraphPass, Stage, option
from orchard.techniques.errors import TechniqueError
from orchard.techniques.rewrite import matrices
from orchard.units import number_format

FLOATS = ("f32", "f16", "bf16", "f64")
NO_TABLES = "the Neural Engine has no kernels for formats of llama.cpp"


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredWeights(GraphPass, ABC):
    """Every weight matrix in another format; vectors stay. `skip` names parts that stay too (`head+embedding`)."""

    stage: ClassVar[Stage] = Stage.WEIGHTS
    skip: str = option("", "parts that keep their format, joined by + (head+embedding)")

    @abstractmethod
    def stored(self, weight: Tensor) -> str:
        """Name of the new format. Raises TechniqueError where the present one does not allow it."""

    def apply(self, graph: Graph) -> Graph:
        skip = [part for part in self.skip.split("+") if part]
        unknown = [part for part in skip if part not in {w.part for w in graph.weights}]
        if unknown:
            parts = ", ".join(sorted({w.part for w in graph.weights if w.part}))
            raise TechniqueError(f"{self.name}: skip={unknown[0]}, expected parts of {graph.name}: {parts}")
        found = {w.name: self.stored(w) for w in matrices(graph, skip)}
        shapes = weight_shapes(graph)
        formats = {n: f for n, f in found.items() if fits(f, shapes[n])}
        if not formats:
            raise TechniqueError(f"{self.name}: {graph.name} has no weight matrix that this format can store")
        return graph.with_formats(formats)


def fits(format_name: str, shape: tuple[int, ...]) -> bool:
    """A row is a whole number of blocks, or the format pads."""
    fmt = number_format(format_name)
    return fmt.pads or shape[-1] % fmt.block == 0


def must_be_float(name: str, weight: Tensor) -> None:
    """Two roundings on top of each other are a mistake."""
    if weight.format in FLOATS:
        return
    raise TechniqueError(
        f"{name}: %{weight.name} is stored as {weight.format} already; techniques that store weights do not stack, keep one"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class UniformWeights(StoredWeights, ABC):
    """Integers with a scale per block of `group` inputs; group 0 is one scale per output channel."""

    zero_points: ClassVar[bool] = False

    @property
    def grid(self) -> tuple[int, int]:
        """(bits, group)."""
        raise NotImplementedError

    def stored(self, weight: Tensor) -> str:
        bits, group = self.grid
        end = "-asym" if self.zero_points else ""
        if weight.format.startswith("sparse"):
            return f"{weight.format.partition('-')[0]}-int{bits}"
        must_be_float(self.name, weight)
        return f"int{bits}-channel{end}" if group == 0 else f"int{bits}-b{group}{end}"


BITS = "bits per weight"
GROUP = "inputs that share a scale; 0: one scale per output channel"


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundToNearest(UniformWeights):
    """before:  %w: f16[4096, 4096] = weight
    after:   %w: int4-b32[4096, 4096] = weight   # an f16 scale per 32 inputs
    """

    name: ClassVar[str] = "rtn"
    bits: int = option(8, BITS, among=(2, 3, 4, 8))
    group: int = option(0, GROUP, among=(0, 8, 16, 32, 64, 128, 256, 1024))

    @property
    def grid(self) -> tuple[int, int]:
        return self.bits, self.group


@dataclass(frozen=True, slots=True, kw_only=True)
class Gptq(UniformWeights):
    """before:  %w: f16[4096, 4096] = weight
    after:   %w: int4-b128[4096, 4096] = weight   # the grid of rtn; rounding differs, cost does not
    """

    name: ClassVar[str] = "gptq"
    bits: int = option(4, BITS, among=(2, 3, 4, 8))
    group: int = option(128, GROUP, among=(0, 32, 64, 128))

    @property
    def grid(self) -> tuple[int, int]:
        return self.bits, self.group


@dataclass(frozen=True, slots=True, kw_only=True)
class Awq(UniformWeights):
    """before:  %w: f16[4096, 4096] = weight
    after:   %w: int4-b128-asym[4096, 4096] = weight   # scales of salient channels are folded into the op before
    """

    name: ClassVar[str] = "awq"
    zero_points: ClassVar[bool] = True
    bits: int = option(4, BITS, among=(3, 4, 8))
    group: int = option(128, GROUP, among=(0, 32, 64, 128))

    @property
    def grid(self) -> tuple[int, int]:
        return self.bits, self.group


@dataclass(frozen=True, slots=True, kw_only=True)
class Hqq(UniformWeights):
    """before:  %w: f16[4096, 4096] = weight
    after:   %w: int4-b64-asym[4096, 4096] = weight   # fitted zero points
    """

    name: ClassVar[str] = "hqq"
    zero_points: ClassVar[bool] = True
    bits: int = option(4, BITS, among=(2, 3, 4, 8))
    group: int = option(64, GROUP, among=(16, 32, 64, 128))

    @property
    def grid(self) -> tuple[int, int]:
        return self.bits, self.group


@dataclass(frozen=True, slots=True, kw_only=True)
class LearnedRounding(UniformWeights):
    """before:  %w: f16[4096, 4096] = weight
    after:   %w: int2-b64[4096, 4096] = weight   # rounding optimised block by block
    """

    name: ClassVar[str] = "learned-rounding"
    bits: int = option(2, BITS, among=(2, 3, 4))
    group: int = option(64, GROUP, among=(0, 32, 64, 128))

    @property
    def grid(self) -> tuple[int, int]:
        return self.bits, self.group


@dataclass(frozen=True, slots=True, kw_only=True)
class Qat(UniformWeights):
    """before:  %w: f16[4096, 4096] = weight
    after:   %w: int2-channel[4096, 4096] = weight   # trained through the quantizer
    """

    name: ClassVar[str] = "qat"
    bits: int = option(2, BITS, among=(2, 3, 4))
    group: int = option(0, GROUP, among=(0, 32, 64, 128))

    @property
    def grid(self) -> tuple[int, int]:
        return self.bits, self.group


@dataclass(frozen=True, slots=True, kw_only=True)
class KQuant(GraphPass):
    """before:  %layers.0.ffn.w_down: f16[8192, 2048] = weight part=ffn_down layer=0
    after:   %layers.0.ffn.w_down: q6_k[8192, 2048] = weight part=ffn_down layer=0   # the mixture q4_k_m
    """

    name: ClassVar[str] = "k-quant"
    stage: ClassVar[Stage] = Stage.WEIGHTS
    runtime: ClassVar[str | None] = "llama.cpp"
    refused: ClassVar[Mapping[str, str]] = {"ane": NO_TABLES}
    type: str = option("q4_k_m", "a file type of llama.cpp (q4_0, q4_k_m, iq2_xxs, ...)")

    def apply(self, graph: Graph) -> Graph:
        for weight in matrices(graph):
            must_be_float(self.name, weight)
        return apply_weights(graph, self.type)


@dataclass(frozen=True, slots=True, kw_only=True)
class PaletteWeights(StoredWeights, ABC):
    """Indices into tables of 16-bit entries."""

    runtime: ClassVar[str | None] = "coreml"

    def palette(self, weight: Tensor, bits: int, group: int = 0, vector: int = 1, end: str = "") -> str:
        """The palette's name; on pruned weights the survivors become indices into one table."""
        if weight.format.startswith("sparse"):
            return f"{weight.format.partition('-')[0]}-pal{bits}"
        must_be_float(self.name, weight)
        groups = "-channel" if group == 1 else f"-g{group}" if group else ""
        return f"pal{bits}{groups}{f'-v{vector}' if vector > 1 else ''}{end}"


PALETTE_BITS = (1, 2, 3, 4, 6, 8)
TABLES = "output channels that share a table; 0: one table per tensor, 1: one per channel"


@dataclass(frozen=True, slots=True, kw_only=True)
class Palettize(PaletteWeights):
    """before:  %w: f16[4096, 4096] = weight
    after:   %w: pal4-g16[4096, 4096] = weight   # 4-bit indices, a table of 16 entries per 16 output channels
    """

    name: ClassVar[str] = "palettize"
    bits: int = option(4, "bits of an index", among=PALETTE_BITS)
    group: int = option(0, TABLES, least=0, most=65536)
    vector: int = option(1, "neighbouring weights that share an index", least=1, most=16)

    def stored(self, weight: Tensor) -> str:
        return self.palette(weight, self.bits, self.group, self.vector)


@dataclass(frozen=True, slots=True, kw_only=True)
class PaletteGrouped(PaletteWeights):
    """before:  %w: f16[4096, 4096] = weight
    after:   %w: pal4-g8[4096, 4096] = weight
    """

    name: ClassVar[str] = "palette-grouped"
    bits: int = option(4, "bits of an index", among=PALETTE_BITS)
    group: int = option(8, TABLES, least=1, most=65536)

    def stored(self, weight: Tensor) -> str:
        return self.palette(weight, self.bits, self.group)


@dataclass(frozen=True, slots=True, kw_only=True)
class PaletteScale(PaletteWeights):
    """before:  %w: f16[4096, 4096] = weight
    after:   %w: pal4-scale[4096, 4096] = weight   # and an f16 scale per output channel
    """

    name: ClassVar[str] = "palette-scale"
    bits: int = option(4, "bits of an index", among=PALETTE_BITS)
    group: int = option(0, TABLES, least=0, most=65536)

    def stored(self, weight: Tensor) -> str:
        return self.palette(weight, self.bits, self.group, end="-scale")


@dataclass(frozen=True, slots=True, kw_only=True)
class PaletteSensitive(PaletteWeights):
    """before:  %w: f16[4096, 4096] = weight
    after:   %w: pal3-channel[4096, 4096] = weight   # clusters weighted by sensitivity; cost as palettize
    """

    name: ClassVar[str] = "palette-sensitive"
    bits: int = option(3, "bits of an index", among=PALETTE_BITS)
    group: int = option(1, TABLES, least=0, most=65536)

    def stored(self, weight: Tensor) -> str:
        return self.palette(weight, self.bits, self.group)


@dataclass(frozen=True, slots=True, kw_only=True)
class PaletteDkm(PaletteWeights):
    """before:  %w: f16[4096, 4096] = weight
    after:   %w: pal2[4096, 4096] = weight   # clustered while training; cost as palettize
    """

    name: ClassVar[str] = "palette-dkm"
    bits: int = option(2, "bits of an index", among=PALETTE_BITS)
    group: int = option(0, TABLES, least=0, most=65536)

    def stored(self, weight: Tensor) -> str:
        return self.palette(weight, self.bits, self.group)


@dataclass(frozen=True, slots=True, kw_only=True)
class PaletteMixed(PaletteWeights):
    """before:  %a: f16[64, 64] = weight, %b: f16[64, 64] = weight
    after:   %a: pal2[64, 64] = weight, %b: pal4[64, 64] = weight   # mean 3 bits

    Without sensitivities the wider format is spread evenly over the tensors in program order, so that the mean is met.
    """

    name: ClassVar[str] = "palette-mixed"
    low: int = option(2, "bits of the narrow tensors", among=PALETTE_BITS)
    high: int = option(6, "bits of the wide tensors", among=PALETTE_BITS)
    mean: float = option(4.0, "mean bits per weight", least=1, most=8)

    def stored(self, weight: Tensor) -> str:
        return self.palette(weight, self.low)

    def apply(self, graph: Graph) -> Graph:
        if not self.low <= self.mean <= self.high or self.low == self.high:
            raise TechniqueError(f"{self.name}: mean={self.mean:g}, expected from low={self.low} to high={self.high}")
        share, elements, wide, formats = (self.mean - self.low) / (self.high - self.low), 0.0, 0.0, {}
        for weight in matrices(graph):
            size = float(weight.elements)  # type: ignore[arg-type]
            elements += size
            take = wide + size / 2 <= elements * share
            wide += size if take else 0.0
            formats[weight.name] = self.palette(weight, self.high if take else self.low)
        return graph.with_formats(formats)


@dataclass(frozen=True, slots=True, kw_only=True)
class VectorCodebook(PaletteWeights):
    """before:  %w: f16[4096, 4096] = weight
    after:   %w: pal8-v4[4096, 4096] = weight   # one 8-bit index for 4 neighbours: 2 bits per weight
    """

    name: ClassVar[str] = "vector-codebook"
    runtime: ClassVar[str | None] = None
    bits: int = option(8, "bits of an index; larger tables leave on-chip memory and have no rule", among=PALETTE_BITS)
    vector: int = option(4, "weights per index", least=2, most=16)

    def stored(self, weight: Tensor) -> str:
        return self.palette(weight, self.bits, 0, self.vector)


@dataclass(frozen=True, slots=True, kw_only=True)
class Prune(StoredWeights):
    """before:  %w: f16[4096, 4096] = weight
    after:   %w: sparse75-f16[4096, 4096] = weight   # a bit mask and the 25 % that are left
    """

    name: ClassVar[str] = "prune"
    stage: ClassVar[Stage] = Stage.SPARSITY
    runtime: ClassVar[str | None] = "coreml"
    sparsity: float = option(0.5, "share of zeros", least=0.01, most=0.99)

    def stored(self, weight: Tensor) -> str:
        return zeros(self.name, weight, self.sparsity)


@dataclass(frozen=True, slots=True, kw_only=True)
class PruneNm(StoredWeights):
    """before:  %w: f16[4096, 4096] = weight
    after:   %w: sparse50-f16[4096, 4096] = weight   # 2 of every 4; no Apple engine skips the products
    """

    name: ClassVar[str] = "prune-nm"
    stage: ClassVar[Stage] = Stage.SPARSITY
    n: int = option(2, "weights kept of every m", least=1, most=31)
    m: int = option(4, "inputs in a block", among=(2, 4, 8, 16, 32))

    def stored(self, weight: Tensor) -> str:
        if self.n >= self.m:
            raise TechniqueError(f"{self.name}: n={self.n} of m={self.m}, expected fewer than m")
        return zeros(self.name, weight, 1.0 - self.n / self.m)


@dataclass(frozen=True, slots=True, kw_only=True)
class SparsePalette(StoredWeights):
    """before:  %w: f16[4096, 4096] = weight
    after:   %w: sparse40-pal4[4096, 4096] = weight
    """

    name: ClassVar[str] = "sparse-palette"
    runtime: ClassVar[str | None] = "coreml"
    sparsity: float = option(0.4, "share of zeros", least=0.01, most=0.99)
    bits: int = option(4, "bits of an index", among=PALETTE_BITS)

    def stored(self, weight: Tensor) -> str:
        must_be_float(self.name, weight)
        return f"sparse{round(self.sparsity * 100)}-pal{self.bits}"


def zeros(name: str, weight: Tensor, sparsity: float) -> str:
    if weight.format.startswith("pal"):
        raise TechniqueError(
            f"{name} on a palettized tensor: %{weight.name} is {weight.format}, a palette stores an index for every weight, zero "
            "or not; prune first and palettize what is left, or use sparse-palette"
        )
    must_be_float(name, weight)
    return f"sparse{round(sparsity * 100)}-f16"


@dataclass(frozen=True, slots=True, kw_only=True)
class MixedPrecision(GraphPass):
    """before:  %x: f32[B, 64] = input, %w: f32[64, 64] = weight
    after:   %x: f16[B, 64] = input, %w: f16[64, 64] = weight
    """

    name: ClassVar[str] = "mixed-precision"
    stage: ClassVar[Stage] = Stage.STRUCTURE
    format: str = option("f16", "the 16-bit format", among=("f16", "bf16"))

    def apply(self, graph: Graph) -> Graph:
        found = {
            t.name: self.format for t in graph.tensors.values() if t.format == "f32" and t.part not in ("norm", "bias")
        }
        if not found:
            raise TechniqueError(f"{self.name}: {graph.name} has no 32-bit tensor; it is in 16 bits already")
        return graph.with_formats(found)


@dataclass(frozen=True, slots=True, kw_only=True)
class IntegerActivations(GraphPass, ABC):
    """Weights in a narrow format and 8-bit activations around every product of an activation and a weight."""

    stage: ClassVar[Stage] = Stage.ACTIVATIONS

    @abstractmethod
    def stored(self, weight: Tensor) -> str:
        """The format of a weight."""

    def apply(self, graph: Graph) -> Graph:
        formats = {}
        for weight in matrices(graph):
            keep = weight.format not in FLOATS and weight.format.startswith(("int8", "int4", "pal", "w8"))
            if not keep:
                must_be_float(self.name, weight)
            formats[weight.name] = weight.format if keep else self.stored(weight)
        for name in around_products(graph):
            if graph.tensors[name].format in FLOATS and name not in graph.outputs:
                formats[name] = "int8"
        return graph.with_formats(formats)


def around_products(graph: Graph) -> frozenset[str]:
    """Activations that become integers: what products with weights read, and what they and plain ops on images write. Softmax,
    norms and products of two activations stay in 16 bits."""
    found: set[str] = set()
    for op in graph.ops:
        weighted = op.kind == "einsum" and any(graph.tensors[n].role == "weight" for n in op.inputs)
        if weighted:
            found.update(n for n in op.inputs if graph.tensors[n].role == "activation")
        if weighted or op.kind in ("elementwise", "pool", "resize"):
            found.update(op.outputs)
    return frozenset(found)


NO_GATHER = "columns are gathered at run time, which the Neural Engine has no op for"


@dataclass(frozen=True, slots=True, kw_only=True)
class W8a8(IntegerActivations):
    """before:  %y: f16[B, 64] = einsum(%x, %w), %w: f16[64, 64]
    after:   %y: int8[B, 64] = einsum(%x, %w), %w: int8-channel[64, 64]
    """

    name: ClassVar[str] = "w8a8"

    def stored(self, weight: Tensor) -> str:
        del weight
        return "int8-channel"


@dataclass(frozen=True, slots=True, kw_only=True)
class W4a8(IntegerActivations):
    """before:  %y: f16[B, 64] = einsum(%x, %w), %w: f16[64, 64]
    after:   %y: int8[B, 64] = einsum(%x, %w), %w: pal4[64, 64]   # a table of int8 entries
    """

    name: ClassVar[str] = "w4a8"

    def stored(self, weight: Tensor) -> str:
        del weight
        return "pal4"
