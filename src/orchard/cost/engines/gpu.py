"""GPU engine model: streaming, lane work and waits of the kernels that language-model runtimes launch on a GPU.

All times are array expressions over kernels (last axis) and chip variants (leading axes). The unit of arithmetic is the
*lane cycle*: one FP32 lane for one clock, half the FP32 peak of them per second (a fused multiply-add is two ops). A kernel takes

    overlapped(lane cycles / lane rate, bytes / (stream efficiency x DRAM peak)) + waits x wait time

where the lane cycles of a weight product depend on how the runtime computes it:

* one row (decode): each weight is unpacked and used once, `vector_lane.<format>` cycles per weight, at the FP16 rate
  of the lanes (twice the FP32 rate from A19 / M5 on).
* a few rows (small batch, speculation): rows are served in passes; a pass unpacks all weights (`batch_lane.<format>`) and
  each row adds `row_lane` cycles per weight. Passes re-read the weights. This is the measured staircase.
* many rows (prefill): tiles of `tile_rows x tile_columns`; padded MACs at `gemm_efficiency` of the lane or matrix-unit
  rate, plus `tile_tail` tiles per core while the array fills and drains; each tile row unpacks the weights again
  (`gemm_lane.<format>` per weight).
* attention as kernels of its own: products at `score_efficiency` (that of fused attention where a profile has none), scores in
  memory, `score_width` times as wide as the activations, and `score_copies` more kernels that lay out heads.
* routed experts: one row at a time per (token, expert) pair below `expert_gemm_from` tokens, else tiles per expert, with the
  expected number of tiles for the binomial load of an expert.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np

from orchard.cost.engines.formats import per_format
from orchard.cost.lower import KernelArrays
from orchard.cost.terms import Array, Hardware, Terms, overlapped


def kernel_times(k: KernelArrays, hw: Hardware, p: Mapping[str, float], rules: Mapping[str, Any]) -> Terms:
    """Seconds of every kernel row, multiplicity included. Shapes broadcast to [..., kernels]."""
    lane_rate = hw["gpu.fp32"] / 2.0
    stream = hw["dram.bandwidth"] * stream_efficiency(hw, p)
    lanes, unpack, unpack_tiles, passes, matrix_macs = _lane_cycles(k, p, rules)
    matrix_rate = _matrix_rate(hw, p, lane_rate)
    tail = p["tile_tail"] * hw["gpu.cores"] * float(rules["tile_rows"]) * float(rules["tile_columns"]) * k.depth
    matrix_macs = matrix_macs + np.where(matrix_macs > 0, tail, 0.0)
    products = matrix_macs / matrix_rate
    unpack_rate = np.maximum(hw["gpu.fp16"] / 2.0, lane_rate)  # unpacking is half-precision and integer work
    # GPUs that start integer and float work in one cycle (A17 Pro, M3 and later) hide part of the unpacking. Matrix units
    # run beside the lanes that unpack for them; without units the same lanes do both in turn.
    in_tiles = unpack_tiles / (unpack_rate * p["unpack_coissue"] ** (hw["gpu.coissue"] - 1.0))
    tiled = np.where(hw["gpu.matrix.fp16"] > 0, np.maximum(products, in_tiles), products + in_tiles)
    separate = p.get("score_efficiency", p["attention_efficiency"])
    reached = np.where(_state_products(k), separate, p["attention_efficiency"])
    attended = _attention_macs(k, rules) / (matrix_rate * reached / p["gemm_efficiency"])
    compute = lanes / lane_rate + unpack / unpack_rate + tiled + attended
    weight_share = np.where(k.mask("expert"), p["expert_stream_efficiency"], 1.0)
    state_share = np.where(k.mask("attention") | _state_products(k), p["state_stream_efficiency"], 1.0)
    memory = k.weight_bytes * passes / (stream * weight_share)
    wide = np.where(_state_products(k) | k.scores, float(rules.get("score_width", 1.0)), 1.0)
    memory = memory + ((k.input_bytes + k.output_bytes) * wide + k.state_bytes) / (stream * state_share)
    compute, memory = overlapped(compute, memory, p["overlap_sharpness"])
    ones = np.ones_like(lane_rate) if isinstance(lane_rate, np.ndarray) else 1.0
    copies = np.where(k.scores, float(rules.get("score_copies", 0.0)), 0.0)
    dispatch = k.launches * (1.0 + copies) * wait_seconds(hw, p) * ones
    return Terms(compute * k.count, memory * k.count, dispatch)


def stream_efficiency(hw: Hardware, p: Mapping[str, float]) -> Any:
    """Share of the DRAM peak that long weight streams reach; a second die costs a factor."""
    return p["stream_efficiency"] * p["stream_second_die"] ** (hw["package.dies"] - 1.0)


def wait_seconds(hw: Hardware, p: Mapping[str, float]) -> Any:
    """Time between dependent kernels: drain, barrier and launch, in GPU cycles, plus what a second die adds."""
    return p["wait_cycles"] / hw["gpu.clock"] * p["wait_second_die"] ** (hw["package.dies"] - 1.0)


def _matrix_rate(hw: Hardware, p: Mapping[str, float], lane_rate: Any) -> Any:
    """MACs per second of tiled products: matrix units where the GPU has them, else the lanes (1 MAC per lane cycle)."""
    return np.maximum(lane_rate * p["gemm_efficiency"], hw["gpu.matrix.fp16"] / 2.0 * p["matrix_unit_efficiency"])


def _lane_cycles(
    k: KernelArrays, p: Mapping[str, float], rules: Mapping[str, Any]
) -> tuple[Array, Array, Array, Array, Array]:
    """(lane cycles of arithmetic, of unpacking for mat-vec, of unpacking for tiles; passes over the weights; padded MACs)."""
    small_most = int(rules["small_batch_most"])
    state = _state_products(k)
    linear, expert = k.mask("linear") & ~state, k.mask("expert")
    elements = np.where(linear, k.batch * k.columns * k.depth, 0.0)
    one = linear & (k.rows <= 1)
    few_most = np.where(_plain(k), float(rules.get("small_batch_float_most", small_most)), float(small_most))
    small = linear & (k.rows > 1) & (k.rows <= few_most)
    tiled = linear & (k.rows > 1) & (k.rows > few_most)
    passes = np.ones(len(k))
    passes[small] = [_passes(int(r), rules) for r in k.rows[small]]
    by_vector = expert & (k.rows < float(rules["expert_gemm_from"]))
    passes[by_vector] = [_re_reads(k, int(i)) for i in np.flatnonzero(by_vector)]
    vector_lane, batch_lane, gemm_lane = (per_format(k, p, n) for n in ("vector_lane", "batch_lane", "gemm_lane"))
    lanes = np.zeros(len(k))
    unpack = np.where(one, elements * vector_lane, 0.0)
    if rules.get("small_batch_repeats"):  # no small-batch kernels: one mat-vec per row
        unpack = unpack + np.where(small, elements * k.rows * vector_lane, 0.0)
    else:
        unpack = unpack + np.where(small, elements * (passes * batch_lane + k.rows * p["row_lane"]), 0.0)
    tall = _tile_rows(k, rules)
    tile_rows = np.ceil(k.rows / tall) * tall
    tile_columns = _round_up(k.columns, float(rules["tile_columns"]))
    matrix_macs = np.where(tiled, k.batch * tile_rows * tile_columns * k.depth, 0.0)
    unpacks = tile_rows / tall
    unpack_tiles = np.where(tiled & (k.weight_elements > 0), elements * unpacks * gemm_lane, 0.0)
    if expert.any():
        one_row, tiles = _expert_cycles(k, expert, rules)
        unpack = unpack + one_row * vector_lane
        unpack_tiles = unpack_tiles + tiles * k.columns * k.depth * gemm_lane
        padded = _round_up(k.columns, float(rules["tile_columns"])) * k.depth * tiles * float(rules["tile_rows"])
        matrix_macs = matrix_macs + padded / p["expert_gemm_factor"]
    few = (k.mask("attention") | state) & ~_many_queries(k, rules)
    lanes = lanes + np.where(few, k.macs * p["attention_vector_lane"], 0.0)
    lanes = lanes + np.where(k.mask("scan"), k.vector_ops * p["scan_lane"], 0.0)
    lanes = lanes + np.where(k.mask("vector"), k.vector_ops * 0.5, 0.0)  # one op is half a fused multiply-add
    return lanes, unpack, unpack_tiles, passes, matrix_macs


STATE_ROWS = 64
"""Rows (tokens x query heads per key/value head) up to which a product with the cache runs as mat-vec kernels:
a judgement, between the 8 query heads per key/value head that decode has at most and the hundreds of a prompt."""


def _many_queries(k: KernelArrays, rules: Mapping[str, Any]) -> Any:
    """Attention kernels with enough queries to run as tiles."""
    fused = k.mask("attention") & (k.tokens > int(rules["small_batch_most"]))
    return fused | (_state_products(k) & (k.rows > STATE_ROWS))


def _attention_macs(k: KernelArrays, rules: Mapping[str, Any]) -> Array:
    return np.where(_many_queries(k, rules), k.macs, 0.0)


def _state_products(k: KernelArrays) -> Any:
    """Scores and values as separate kernels: products of two activations (or the cache), no weight."""
    return k.mask("linear") & (k.weight_elements == 0)


def _expert_cycles(k: KernelArrays, expert: Any, rules: Mapping[str, Any]) -> tuple[Array, Array]:
    """(weights used one row at a time, row tiles over all experts) of routed products."""
    by_vector = expert & (k.rows < float(rules["expert_gemm_from"]))
    one_row = np.where(by_vector, k.rows * k.active * k.columns * k.depth, 0.0)
    tiles = np.zeros(len(k))
    for i in np.flatnonzero(expert & ~by_vector):
        load = expected_tiles(int(k.rows[i]), k.active[i] / k.experts[i], int(rules["tile_rows"]))
        tiles[i] = k.experts[i] * load
    return one_row, tiles


def _plain(k: KernelArrays) -> Any:
    """Weights in floats: some libraries have kernels for a few rows of quantized weights only, and tile these."""
    names, place = k.formats
    return np.array([name in ("", "f32", "f16", "bf16") for name in names])[place]


def _tile_rows(k: KernelArrays, rules: Mapping[str, Any]) -> Array:
    """Rows of a tile. Some libraries cut products of few float rows along the depth, with lower tiles (MLX: 16 rows where
    rows / 16 rounds down to 0, `steel_matmul`), so that one more row may double the work."""
    full = float(rules["tile_rows"])
    few = _plain(k) & (k.rows <= float(rules.get("few_rows_most", 0)))
    return np.where(few, float(rules.get("few_rows_tile", full)), full)


def _passes(rows: int, rules: Mapping[str, Any]) -> int:
    return int(rules["small_batch_passes"][rows])


def _re_reads(k: KernelArrays, i: int) -> float:
    """Expert slices read per distinct expert when every (token, expert) pair streams its own."""
    experts, pairs = k.experts[i], k.rows[i] * k.active[i]
    return float(pairs / (experts * (1.0 - (1.0 - k.active[i] / experts) ** k.rows[i])))


def _round_up(value: Array, step: float) -> Array:
    return np.ceil(value / step) * step


@lru_cache(maxsize=4096)
def expected_tiles(tokens: int, share: float, tile: int) -> float:
    """E[ceil(n / tile)] for n ~ Binomial(tokens, share): tiles of rows that one expert needs, routing taken as uniform.

    ceil(n / tile) = sum over j >= 0 of [n > j * tile], so the expectation is a sum of upper tails.
    """
    if share >= 1.0:
        return float(-(-tokens // tile))
    log_p, log_q = math.log(share), math.log1p(-share)
    cumulative, total, n = 0.0, 0.0, 0
    for edge in range(0, tokens, tile):
        while n <= edge:
            log_choose = math.lgamma(tokens + 1) - math.lgamma(n + 1) - math.lgamma(tokens - n + 1)
            cumulative += math.exp(log_choose + n * log_p + (tokens - n) * log_q)
            n += 1
        tail = max(0.0, 1.0 - cumulative)
        total += tail
        if tail < 1e-9:
            break
    return total
