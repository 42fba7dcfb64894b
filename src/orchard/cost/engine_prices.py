"""What every single launch of a phase costs on one engine: the phase's time, taken apart without a remainder.

`phase_time` prices equal kernels together. Engine models are linear in how many there are (`count`) and in their share of waits
(`launches`), so one launch takes its part of the merged row; the sum over launches plus `call_s` is the phase's time again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from orchard.cost.energy import energy_j
from orchard.cost.evaluate import Call, call_seconds, phase_time
from orchard.cost.lower import Kernel, KernelTable
from orchard.cost.profile import Profile
from orchard.cost.terms import Hardware

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class EnginePrices:
    """A phase on one engine, per launch [launches], all calls of the phase included.

    compute_s, memory_s, dispatch_s   seconds; their sum is the launch's time
    ops, dram_bytes, joules           of the launch
    call_s, call_j                    what the phase costs besides its launches, once the engine is used at all
    """

    engine: str
    profile: Profile
    launches: tuple[Kernel, ...]
    compute_s: Floats
    memory_s: Floats
    dispatch_s: Floats
    ops: Floats
    dram_bytes: Floats
    joules: Floats
    call_s: float
    call_j: float

    @property
    def seconds(self) -> Floats:
        return self.compute_s + self.memory_s + self.dispatch_s


def price_launches(
    launches: Sequence[Kernel],
    table: KernelTable,
    calls: Sequence[Call],
    hw: Hardware,
    profile: Profile,
    low_bits: bool,
) -> EnginePrices:
    """Prices of `launches`, whose merged form is `table`. `low_bits`: products multiply 8-bit operands (energy)."""
    time = phase_time(table, calls, hw, profile, profile.values())
    row_of = {kernel.merged_key(): i for i, kernel in enumerate(table.kernels)}
    row = np.array([row_of[k.merged_key()] for k in launches], dtype=np.int64)
    count = np.array([float(k.count) for k in table.kernels])[row]
    waits = np.array([float(k.launches) for k in table.kernels])[row]
    mine = np.array([float(k.launches) for k in launches])
    ops, moved = _counts(table, calls)
    compute, memory = time.kernels.compute[row] / count, time.kernels.memory[row] / count
    dispatch = time.kernels.dispatch[row] * mine / np.maximum(waits, 1e-300)
    seconds = compute + memory + dispatch
    call_s = float(call_seconds(hw, profile.values())) * sum(call.weight for call in calls)

    def joules(ops: Floats | float, moved: Floats | float, seconds: Floats | float) -> Floats:
        found = energy_j(profile.engine, ops=ops, dram_bytes=moved, seconds=seconds, hw=hw, low_bits=low_bits)
        return np.asarray(found, dtype=np.float64)

    return EnginePrices(
        engine=profile.engine, profile=profile, launches=tuple(launches),
        compute_s=compute, memory_s=memory, dispatch_s=dispatch, ops=ops[row], dram_bytes=moved[row],
        joules=joules(ops[row], moved[row], seconds), call_s=call_s, call_j=float(joules(0.0, 0.0, call_s)),
    )  # fmt: skip


def _counts(table: KernelTable, calls: Sequence[Call]) -> tuple[Floats, Floats]:
    """(operations, bytes) of one launch of each row over all calls of the phase."""
    ops = np.zeros(len(table.kernels))
    moved = np.zeros(len(table.kernels))
    for call in calls:
        c = table.evaluate(call.bindings)
        ops += call.weight * (2.0 * c.macs + c.vector_ops)
        moved += call.weight * (c.weight_bytes + c.state_bytes + c.input_bytes + c.output_bytes)
    return ops, moved
