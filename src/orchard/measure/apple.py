"""Core ML and Core AI: what they need, and what their tools print.

Neither runs outside macOS, so opening them elsewhere is refused with one sentence; what reads their output is plain text
work and runs anywhere.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from orchard.measure.errors import MeasureError

NEEDS = {
    "coreml": "device coreml: Core ML runs on macOS only; it needs a Mac with macOS 14.4 or later and coremltools",
    "coreai": "device coreai: Core AI runs on macOS only; it needs a Mac with macOS 27 or later and its benchmark tool",
}


def require_macos(device: str) -> None:
    """Raise MeasureError unless this is a Mac."""
    if sys.platform != "darwin":
        raise MeasureError(f"{NEEDS[device]} (this is {sys.platform})")


@dataclass(frozen=True, kw_only=True)
class PlannedOp:
    """One operation of a Core ML compute plan: where it will run, and its share of the estimated cost (0 to 1)."""

    name: str
    operator: str
    device: str
    supported: tuple[str, ...]
    cost: float | None


def compute_plan(text: str) -> tuple[PlannedOp, ...]:
    """A compute plan as JSON: a list of {"name", "operator", "preferred", "supported", "cost"}, the fields of
    MLComputePlan (operatorName, preferredComputeDevice, supportedComputeDevices, estimatedCost.weight)."""
    try:
        rows = json.loads(text)
    except ValueError:
        raise MeasureError("compute plan: is not JSON") from None
    if not isinstance(rows, list):
        raise MeasureError("compute plan: expected a list of operations")
    return tuple(_planned(index, row) for index, row in enumerate(rows))


def _planned(index: int, row: Any) -> PlannedOp:
    if not isinstance(row, Mapping) or "operator" not in row:
        raise MeasureError(f"compute plan: operation {index} has no field 'operator'")
    cost = row.get("cost")
    return PlannedOp(
        name=str(row.get("name", index)), operator=str(row["operator"]), device=str(row.get("preferred", "unknown")),
        supported=tuple(str(d) for d in row.get("supported", ())), cost=None if cost is None else float(cost),
    )  # fmt: skip


def spread_over_plan(plan: tuple[PlannedOp, ...], seconds: float) -> tuple[tuple[str, str, float], ...]:
    """(name, device, seconds): a whole model's measured time over its operations by the plan's cost shares.

    Operations without a cost (constants, or not planned) get none; the rest sums to `seconds`.
    """
    whole = sum(op.cost or 0.0 for op in plan)
    if whole <= 0:
        raise MeasureError("compute plan: no operation has a cost, so the time cannot be spread over operations")
    return tuple((op.name, op.device, seconds * (op.cost or 0.0) / whole) for op in plan)


def benchmark_rows(text: str) -> dict[str, float]:
    """Seconds by label from a benchmark tool's lines such as `median: 1.234 ms` or `load 12.5 us`."""
    scale = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}
    found = {
        label.strip().lower(): float(value) * scale[unit]
        for label, value, unit in re.findall(
            r"^\s*([A-Za-z][A-Za-z0-9 _.%-]*?)\s*[:=]?\s+([\d.]+)\s*(s|ms|us|µs|ns)\s*$", text, re.M
        )
    }
    if not found:
        raise MeasureError("benchmark output: no line such as 'median: 1.234 ms'")
    return found
