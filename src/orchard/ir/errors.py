"""Errors of the workload graph.

OrchardError            (orchard.units)
└── GraphError          a graph, size or Einsum that breaks a rule of the IR
    └── ParseError      text that is not a graph
"""

from __future__ import annotations

from orchard.units.errors import OrchardError


class GraphError(OrchardError):
    """A graph, tensor, op or size that breaks a rule of the IR."""


class ParseError(GraphError):
    """Text that does not parse as a graph; the message starts with the line number."""
