"""Small machines and programs for tests of the simulator."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from orchard.sim import Call, EngineSpec, Machine, Program, Simulator, Stage, Stream, Workload
from orchard.sim.program import make_program


def program(name: str, ops: Sequence[tuple[float, float]], *, watts: float = 0.0) -> Program:
    """Ops of (seconds, bytes): three parts compute, six memory, one dispatch; all bytes from DRAM."""
    seconds, moved = [t for t, _ in ops], [b for _, b in ops]
    return make_program(
        name, compute_s=[0.3 * t for t in seconds], memory_s=[0.6 * t for t in seconds],
        dispatch_s=[0.1 * t for t in seconds], dram_bytes=moved, port_bytes=moved, joules=[watts * t for t in seconds],
    )  # fmt: skip


def stream(name: str, engine: str, ops: Program, arrivals: Any, repeats: int = 1, **fields: Any) -> Stream:
    return Stream(
        name=name, workloads=(Workload((Stage(engine, (Call(ops, 0, repeats),)),)),), arrivals=arrivals, **fields
    )


def machine(*names: str, **fields: Any) -> Machine:
    return Machine(name="toy", engines=tuple(EngineSpec(name=n, active_w=2.0) for n in names), **fields)


def run(toy: Machine, streams: Sequence[Stream], seconds: float | None = None, **options: Any) -> Any:
    return Simulator(toy, streams, seconds=seconds, **options).run()
