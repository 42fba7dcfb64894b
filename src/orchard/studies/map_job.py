"""Map every op of a job and add up energy and time over their counts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from orchard.hw.arch import load_arch
from orchard.mapping.errors import MappingError
from orchard.mapping.jobs import Job, JobOp
from orchard.mapping.lattice import Factors
from orchard.mapping.ops import parse_op
from orchard.studies.map import MappedOp, map_op
from orchard.studies.nest_search import Objective


@dataclass(frozen=True)
class MappedJob:
    """The best mapping of every op of a job."""

    job: Job
    layers: tuple[tuple[JobOp, MappedOp], ...]

    @property
    def energy_pj(self) -> float:
        return sum(op.count * mapped.estimate.energy_pj for op, mapped in self.layers)

    @property
    def latency_cycles(self) -> float:
        """One op after the other."""
        return sum(op.count * mapped.estimate.latency_cycles for op, mapped in self.layers)

    @property
    def search_s(self) -> float:
        return sum(mapped.search_s for _, mapped in self.layers)

    @property
    def optimal(self) -> bool:
        return all(mapped.optimal for _, mapped in self.layers)


def map_job(
    job: Job,
    objective: Objective | None = None,
    *,
    factors: Factors = "perfect",
    time_limit_s: float | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> MappedJob:
    """Map a job's ops one by one; `time_limit_s` is per op. Raises MappingError for a chain."""
    if job.is_chain:
        command = f"orchard map {job.ops[0].op} --fuse --arch {job.arch}"
        raise MappingError(f"job {job.name} is a chain of ops, map it as one: {command}")
    arch = load_arch(job.arch)
    wanted: Objective = objective or job.objective  # type: ignore[assignment]
    layers = []
    for number, op in enumerate(job.ops, 1):
        say(f"{job.name}: {op.name}, {number} of {len(job.ops)}")
        problem = parse_op(op.op)
        layers.append((op, map_op(problem, arch, wanted, factors=factors, time_limit_s=time_limit_s)))
    return MappedJob(job, tuple(layers))
