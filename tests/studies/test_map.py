"""The mapper against exhaustive enumeration, and the jobs that peers were timed on."""

from __future__ import annotations

import random
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from orchard.hw.arch import load_arch
from orchard.ir import parse_einsum
from orchard.mapping import ImpossibleSpace, MappingError, Problem
from orchard.studies.map import map_op

sys.path.insert(0, str(Path(__file__).parent))
from exhaustive import brute, case


def gemm(m: int, k: int, n: int) -> Problem:
    return Problem("gemm", parse_einsum("m k, k n -> m n"), {"m": m, "k": k, "n": n}, ("A", "B", "C"))


@pytest.mark.parametrize("seed", [*range(60), 333])  # 333: copies that stand apart share strided windows
def test_equal_to_exhaustive_enumeration(seed: int) -> None:
    problem, arch, objective = case(random.Random(seed))
    best, tried = brute(problem, arch, objective, 800)
    if tried > 800:
        return  # too many nests to enumerate
    if best is None:
        with pytest.raises(ImpossibleSpace):
            map_op(problem, arch, objective)
        return
    mapped = map_op(problem, arch, objective)
    assert mapped.optimal
    assert mapped.value == pytest.approx(best[0], rel=1e-9)
    assert mapped.bound == pytest.approx(best[0], rel=1e-6)


def test_j1_is_proven_and_no_worse_than_any_peer() -> None:
    mapped = map_op(gemm(4096, 4096, 4096), load_arch("E16"))
    assert mapped.optimal
    assert mapped.estimate.latency_cycles == 4096**3 / 256
    assert mapped.estimate.edp <= 8.41e19  # AccelForge, register files in any order
    assert mapped.counts.steps == 4096**3 // 256


def test_j1t_is_proven_and_no_worse_than_any_peer() -> None:
    mapped = map_op(gemm(4096, 4096, 4096), load_arch("T128"))
    assert mapped.optimal
    assert mapped.estimate.edp <= 2.954e17


def test_the_proof_may_stay_open_and_says_so() -> None:
    mapped = map_op(gemm(4096, 4096, 4096), load_arch("E16"), time_limit_s=0.0)
    assert not mapped.optimal
    assert mapped.bound <= mapped.value


def test_unknown_objective_is_refused() -> None:
    with pytest.raises(MappingError, match="expected one of edp, energy, latency, traffic"):
        map_op(gemm(4, 4, 4), load_arch("E16"), "speed")  # type: ignore[arg-type]


def test_ragged_tiles_over_several_fan_outs_are_never_called_proven():
    from orchard.hw.arch import load_arch
    from orchard.mapping.ops import parse_op
    from orchard.studies.map import map_op

    arch = load_arch("T128")
    problem = parse_op("gemm:m=6,k=6,n=6")
    found = map_op(problem, arch, factors="imperfect")
    assert found.optimal == (len(arch.fan_outs) < 2)


@pytest.mark.parametrize("seed", range(40))
def test_the_bound_is_never_above_what_a_partial_answer_leads_to(seed: int) -> None:
    """Along the best answer of a space searched without pruning, every bound stays at or below the final score."""
    import numpy as np

    from orchard.mapping.lattice import lattice_of
    from orchard.search.layered import solve
    from orchard.studies.map import patterns
    from orchard.studies.nest_search import NestModel

    rng = random.Random(seed)
    if seed < 30:
        problem, arch, objective = case(rng)
    else:  # short sums, spread entirely over the copies: every product is a first visit
        problem, arch, objective = (
            gemm(rng.choice([4, 8]), rng.choice([2, 4]), rng.choice([4, 8])),
            load_arch("A64"),
            "energy",
        )
    lattice = lattice_of(problem, "perfect", ())
    for pattern in patterns(problem, arch)[:2]:
        try:
            model = NestModel(problem, arch, lattice, pattern, objective, compare_time=True, ragged=False)
        except ImpossibleSpace:
            continue
        outcome = solve(model)
        if outcome.trail is None:
            continue
        for slot, move, row in outcome.trail.steps:
            carried = {name: np.asarray(value)[None] for name, value in row.items()}
            batch = model._batch(slot, carried, np.zeros(1, np.int64), move)
            assert model.lower_bound(slot, batch)[0] <= outcome.score * (1 + 1e-9), (slot, move)


@pytest.mark.parametrize("seed", range(1000, 1040))
def test_equal_to_enumeration_with_operands_that_stay_on_the_chip(seed: int) -> None:
    """Resident operands pay nothing at the outermost port; the floors of latency must not cut what this makes possible."""
    rng = random.Random(seed)
    problem, arch, objective = case(rng)
    problem = replace(problem, resident=frozenset(t for t in problem.tensors if rng.random() < 0.5))
    best, tried = brute(problem, arch, objective, 800)
    if tried > 800 or best is None:
        return  # too many nests to enumerate, or none (covered above)
    mapped = map_op(problem, arch, objective)
    assert mapped.optimal
    assert mapped.value == pytest.approx(best[0], rel=1e-9)


def test_a_gap_stops_the_proof_early_and_the_bound_says_how_far_it_got() -> None:
    problem, arch = gemm(96, 80, 112), load_arch("E16")
    exact, loose = map_op(problem, arch), map_op(problem, arch, gap=0.2)
    assert exact.optimal
    assert exact.value <= loose.value <= exact.value * 1.25
    assert loose.bound <= exact.value * (1 + 1e-9)
    assert loose.bound >= 0.8 * loose.value * (1 - 1e-9)
    assert loose.mappings_considered < exact.mappings_considered
