"""Errors of the cost layer.

OrchardError            (orchard.units)
└── CostError           an op, kernel or engine that the cost models cannot price
    ├── NoCostRule      an op kind without a counting rule; never a silent zero
    └── ProfileError    a runtime profile that is missing, malformed or does not serve this engine
"""

from __future__ import annotations

from orchard.units import OrchardError


class CostError(OrchardError):
    """Something the cost models cannot price."""


class NoCostRule(CostError):  # noqa: N818  (reads as the sentence it is)
    """An op kind without a counting rule."""


class ProfileError(CostError):
    """A runtime profile that is missing, malformed, or does not serve this engine."""
