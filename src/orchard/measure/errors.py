"""Errors of measuring.

OrchardError              (orchard.units)
└── MeasureError          a device that is not here, a run that cannot be read or written, a program that does not run
"""

from __future__ import annotations

from orchard.units import OrchardError


class MeasureError(OrchardError):
    """What cannot be measured as asked."""
