"""A measurement run as a folder: `run.json` says what and where, `samples.jsonl` holds one program a line.

A line is appended when its program is done, so killing a run loses the program in flight and starting it again continues.
`run.json` is written beside and renamed, so a reader never sees half of it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from orchard.cost.eager import Launch
from orchard.measure.errors import MeasureError
from orchard.measure.timer import Timing

SCHEMA = "orchard.measurement-run/1"


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One program: its timing, what it launched, and what else was read.

    cpu_share      processor time over wall time while timing; below 1 others had the processor
    peak_bytes     of the trace beyond `resident_bytes`; measured_bytes: resident memory the process gained, at its most
    operations     (name, seconds) of each operation of one step, from the runtime's own hooks; empty where there are none
    joules         per call by instrument
    """

    name: str
    group: str
    timing: Timing
    launches: tuple[Launch, ...] = ()
    module_calls: int = 0
    resident_bytes: int = 0
    peak_bytes: int = 0
    measured_bytes: int | None = None
    cpu_share: float | None = None
    operations: tuple[tuple[str, float], ...] = ()
    joules: Mapping[str, float] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        return {
            "name": self.name, "group": self.group, "seconds": list(self.timing.samples), "inner": self.timing.inner,
            "launches": _packed(self.launches), "module_calls": self.module_calls, "resident_bytes": self.resident_bytes,
            "peak_bytes": self.peak_bytes, "measured_bytes": self.measured_bytes, "cpu_share": self.cpu_share,
            "operations": [list(o) for o in self.operations], "joules": dict(self.joules),
        }  # fmt: skip

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Sample:
        return cls(
            name=data["name"], group=data["group"], timing=Timing(samples=tuple(data["seconds"]), inner=data["inner"]),
            launches=_unpacked(data["launches"]), module_calls=data["module_calls"], resident_bytes=data["resident_bytes"],
            peak_bytes=data["peak_bytes"], measured_bytes=data["measured_bytes"], cpu_share=data["cpu_share"],
            operations=tuple((str(n), float(s)) for n, s in data["operations"]), joules=dict(data["joules"]),
        )  # fmt: skip


def _packed(launches: tuple[Launch, ...]) -> dict[str, Any]:
    """Distinct launches once, and the order they run in: models repeat their layers."""
    place: dict[Launch, int] = {}
    order = [place.setdefault(launch, len(place)) for launch in launches]
    return {"kinds": [launch.to_dict() for launch in place], "order": order}


def _unpacked(data: Mapping[str, Any]) -> tuple[Launch, ...]:
    kinds = [Launch.from_dict(d) for d in data["kinds"]]
    return tuple(kinds[i] for i in data["order"])


@dataclass(frozen=True)
class Run:
    """A run that was read: its head, and samples in the order they were taken (the last of each name counts)."""

    folder: Path
    head: Mapping[str, Any]
    samples: tuple[Sample, ...]

    @property
    def models(self) -> tuple[Sample, ...]:
        return tuple(s for s in self.samples if s.group == "model")

    @property
    def benchmarks(self) -> tuple[Sample, ...]:
        return tuple(s for s in self.samples if s.group != "model")


class RunWriter:
    """Appends samples to a run folder; opens an existing one of the same kind to continue it."""

    def __init__(self, folder: Path, head: Mapping[str, Any]) -> None:
        self.folder = folder
        self.done: set[str] = set()
        if (folder / "run.json").exists():
            self._continue(head)
        else:
            _create(folder, head)
        self._file = (folder / "samples.jsonl").open("a", encoding="utf-8")

    def _continue(self, head: Mapping[str, Any]) -> None:
        old = read_head(self.folder)
        for key in ("device", "threads"):
            if old.get(key) != head.get(key):
                raise MeasureError(
                    f"{self.folder}: holds a run with {key} {old.get(key)}, got {head.get(key)}; choose another folder"
                )
        self.done = {s.name for s in _samples(self.folder)}
        _trim_torn_line(self.folder / "samples.jsonl")

    def add(self, sample: Sample) -> None:
        """Append one sample; on disk when this returns."""
        self._file.write(json.dumps(sample.to_dict(), separators=(",", ":")) + "\n")
        self._file.flush()
        os.fsync(self._file.fileno())
        self.done.add(sample.name)

    def finish(self, more: Mapping[str, Any]) -> None:
        """Close the file and add what is known only now to run.json."""
        self._file.close()
        _write_atomic(self.folder / "run.json", {**read_head(self.folder), **more})


def _create(folder: Path, head: Mapping[str, Any]) -> None:
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise MeasureError(f"{folder}: is there and holds no run; choose a folder that does not exist")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _write_atomic(folder / "run.json", {"schema": SCHEMA, **head})
    except OSError as error:
        raise MeasureError(f"{folder}: cannot be written ({error.strerror})") from None


def _write_atomic(path: Path, data: Mapping[str, Any]) -> None:
    beside = path.with_suffix(".tmp")
    beside.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
    beside.replace(path)


def _trim_torn_line(path: Path) -> None:
    """Cut what a killed run left of its last line."""
    text = path.read_bytes() if path.exists() else b""
    if text and not text.endswith(b"\n"):
        path.write_bytes(text[: text.rfind(b"\n") + 1])


def read_head(folder: Path) -> dict[str, Any]:
    """`run.json`. Raises MeasureError for a folder that holds no run of a known form."""
    path = folder / "run.json"
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise MeasureError(
            f"{folder}: holds no run ({error.strerror}: run.json); `orchard measure` makes one"
        ) from None
    except ValueError:
        raise MeasureError(f"{path}: is not JSON; it was not written by `orchard measure`") from None
    if not isinstance(data, dict) or data.get("schema") != SCHEMA:
        raise MeasureError(f"{path}: schema is not {SCHEMA}; it was not written by this version of `orchard measure`")
    return data


def read_run(folder: str | Path) -> Run:
    """A run. Raises MeasureError for what is no run or holds no sample."""
    folder = Path(folder)
    head = read_head(folder)
    latest = {sample.name: sample for sample in _samples(folder)}
    if not latest:
        raise MeasureError(f"{folder}: holds no sample yet; run `orchard measure --output {folder}` to continue it")
    return Run(folder, head, tuple(latest.values()))


def _samples(folder: Path) -> Iterator[Sample]:
    path = folder / "samples.jsonl"
    lines = path.read_text(encoding="utf-8").split("\n") if path.exists() else []
    for number, line in enumerate(lines):
        if not line:
            continue
        try:
            yield Sample.from_dict(json.loads(line))
        except (ValueError, KeyError, TypeError) as error:
            if number == len(lines) - 1:
                return  # torn by a kill; the run goes on from the line before
            raise MeasureError(f"{path}: line {number + 1} cannot be read ({type(error).__name__}: {error})") from None
