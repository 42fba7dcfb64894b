"""One Einsum with numbers: what a mapping maps. Tensors have names, roles (`I`, `W`, `O`) and widths in bits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from orchard.ir import Einsum
from orchard.ir.einsum import Access
from orchard.mapping.errors import MappingError


@dataclass(frozen=True)
class Problem:
    """An Einsum, the size of every dim, and names for its operands (inputs in order, then the output)."""

    name: str
    einsum: Einsum
    sizes: Mapping[str, int]
    tensors: tuple[str, ...]
    bits: Mapping[str, float] = field(default_factory=dict)  # per tensor; the architecture's word where absent
    resident: frozenset[str] = frozenset()  # tensors that come from, or stay in, memory on the chip: see `pays_root`

    def __post_init__(self) -> None:
        for dim in self.einsum.dims:
            size = self.sizes.get(dim)
            if size is None:
                raise MappingError(f"{self.name}: dim {dim!r} has no size, expected e.g. {dim}=64")
            if not 1 <= size <= 2**40:
                raise MappingError(f"{self.name}: dim {dim!r} is {size}, expected 1 to 2^40")
        for dim in self.sizes:
            if dim not in self.einsum.dims:
                raise MappingError(f"{self.name}: size given for {dim!r}, which is no dim of {self.einsum}")
        if len(self.tensors) != len(self.einsum.inputs) + 1 or len(set(self.tensors)) != len(self.tensors):
            raise MappingError(f"{self.name}: tensors are {self.tensors}, expected {len(self.einsum.inputs) + 1} names")
        for tensor in self.tensors:
            dims = [dim for axis in self.access(tensor) for dim in axis.dims]
            if len(dims) != len(set(dims)):
                raise MappingError(f"{self.name}: a dim stands twice in {tensor}, which the mapper does not support")

    @property
    def output(self) -> str:
        return self.tensors[-1]

    @property
    def inputs(self) -> tuple[str, ...]:
        return self.tensors[:-1]

    @cached_property
    def dims(self) -> tuple[str, ...]:
        return self.einsum.dims

    def access(self, tensor: str) -> Access:
        index = self.tensors.index(tensor)
        return self.einsum.output if index == len(self.tensors) - 1 else self.einsum.inputs[index]

    def dims_of(self, tensor: str) -> frozenset[str]:
        return self._dims_of[tensor]

    @cached_property
    def _dims_of(self) -> dict[str, frozenset[str]]:
        return {t: frozenset(dim for axis in self.access(t) for dim in axis.dims) for t in self.tensors}

    def role(self, tensor: str) -> str:
        """`I`, `W`, `I3`, … for inputs by position, `O` for the output."""
        index = self.tensors.index(tensor)
        if index == len(self.tensors) - 1:
            return "O"
        return ("I", "W")[index] if index < 2 else f"I{index + 1}"

    def tensor_of(self, name_or_role: str) -> str:
        for tensor in self.tensors:
            if name_or_role in (tensor, self.role(tensor)):
                return tensor
        raise MappingError(f"{self.name}: no tensor {name_or_role!r}, known: {', '.join(self.tensors)}")

    def dim_class(self, dim: str) -> str:
        """`rows` (in I and O), `columns` (in W and O), `reduction` (not in O), `batch` (in all)."""
        if dim not in self.dims_of(self.output):
            return "reduction"
        in_first = dim in self.dims_of(self.tensors[0])
        in_second = len(self.inputs) > 1 and dim in self.dims_of(self.tensors[1])
        return "batch" if in_first and in_second else "columns" if in_second else "rows"

    def pays_root(self, tensor: str) -> bool:
        """Whether words of `tensor` cross the outermost memory's port. Those of a resident tensor do not: a producer left it
        on the chip, or a consumer finds it there."""
        return tensor not in self.resident

    @property
    def macs(self) -> int:
        total = 1
        for dim in self.dims:
            total *= self.sizes[dim]
        return total

    def words(self, tensor: str, word_bits: int) -> float:
        """Words per element: 1 unless the tensor's width differs from the machine word."""
        return self.bits.get(tensor, word_bits) / word_bits
