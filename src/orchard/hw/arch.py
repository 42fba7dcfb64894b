"""Accelerator descriptions for the mapper: memory levels from the outside in, fan-outs, a compute leaf, a vector unit.

An architecture is a data file. Counts are in words of `word_bits`; energy is in pJ per word, bandwidth in words per cycle and
per instance. Capacity is the whole usable buffer: `buffering` says how transfers meet compute.

    overlap   transfers run beside compute and may use the whole capacity (what Timeloop and AccelForge assume)
    double    transfers run beside compute, and a tile may take half of the capacity
    single    transfers stop compute: their time is added
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any, Literal, get_args

from orchard.units.errors import OrchardError

Buffering = Literal["overlap", "double", "single"]
Role = str
"""`I` first input, `W` second input, `O` output; further inputs are `I3`, `I4`, …"""

DIM_CLASSES = ("rows", "columns", "reduction", "batch")
"""Dim classes for constraints: rows stand in I and O, columns in W and O, reduction in no output, batch in I, W and O."""


class ArchError(OrchardError):
    """An architecture file or a field of it that the user can correct."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Level:
    """One memory level. `capacity_words` is None for unlimited, one number shared by all tensors, or one per role."""

    name: str
    capacity_words: int | Mapping[Role, int] | None = None
    read_energy_pj: float = 0.0
    write_energy_pj: float = 0.0
    bandwidth: float | None = None  # words per cycle, reads and writes together
    read_bandwidth: float | None = None
    write_bandwidth: float | None = None
    keep: frozenset[Role] | None = None  # roles that must stay here; None: all that the capacity names
    may_keep: frozenset[Role] = frozenset()  # roles that may stay here or pass by
    buffering: Buffering = "overlap"
    order: tuple[Role, ...] | None = None  # outermost first; None: any order

    def __post_init__(self) -> None:
        capacities = (
            self.capacity_words.values() if isinstance(self.capacity_words, Mapping) else (self.capacity_words,)
        )
        for words in capacities:
            if words is not None and words <= 0:
                raise ArchError(f"level {self.name!r}: capacity is {words} words, expected > 0")
        for label in ("bandwidth", "read_bandwidth", "write_bandwidth"):
            value = getattr(self, label)
            if value is not None and value <= 0:
                raise ArchError(f"level {self.name!r}: {label} is {value}, expected > 0 words per cycle")
        if self.read_energy_pj < 0 or self.write_energy_pj < 0:
            raise ArchError(f"level {self.name!r}: energy is negative, expected >= 0 pJ per word")

    def may_hold(self, role: Role) -> bool:
        return role in self.may_keep or self.must_hold(role)

    def must_hold(self, role: Role) -> bool:
        if role in self.may_keep:
            return False
        if self.keep is not None:
            return role in self.keep
        return role in self.capacity_words if isinstance(self.capacity_words, Mapping) else True

    def words_for(self, role: Role) -> int | None:
        """Capacity open to `role` alone; None: unlimited. Half of the buffer where it is double-buffered."""
        words = self.capacity_words.get(role, 0) if isinstance(self.capacity_words, Mapping) else self.capacity_words
        return words if words is None or self.buffering != "double" else words // 2

    @property
    def is_partitioned(self) -> bool:
        """Whether every role has its own space, so that roles do not compete."""
        return isinstance(self.capacity_words, Mapping)


@dataclass(frozen=True, slots=True, kw_only=True)
class FanOut:
    """Copies of everything below, along named axes. `dims` limits what may be unrolled on an axis (dim names or classes)."""

    name: str
    axes: Mapping[str, int]
    dims: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    multicast: bool = True  # one read above serves all copies that want the same word
    reduce: bool = True  # partial sums of copies meet on the way up

    def __post_init__(self) -> None:
        for axis, size in self.axes.items():
            if size < 1:
                raise ArchError(f"fan-out {self.name!r}: axis {axis} has {size} copies, expected >= 1")
        for axis in self.dims:
            if axis not in self.axes:
                raise ArchError(f"fan-out {self.name!r}: dims name axis {axis!r}, known: {', '.join(self.axes)}")

    @property
    def copies(self) -> int:
        total = 1
        for size in self.axes.values():
            total *= size
        return total


@dataclass(frozen=True, slots=True, kw_only=True)
class Compute:
    """The leaf: one MAC lane. `rate_by_bits` and `energy_by_bits` apply to the widest input's width, else the defaults."""

    name: str = "MAC"
    energy_pj: float = 0.0
    macs_per_cycle: float = 1.0
    rate_by_bits: Mapping[int, float] = field(default_factory=dict)
    energy_by_bits: Mapping[int, float] = field(default_factory=dict)

    def rate(self, bits: float) -> float:
        return self.rate_by_bits.get(int(bits), self.macs_per_cycle)

    def energy(self, bits: float) -> float:
        return self.energy_by_bits.get(int(bits), self.energy_pj)


@dataclass(frozen=True, slots=True, kw_only=True)
class VectorUnit:
    """Lanes beside memory level `beside` for elementwise work and softmax; `ops_per_element` by op kind.

    `overlap`: the unit works on one tile while the MACs work on another. Otherwise they take turns."""

    lanes: int
    energy_pj: float
    beside: str
    overlap: bool = True
    ops_per_element: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """Levels and fan-outs from the outside in; the first is a level that holds every tensor."""

    name: str
    nodes: tuple[Level | FanOut, ...]
    compute: Compute
    vector: VectorUnit | None = None
    word_bits: int = 16
    clock_hz: float = 1e9

    def __post_init__(self) -> None:
        if not self.nodes or not isinstance(self.nodes[0], Level):
            raise ArchError(f"architecture {self.name!r}: the first node is no memory level")
        names = [node.name for node in self.nodes] + [self.compute.name]
        for name in names:
            if names.count(name) > 1:
                raise ArchError(f"architecture {self.name!r}: two nodes are called {name!r}")
        axes = [axis for fan in self.fan_outs for axis in fan.axes]
        for axis in axes:
            if axes.count(axis) > 1:
                raise ArchError(
                    f"architecture {self.name!r}: axis {axis!r} stands in two fan-outs, expected distinct names"
                )
        if self.vector is not None and self.vector.beside not in {level.name for level in self.levels}:
            raise ArchError(
                f"architecture {self.name!r}: vector unit stands beside {self.vector.beside!r}, which is no level"
            )

    @property
    def levels(self) -> tuple[Level, ...]:
        return tuple(node for node in self.nodes if isinstance(node, Level))

    @property
    def fan_outs(self) -> tuple[FanOut, ...]:
        return tuple(node for node in self.nodes if isinstance(node, FanOut))

    @property
    def lanes(self) -> int:
        total = 1
        for fan in self.fan_outs:
            total *= fan.copies
        return total

    def level(self, name: str) -> Level:
        for level in self.levels:
            if level.name == name:
                return level
        raise ArchError(
            f"architecture {self.name!r}: no level {name!r}, known: {', '.join(x.name for x in self.levels)}"
        )

    def fan_out_of(self, axis: str) -> FanOut:
        for fan in self.fan_outs:
            if axis in fan.axes:
                return fan
        known = ", ".join(a for fan in self.fan_outs for a in fan.axes) or "none"
        raise ArchError(f"architecture {self.name!r}: no axis {axis!r}, known: {known}")


_LEVEL_KEYS = {
    "name", "capacity", "energy", "read_energy", "write_energy", "bandwidth", "read_bandwidth", "write_bandwidth",
    "keep", "may_keep", "buffering", "order",
}  # fmt: skip
_FAN_KEYS = {"fanout", "axes", "dims", "multicast", "reduce"}
_COMPUTE_KEYS = {"name", "energy", "macs_per_cycle", "rate_by_bits", "energy_by_bits"}
_VECTOR_KEYS = {"lanes", "energy", "beside", "overlap", "ops_per_element"}
_TOP_KEYS = {"name", "word_bits", "clock_hz", "nodes", "compute", "vector", "source"}


def shipped_archs() -> tuple[str, ...]:
    """Names of the architecture files that ship with the package."""
    folder = resources.files("orchard.hw") / "archs"
    return tuple(sorted(entry.name[:-5] for entry in folder.iterdir() if entry.name.endswith(".yaml")))


def load_arch(path_or_name: str | Path) -> Architecture:
    """Read an architecture: a shipped name (`E16`) or a YAML file. Raises ArchError that names the file and the field."""
    import yaml

    path = Path(path_or_name)
    stem = str(path_or_name).removesuffix(".yaml")
    if path.is_file():
        text = path.read_text(encoding="utf-8", errors="replace")
    elif stem in shipped_archs():
        text = (resources.files("orchard.hw") / "archs" / f"{stem}.yaml").read_text(encoding="utf-8")
    else:
        known = ", ".join(shipped_archs())
        raise ArchError(
            f"architecture {str(path_or_name)!r}: no such file and no shipped architecture (shipped: {known})"
        )
    try:
        data = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError) as error:
        line = getattr(getattr(error, "problem_mark", None), "line", None)
        where = f", line {line + 1}" if line is not None else ""
        raise ArchError(f"architecture {path_or_name}{where}: not valid YAML") from None
    return architecture_from(data, str(path_or_name))


def architecture_from(data: Any, where: str = "architecture") -> Architecture:
    """Build an Architecture from plain data (what the YAML file holds). `where` starts every error."""
    top = _mapping(data, where)
    _known(top, _TOP_KEYS, where)
    nodes_data = top.get("nodes")
    if not isinstance(nodes_data, list) or not nodes_data:
        raise ArchError(f"{where}: nodes is {nodes_data!r}, expected a list of levels and fan-outs, outermost first")
    nodes: list[Level | FanOut] = []
    for position, entry in enumerate(nodes_data):
        here = f"{where}: nodes[{position}]"
        node = _mapping(entry, here)
        nodes.append(_fan_out(node, here) if "fanout" in node else _level(node, here))
    return Architecture(
        name=str(top.get("name", Path(where).stem)),
        nodes=tuple(nodes),
        compute=_compute(_mapping(top.get("compute", {}), f"{where}: compute"), f"{where}: compute"),
        vector=_vector(_mapping(top["vector"], f"{where}: vector"), f"{where}: vector") if "vector" in top else None,
        word_bits=_integer(top.get("word_bits", 16), f"{where}: word_bits"),
        clock_hz=_number(top.get("clock_hz", 1e9), f"{where}: clock_hz"),
    )


def _level(node: dict[str, Any], where: str) -> Level:
    _known(node, _LEVEL_KEYS, where)
    if "name" not in node:
        raise ArchError(f"{where}: no name, expected e.g. 'name: GLB'")
    capacity = node.get("capacity")
    words: int | dict[str, int] | None
    if isinstance(capacity, dict):
        words = {str(role): _integer(value, f"{where}: capacity.{role}") for role, value in capacity.items()}
    else:
        words = None if capacity is None else _integer(capacity, f"{where}: capacity")
    energy = _number(node.get("energy", 0.0), f"{where}: energy")
    buffering = node.get("buffering", "overlap")
    if buffering not in get_args(Buffering):
        raise ArchError(f"{where}: buffering is {buffering!r}, expected one of {', '.join(get_args(Buffering))}")
    return Level(
        name=str(node["name"]),
        capacity_words=words,
        read_energy_pj=_number(node.get("read_energy", energy), f"{where}: read_energy"),
        write_energy_pj=_number(node.get("write_energy", energy), f"{where}: write_energy"),
        bandwidth=_optional(node, "bandwidth", where),
        read_bandwidth=_optional(node, "read_bandwidth", where),
        write_bandwidth=_optional(node, "write_bandwidth", where),
        keep=frozenset(_names(node["keep"], f"{where}: keep")) if "keep" in node else None,
        may_keep=frozenset(_names(node.get("may_keep", []), f"{where}: may_keep")),
        buffering=buffering,
        order=_names(node["order"], f"{where}: order") if "order" in node else None,
    )


def _fan_out(node: dict[str, Any], where: str) -> FanOut:
    _known(node, _FAN_KEYS, where)
    axes = _mapping(node.get("axes", {}), f"{where}: axes")
    if not axes:
        raise ArchError(f"{where}: no axes, expected e.g. 'axes: {{X: 16, Y: 16}}'")
    dims = _mapping(node.get("dims", {}), f"{where}: dims")
    return FanOut(
        name=str(node["fanout"]),
        axes={str(axis): _integer(size, f"{where}: axes.{axis}") for axis, size in axes.items()},
        dims={str(axis): _names(names, f"{where}: dims.{axis}") for axis, names in dims.items()},
        multicast=_boolean(node.get("multicast", True), f"{where}: multicast"),
        reduce=_boolean(node.get("reduce", True), f"{where}: reduce"),
    )


def _compute(node: dict[str, Any], where: str) -> Compute:
    _known(node, _COMPUTE_KEYS, where)
    by_bits: dict[str, dict[int, float]] = {}
    for key in ("rate_by_bits", "energy_by_bits"):
        table = _mapping(node.get(key, {}), f"{where}: {key}")
        by_bits[key] = {_integer(b, f"{where}: {key}"): _number(v, f"{where}: {key}.{b}") for b, v in table.items()}
    rate = _number(node.get("macs_per_cycle", 1.0), f"{where}: macs_per_cycle")
    if rate <= 0:
        raise ArchError(f"{where}: macs_per_cycle is {rate}, expected > 0")
    return Compute(
        name=str(node.get("name", "MAC")),
        energy_pj=_number(node.get("energy", 0.0), f"{where}: energy"),
        macs_per_cycle=rate,
        rate_by_bits=by_bits["rate_by_bits"],
        energy_by_bits=by_bits["energy_by_bits"],
    )


def _vector(node: dict[str, Any], where: str) -> VectorUnit:
    _known(node, _VECTOR_KEYS, where)
    for key in ("lanes", "beside"):
        if key not in node:
            raise ArchError(f"{where}: no {key}")
    ops = _mapping(node.get("ops_per_element", {}), f"{where}: ops_per_element")
    return VectorUnit(
        lanes=_integer(node["lanes"], f"{where}: lanes"),
        energy_pj=_number(node.get("energy", 0.0), f"{where}: energy"),
        beside=str(node["beside"]),
        overlap=_boolean(node.get("overlap", True), f"{where}: overlap"),
        ops_per_element={str(k): _integer(v, f"{where}: ops_per_element.{k}") for k, v in ops.items()},
    )


def _mapping(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ArchError(f"{where}: got {type(value).__name__}, expected 'key: value' pairs")
    return value


def _known(node: dict[str, Any], keys: set[str], where: str) -> None:
    for key in node:
        if key not in keys:
            raise ArchError(f"{where}: unknown key {key!r}, known: {', '.join(sorted(keys))}")


def _number(value: Any, where: str) -> float:
    if isinstance(value, str) and re.fullmatch(r"\d+(\.\d*)?[eE]\d+", value):
        value = float(value)  # YAML 1.1 reads 1.0e9 as text, for want of a sign
    if isinstance(value, bool) or not isinstance(value, int | float) or not value >= 0 or value == float("inf"):
        raise ArchError(f"{where}: got {value!r}, expected a number >= 0")
    return float(value)


def _optional(node: dict[str, Any], key: str, where: str) -> float | None:
    return None if node.get(key) is None else _number(node[key], f"{where}: {key}")


def _integer(value: Any, where: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ArchError(f"{where}: got {value!r}, expected a whole number >= 1")
    return value


def _boolean(value: Any, where: str) -> bool:
    if not isinstance(value, bool):
        raise ArchError(f"{where}: got {value!r}, expected true or false")
    return value


def _names(value: Any, where: str) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise ArchError(f"{where}: got {value!r}, expected a list of names")
    return tuple(str(name) for name in value)
