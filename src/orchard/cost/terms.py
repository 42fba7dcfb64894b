"""Times of kernels as three terms that sum, and how they combine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


class Hardware(Protocol):
    """Hardware parameters by dotted name, SI floats or arrays: `hw["dram.bandwidth"]`. `HardwareArrays` is one."""

    def __getitem__(self, path: str, /) -> Any: ...

    def __contains__(self, path: str, /) -> bool: ...


@dataclass(frozen=True, slots=True)
class Terms:
    """Seconds per kernel launch group, arrays [..., kernels]; multiplicity is in. `total` = compute + memory + dispatch."""

    compute: Array
    memory: Array
    dispatch: Array

    @property
    def total(self) -> Array:
        return self.compute + self.memory + self.dispatch

    def __add__(self, other: Terms) -> Terms:
        return Terms(self.compute + other.compute, self.memory + other.memory, self.dispatch + other.dispatch)


def overlapped(compute: Array, memory: Array, sharpness: float | Array) -> tuple[Array, Array]:
    """Compute and memory time that overlap imperfectly, as two shares of t = (c^p + m^p)^(1/p).

    p -> infinity is the roofline's max; smaller p rounds the ridge, as a machine does that hides one behind the other only
    in part. t >= max(c, m) always, so an estimate never undercuts its own terms. The shares are c^p and m^p of the sum.
    """
    largest = np.maximum(np.maximum(compute, memory), 1e-30)
    c, m = (compute / largest) ** sharpness, (memory / largest) ** sharpness
    both = np.maximum(c + m, 1e-300)  # a kernel that counts nothing takes no time
    total = largest * (c + m) ** (1.0 / sharpness)
    return total * c / both, total * m / both
