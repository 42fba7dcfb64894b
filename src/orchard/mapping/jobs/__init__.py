"""Jobs that ship with the package: an architecture, an objective and one op, or the layers of a network."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources

from orchard.mapping.errors import MappingError


@dataclass(frozen=True, slots=True)
class JobOp:
    """One op of a job, as text, and how often it occurs."""

    name: str
    op: str
    count: int


@dataclass(frozen=True, slots=True)
class Job:
    """What to map where, for which objective."""

    name: str
    arch: str
    objective: str
    ops: tuple[JobOp, ...]

    @property
    def is_chain(self) -> bool:
        """Whether the job is a chain of ops to be fused, not single ops."""
        return any(op.op.startswith("attention:") for op in self.ops)


def jobs() -> dict[str, Job]:
    """All shipped jobs by name."""
    import yaml

    data = yaml.safe_load((resources.files("orchard.mapping.jobs") / "jobs.yaml").read_text(encoding="utf-8"))
    return {
        name: Job(
            name,
            entry["arch"],
            entry["objective"],
            tuple(JobOp(layer, op["op"], op.get("count", 1)) for layer, op in entry["ops"].items()),
        )
        for name, entry in data.items()
    }


def job(name: str) -> Job:
    """A shipped job. Raises MappingError that lists the known ones."""
    known = jobs()
    if name not in known:
        raise MappingError(f"job {name!r}: not known, expected one of {', '.join(known)}")
    return known[name]
