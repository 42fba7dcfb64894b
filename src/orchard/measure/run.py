"""A measurement from start to end: open the device, describe the machine, time program after program into a run folder."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from orchard.measure import apple, energy, machine
from orchard.measure.errors import MeasureError
from orchard.measure.programs import Program
from orchard.measure.store import Run, RunWriter, Sample, read_run
from orchard.measure.timer import Plan, time_step
from orchard.measure.torch_device import TorchDevice
from orchard.units import did_you_mean

DEVICES = ("cpu", "cuda", "mps", "mlx", "coreml", "coreai")
SUITES = ("quick", "full")
MODEL_PLAN = Plan(warm_up_s=0.3, least=6, most=60, budget_s=3.0)
QUICK_PLAN = Plan(warm_up_s=0.02, budget_s=0.2)
FULL_PLAN = Plan(budget_s=0.6)

Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Job:
    """What to measure and where to put it. `threads` of the CPU; 1 moves least when others use the machine."""

    device: str = "cpu"
    suite: str = "quick"
    threads: int = 1
    output: Path = Path("run")

    def __post_init__(self) -> None:
        if self.device not in DEVICES:
            raise MeasureError(
                f"device {self.device!r} is not known{did_you_mean(self.device, DEVICES)}; expected {', '.join(DEVICES)}"
            )
        if self.suite not in SUITES:
            raise MeasureError(
                f"suite {self.suite!r} is not known{did_you_mean(self.suite, SUITES)}; expected quick or full"
            )
        if not 1 <= self.threads <= 1024:
            raise MeasureError(f"threads: got {self.threads}, expected 1 to 1024")


def measure_suite(job: Job, say: Say = lambda _: None) -> Run:
    """Run the microbenchmarks of a device; what the folder holds already is not run again."""
    return _measure(job, None, say)


def measure_programs(job: Job, programs: Sequence[Program], say: Say = lambda _: None) -> Run:
    """Time whole models per operation into a run folder."""
    return _measure(job, programs, say)


def _measure(job: Job, programs: Sequence[Program] | None, say: Say) -> Run:
    if job.device in ("coreml", "coreai"):
        apple.require_macos(job.device)
        raise MeasureError(
            f"device {job.device}: its microbenchmarks are converted models; pass an .mlpackage or .aimodel as MODEL"
        )
    timed, memory = _device(job)
    chosen = list(programs if programs is not None else _suite(job))
    plan = MODEL_PLAN if programs is not None else QUICK_PLAN if job.suite == "quick" else FULL_PLAN
    started = machine.state()
    facts = machine.describe()
    writer = RunWriter(job.output, head(job, facts, started, memory))
    todo = [p for p in chosen if p.name not in writer.done]
    warning = machine.other_load(started, facts.cores)
    if warning:
        say(warning)
    clock = time.perf_counter()
    for count, program in enumerate(todo):
        if programs is not None or count % 40 == 0:
            say(f"{count + 1}/{len(todo)} {program.name}")
        writer.add(_metered(lambda p=program: timed(p, plan)))  # type: ignore[misc]
    ended = machine.state()
    seconds = time.perf_counter() - clock
    writer.finish({"state_after": ended.to_dict(), "seconds": round(seconds, 1)} if todo else {})
    return read_run(job.output)


def head(job: Job, facts: machine.Machine, state: machine.State, memory: str) -> dict[str, Any]:
    """run.json before the first sample."""
    return {
        "created": datetime.now(UTC).isoformat(timespec="seconds"), "device": job.device, "suite": job.suite,
        "threads": job.threads, "clock": "thread CPU time" if job.device == "cpu" and job.threads == 1 else "wall",
        "allocator": memory, "machine": facts.to_dict(), "state_before": state.to_dict(),
        "instruments": [m.name for m in energy.meters()],
    }  # fmt: skip


def _suite(job: Job) -> Iterable[Program]:
    if job.device == "mlx":
        from orchard.measure.mlx_suite import mlx_suite

        return mlx_suite(job.suite == "full")
    from orchard.measure.suite import suite

    return suite(job.suite)


def _device(job: Job) -> tuple[Callable[[Program, Plan], Sample], str]:
    """What times a program on the device, and what was done to its allocator."""
    if job.device == "mlx":
        return _time_mlx, "MLX's own cache"
    device = TorchDevice(job.device, job.threads)
    memory = device.open()
    return lambda program, plan: device.measure(program, plan, operations=program.group == "model"), memory


def _time_mlx(program: Program, plan: Plan) -> Sample:
    timing = time_step(program.build(), time.perf_counter, plan)
    return Sample(name=program.name, group=program.group, timing=timing)


def _metered(take: Callable[[], Sample]) -> Sample:
    """A sample with the joules per call of every meter that can be read; building and tracing are part of the reading, so
    only programs that are timed for most of it get one."""
    readers = energy.meters()
    before = [m.read() for m in readers]
    wall = time.perf_counter()
    sample = take()
    wall = time.perf_counter() - wall
    timed = sum(sample.timing.samples) * sample.timing.inner
    if not readers or timed < 0.8 * wall:
        return sample
    calls = wall / max(sample.timing.median_s, 1e-12)
    joules = {m.name: m.between(b, m.read()) / calls for m, b in zip(readers, before)}
    return replace(sample, joules=joules)
