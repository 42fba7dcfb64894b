"""Errors of the searches."""

from __future__ import annotations

from orchard.units.errors import OrchardError


class NoPlacement(OrchardError):  # noqa: N818 - says what there is not
    """No choice is allowed. `node`: the one without an option, where that is the cause."""

    def __init__(self, message: str, node: int | None = None) -> None:
        super().__init__(message)
        self.node = node
