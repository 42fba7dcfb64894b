"""Neural Engine model for convolutional and attention networks on images.

The array has `ane.cores` cores of 256 MACs per cycle. A kernel takes

    overlapped(array or element-wise cycles / clock, weights / weight rate + activations / activation rate) + op floor

* Output channels are dealt to cores in turn, so a convolution fills ceil(columns / cores) rounds; a short reduction
  (`half_depth`) leaves the pipeline partly filled. A convolution per channel has no channels to reduce and runs at its own rate
  (`depthwise_macs`, per core and cycle).
* Convolutions of 3x3, stride 1 and many channels run in Winograd form: up to 1.5 times the MAC rate (hardware.md).
* Attention multiplies at `attention_efficiency`, and normalises `scores_per_core_cycle` scores: with heads of 40 to 64 dims the
  scores cost more than the products, so the number of heads shows in the time.
* An operand of up to `ane.operand_limit` stays on chip and moves at `on_chip_bytes` per core and cycle; a larger one is cut
  into blocks that leave the chip at `spill_share` of the rate that the engine draws.

Loading a look-up table of a palette stops the array for `table_s`, as in `ane`.

INT8 weights with INT8 activations (format `int8`) halve every stream, and reach `int8_share` of what the INT8 rate adds from
A17 Pro and M4 on (1.86 to 1.95 times FP16 in deep chains). INT8 weights alone (`int8-channel`) only stream less.

Weights stream in compressed form at `weight_share` of the engine's rate: what one engine draws, 51 to 150 GB/s, whatever the
chip's DRAM gives (hardware.md). Networks of some megabytes stay in the system cache between calls, hence shares above 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from orchard.cost.lower import KernelArrays
from orchard.cost.terms import Hardware, Terms, overlapped

MACS_PER_CORE_CYCLE = 256.0
WINOGRAD_LEAST = 32.0
"""Channels from which the transform of a tile costs less than it saves."""


def kernel_times(k: KernelArrays, hw: Hardware, p: Mapping[str, float], rules: Mapping[str, Any]) -> Terms:
    """Seconds of every kernel row, multiplicity included. Shapes broadcast to [..., kernels]."""
    del rules
    cores = hw["ane.cores"] / hw["ane.engines"]
    cycles_per_s = cores * hw["ane.clock"]
    products = k.mask("linear", "expert")
    depthwise = products & (k.columns <= 1.0) & (k.batch > 1.0)
    dense = products & ~depthwise
    columns = np.maximum(k.columns, 1.0)
    fill = columns / (np.ceil(columns / cores) * cores) * k.depth / (k.depth + p["half_depth"])
    winograd = dense & (k.taps == 9.0) & (k.stride == 1.0) & (k.columns >= WINOGRAD_LEAST) & (k.depth >= 288.0)
    rate = np.where(dense, np.maximum(fill, 1e-3) * p["product_efficiency"], p["attention_efficiency"])
    rate = rate * np.where(winograd, p["winograd_gain"], 1.0) * MACS_PER_CORE_CYCLE
    rate = np.where(depthwise, p["depthwise_macs"], rate)
    integer = _whole_int8(k) | k.integer
    if integer.any():  # a chip whose INT8 rate nobody knows still prices everything else
        rate = rate * np.where(integer, 1.0 + (hw["ane.int8"] / hw["ane.fp16"] - 1.0) * p["int8_share"], 1.0)
    scores = np.where(k.mask("attention"), k.sequences * k.heads * k.tokens * k.context, 0.0)
    compute = np.where(products | k.mask("attention"), k.macs / (cycles_per_s * rate), 0.0)
    compute = compute + k.tables * p["table_s"]
    elements = np.where(k.mask("vector", "scan"), k.vector_ops, 0.0)
    compute = compute + elements / (cycles_per_s * p["elements_per_core_cycle"])
    compute = compute + scores / (cycles_per_s * p["scores_per_core_cycle"])
    moved = k.input_bytes + k.output_bytes
    engine_rate = np.minimum(hw["ane.weight_bandwidth"], hw["dram.bandwidth"])
    spilled = np.maximum(moved - hw["ane.operand_limit"], 0.0)
    memory = moved / (cycles_per_s * p["on_chip_bytes"]) + spilled / (engine_rate * p["spill_share"])
    memory = memory + (k.weight_bytes + k.state_bytes) / (engine_rate * p["weight_share"])
    compute, memory = overlapped(compute, memory, p["overlap_sharpness"])
    ones = np.ones_like(cycles_per_s) if isinstance(cycles_per_s, np.ndarray) else 1.0
    return Terms(compute * k.count, memory * k.count, k.launches * p["op_floor_s"] * ones)


def _whole_int8(k: KernelArrays) -> Any:
    return np.array([kernel.format == "int8" for kernel in k.kernels])
