"""What a machine is and what else it is doing: processor, caches, memory, versions, load, clocks, heat."""

from __future__ import annotations

import contextlib
import os
import platform
import re
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

SYSFS = Path("/sys")
PROC = Path("/proc")


@dataclass(frozen=True, kw_only=True)
class Machine:
    """Facts that do not change during a run. Bytes and hertz; None: the platform does not say."""

    system: str
    processor: str
    cores: int
    memory_bytes: int | None
    l1d_bytes: int | None = None
    l2_bytes: int | None = None
    l3_bytes: int | None = None
    clock_hz: float | None = None
    features: tuple[str, ...] = ()
    versions: dict[str, str] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class State:
    """What may disturb a measurement: runnable processes per core, clock in hertz, hottest zone in degrees Celsius."""

    load: float | None
    clock_hz: float | None
    celsius: float | None

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


FEATURES = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8", "asimd", "sve", "bf16", "i8mm")


def describe() -> Machine:
    """The machine this process runs on."""
    text = _read(PROC / "cpuinfo")
    model = re.search(r"^(?:model name|Model)\s*:\s*(.+)$", text, re.M)
    flags = re.search(r"^(?:flags|Features)\s*:\s*(.+)$", text, re.M)
    words = set(flags.group(1).split()) if flags else set()
    mhz = re.search(r"^(?:cpu MHz)\s*:\s*([\d.]+)$", text, re.M)
    return Machine(
        system=f"{platform.system()} {platform.release()}",
        processor=model.group(1).strip() if model else platform.processor() or platform.machine(),
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        memory_bytes=_memory(),
        l1d_bytes=_cache(1), l2_bytes=_cache(2), l3_bytes=_cache(3),
        clock_hz=float(mhz.group(1)) * 1e6 if mhz else None,
        features=tuple(f for f in FEATURES if f in words),
        versions=_versions(),
    )  # fmt: skip


def state() -> State:
    """Load, clock and heat now."""
    load: float | None = None
    with contextlib.suppress(OSError, AttributeError):
        load = os.getloadavg()[0]
    zones = [z for path in sorted(SYSFS.glob("class/thermal/thermal_zone*/temp")) if (z := _number(path)) is not None]
    khz = _number(SYSFS / "devices/system/cpu/cpu0/cpufreq/scaling_cur_freq")
    return State(load=load, clock_hz=khz * 1e3 if khz else None, celsius=max(zones) / 1e3 if zones else None)


def other_load(before: State, cores: int) -> str | None:
    """A sentence where other processes are at work; None on a quiet machine."""
    if before.load is None or before.load < 0.5:
        return None
    return f"other load: {before.load:.1f} processes were runnable on {cores} cores when the run began"


def peak_rss_bytes() -> int | None:
    """The most resident memory since `reset_peak_rss`; None where the system does not say."""
    found = re.search(r"^VmHWM:\s+(\d+) kB", _read(PROC / "self/status"), re.M)
    return int(found.group(1)) * 1024 if found else None


def memory_now() -> tuple[int, int] | None:
    """Resident bytes, and how many are pages of files (proc(5), VmRSS and RssFile); None where the system does not say."""
    text = _read(PROC / "self/status")
    found = [re.search(rf"^{key}:\s+(\d+) kB", text, re.M) for key in ("VmRSS", "RssFile")]
    whole, files = (int(one.group(1)) * 1024 if one else None for one in found)
    return None if whole is None or files is None else (whole, files)


def reset_peak_rss() -> bool:
    """Make VmHWM start from now (proc(5), clear_refs 5); False where that is not possible."""
    try:
        (PROC / "self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def _number(path: Path) -> float | None:
    text = _read(path).strip()
    return float(text) if re.fullmatch(r"-?\d+(\.\d+)?", text) else None


def _memory() -> int | None:
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError, AttributeError):
        return None


def _cache(level: int) -> int | None:
    for index in sorted(SYSFS.glob("devices/system/cpu/cpu0/cache/index*")):
        kind = _read(index / "type").strip()
        if _read(index / "level").strip() == str(level) and kind in ("Data", "Unified"):
            found = re.fullmatch(r"(\d+)([KM])", _read(index / "size").strip())
            if found:
                return int(found.group(1)) * (2**10 if found.group(2) == "K" else 2**20)
    return None


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in ("orchard-soc", "orchard", "torch", "transformers", "mlx", "numpy"):
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    return found
