"""The tables that go with the chips: sources, generation-wide parameters, end-to-end observations."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from orchard.hw.errors import HardwareError
from orchard.hw.yamlfile import read_trusted
from orchard.units import did_you_mean

_DATA = Path(__file__).parent


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    id: str
    title: str
    url: str
    trust: str
    access: str
    about: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """A constant of a generation or of all chips; `scope` says of which. The value is in `unit`, as stated."""

    id: str
    scope: str
    value: float | str
    unit: str
    source: str
    kind: str
    note: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """One measured end-to-end figure. The value is in `unit`, as stated."""

    id: str
    chip: str
    engine: str
    workload: str
    dtype: str
    metric: str
    value: float
    unit: str
    source: str
    kind: str
    note: str | None = None


@lru_cache(maxsize=1)
def sources() -> dict[str, Source]:
    """Source id to source. "formula", "--set" and file names are no sources: the figure's note says more."""
    rows = read_trusted(_DATA / "sources.yaml")["sources"]
    return {key: Source(id=key, **row) for key, row in rows.items()}


@lru_cache(maxsize=1)
def parameters() -> dict[str, Parameter]:
    rows = read_trusted(_DATA / "parameters.yaml")["parameters"]
    return {row["id"]: Parameter(**row) for row in rows}


def parameter(name: str) -> Parameter:
    """Raises HardwareError with the nearest names."""
    found = parameters().get(name)
    if found is None:
        raise HardwareError(f"hardware parameter {name!r} is not known{did_you_mean(name, parameters())}")
    return found


@lru_cache(maxsize=1)
def observations() -> tuple[Observation, ...]:
    rows = read_trusted(_DATA / "observations.yaml")["observations"]
    return tuple(Observation(**row) for row in rows)
