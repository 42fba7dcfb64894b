"""Errors of studies.

OrchardError            (orchard.units)
└── StudyError          a request that cannot be answered: wrong combination, size or name
"""

from __future__ import annotations

from orchard.units import OrchardError


class StudyError(OrchardError):
    """A request that cannot be answered as it stands."""
