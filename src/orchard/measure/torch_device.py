"""PyTorch on a CPU, an NVIDIA GPU or Apple's MPS: build a program there, trace it, time it, and ask it for its operations."""

from __future__ import annotations

import contextlib
import gc
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from orchard.measure import allocator, machine
from orchard.measure.classify import classify
from orchard.measure.errors import MeasureError
from orchard.measure.library import library
from orchard.measure.programs import Program, Step
from orchard.measure.store import Sample
from orchard.measure.timer import Clock, Plan, time_step
from orchard.measure.trace import record_step, trace

OPERATION_RUNS = 3
"""Runs from which the time of each operation is taken (the middle one)."""


@dataclass(frozen=True)
class TorchDevice:
    """`kind` is cpu, cuda or mps. On one CPU thread the clock is the thread's own processor time: it stands still while other
    processes run, so a busy machine disturbs it less; else it is wall time after a synchronisation."""

    kind: str
    threads: int = 1

    def open(self) -> str:
        """Check the device, set threads, pin the allocator; returns what was done to the allocator."""
        torch = library("torch")
        if self.kind == "cuda" and not torch.cuda.is_available():
            raise MeasureError(
                "device cuda: PyTorch sees no NVIDIA GPU here; it needs one, its driver and a CUDA build of torch"
            )
        if self.kind == "mps" and not torch.backends.mps.is_available():
            raise MeasureError(
                "device mps: PyTorch sees no Metal GPU here; it needs macOS 12.3 or later on Apple silicon"
            )
        torch.set_num_threads(self.threads)
        torch.manual_seed(0)
        return allocator.pin() if self.kind == "cpu" else "the device's own"

    @property
    def clock(self) -> Clock:
        return time.thread_time if self.kind == "cpu" and self.threads == 1 else time.perf_counter

    def synchronize(self) -> None:
        torch = library("torch")
        if self.kind == "cuda":
            torch.cuda.synchronize()
        elif self.kind == "mps":
            torch.mps.synchronize()

    def measure(self, program: Program, plan: Plan, *, operations: bool = False) -> Sample:
        """Time one program. `operations`: also each operation of a step, and the memory the process gains."""
        torch = library("torch")
        with _quiet(), torch.set_grad_enabled(program.grad):
            before = _before(program) if operations else None
            step = self._build(torch, program)
            step()  # the state that a first call makes (moments, gradients, kernels) is there in every later one
            gained = _gained(step, before) if operations else None
            trace = record_step(torch, step, grad=program.grad, keeps_memory=True)
            wall, busy = time.perf_counter(), time.thread_time()
            timing = time_step(step, self.clock, plan, self.synchronize)
            share = (time.thread_time() - busy) / max(time.perf_counter() - wall, 1e-9)
            found = self._operations(step) if operations else ()
        return Sample(
            name=program.name, group=program.group, timing=timing, launches=trace.launches, module_calls=trace.module_calls,
            resident_bytes=trace.resident_bytes, peak_bytes=trace.peak_bytes, measured_bytes=gained,
            cpu_share=min(share, 1.0) if self.kind == "cpu" and self.threads == 1 else None, operations=found,
        )  # fmt: skip

    def _build(self, torch: Any, program: Program) -> Step:
        if self.kind == "cpu":
            return program.build()
        with torch.device(self.kind):
            return program.build()

    def _operations(self, step: Step) -> tuple[tuple[str, float], ...]:
        """(name, seconds) of every operation below autograd, in order: one dispatch mode sees the same list as the trace."""
        runs = [self._timed_operations(step) for _ in range(OPERATION_RUNS)]
        least = min(len(run) for run in runs)
        middle = [sorted(run[i][1] for run in runs)[len(runs) // 2] for i in range(least)]
        return tuple((name, seconds) for (name, _), seconds in zip(runs[0], middle))

    def _timed_operations(self, step: Step) -> list[tuple[str, float]]:
        base = library("torch.utils._python_dispatch").TorchDispatchMode
        found: list[tuple[str, float]] = []
        clock, wait = self.clock, self.synchronize
        empty = _clock_cost(clock)

        class Timed(base):  # type: ignore[misc,valid-type]
            def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
                del types
                kwargs = kwargs or {}
                started = clock()
                result = func(*args, **kwargs)
                wait()
                seconds = clock() - started - empty
                if classify(func, args, kwargs, result) is not None:
                    found.append((func._schema.name.replace("::", "."), max(seconds, 0.0)))
                return result

        with Timed():
            step()
        return found


def _before(program: Program) -> tuple[int, int] | None:
    """What the process holds before it has the program's tensors, but with every library that building and calling import.

    The program runs once without data, as for a prediction: the first model of a process would carry the imports otherwise.
    """
    trace(program.build, grad=program.grad)
    gc.collect()
    allocator.trim()
    return machine.memory_now()


def _gained(step: Step, before: tuple[int, int] | None) -> int | None:
    """The most resident bytes that a call of `step` needs beyond `before`, without pages of program files.

    What building left behind (weights made and replaced, a part that is thrown away) is handed back first: the pinned
    allocator would keep it, and it is no part of what the program needs.
    """
    gc.collect()
    allocator.trim()
    known = machine.reset_peak_rss()
    step()
    most, after = machine.peak_rss_bytes(), machine.memory_now()
    if not known or most is None or before is None or after is None:
        return None
    return most - before[0] - (after[1] - before[1])


def _clock_cost(clock: Clock) -> float:
    """Seconds that reading the clock twice takes, the least of a few."""
    return min(-(clock() - clock()) for _ in range(50))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Libraries warn about untrained weights and short inputs; neither matters here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
