"""Every figure a chip can have: its dotted path, unit, dimension and meaning.

The path is the one name of a figure: in chip files (nested), in `--set gpu.cores=60`, in `soc["gpu.cores"]` and in the
parameter vectors of cost models. Values are SI inside; chip files use the unit written next to each number.
CPU tiers: s = super (top tier from M5 and A20 on), p = performance, e = efficiency.
"""

from __future__ import annotations

from dataclasses import dataclass

from orchard.units import unit_to_si


@dataclass(frozen=True, slots=True)
class FigureSpec:
    """`unit` is the usual one in chip files, "name" for text. `positive`: zero makes no sense (a clock)."""

    path: str
    unit: str
    about: str
    positive: bool = False

    @property
    def is_text(self) -> bool:
        return self.unit == "name"

    @property
    def dimension(self) -> str:
        """Key of `orchard.units.DIMENSIONS`; "name" for text."""
        return _DIMENSION_OF_UNIT.get(self.unit) or unit_to_si(self.unit)[1]


_DIMENSION_OF_UNIT = {"name": "name", "count": "count", "fraction": "fraction", "elements": "count"}

_TIER = (
    ("cores", "count", "{} cores"),
    ("clusters", "count", "{} clusters"),
    ("clock", "GHz", "maximum clock"),
    ("l1i", "KiB", "L1 instruction cache per core"),
    ("l1d", "KiB", "L1 data cache per core"),
    ("l2", "MiB", "L2 per cluster"),
    ("neon_fma_pipes", "count", "128-bit FMA pipes per core"),
    ("neon_fp32", "GFLOPS", "NEON FP32 peak per core (FP16 is twice this)"),
)
TIERS = {"s": "super", "p": "performance", "e": "efficiency"}

_REST = (
    ("package.node", "name", "foundry node", False),
    ("package.dies", "count", "dies the GPU is spread over (2 on Ultra chips)", True),
    ("cpu.neon.width", "bit", "SIMD register width", True),
    ("cpu.neon.fp32", "TFLOPS", "NEON FP32 peak, all cores of all tiers", False),
    ("cpu.neon.fp16", "TFLOPS", "NEON FP16 peak, all cores of all tiers", False),
    ("cpu.neon.int8", "TOPS", "NEON INT8 dot-product peak, all cores of all tiers", False),
    ("cpu.neon.fp32_measured", "TFLOPS", "NEON FP32, all cores, measured", False),
    ("cpu.sgemm_fp32_measured", "TFLOPS", "Accelerate SGEMM, measured", False),
    ("cpu.matrix.isa", "name", "amx2, amx3 or sme2", False),
    ("cpu.matrix.units", "count", "matrix units on chip (one per CPU cluster unless noted)", False),
    ("cpu.matrix.main_fp64", "TFLOPS", "one main-cluster unit", False),
    ("cpu.matrix.main_fp32", "TFLOPS", "one main-cluster unit", False),
    ("cpu.matrix.main_fp16", "TFLOPS", "one main-cluster unit", False),
    ("cpu.matrix.main_bf16", "TFLOPS", "one main-cluster unit", False),
    ("cpu.matrix.main_int8", "TOPS", "one main-cluster unit", False),
    ("cpu.matrix.eff_fp32", "TFLOPS", "efficiency-cluster unit", False),
    ("cpu.matrix.eff_int8", "TOPS", "efficiency-cluster unit", False),
    ("cpu.matrix.main_units", "count", "matrix units outside the efficiency clusters", False),
    ("cpu.matrix.fp32", "TFLOPS", "matrix FP32 peak, all units", False),
    ("cpu.matrix.fp16", "TFLOPS", "matrix FP16 peak, main units", False),
    ("cpu.matrix.bf16", "TFLOPS", "matrix BF16 peak, main units", False),
    ("cpu.matrix.int8", "TOPS", "matrix INT8 peak, main units", False),
    ("cpu.bandwidth", "GB/s", "DRAM bandwidth all CPU cores reach together", True),
    ("gpu.cores", "count", "GPU cores", True),
    ("gpu.clock", "GHz", "maximum GPU clock", True),
    ("gpu.coissue", "count", "kinds of instruction (FP32, FP16, integer) a scheduler starts in one cycle", True),
    ("gpu.alus_per_core", "count", "FP32 lanes per core", True),
    ("gpu.fp32_flop_core_cycle", "FLOP/cycle", "shader FP32 per core", True),
    ("gpu.fp16_flop_core_cycle", "FLOP/cycle", "shader FP16 per core", True),
    ("gpu.fp32", "TFLOPS", "shader FP32 peak", False),
    ("gpu.fp16", "TFLOPS", "shader FP16 peak", False),
    ("gpu.fp32_measured", "TFLOPS", "shader FP32, microbenchmark", False),
    ("gpu.fp16_measured", "TFLOPS", "shader FP16, microbenchmark", False),
    ("gpu.gemm_fp32_measured", "TFLOPS", "best library FP32 GEMM found", False),
    ("gpu.matrix.fp16_flop_core_cycle", "FLOP/cycle", "matrix unit FP16 per core (0 = absent)", False),
    ("gpu.matrix.int8_op_core_cycle", "OP/cycle", "matrix unit INT8 per core (0 = absent)", False),
    ("gpu.matrix.fp16", "TFLOPS", "matrix unit FP16 peak, FP32 accumulate", False),
    ("gpu.matrix.bf16", "TFLOPS", "matrix unit BF16 peak", False),
    ("gpu.matrix.int8", "TOPS", "matrix unit INT8 peak", False),
    ("gpu.matrix.fp16_measured", "TFLOPS", "matrix unit FP16 measured", False),
    ("gpu.matrix.int8_measured", "TOPS", "matrix unit INT8 measured", False),
    ("gpu.threadgroup", "KiB", "threadgroup memory limit per threadgroup", True),
    ("gpu.registers", "KiB", "register file per core", True),
    ("gpu.l1", "KiB", "L1 data cache per core", True),
    ("gpu.l2", "KiB", "GPU L2", True),
    ("slc.size", "MiB", "system-level cache", False),
    ("slc.energy", "pJ/B", "energy per byte from the system-level cache", False),
    ("ane.engines", "count", "independent ANE engines", True),
    ("ane.cores", "count", "ANE cores, all engines", True),
    ("ane.tops_vendor", "TOPS", "figure advertised by Apple", False),
    ("ane.tops_vendor_dtype", "name", "data type that figure matches", False),
    ("ane.fp16_op_core_cycle", "MAC/cycle", "FP16 per ANE core", True),
    ("ane.int8_op_core_cycle", "MAC/cycle", "INT8 (W8A8) per ANE core", True),
    ("ane.clock", "GHz", "maximum ANE clock", True),
    ("ane.fp16", "TFLOPS", "FP16 peak", False),
    ("ane.int8", "TOPS", "INT8 (W8A8) peak", False),
    ("ane.fp16_measured", "TFLOPS", "best sustained FP16 measured", False),
    ("ane.int8_measured", "TOPS", "best sustained W8A8 measured", False),
    ("ane.operand_limit", "MiB", "largest operand kept on chip (L2 per engine)", True),
    ("ane.kernel_buffer", "KiB", "resident weight buffer per ANE core", True),
    ("ane.max_dim", "elements", "largest tensor dimension", True),
    ("ane.align", "B", "the last axis is padded to this", True),
    ("ane.weight_bandwidth", "GB/s", "DRAM weight-stream bandwidth reached, direct path", True),
    ("ane.coreml_weight_bandwidth", "GB/s", "weight bandwidth through Core ML (ANEMLL LM head)", True),
    ("ane.activation_bandwidth", "GB/s", "activation stream, one stand-alone op", True),
    ("ane.dispatch", "ms", "floor of one dispatch", False),
    ("dram.type", "name", "DRAM type", False),
    ("dram.transfer_rate", "MT/s", "DRAM data rate", True),
    ("dram.bus_width", "bit", "DRAM bus width", True),
    ("dram.bandwidth_vendor", "GB/s", "bandwidth stated by Apple", False),
    ("dram.bandwidth", "GB/s", "data rate times width", True),
    ("dram.cpu_bandwidth_measured", "GB/s", "reached from CPU cores", False),
    ("dram.gpu_bandwidth_measured", "GB/s", "reached from GPU", False),
    ("dram.capacity_max", "GiB", "largest memory option", True),
    ("dram.capacity", "GiB", "memory of the machine at hand", True),
    ("dram.gpu_share", "fraction", "share of the memory the GPU may use by default", True),
    ("dram.gpu_limit", "GiB", "memory the GPU may use", True),
    ("dram.energy", "pJ/B", "energy per byte from DRAM", False),
    ("power.cpu_max", "W", "CPU power at full load", False),
    ("power.gpu_max", "W", "GPU power at full load", False),
    ("power.ane_fp16", "W", "ANE power, FP16 compute-bound", False),
    ("power.ane_int8", "W", "ANE power, INT8 compute-bound", False),
    ("power.package_max", "W", "package or whole-chip power at full load", False),
    ("power.package_idle", "W", "package idle", False),
)


def _specs() -> dict[str, FigureSpec]:
    specs = {}
    for tier, word in TIERS.items():
        for leaf, unit, about in _TIER:
            path = f"cpu.{tier}.{leaf}"
            specs[path] = FigureSpec(path, unit, about.format(word), positive=leaf == "clock")
    for path, unit, about, positive in _REST:
        specs[path] = FigureSpec(path, unit, about, positive)
    return specs


FIGURES: dict[str, FigureSpec] = _specs()
