"""Mappings found before: one small file per question, named by a hash of everything that the answer depends on.

The question is the op, the architecture, the objective, the space and the code of the mapper; change any, and the name changes.
A file is written beside its place and then renamed, so a reader sees all of it or nothing, whoever else writes and whenever a
writer is killed. What is read is believed only after the stored nest is checked and counted again: an entry that is broken,
foreign or says something else than its nest is treated as absent and is written again. The newest `MOST` entries are kept.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import cached_property, lru_cache
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

from orchard.cost.mapped import check_capacity, estimate
from orchard.cost.nest import count
from orchard.hw.arch import ArchError, Architecture
from orchard.mapping.constraints import FREE, Constraints, violation
from orchard.mapping.errors import MappingError
from orchard.mapping.lattice import Factors
from orchard.mapping.nest import Keep, Loop, Nest, nest_errors
from orchard.mapping.problem import Problem
from orchard.studies.map import MappedOp, objective_value
from orchard.studies.nest_search import Objective

Answer = TypeVar("Answer")

FORMAT = "orchard.cached-mapping/1"
MOST = 20_000
"""Entries kept: a model has some tens of distinct ops, an entry about 1 KiB."""
STALE_S = 3600.0
"""A temporary file this old belongs to a writer that was killed."""
CODE = {
    "orchard.mapping": ("problem.py", "lattice.py", "footprint.py", "nest.py", "ops.py", "constraints.py"),
    "orchard.cost": ("nest.py", "mapped.py", "placement.py"),
    "orchard.search": ("layered.py",),
    "orchard.studies": ("nest_search.py", "map.py"),
    "orchard.hw": ("arch.py",),
}
"""Files whose text decides an answer."""


@dataclass(frozen=True)
class Question:
    """What is asked of the mapper."""

    problem: Problem
    arch: Architecture
    objective: Objective
    factors: Factors = "perfect"
    time_limit_s: float | None = None
    gap: float = 0.0
    constraints: Constraints = FREE

    @cached_property
    def key(self) -> str:
        """Hash of the question and of the code that answers it. The name of the op plays no part."""
        asked = {f.name: _plain(getattr(self, f.name)) for f in fields(self) if f.name not in ("problem", "arch")}
        problem = _plain(replace(self.problem, name=""))
        return digest([code_version(), asked, problem, arch_text(self.arch)])


def digest(data: Any) -> str:
    """The name of a question: hash of its parts."""
    return hashlib.sha256(_data(_plain(data)).encode()).hexdigest()


def _data(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


_ARCHS: dict[int, tuple[Architecture, str]] = {}
"""Text of the machines that were asked about, by identity: a model asks a hundred times about one. They never change."""


def arch_text(arch: Architecture) -> str:
    """All of a machine as text."""
    known = _ARCHS.get(id(arch))
    if known is None or known[0] is not arch:
        if len(_ARCHS) > 64:
            _ARCHS.clear()
        known = _ARCHS[id(arch)] = (arch, _data(_plain(arch)))
    return known[1]


def _plain(value: Any) -> Any:
    """A value as JSON data; sets are sorted, so that equal questions have equal text."""
    if is_dataclass(value) and not isinstance(value, type):
        return [type(value).__name__, {f.name: _plain(getattr(value, f.name)) for f in fields(value)}]
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, frozenset):
        return sorted(value)
    if isinstance(value, (tuple, list)):
        return [_plain(v) for v in value]
    return value


@lru_cache(maxsize=1)
def code_version() -> str:
    """Hash of the mapper's own files."""
    return hash_of(CODE)


def hash_of(code: Mapping[str, tuple[str, ...]]) -> str:
    """Hash of files, by package."""
    found = hashlib.sha256()
    for package, names in code.items():
        for name in names:
            found.update((resources.files(package) / name).read_bytes())
    return found.hexdigest()


def default_folder() -> Path:
    """`orchard/mappings` in the user's cache folder, by the convention of each system."""
    if sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    elif sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "orchard" / "mappings"


@dataclass(frozen=True)
class MappingCache:
    """A folder of answers. A folder that cannot be written stores nothing, and no work is lost but time."""

    folder: Path

    def path(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}.json"

    def get(self, question: Question) -> MappedOp | None:
        """The stored answer, checked against its own nest; None where there is none that holds."""
        return self.read(question.key, lambda data: _answer(question, data))

    def put(self, question: Question, mapped: MappedOp) -> None:
        """Store an answer. Another writer of the same question wins or loses as a whole."""
        self.write(question.key, _entry(mapped))

    def read(self, key: str, answer: Callable[[dict[str, Any]], Answer | None]) -> Answer | None:
        """What `answer` makes of the entry; None where there is no whole entry, or where it raises what broken data raises."""
        try:
            data = json.loads(self.path(key).read_bytes())
            return answer(data) if data.get("format") == FORMAT and data.get("key") == key else None
        except (OSError, ValueError, TypeError, LookupError, AttributeError, MappingError, ArchError, RecursionError):
            return None

    def write(self, key: str, entry: dict[str, Any]) -> None:
        """Store JSON data under a key, whole or not at all."""
        target = self.path(key)
        text = json.dumps({"format": FORMAT, "key": key} | entry, separators=(",", ":"), allow_nan=False)
        scratch = target.with_name(f".{key[:16]}.{os.getpid()}.{secrets.token_hex(4)}.tmp")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            scratch.write_text(text, encoding="utf-8")
            os.replace(scratch, target)
        except OSError:
            with suppress(OSError):
                scratch.unlink(missing_ok=True)

    def trim(self, most: int = MOST) -> int:
        """Remove the oldest entries beyond `most`, and what killed writers left. Returns how many files went."""
        entries, removed = [], 0
        for file in self._files():
            with suppress(OSError):
                written = file.stat().st_mtime
                if file.suffix == ".tmp":
                    removed += _remove(file) if time.time() - written > STALE_S else 0
                else:
                    entries.append((written, file))
        for _, file in sorted(entries)[: max(0, len(entries) - most)]:
            removed += _remove(file)
        return removed

    def clear(self) -> int:
        """Remove every entry and nothing else; returns how many."""
        return sum(_remove(file) for file in self._files())

    def _files(self) -> list[Path]:
        """Entries and scratch files: only names that this class gives."""
        found = [*self.folder.glob("[0-9a-f][0-9a-f]/*.json"), *self.folder.glob("[0-9a-f][0-9a-f]/.*.tmp")]
        return [f for f in found if len(f.stem) == 64 or f.suffix == ".tmp"]


def _remove(file: Path) -> int:
    try:
        file.unlink()
    except OSError:
        return 0
    return 1


def _entry(mapped: MappedOp) -> dict[str, Any]:
    return {
        "tensors": list(mapped.problem.tensors), "nest": nest_data(mapped.nest), "value": mapped.value,
        "optimal": mapped.optimal, "bound": mapped.bound, "mappings_considered": mapped.mappings_considered,
        "mappings_in_space": str(mapped.mappings_in_space), "search_s": mapped.search_s,
    }  # fmt: skip


def nest_data(nest: Nest) -> list[list[Any]]:
    """A nest as JSON data."""
    return [
        ["keep", n.level, n.tensor] if isinstance(n, Keep) else ["loop", n.dim, n.tile, n.axis] for n in nest.nodes
    ]


def nest_from(data: list[list[Any]]) -> Nest:
    """The nest of `nest_data`."""
    return Nest(tuple(_node(node) for node in data))


def _node(data: list[Any]) -> Loop | Keep:
    if data[0] == "keep":
        return Keep(str(data[1]), str(data[2]))
    return Loop(str(data[1]), int(data[2]), None if data[3] is None else str(data[3]))


def holds(stored: Any, value: float, bound: Any) -> bool:
    """Whether a stored value is what its mapping is worth, and its bound is one."""
    return abs(float(stored) - value) <= 1e-9 * abs(value) and float(bound) <= value * (1 + 1e-9)


def _answer(question: Question, data: dict[str, Any]) -> MappedOp | None:
    """The entry as an answer; None where the stored value is not what the nest is worth."""
    problem, arch = question.problem, question.arch
    nest = nest_from(data["nest"])
    nest_errors(nest, problem, arch)
    if violation(nest, question.constraints, problem, arch) is not None:
        return None
    counts = count(nest, problem, arch)
    check_capacity(counts, problem, arch)
    cost = estimate(counts, problem, arch)
    value = objective_value(question.objective, cost, counts, arch, problem)
    if not holds(data["value"], value, data["bound"]):
        return None
    return MappedOp(
        problem, arch, question.objective, nest, counts, cost, bool(data["optimal"]), float(data["bound"]),
        int(data["mappings_considered"]), int(data["mappings_in_space"]), float(data["search_s"]),
    )  # fmt: skip
