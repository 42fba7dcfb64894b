"""Errors of the mapping layer.

OrchardError
└─ MappingError         a text, an op or a loop nest that the user can correct
   └─ ImpossibleSpace   no legal mapping exists; names the level, what is needed and what would fit
"""

from __future__ import annotations

from orchard.units.errors import OrchardError


class MappingError(OrchardError):
    """An op text or a loop nest that the user can correct."""


class ImpossibleSpace(MappingError):  # noqa: N818 - an answer about the space
    """No mapping is legal: nothing fits, or constraints contradict each other."""
