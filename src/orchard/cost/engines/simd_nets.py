"""CPU model of mobile inference libraries (ncnn, XNNPACK): SIMD kernels of networks on a few threads, operands in FP16 or FP32.

A core does 32 FP16 or 16 FP32 operations per cycle and SIMD pipe pair (`cpu.neon` peaks over cores). Products and convolutions
reach `product_efficiency` of that, 3x3 stride-1 convolutions of many channels `winograd_gain` times more, convolutions per
channel `depthwise_efficiency`. Bytes pass at `stream_bytes_per_cycle` of a thread, at most what the CPU's DRAM gives.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from orchard.cost.engines.cpu import cycles_per_s, fast_clock, worker_threads
from orchard.cost.lower import KernelArrays
from orchard.cost.terms import Hardware, Terms, overlapped

FP16_MACS_PER_CYCLE = 32.0
"""Four 128-bit fused multiply-add pipes of eight FP16 lanes each (hardware.md: 4 FMA pipes on P cores)."""
WINOGRAD_LEAST = 16.0
"""Channels on both sides below which the transforms cost more than they save (own judgement; two SIMD vectors of FP16)."""


def kernel_times(k: KernelArrays, hw: Hardware, p: Mapping[str, float], rules: Mapping[str, Any]) -> Terms:
    """Seconds of every kernel row, multiplicity included. Shapes broadcast to [..., kernels]."""
    threads, clock = worker_threads(hw, rules), fast_clock(hw)
    peak = cycles_per_s(hw, threads, clock) * FP16_MACS_PER_CYCLE
    names, place = k.formats
    peak = peak * np.array([0.5 if n == "f32" else 1.0 for n in names])[place]
    products = k.mask("linear", "expert", "attention")
    depthwise = products & (k.columns <= 1.0) & (k.batch > 1.0)
    channels = k.depth / np.maximum(k.taps, 1.0)
    winograd = (k.taps == 9.0) & (k.stride == 1.0) & (np.minimum(channels, k.columns) >= WINOGRAD_LEAST) & ~depthwise
    rate = p["product_efficiency"] * np.where(winograd, p["winograd_gain"], 1.0)
    rate = np.where(depthwise, p["depthwise_efficiency"], rate)
    compute = np.where(products, k.macs / (peak * rate), 0.0)
    elements = np.where(k.mask("vector", "scan"), k.vector_ops / 2.0, 0.0)
    compute = compute + elements / (peak * p["element_efficiency"])
    moved = k.weight_bytes + k.state_bytes + k.input_bytes + k.output_bytes
    stream = np.minimum(threads * clock * p["stream_bytes_per_cycle"], hw["cpu.bandwidth"])
    compute, memory = overlapped(compute, moved / stream, p["overlap_sharpness"])
    return Terms(compute * k.count, memory * k.count, np.zeros_like(memory))
