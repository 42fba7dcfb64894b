"""What a decode step takes on a chip, by bits of the weights and rows of a pass; and tensor by tensor."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from orchard.studies.errors import StudyError
from orchard.studies.predict import predict
from orchard.units import OrchardError

Floats = NDArray[np.float64]
BITS = (2, 3, 4, 8, 16)
DRAFTED = (1, 2, 4, 8)
"""Tokens drafted per round that are tried."""
KINDS = ("q", "k", "v", "o", "gate", "up", "down")
"""Products of a layer, by the names that predictions and fixtures share."""


@dataclass(frozen=True, kw_only=True)
class Device:
    """Seconds of a decode pass. `one`: by bits; `rows`: by (bits, rows) for verification, empty where the engine verifies
    nothing;
    `products`: seconds and bytes by kind and bits, all layers together; `sparse`: at a quarter of the inputs skipped, by bits."""

    chip: str
    engine: str
    one: Mapping[int, float]
    rows: Mapping[tuple[int, int], float]
    products: Mapping[tuple[str, int], tuple[float, float]]
    sparse: Mapping[int, float]

    def verification(self, bits: int, rows: int) -> float:
        """v(r): time of a pass of r rows over that of one."""
        return self.rows[bits, rows] / self.one[bits]


def weights_text(bits: int, engine: str) -> list[str]:
    """The technique that stores weights in so many bits on an engine: blocks of 64, or a table on the Neural Engine."""
    if bits == 16:
        return []
    return [f"palettize:bits={bits}"] if engine == "ane" else [f"rtn:bits={bits},group=64"]


def price(model: str, chip: str, engine: str, *, depth: int = 0, speculation: bool = True) -> Device:
    """Raises OrchardError where the model cannot run there at all."""
    one, rows, products, sparse = {}, {}, {}, {}
    for bits in BITS:
        apply = weights_text(bits, engine)
        try:
            kinds, one[bits] = _pass(model, chip, engine, apply, depth)
        except OrchardError:
            if bits == 16:
                raise
            continue
        products.update({(kind, bits): found for kind, found in kinds.items()})
        if engine == "ane" or not speculation:
            continue
        for drafted in DRAFTED:
            # every round verifies and wins one token: its time is that of the pass
            look = f"prompt-lookup:tokens={drafted},match=1,acceptance=0"
            rows[bits, drafted + 1] = _seconds(model, chip, engine, [*apply, look], depth)
        sparse[bits] = _seconds(model, chip, engine, [*apply, "activation-sparsity:sparsity=0.25"], depth)
    return Device(chip=chip, engine=engine, one=one, rows=rows, products=products, sparse=sparse)


def _seconds(model: str, chip: str, engine: str, apply: list[str], depth: int) -> float:
    found = predict(model, chip=chip, engine=engine, apply=apply, weights="f16", prompt=64, generate=1, depth=depth)
    return found.phases["decode"].latency_s


def _pass(
    model: str, chip: str, engine: str, apply: list[str], depth: int
) -> tuple[dict[str, tuple[float, float]], float]:
    found = predict(model, chip=chip, engine=engine, apply=apply, weights="f16", prompt=64, generate=1, depth=depth)
    phase = found.phases.get("decode")
    if phase is None:
        raise StudyError(f"{model}: no language model; ideas are priced for decoding")
    kinds: dict[str, tuple[float, float]] = {}
    for kernel in phase.kernels:
        if kernel.name in KINDS:
            seconds, size = kinds.get(kernel.name, (0.0, 0.0))
            kinds[kernel.name] = seconds + kernel.seconds, size + kernel.bytes
    if set(kinds) != set(KINDS):
        missing = [k for k in KINDS if k not in kinds]
        raise StudyError(
            f"{model}: has no products {', '.join(missing)}; ideas are priced for layers of q, k, v, o, gate, up, down"
        )
    return kinds, phase.latency_s
