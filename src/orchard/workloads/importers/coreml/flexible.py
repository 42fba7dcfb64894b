"""Inputs whose sizes a Core ML model leaves open: a list of shapes, or a range per axis."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from orchard.ir import Size, symbol
from orchard.workloads.importers.errors import ImportError_
from orchard.workloads.importers.lowering import clean_name, clean_symbol
from orchard.workloads.importers.protowire import Message

COLORS = {10: 1, 20: 3, 30: 3, 40: 1}
"""Channels by color space: grayscale, RGB, BGR, grayscale in FP16."""


@dataclass(frozen=True, slots=True)
class Flexible:
    """One input. `shapes` are the ones enumerated; else `ranges` holds (lowest, highest) per axis, highest < 0 for none.

    `default` is the shape the file names, all of its sizes fixed.
    """

    name: str
    default: tuple[int, ...]
    shapes: tuple[tuple[int, ...], ...] = ()
    ranges: tuple[tuple[int, int], ...] = ()

    @property
    def open_axes(self) -> tuple[int, ...]:
        """Axes that may take more than one size."""
        if self.shapes:
            return tuple(axis for axis, sizes in enumerate(zip(*self.shapes)) if len(set(sizes)) > 1)
        return tuple(axis for axis, (low, high) in enumerate(self.ranges) if low != high)

    @property
    def sizes(self) -> list[Size]:
        """The shape with a symbol for each open axis."""
        opened = self.open_axes
        return [symbol(clean_symbol(f"{self.name}_{a}")) if a in opened else s for a, s in enumerate(self.default)]

    def allows(self, shape: Sequence[int | str]) -> bool:
        """Whether the model takes `shape`; names of symbols stand for any size."""
        if self.shapes:
            return any(
                len(s) == len(shape) and all(isinstance(g, str) or g == w for g, w in zip(shape, s))
                for s in self.shapes
            )
        return all(
            isinstance(g, str) or low <= g <= (high if high >= 0 else g) for g, (low, high) in zip(shape, self.ranges)
        )

    def describe(self) -> str:
        """What is allowed, in words."""
        if self.shapes:
            listed = ", ".join("x".join(map(str, s)) for s in self.shapes[:6])
            return f"one of {listed}{', ...' if len(self.shapes) > 6 else ''}"
        return "x".join(
            str(low) if low == high else f"({low} to {high if high >= 0 else 'any'})" for low, high in self.ranges
        )


def flexible_inputs(features: Sequence[Message]) -> dict[str, Flexible]:
    """All image and array inputs by their name in the graph."""
    found = (flexible(f) for f in features)
    return {clean_name(f.name): f for f in found if f is not None}


def flexible(feature: Message) -> Flexible | None:
    """The sizes of an image (as 1 x channels x height x width) or an array; None for anything else."""
    kind = feature.type
    if kind is not None and kind.image is not None:
        return _image(feature.name, kind.image)
    if kind is None or kind.array is None:
        return None
    array = kind.array
    shapes = tuple(tuple(s.shape) for s in array.enumerated.shapes) if array.enumerated is not None else ()
    ranges = tuple((s.lower, s.upper) for s in array.range.sizes) if array.range is not None else ()
    default = tuple(array.shape) or (shapes[0] if shapes else tuple(low for low, _ in ranges))
    if len(ranges) != len(default):
        ranges = tuple((s, s) for s in default)
    return Flexible(feature.name, default, tuple(s for s in shapes if len(s) == len(default)), ranges)


def _image(name: str, image: Message) -> Flexible:
    lead = (1, COLORS.get(image.color, 3))
    default = (*lead, image.height, image.width)
    shapes = tuple((*lead, s.height, s.width) for s in image.enumerated.sizes) if image.enumerated is not None else ()
    ranges = tuple((s, s) for s in default)
    if image.range is not None and image.range.height is not None and image.range.width is not None:
        ranges = (*ranges[:2], *((r.lower, r.upper) for r in (image.range.height, image.range.width)))
    return Flexible(name, default, shapes, ranges)


def check_inputs(where: str, known: Mapping[str, Flexible], given: Mapping[str, Any]) -> None:
    """Raise ImportError_ for a shape the model does not take."""
    for name, shape in given.items():
        found = known.get(name)
        if found is not None and len(shape) == len(found.default) and found.open_axes and not found.allows(shape):
            raise ImportError_(f"{where}: input {name} takes {found.describe()}, got {'x'.join(map(str, shape))}")


def note(known: Mapping[str, Flexible], given: Mapping[str, Any]) -> list[str]:
    """One sentence for each input whose open sizes were not given."""
    return [
        f"input {name} takes {f.describe()}; fix it with --input {name}={'x'.join(map(str, f.default))} (its default)"
        for name, f in known.items()
        if f.open_axes and name not in given
    ]
