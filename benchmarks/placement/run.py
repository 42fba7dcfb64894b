"""Solver times of placements: `python benchmarks/placement/run.py > benchmarks/placement/results.md` (a few minutes on 2 cores).

Random DAGs: costs log-normal around 1, 15 % of the nodes not allowed on the third option, each value read by one or two of the
next ten nodes, hand-overs 0.1 out and 0.2 + log-normal in, one call floor per option. Real graphs: `orchard place` problems.
Times are the least of three runs (`edp`: one), wall and process time of all threads.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np

from orchard.search.placement import (
    Charge,
    Net,
    PlacementProblem,
    Product,
    Solved,
    lowest_product,
    solve,
    solve_milp,
)
from orchard.studies.place_problem import build
from orchard.studies.request import Request

REAL: tuple[tuple[str, str, str | None], ...] = (
    ("resnet50", "m4pro", None), ("bert-base-uncased", "m4pro", None), ("whisper-tiny", "a17pro", None),
    ("stable-diffusion-1.5-unet", "m4pro", None), ("llama-3.1-8b", "m4pro", "q4_k_m"), ("qwen3-0.6b", "m4pro", None),
    ("qwen3-30b-a3b", "m4max", "q4_k_m"),
)  # fmt: skip
"""Model, chip, weights."""


def random_dag(nodes: int, seed: int, options: int = 3) -> PlacementProblem:
    random = np.random.default_rng(seed)
    cost = random.lognormal(0.0, 1.0, (nodes, options))
    cost[random.random(nodes) < 0.15, -1] = np.inf
    nets = []
    for node in range(nodes - 1):
        readers = {min(nodes - 1, node + int(d)) for d in random.integers(1, 10, random.integers(1, 3))}
        enter = 0.2 + random.lognormal(-1.0, 1.0)
        nets.append(Net(node, tuple(sorted(readers)), tuple(range(options)), (0.1,) * options, (enter,) * options))
    charges = tuple(Charge(tuple(range(nodes)), (o,), 1.0) for o in range(options))
    return PlacementProblem(cost=cost, nets=tuple(nets), charges=charges)


def row(name: str, size: str, objective: str, method: str, run: Callable[[], Solved | Product], times: int = 3) -> str:
    """One line of the table: the least wall and process seconds of `times` runs."""
    walls, processes = [], []
    for _ in range(times):
        wall, process = time.perf_counter(), time.process_time()
        found = run()
        walls.append(time.perf_counter() - wall)
        processes.append(time.process_time() - process)
    how = method or (found.method if isinstance(found, Solved) else f"{found.solves} weighted sums")
    return f"| {name} | {size} | {objective} | {how} | {min(walls):.2f} | {min(processes):.2f} | {found.gap:.1e} |"


def rows() -> Iterator[str]:
    solve_milp(random_dag(10, 0))  # load the solver
    for nodes in (500, 2000):
        for seed in range(3):
            problem = random_dag(nodes, seed)
            yield row(f"random DAG, seed {seed}", f"{nodes} x 3", "latency", "", partial(solve_milp, problem))
    for model, chip, weights in REAL:
        placing = build(Request(model=model, chip=chip, weights=weights), ("cpu", "gpu", "ane"), "auto")
        size = f"{len(placing.free_seconds)} x {len(placing.options)}"
        name = f"{model} on {chip}"
        yield row(name, size, "latency", "", partial(solve, placing.seconds))
        if len(placing.free_seconds) < 500:
            yield row(name, size, "latency", "", partial(solve_milp, placing.seconds))
        yield row(name, size, "edp", "", partial(lowest_product, placing.seconds, placing.joules), 1)


def main() -> None:
    print("# Solver times of placements\n")
    print(
        f"Written by `benchmarks/placement/run.py`; Python {platform.python_version()}, {os.cpu_count()} shared cores."
    )
    print(f"Load average when it began: {os.getloadavg()[0]:.1f}, so wall times hold waiting; process times do not.")
    print("Targets: 500 ops x 3 engines proven within 5 s, 2,000 within 30 s, on 2 cores.\n")
    print(
        "| problem | units x options | objective | solved by | wall s | process s | gap |\n|---|---|---|---|---|---|---|"
    )
    for line in rows():
        print(line, flush=True)


if __name__ == "__main__":
    main()
