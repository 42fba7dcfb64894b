"""Errors of the hardware layer.

OrchardError            (orchard.units)
└── HardwareError       a chip, a figure of a chip or a chip file that cannot be used as it is
"""

from __future__ import annotations

from orchard.units import OrchardError


class HardwareError(OrchardError):
    """A chip that is not known, a figure that is missing or absurd, or a chip file that cannot be read."""
