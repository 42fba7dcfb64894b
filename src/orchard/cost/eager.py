"""What one launch of an eager runtime counts: shapes, elements, and each operand's bytes with their reuse distance.

An eager runtime runs every operation by itself: it reads its operands from wherever they are and writes a result that the
next operation reads again. So the time of an operation depends on how many other bytes passed since its operands were last
touched (the reuse distance, as in stack-distance cache models, Mattson et al. 1970). Nothing here knows a machine or a
runtime; `orchard.cost.engines.eager` turns counts into seconds.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

GROUPS = (
    "view", "pointwise", "copy", "fill", "gemm", "gemv", "conv", "depthwise", "attention", "softmax", "norm", "reduce",
    "gather", "scatter", "pool", "resize", "scan", "select",
)  # fmt: skip
"""view: only a header changes; select: sorting and searching; fill: written without reading; scan: recurrent layers."""

KNOTS_BYTES = tuple(2.0**e for e in (15, 18, 21, 23, 25, 27, 29))
"""Reuse distances between which the cost of a byte is interpolated: 32 KiB, 256 KiB, 2 MiB, 8, 32, 128 and 512 MiB."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """One operation. Sizes are numbers: an eager trace has bound shapes.

    op          name of the operation in the runtime, e.g. `aten.addmm`; `scope` the module it runs in
    group       what it is, one of GROUPS; `fn` the function where its cost per element differs (`exp`, `gelu`)
    dtype       of the arithmetic: f32, bf16, f16, int
    batch, rows, columns, depth   products: `batch` of [rows, depth] x [depth, columns]
    taps        window of a convolution or a pool; `steps` of a recurrence
    elements    that the operation computes (scores for attention)
    strided     elements read or written with a stride in the innermost axis
    reads, writes   (bytes, reuse distance in bytes) per operand
    fresh_bytes     of `writes` on pages the allocator has just got from the system
    zeros       elements known to be zero where that is slow (a square root, as measured)
    weight_bytes    of `reads` that are packed for every call (weights of a convolution)
    graded      records itself for a backward pass
    """

    op: str
    group: str
    fn: str = ""
    dtype: str = "f32"
    batch: float = 1.0
    rows: float = 0.0
    columns: float = 0.0
    depth: float = 0.0
    taps: float = 1.0
    steps: float = 0.0
    macs: float = 0.0
    elements: float = 0.0
    strided: float = 0.0
    reads: tuple[tuple[float, float], ...] = ()
    writes: tuple[tuple[float, float], ...] = ()
    fresh_bytes: float = 0.0
    weight_bytes: float = 0.0
    zeros: float = 0.0
    graded: bool = False
    scope: str = ""

    @property
    def bytes(self) -> float:
        """All bytes read and written."""
        return sum(b for b, _ in self.reads) + sum(b for b, _ in self.writes)

    def to_dict(self) -> dict[str, Any]:
        """Only what differs from the default, so that thousands of launches stay small."""
        found = asdict(self)
        return {k: v for k, v in found.items() if v != _DEFAULTS.get(k) or k in ("op", "group")}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Launch:
        """Raises TypeError for a field it does not know."""
        pairs = {k: tuple((float(b), float(d)) for b, d in data[k]) for k in ("reads", "writes") if k in data}
        return cls(**{**data, **pairs})


_DEFAULTS = asdict(Launch(op="", group=""))

COLUMNS = (
    "batch", "rows", "columns", "depth", "taps", "steps", "macs", "elements", "strided", "fresh_bytes", "weight_bytes", "zeros",
)  # fmt: skip


@dataclass(frozen=True)
class LaunchArrays:
    """Counts of many launches as arrays [launches]; `read_at`, `write_at` [launches, knots] are bytes by reuse distance.

    owner   which program each launch belongs to, so that totals are sums by owner
    calls   module calls per program [programs]
    """

    launches: tuple[Launch, ...]
    counts: Mapping[str, Floats]
    read_at: Floats
    write_at: Floats
    groups: npt.NDArray[np.str_]
    fns: npt.NDArray[np.str_]
    dtypes: npt.NDArray[np.str_]
    graded: Floats
    _memo: dict[str, Any] = field(default_factory=dict, compare=False, repr=False)

    def __getattr__(self, name: str) -> Floats:
        try:
            return self.counts[name]
        except KeyError:
            raise AttributeError(name) from None

    def __len__(self) -> int:
        return len(self.launches)

    def positions(self, what: str) -> tuple[tuple[str, ...], npt.NDArray[np.intp]]:
        """Distinct labels of a kind (`group`, `group.fn.dtype`, `group.dtype`) and for each launch the position of its own."""
        found = self._memo.get(what)
        if found is None:
            labels = [".".join(getattr(x, part) or "-" for part in what.split(".")) for x in self.launches]
            names = tuple(dict.fromkeys(labels))
            place = {name: i for i, name in enumerate(names)}
            found = self._memo[what] = (names, np.array([place[x] for x in labels], dtype=np.intp))
        return found


def launch_arrays(launches: Sequence[Launch]) -> LaunchArrays:
    """Counts of `launches` in order."""
    return LaunchArrays(
        launches=tuple(launches),
        counts={name: np.array([getattr(x, name) for x in launches], dtype=np.float64) for name in COLUMNS},
        read_at=_by_distance([x.reads for x in launches]),
        write_at=_by_distance([x.writes for x in launches]),
        groups=np.array([x.group for x in launches]),
        fns=np.array([x.fn for x in launches]),
        dtypes=np.array([x.dtype for x in launches]),
        graded=np.array([float(x.graded) for x in launches]),
    )


def _by_distance(operands: Sequence[Iterable[tuple[float, float]]]) -> Floats:
    found = np.zeros((len(operands), len(KNOTS_BYTES)))
    for row, pairs in enumerate(operands):
        for size, distance in pairs:
            low, share = knot_of(distance)
            found[row, low] += size * (1.0 - share)
            if share:
                found[row, low + 1] += size * share
    return found


def knot_of(distance: float) -> tuple[int, float]:
    """(lower knot, share of the upper one) of a reuse distance, linear in its logarithm; clamped at both ends."""
    place = math.log2(max(distance, 1.0))
    if place <= _KNOTS[0]:
        return 0, 0.0
    for low in range(len(_KNOTS) - 1):
        if place < _KNOTS[low + 1]:
            return low, (place - _KNOTS[low]) / (_KNOTS[low + 1] - _KNOTS[low])
    return len(_KNOTS) - 1, 0.0


_KNOTS = tuple(math.log2(k) for k in KNOTS_BYTES)


def dumps(launches: Iterable[Launch]) -> str:
    """One JSON object a line."""
    return "\n".join(json.dumps(x.to_dict(), separators=(",", ":")) for x in launches)
