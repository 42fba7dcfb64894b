"""Running a study: batches to workers, parts to disk, the front at the end. Resumable; the same numbers on any number of workers.

joblib is the one driver. A batch is defined by the study and its number alone, and its part is written by the driver, so workers
need no shared disk and their number, order and death change nothing.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from orchard.search import sampling
from orchard.search.pareto import front, hypervolume, knee
from orchard.studies.errors import StudyError
from orchard.studies.explore.evaluate import Columns, Evaluator, refuse_hopeless
from orchard.studies.explore.space import Floats
from orchard.studies.explore.store import SCHEMA, Part, Rows, Store, digest
from orchard.studies.explore.study import Study, read_study
from orchard.studies.map_cache import code_version
from orchard.units import OrchardError

BACKENDS = ("loky", "dask", "ray")
T = TypeVar("T")
Progress = Callable[[int, int], None]
"""Told (designs done, designs in all) after each batch."""
_AXIS = "_u{}"
_MOST_LHS = 5_000_000


@dataclass(frozen=True, kw_only=True)
class Pool:
    """Where batches run: `workers` local processes, or a cluster at `address`."""

    workers: int = 1
    backend: str = "loky"
    address: str | None = None


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """A finished run. `front` holds the rows of the Pareto front by design index; `shares` by row, then "workload.phase"."""

    study: Study
    folder: Path
    evaluated: int
    feasible: int
    front: Rows
    knee: int
    hypervolume: float
    reference: tuple[float, ...]
    shares: tuple[Mapping[str, Mapping[str, float]], ...]
    digest: str
    seconds: float
    warnings: tuple[str, ...]


def explore(
    study: Study | str | Path, folder: Path, *, pool: Pool | None = None, progress: Progress | None = None
) -> Outcome:
    """Run a study into `folder`, or go on with it where it was left. Raises StudyError before any work for a study that cannot
    succeed, or when the folder holds another study's run."""
    chosen = study if isinstance(study, Study) else read_study(study)
    evaluator = Evaluator(chosen)
    refuse_hopeless(chosen, evaluator)
    store = Store(folder)
    began = time.perf_counter()
    with store.lock():
        store.clean()
        _claim(store, chosen)
        evaluator.prepare(pool.workers if pool is not None else 1)
        parts = _proposed(chosen, store, pool or Pool(), progress)
        outcome = _finished(chosen, store, evaluator, parts, began)
        before = store.manifest()
        if before["state"] == "complete" and before.get("digest", outcome.digest) != outcome.digest:
            raise StudyError(
                f"{folder}: the numbers are no longer those recorded when the run was complete (a part changed); "
                "run the study again in a new folder"
            )
        store.write_manifest({**before, **_result(outcome)})
    return outcome


def study_of(store: Store) -> Study:
    """The study a run was started with, from its own copy."""
    store.manifest()
    return read_study(store.folder / "study.yaml")


def _claim(store: Store, study: Study) -> None:
    """Write the manifest of a new run, or check that the folder holds this very study."""
    key = study_hash(study)
    if store.manifest_path.exists():
        if store.manifest()["study_hash"] != key:
            raise StudyError(f"{store.folder}: holds a run of another study; choose another --out")
        return
    store.folder.mkdir(parents=True, exist_ok=True)
    if any(p.name != ".lock" for p in store.folder.iterdir()):
        raise StudyError(f"{store.folder}: is not empty and holds no run; choose another --out")
    import yaml

    store._write(store.folder / "study.yaml", yaml.safe_dump(dict(study.source), sort_keys=False).encode())
    store.write_manifest(
        {
            "schema": SCHEMA, "name": study.name, "study_hash": key, "chip": study.chip, "method": study.method,
            "seed": study.seed, "batch": study.batch, "designs": study.designs, "state": "running",
            "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "versions": _versions(),
            "kind": "estimate", "objectives": [o.text for o in study.objectives],
            "constraints": [c.text for c in study.constraints], "knobs": [k.name for k in study.space.knobs],
        }
    )  # fmt: skip


def study_hash(study: Study) -> str:
    """What determines the numbers: the study as written, the chip's figures, Orchard's version, for a mapped study the mapper's
    code."""
    figures = study.soc.parameters()
    asked = [study.source, sorted(figures.items()), _versions()["orchard"]]
    asked += [code_version()] if study.fidelity == "mapped" else []
    text = json.dumps(asked, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def _versions() -> dict[str, str]:
    try:
        own = version("orchard")
    except PackageNotFoundError:
        own = "source"
    return {"orchard": own, "python": platform.python_version(), "numpy": np.__version__}


# ---------------------------------------------------------------------------------------------------------------- batches


def _proposed(study: Study, store: Store, pool: Pool, progress: Progress | None) -> Iterator[Part]:
    """Every part of the run in order, evaluated now or found on disk."""
    if study.method in ("nsga2", "optuna"):
        return _guided(study, store, pool, progress)
    return _planned(study, store, pool, progress)


def _planned(study: Study, store: Store, pool: Pool, progress: Progress | None) -> Iterator[Part]:
    """Grid, random and Latin hypercube: batch n holds designs n x batch and on."""
    count = -(-study.designs // study.batch)

    def run_missing() -> None:
        done = store.finished()
        missing = [n for n in range(count) if n not in done]
        finished = study.designs - sum(_size(study, n) for n in missing)
        with mapped(pool) as run:
            for number, part in run(_evaluate_batch, ((study, n) for n in missing)):
                store.write_part(number, part)
                finished += part.evaluated
                if progress is not None:
                    progress(finished, study.designs)

    _outliving_workers(run_missing, store)
    return (store.read_part(n) for n in range(count))


_MOST_DEATHS = 5


def _outliving_workers(work: Callable[[], T], store: Store) -> T:
    """Do `work`; when a worker dies, start the pool again for what is missing. Gives up when a whole pool brings nothing new.

    A dead worker shows as whatever error the pool's library has for it; errors of our own are passed on at once.
    """
    for _ in range(_MOST_DEATHS):
        before = len(store.finished())
        try:
            return work()
        except OrchardError:
            raise
        except Exception:
            if len(store.finished()) == before:
                raise
    return work()


def _size(study: Study, number: int) -> int:
    return min(study.batch, study.designs - number * study.batch)


def points_of(study: Study, start: int, stop: int) -> Floats:
    """Points `start` to `stop` of a study whose designs are known beforehand."""
    levels = study.space.levels
    if study.method == "grid":
        return sampling.grid(levels, start, stop)
    if study.method == "random":
        return sampling.uniform(levels, start, stop, seed=study.seed)
    if study.designs > _MOST_LHS:
        raise StudyError(f"a Latin hypercube of {study.designs:,} designs is more than {_MOST_LHS:,}; use random")
    return _hypercube(levels, study.designs, study.seed)[start:stop]


@lru_cache(maxsize=1)
def _hypercube(levels: tuple[int, ...], designs: int, seed: int) -> Floats:
    return sampling.latin_hypercube(levels, designs, seed=seed)


@lru_cache(maxsize=4)
def _evaluator(holder: _Hashed) -> Evaluator:
    return Evaluator(holder.study)


@dataclass(frozen=True)
class _Hashed:
    """A study that compares equal to its copies, so that a worker plans it once."""

    study: Study
    key: str

    def __hash__(self) -> int:
        return hash(self.key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Hashed) and other.key == self.key


def _evaluate_batch(study: Study, number: int) -> tuple[int, Part]:
    start = number * study.batch
    points = points_of(study, start, start + _size(study, number))
    columns = _columns(study, points)
    rows, feasible = _rows(study, points, columns, start)
    if study.keeps_all:
        return number, Part(rows, len(points), feasible)
    chosen = _local_front(study, rows)
    return number, Part({name: column[chosen] for name, column in rows.items()}, len(points), feasible)


def _columns(study: Study, points: Floats) -> Columns:
    return _evaluator(_Hashed(study, study_hash(study)))(points)


def _rows(study: Study, points: Floats, columns: Columns, start: int) -> tuple[Rows, int]:
    """Columns of a part: index, knobs, metrics, `feasible`."""
    feasible = np.ones(len(points), dtype=bool)
    for constraint in study.constraints:
        feasible &= constraint.holds(columns)
    for workload in study.workloads:
        feasible &= columns[f"{workload.name}.fits"] > 0
    index = np.arange(start, start + len(points), dtype=np.int64)
    rows: Rows = {"index": index, **study.space.decode(points), **columns, "feasible": feasible}
    return rows, int(feasible.sum())


def objective_values(study: Study, rows: Rows) -> Floats:
    """Objectives [designs, m], small is good; infinite where a design is not feasible."""
    values = np.stack([np.where(o.larger, -1.0, 1.0) * rows[o.metric] for o in study.objectives], axis=1)
    return np.where(rows["feasible"][:, None], values, np.inf)


def _local_front(study: Study, rows: Rows) -> NDArray[np.int64]:
    return front(objective_values(study, rows))


def _guided(study: Study, store: Store, pool: Pool, progress: Progress | None) -> Iterator[Part]:
    """NSGA-II and Optuna: one part per generation. What is on disk is told to the search instead of being evaluated again."""
    number = _outliving_workers(lambda: _generations(study, store, pool, progress), store)
    return (store.read_part(n) for n in range(number))


def _generations(study: Study, store: Store, pool: Pool, progress: Progress | None) -> int:
    """Evaluate and store what is missing; the number of generations."""
    search = _search_of(study)
    done, evaluated, number = store.finished(), 0, 0
    points = next(search, None)
    with mapped(pool) as run:
        while points is not None:
            if number in done:
                part = store.read_part(number)
                _check_replay(store, number, part, points)
            else:
                part = _generation(study, points, evaluated, run)
                store.write_part(number, part)
            evaluated += part.evaluated
            number += 1
            if progress is not None:
                progress(evaluated, study.designs)
            try:
                points = search.send((_plain_objectives(study, part.rows), part.rows["broken"]))
            except StopIteration:
                points = None
    return number


def _search_of(study: Study) -> Any:
    objectives = len(study.objectives)
    make = sampling.nsga2 if study.method == "nsga2" else sampling.optuna_sampler
    extra: dict[str, Any] = {"population": study.population} if study.method == "nsga2" else {}
    try:
        return make(study.space.levels, objectives, budget=study.designs, seed=study.seed, **extra)
    except ImportError as error:
        raise StudyError(f"{study.method} needs {error.name}, which is not installed: pip install 'orchard[dse]'") from None


def _check_replay(store: Store, number: int, part: Part, points: Floats) -> None:
    recorded = np.stack([part.rows[_AXIS.format(axis)] for axis in range(points.shape[1])], axis=1)
    if recorded.shape != points.shape or not np.array_equal(recorded, points):
        raise StudyError(
            f"{store.part_path(number)}: the search proposes other designs than it did (another version of a library?); "
            "start the run again in a new folder"
        )


def _generation(study: Study, points: Floats, start: int, run: Any) -> Part:
    """One generation, cut into batches where it is large."""
    pieces = [points[i : i + study.batch] for i in range(0, len(points), study.batch)]
    columns = list(run(_columns, ((study, p) for p in pieces)))
    merged = {name: np.concatenate([c[name] for c in columns]) for name in columns[0]}
    rows, feasible = _rows(study, points, merged, start)
    broken = np.sum([c.broken_by(merged) for c in study.constraints], axis=0) if study.constraints else np.zeros(len(points))
    for workload in study.workloads:
        broken = broken + (merged[f"{workload.name}.fits"] == 0)
    axes = {_AXIS.format(axis): points[:, axis] for axis in range(points.shape[1])}
    return Part({**rows, "broken": broken, **axes}, len(points), feasible)


def _plain_objectives(study: Study, rows: Rows) -> Floats:
    return np.stack([np.where(o.larger, -1.0, 1.0) * rows[o.metric] for o in study.objectives], axis=1)


@contextmanager
def mapped(pool: Pool) -> Iterator[Callable[[Callable[..., Any], Iterable[tuple[Any, ...]]], Iterator[Any]]]:
    """A function that maps over argument tuples, results in order, on the pool."""
    if pool.workers <= 1 and pool.backend == "loky":
        yield lambda function, arguments: (function(*a) for a in arguments)
        return
    try:
        import joblib
    except ImportError:
        raise StudyError("several workers need joblib, which is not installed: pip install 'orchard[dse]'") from None
    with _backend(pool, joblib.parallel_config):
        if pool.backend == "ray":  # its joblib backend returns whole lists only
            yield lambda function, arguments: _in_lists(joblib, pool.workers, function, arguments)
            return
        parallel = joblib.Parallel(n_jobs=pool.workers, return_as="generator", pre_dispatch="3*n_jobs")
        yield lambda function, arguments: parallel(joblib.delayed(function)(*a) for a in arguments)


def _in_lists(
    joblib: Any, workers: int, function: Callable[..., Any], arguments: Iterable[tuple[Any, ...]]
) -> Iterator[Any]:
    """As the generator would, a few batches for each worker at a time."""
    waiting = iter(arguments)
    with joblib.Parallel(n_jobs=workers) as parallel:  # one pool of actors for all of them
        while chunk := list(islice(waiting, 8 * workers)):
            yield from parallel(joblib.delayed(function)(*a) for a in chunk)


@contextmanager
def _backend(pool: Pool, configured: Callable[..., Any]) -> Iterator[None]:
    """joblib told to use the pool; a cluster started here is stopped here."""
    start = {"dask": _dask, "ray": _ray}.get(pool.backend)
    stop = start(pool) if start is not None else None
    try:
        with configured(backend=pool.backend, n_jobs=pool.workers):
            yield
    finally:
        if stop is not None:
            stop()


def _dask(pool: Pool) -> Callable[[], object]:
    try:
        distributed: Any = import_module("dask.distributed")
    except ImportError:
        raise StudyError("--backend dask needs dask: pip install 'orchard[dask]'") from None
    start: dict[str, Any] = {"n_workers": pool.workers, "threads_per_worker": 1, "dashboard_address": None}
    try:
        client = distributed.Client(pool.address) if pool.address else distributed.Client(**start)
    except OSError as error:
        raise StudyError(f"--address {pool.address}: no dask scheduler answers there ({type(error).__name__})") from None
    stop: Callable[[], object] = client.close
    return stop


_RAY_PATIENCE = {
    "RAY_gcs_server_request_timeout_seconds": "120",
    "RAY_worker_niceness": "0",  # by itself Ray's workers wait for everybody else (15)
    "RAY_health_check_timeout_ms": "60000",  # a busy machine is not a dead one
    "RAY_health_check_period_ms": "10000",
    "RAY_health_check_failure_threshold": "20",
}
_RAY_TRIES = 4
"""A busy machine can take longer than the fixed 30 seconds that Ray gives its own services."""


def _ray(pool: Pool) -> Callable[[], object]:
    for name, value in _RAY_PATIENCE.items():  # read when ray is imported
        os.environ.setdefault(name, value)
    try:
        ray: Any = import_module("ray")
        register: Any = import_module("ray.util.joblib")
    except ImportError:
        raise StudyError("--backend ray needs ray: pip install 'orchard[ray]'") from None
    scratch = None if pool.address else tempfile.mkdtemp(prefix="oray-")  # sockets need a short path
    for attempt in range(_RAY_TRIES):
        try:
            ray.init(log_to_driver=False, ignore_reinit_error=True, **_ray_options(pool, scratch))
            break
        except Exception as error:  # a start that took too long is a bare Exception
            ray.shutdown()
            if pool.address:
                raise StudyError(f"--address {pool.address}: no ray cluster answers there ({type(error).__name__})") from None
            if attempt == _RAY_TRIES - 1:
                raise StudyError(f"ray did not start here in {_RAY_TRIES} tries: {' '.join(str(error).split())[:120]}") from None
    register.register_ray()

    def stop() -> None:
        ray.shutdown()
        if scratch is not None:
            shutil.rmtree(scratch, ignore_errors=True)

    return stop


def _ray_options(pool: Pool, scratch: str | None) -> dict[str, Any]:
    """A cluster that runs, or one of our own with as few services as it can do with."""
    if pool.address:
        return {"address": pool.address}
    return {"num_cpus": pool.workers, "include_dashboard": False, "object_store_memory": 256 * 2**20, "_temp_dir": scratch}


# ----------------------------------------------------------------------------------------------------------------- results


def _finished(study: Study, store: Store, evaluator: Evaluator, parts: Iterator[Part], began: float) -> Outcome:
    """Merge the parts' fronts, in order."""
    evaluated = feasible = 0
    best: Rows = {}
    digests = hashlib.sha256()
    while several := list(islice(parts, _MERGED_AT_ONCE)):
        evaluated += sum(part.evaluated for part in several)
        feasible += sum(part.feasible for part in several)
        for part in several:
            digests.update(digest(part.rows).encode())
        best = _merged(study, [rows for rows in (best, *(part.rows for part in several)) if rows])
    values = objective_values(study, best) if best and len(best["index"]) else np.empty((0, len(study.objectives)))
    reference = _reference(values)
    return Outcome(
        study=study, folder=store.folder, evaluated=evaluated, feasible=feasible, front=best,
        knee=knee(values) if len(values) else -1,
        hypervolume=_relative_volume(values, reference), reference=tuple(reference),
        shares=tuple(_front_shares(study, evaluator, best)), digest=digests.hexdigest(),
        seconds=time.perf_counter() - began, warnings=_warnings(study, evaluator, feasible),
    )  # fmt: skip


_MERGED_AT_ONCE = 64
"""Parts whose fronts are merged together: a merge looks at the whole front again, so one for each part took most of the time."""


def _merged(study: Study, several: list[Rows]) -> Rows:
    """Front of sets of rows; of equal designs the one with the lower index."""
    together = {name: np.concatenate([rows[name] for rows in several]) for name in several[0]}
    kept = _local_front(study, together)
    return {name: column[kept] for name, column in together.items()}


def _reference(values: Floats) -> Floats:
    """The front's worst value in each objective, a tenth of its range beyond."""
    if not len(values):
        return np.zeros(values.shape[1], dtype=np.float64)
    low, high = values.min(axis=0), values.max(axis=0)
    found: Floats = high + 0.1 * np.where(high > low, high - low, np.abs(high) + 1e-12)
    return found


def _relative_volume(values: Floats, reference: Floats) -> float:
    """Hypervolume of the front over the box between its ideal point and the reference (0 to 1)."""
    if not len(values) or values.shape[1] > 4 or len(values) > 2000:
        return float("nan")
    box = float(np.prod(reference - values.min(axis=0)))
    return hypervolume(values, reference) / box if box > 0 else 1.0


_MOST_EXPLAINED = 200


def _front_shares(study: Study, evaluator: Evaluator, rows: Rows) -> Iterator[Mapping[str, Mapping[str, float]]]:
    """Why each point of the front takes its time, for the first of them."""
    for row in range(min(len(rows["index"]), _MOST_EXPLAINED) if rows else 0):
        yield evaluator.shares(_point_of(study, rows, row))


def _point_of(study: Study, rows: Rows, row: int) -> Floats:
    if _AXIS.format(0) in rows:
        return np.array([rows[_AXIS.format(axis)][row] for axis in range(len(study.space.knobs))])
    index = int(rows["index"][row])
    point: Floats = points_of(study, index, index + 1)[0]
    return point


def _warnings(study: Study, evaluator: Evaluator, feasible: int) -> tuple[str, ...]:
    found = []
    asked = {o.metric for o in study.objectives} | {c.metric for c in study.constraints}
    silicon = asked & {"area_mm2", "die_usd", "price_usd", "carbon_g", "speedup_per_mm2", "speedup_per_usd"}
    free = evaluator.unpriced()
    if silicon and free:
        found.append(f"no area is known for {', '.join(free)}: more of it looks free in {', '.join(sorted(silicon))}")
    if "dram.bandwidth" in evaluator.figures and silicon:
        found.append("dram.bandwidth takes no area by itself; vary dram.bus_width and dram.transfer_rate to price it")
    if not feasible:
        found.append("no design keeps every constraint")
    for workload in study.workloads:
        for option in evaluator.options[workload.name]:
            if any(s not in option.plan.profile.errors for s in option.plan.strata.values()):
                found.append(f"{workload.name}: no measurement of {option.plan.profile.name} backs its error interval")
                break
    return tuple(found)


def _result(outcome: Outcome) -> dict[str, Any]:
    return {
        "state": "complete", "evaluated": outcome.evaluated, "feasible": outcome.feasible,
        "front_size": len(outcome.front["index"]) if outcome.front else 0,
        "hypervolume": None if np.isnan(outcome.hypervolume) else outcome.hypervolume, "digest": outcome.digest,
    }  # fmt: skip
