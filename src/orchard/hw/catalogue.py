"""Chips by name: the catalogue of this package, chips under other spellings, and chips in the user's own YAML files."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from orchard.hw.derive import complete, identity_of
from orchard.hw.engines import Compute, Engine, Fanout, Memory, Node
from orchard.hw.errors import HardwareError
from orchard.hw.figure import KINDS, Figure, check_sane, figure_from_text, si_factor
from orchard.hw.schema import FIGURES, FigureSpec
from orchard.hw.soc import SoC
from orchard.hw.yamlfile import read_trusted, read_untrusted
from orchard.units import UnitError, did_you_mean, parse_quantity, unit_to_si

_DATA = Path(__file__).parent
_IDENTITY = ("id", "name", "base", "family", "soc", "ane_generation", "gpu_generation", "released", "note")
_SECTIONS = frozenset(path.partition(".")[0] for path in FIGURES)


@dataclass(frozen=True, slots=True)
class ChipSummary:
    """One line of the catalogue; None where the figure is not known. `base` is set for bins of another entry."""

    id: str
    name: str
    family: str
    released: str
    base: str | None
    cpu_cores: int
    gpu_cores: int
    dram_bytes_per_s: float
    dram_capacity_max_bytes: float | None
    ane_fp16_ops_per_s: float | None


@lru_cache(maxsize=1)
def chip_summaries() -> tuple[ChipSummary, ...]:
    """Every chip of the catalogue, families together, in the order of release. Reads the index file only."""
    return tuple(ChipSummary(**row) for row in json.loads((_DATA / "index.json").read_text()))


def chip_ids() -> list[str]:
    """Ids of the catalogue in its order."""
    return [chip.id for chip in chip_summaries()]


def load_chip(id_or_path: str | Path, overrides: Mapping[str, str | float] | Sequence[str] = ()) -> SoC:
    """A chip by catalogue id ("m4max"), natural spelling ("M4 Max 32-core GPU") or YAML file, with figures overridden.

    `overrides`: {"gpu.cores": "60"} or ["gpu.cores=60"]; text with a unit, or a bare number in SI. Peaks and other
    derived figures follow. Raises HardwareError for an unknown chip, an unknown or absurd figure or a bad file.
    """
    changes = parse_overrides(overrides)
    text = str(id_or_path)
    if isinstance(id_or_path, Path) or "/" in text or text.lower().endswith((".yaml", ".yml")):
        return _finish(_load_file(Path(id_or_path)), changes)
    if text not in chip_ids():
        own = machine_file(text)
        if own is not None:
            return _finish(_load_file(own), changes)
        text = find_chip(text)
    return _built_in(text) if not changes else _finish(_raw_chip(text), changes)


def machines_folder() -> Path:
    """Where `orchard calibrate` keeps calibrated machines: `orchard/machines` in the user's configuration folder."""
    root = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Path(root) / "orchard" / "machines"


def machine_file(name: str) -> Path | None:
    """The file of a calibrated machine by its name; None where there is none."""
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]{0,63}", name):
        return None
    path = machines_folder() / f"{name}.yaml"
    return path if path.is_file() else None


def find_chip(name: str, gpu_cores: float | None = None, cpu_cores: float | None = None) -> str:
    """Catalogue id of a chip named as people write it: "M1 Max", "Apple M4 Max (32-core GPU)", "A15 Bionic", "m4-max".

    Core counts (None or NaN: not known) choose the bin; a count in the name does too. Without one it is the full chip.
    Where no bin has both counts the GPU count decides. Raises HardwareError with the nearest names, or with the bins.
    """
    gpu_cores, cpu_cores = (None if count is None or count != count else count for count in (gpu_cores, cpu_cores))
    if not isinstance(name, str) or len(name) > 80:
        raise HardwareError(f"chip {str(name)[:40]!r} is not known, expected one such as m4max")
    stated = re.search(r"(\d+)[- ]core gpu|gpu[ _-]?(\d+)", name, re.IGNORECASE)
    key = re.sub(r"\(.*?\)|\bapple\b|\bbionic\b|\d+[- ]core gpu|gpu[ _-]?\d+|cpu[ _-]?\d+|[\s_-]", "", name.lower())
    chips = {chip.id: chip for chip in chip_summaries()}
    exact = re.sub(r"[\s-]", "_", name.strip().lower())
    if exact in chips and gpu_cores is None and cpu_cores is None:
        return exact
    if key not in chips:
        hint = did_you_mean(name, chips) or "; `orchard chips` lists the catalogue"
        raise HardwareError(f"chip {name!r} is not known{hint}")
    root = chips[key].base or key
    in_name = float(stated[1] or stated[2]) if stated else None
    bins = [chip for chip in chips.values() if root in (chip.id, chip.base)]
    return _choose_bin(name, bins, gpu_cores or in_name, cpu_cores).id


def _choose_bin(name: str, bins: list[ChipSummary], gpu: float | None, cpu: float | None) -> ChipSummary:
    fits_gpu = [chip for chip in bins if gpu is None or chip.gpu_cores == gpu]
    if not fits_gpu:
        known = ", ".join(f"{chip.id} ({chip.gpu_cores})" for chip in bins)
        raise HardwareError(f"chip {name!r} with {gpu:g} GPU cores is not known; the catalogue has {known}")
    fits_both = [chip for chip in fits_gpu if cpu is None or chip.cpu_cores == cpu]
    return (fits_both or fits_gpu)[0]


def parse_overrides(overrides: Mapping[str, str | float] | Sequence[str]) -> dict[str, str | float]:
    """{"gpu.cores": "60"} from a mapping or from "gpu.cores=60" texts. Raises HardwareError."""
    if isinstance(overrides, Mapping):
        return dict(overrides)
    changes: dict[str, str | float] = {}
    for text in [overrides] if isinstance(overrides, str) else overrides:
        path, equals, value = str(text).partition("=")
        if not equals or not path.strip() or not value.strip():
            raise HardwareError(f"--set {str(text)[:60]!r}: expected figure=value such as gpu.cores=60")
        changes[path.strip()] = value.strip()
    return changes


@dataclass(frozen=True, slots=True)
class _Raw:
    """A chip before fills, rules and overrides."""

    identity: Mapping[str, Any]
    figures: Mapping[str, Figure]
    stated: frozenset[str]
    custom: Mapping[str, Engine]
    runtimes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


@lru_cache(maxsize=128)
def _built_in(chip_id: str) -> SoC:
    return _finish(_raw_chip(chip_id), {})


@lru_cache(maxsize=128)
def _raw_chip(chip_id: str) -> _Raw:
    data = read_trusted(_DATA / "chips" / f"{chip_id}.yaml")
    figures: dict[str, Figure] = {}
    if data["base"] is not None:
        figures.update(_raw_chip(data["base"]).figures)
    for section in _SECTIONS.intersection(data):
        _collect_trusted(section, data[section], figures)
    identity = {key: data.get(key) for key in _IDENTITY}
    return _Raw({**identity, "root": chip_id}, figures, frozenset(), {})


def _collect_trusted(at: str, node: dict[str, Any], into: dict[str, Figure]) -> None:
    for key, child in node.items():
        path = f"{at}.{key}"
        if "value" in child:
            unit = child.get("unit") or FIGURES[path].unit
            into[path] = Figure(
                path=path, value=child["value"], unit=unit, source=child.get("source"), kind=child.get("kind"),
                note=child.get("note"),
            )  # fmt: skip
        else:
            _collect_trusted(path, child, into)


def _finish(raw: _Raw, changes: Mapping[str, str | float]) -> SoC:
    figures = dict(raw.figures)
    for path, given in changes.items():
        if path not in FIGURES:
            raise HardwareError(f"--set {path[:60]}: no figure has this name{did_you_mean(path, FIGURES)}")
        figures[path] = figure_from_text(FIGURES[path], given, where=f"--set {path}", source="--set")
    stated = raw.stated | changes.keys()
    text = {key: str(raw.identity.get(key) or "") for key in _IDENTITY}
    identity = identity_of(raw.identity.get("root") or "", text["family"], text["ane_generation"])
    done, computed = complete(figures, identity, stated)
    known_before = {path for path, figure in figures.items() if figure.known}
    filled = frozenset(path for path, figure in done.items() if figure.known and path not in known_before)
    return SoC(
        id=text["id"], name=text["name"], family=text["family"], soc=text["soc"],
        ane_generation=text["ane_generation"], gpu_generation=text["gpu_generation"], released=text["released"],
        note=raw.identity.get("note"), base=raw.identity.get("base"), identity=identity, figures=done, stated=stated,
        filled=filled, computed=computed, overrides={path: str(given) for path, given in changes.items()},
        custom=raw.custom, runtimes=raw.runtimes,
    )  # fmt: skip


# ------------------------------------------------------------------------------------------------ the user's own files


def _load_file(path: Path) -> _Raw:
    """A chip file: complete, or `base: m4max` plus what differs. Figures are nested, dotted or mixed."""
    data = read_untrusted(path)
    known = {*_IDENTITY, *_SECTIONS, "engines", "runtimes"}
    for key in data:
        section = str(key).partition(".")[0]
        if not isinstance(key, str) or (key not in known and (section == key or section not in _SECTIONS)):
            raise HardwareError(f"{path}: the key {str(key)[:40]!r} is not known{did_you_mean(str(key), known)}")
    base = _base_of(path, data)
    stated: dict[str, Figure] = {}
    for key, node in data.items():
        if key.partition(".")[0] in _SECTIONS:
            _collect(path, key, node, stated)
    identity = {**(dict(base.identity) if base else {}), **_identity(path, data)}
    identity["base"] = data.get("base")
    custom = {**(base.custom if base else {}), **_custom_engines(path, data.get("engines"))}
    return _Raw(identity, {**(base.figures if base else {}), **stated}, frozenset(stated), custom, _runtimes(path, data))


def _runtimes(path: Path, data: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """runtimes: {name: profile}: what software makes of this machine. Profiles are read where they are used (orchard.cost)."""
    node = data.get("runtimes") or {}
    if not isinstance(node, dict) or not all(isinstance(k, str) and isinstance(v, dict) for k, v in node.items()):
        raise HardwareError(f"{path}: runtimes: expected a mapping of names to profiles, as `orchard calibrate` writes them")
    return dict(node)


def _base_of(path: Path, data: Mapping[str, Any]) -> _Raw | None:
    base = data.get("base")
    if base is None:
        return None
    if not isinstance(base, str):
        raise HardwareError(f"{path}: base is {base!r:.40}, expected a catalogue id such as m4max")
    try:
        return _raw_chip(find_chip(base) if base not in chip_ids() else base)
    except HardwareError as error:
        raise HardwareError(f"{path}: base: {error}") from None


def _identity(path: Path, data: Mapping[str, Any]) -> dict[str, str]:
    found = {"id": path.stem, "name": path.stem}
    for key in _IDENTITY:
        value = data.get(key)
        if value is None or key == "base":
            continue
        text = str(value) if key == "released" else value
        if not isinstance(text, str) or not 0 < len(text) <= 200 or not text.isprintable():
            raise HardwareError(f"{path}: {key} is {value!r:.40}, expected a short text")
        found[key] = text
    return found


def _collect(file: Path, at: str, node: object, into: dict[str, Figure]) -> None:
    """Figures below the dotted path `at`: a leaf is a bare value, or a mapping with value, unit, source, kind, note."""
    where = f"{file}: {at}"
    if at in FIGURES:
        if at in into:
            raise HardwareError(f"{where} is stated twice")
        into[at] = _leaf(FIGURES[at], node, where, file.name)
        return
    if not any(path.startswith(at + ".") for path in FIGURES):
        shown = at if at.isprintable() else ascii(at[:60])
        raise HardwareError(f"{file}: {shown}: no figure has this name{did_you_mean(at, FIGURES)}")
    if not isinstance(node, dict):
        raise HardwareError(f"{where}: got {node!r:.40}, expected figures below it such as {_first_below(at)}")
    for key, child in node.items():
        _collect(file, f"{at}.{key}", child, into)


def _first_below(at: str) -> str:
    return next(path for path in FIGURES if path.startswith(at + "."))


def _leaf(spec: FigureSpec, node: object, where: str, source: str) -> Figure:
    if node is None:
        return Figure(path=spec.path, value=None, unit=spec.unit, note=f"left open in {source}")
    if not isinstance(node, dict):
        return figure_from_text(spec, node, where=where, source=source)
    for key in node:
        if key not in ("value", "unit", "source", "kind", "note"):
            expected = "expected value, unit, source, kind, note"
            raise HardwareError(f"{where}: the key {str(key)[:40]!r} is not known, {expected}")
    for key in ("unit", "source", "kind", "note"):
        if node.get(key) is not None and not (isinstance(node[key], str) and len(node[key]) <= 400):
            raise HardwareError(f"{where}: {key} is {node[key]!r:.40}, expected a short text")
    kind = node.get("kind") or "user"
    if kind not in KINDS:
        raise HardwareError(f"{where}: kind is {kind!r:.40}, expected one of {', '.join(KINDS)}")
    value, unit, note = node.get("value"), node.get("unit"), node.get("note")
    if value is None:
        return Figure(path=spec.path, value=None, unit=spec.unit, note=note or f"left open in {source}")
    if unit is None or spec.is_text or isinstance(value, str):
        figure = figure_from_text(spec, value, where=where, source=node.get("source") or source, kind=kind)
        return Figure(path=spec.path, value=figure.value, unit=figure.unit, source=figure.source, kind=kind, note=note)
    return _with_unit(spec, value, unit, where, Figure(
        path=spec.path, value=None, unit=unit, source=node.get("source") or source, kind=kind, note=note
    ))  # fmt: skip


def _with_unit(spec: FigureSpec, value: object, unit: str, where: str, blank: Figure) -> Figure:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise HardwareError(f"{where}: got {value!r:.40}, expected a number in {unit}")
    try:
        if unit not in ("count", "elements", "fraction"):
            dimension = unit_to_si(unit, where=where)[1]
            same = dimension == spec.dimension or {dimension, spec.dimension} <= {"count", "fraction"}
            if not same:
                raise HardwareError(f"{where}: unit {unit!r} does not fit, expected one such as {spec.unit}")
        elif spec.dimension not in ("count", "fraction", "ops", "hz"):
            raise HardwareError(f"{where}: unit {unit!r} does not fit, expected one such as {spec.unit}")
        check_sane(spec, float(value) * si_factor(unit), where)
    except UnitError as error:
        raise HardwareError(str(error)) from None
    except OverflowError:
        raise HardwareError(f"{where}: got a number that is too large") from None
    return Figure(path=spec.path, value=value, unit=unit, source=blank.source, kind=blank.kind, note=blank.note)


def _custom_engines(path: Path, node: object) -> dict[str, Engine]:
    """engines: {npu: {dispatch: 50us, tree: [{memory: ...}, {fanout: ...}, {compute: ...}]}}; outermost first."""
    if node is None:
        return {}
    if not isinstance(node, dict):
        raise HardwareError(f"{path}: engines: got {node!r:.40}, expected a mapping of names to trees")
    names = {str(name)[:60]: child for name, child in node.items()}
    return {name: _custom_engine(f"{path}: engines.{name}", name, child) for name, child in names.items()}


def _custom_engine(where: str, name: str, node: object) -> Engine:
    if name in ("cpu", "gpu", "ane"):
        raise HardwareError(f"{where}: this name is taken; describe the {name} by its figures, or choose another name")
    fields = _fields(where, node, required=("tree",), optional=("dispatch",))
    tree = fields["tree"]
    if not isinstance(tree, list) or not 2 <= len(tree) <= 64:
        raise HardwareError(f"{where}.tree: expected a list of memory, fanout and compute entries, outermost first")
    children: tuple[Node, ...] = ()
    for index in range(len(tree) - 1, -1, -1):
        at = f"{where}.tree[{index}]"
        kind, body = _only_entry(at, tree[index])
        if kind == "compute":
            if any(not isinstance(child, Compute) for child in children):
                raise HardwareError(f"{at}: a compute entry stands above a memory, expected compute entries last")
            children = (_compute(at, body), *children)
        else:
            children = (_memory(at, body, children) if kind == "memory" else _fanout(at, body, children),)
    root = children[0]
    if not isinstance(root, Memory):
        raise HardwareError(f"{where}.tree: the first entry is no memory, expected the outermost memory (DRAM) first")
    dispatch = _number(f"{where}.dispatch", fields.get("dispatch", 0.0), "s", positive=False)
    return Engine(name=name, root=root, dispatch_s=dispatch)


def _only_entry(at: str, node: object) -> tuple[str, object]:
    if not isinstance(node, dict) or len(node) != 1 or next(iter(node)) not in ("memory", "fanout", "compute"):
        raise HardwareError(f"{at}: got {node!r:.40}, expected one of memory, fanout, compute")
    kind, body = next(iter(node.items()))
    return kind, body


def _memory(at: str, body: object, children: tuple[Node, ...]) -> Memory:
    fields = _fields(at, body, required=("name", "size"), optional=("read", "write", "energy"))

    def optional(key: str, dimension: str) -> float | None:
        return None if fields.get(key) is None else _number(f"{at}.{key}", fields[key], dimension)

    return Memory(
        name=str(fields["name"])[:60], size_bytes=_number(f"{at}.size", fields["size"], "bytes"),
        read_bytes_per_s=optional("read", "bytes_per_s"), write_bytes_per_s=optional("write", "bytes_per_s"),
        energy_j_per_byte=optional("energy", "j_per_byte"), children=children,
    )  # fmt: skip


def _fanout(at: str, body: object, children: tuple[Node, ...]) -> Fanout:
    fields = _fields(at, body, required=("name", "count"), optional=())
    return Fanout(name=str(fields["name"])[:60], count=_whole(f"{at}.count", fields["count"]), children=children)


def _compute(at: str, body: object) -> Compute:
    optional = ("ops", "align", "max_dim", "min_tile", "energy")
    fields = _fields(at, body, required=("name", "rates"), optional=optional)
    rates = fields["rates"]
    if not isinstance(rates, dict) or not rates:
        raise HardwareError(f"{at}.rates: expected a mapping of dtypes to rates such as f16: 1TFLOPS")
    ops = fields.get("ops") or []
    if not isinstance(ops, list) or not all(isinstance(op, str) for op in ops):
        raise HardwareError(f"{at}.ops: got {ops!r:.40}, expected a list of op kinds such as [matmul, conv]")
    energy = fields.get("energy")
    return Compute(
        name=str(fields["name"])[:60],
        ops_per_s={str(d)[:20]: _number(f"{at}.rates.{str(d)[:20]}", r, "ops_per_s") for d, r in rates.items()},
        ops=frozenset(ops), align_bytes=_whole(f"{at}.align", fields.get("align", 1), "bytes"),
        max_dim=None if fields.get("max_dim") is None else _whole(f"{at}.max_dim", fields["max_dim"]),
        min_tile=_whole(f"{at}.min_tile", fields.get("min_tile", 1)),
        energy_j_per_op=None if energy is None else _number(f"{at}.energy", energy, "j_per_op"),
    )  # fmt: skip


def _fields(at: str, node: object, *, required: tuple[str, ...], optional: tuple[str, ...]) -> dict[str, Any]:
    if not isinstance(node, dict):
        raise HardwareError(f"{at}: got {node!r:.40}, expected {', '.join(required)}")
    for key in node:
        if key not in required + optional:
            hint = did_you_mean(str(key), required + optional)
            raise HardwareError(f"{at}: the key {str(key)[:40]!r} is not known{hint}")
    for key in required:
        if node.get(key) is None:
            raise HardwareError(f"{at}: {key} is missing, expected {', '.join(required)}")
    return node


def _number(where: str, given: object, dimension: str, *, positive: bool = True) -> float:
    if not isinstance(given, str | int | float):
        raise HardwareError(f"{where}: got {given!r:.40}, expected a quantity")
    try:
        return parse_quantity(given, dimension, where=where, positive=positive)
    except UnitError as error:
        raise HardwareError(str(error)) from None


def _whole(where: str, given: object, dimension: str = "count") -> int:
    value = _number(where, given, dimension)
    if value != int(value) or value > 2**53:
        raise HardwareError(f"{where}: got {given!r:.40}, expected a whole number")
    return int(value)


# ------------------------------------------------------------------------------------------------ the index


def index_rows() -> list[dict[str, Any]]:
    """What index.json must hold, read from every chip file. For tools/write_chip_index.py and its test."""
    socs = [_built_in(path.stem) for path in (_DATA / "chips").glob("*.yaml")]
    return [_index_row(soc) for soc in sorted(socs, key=_catalogue_order)]


def _catalogue_order(soc: SoC) -> tuple[Any, ...]:
    """A series before M series, generations in order, small before large, a chip before its bins."""
    letter, number = soc.family[0], int(soc.family[1:])
    tiers = ("phone", "base", "pro", "max", "ultra")
    chip = soc.base or soc.id
    return letter, number, tiers.index(soc.identity.tier), chip, soc.base is not None, -soc["gpu.cores"], soc.id


def _index_row(soc: SoC) -> dict[str, Any]:
    return {
        "id": soc.id, "name": soc.name, "family": soc.family, "released": soc.released, "base": soc.base,
        "cpu_cores": sum(int(soc[f"cpu.{tier}.cores"]) for tier in "spe"), "gpu_cores": int(soc["gpu.cores"]),
        "dram_bytes_per_s": soc["dram.bandwidth"], "dram_capacity_max_bytes": soc.get("dram.capacity_max"),
        "ane_fp16_ops_per_s": soc.get("ane.fp16"),
    }  # fmt: skip
