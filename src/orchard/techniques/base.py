"""What a technique is: a frozen record of options that rewrites a graph, or that describes a change of the run.

The fields of a technique are its options; `option` gives a default, a range and a line of help. A `GraphPass` maps a graph
to a graph (its docstring shows before and after). A `RunTechnique` changes how passes are run - a draft, a batch, fewer
steps - and is priced by the study that knows the engine.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import Field, dataclass, field, fields
from enum import IntEnum
from typing import Any, ClassVar

from orchard.ir import Graph
from orchard.techniques.errors import TechniqueError

Value = int | float | bool | str


class Stage(IntEnum):
    """Order in which techniques apply: the shape of the model, its zeros, its numbers, then how it runs."""

    STRUCTURE = 0
    CACHE = 1
    SPARSITY = 2
    WEIGHTS = 3
    ACTIVATIONS = 4
    RUN = 5


def option(
    default: Value, about: str, *, among: tuple[Value, ...] = (), least: float | None = None, most: float | None = None
) -> Any:
    """A field that is an option: its default, what it means, and the values it may take (both ends included)."""
    return field(default=default, metadata={"about": about, "among": among, "least": least, "most": most})


@dataclass(frozen=True, slots=True, kw_only=True)
class Technique(ABC):  # noqa: B024 - its two kinds below differ in what is abstract
    """Options of one technique. `refused` maps an engine to the reason why it has no cost rule there."""

    name: ClassVar[str] = ""
    stage: ClassVar[Stage] = Stage.STRUCTURE
    refused: ClassVar[Mapping[str, str]] = {}
    runtime: ClassVar[str | None] = None
    """The runtime whose files look like this; None: any."""
    card: ClassVar[Mapping[str, Any]] = {}
    """What is known of a plug-in, with the entries of `cards.yaml`; own techniques have theirs in that file."""

    def __post_init__(self) -> None:
        for entry in fields(self):
            _check(self.name, entry, getattr(self, entry.name))

    def __str__(self) -> str:
        values = {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) or f.default}
        changed = [f"{name}={_text(value)}" for name, value in values.items()]
        return self.name + (":" + ",".join(changed) if changed else "")


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphPass(Technique, ABC):
    """A technique that rewrites the graph."""

    @abstractmethod
    def apply(self, graph: Graph) -> Graph:
        """The graph after the technique. Raises TechniqueError where it finds nothing to change, or a conflict."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunTechnique(Technique, ABC):
    """A technique that changes how the graph is run."""

    stage: ClassVar[Stage] = Stage.RUN


def _text(value: Value) -> str:
    return str(value).lower() if isinstance(value, bool) else f"{value:g}" if isinstance(value, float) else str(value)


def _check(name: str, entry: Field[Any], value: Value) -> None:
    among, least, most = (entry.metadata[key] for key in ("among", "least", "most"))
    if among and value not in among:
        raise TechniqueError(f"{name}: {entry.name}={value}, expected one of {', '.join(map(str, among))}")
    if isinstance(value, str):
        return
    if (least is not None and value < least) or (most is not None and value > most):
        raise TechniqueError(f"{name}: {entry.name}={_text(value)}, expected {range_text(least, most)}")


def range_text(least: float | None, most: float | None) -> str:
    """`1 to 8`, `at least 1`, `at most 8`."""
    if least is None or most is None:
        return f"at least {least:g}" if least is not None else f"at most {most:g}" if most is not None else "anything"
    return f"{least:g} to {most:g}"
