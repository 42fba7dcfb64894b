"""Energy from sourced coefficients: joules per operation, per DRAM byte, and power that flows while an engine is active.

    E = ops x J/op(engine) + DRAM bytes x J/B + seconds x active power(engine, size)

Coefficients are engine-wide literature values, not fitted here, so an energy carries a wide interval (`SPREAD`). They cover the
package (engine, caches, memory), not displays or power supplies.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from orchard.cost.terms import Hardware

SPREAD = (0.6, 1.6)
"""Factors from an energy estimate to its 80 % interval: absolute watts of these chips differ by up to 2x between
instruments (hardware.md, thermal and power), so this is a judgement, not a fit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EnergyModel:
    """J per op at 16 bits, factor for INT8 operands, and watts while active: a base and a part per core.

    `source` is the main source of `joule_per_op` and `int8_factor`. Where the comment beside a model derives no number, it is
    a judgement inside the spread of its sources: the per-core watts, the GPU's INT8 factor and the CPU's joules per op.
    """

    joule_per_op: float
    int8_factor: float
    active_w: float
    active_w_per_core: float
    source: str


HOST_W = 1.5
"""A CPU thread that encodes and waits while another engine works. Judgement: a quarter of a fast core at full load
(43.9 W for eight cores [amx-benchmarks])."""

MODELS: dict[str, EnergyModel] = {
    # GPU: SGEMM at full load, 52 W / 9.26 TFLOPS on M1 Max [amx-benchmarks], 47 W / 13.3 TFLOPS on M4 Max [dvfs-listings,
    # device-bench], and "over 200 GFLOP/s/W" for M1 to M4 [kth]: about 4 pJ per op with memory and idle power taken out.
    "gpu": EnergyModel(
        joule_per_op=3.5e-12, int8_factor=0.6, active_w=1.0 + HOST_W, active_w_per_core=0.2, source="kth"
    ),
    # ANE: 0.58 pJ per MAC incremental, 0.73 to 0.80 all-in, INT8 0.70 to 0.80 of FP16, 1.6 W while active [751k-m6].
    "ane": EnergyModel(
        joule_per_op=0.38e-12, int8_factor=0.75, active_w=1.6 + HOST_W, active_w_per_core=0.0, source="751k-m6"
    ),
    # CPU: NEON at full load 43.9 W for 0.655 TFLOPS on M1 Max [amx-benchmarks]: 67 pJ per FP32 op, most of it the core's
    # own pipeline; a quarter of that per op for 8-bit dot products.
    "cpu": EnergyModel(
        joule_per_op=30e-12, int8_factor=0.25, active_w=1.0, active_w_per_core=0.8, source="amx-benchmarks"
    ),
}

MATRIX_UNIT_JOULE_PER_OP = 1.4e-12
"""GPU matrix units in prefill: about 560 GFLOP/s/W with everything included [derived from cadamcat]."""


def energy_j(engine: str, *, ops: Any, dram_bytes: Any, seconds: Any, hw: Hardware, low_bits: bool = False) -> Any:
    """Joules [...]. `low_bits`: the operands are 8-bit (only where the engine computes in INT8)."""
    return sum(energy_terms(engine, ops=ops, dram_bytes=dram_bytes, seconds=seconds, hw=hw, low_bits=low_bits).values())


def energy_terms(
    engine: str, *, ops: Any, dram_bytes: Any, seconds: Any, hw: Hardware, low_bits: bool = False
) -> dict[str, Any]:
    """Joules by cause: `compute`, `dram` and `active` (clock tree, leakage, fabric while the engine runs)."""
    model = MODELS[engine]
    per_op = model.joule_per_op
    if engine == "gpu" and _has_matrix_units(hw):
        per_op = MATRIX_UNIT_JOULE_PER_OP
    per_op *= model.int8_factor if low_bits else 1.0
    return {
        "compute": ops * per_op,
        "dram": dram_bytes * hw["dram.energy"],
        "active": seconds * active_watts(engine, hw),
    }


def active_watts(engine: str, hw: Hardware) -> Any:
    """Watts [...] while an engine works, its host thread included, without its arithmetic and its traffic."""
    model = MODELS[engine]
    cores = {"gpu": "gpu.cores", "ane": "ane.cores"}.get(engine)
    count = hw[cores] if cores else hw["cpu.s.cores"] + hw["cpu.p.cores"]
    return model.active_w + model.active_w_per_core * count


def _has_matrix_units(hw: Hardware) -> bool:
    import numpy as np

    return bool(np.any(np.asarray(hw["gpu.matrix.fp16"]) > 0))
