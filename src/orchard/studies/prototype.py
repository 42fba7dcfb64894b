"""A prototype on trial: right or wrong against float64, how fast, how near the bound, and how its time grows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from orchard.measure.library import library
from orchard.measure.prototypes import Prototype, Shape
from orchard.measure.timer import Plan, Timing, time_step
from orchard.measure.torch_device import TorchDevice

PLAN = Plan(warm_up_s=0.02, least=7, most=60, budget_s=0.25)
ROOF_SIDE, ROOF_BYTES = 768, 2**26


@dataclass(frozen=True, kw_only=True)
class Roof:
    """What the device reached in this very session: MACs per second of a large product, bytes per second of a long read."""

    macs_per_s: float
    bytes_per_s: float


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One shape. `error` is relative to the reference's largest value; `share` of the bound: 1 would be at the roof."""

    shape: Shape
    timing: Timing
    error: float
    macs: float
    moved: float
    bound_s: float

    @property
    def share(self) -> float:
        return self.bound_s / self.timing.median_s


@dataclass(frozen=True, kw_only=True)
class PrototypeReport:
    """Trials, and time = fixed_s + macs * s_per_mac + bytes * s_per_byte by non-negative least squares; `r2` of its fit."""

    prototype: Prototype
    device: str
    roof: Roof
    trials: tuple[Trial, ...]
    fixed_s: float
    s_per_mac: float
    s_per_byte: float
    r2: float

    @property
    def correct(self) -> bool:
        return all(t.error <= self.prototype.tolerance for t in self.trials)


def try_prototype(prototype: Prototype, device: str = "cpu", threads: int = 1, plan: Plan = PLAN) -> PrototypeReport:
    """Run every shape. Raises MeasureError where the device is not here."""
    chosen = TorchDevice(device, threads)
    chosen.open()
    torch = library("torch")
    with torch.no_grad():
        roof = _roof(torch, chosen, plan)
        trials = tuple(_trial(torch, prototype, shape, chosen, roof, plan) for shape in prototype.shapes)
    fixed, per_mac, per_byte, r2 = complexity_of(
        [t.macs for t in trials], [t.moved for t in trials], [t.timing.median_s for t in trials]
    )
    return PrototypeReport(
        prototype=prototype,
        device=device,
        roof=roof,
        trials=trials,
        fixed_s=fixed,
        s_per_mac=per_mac,
        s_per_byte=per_byte,
        r2=r2,
    )


def _roof(torch: Any, device: TorchDevice, plan: Plan) -> Roof:
    a = torch.randn(ROOF_SIDE, ROOF_SIDE, device=device.kind)
    long = torch.zeros(ROOF_BYTES // 4, device=device.kind)
    product = time_step(lambda: a @ a, device.clock, plan, device.synchronize)
    read = time_step(long.sum, device.clock, plan, device.synchronize)
    return Roof(macs_per_s=ROOF_SIDE**3 / product.floor_s, bytes_per_s=ROOF_BYTES / read.floor_s)


def _trial(torch: Any, p: Prototype, shape: Shape, device: TorchDevice, roof: Roof, plan: Plan) -> Trial:
    torch.manual_seed(0)
    inputs = p.make(shape)
    exact = p.reference(*inputs)
    moved = tuple(x.to(device.kind) for x in inputs)
    got = p.run(*moved).double().cpu()
    error = float((got - exact).abs().max() / exact.abs().max())
    timing = time_step(lambda: p.run(*moved), device.clock, plan, device.synchronize)
    bound = max(p.macs(shape) / roof.macs_per_s, p.moved(shape) / roof.bytes_per_s)
    return Trial(shape=shape, timing=timing, error=error, macs=p.macs(shape), moved=p.moved(shape), bound_s=bound)


def complexity_of(
    macs: Sequence[float], moved: Sequence[float], seconds: Sequence[float]
) -> tuple[float, float, float, float]:
    """(fixed, per MAC, per byte, R2) of time over shapes; rows are weighted by 1 / time, so small shapes count as well."""
    from scipy.optimize import nnls

    times = np.asarray(seconds)
    design = np.stack([np.ones(len(times)), np.asarray(macs), np.asarray(moved)], axis=1) / times[:, None]
    scale = np.abs(design).max(axis=0)
    scale[scale == 0.0] = 1.0  # a term that no shape has: nothing to fit
    found, _ = nnls(design / scale, np.ones(len(times)))
    fitted = (design / scale) @ found * times
    rest, spread = float(((fitted - times) ** 2).sum()), float(((times - times.mean()) ** 2).sum())
    fixed, per_mac, per_byte = (float(x) for x in found / scale)
    return fixed, per_mac, per_byte, 1.0 - rest / spread if spread > 0 else 1.0
