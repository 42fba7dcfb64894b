"""CPU model of single operations as array libraries launch them.

A product runs on the matrix units (AMX, SME), one per cluster, at `matrix_efficiency` of their peak (a second die adds
`second_die` of its own). A small product fills them in part: `half_side` is the narrow side and `half_work` the MACs at which
half the rate is reached; below `parallel_work` MACs it stays on the unit of one cluster. One row or column is a matrix-vector
product, bound by bytes. Beside the arithmetic stand the bytes: operands are copied into contiguous panels, so a core passes over
them `packing_passes` times, at what the clusters that help draw (`cluster_bytes_per_cycle` each). Panels stay in caches, so
DRAM sees each byte once, at `stream_efficiency` of the CPU's bandwidth. A matrix times one vector packs nothing and draws
`vector_bytes_per_cycle`. Then the first touch of a result that the library has just allocated
(`fresh_bytes_per_cycle` of a cluster), and the layout of a bias before products are added to it (`bias_bytes_per_cycle` of a
cluster; of one alone where the profile says `bias_on_one`). Zeroing writes a result once, a bias is written and read back, so
neither is faster than that many bytes at the CPU's bandwidth.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from orchard.cost.engines.cpu import fast_clock
from orchard.cost.lower import KernelArrays
from orchard.cost.terms import Array, Hardware, Terms, overlapped


def cpu_times(k: KernelArrays, hw: Hardware, p: Mapping[str, float], rules: Mapping[str, Any]) -> Terms:
    """Seconds of every kernel row, multiplicity included."""
    products = k.mask("linear", "expert", "attention")
    compute = np.where(products, _product_seconds(k, hw, p), 0.0)
    clock = fast_clock(hw)
    cores = (hw["cpu.s.cores"] + hw["cpu.p.cores"]) * clock
    compute = compute + np.where(k.mask("vector", "scan"), k.vector_ops * p["element_cycles"] / cores, 0.0)
    clusters = np.maximum(hw["cpu.s.clusters"] + hw["cpu.p.clusters"], 1.0)
    on_die = clusters / hw["package.dies"]
    others = on_die - 1.0 + on_die * p["second_die"] * (hw["package.dies"] - 1.0)
    drawing = p["cluster_bytes_per_cycle"] * (1.0 + others * _shared_out(k, p))
    single = (k.batch <= 1.0) & (np.minimum(k.rows, k.columns) <= 1.0)
    drawing = np.where(single, p["vector_bytes_per_cycle"], drawing)
    operands = k.weight_bytes + k.state_bytes + k.input_bytes
    rate = hw["cpu.bandwidth"] * p["stream_efficiency"]
    passes = np.where(products & ~single, p["packing_passes"], 1.0)
    drawn = np.where(products, (operands * passes + k.output_bytes) / (drawing * clock), 0.0)
    streamed = np.maximum((operands + k.output_bytes) / rate, drawn)
    compute, memory = overlapped(compute, streamed, p["overlap_sharpness"])
    writers = 1.0 if rules.get("bias_on_one") else clusters
    written = np.where(products, k.output_bytes, 0.0)
    biased = np.where(products & (k.vector_ops > 0), k.output_bytes, 0.0)
    fresh = np.maximum(written / (p["fresh_bytes_per_cycle"] * clock * clusters), written / rate)
    fresh = fresh + np.maximum(biased / (p["bias_bytes_per_cycle"] * clock * writers), 2.0 * biased / rate)
    return Terms(compute * k.count, (memory + fresh) * k.count, np.zeros_like(memory))


def _product_seconds(k: KernelArrays, hw: Hardware, p: Mapping[str, float]) -> Array:
    per_die = hw["cpu.matrix.fp32"] / hw["package.dies"]
    dies = 1.0 + p["second_die"] * (hw["package.dies"] - 1.0) * _shared_out(k, p)
    unit = per_die * dies / 2.0 * p["matrix_efficiency"]
    unit = unit * np.where(k.taps > 1.0, p["conv_share"], 1.0)
    clusters = np.maximum(hw["cpu.s.clusters"] + hw["cpu.p.clusters"], 1.0) / hw["package.dies"]
    unit = unit * (1.0 + (clusters - 1.0) * _shared_out(k, p)) / clusters
    narrow = np.minimum(np.maximum(k.columns, 1.0), np.maximum(k.rows, 1.0))
    filled = k.macs / (k.macs + k.batch * p["half_work"]) * narrow / (narrow + p["half_side"])
    seconds: Array = np.where(narrow > 1.0, k.macs / (unit * np.maximum(filled, 1e-6)), 0.0)
    return seconds


def _shared_out(k: KernelArrays, p: Mapping[str, float]) -> Array:
    """How far the other clusters help with a product, 0 to 1; a batch runs one product after the other."""
    work = k.macs / np.maximum(k.batch, 1.0)
    shared: Array = work / (work + p["parallel_work"])
    return shared
