"""What it costs to hand a tensor from one engine to another, or to change its number format.

All engines share one memory, so a tensor is not copied for being read elsewhere. What costs is starting and ending work on an
engine (events, dispatch) and changing form: CPU and GPU read dense rows, the Neural Engine (B, C, 1, S) surfaces whose last
axis is padded. Costs are split into leaving the engine that made a tensor (paid once per tensor) and entering an engine that
reads it (once per tensor and engine), both per call:

    leave(engine) = event + bytes to dense rows          enter(engine) = event + bytes from dense rows

| event | seconds | source |
|---|---|---|
| GPU, either side | 20 us, a command-buffer boundary | mlx |
| CPU, enter | 0.12 ms: a synchronous evaluation (0.14 ms) less one boundary | mlx-benchmark, derived |
| CPU, leave | 0: the next engine's event covers it | own judgement |
| Neural Engine, enter | `ane.dispatch` of the chip: the floor of one dispatch | maderix-ane, bryngelson-ane |
| Neural Engine, leave | 0: that floor is a round trip | own judgement |

Converting to or from the Neural Engine's form reads the dense bytes and writes the padded ones (or back) at the CPU's
bandwidth, and the engine moves the padded bytes at `ane.activation_bandwidth`. A change of number format reads one form and
writes the other at the DRAM's peak: its own launch is part of no source, so it costs bytes only.

These are estimates from single figures: no public measurement times a switch on its own. `SPREAD` says how far they may be off.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from orchard.cost.energy import HOST_W
from orchard.cost.terms import Hardware

GPU_BOUNDARY_S = 20e-6
"""Command-buffer boundary [mlx]."""
CPU_WAIT_S = 0.14e-3 - GPU_BOUNDARY_S
"""The CPU learns that another engine is done: smallest synchronous evaluation [mlx-benchmark] less its boundary."""
SPREAD = (0.5, 2.0)
"""Factors from a hand-over's estimate to its 80 % interval: own judgement (synchronous calls range from 0.14 to 0.56 ms)."""
ENGINES = ("cpu", "gpu", "ane")


@dataclass(frozen=True, slots=True, kw_only=True)
class Crossing:
    """Seconds and joules of one side of a hand-over."""

    seconds: float
    joules: float


class HandOverPrices:
    """Prices on one chip. Engines that the chip does not describe cannot be asked for."""

    def __init__(self, hw: Hardware) -> None:
        self.hw = hw
        dispatch = float(hw["ane.dispatch"]) if "ane.dispatch" in hw else 0.0
        self.enter_s = {"cpu": CPU_WAIT_S, "gpu": GPU_BOUNDARY_S, "ane": dispatch}
        self.leave_s = {"cpu": 0.0, "gpu": GPU_BOUNDARY_S, "ane": 0.0}

    def leave(self, engine: str, dense: float, padded: float, calls: float = 1.0) -> Crossing:
        """The engine that made a tensor of `dense` bytes (`padded` in the Neural Engine's form) lets go of it. `dense` and
        `padded` are summed over `calls` calls."""
        return self._side(self.leave_s[engine] * calls, engine, dense, padded)

    def enter(self, engine: str, dense: float, padded: float, calls: float = 1.0) -> Crossing:
        """An engine takes up a tensor that another one made."""
        return self._side(self.enter_s[engine] * calls, engine, dense, padded)

    def between(self, source: str, readers: Iterable[str], dense: float, padded: float) -> float:
        """Seconds until all engines of `readers` have a tensor that `source` made: left once, entered once per engine."""
        others = sorted(set(readers) - {source})
        if not others:
            return 0.0
        left = self.leave(source, dense, padded).seconds
        return left + sum(self.enter(e, dense, padded).seconds for e in others)

    def _side(self, event: float, engine: str, dense: float, padded: float) -> Crossing:
        seconds, moved = event, 0.0
        if engine == "ane" and dense > 0:
            moved = dense + 2.0 * padded
            seconds += (dense + padded) / float(self.hw["cpu.bandwidth"]) + padded / self._ane_rate()
        return Crossing(seconds=seconds, joules=moved * float(self.hw["dram.energy"]) + seconds * HOST_W)

    def _ane_rate(self) -> float:
        return float(self.hw["ane.activation_bandwidth"])

    def cast(self, read: float, written: float) -> Crossing:
        """A tensor changes its number format: `read` bytes in, `written` bytes out."""
        moved = read + written
        seconds = moved / float(self.hw["dram.bandwidth"])
        return Crossing(seconds=seconds, joules=moved * float(self.hw["dram.energy"]) + seconds * HOST_W)

    def padded(self, shape: tuple[int, ...], element_bytes: float) -> float:
        """Bytes of a tensor whose last axis is padded to `ane.align` bytes."""
        align = float(self.hw["ane.align"]) if "ane.align" in self.hw else 64.0
        last = max(1, shape[-1]) * element_bytes if shape else element_bytes
        rows = float(np.prod([float(s) for s in shape[:-1]])) if shape else 1.0
        return rows * float(np.ceil(last / align) * align)
