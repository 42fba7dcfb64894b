"""A SoC: its figures by dotted path, and typed views of them in SI.

Descriptions only: nothing here is ever changed by a prediction, and no result is stored on it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from orchard.hw.derive import Identity
from orchard.hw.engines import Compute, Engine, Fanout, Memory, Node
from orchard.hw.errors import HardwareError
from orchard.hw.figure import Figure
from orchard.hw.schema import FIGURES, TIERS
from orchard.units import DIMENSIONS, did_you_mean


@dataclass(frozen=True, slots=True, kw_only=True)
class CpuCluster:
    """All clusters of one tier: `cores` and `clusters` are totals, rates are per core."""

    tier: str
    cores: int
    clusters: int
    clock_hz: float
    neon_fp32_ops_per_s_peak: float
    l1d_bytes: float | None
    l2_bytes: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class MatrixUnit:
    """AMX or SME: one unit per cluster, saturated by one thread. Peaks are sums; None = no such data type."""

    isa: str
    units: int
    fp32_ops_per_s_peak: float
    fp16_ops_per_s_peak: float | None
    bf16_ops_per_s_peak: float | None
    int8_ops_per_s_peak: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """`matrix_*` are None without matrix units."""

    cores: int
    clock_hz: float
    dies: int
    fp32_ops_per_s_peak: float
    fp16_ops_per_s_peak: float
    matrix_fp16_ops_per_s_peak: float | None
    matrix_bf16_ops_per_s_peak: float | None
    matrix_int8_ops_per_s_peak: float | None
    l1_bytes: float | None
    l2_bytes: float | None
    registers_bytes: float | None
    threadgroup_bytes: float | None

    @property
    def has_matrix_units(self) -> bool:
        return self.matrix_fp16_ops_per_s_peak is not None

    @property
    def matmul_fp16_ops_per_s_peak(self) -> float:
        return self.matrix_fp16_ops_per_s_peak or self.fp16_ops_per_s_peak


@dataclass(frozen=True, slots=True, kw_only=True)
class Ane:
    """Neural Engine; cores and peaks are sums over its engines, rates to DRAM are what one request reaches."""

    engines: int
    cores: int
    clock_hz: float
    fp16_ops_per_s_peak: float
    int8_ops_per_s_peak: float
    weight_bytes_per_s: float
    activation_bytes_per_s: float
    dispatch_s: float
    operand_limit_bytes: float
    kernel_buffer_bytes: float
    max_dim: int
    align_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Dram:
    """`bytes_per_s_peak` is the data-sheet rate; `gpu_limit_bytes` is what the system lets the GPU use by default."""

    kind: str
    bytes_per_s_peak: float
    capacity_bytes: float
    gpu_limit_bytes: float
    energy_j_per_byte: float | None


_ANE_NEEDS = (
    "engines", "clock", "fp16_op_core_cycle", "int8_op_core_cycle", "weight_bandwidth", "activation_bandwidth",
    "dispatch", "operand_limit", "kernel_buffer", "max_dim", "align",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class SoC:
    """A chip or chip variant.

    figures   every figure, known or not, by dotted path; each with value, unit, source, kind and note
    stated    paths the user set (`--set`, or a chip file of their own): no rule recomputes them
    filled    paths whose value the chip file does not have: a rule or a documented assumption gave it
    computed  paths whose value a rule computed
    custom    engines a chip file describes as trees
    runtimes  profiles of a calibrated machine as its file has them; `orchard.cost.profile` reads them
    """

    id: str
    name: str
    family: str = ""
    soc: str = ""
    ane_generation: str = ""
    gpu_generation: str = ""
    released: str = ""
    note: str | None = None
    base: str | None = None
    identity: Identity = field(default_factory=Identity)
    figures: Mapping[str, Figure]
    stated: frozenset[str] = frozenset()
    filled: frozenset[str] = frozenset()
    computed: frozenset[str] = frozenset()
    overrides: Mapping[str, str] = field(default_factory=dict)
    custom: Mapping[str, Engine] = field(default_factory=dict)
    runtimes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def __hash__(self) -> int:
        return hash((self.id, tuple(sorted(self.overrides.items()))))

    def __contains__(self, path: str) -> bool:
        """True when the figure is known."""
        figure = self.figures.get(path)
        return figure is not None and figure.known

    def __getitem__(self, path: str) -> float:
        """SI value of a numeric figure. Raises HardwareError when it is not known or no figure has this path."""
        figure = self.figure(path)
        if figure.value is None:
            raise HardwareError(self._missing([figure]))
        if isinstance(figure.value, str):
            raise HardwareError(f"{self.id}: {path} is the text {figure.value!r}, not a number")
        return figure.si

    def get(self, path: str) -> float | None:
        """SI value, or None when the figure is not known. Raises HardwareError when no figure has this path."""
        return self[path] if self.figure(path).known else None

    def figure(self, path: str) -> Figure:
        """The figure with its source. Raises HardwareError when no figure has this path."""
        if path not in FIGURES:
            raise HardwareError(f"{self.id}: no figure is called {path!r}{did_you_mean(path, FIGURES)}")
        return self.figures.get(path) or Figure(path=path, value=None, unit=FIGURES[path].unit, note="not stated")

    def text(self, path: str) -> str:
        """The text of a figure such as dram.type; "" when not known."""
        value = self.figure(path).value
        return value if isinstance(value, str) else ""

    def parameters(self) -> dict[str, float]:
        """Every known numeric figure in SI, by dotted path."""
        return {path: figure.si for path, figure in self.figures.items() if isinstance(figure.value, int | float)}

    def require(self, *paths: str) -> None:
        """Raises one HardwareError that names every one of these figures that is not known, and how to state it."""
        unknown = [figure for figure in (self.figure(path) for path in paths) if not figure.known]
        if unknown:
            raise HardwareError(self._missing(unknown))

    def _missing(self, figures: list[Figure]) -> str:
        first = figures[0]
        spec = FIGURES[first.path]
        example = DIMENSIONS[spec.dimension].example if spec.dimension in DIMENSIONS else "60"
        remedy = f"state it with --set {first.path}=..., for example {example}"
        if len(figures) > 1:
            listed = ", ".join(figure.path for figure in figures)
            remedy = f"state them, for example --set {first.path}={example}"
            return f"{self.id}: these figures are not known: {listed}; {remedy}"
        note = f" ({first.note})" if first.note else ""
        return f"{self.id}: {first.path}, the {spec.about}, is not known{note}; {remedy}"

    @property
    def has_gpu(self) -> bool:
        return (self.get("gpu.cores") or 0) > 0

    @property
    def has_ane(self) -> bool:
        return (self.get("ane.cores") or 0) > 0

    @property
    def dies(self) -> int:
        """Dies the GPU is spread over."""
        return int(self["package.dies"])

    @cached_property
    def cpu(self) -> tuple[CpuCluster, ...]:
        """Tiers that exist, fastest first. Raises HardwareError when a clock is not known."""
        return tuple(self._cluster(tier) for tier in TIERS if self[f"cpu.{tier}.cores"] > 0)

    def _cluster(self, tier: str) -> CpuCluster:
        at = f"cpu.{tier}."
        return CpuCluster(
            tier=tier, cores=int(self[at + "cores"]), clusters=int(self.get(at + "clusters") or 1),
            clock_hz=self[at + "clock"], neon_fp32_ops_per_s_peak=self[at + "neon_fp32"],
            l1d_bytes=self.get(at + "l1d"), l2_bytes=self.get(at + "l2"),
        )  # fmt: skip

    @cached_property
    def matrix(self) -> MatrixUnit | None:
        """CPU matrix units, None without."""
        if not self.text("cpu.matrix.isa"):
            return None
        return MatrixUnit(
            isa=self.text("cpu.matrix.isa"), units=int(self["cpu.matrix.units"]),
            fp32_ops_per_s_peak=self["cpu.matrix.fp32"], fp16_ops_per_s_peak=self.get("cpu.matrix.fp16"),
            bf16_ops_per_s_peak=self.get("cpu.matrix.bf16"), int8_ops_per_s_peak=self.get("cpu.matrix.int8"),
        )  # fmt: skip

    @cached_property
    def gpu(self) -> Gpu:
        """Raises HardwareError without a GPU, or when its cores, clock or rates are not known."""
        if not self.has_gpu:
            raise HardwareError(f"{self.id} has no GPU; choose another engine or state gpu.cores and gpu.clock")
        self.require(*(f"gpu.{leaf}" for leaf in ("clock", "fp32_flop_core_cycle", "fp16_flop_core_cycle")))
        return Gpu(
            cores=int(self["gpu.cores"]), clock_hz=self["gpu.clock"], dies=self.dies,
            fp32_ops_per_s_peak=self["gpu.fp32"], fp16_ops_per_s_peak=self["gpu.fp16"],
            matrix_fp16_ops_per_s_peak=self.get("gpu.matrix.fp16") or None,
            matrix_bf16_ops_per_s_peak=self.get("gpu.matrix.bf16") or None,
            matrix_int8_ops_per_s_peak=self.get("gpu.matrix.int8") or None,
            l1_bytes=self.get("gpu.l1"), l2_bytes=self.get("gpu.l2"), registers_bytes=self.get("gpu.registers"),
            threadgroup_bytes=self.get("gpu.threadgroup"),
        )  # fmt: skip

    @cached_property
    def ane(self) -> Ane:
        """Raises HardwareError without a Neural Engine, or when its clock or rates are not known."""
        if not self.has_ane:
            raise HardwareError(f"{self.id} has no Neural Engine; choose another engine or state the ane figures")
        self.require(*(f"ane.{leaf}" for leaf in _ANE_NEEDS))
        return Ane(
            engines=int(self["ane.engines"]), cores=int(self["ane.cores"]), clock_hz=self["ane.clock"],
            fp16_ops_per_s_peak=self["ane.fp16"], int8_ops_per_s_peak=self["ane.int8"],
            weight_bytes_per_s=self["ane.weight_bandwidth"], activation_bytes_per_s=self["ane.activation_bandwidth"],
            dispatch_s=self["ane.dispatch"], operand_limit_bytes=self["ane.operand_limit"],
            kernel_buffer_bytes=self["ane.kernel_buffer"], max_dim=int(self["ane.max_dim"]),
            align_bytes=int(self["ane.align"]),
        )  # fmt: skip

    @cached_property
    def dram(self) -> Dram:
        """Raises HardwareError when bandwidth or capacity is not known."""
        return Dram(
            kind=self.text("dram.type"), bytes_per_s_peak=self["dram.bandwidth"],
            capacity_bytes=self["dram.capacity"], gpu_limit_bytes=self["dram.gpu_limit"],
            energy_j_per_byte=self.get("dram.energy"),
        )  # fmt: skip

    @cached_property
    def engines(self) -> Mapping[str, Engine]:
        """Engines whose figures are known, by name: cpu, gpu, ane, then those of the chip file."""
        built: dict[str, Engine] = {}
        for name, build in (("cpu", self._cpu_engine), ("gpu", self._gpu_engine), ("ane", self._ane_engine)):
            try:
                engine = build()
            except HardwareError:
                continue  # not on this chip, or not known well enough; engine(name) says which
            built[name] = engine
        return {**built, **self.custom}

    def engine(self, name: str) -> Engine:
        """One engine. Raises HardwareError when it is not there, or names the figure that is not known."""
        if name in self.custom:
            return self.custom[name]
        builders = {"cpu": self._cpu_engine, "gpu": self._gpu_engine, "ane": self._ane_engine}
        if name not in builders:
            names = [*builders, *self.custom]
            raise HardwareError(f"{self.id}: no engine {name!r}, expected one of {', '.join(names)}")
        return builders[name]()

    def _shared(self, *children: Node) -> Memory:
        """DRAM, with the system-level cache below it where there is one."""
        below = children
        if (self.get("slc.size") or 0) > 0:
            slc = Memory(
                name="slc", size_bytes=self["slc.size"], energy_j_per_byte=self.get("slc.energy"), children=children
            )
            below = (slc,)
        return Memory(
            name="dram", size_bytes=self["dram.capacity"], read_bytes_per_s=self["dram.bandwidth"],
            energy_j_per_byte=self.get("dram.energy"), children=below,
        )  # fmt: skip

    def _cpu_engine(self) -> Engine:
        if not self.cpu:
            raise HardwareError(f"{self.id} has no CPU cores; state cpu.p.cores and cpu.p.clock")
        # matrix units work from the L2 of their cluster; the fastest tier stands for all
        fastest, *others = self.cpu
        tiers = (self._tier_node(fastest, *self._matrix_nodes()), *(self._tier_node(c) for c in others))
        return Engine(name="cpu", root=self._shared(*tiers), clock_hz=fastest.clock_hz)

    def _tier_node(self, cluster: CpuCluster, *units: Node) -> Node:
        rate = cluster.neon_fp32_ops_per_s_peak
        neon = Compute(name="neon", ops_per_s={"f32": rate, "f16": 2 * rate, "int8": 4 * rate})
        core: Node = Memory(name=f"{cluster.tier}.l1d", size_bytes=cluster.l1d_bytes, children=(neon,))
        cores = Fanout(name=f"{cluster.tier}.cores", count=cluster.cores, children=(core,))
        # cores are counted over all clusters of the tier, so the L2 below DRAM is the sum of theirs
        l2 = None if cluster.l2_bytes is None else cluster.l2_bytes * cluster.clusters
        return Memory(name=f"{cluster.tier}.l2", size_bytes=l2, children=(cores, *units))

    def _matrix_nodes(self) -> tuple[Node, ...]:
        unit = self.matrix
        if unit is None:
            return ()
        rates = {
            "f32": unit.fp32_ops_per_s_peak, "f16": unit.fp16_ops_per_s_peak, "bf16": unit.bf16_ops_per_s_peak,
            "int8": unit.int8_ops_per_s_peak,
        }  # fmt: skip
        known = {dtype: rate for dtype, rate in rates.items() if rate}
        return (Compute(name=unit.isa, ops_per_s=known, ops=frozenset({"matmul"})),)

    def _gpu_engine(self) -> Engine:
        gpu = self.gpu
        per_core = {"f32": gpu.fp32_ops_per_s_peak / gpu.cores, "f16": gpu.fp16_ops_per_s_peak / gpu.cores}
        units: list[Node] = [Compute(name="shader", ops_per_s=per_core)]
        matrix = {
            "f16": gpu.matrix_fp16_ops_per_s_peak, "bf16": gpu.matrix_bf16_ops_per_s_peak,
            "int8": gpu.matrix_int8_ops_per_s_peak,
        }  # fmt: skip
        rates = {dtype: rate / gpu.cores for dtype, rate in matrix.items() if rate}
        if rates:
            # tiles of 32 x 32 or larger reach the peak (parameters: gpu_na_tile_min)
            units.append(Compute(name="matrix", ops_per_s=rates, ops=frozenset({"matmul", "conv"}), min_tile=32))
        registers = Memory(name="registers", size_bytes=gpu.registers_bytes, children=tuple(units))
        # operands are staged for the threads of a group; sums stay in registers
        threadgroup = Memory(
            name="threadgroup", size_bytes=gpu.threadgroup_bytes, holds=frozenset("IW"), children=(registers,)
        )
        cores = Fanout(name="cores", count=gpu.cores, children=(threadgroup,))
        l2 = Memory(name="gpu.l2", size_bytes=gpu.l2_bytes, children=(cores,))
        return Engine(name="gpu", root=self._shared(l2), clock_hz=gpu.clock_hz)

    def _ane_engine(self) -> Engine:
        ane = self.ane
        rates = {"f16": ane.fp16_ops_per_s_peak / ane.cores, "int8": ane.int8_ops_per_s_peak / ane.cores}
        mac = Compute(name="mac", ops_per_s=rates, align_bytes=ane.align_bytes, max_dim=ane.max_dim)
        buffer = Memory(name="kernel_buffer", size_bytes=ane.kernel_buffer_bytes, holds=frozenset("W"), children=(mac,))
        # output channels are dealt to the cores, which all see the same input [751k-m6]
        cores = Fanout(name="cores", count=max(1, ane.cores // ane.engines), multicast=True, children=(buffer,))
        operand = Memory(name="ane.l2", size_bytes=ane.operand_limit_bytes, children=(cores,))
        engines = Fanout(name="engines", count=ane.engines, children=(operand,))
        return Engine(name="ane", root=self._shared(engines), dispatch_s=ane.dispatch_s, clock_hz=ane.clock_hz)

    def known_figures(self) -> Iterator[Figure]:
        """Figures in the order of the schema, the unknown ones included."""
        for path in FIGURES:
            if path in self.figures:
                yield self.figures[path]
