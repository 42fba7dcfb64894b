"""What a design is worth: names of metrics, their units and which way is better."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Metric:
    """`larger`: more is better."""

    unit: str
    about: str
    larger: bool = False


DESIGN = {
    "area_mm2": Metric("mm2", "die area"),
    "die_usd": Metric("USD", "silicon, all dies"),
    "price_usd": Metric("USD", "silicon and memory, no package"),
    "carbon_g": Metric("g", "embodied CO2e of die and memory"),
}
BASKET = {
    "latency_s": Metric("s", "weighted sum of the workloads' latencies"),
    "energy_j": Metric("J", "weighted sum of the workloads' energies"),
    "edp": Metric("J s", "weighted sum of the workloads' energy times latency"),
    "power_w": Metric("W", "highest mean package power of any workload"),
    "speedup": Metric("x", "weighted geometric mean of latency on the unchanged chip over latency", larger=True),
    "speedup_per_mm2": Metric("1/mm2", "speedup per die area", larger=True),
    "speedup_per_w": Metric("1/W", "speedup per watt", larger=True),
    "quality_loss": Metric("nats/token", "largest of any language model: measured for its weight format, direction only"),
    "speedup_per_usd": Metric("1/USD", "speedup per dollar of silicon and memory", larger=True),
}
WORKLOAD = {
    "latency_s": Metric("s", "the whole request"),
    "energy_j": Metric("J", "the whole request"),
    "edp": Metric("J s", "energy times latency"),
    "power_w": Metric("W", "energy over latency"),
    "memory_bytes": Metric("B", "weights, cache and activations"),
    "fits": Metric("", "1 where the memory suffices", larger=True),
    "prefill_s": Metric("s", "the prompt: time to first token"),
    "decode_s": Metric("s", "one token"),
    "tokens_per_s": Metric("1/s", "decoded tokens, summed over the batch", larger=True),
    "quality_loss": Metric("nats/token", "of the weight format, measured on the reference model: direction only"),
    "inference_s": Metric("s", "one inference"),
}
"""Metrics of one workload, written "chat.tokens_per_s"."""


def metric(name: str, workloads: Iterable[str]) -> Metric | None:
    """The metric of this name, None when there is none."""
    head, dot, leaf = name.rpartition(".")
    if not dot:
        return DESIGN.get(name) or BASKET.get(name)
    return WORKLOAD.get(leaf) if head in workloads else None


def metric_names(workloads: Iterable[str]) -> list[str]:
    return [*DESIGN, *BASKET, *(f"{w}.{leaf}" for w in workloads for leaf in WORKLOAD)]


_RELATIONS: dict[str, Callable[[Any, Any], Any]] = {
    "<=": operator.le, ">=": operator.ge, "<": operator.lt, ">": operator.gt,
}  # fmt: skip
_SHAPE = re.compile(r"\s*([A-Za-z_][\w.-]*)\s*(<=|>=|<|>)\s*([-+]?[\d.]+(?:[eE][-+]?\d+)?)\s*")


@dataclass(frozen=True, slots=True)
class Constraint:
    """`metric relation limit`, as the user wrote it."""

    text: str
    metric: str
    relation: str
    limit: float
    line: int = 0

    def holds(self, columns: Mapping[str, Floats]) -> NDArray[np.bool_]:
        found: NDArray[np.bool_] = _RELATIONS[self.relation](columns[self.metric], self.limit)
        return found

    def broken_by(self, columns: Mapping[str, Floats]) -> Floats:
        """By how much designs miss the limit, as a share of it; 0 where they keep it. NaN counts as missed."""
        excess = columns[self.metric] - self.limit
        if self.relation in (">", ">="):
            excess = -excess
        share = np.maximum(excess, 0.0) / max(abs(self.limit), 1e-12)
        return np.where(self.holds(columns), 0.0, np.maximum(np.nan_to_num(share, nan=1e3, posinf=1e3), 1e-9))

    @property
    def is_ceiling(self) -> bool:
        return self.relation in ("<", "<=")


def parse_constraint(text: str, line: int = 0) -> Constraint | None:
    """None for anything but one comparison of a name with a number."""
    match = _SHAPE.fullmatch(text) if len(text) <= 200 else None
    if match is None:
        return None
    name, relation, limit = match.groups()
    try:
        return Constraint(text.strip(), name, relation, float(limit), line)
    except ValueError:
        return None


def contradiction(constraints: Iterable[Constraint]) -> tuple[Constraint, Constraint] | None:
    """Two constraints that no number keeps both."""
    found = list(constraints)
    for low in (c for c in found if not c.is_ceiling):
        for high in (c for c in found if c.is_ceiling and c.metric == low.metric):
            strict = low.relation == ">" or high.relation == "<"
            if low.limit > high.limit or (strict and low.limit == high.limit):
                return low, high
    return None
