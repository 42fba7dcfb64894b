"""What an engine runs: ops in order, each with the time, bytes and joules it takes alone at full clock.

A request is one or more stages; a stage runs calls (forward passes) on one engine; a call runs the ops of a program.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from orchard.sim.errors import SimError

PS = 1_000_000_000_000
"""Picoseconds per second."""
PARTS = ("compute", "memory", "dispatch")

Floats = NDArray[np.float64]
Sums = tuple[float, float, float, float, float, float]


@dataclass(frozen=True, eq=False, kw_only=True)
class Program:
    """Ops of one call in order, arrays [ops].

    work_ps      time alone at full clock, whole picoseconds, > 0; an op's compute and transfers overlap inside it
    parts_ps     [3, ops] the same time split by what it is spent on: compute, memory, dispatch; sums to work_ps
    dram_bytes   bytes that DRAM serves; `port_bytes` all bytes through the system-level cache, those of DRAM included
    joules       energy of arithmetic at full voltage; `energy_bytes` the bytes charged at the DRAM coefficient
    labels       name of each op, for traces
    """

    name: str
    work_ps: NDArray[np.int64]
    parts_ps: Floats
    dram_bytes: Floats
    port_bytes: Floats
    joules: Floats
    energy_bytes: Floats
    labels: tuple[str, ...] = field(default=(), repr=False)

    def __len__(self) -> int:
        return len(self.work_ps)

    @cached_property
    def ends_ps(self) -> Floats:
        """End of each op in work time. Whole numbers: below 2^53 ps (2.5 h per call) a float holds them exactly."""
        return np.cumsum(self.work_ps).astype(np.float64)

    @cached_property
    def sums(self) -> tuple[Sums, ...]:
        """[ops + 1] running sums: compute, memory, dispatch (ps), DRAM bytes, joules, charged bytes. The first is zero."""
        rows = np.vstack([self.parts_ps, self.dram_bytes, self.joules, self.energy_bytes])
        whole = np.concatenate([np.zeros((6, 1)), np.cumsum(rows, axis=1)], axis=1)
        return tuple((a, b, c, d, e, f) for a, b, c, d, e, f in whole.T.tolist())

    @property
    def total_ps(self) -> int:
        return int(self.ends_ps[-1])

    def at(self, position_ps: float, op: int) -> Sums:
        """The running sums after `position_ps` of work, which lies in `op` (or at the end for op = len)."""
        if op >= len(self.work_ps):
            return self.sums[-1]
        start = float(self.ends_ps[op - 1]) if op else 0.0
        share = (position_ps - start) / float(self.work_ps[op])
        if share == 0.0:
            return self.sums[op]
        a, b, c, d, e, f = (x + share * (y - x) for x, y in zip(self.sums[op], self.sums[op + 1]))
        return a, b, c, d, e, f


def make_program(
    name: str,
    *,
    compute_s: Sequence[float] | Floats,
    memory_s: Sequence[float] | Floats,
    dispatch_s: Sequence[float] | Floats,
    dram_bytes: Sequence[float] | Floats,
    port_bytes: Sequence[float] | Floats,
    joules: Sequence[float] | Floats,
    energy_bytes: Sequence[float] | Floats | None = None,
    labels: Sequence[str] = (),
) -> Program:
    """A program from seconds per op, arrays [ops]. Ends are rounded, not lengths, so that sums stay within 1 ps.

    Ops that take no time give their bytes and joules to the next one. Raises SimError for negative or endless times.
    """
    parts = np.vstack([np.asarray(x, dtype=np.float64) for x in (compute_s, memory_s, dispatch_s)])
    if not np.all(np.isfinite(parts)) or np.any(parts < 0) or parts.size == 0:
        raise SimError(f"program {name}: times must be finite and >= 0, and there must be one op at least")
    ends = np.rint(np.cumsum(parts.sum(axis=0)) * PS)
    keep = np.diff(np.concatenate([[0.0], ends])) > 0
    if not keep.any():
        raise SimError(f"program {name}: all its ops together take no time")
    keep_at = np.flatnonzero(keep)
    owner = np.minimum(np.searchsorted(keep_at, np.arange(keep.size)), keep_at.size - 1)
    work = np.diff(np.concatenate([[0.0], ends[keep]])).astype(np.int64)
    split = _gathered(parts, owner, keep_at.size)
    energy = dram_bytes if energy_bytes is None else energy_bytes
    rows = _gathered(np.vstack([dram_bytes, port_bytes, joules, energy]), owner, keep_at.size)
    names = tuple(labels[int(i)] for i in keep_at) if labels else ()
    return Program(
        name=name, work_ps=work, parts_ps=split / split.sum(axis=0) * work, dram_bytes=rows[0], port_bytes=rows[1],
        joules=rows[2], energy_bytes=rows[3], labels=names,
    )  # fmt: skip


def _gathered(rows: Floats, owner: NDArray[np.intp], size: int) -> Floats:
    """Sums of columns by their owner column, [rows, size]."""
    return np.vstack([np.bincount(owner, weights=row, minlength=size) for row in np.asarray(rows, dtype=np.float64)])


@dataclass(frozen=True, slots=True)
class Call:
    """`repeats` forward passes of one program. Before each, the host submits for `host_ps`; the engine is free meanwhile."""

    program: Program
    host_ps: int = 0
    repeats: int = 1


@dataclass(frozen=True, slots=True)
class Stage:
    """Calls on one engine, named as the machine names it."""

    engine: str
    calls: tuple[Call, ...]


@dataclass(frozen=True, slots=True)
class Workload:
    """What one request runs: stages one after the other. `first_calls`: passes until the first output (a prompt), 0 without."""

    stages: tuple[Stage, ...]
    first_calls: int = 0

    @property
    def total_ps(self) -> int:
        """Time of one request alone at full clock."""
        return sum(c.repeats * (c.host_ps + c.program.total_ps) for s in self.stages for c in s.calls)

    @property
    def ops(self) -> int:
        return sum(c.repeats * len(c.program) for s in self.stages for c in s.calls)
