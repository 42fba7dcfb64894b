"""Energy by instrument: RAPL counters, NVML, powermetrics and IOReport. Each reading is named after what it was read from.

Counters run on while others use the machine, so a reading is the energy of the package during the step, not of the process.
"""

from __future__ import annotations

import plistlib
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchard.measure.errors import MeasureError
from orchard.measure.library import library

POWERCAP = Path("/sys/class/powercap")


@dataclass(frozen=True)
class Meter:
    """A counter in joules that only grows, but wraps at `wraps_j` where that is not None."""

    name: str
    read: Callable[[], float]
    wraps_j: float | None = None

    def between(self, before: float, after: float) -> float:
        """Joules between two readings."""
        if after < before and self.wraps_j is not None:
            return after + self.wraps_j - before
        return after - before


def meters(powercap: Path = POWERCAP) -> tuple[Meter, ...]:
    """What can be read here without more rights; empty on most shared machines."""
    return (*rapl(powercap), *nvml())


def rapl(powercap: Path = POWERCAP) -> tuple[Meter, ...]:
    """Intel and AMD packages (Linux powercap: energy_uj, max_energy_range_uj); readable by root on current kernels."""
    found = []
    for zone in sorted(powercap.glob("*rapl:*")):
        counter = zone / "energy_uj"
        try:
            name = (zone / "name").read_text().strip()
            float(counter.read_text())
            wraps = float((zone / "max_energy_range_uj").read_text()) * 1e-6
        except (OSError, ValueError):
            continue
        found.append(Meter(f"RAPL {name}", lambda counter=counter: float(counter.read_text()) * 1e-6, wraps))  # type: ignore[misc]
    return tuple(found)


def nvml() -> tuple[Meter, ...]:
    """NVIDIA boards (nvmlDeviceGetTotalEnergyConsumption, millijoules since the driver was loaded)."""
    with suppress(Exception):  # not installed, no driver, or a board without the counter: then there is no such meter
        pynvml = library("pynvml")
        pynvml.nvmlInit()
        found = []
        for index in range(pynvml.nvmlDeviceGetCount()):
            handle = pynvml.nvmlDeviceGetHandleByIndex(index)
            pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)
            read = lambda handle=handle: pynvml.nvmlDeviceGetTotalEnergyConsumption(handle) * 1e-3  # noqa: E731
            found.append(Meter(f"NVML GPU {index}", read))
        return tuple(found)
    return ()


def powermetrics_text(text: str) -> dict[str, float]:
    """Mean watts by part from `powermetrics --samplers cpu_power,gpu_power,ane_power`: lines such as `CPU Power: 1234 mW`.

    Raises MeasureError where no such line is there.
    """
    readings: dict[str, list[float]] = {}
    for name, value, unit in re.findall(
        r"^\s*(CPU|GPU|ANE|Combined|DRAM)[^:\n]*Power[^:\n]*:\s*([\d.]+)\s*(m?W)", text, re.M
    ):
        readings.setdefault(name.lower(), []).append(float(value) * (1e-3 if unit == "mW" else 1.0))
    if not readings:
        raise MeasureError(
            "powermetrics: no line such as 'CPU Power: 1234 mW' in its output; run it with --samplers cpu_power"
        )
    return {name: sum(values) / len(values) for name, values in readings.items()}


def powermetrics_plist(data: bytes) -> dict[str, float]:
    """Mean watts by part from `powermetrics --format plist`, whose samples are property lists separated by NUL bytes.

    `processor` holds cpu_power, gpu_power, ane_power and combined_power in milliwatts.
    """
    totals: dict[str, list[float]] = {}
    for part in data.split(b"\0"):
        if not part.strip():
            continue
        try:
            sample = plistlib.loads(part.strip())
        except (ValueError, plistlib.InvalidFileException, Exception) as error:
            raise MeasureError(f"powermetrics: a sample is no property list ({type(error).__name__})") from None
        processor = sample.get("processor", {}) if isinstance(sample, dict) else {}
        for key in ("cpu_power", "gpu_power", "ane_power", "combined_power"):
            if isinstance(processor.get(key), int | float):
                totals.setdefault(key.removesuffix("_power"), []).append(float(processor[key]) * 1e-3)
    if not totals:
        raise MeasureError(
            "powermetrics: no sample has processor power; run it with --samplers cpu_power,gpu_power,ane_power"
        )
    return {name: sum(values) / len(values) for name, values in totals.items()}


def ioreport_joules(channels: Mapping[str, Any]) -> dict[str, float]:
    """Joules by channel from a difference of two IOReport samples of the group "Energy Model".

    `channels` maps a channel's name to {"value": n, "unit": "mJ" | "uJ" | "nJ"}, as tools that read IOReport print it.
    """
    scale = {"J": 1.0, "mJ": 1e-3, "uJ": 1e-6, "nJ": 1e-9}
    found = {}
    for name, entry in channels.items():
        unit = str(entry.get("unit", "")).strip()
        if unit not in scale:
            raise MeasureError(f"IOReport channel {name!r}: unit {unit!r}, expected one of {', '.join(scale)}")
        found[name] = float(entry["value"]) * scale[unit]
    return found
