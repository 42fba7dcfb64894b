"""Which memory serves the bytes of a kernel: what stays in the engine, what the system-level cache holds, what DRAM serves.

The estimate prices bytes by what a runtime was measured to reach and does not ask where they come from. A simulation of engines
that share a memory has to know. The rules are coarse on purpose and add no time:

* weights and caches come from DRAM;
* activations (inputs and outputs) were just written or will be read at once. On the Neural Engine they stay inside up to its
  operand limit; on any engine they stay in the system-level cache where they take at most half of it; else DRAM serves them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from orchard.cost.lower import KernelArrays
from orchard.cost.terms import Array, Hardware

CACHE_PART = 0.5
"""Part of the system-level cache that the activations of one kernel may take: the other half is for the next kernel's."""


@dataclass(frozen=True, slots=True)
class Traffic:
    """Bytes per kernel row and launch, arrays [kernels]: `total` of the estimate; `port` of them leave the engine; `dram` of
    those miss the cache."""

    total: Array
    port: Array
    dram: Array


def kernel_traffic(k: KernelArrays, hw: Hardware, engine: str) -> Traffic:
    """Traffic of one launch of every kernel row."""
    kept = k.weight_bytes + k.state_bytes
    passing = k.input_bytes + k.output_bytes
    inside = passing <= hw["ane.operand_limit"] if engine == "ane" else np.zeros(len(k), dtype=bool)
    cache = float(hw["slc.size"]) if "slc.size" in hw else 0.0
    in_cache = passing <= CACHE_PART * cache
    port = kept + np.where(inside, 0.0, passing)
    dram = kept + np.where(inside | in_cache, 0.0, passing)
    return Traffic(kept + passing, port, dram)
