"""CPU model of single operations as array libraries launch them.

A product large enough runs on the matrix unit (AMX, SME) at `matrix_efficiency` of its peak, with `half_work` the MACs at which
half of that is reached; otherwise cores stream.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from orchard.cost.lower import KernelArrays
from orchard.cost.terms import Array, Hardware, Terms, overlapped


def cpu_times(k: KernelArrays, hw: Hardware, p: Mapping[str, float], rules: Mapping[str, Any]) -> Terms:
    """Seconds of every kernel row, multiplicity included."""
    del rules
    products = k.mask("linear", "expert", "attention")
    filled = k.macs / (k.macs + p["half_work"])
    narrow = np.minimum(np.maximum(k.columns, 1.0), np.maximum(k.rows, 1.0))
    filled = filled * narrow / (narrow + p["half_side"])
    unit = hw["cpu.matrix.fp32"] / 2.0 * p["matrix_efficiency"]
    unit = unit * np.where(k.taps > 1.0, p["conv_share"], 1.0)
    compute = np.where(products, k.macs / (unit * np.maximum(filled, 1e-6)), 0.0)
    cores = hw["cpu.p.cores"] * hw["cpu.p.clock"]
    compute = compute + np.where(k.mask("vector", "scan"), k.vector_ops * p["element_cycles"] / cores, 0.0)
    return _with_stream(k, compute, hw["cpu.bandwidth"] * p["stream_efficiency"], p)


def _with_stream(k: KernelArrays, compute: Array, stream: Any, p: Mapping[str, float]) -> Terms:
    memory = (k.weight_bytes + k.state_bytes + k.input_bytes + k.output_bytes) / stream
    compute, memory = overlapped(compute, memory, p["overlap_sharpness"])
    return Terms(compute * k.count, memory * k.count, np.zeros_like(memory))
