"""Counting the weights of a source as they are stored: parameters once, bytes by number format."""

from __future__ import annotations

from collections.abc import Sequence

from orchard.ir import Size
from orchard.units import FormatError, bytes_of, number_format
from orchard.workloads.importers.lowering import Value, WeightInfo


def stored_bytes(format: str, shape: Sequence[Size]) -> int:
    """Bytes of one stored tensor; 0 for a symbolic shape."""
    sizes = [s for s in shape if isinstance(s, int)]
    if len(sizes) != len(shape):
        return 0
    try:
        return bytes_of(number_format(format), sizes)
    except FormatError:
        count = 1
        for size in sizes:
            count *= size
        return int(-(-count * number_format(format).bits // 8))


class WeightCount:
    """Adds up stored tensors; one that is stored once and named twice counts once."""

    def __init__(self) -> None:
        self.parameters = 0
        self.buffers = 0
        self.tensors = 0
        self.formats: dict[str, int] = {}
        self._seen: set[int] = set()

    def add(
        self, value: Value, format: str, *, parameter: bool = True, same_as: int | None = None, size: int | None = None
    ) -> None:
        """Count `value`. `same_as` identifies shared storage; `size` is its bytes where the format does not say."""
        if same_as is not None:
            if same_as in self._seen:
                return
            self._seen.add(same_as)
        elements = value.elements
        if not isinstance(elements, int):
            return
        self.tensors += 1
        if parameter:
            self.parameters += elements
        else:
            self.buffers += elements
        stored = stored_bytes(format, value.shape) if size is None else size
        self.formats[format] = self.formats.get(format, 0) + stored

    def info(self) -> WeightInfo:
        return WeightInfo(
            parameters=self.parameters,
            bytes=sum(self.formats.values()),
            formats=dict(sorted(self.formats.items())),
            tensors=self.tensors,
            buffer_elements=self.buffers,
        )
