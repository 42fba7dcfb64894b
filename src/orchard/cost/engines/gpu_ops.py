"""GPU model of array libraries: matrix products, convolutions, attention and streams as MLX and MPS launch them.

The unit of arithmetic is the lane cycle (one FP32 lane for one clock, one MAC). A kernel takes

    overlapped(lane cycles / lane rate, bytes / (stream efficiency x DRAM peak))

**Products** run as blocks of `tile_rows` x `tile_columns`, dealt to the cores; a product with few blocks and a long reduction
is cut along the reduction (`split_most` parts). The last round leaves cores idle (`tail` rounds), each block starts and ends with
loads and stores that hide nothing (`half_depth` MACs per output). Half precision moves half the bytes between registers and
threadgroup memory (`half_gain`); GPUs before M3 have no BF16 arithmetic and convert (`bf16_share`). Builds of MPS before 2025
run products with a fused bias, or with fewer columns than a block, through a general kernel on those GPUs (rule
`general_kernel`, at `general_share`); it has one size of block, so a narrow product leaves columns of it empty.

**Convolutions** take one of the routes that the library's own dispatch knows (rules of the profile, read in its source):

* Winograd F(6x6,3x3) for 3x3, stride 1, when input plus output channels reach `winograd_channels` and the outputs
  `winograd_outputs`; each call transforms the weights anew (`winograd_weight_cycles` per weight);
* an implicit matrix product when the input channels are a multiple of `channel_multiple`: output channels fill columns of
  `conv_columns`;
* input channels up to `small_channels`: the same with a reduction of few taps, `small_channel_cycles` per MAC;
* otherwise `naive` (one output per lane, `naive_cycles` per MAC) or `explicit` (unfolded to memory, then a product).

GPUs that start integer and float work in one cycle (A17 Pro, M3 and later) hide part of the index arithmetic
(`conv_coissue`).

**Attention** that the lowering fuses is one kernel at `attention_efficiency`; else it is two products and a softmax. A
stand-alone softmax moves its operands `softmax_passes` times.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from orchard.cost.lower import KernelArrays
from orchard.cost.terms import Array, Hardware, Terms, overlapped

LARGE_RESULT = 2.0**31
"""Bytes from which MPS computes a result in pieces and copies them together: one shape shows it, on 11 chips alike."""
WINOGRAD_LEAST = 32.0
"""Channels on either side below which no library transforms tiles (its blocks hold 32)."""


def gpu_times(k: KernelArrays, hw: Hardware, p: Mapping[str, float], rules: Mapping[str, Any]) -> Terms:
    """Seconds of every kernel row, multiplicity included. Shapes broadcast to [..., kernels]."""
    width = _width(k)
    lanes = np.where(width < 4.0, np.maximum(hw["gpu.fp16"] / 2.0, hw["gpu.fp32"] / 2.0), hw["gpu.fp32"] / 2.0)
    convolution = k.mask("linear", "expert") & (k.taps > 1.0)
    product = k.mask("linear", "expert") & ~convolution & (k.rows > 1.0) & (k.columns > 1.0)
    cycles = np.where(product, _product_cycles(k, k.rows, k.columns, hw, p, rules), 0.0)
    unfolded = np.zeros(len(k))
    if convolution.any():
        conv_cycles, unfolded = _convolution_cycles(k, hw, p, rules)
        conv_cycles = conv_cycles / p["conv_coissue"] ** (hw["gpu.coissue"] - 1.0)
        cycles = cycles + np.where(convolution, conv_cycles, 0.0)
        unfolded = np.where(convolution, unfolded, 0.0)
    rate = _dense_rate(k, hw, p, lanes)
    attention = k.mask("attention")
    compute = (
        cycles / rate + np.where(attention, k.macs * p["product_efficiency"] / p["attention_efficiency"], 0.0) / rate
    )
    compute = compute + np.where(k.mask("vector", "scan"), k.vector_ops * p["element_cycles"], 0.0) / lanes
    moved = k.weight_bytes + k.state_bytes + k.input_bytes + k.output_bytes + unfolded
    moved = moved * np.where(_softmax(k), p["softmax_passes"], 1.0)
    stream = hw["dram.bandwidth"] * p["stream_efficiency"] * p["stream_second_die"] ** (hw["package.dies"] - 1.0)
    large = product & (k.output_bytes > LARGE_RESULT)
    moved = moved + np.where(large, k.output_bytes * (float(rules.get("large_result_passes", 1)) - 1.0), 0.0)
    sharpness = np.where(product, p["product_sharpness"], p["overlap_sharpness"])
    compute, memory = overlapped(compute, moved / stream, sharpness)
    ones = np.ones_like(lanes) if isinstance(lanes, np.ndarray) else 1.0
    return Terms(compute * k.count, memory * k.count, k.launches * p["wait_s"] * ones)


def _width(k: KernelArrays) -> Array:
    """Bytes per element of the operands: 2 for half formats, else 4."""
    names, place = k.formats
    return np.array([2.0 if name in ("f16", "bf16") else 4.0 for name in names])[place]


def _softmax(k: KernelArrays) -> Any:
    return np.array([kernel.part == "softmax" for kernel in k.kernels])


def _dense_rate(k: KernelArrays, hw: Hardware, p: Mapping[str, float], lanes: Any) -> Any:
    """MACs per second of full blocks: lanes, or matrix units for 16-bit operands where the GPU has them."""
    names, place = k.formats
    half = np.array([n in ("f16", "bf16") for n in names])[place]
    brain = np.array([n == "bf16" for n in names])[place]
    share = np.where(half, p["half_gain"], 1.0)
    share = np.where(brain & (hw["gpu.coissue"] < 2.0), p["bf16_share"], share)
    units = np.where(half, hw["gpu.matrix.fp16"] / 2.0 * p["matrix_unit_efficiency"], 0.0)
    return np.maximum(lanes * p["product_efficiency"] * share, units)


def _product_cycles(
    k: KernelArrays, rows: Array, columns: Array, hw: Hardware, p: Mapping[str, float], rules: Mapping[str, Any]
) -> Array:
    """Lane cycles of all blocks at full rate, idle cores of the last round included."""
    general = (k.vector_ops > 0) | (columns < float(rules["tile_columns"]))
    general = general & (hw["gpu.coissue"] < 2.0) & bool(rules.get("general_kernel", False))
    tile_rows, tile_columns = _edge(rows, rules["tile_rows"]), _edge(columns, rules["tile_columns"])
    tile_columns = np.where(general, float(rules["tile_columns"]), tile_columns)
    blocks = k.batch * np.ceil(np.maximum(rows, 1.0) / tile_rows) * np.ceil(np.maximum(columns, 1.0) / tile_columns)
    cores = hw["gpu.cores"]
    parts = np.clip(2.0 * cores / blocks, 1.0, float(rules["split_most"]))
    parts = np.clip(np.minimum(parts, k.depth / 1024.0), 1.0, None)
    share = np.where(general, p["general_share"], 1.0)
    block = tile_rows * tile_columns * (k.depth / parts + p["half_depth"])
    cycles: Array = (blocks * parts + p["tail"] * cores) * block / share
    return cycles


def _edge(size: Array, largest: Any) -> Any:
    """Edge of a block: half the largest where the product is no wider than that."""
    return np.where(size <= float(largest) / 2.0, float(largest) / 2.0, float(largest))


def _convolution_cycles(
    k: KernelArrays, hw: Hardware, p: Mapping[str, float], rules: Mapping[str, Any]
) -> tuple[Array, Array]:
    """(lane cycles at full rate, bytes written and read again by unfolding) of convolutions."""
    efficiency = p["product_efficiency"]
    channels = k.depth / np.maximum(k.taps, 1.0)
    depthwise = (k.batch > 1.0) & (k.columns <= 1.0)
    aligned = (channels % float(rules["channel_multiple"]) == 0.0) & ~depthwise
    small = (channels <= float(rules["small_channels"])) & ~depthwise
    least = float(rules["winograd_channels"])
    winograd = aligned & (k.taps == 9.0) & (k.stride == 1.0) & (channels + k.columns >= least) & (least > 0)
    winograd = winograd & (np.minimum(channels, k.columns) >= WINOGRAD_LEAST)
    winograd = winograd & (k.rows >= float(rules.get("winograd_outputs", 0)))
    cores = hw["gpu.cores"]
    step = float(rules["conv_columns"])
    padded = np.ceil(np.maximum(k.columns, 1.0) / step) * step
    implicit = k.batch * k.rows * padded * (k.depth + p["half_depth"]) / p["conv_share"]
    implicit = implicit + p["tail"] * cores * float(rules["tile_rows"]) * step * k.depth
    transformed = k.macs / p["winograd_gain"] + k.weight_elements * p["winograd_weight_cycles"] * efficiency
    cycles = np.where(winograd, transformed, implicit)
    cycles = np.where(small, k.macs * p["small_channel_cycles"] * efficiency, cycles)
    other = ~aligned & ~small & ~depthwise
    explicit = str(rules["conv_otherwise"]) == "explicit"
    unfolded = np.where(other, 2.0 * k.batch * k.rows * k.depth * _width(k), 0.0) if explicit else np.zeros(len(k))
    if not explicit:
        cycles = np.where(other, k.macs * p["naive_cycles"] * efficiency, cycles)
    return np.where(depthwise, k.macs * p["depthwise_cycles"] * efficiency, cycles), unfolded
