"""Searches against the truth on a chip study small enough to enumerate: python benchmarks/explore/quality.py

Prints the share of the true hypervolume that 5 % of the evaluations find, over ten seeds (Optuna: three, it is slow).
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import numpy as np

from orchard.search import sampling
from orchard.search.pareto import front, hypervolume
from orchard.studies.explore.evaluate import Evaluator
from orchard.studies.explore.study import Study, read_study

STUDY = """\
chip: m4
knobs:
  gpu.cores: {from: 6, to: 20, steps: 8}
  gpu.clock: {from: 1.0GHz, to: 1.8GHz, steps: 6}
  dram.transfer_rate: {from: 6400MT/s, to: 10400MT/s, steps: 5}
  dram.bus_width: [64bit, 128bit, 256bit]
  ane.cores: [8, 16, 24, 32]
  slc.size: [4MiB, 8MiB, 16MiB, 32MiB]
workloads:
  chat: {model: qwen3-4b, weights: q4_0, prompt: 512, generate: 128}
  eye: {model: resnet50, engine: ane, weight: 30}
objectives: [OBJECTIVES]
constraints: ["power_w <= 25"]
"""
SHARE = 0.05
Search = Generator[Any, Any, None]


def main() -> None:
    print("| objectives | designs | budget | search | seeds | mean | worst | beats random at |")
    print("|---|---|---|---|---|---|---|---|")
    for objectives in ("latency_s, area_mm2", "latency_s, energy_j, area_mm2"):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "study.yaml"
            path.write_text(STUDY.replace("OBJECTIVES", objectives))
            compare(read_study(path), objectives)


def compare(study: Study, objectives: str) -> None:
    values, broken = everything(study)
    feasible = values[broken == 0]
    reference = feasible.max(axis=0) * 1.01
    true = hypervolume(feasible, reference)
    budget = int(SHARE * study.designs)

    def share(search: Search) -> float:
        return hypervolume(found(search, study, values, broken), reference) / true

    levels, m = study.space.levels, len(study.objectives)
    searches: dict[str, Callable[[int], float]] = {
        "nsga2": lambda seed: share(sampling.nsga2(levels, m, budget=budget, seed=seed)),
        "random": lambda seed: share(once(sampling.uniform(levels, 0, budget, seed=seed))),
        "lhs": lambda seed: share(once(sampling.latin_hypercube(levels, budget, seed=seed))),
        "optuna": lambda seed: share(sampling.optuna_sampler(levels, m, budget=budget, seed=seed)),
    }
    by_chance: list[float] = []
    for name in ("random", "nsga2", "lhs", "optuna") if "--no-optuna" not in sys.argv else ("random", "nsga2", "lhs"):
        shares = [searches[name](seed) for seed in range(3 if name == "optuna" else 10)]
        by_chance = by_chance or shares
        beats = "" if name == "random" else f"{sum(a > b for a, b in zip(shares, by_chance))} of {len(shares)} seeds"
        print(
            f"| {objectives} | {study.designs:,} | {budget} | {name} | {len(shares)} | {np.mean(shares):.2%} | {min(shares):.2%} "
            f"| {beats} |",
            flush=True,
        )


def everything(study: Study) -> tuple[Any, Any]:
    """Objectives (small is good) and broken constraints of every design, by position in the grid."""
    columns = Evaluator(study)(sampling.grid(study.space.levels, 0, study.designs))
    values = np.stack([np.where(o.larger, -1.0, 1.0) * columns[o.metric] for o in study.objectives], axis=1)
    broken = np.sum([c.broken_by(columns) for c in study.constraints], axis=0)
    return values, broken


def once(points: Any) -> Search:
    yield points


def found(search: Search, study: Study, values: Any, broken: Any) -> Any:
    """Front of the feasible designs that a search proposes."""
    seen: list[Any] = []
    points = next(search, None)
    while points is not None:
        index = np.zeros(len(points), dtype=np.int64)
        for axis, n in enumerate(study.space.levels):
            index = index * n + np.minimum((points[:, axis] * n).astype(np.int64), n - 1)
        seen.append(index)
        try:
            points = search.send((values[index], broken[index]))
        except StopIteration:
            points = None
    rows = np.unique(np.concatenate(seen))
    rows = rows[broken[rows] == 0]
    return values[rows][front(values[rows])]


if __name__ == "__main__":
    main()
