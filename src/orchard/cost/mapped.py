"""From the counts of a nest to time and energy: one pure array function, and the breakdown a person reads.

energy   = sum over level, tensor of words read x read energy + words written x write energy, + MACs x MAC energy
latency  = max(MAC steps / rate, busiest copy's words / bandwidth of every level that overlaps with compute)
           + words / bandwidth of every level that does not (`buffering: single`)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from orchard.cost.nest import Counts
from orchard.hw.arch import Architecture, Level
from orchard.mapping.nest import refuse
from orchard.mapping.problem import Problem

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Estimate:
    """Energy by term (level, or MAC), cycles by resource, and what binds."""

    energy_terms_pj: Mapping[str, float]
    cycles_by: Mapping[str, float]
    latency_cycles: float
    bound_by: str

    @property
    def energy_pj(self) -> float:
        return sum(self.energy_terms_pj.values())

    @property
    def edp(self) -> float:
        return self.energy_pj * self.latency_cycles


def level_cycles(level: Level, reads: Array | float, writes: Array | float) -> Array:
    """Cycles that one copy of `level` needs for these words; shared and separate port limits all hold."""
    cycles = np.zeros(np.broadcast(reads, writes).shape)
    if level.bandwidth is not None:
        cycles = np.maximum(cycles, (np.asarray(reads) + np.asarray(writes)) / level.bandwidth)
    if level.read_bandwidth is not None:
        cycles = np.maximum(cycles, np.asarray(reads) / level.read_bandwidth)
    if level.write_bandwidth is not None:
        cycles = np.maximum(cycles, np.asarray(writes) / level.write_bandwidth)
    return cycles


def latency(compute: Array, overlapped: Array, serial: Array) -> Array:
    """Cycles, from MAC cycles and per-level cycles along the last axis. Broadcasts over leading axes."""
    total: Array = np.maximum(compute, overlapped.max(axis=-1, initial=0.0)) + serial.sum(axis=-1)
    return total


def estimate(counts: Counts, problem: Problem, arch: Architecture) -> Estimate:
    """Time and energy of a nest's counts on `arch`."""
    bits = max(problem.bits.get(t, arch.word_bits) for t in problem.inputs)
    terms: dict[str, float] = {arch.compute.name: counts.macs * arch.compute.energy(bits)}
    cycles: dict[str, float] = {arch.compute.name: counts.steps / arch.compute.rate(bits)}
    serial = 0.0
    for level in arch.levels:
        reads = writes = energy = 0.0
        for tensor in problem.tensors:
            traffic = counts.traffic.get((level.name, tensor))
            if traffic is None or (level is arch.levels[0] and not problem.pays_root(tensor)):
                continue
            words = problem.words(tensor, arch.word_bits)
            energy += words * (traffic.reads * level.read_energy_pj + traffic.writes * level.write_energy_pj)
            reads += words * traffic.copy_reads
            writes += words * traffic.copy_writes
        terms[level.name] = energy
        cycles[level.name] = float(level_cycles(level, reads, writes))
        if level.buffering == "single":
            serial += cycles[level.name]
    overlapped = {n: c for n, c in cycles.items() if n == arch.compute.name or arch.level(n).buffering != "single"}
    bound_by = max(overlapped, key=lambda name: overlapped[name])
    total = overlapped[bound_by] + serial
    for level in arch.levels:
        if level.buffering == "single" and cycles[level.name] > cycles[bound_by]:
            bound_by = level.name
    return Estimate(terms, cycles, total, bound_by)


def check_capacity(counts: Counts, problem: Problem, arch: Architecture) -> None:
    """Raise ImpossibleSpace for the first level whose tiles do not fit: level, need, capacity, remedy."""
    for level in arch.levels:
        if level.capacity_words is None:
            continue
        held = {t: counts.footprint[level.name, t] * problem.words(t, arch.word_bits)
                for t in problem.tensors if (level.name, t) in counts.footprint}  # fmt: skip
        if level.is_partitioned:
            for tensor, need in held.items():
                have = level.words_for(problem.role(tensor)) or 0
                if need > have:
                    raise refuse(f"{problem.name} on {level.name}", need, have, f"Make the tile of {tensor} smaller.")
        elif held:
            have = level.words_for("I") or 0
            if sum(held.values()) > have:
                largest = max(held, key=lambda t: held[t])
                raise refuse(
                    f"{problem.name} on {level.name}", sum(held.values()), have, f"Make the tile of {largest} smaller."
                )
