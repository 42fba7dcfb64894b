"""The one tree of errors a user can fix.

    OrchardError            one clear sentence: where, got, expected, remedy. The command line exits with 2.
    ├── UnitError           units:      a quantity that cannot be read ("80 GBs")
    ├── FormatError         units:      a number format or weight scheme that is not known or does not fit a shape
    ├── HardwareError       hw:         a chip, a figure of a chip or a chip file
    └── ...                 each layer above adds one leaf of its own (GraphError, ModelError, ...)

Whatever is not an OrchardError is our own defect: the command line exits with 1.
"""

from __future__ import annotations


class OrchardError(Exception):
    """A problem the user can fix; `str(error)` is one sentence that says where, got, expected and remedy."""


class UnitError(OrchardError):
    """A quantity that cannot be read, or has the wrong dimension or sign."""


class FormatError(OrchardError):
    """A number format or weight scheme that is not known, or that cannot hold a tensor of this shape."""
