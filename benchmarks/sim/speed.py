"""Speed of the simulator, op executions per second of process time on one core, and memory against simulated time.

    PYTHONPATH=src python benchmarks/sim/speed.py

Process time, best of three: other work on the machine does not count. `plain` is without numba, `compiled` with it (compile
time apart). The first case keeps three engines in each other's way at almost every op, the worst for the inner loop.
"""

from __future__ import annotations

import sys
import time
import tracemalloc
from collections.abc import Callable

import numpy as np

from orchard.sim import Call, Closed, EngineSpec, Machine, Simulator, Stage, Stream, Workload
from orchard.sim.kernel import compiled
from orchard.sim.program import make_program
from orchard.studies.simulate import simulate


def contended(seconds: float, fast: bool) -> int:
    """Three endless streams that together ask for twice the bandwidth."""
    draw = np.random.default_rng(0)
    streams = []
    for engine, ops, micro in (("gpu", 900, 20.0), ("ane", 500, 10.0), ("cpu", 100, 30.0)):
        times = draw.uniform(0.5, 1.5, ops) * micro * 1e-6
        moved = times * draw.uniform(0.3, 1.0, ops) * 90e9
        zero = np.zeros(ops)
        program = make_program(
            engine, compute_s=times / 2, memory_s=times / 2, dispatch_s=zero, dram_bytes=moved, port_bytes=moved, joules=zero
        )
        work = Workload((Stage(engine, (Call(program, 0, 100),)),))
        streams.append(Stream(name=engine, workloads=(work,), arrivals=Closed()))
    engines = tuple(EngineSpec(name=s.name) for s in streams)
    machine = Machine(name="toy", engines=engines, dram_bytes_per_s=90e9, port_bytes_per_s=150e9)
    return Simulator(machine, streams, seconds=seconds, fast=fast).run().ops


def best(run: Callable[[], int]) -> tuple[int, float]:
    """(ops, process seconds of the best of three)."""
    found = []
    for _ in range(3):
        started = time.process_time()
        ops = run()
        found.append((time.process_time() - started, ops))
    return min(found)[1], min(found)[0]


def main() -> None:
    cases: dict[str, Callable[[], int]] = {"three engines in contention, plain": lambda: contended(4.0, False)}
    if compiled() is not None:
        contended(0.001, True)
        cases["three engines in contention, compiled"] = lambda: contended(20.0, True)
    for name, chip in (("video-call", "a19pro"), ("xr-social", "m4"), ("keyboard-photos", "a19pro"), ("chat-10min", "a19pro")):
        cases[f"{name} on {chip}"] = lambda name=name, chip=chip: simulate(name, chip).outcome.ops  # type: ignore[misc]
    print(f"Python {sys.version.split()[0]}")
    print("| case | op executions | process s | per s |\n|---|---|---|---|")
    for case, run in cases.items():
        ops, seconds = best(run)
        print(f"| {case} | {ops:,} | {seconds:.2f} | {ops / seconds:,.0f} |")
    print("\n| simulated s of video-call | most bytes allocated |\n|---|---|")
    for length in (5.0, 20.0, 80.0):
        tracemalloc.start()
        simulate("video-call", "a19pro", seconds=length)
        print(f"| {length:.0f} | {tracemalloc.get_traced_memory()[1]:,} |")
        tracemalloc.stop()


if __name__ == "__main__":
    main()
