"""Engines as data: a tree of memories, fan-outs and compute leaves, from DRAM down to the arithmetic.

    dram (bytes, bytes/s, J/byte)
    └── l2
        └── cores x 40
            ├── threadgroup
            │   └── shader: f32, f16 ops/s
            └── matrix unit: f16, int8 ops/s

CPU, GPU, ANE and somebody's own accelerator are all such trees, so a mapper walks one structure.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from orchard.hw.errors import HardwareError
from orchard.units import did_you_mean


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """One storage level as one instance sees it. None = not known; a mapper must not assume a value.

    read_bytes_per_s, write_bytes_per_s   peak of this instance; write None = as read
    energy_j_per_byte                     per byte read from or written to it
    holds                                 operands it is for: I first input, W second input, O output; empty = all
    """

    name: str
    size_bytes: float | None
    read_bytes_per_s: float | None = None
    write_bytes_per_s: float | None = None
    energy_j_per_byte: float | None = None
    holds: frozenset[str] = frozenset()
    children: tuple[Node, ...] = ()

    def __post_init__(self) -> None:
        for label, value in (("size_bytes", self.size_bytes), ("read_bytes_per_s", self.read_bytes_per_s)):
            if value is not None and not value > 0:
                raise HardwareError(f"memory {self.name!r}: {label} is {value}, expected > 0")


@dataclass(frozen=True, slots=True, kw_only=True)
class Fanout:
    """`count` equal copies of everything below: cores, clusters, engines.

    multicast   one read above serves all copies that want the same word; else each copy reads for itself
    reduce      sums of copies meet on the way up; else each copy writes its own
    """

    name: str
    count: int
    multicast: bool = False
    reduce: bool = False
    children: tuple[Node, ...] = ()

    def __post_init__(self) -> None:
        if self.count < 1:
            raise HardwareError(f"fan-out {self.name!r}: count is {self.count}, expected >= 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class Compute:
    """One arithmetic unit of one instance.

    ops_per_s      peak by dtype; a dtype that is absent is not supported
    ops            kinds of ops it runs; empty = any
    align_bytes    the last axis is padded to this
    max_dim        largest size of any axis, None = no limit
    min_tile       smallest tile side at which the peak is reached
    energy_j_per_op   None = not known
    """

    name: str
    ops_per_s: Mapping[str, float]
    ops: frozenset[str] = frozenset()
    align_bytes: int = 1
    max_dim: int | None = None
    min_tile: int = 1
    energy_j_per_op: float | None = None

    def __post_init__(self) -> None:
        for dtype, rate in self.ops_per_s.items():
            if not rate > 0:
                raise HardwareError(f"compute {self.name!r}: {dtype} rate is {rate}, expected > 0")


Node = Memory | Fanout | Compute


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """What software hands work to. `root` is the memory all engines share; `clock_hz` is that of its arithmetic, if known."""

    name: str
    root: Memory
    dispatch_s: float = 0.0
    clock_hz: float | None = None
    dtypes: frozenset[str] = field(default=frozenset())

    def __post_init__(self) -> None:
        leaves = list(self.leaves())
        if not leaves:
            raise HardwareError(f"engine {self.name!r}: the tree has no compute leaf")
        object.__setattr__(self, "dtypes", frozenset(d for leaf, _ in leaves for d in leaf.ops_per_s))

    def leaves(self) -> Iterator[tuple[Compute, int]]:
        """Compute leaves with the number of their instances, in tree order."""
        yield from _leaves(self.root, 1)

    def memories(self) -> Iterator[tuple[Memory, int]]:
        """Memories with the number of their instances, outermost first."""
        yield from _memories(self.root, 1)

    def memory(self, name: str) -> Memory:
        """Raises HardwareError for a name that is not in the tree."""
        found = {m.name: m for m, _ in self.memories()}
        if name not in found:
            raise HardwareError(f"engine {self.name}: no memory {name!r}; it has {', '.join(found)}")
        return found[name]

    def peak(self, dtype: str) -> float:
        """Most ops/s in `dtype`: units of one name add up, units of different names are alternatives.

        Raises HardwareError when no unit computes in `dtype`.
        """
        totals: dict[str, float] = {}
        for leaf, count in self.leaves():
            if dtype in leaf.ops_per_s:
                totals[leaf.name] = totals.get(leaf.name, 0.0) + count * leaf.ops_per_s[dtype]
        if not totals:
            hint = did_you_mean(dtype, self.dtypes)
            known = ", ".join(sorted(self.dtypes))
            raise HardwareError(f"engine {self.name} does not compute in {dtype!r}, it has {known}{hint}")
        return max(totals.values())


def peak(engine: Engine, dtype: str) -> float:
    """`engine.peak(dtype)`."""
    return engine.peak(dtype)


def _leaves(node: Node, count: int) -> Iterator[tuple[Compute, int]]:
    if isinstance(node, Compute):
        yield node, count
        return
    below = count * node.count if isinstance(node, Fanout) else count
    for child in node.children:
        yield from _leaves(child, below)


def _memories(node: Node, count: int) -> Iterator[tuple[Memory, int]]:
    if isinstance(node, Compute):
        return
    if isinstance(node, Memory):
        yield node, count
    below = count * node.count if isinstance(node, Fanout) else count
    for child in node.children:
        yield from _memories(child, below)
