"""Die area composed from blocks.

    A = (1 + k) (P + E + PHY + ANE + matrix + GPU + media) + L2 + SLC + edge        [mm2]

SRAM is counted once; everything else carries the overhead k (fabric, display, ISP, I/O, power gating, white space), fitted to
twelve dies: 0.93 on Macs, 0.84 on phones [area_model]. Held-out dies come out within 5.6 % on average, 14.9 % at worst; steps
between tiers are underestimated. Where the size of the chip's die is known, differences are added to it:

    A(variant) = A_known + A_model(variant) - A_model(chip)

so a variant inherits the known die's error only once. Block sizes on nodes without a die photograph are scaled: logic by the
density gain of the node, SRAM by its bit cell, the DRAM interface not at all.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from orchard.cost.errors import CostError
from orchard.cost.silicon.coefficients import coefficient, has, table
from orchard.hw import HardwareArrays, SoC, chip_ids, load_chip

_MIB = 2.0**20
_NODES = {f"TSMC {name}": name.lower() for name in ("N5", "N5P", "N4P", "N3B", "N3E", "N3P", "N2")}
_SAME_LOGIC = {"n4p": "n5p", "n2": "n3p"}
"""Nodes whose block sizes fall back to another's: N4P is N5's optical shrink; N2 is scaled from N3P by `_shrink`."""
_LOGIC_SHRINK = {"n2": 1.15 / 1.04}  # density of a chip: N2 over N3E 1.15, N3P over N3E 1.04 [nodes.logic_density_gain]
_SRAM_SHRINK = {"n2": 0.021 / 0.0175}  # bit cells in um2 [nodes.sram_bitcell]

_ANE_REFERENCE_OPS = 16 * 256 * 2.0  # FP16 ops per cycle of the 16-core engine whose area is known
_ANE_REFERENCE_SRAM_MIB = 2.0
_ACCELERATOR_REFERENCE = 1024.0  # FLOP per core and cycle of the M5 and A19 neural accelerator
_SHADER_REFERENCE = 256.0  # FP32 FLOP per core and cycle
_SHADER_SHARE = 0.25
"""Part of a GPU core taken to grow with its FP32 rate. Judgement: 128 FP32 FMA lanes at the 0.0006 to 0.0012 mm2 per FP16 MAC
of gpu_neural_accelerator, doubled for FP32 and again for registers, are 0.3 to 0.6 of 3.3 mm2, before operand routing."""
_UNKNOWN_L2_MIB = 16.0  # per cluster, where a catalogue chip's is not published: that of the P clusters from M2 on

PRICED = frozenset({
    "cpu.s.cores", "cpu.p.cores", "cpu.e.cores", "cpu.s.clusters", "cpu.p.clusters", "cpu.e.clusters", "cpu.s.l2",
    "cpu.p.l2", "cpu.e.l2", "cpu.matrix.units", "gpu.cores", "gpu.fp32_flop_core_cycle",
    "gpu.matrix.fp16_flop_core_cycle", "gpu.matrix.int8_op_core_cycle", "ane.cores", "ane.fp16_op_core_cycle",
    "ane.int8_op_core_cycle", "ane.operand_limit", "slc.size", "dram.bus_width",
})  # fmt: skip
"""Figures that take area. Clocks and the DRAM data rate take none (they take power); any other figure is not priced, and a
study over such a knob has to say that its area is free."""


@dataclass(frozen=True, slots=True)
class Area:
    """mm2 by block, arrays over variants. `anchor_mm2` is what a known die adds to the composed sum (0 without one).

    kind is "estimate"; `spread` holds the factors of its 80 % interval: held-out errors of 17 dies (5.6 % mean, 14.9 % worst),
    a third of that for small changes to a known die.
    """

    node: str
    blocks: Mapping[str, Any]
    anchor_mm2: float
    spread: tuple[float, float]

    @property
    def total_mm2(self) -> Any:
        return sum(self.blocks.values()) + self.anchor_mm2


def node_of(soc: SoC) -> str:
    """Key of the foundry node ("n3e"). Raises CostError when the chip's node is unknown or has no block areas."""
    text = soc.text("package.node")
    if text not in _NODES:
        raise CostError(
            f"{soc.id}: no block areas for the node {text or 'not stated'!r}, expected one of {', '.join(_NODES)}; "
            "state it in the chip file, for example package: {node: {value: TSMC N3E, unit: name}}"
        )
    return _NODES[text]


def known_die(soc: SoC) -> tuple[float, str] | None:
    """(mm2, source) of the die a catalogue chip is cut from, None where none is published. Harvested variants share a die."""
    die = (soc.base or soc.id).split("_")[0]
    if not has(f"dies.{die}.die_mm2"):
        return None
    leaf = coefficient(f"dies.{die}.die_mm2")
    return float(leaf), f"{leaf.source} ({leaf.kind})"


def die_area(hw: HardwareArrays, *, anchored: bool = True) -> Area:
    """Area of every variant in `hw`. `anchored`: add differences to the chip's published die where there is one.

    For a chip of several dies (Ultra) the blocks are sums over dies. Raises CostError without a known node, HardwareError when
    a block's figure is not known.
    """
    node = node_of(hw.soc)
    blocks = _blocks(hw, node)
    known, twin = known_die(hw.soc), _catalogue_twin(hw.soc)
    if not anchored or known is None or twin is None or node_of(twin) != node:
        return Area(node, blocks, 0.0, (0.9, 1.12))
    start = _blocks(HardwareArrays.of(twin), node)
    return Area(node, blocks, known[0] - float(sum(start.values())), (0.96, 1.04))


def _catalogue_twin(soc: SoC) -> SoC | None:
    """The catalogue chip that `soc` is or is based on, unchanged; None for a chip described from nothing."""
    known = chip_ids()
    name = soc.id if soc.id in known else soc.base
    return load_chip(name) if name in known else None


def _blocks(hw: HardwareArrays, node: str) -> dict[str, Any]:
    identity = hw.soc.identity
    k = float(coefficient("area_model.k_phone" if identity.tier == "phone" else "area_model.k_mac"))
    logic = {
        "p_cores": _p_cores(hw, node), "e_cores": hw["cpu.e.cores"] * _logic("e_core", node),
        "dram_phy": hw["dram.bus_width"] / 2.0 * float(coefficient("blocks.lpddr_phy_16bit")),
        "ane": _ane(hw, node), "matrix_units": _matrix_units(hw), "gpu": _gpu(hw, node),
        "media": _media_units(hw) * float(coefficient("blocks.media_unit")),
    }  # fmt: skip
    rest = {
        "l2": _l2(hw, node),
        "slc": hw["slc.size"] / _MIB * _sram("slc_with_control_per_mib", node),
        "overhead": k * sum(logic.values()),
    }
    if identity.tier in ("max", "ultra"):
        rest["edge"] = float(coefficient("blocks.ultrafusion_edge")) * hw["package.dies"]
    return {**logic, **rest}


def _or(hw: HardwareArrays, path: str, default: float) -> Any:
    return hw.get(path, default)


def _logic(block: str, node: str) -> float:
    if has(f"blocks.{block}.{node}"):
        return float(coefficient(f"blocks.{block}.{node}"))
    return float(coefficient(f"blocks.{block}.{_SAME_LOGIC[node]}")) / _LOGIC_SHRINK.get(node, 1.0)


def _sram(block: str, node: str) -> float:
    if has(f"blocks.{block}.{node}"):
        return float(coefficient(f"blocks.{block}.{node}"))
    return float(coefficient(f"blocks.{block}.{_SAME_LOGIC[node]}")) / _SRAM_SHRINK.get(node, 1.0)


def _p_cores(hw: HardwareArrays, node: str) -> Any:
    """Fast cores. Where a chip has a super tier as well, its performance cores lie between a fast and an efficiency core:
    their geometric mean (judgement; no die photograph of these cores was found)."""
    fast, small = _logic("p_core", node), _logic("e_core", node)
    middle = np.where(np.asarray(hw["cpu.s.cores"]) > 0, (fast * small) ** 0.5, fast)
    return hw["cpu.s.cores"] * fast + hw["cpu.p.cores"] * middle


def _l2(hw: HardwareArrays, node: str) -> Any:
    per_mib = _sram("l2_per_mib", node)
    total: Any = 0.0
    for tier in "spe":
        mib = _or(hw, f"cpu.{tier}.l2", _UNKNOWN_L2_MIB * _MIB) / _MIB
        total = total + _or(hw, f"cpu.{tier}.clusters", 0.0) * mib * per_mib * (hw[f"cpu.{tier}.cores"] > 0)
    return total


def _ane(hw: HardwareArrays, node: str) -> Any:
    """By multipliers (the 16-core engine's area per MAC holds its SRAM and control) plus operand SRAM beyond 2 MiB an engine.
    INT8 rates above twice FP16 would need lanes of their own and count as such."""
    engine = float(coefficient("blocks.ane_engine_16core.n5" if node in ("n5", "n5p", "n4p") else "blocks.ane_engine_16core.n3"))
    engine /= _LOGIC_SHRINK.get(node, 1.0)
    ops = np.maximum(hw["ane.fp16_op_core_cycle"], np.asarray(hw["ane.int8_op_core_cycle"]) / 2.0)
    copies = 2.0 if hw.soc.identity.family == "M1" and hw.soc.identity.tier in ("max", "ultra") else 1.0
    extra_mib = np.maximum(hw["ane.operand_limit"] / _MIB - _ANE_REFERENCE_SRAM_MIB, 0.0) * hw["ane.engines"]
    array = _sram("slc_array_per_mib", "n3e" if node in ("n5", "n5p", "n4p", "n3b") else node)
    return copies * (hw["ane.cores"] * ops / _ANE_REFERENCE_OPS * engine) + extra_mib * array


def _matrix_units(hw: HardwareArrays) -> Any:
    return _or(hw, "cpu.matrix.units", 0.0) * float(coefficient("blocks.amx_sme_unit"))


def _gpu(hw: HardwareArrays, node: str) -> Any:
    """Cores by node; the part of a core that computes grows with its FP32 rate; neural accelerators by their FP16 rate (those
    of N3P are in that node's fitted core)."""
    growth = _SHADER_SHARE * (hw["gpu.fp32_flop_core_cycle"] / _shader_reference(hw.soc) - 1.0)
    core = _logic("gpu_core", node) * (1.0 + growth)
    half = np.maximum(hw["gpu.matrix.fp16_flop_core_cycle"], np.asarray(hw["gpu.matrix.int8_op_core_cycle"]) / 2.0)
    in_core = 1.0 if node in ("n3p", "n2") else 0.0
    unit = float(coefficient("blocks.gpu_neural_accelerator"))
    return hw["gpu.cores"] * (core + unit * (half / _ACCELERATOR_REFERENCE - in_core))


def _shader_reference(soc: SoC) -> float:
    """FP32 FLOP per cycle of the core whose area was fitted: 256, and A14's own 128 (as large as M1's in the fit)."""
    twin = _catalogue_twin(soc)
    return _SHADER_REFERENCE if twin is None else twin["gpu.fp32_flop_core_cycle"]


def _media_units(hw: HardwareArrays) -> Any:
    """Encode, decode and ProRes blocks: 1 on phones and M1, 2 on base chips from M2 on and on Pro, 4 a die on Max and Ultra."""
    identity = hw.soc.identity
    if identity.tier == "phone" or (identity.family == "M1" and identity.tier == "base"):
        return 1.0
    if identity.tier in ("max", "ultra"):
        return 4.0 * hw["package.dies"]
    return 2.0


def composed_rows() -> dict[str, dict[str, Any]]:
    """The dies the model was fitted to and tested on: configuration, known, fitted and held-out mm2 [area_model.rows]."""
    return {name: dict(row) for name, row in table("area_model.rows").items()}
