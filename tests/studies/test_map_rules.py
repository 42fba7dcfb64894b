"""Each rule that prunes, switched off on random hard spaces: the same best score, and more partial answers in all.

Why the rules lose nothing stands in the docstrings of what is patched here; other tests compare with enumeration.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from orchard.mapping import ImpossibleSpace
from orchard.mapping.lattice import lattice_of
from orchard.search import layered
from orchard.studies import fuse_fronts, fuse_groups
from orchard.studies.fuse import map_chain
from orchard.studies.map import patterns
from orchard.studies.nest_search import NestModel

sys.path.insert(0, str(Path(__file__).parent))
from chain_exhaustive import chain_case
from spaces import case

Patch = Callable[[pytest.MonkeyPatch], None]


def models(seed: int) -> list[NestModel]:
    problem, arch, objective = case(random.Random(seed))
    if len(patterns(problem, arch)) > 4 or max(problem.sizes.values()) > 4:
        return []
    found = []
    for pattern in patterns(problem, arch):
        try:
            lattice = lattice_of(problem, "perfect", ())
            found.append(NestModel(problem, arch, lattice, pattern, objective, compare_time=True, ragged=False))
        except ImpossibleSpace:
            continue
    return found


def no_bounds(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(NestModel, "lower_bound", lambda self, slot, batch: np.zeros(len(batch)))  # noqa: ARG005
    patch.setattr(NestModel, "_way_bounds", lambda self, slot, c, copies: np.zeros((len(c["energy"]), len(copies))))  # noqa: ARG005


RULES: dict[str, Patch] = {
    "dominance": lambda p: p.setattr(layered, "undominated", lambda key, columns: np.arange(len(key))),  # noqa: ARG005
    "bounds": no_bounds,
    "one waiting tensor is enough": lambda p: p.setattr(
        NestModel, "_together", property(lambda self: frozenset(self.problem.tensors))
    ),
    "equal tiles join only where that can gain": lambda p: p.setattr(NestModel, "_may_join", lambda *_: True),
    "free dims go to the top at once": lambda p: p.setattr(NestModel, "_nothing_outside", lambda *_: False),
    "a waiting tile grows only along what others lack": lambda p: p.setattr(
        NestModel, "_wanted_outside", lambda self, stage, tensor, unplaced: list(self.flow_words.relevant[tensor])  # noqa: ARG005
    ),
}  # fmt: skip


@pytest.mark.parametrize("rule", RULES)
def test_a_rule_of_the_nest_search_loses_nothing_and_saves_work(rule: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with_rule = without = 0
    for seed in range(24):
        for model, bare in zip(models(seed), models(seed)):
            best = layered.solve(model)
            limit = best.score * (1 + 1e-9) if rule == "bounds" and np.isfinite(best.score) else np.inf
            with_rule += layered.solve(model, incumbent=limit).considered
            with monkeypatch.context() as patch:
                RULES[rule](patch)
                free = layered.solve(bare, incumbent=limit)
            without += free.considered
            assert free.score == pytest.approx(best.score, rel=1e-9) or (free.trail is None and best.trail is None)
    assert with_rule < without


def every_row(lattice, reach, columns, watch):
    del lattice, reach, watch
    return np.arange(len(columns))


FUSED: dict[str, Patch] = {
    "rows whose tiles divide": lambda p: p.setattr(fuse_fronts, "_undivided", every_row),
    "groups that a bound rules out": lambda p: p.setattr(fuse_groups._Front, "hopeless", lambda *_: False),
}


@pytest.mark.parametrize("rule", FUSED)
def test_a_rule_of_the_chain_search_loses_nothing_and_saves_work(rule: str, monkeypatch: pytest.MonkeyPatch) -> None:
    work = {True: 0, False: 0}
    joins = fuse_groups._Here._join

    def counted(self, sides):
        work[on] += sum(len(rows) for _, _, rows in sides)
        return joins(self, sides)

    monkeypatch.setattr(fuse_groups._Here, "_join", counted)
    for seed in (1, 2, 4, 10, 15):
        chain, arch, objective = chain_case(random.Random(seed))
        values = []
        for on in (True, False):
            with monkeypatch.context() as patch:
                if not on:
                    FUSED[rule](patch)
                try:
                    values.append(map_chain(chain, arch, objective).value)
                except ImpossibleSpace:
                    values.append(None)
        assert values[0] == pytest.approx(values[1], rel=1e-9)
    assert work[True] < work[False]
