"""CPU engine model: cores with SIMD units that share memory bandwidth, and a barrier after every kernel.

The unit of arithmetic is the *core cycle* of a fast core. Threads take the fast cores first, then efficiency cores, which
count by their SIMD rate; a kernel takes

    overlapped(core cycles / (cycles per second of the threads), bytes / min(threads x core stream, cluster stream)) + barrier

One row: each weight costs `vector_cycles.<format>` (unpack, dot product with 8-bit activations). Many rows: each MAC costs
`gemm_cycles.<format>`. Runtimes that hand large products to the matrix units (Accelerate, AMX / SME) reach
`matrix_efficiency` of their peak instead, whichever is faster.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from orchard.cost.engines.formats import per_format
from orchard.cost.lower import KernelArrays
from orchard.cost.terms import Hardware, Terms, overlapped


def kernel_times(k: KernelArrays, hw: Hardware, p: Mapping[str, float], rules: Mapping[str, Any]) -> Terms:
    """Seconds of every kernel row, multiplicity included. Shapes broadcast to [..., kernels]."""
    threads, clock = worker_threads(hw, rules), fast_clock(hw)
    speed = cycles_per_s(hw, threads, clock)
    stream = np.minimum(
        threads * p["core_stream_bytes_per_cycle"] * clock, hw["cpu.bandwidth"] * p["stream_efficiency"]
    )
    weights = k.mask("linear", "expert")
    per_use = per_format(k, p, "vector_cycles")
    per_mac = per_format(k, p, "gemm_cycles")
    rows = np.maximum(k.rows, 1.0)
    each = np.where(weights, np.minimum(per_use * rows, per_use + per_mac * rows), 0.0)
    elements = np.where(weights, k.macs / rows, 0.0)
    routed = np.where(k.mask("expert") & (rows > 1.0), 1.0 / p["expert_factor"], 1.0)
    cycles = elements * each * routed
    cycles = cycles + np.where(k.mask("attention"), k.macs * p["attention_cycles"], 0.0)
    cycles = cycles + np.where(k.mask("scan"), k.vector_ops * p["scan_cycles"], 0.0)
    cycles = cycles + np.where(k.mask("vector"), k.vector_ops * p["element_cycles"], 0.0)
    compute = cycles / speed
    if rules.get("matrix_units"):
        unit = hw["cpu.matrix.fp32"] / 2.0 * p["matrix_efficiency"]
        large = weights & (k.rows >= float(rules["matrix_from_rows"]))
        unpack = elements * p["matrix_unpack_cycles"] / speed
        compute = np.where(large, np.minimum(compute, k.macs / unit + unpack), compute)
    memory = (k.weight_bytes + k.state_bytes + k.input_bytes + k.output_bytes) / stream
    compute, memory = overlapped(compute, memory, p["overlap_sharpness"])
    ones = np.ones_like(stream) if isinstance(stream, np.ndarray) else 1.0
    return Terms(compute * k.count, memory * k.count, k.launches * p["barrier_s"] * ones)


def worker_threads(hw: Hardware, rules: Mapping[str, Any]) -> Any:
    """Threads that make progress: one per core of the fast tiers by default, never more than the chip has cores."""
    fast = hw["cpu.s.cores"] + hw["cpu.p.cores"]
    wanted = rules.get("threads")
    return np.minimum(float(wanted), fast + hw["cpu.e.cores"]) if wanted else fast


def cycles_per_s(hw: Hardware, threads: Any, clock: Any) -> Any:
    """Fast-core cycles per second of `threads` threads: the fast cores first, then efficiency cores, each worth its share of a
    fast core's SIMD rate (half the pipes at a lower clock)."""
    fast = hw["cpu.s.cores"] + hw["cpu.p.cores"]
    cores = np.asarray(hw["cpu.e.cores"], dtype=np.float64)
    if not np.any(cores > 0) or not np.any(np.asarray(threads) > np.asarray(fast)):
        return threads * clock
    per_fast_core = (hw["cpu.neon.fp32"] - cores * np.nan_to_num(hw["cpu.e.neon_fp32"])) / fast
    worth = np.where(cores > 0, np.nan_to_num(hw["cpu.e.neon_fp32"]) / per_fast_core, 0.0)
    return (np.minimum(threads, fast) + np.maximum(threads - fast, 0.0) * worth) * clock


def fast_clock(hw: Hardware) -> Any:
    """Clock of the fast cores: the tiers' clocks weighted by their cores."""
    cycles: Any = 0.0
    cores: Any = 0.0
    for tier in ("s", "p"):
        count = np.asarray(hw[f"cpu.{tier}.cores"], dtype=np.float64)
        if np.any(count > 0):  # a tier the chip lacks has no clock
            cycles = cycles + np.where(count > 0, count * np.nan_to_num(hw[f"cpu.{tier}.clock"]), 0.0)
            cores = cores + count
    return cycles / cores
