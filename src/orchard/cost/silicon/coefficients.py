"""Coefficients of area, energy and cost: each with value, unit, source, kind and note, from coefficients.yaml."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

_FILE = Path(__file__).with_name("coefficients.yaml")


@dataclass(frozen=True, slots=True, kw_only=True)
class Coefficient:
    """One leaf of the table. `value` is a number, or a list or mapping of numbers where the unit says so."""

    path: str
    value: Any
    unit: str
    source: str | None
    kind: str | None
    note: str = ""

    def __float__(self) -> float:
        assert isinstance(self.value, int | float), f"{self.path} is {self.value!r}, not a number"
        return float(self.value)


@lru_cache(maxsize=1)
def _data() -> dict[str, Any]:
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    loaded = yaml.load(_FILE.read_bytes(), Loader=loader)
    assert isinstance(loaded, dict)
    return loaded


def table(path: str) -> dict[str, Any]:
    """A branch of the file as plain data: `table("area_model.rows")`."""
    at: Any = _data()
    for part in path.split("."):
        at = at[part]
    assert isinstance(at, dict), path
    return at


@lru_cache(maxsize=256)
def coefficient(path: str) -> Coefficient:
    """The leaf at a dotted path, such as "blocks.gpu_core.n3e". KeyError when it is not there."""
    leaf = table(path)
    return Coefficient(
        path=path, value=leaf["value"], unit=leaf["unit"], source=leaf["source"], kind=leaf["kind"],
        note=leaf.get("note", ""),
    )  # fmt: skip


def has(path: str) -> bool:
    """True when a leaf with a value is there."""
    try:
        return table(path).get("value") is not None
    except KeyError:
        return False
