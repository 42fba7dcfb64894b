"""Nests that only a search with several waiting tiles, shared sliding loops and larger waiting tiles finds; each was once missed
by a search that called its answer proven."""

from __future__ import annotations

import random
import sys
from pathlib import Path

import numpy as np
import pytest

from orchard.cost.mapped import check_capacity, estimate
from orchard.cost.nest import count
from orchard.hw.arch import Architecture, Compute, Level
from orchard.ir import parse_einsum
from orchard.mapping import ImpossibleSpace, Keep, Loop, Nest, Problem
from orchard.mapping.lattice import lattice_of
from orchard.search import layered
from orchard.studies.map import map_op, patterns
from orchard.studies.nest_search import NestModel

sys.path.insert(0, str(Path(__file__).parent))
from spaces import best_of_all, case

ROOT = Level(name="D", read_energy_pj=20.0, write_energy_pj=20.0)


def machine(*nodes: Level) -> Architecture:
    return Architecture(name="toy", nodes=(ROOT, *nodes), compute=Compute(energy_pj=0.0))


def level(name: str, roles: str, capacity: int | None, write_pj: float, read_pj: float = 1.0) -> Level:
    return Level(
        name=name, keep=frozenset(roles), capacity_words=capacity, read_energy_pj=read_pj, write_energy_pj=write_pj
    )


CASES = {
    "one sliding loop for equal tiles in two levels": (
        "(p+r), k r -> k p", {"p": 4, "r": 2, "k": 2}, machine(level("G", "I", 2, 5, 5), level("R", "I", 2, 5)),
        (Loop("p", 1), Keep("G", "A"), Keep("R", "A"), Loop("k", 1), Loop("r", 1)),
    ),
    "two tensors stay across the same loop": (
        "m, n -> m", {"m": 2, "n": 4}, machine(level("G", "W", 1, 1), level("R", "IO", 4, 9)),
        (Loop("n", 1), Keep("G", "B"), Keep("R", "A"), Keep("R", "O"), Loop("m", 1)),
    ),
    "one tensor stays in two levels": (
        "k, k n -> n", {"k": 2, "n": 8},
        machine(level("H", "W", 2, 1), level("G", "IW", 4, 1), level("R", "I", 2, 9)),
        (Loop("n", 1), Keep("H", "B"), Keep("G", "B"), Keep("G", "A"), Keep("R", "A"), Loop("k", 1)),
    ),
    "a loop inside the tile that stays is reuse further out": (
        "m, n -> m n", {"m": 4, "n": 4}, machine(level("G", "W", 1, 1), level("R", "I", 4, 9)),
        (Loop("n", 1), Keep("G", "B"), Keep("R", "A"), Loop("m", 1)),
    ),
    "the same in a matrix product with every tensor in both levels": (
        "m k, k n -> m n", {"m": 2, "k": 2, "n": 4},
        machine(level("G", "IWO", 10, 1),
                Level(name="R", capacity_words={"I": 4, "W": 1, "O": 1}, read_energy_pj=0.0, write_energy_pj=50.0)),
        (Loop("n", 1), Keep("G", "O"), Keep("G", "B"), Keep("G", "A"), Keep("R", "A"), Loop("m", 1), Keep("R", "O"),
         Loop("k", 1), Keep("R", "B")),
    ),
    "a window slides in nested buffers along a loop that another tile stays put across": (
        "(p) (q+s), s -> p q", {"p": 3, "q": 2, "s": 3},
        machine(level("G", "IWO", 6, 1, 0), level("M", "O", 2, 20, 5), level("R", "I", 5, 20, 0)),
        (Loop("p", 1), Loop("s", 1), Keep("G", "A"), Keep("G", "B"), Keep("G", "O"), Keep("M", "O"), Keep("R", "A"),
         Loop("q", 1)),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_no_nest_beats_a_proven_answer(name: str) -> None:
    text, sizes, arch, nodes = CASES[name]
    problem = Problem("x", parse_einsum(text), sizes, ("A", "B", "O"))
    counts = count(Nest(nodes), problem, arch)
    check_capacity(counts, problem, arch)
    mapped = map_op(problem, arch, "energy")
    assert mapped.optimal
    assert mapped.value <= estimate(counts, problem, arch).energy_pj * (1 + 1e-9)


@pytest.mark.parametrize("seed", [*range(8), 35])  # 35: words shared across two fan-outs were bounded too high
def test_equal_to_enumeration_of_hard_spaces(seed: int) -> None:
    """benchmarks/mapping/exhaustive.py runs more of them, and larger ones."""
    problem, arch, objective = case(random.Random(seed))
    best, tried = best_of_all(problem, arch, objective, 150)
    if tried > 150:
        return  # too many nests to enumerate
    if best is None:
        with pytest.raises(ImpossibleSpace):
            map_op(problem, arch, objective)
        return
    mapped = map_op(problem, arch, objective)
    assert mapped.optimal
    assert mapped.value == pytest.approx(best, rel=1e-9)


def models(seed: int):
    """The search's problem for every pattern of residency of a hard space; none where the space is large."""
    problem, arch, objective = case(random.Random(seed))
    if len(patterns(problem, arch)) > 4 or max(problem.sizes.values()) > 4:
        return
    for pattern in patterns(problem, arch):
        try:
            yield NestModel(
                problem, arch, lattice_of(problem, "perfect", ()), pattern, objective, compare_time=True, ragged=False
            )
        except ImpossibleSpace:
            continue


@pytest.mark.parametrize("seed", range(6))
def test_dominance_alone_loses_nothing(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The best score with every row kept equals that with beaten rows dropped; no incumbent, so no bound cuts."""
    for model in models(seed):
        with_rule = layered.solve(model).score
        with monkeypatch.context() as patch:
            patch.setattr(layered, "undominated", lambda key, columns: np.arange(len(key)))  # noqa: ARG005
            assert layered.solve(model).score == pytest.approx(with_rule, rel=1e-9)


@pytest.mark.parametrize("seed", [*range(12), 35])
def test_bounds_alone_lose_nothing(seed: int) -> None:
    """An incumbent just above the best cuts as much as bounds can, and still finds it."""
    for model in models(seed):
        best = layered.solve(model).score
        if np.isfinite(best) and best > 0:
            assert layered.solve(model, incumbent=best * (1 + 1e-9)).score == pytest.approx(best, rel=1e-9)
