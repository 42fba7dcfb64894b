"""Many variants of one chip at once: hardware parameters where each may be an array.

Cost functions read `arrays["gpu.fp16"]` and broadcast; they do not care whether they price one chip or ten thousand.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from orchard.hw.derive import recompute
from orchard.hw.errors import HardwareError
from orchard.hw.schema import FIGURES, TIERS
from orchard.hw.soc import SoC
from orchard.units import did_you_mean

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Value = float | NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class HardwareArrays:
    """Dotted names to SI floats or float64 arrays that broadcast against each other. `shape` is the common shape."""

    soc: SoC
    values: Mapping[str, Value]
    shape: tuple[int, ...]

    @classmethod
    def of(cls, soc: SoC, variants: Mapping[str, object] | None = None) -> HardwareArrays:
        """`soc` with some parameters replaced by numbers or arrays (SI), and everything derived from them recomputed.

        Raises HardwareError for an unknown name, a value that is not finite and positive enough to be a chip, or shapes
        that do not broadcast.
        """
        changed = {path: _checked(path, value) for path, value in (variants or {}).items()}
        shape = _common_shape(changed)
        for tier in TIERS:
            if f"cpu.{tier}.cores" in changed and f"cpu.{tier}.clock" not in soc and f"cpu.{tier}.clock" not in changed:
                raise HardwareError(
                    f"{soc.id} has no {TIERS[tier]} cores; state cpu.{tier}.clock and its other figures"
                )
        values = recompute(soc.parameters(), changed, identity=soc.identity, stated=soc.stated, computed=soc.computed)
        return cls(soc, values, shape)

    def __getitem__(self, path: str) -> Value:
        if path in self.values:
            return self.values[path]
        self.soc[path]  # names what is missing, or that there is no such figure
        raise AssertionError(path)

    def get(self, path: str, default: Value | None = None) -> Value | None:
        """`default` when the figure is not known. Raises HardwareError when no figure has this path."""
        self.soc.figure(path)
        return self.values.get(path, default)

    def __contains__(self, path: str) -> bool:
        return path in self.values

    def __iter__(self) -> Iterator[str]:
        return iter(self.values)


def _checked(path: str, value: object) -> Value:
    import numpy as np

    spec = FIGURES.get(path)
    if spec is None:
        raise HardwareError(f"variant parameter {path!r}: no figure has this name{did_you_mean(path, FIGURES)}")
    if spec.is_text:
        raise HardwareError(f"variant parameter {path!r} is a text, expected a numeric figure")
    try:
        array = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError):
        raise HardwareError(f"variant parameter {path!r}: got {value!r:.40}, expected numbers in SI") from None
    bad = ~np.isfinite(array) | (array < 0) | ((array == 0) if spec.positive else False)
    if bad.any():
        bound = "> 0" if spec.positive else ">= 0"
        raise HardwareError(f"variant parameter {path!r}: got {array[bad].flat[0]:g}, expected finite numbers {bound}")
    return float(array) if array.ndim == 0 else array


def _common_shape(values: Mapping[str, Value]) -> tuple[int, ...]:
    import numpy as np

    shapes = {path: np.shape(value) for path, value in values.items()}
    try:
        return np.broadcast_shapes(*shapes.values())
    except ValueError:
        listed = ", ".join(f"{path} {shape}" for path, shape in shapes.items())
        raise HardwareError(f"variant parameters do not broadcast against each other: {listed}") from None
