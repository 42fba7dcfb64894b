"""Mappings as programs and files: a loop nest in C or Python that runs and counts its own traffic, and Timeloop's YAML."""

from orchard.mapping.emit.c import emit_c
from orchard.mapping.emit.python import emit_python
from orchard.mapping.emit.timeloop import emit_timeloop

__all__ = ["emit_c", "emit_python", "emit_timeloop"]
