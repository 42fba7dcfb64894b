"""GPU and CPU models of single operations as array libraries launch them: one op, one synchronised call.

GPU: a product runs in `tile` x `tile` blocks, dealt to the cores in waves, at `product_efficiency` of the FP32 or FP16 peak;
3x3 stride-1 convolutions of many channels use Winograd (`winograd_gain`); everything else streams its bytes. Small calls are
bound by `call_s`, the cost of one synchronised evaluation.

CPU: a product large enough runs on the matrix unit (AMX, SME) at `matrix_efficiency` of its peak, with `half_work` the MACs at
which half of that is reached; otherwise cores stream.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from orchard.cost.lower import KernelArrays
from orchard.cost.terms import Array, Hardware, Terms, overlapped


def gpu_times(k: KernelArrays, hw: Hardware, p: Mapping[str, float], rules: Mapping[str, Any]) -> Terms:
    """Seconds of every kernel row, multiplicity included."""
    tile = float(rules["tile"])
    products = k.mask("linear", "expert")
    per_wave = hw["gpu.cores"] * p["blocks_per_core"]
    blocks = k.batch * np.ceil(np.maximum(k.rows, 1.0) / tile) * np.ceil(np.maximum(k.columns, 1.0) / tile)
    waves = np.maximum(blocks / per_wave, 1.0)
    padded = waves * per_wave * tile * tile * k.depth
    convolution = products & (k.taps > 1.0)
    winograd = convolution & (k.taps == 9.0) & (k.stride == 1.0) & (k.columns >= 32.0) & (k.depth >= 288.0)
    efficiency = np.where(convolution, p["conv_efficiency"], p["product_efficiency"])
    efficiency = efficiency * np.where(winograd, p["winograd_gain"], 1.0) * k.depth / (k.depth + p["half_depth"])
    lanes = hw["gpu.fp32"] / 2.0
    compute = np.where(products & (k.rows > 1.0), padded / (lanes * np.maximum(efficiency, 1e-6)), 0.0)
    compute = compute + np.where(k.mask("attention"), k.macs / (lanes * p["attention_efficiency"]), 0.0)
    compute = compute + np.where(k.mask("vector", "scan"), k.vector_ops * p["element_cycles"] / lanes, 0.0)
    softmax = np.array([kernel.part == "softmax" for kernel in k.kernels])
    stream = hw["dram.bandwidth"] * p["stream_efficiency"] / np.where(softmax, p["softmax_passes"], 1.0)
    return _with_stream(k, compute, stream, p)


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
