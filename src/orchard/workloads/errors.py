"""Errors of the model layer.

OrchardError            (orchard.units)
└── ModelError          a model name, configuration or file that cannot become a workload graph
"""

from __future__ import annotations

from orchard.units.errors import OrchardError


class ModelError(OrchardError):
    """A model that is not known, not published, or described by a configuration that does not hold together."""
