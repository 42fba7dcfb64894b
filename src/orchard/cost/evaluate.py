"""Counts and hardware in, time out: the array function that predictions, sensitivities and explorations share.

A *call* is one forward pass with bound symbols. A phase is a weighted sequence of calls: a prompt is cut into the runtime's
chunks, a decode phase is sampled over the growing context. Everything broadcasts over chip variants (leading axes).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from orchard.cost.engines import ane, ane_nets, cpu, cpu_ops, eager, gpu, gpu_ops, simd_nets
from orchard.cost.errors import ProfileError
from orchard.cost.lower import KernelArrays, KernelTable
from orchard.cost.profile import Profile
from orchard.cost.terms import Array, Hardware, Terms

EngineModel = Callable[[KernelArrays, Hardware, Mapping[str, float], Mapping[str, Any]], Terms]

MODELS: dict[str, EngineModel] = {
    "gpu": gpu.kernel_times,
    "cpu": cpu.kernel_times,
    "ane": ane.kernel_times,
    "ane-nets": ane_nets.kernel_times,
    "gpu-ops": gpu_ops.gpu_times,
    "cpu-ops": cpu_ops.cpu_times,
    "eager": eager.kernel_times,
    "simd-nets": simd_nets.kernel_times,
}


@dataclass(frozen=True, slots=True)
class Call:
    """One forward pass: symbol values and how many such calls the phase holds (a mean over samples may be fractional)."""

    bindings: Mapping[str, int]
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class PhaseTime:
    """Seconds of a whole phase [...]; `kernels` are the same terms per kernel [..., kernels]."""

    total: Array
    compute: Array
    memory: Array
    dispatch: Array
    kernels: Terms


def engine_model(profile: Profile) -> EngineModel:
    """The engine model a profile names. Raises ProfileError for an unknown one."""
    try:
        return MODELS[profile.model]
    except KeyError:
        known = ", ".join(sorted(MODELS))
        raise ProfileError(f"profile {profile.name}: engine model {profile.model!r}, expected one of {known}") from None


def phase_time(
    table: KernelTable, calls: Sequence[Call], hw: Hardware, profile: Profile, values: Mapping[str, float]
) -> PhaseTime:
    """Time of a phase. `hw` maps dotted names to floats or arrays [variants]; `values` are the profile's parameters."""
    model = engine_model(profile)
    stacked = Stacked(hw)
    kernels: Terms | None = None
    for call in calls:
        terms = model(table.evaluate(call.bindings), stacked, values, profile.rules)
        scaled = Terms(terms.compute * call.weight, terms.memory * call.weight, terms.dispatch * call.weight)
        kernels = scaled if kernels is None else kernels + scaled
    if kernels is None:
        raise ValueError("a phase needs at least one call")
    per_call = call_seconds(hw, values) * sum(call.weight for call in calls)
    compute, memory = kernels.compute.sum(-1), kernels.memory.sum(-1)
    dispatch = kernels.dispatch.sum(-1) + per_call
    return PhaseTime(compute + memory + dispatch, compute, memory, dispatch, kernels)


def call_seconds(hw: Hardware, values: Mapping[str, float]) -> Any:
    """Fixed time of one call: the runtime's own, and the engine's call floor where the profile counts it."""
    floors = values.get("call_dispatches", 0.0)
    return values.get("call_s", 0.0) + (floors * hw["ane.dispatch"] if floors else 0.0)


class Stacked:
    """Hardware values with a trailing kernel axis: an array [variants] reads as [variants, 1], a float as a float."""

    def __init__(self, hw: Hardware) -> None:
        self._hw = hw

    def __getitem__(self, path: str) -> Any:
        value = self._hw[path]
        return value[..., np.newaxis] if isinstance(value, np.ndarray) and value.ndim else value

    def __contains__(self, path: str) -> bool:
        return path in self._hw
