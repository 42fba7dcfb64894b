"""SoC descriptions: what silicon can do, each number with unit, source and kind. Layer 1.

`load_chip("m4max", ["gpu.cores=60"])` gives a SoC; `soc["gpu.fp16"]` a figure in SI; `soc.gpu.cores` a typed view;
`soc.engine("gpu")` a tree of memories and compute; `HardwareArrays.of(soc, {...})` many variants at once.
"""

from orchard.hw.arrays import HardwareArrays
from orchard.hw.catalogue import (
    ChipSummary,
    chip_ids,
    chip_summaries,
    find_chip,
    load_chip,
    machine_file,
    machines_folder,
    parse_overrides,
)
from orchard.hw.engines import Compute, Engine, Fanout, Memory, Node, peak
from orchard.hw.errors import HardwareError
from orchard.hw.figure import Figure
from orchard.hw.reference import Observation, Parameter, Source, observations, parameter, parameters, sources
from orchard.hw.schema import FIGURES, FigureSpec
from orchard.hw.soc import Ane, CpuCluster, Dram, Gpu, MatrixUnit, SoC

__all__ = [
    "FIGURES",
    "Ane",
    "ChipSummary",
    "Compute",
    "CpuCluster",
    "Dram",
    "Engine",
    "Fanout",
    "Figure",
    "FigureSpec",
    "Gpu",
    "HardwareArrays",
    "HardwareError",
    "MatrixUnit",
    "Memory",
    "Node",
    "Observation",
    "Parameter",
    "SoC",
    "Source",
    "chip_ids",
    "chip_summaries",
    "find_chip",
    "load_chip",
    "machine_file",
    "machines_folder",
    "observations",
    "parameter",
    "parameters",
    "parse_overrides",
    "peak",
    "sources",
]
