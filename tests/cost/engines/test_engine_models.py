"""Engine models as array functions: terms, monotonicity in every resource, arrays that equal loops."""

from __future__ import annotations

import time
from functools import lru_cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchard.cost.engines.formats import per_format
from orchard.cost.errors import ProfileError
from orchard.cost.evaluate import Call, PhaseTime, call_seconds, phase_time
from orchard.cost.lower import KernelTable, lower
from orchard.cost.profile import load_profile, profile_names
from orchard.hw import HardwareArrays, load_chip
from orchard.workloads import load_model

CALLS = {
    "decode": [Call({"B": 1, "T": 1, "S": 300})],
    "prefill": [Call({"B": 1, "T": 512, "S": 512})],
    "small": [Call({"B": 4, "T": 1, "S": 300})],
}
RESOURCES = {
    "gpu": ("dram.bandwidth", "gpu.cores", "gpu.clock"),
    "cpu": ("dram.bandwidth", "cpu.bandwidth", "cpu.p.cores", "cpu.p.clock"),
    "ane": ("ane.clock", "ane.weight_bandwidth", "ane.activation_bandwidth"),
}


@lru_cache(maxsize=64)
def table(profile: str, model: str = "qwen3-0.6b") -> KernelTable:
    weights = "pal4" if profile.startswith("coreml") else "q4_0"
    return lower(load_model(model).graph(weights=weights), load_profile(profile).lowering)


def times(profile: str, phase: str, variants=None, *, chip: str = "m2max", model: str = "qwen3-0.6b") -> PhaseTime:
    p = load_profile(profile)
    hw = HardwareArrays.of(load_chip(chip), variants or {})
    return phase_time(table(profile, model), CALLS[phase], hw, p, p.values())


@pytest.mark.parametrize("profile", profile_names())
@pytest.mark.parametrize("model", ["qwen3-0.6b", "qwen3-30b-a3b"])
@pytest.mark.parametrize("phase", CALLS)
def test_terms_are_times_and_sum(profile: str, model: str, phase: str) -> None:
    found = times(profile, phase, model=model)
    for part in (found.compute, found.memory, found.dispatch, *vars_of(found.kernels)):
        assert np.all(np.isfinite(part))
        assert np.all(np.asarray(part) >= 0)
    assert float(found.total) == pytest.approx(float(found.compute + found.memory + found.dispatch))
    calls = float(call_seconds(HardwareArrays.of(load_chip("m2max")), load_profile(profile).values()))
    assert float(found.total) == pytest.approx(float(found.kernels.total.sum()) + calls)
    assert float(found.dispatch) == pytest.approx(float(found.kernels.dispatch.sum()) + calls)


def vars_of(terms):
    return terms.compute, terms.memory, terms.dispatch


@pytest.mark.parametrize("profile", profile_names())
def test_more_of_a_resource_is_never_slower(profile: str) -> None:
    soc = load_chip("m2max")
    for path in RESOURCES[load_profile(profile).engine]:
        steps = soc[path] * np.array([0.25, 0.5, 1.0, 2.0, 4.0])
        for phase in CALLS:
            total = np.broadcast_to(times(profile, phase, {path: steps}).total, steps.shape)
            assert np.all(np.diff(total) <= 1e-12 * total[:-1]), (path, phase)


@settings(max_examples=25, deadline=None)
@given(
    st.sampled_from(profile_names()), st.sampled_from(sorted(CALLS)), st.floats(0.3, 3.0), st.floats(0.3, 3.0),
    st.floats(1.0, 3.0), st.integers(0, 3),
)  # fmt: skip
def test_more_is_never_slower_from_any_starting_point(
    profile: str, phase: str, first: float, second: float, more: float, which: int
) -> None:
    soc = load_chip("m2max")
    paths = RESOURCES[load_profile(profile).engine]
    start = {paths[0]: soc[paths[0]] * first, paths[1]: soc[paths[1]] * second}
    path = paths[which % len(paths)]
    better = {**start, path: start.get(path, soc[path]) * more}
    assert float(times(profile, phase, better).total) <= float(times(profile, phase, start).total) * (1 + 1e-12)


@pytest.mark.parametrize("profile", profile_names())
def test_an_array_of_variants_is_a_loop_over_them(profile: str) -> None:
    soc = load_chip("m2max")
    paths = RESOURCES[load_profile(profile).engine]
    rng = np.random.default_rng(5)
    variants = {path: soc[path] * rng.uniform(0.5, 2.0, 6) for path in paths}
    together = times(profile, "prefill", variants)
    for i in range(6):
        alone = times(profile, "prefill", {path: float(v[i]) for path, v in variants.items()})
        for name in ("total", "compute", "memory", "dispatch"):
            found = np.broadcast_to(getattr(together, name), (6,))[i]
            assert float(found) == pytest.approx(float(getattr(alone, name)), rel=1e-12), name


@pytest.mark.parametrize("profile", ["llama.cpp-gpu", "mlx-gpu", "llama.cpp-cpu", "coreml-ane"])
def test_ten_thousand_variants_take_less_than_two_seconds(profile: str) -> None:
    soc = load_chip("m2max")
    paths = RESOURCES[load_profile(profile).engine]
    variants = {path: soc[path] * np.linspace(0.5, 2.0, 10_000) for path in paths}
    times(profile, "decode")
    start = time.process_time()
    total = times(profile, "decode", variants).total
    assert time.process_time() - start < 2.0
    assert np.broadcast_to(total, 10_000).shape == (10_000,)


def test_a_phase_is_the_weighted_sum_of_its_calls() -> None:
    p, hw = load_profile("llama.cpp-gpu"), HardwareArrays.of(load_chip("m1"))
    a, b = CALLS["decode"][0], CALLS["prefill"][0]
    kernels = table("llama.cpp-gpu")

    def total(*calls: Call) -> float:
        return float(phase_time(kernels, calls, hw, p, p.values()).total)

    both = total(Call(a.bindings, 3.0), Call(b.bindings, 0.5))
    assert both == pytest.approx(3 * total(a) + 0.5 * total(b))


def test_a_small_batch_is_a_staircase_of_passes() -> None:
    """Rows 2 to 5 share one pass over the weights, 6 to 8 take two: memory time jumps there and nowhere else."""
    p, hw = load_profile("llama.cpp-gpu"), HardwareArrays.of(load_chip("m2max"))
    rules = p.rules["small_batch_passes"]
    assert all(rules[r + 1] >= rules[r] for r in range(2, 8))
    kernels = table("llama.cpp-gpu")
    totals = [float(phase_time(kernels, [Call({"B": b, "T": 1, "S": 64})], hw, p, p.values()).total) for b in range(1, 9)]
    assert totals == sorted(totals)


def test_a_format_without_a_number_is_named() -> None:
    counts = table("llama.cpp-gpu").evaluate({"B": 1, "T": 1, "S": 8})
    with pytest.raises(ProfileError, match=r"no vector_lane for format .* \(class"):
        per_format(counts, {}, "vector_lane")


def test_threads_beyond_the_cores_do_not_help() -> None:
    from orchard.cost.engines.cpu import worker_threads

    hw = HardwareArrays.of(load_chip("m2max"))
    cores = float(hw["cpu.p.cores"] + hw["cpu.e.cores"])
    assert worker_threads(hw, {}) == hw["cpu.p.cores"]
    assert worker_threads(hw, {"threads": 4}) == 4
    assert worker_threads(hw, {"threads": 1000}) == cores
