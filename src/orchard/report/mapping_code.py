"""A mapped op as code or as another tool's file."""

from __future__ import annotations

from orchard.mapping import MappingError
from orchard.mapping.emit import emit_c, emit_python, emit_timeloop
from orchard.studies.map import MappedOp

LANGUAGES = ("c", "python")


def mapping_code(mapped: MappedOp, language: str) -> str:
    """The mapping as a program in `c` or `python` that checks its own result and traffic, or as YAML for `timeloop`."""
    if language == "timeloop":
        return emit_timeloop(mapped.nest, mapped.problem, mapped.arch)
    if language not in LANGUAGES:
        raise MappingError(f"--emit is {language!r}, expected one of {', '.join(LANGUAGES)}")
    emit = emit_c if language == "c" else emit_python
    expected = {key: (t.reads, t.writes) for key, t in mapped.counts.traffic.items()}
    return emit(mapped.nest, mapped.problem, mapped.arch, expected)
