"""Errors of the numerics.

OrchardError            (orchard.units)
└── NumericsError       a setting a tensor cannot take, data too short to calibrate on, or a library that is missing
"""

from __future__ import annotations

from orchard.units import OrchardError


class NumericsError(OrchardError):
    """A technique that cannot be applied to these tensors or this model as asked."""
