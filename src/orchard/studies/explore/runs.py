"""Runs on disk: list, reopen, compare, export."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from orchard.search.pareto import front, hypervolume
from orchard.studies.errors import StudyError
from orchard.studies.explore.run import objective_values
from orchard.studies.explore.store import Rows, Store, duckdb_connection
from orchard.studies.explore.study import Study, read_study

FORMATS = ("csv", "parquet", "json")


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSummary:
    """One line of `orchard runs list`. state: running, stopped (by whoever, or killed: resume it) or complete."""

    folder: Path
    name: str
    state: str
    created: str
    chip: str
    method: str
    designs: int
    parts: int
    front_size: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Two runs with the same objectives. `covered`: share of each front that some design of the other run is nowhere worse
    than; `hypervolume`: of both fronts in the box around their union; `best`: per objective."""

    first: Path
    second: Path
    same_study: bool
    same_result: bool
    objectives: tuple[str, ...]
    best: Mapping[str, tuple[float, float]]
    covered: tuple[float, float]
    hypervolume: tuple[float, float]


@dataclass(frozen=True)
class RunFront:
    """The stored designs of a run that are feasible, and the places of those on its front."""

    study: Study
    manifest: Mapping[str, Any]
    rows: Rows
    front: NDArray[np.int64]


def read_front(folder: Path) -> RunFront:
    """Raises StudyError where the folder holds no run, or none of its designs is feasible."""
    study, store = open_run(folder)
    found = store.query('SELECT * FROM designs WHERE feasible ORDER BY "index"') if store.finished() else {}
    rows = {name: np.asarray(column) for name, column in found.items() if not name.startswith("_")}
    if not rows or not len(rows["index"]):
        raise StudyError(f"{folder}: no design of this run is feasible, or none is finished")
    return RunFront(study, store.manifest(), rows, np.asarray(front(objective_values(study, rows)), dtype=np.int64))


def list_runs(root: Path) -> list[RunSummary]:
    """Runs in the folders below `root`, newest first."""
    found = []
    for path in sorted(root.glob("*/run.json")):
        store = Store(path.parent)
        try:
            data = store.manifest()
        except StudyError:
            continue
        if not {"name", "state", "created", "chip", "method", "designs"} <= data.keys():
            continue
        found.append(
            RunSummary(
                folder=path.parent, name=data["name"], state=state_of(store, data), created=data["created"], chip=data["chip"],
                method=data["method"], designs=data["designs"], parts=len(store.finished()),
                front_size=data.get("front_size"),
            )
        )  # fmt: skip
    return sorted(found, key=lambda r: (r.created, str(r.folder)), reverse=True)


def state_of(store: Store, manifest: Mapping[str, Any]) -> str:
    """A killed process cannot say that it stopped: its record still has `running`, but nobody holds the run's lock."""
    state = str(manifest["state"])
    return "stopped" if state == "running" and not store.worked_on() else state


def open_run(folder: Path) -> tuple[Study, Store]:
    """A run's study and store. Raises StudyError when there is none."""
    store = Store(folder)
    store.manifest()
    return read_study(folder / "study.yaml"), store


def compare_runs(first: Path, second: Path) -> Comparison:
    """Raises StudyError when a run is not complete or the objectives differ."""
    runs = [open_run(folder) for folder in (first, second)]
    manifests = [store.manifest() for _, store in runs]
    for folder, manifest in zip((first, second), manifests):
        if manifest["state"] != "complete":
            raise StudyError(f"{folder}: the run is not complete; finish it with 'orchard runs resume {folder}'")
    if manifests[0]["objectives"] != manifests[1]["objectives"]:
        raise StudyError("these runs have different objectives, so their fronts cannot be compared")
    values = [_front_values(study, store) for study, store in runs]
    objectives = runs[0][0].objectives
    sign = np.array([-1.0 if o.larger else 1.0 for o in objectives])
    union = np.concatenate(values)
    low, high = union.min(axis=0), union.max(axis=0)
    reference = high + 0.1 * np.where(high > low, high - low, 1.0)
    box = float(np.prod(reference - low))
    best = {
        o.metric: (float(sign[i] * values[0][:, i].min()), float(sign[i] * values[1][:, i].min()))
        for i, o in enumerate(objectives)
    }
    volumes = [hypervolume(v, reference) / box if v.shape[1] <= 4 else float("nan") for v in values]
    return Comparison(
        first=first, second=second, same_study=manifests[0]["study_hash"] == manifests[1]["study_hash"],
        same_result=manifests[0]["digest"] == manifests[1]["digest"], objectives=tuple(manifests[0]["objectives"]),
        best=best, covered=(_covered(values[0], values[1]), _covered(values[1], values[0])),
        hypervolume=(volumes[0], volumes[1]),
    )  # fmt: skip


def _front_values(study: Study, store: Store) -> Any:
    columns = ", ".join(f'"{name}"' for name in ["index", "feasible", *(o.metric for o in study.objectives)])
    rows = store.query(f'SELECT {columns} FROM designs WHERE feasible ORDER BY "index"')
    values = objective_values(study, {n: np.asarray(c) for n, c in rows.items()})
    if not len(values):
        raise StudyError(f"{store.folder}: no design of this run is feasible")
    return values[front(values)]


def _covered(mine: Any, other: Any) -> float:
    return float((other[None, :, :] <= mine[:, None, :]).all(-1).any(1).mean())


def export(folder: Path, file: Path, *, only_front: bool) -> int:
    """Write the stored designs to .csv, .parquet or .json; returns how many. Raises StudyError for another ending."""
    ending = file.suffix.lstrip(".").lower()
    if ending not in FORMATS:
        raise StudyError(f"{file}: expected a name that ends with .{', .'.join(FORMATS)}")
    if not file.absolute().parent.is_dir():
        raise StudyError(f"{file}: the folder {file.parent} does not exist")
    study, store = open_run(folder)
    rows = store.query('SELECT * FROM designs ORDER BY "index"')
    if only_front:
        whole: Rows = {n: np.asarray(c) for n, c in rows.items()}
        kept = front(objective_values(study, whole))
        rows = {n: c[kept] for n, c in whole.items()}
    named = {n: np.asarray(c) for n, c in rows.items() if not n.startswith("_")}
    connection = duckdb_connection()
    try:
        connection.register("found", {n: c.astype(object) if c.dtype.kind in "US" else c for n, c in named.items()})
        options = {"csv": "FORMAT csv, HEADER", "parquet": "FORMAT parquet", "json": "FORMAT json, ARRAY true"}[ending]
        target = str(file).replace("'", "''")
        connection.execute(f"COPY (SELECT * FROM found) TO '{target}' ({options})")
    except Exception as error:
        raise StudyError(f"{file}: cannot be written ({type(error).__name__})") from None
    finally:
        connection.close()
    return len(named["index"])
