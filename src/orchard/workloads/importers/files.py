"""Opening files without loading them."""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from orchard.workloads.importers.errors import ImportError_


@contextmanager
def mapped(path: Path) -> Iterator[memoryview]:
    """The bytes of a file, memory-mapped for as long as the block runs. Raises ImportError_ when it cannot be read."""
    try:
        file = path.open("rb")
    except OSError as error:
        raise ImportError_(f"{path}: cannot be read ({error.strerror})") from None
    with file:
        if path.stat().st_size == 0:
            raise ImportError_(f"{path}: the file is empty")
        try:
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError) as error:
            raise ImportError_(f"{path}: cannot be mapped into memory ({error})") from None
        try:
            yield memoryview(data)
        finally:
            with suppress(BufferError):  # a map with live slices stays open until they go
                data.close()
