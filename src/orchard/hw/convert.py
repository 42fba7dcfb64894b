"""From an engine of the catalogue, or of a chip file, to the architecture that the mapper reads: one description, two views.

An engine is a tree in SI units; an architecture is one path of it, from the shared memory to one kind of arithmetic unit, in
words and cycles. What is kept and what is not:

* The path ends at the units with the highest rate in the wanted number format. Units of the same name on other branches
  (efficiency cores) are taken in by their rate: work can be dealt out in proportion.
* An instance's arithmetic unit is one lane of the path with the rate of the whole unit: which MAC of a core does what is not
  part of the mapping space, since the catalogue does not know it.
* A level that is smaller than what stands inside it (a system-level cache under a larger L2) cannot hold that level's tiles
  and is left out. A size that is not known leaves its level out too.
* A bandwidth that is not known is no limit. Energy per MAC comes from outside and covers all movement inside the engine, so
  levels without a figure of their own cost nothing but `TIE_PJ`, which decides between mappings that are equal otherwise.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from orchard.hw import arch as target
from orchard.hw.arch import Architecture, FanOut, Level
from orchard.hw.engines import Compute, Engine, Fanout, Memory, Node
from orchard.hw.errors import HardwareError

TIE_PJ = 1e-6
"""pJ per word at levels without a figure: no quantity, a rule for ties (fewer words inside the engine)."""
DTYPES = {32: ("f32", "f16"), 16: ("f16", "bf16", "f32"), 8: ("int8", "f16", "bf16", "f32")}
"""Formats whose units can multiply operands of this width, best first; the ANE has none of 32 bits and rounds."""


@dataclass(frozen=True, slots=True)
class Machine:
    """An architecture made from an engine, and sentences about what was left out or not known."""

    arch: Architecture
    notes: tuple[str, ...]


def machine_of(engine: Engine, *, name: str, bits: int = 16, joule_per_mac: float = 0.0) -> Machine:
    """The path of `engine` that multiplies operands of `bits` (8, 16 or 32) fastest, as an architecture of that word size.

    `joule_per_mac` is the energy of a MAC with everything inside the engine. Raises HardwareError when nothing computes.
    """
    dtype = next((d for d in DTYPES[bits] if d in engine.dtypes), None)
    if dtype is None:
        raise HardwareError(f"engine {engine.name} computes in {', '.join(sorted(engine.dtypes))}, not in {bits} bits")
    path = _fastest(engine, dtype)
    leaf = path[-1]
    assert isinstance(leaf, Compute)
    clock = engine.clock_hz or 1e9
    copies = 1
    for node in path:
        copies *= node.count if isinstance(node, Fanout) else 1
    rate = leaf.ops_per_s[dtype] / 2 / clock * (engine.peak(dtype) / (copies * leaf.ops_per_s[dtype]))
    nodes, notes = _nodes(path, bits, clock)
    compute = target.Compute(name=leaf.name, energy_pj=joule_per_mac * 1e12, macs_per_cycle=rate)
    return Machine(Architecture(name=name, nodes=nodes, compute=compute, word_bits=bits, clock_hz=clock), notes)


def _paths(node: Node, above: tuple[Node, ...]) -> Iterator[tuple[Node, ...]]:
    here = (*above, node)
    if isinstance(node, Compute):
        yield here
        return
    for child in node.children:
        yield from _paths(child, here)


def _fastest(engine: Engine, dtype: str) -> tuple[Node, ...]:
    """Of the units with the highest total rate, the branch that has most of it."""
    totals: dict[str, float] = {}
    found: list[tuple[float, tuple[Node, ...]]] = []
    for path in _paths(engine.root, ()):
        leaf = path[-1]
        if isinstance(leaf, Compute) and dtype in leaf.ops_per_s:
            rate = leaf.ops_per_s[dtype]
            for node in path:
                rate *= node.count if isinstance(node, Fanout) else 1
            totals[leaf.name] = totals.get(leaf.name, 0.0) + rate
            found.append((rate, path))
    best = max(totals, key=lambda name: totals[name])
    return max((f for f in found if f[1][-1].name == best), key=lambda f: f[0])[1]


def _nodes(path: tuple[Node, ...], bits: int, clock_hz: float) -> tuple[tuple[Level | FanOut, ...], tuple[str, ...]]:
    nodes: list[Level | FanOut] = []
    notes: list[str] = []
    unlimited: list[str] = []
    for position, node in enumerate(path[:-1]):
        if isinstance(node, Fanout):
            if node.count > 1:
                nodes.append(
                    FanOut(
                        name=node.name,
                        axes={node.name: node.count},
                        multicast=node.multicast,
                        reduce=node.reduce,
                    )
                )
        elif isinstance(node, Memory):
            reason = None if position == 0 else _left_out(node, path[position + 1 :])
            if reason:
                notes.append(f"{node.name} is left out: {reason}")
                continue
            nodes.append(_level(node, bits, clock_hz, is_root=position == 0))
            if node.read_bytes_per_s is None:
                unlimited.append(node.name)
    if unlimited:
        notes.append(f"bandwidth not known, taken as no limit: {', '.join(unlimited)}")
    return tuple(nodes), tuple(notes)


def _left_out(memory: Memory, inside: tuple[Node, ...]) -> str | None:
    if memory.size_bytes is None:
        return "its size is not known"
    for node in inside:
        rivals = isinstance(node, Memory) and not node.holds and not memory.holds
        if rivals and isinstance(node, Memory) and (node.size_bytes or 0) > memory.size_bytes:
            return f"{node.name} inside it is larger"
    return None


def _level(memory: Memory, bits: int, clock_hz: float, *, is_root: bool) -> Level:
    def per_cycle(rate: float | None) -> float | None:
        return None if rate is None else rate * 8 / bits / clock_hz

    energy = TIE_PJ if memory.energy_j_per_byte is None else memory.energy_j_per_byte * 1e12 * bits / 8
    separate = memory.write_bytes_per_s is not None
    return Level(
        name=memory.name,
        capacity_words=None if is_root else int((memory.size_bytes or 0) * 8 // bits),
        read_energy_pj=energy,
        write_energy_pj=energy,
        bandwidth=None if separate else per_cycle(memory.read_bytes_per_s),
        read_bandwidth=per_cycle(memory.read_bytes_per_s) if separate else None,
        write_bandwidth=per_cycle(memory.write_bytes_per_s),
        keep=frozenset(memory.holds) if memory.holds else None,
    )
