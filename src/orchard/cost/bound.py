"""The physical bound: no runtime on this engine can be faster.

A phase does all its operations at the engine's highest rate for its formats, and moves every compulsory byte once at the
DRAM peak; both may overlap perfectly, across ops too. Weights are read once per call unless the last-level cache can hold
them; masked attention counts only unmasked pairs; activations may stay on chip.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from orchard.cost.evaluate import Call
from orchard.cost.lower import KernelArrays, KernelTable
from orchard.cost.terms import Array, Hardware


def phase_bound(table: KernelTable, calls: Sequence[Call], hw: Hardware, engine: str, cache_bytes: Any) -> Array:
    """Seconds [...] below which no run of the phase can be. `cache_bytes`: last-level cache that may keep weights."""
    compute, memory = phase_bound_terms(table, calls, hw, engine, cache_bytes)
    return compute + memory


def phase_bound_terms(
    table: KernelTable, calls: Sequence[Call], hw: Hardware, engine: str, cache_bytes: Any
) -> tuple[Array, Array]:
    """The bound split by what binds each call: (seconds of calls bound by compute, seconds of those bound by memory)."""
    compute: Any = 0.0
    memory: Any = 0.0
    for call in calls:
        counts = table.evaluate(call.bindings)
        ops_s = least_ops(counts, engine) / peak_ops_per_s(counts, hw, engine)
        bytes_s = np.maximum(compulsory_bytes(counts) - cache_bytes, 0.0) / hw["dram.bandwidth"]
        binds = ops_s >= bytes_s
        compute = compute + call.weight * np.where(binds, ops_s, 0.0)
        memory = memory + call.weight * np.where(binds, 0.0, bytes_s)
    return np.asarray(compute, dtype=np.float64), np.asarray(memory, dtype=np.float64)


def all_ops(counts: KernelArrays) -> float:
    """Operations of one call, softmax and epilogues included; a MAC is two."""
    return float(((2.0 * counts.macs + counts.vector_ops) * counts.count).sum())


def call_ops(counts: KernelArrays) -> float:
    """Operations of one call that a bound may count: what a product kernel does besides may run on other units."""
    return float(
        ((2.0 * counts.macs + np.where(counts.mask("vector", "scan"), counts.vector_ops, 0.0)) * counts.count).sum()
    )


WINOGRAD = {"ane": 2.25, "gpu": 324.0 / 64.0, "cpu": 324.0 / 64.0}
"""Multiplications that Winograd's form saves at most in a 3x3 convolution of stride 1 [Lavin 2016]: F(2x2, 3x3) in the Neural
Engine's hardware (fitted gains reach 1.7), F(6x6, 3x3) in software, which MLX runs. A bound has to allow for them."""


def least_ops(counts: KernelArrays, engine: str) -> float:
    """Operations of one call in the form that needs fewest on this engine."""
    saved = np.where((counts.taps == 9.0) & (counts.stride == 1.0), 1.0 - 1.0 / WINOGRAD[engine], 0.0)
    return call_ops(counts) - float((2.0 * counts.macs * saved * counts.count).sum())


def compulsory_bytes(counts: KernelArrays) -> float:
    """Weights and state of one call, each once. Activations can stay on chip, so they are not compulsory."""
    return float(((counts.weight_bytes + counts.state_bytes) * counts.count).sum())


def dram_bytes(counts: KernelArrays) -> float:
    """Bytes of one call when nothing stays on chip between kernels."""
    moved = counts.weight_bytes + counts.state_bytes + counts.input_bytes + counts.output_bytes
    return float((moved * counts.count).sum())


def peak_ops_per_s(counts: KernelArrays, hw: Hardware, engine: str) -> Any:
    """The highest rate the engine offers for these weights: INT8 units may serve weights of 8 bits or fewer."""
    formats = {k.format for k in counts.kernels if k.kind in ("linear", "expert")}
    low = any(f not in ("", "f32", "f16", "bf16") for f in formats)
    if engine == "gpu":
        rate = np.maximum(np.maximum(hw["gpu.fp16"], hw["gpu.fp32"]), hw["gpu.matrix.fp16"])
        return np.maximum(rate, hw["gpu.matrix.int8"]) if low else rate
    if engine == "ane":
        return np.maximum(hw["ane.fp16"], hw["ane.int8"]) if low else hw["ane.fp16"]
    simd = hw["cpu.neon.int8"] if low else hw["cpu.neon.fp16"]
    matrix = hw["cpu.matrix.int8"] if low and "cpu.matrix.int8" in hw else hw["cpu.matrix.fp16"]
    return simd * (2.0 if low else 1.0) + matrix  # i8mm doubles the INT8 dot-product rate from M2 on
