"""Parameters that depend on how a weight is stored."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

import numpy as np

from orchard.cost.errors import ProfileError
from orchard.cost.lower import KernelArrays
from orchard.cost.terms import Array


def per_format(k: KernelArrays, p: Mapping[str, float], name: str) -> Array:
    """Parameter `name.<format>` of every kernel; a format without its own number uses its class (`name.<class>`)."""
    names, place = k.formats
    return np.array([_lookup(p, name, fmt) for fmt in names])[place]


def _lookup(p: Mapping[str, float], name: str, fmt: str) -> float:
    for key in (f"{name}.{fmt}", f"{name}.{unpack_class(fmt)}"):
        if key in p:
            return p[key]
    raise ProfileError(f"the profile has no {name} for format {fmt!r} (class {unpack_class(fmt)!r})")


@lru_cache(maxsize=256)
def unpack_class(fmt: str) -> str:
    """How hard a format is to unpack.

    `float`: nothing to do. `simple`: codes times one scale per block. `super`: 6-bit scales of scales and split bit
    planes (the K formats). `table`: codes through a fixed table (IQ, NF4, FP4). `palette`: a look-up table learnt per
    group. A trailing `_r4`/`_r8` marks rows interleaved for SIMD (`rows`), which unpack once for several rows.
    """
    if fmt in ("", "f32", "f16", "bf16"):
        return "float"
    if fmt.endswith(("_r4", "_r8")):
        return "rows"
    if fmt.startswith("pal"):
        return "palette"
    if fmt.startswith(("iq", "tq")) or "fp4" in fmt or "nf4" in fmt:
        return "table"
    return "super" if "_k" in fmt else "simple"
