"""What a user can correct about a technique."""

from orchard.units import OrchardError


class TechniqueError(OrchardError):
    """A technique that is not known, an option out of range, a conflict, or an engine without a cost rule for it."""
