"""Errors of the simulator.

OrchardError            (orchard.units)
└── SimError            a machine, stream or program that cannot be simulated
    └── TraceError      a trace file that breaks a rule of its format
"""

from __future__ import annotations

from orchard.units import OrchardError


class SimError(OrchardError):
    """Something asked of the simulator that cannot be."""


class TraceError(SimError):
    """A trace that is not ordered, not balanced, or has overlapping slices on one engine."""
