"""The root of Orchard's one exception tree.

OrchardError            a problem the user can fix: one sentence that says where, got, expected, remedy (exit code 2)
"""

from __future__ import annotations


class OrchardError(Exception):
    """A problem the user can fix. The message is one clear sentence; the command line prints it and exits with 2."""
