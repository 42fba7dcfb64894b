"""A steady allocator while measuring.

glibc's malloc maps large blocks afresh and hands memory back by thresholds that move with what a process has freed before, so
the same operation may or may not fault its result's pages in, depending on history. A run pins it: nothing is mapped block by
block and nothing is handed back, as allocators made for such work do. What fresh pages cost is measured by programs of its own.
"""

from __future__ import annotations

import contextlib
import ctypes
import sys

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
"""Parameter numbers of mallopt(3)."""


def pin() -> str:
    """Pin glibc's malloc and say so; "unpinned" where the C library has no mallopt."""
    if not sys.platform.startswith("linux"):
        return "unpinned"
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return "unpinned"
    done = mallopt(M_MMAP_MAX, 0) and mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
    return "glibc, pinned: freed memory is kept" if done else "unpinned"


def trim() -> None:
    """Hand free memory back to the system, so that what a process gains from here on is what it needs."""
    if sys.platform.startswith("linux"):
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).malloc_trim(0)
