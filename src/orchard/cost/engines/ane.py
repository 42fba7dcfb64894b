"""Neural Engine model for transformer graphs: weights streamed at the engine's own rate, products at a shape-dependent rate.

The engine reaches a small part of the chip's DRAM bandwidth for weights (51 to 150 GB/s) and about 24 GB/s for activations
that leave the chip; it runs one command at a time, and each call costs a floor. A kernel takes

    overlapped(ops / (FP16 peak x efficiency), weight bytes / weight rate + spilled bytes / activation rate) + op floor

Efficiency falls with the number of rows that fill the array: one position uses the MAC array as a matrix-vector unit and is
bound by weights; many positions approach `product_efficiency`; products of 8-bit operands run at the INT8 rate. Compressed
weights stream compressed. Loading a look-up table stops the array for `table_s` while the stream goes on: few tables
are free where the stream bounds a kernel, many set its time, and where the array bounds it they add.
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
    del rules
    peak = hw["ane.fp16"] / hw["ane.engines"] / 2.0
    products = k.mask("linear", "expert")
    attention = k.mask("attention")
    fill = k.rows / (k.rows + p["half_rows"])
    rate = np.where(products, np.maximum(fill, 1e-3) * p["product_efficiency"], p["attention_efficiency"])
    if k.integer.any():  # a chip whose INT8 rate nobody knows still prices everything else
        rate = rate * np.where(k.integer, hw["ane.int8"] / hw["ane.fp16"], 1.0)
    compute = np.where(products | attention, k.macs / (peak * rate), 0.0)
    compute = compute + k.tables * p["table_s"]
    elements = np.where(k.mask("vector", "scan"), k.vector_ops, 0.0)
    compute = compute + elements / (
        hw["ane.cores"] / hw["ane.engines"] * hw["ane.clock"] * p["elements_per_core_cycle"]
    )
    weights = weight_stream(hw, p) * per_format(k, p, "unpack")
    moved = k.input_bytes + k.output_bytes
    spilled = np.maximum(moved - hw["ane.operand_limit"], 0.0)
    memory = k.weight_bytes / weights + spilled / hw["ane.activation_bandwidth"]
    memory = memory + k.state_bytes / (hw["ane.activation_bandwidth"] * p["state_efficiency"])
    compute, memory = overlapped(compute, memory, p["overlap_sharpness"])
    return Terms(
        compute * k.count, memory * k.count, k.launches * p["op_floor_s"] * np.ones_like(weights[..., :1] * 1.0)
    )


def weight_stream(hw: Hardware, p: Mapping[str, float]) -> Any:
    """Bytes per second of uncompressed weights: the rate read on the chip, never more than its DRAM gives."""
    return np.minimum(hw["ane.weight_bandwidth"], hw["dram.bandwidth"]) * p["weight_efficiency"]
