"""A run of `orchard explore` while it goes on: how far it is, its front so far, and each design as a request to open."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from orchard.hw import FIGURES
from orchard.search.pareto import front
from orchard.studies.explore.run import objective_values
from orchard.studies.explore.runs import open_run, state_of
from orchard.studies.explore.store import Rows, Store
from orchard.studies.explore.study import Study

SCHEMA = "orchard.run-status/1"
MOST_FRONT, MOST_CLOUD = 400, 1500
"""Designs that a page draws; the rest stays in the run's folder, and `front_size` and `evaluated` count it."""


def status(folder: Path, name: str, process: str, message: str) -> dict[str, Any]:
    """`process`: running, ended or none, as the server sees it; state is `complete` only when the run's own record says so.
    Another process than the server's, `orchard explore` for one, may be working on it."""
    study, store = open_run(folder)
    manifest = store.manifest()
    rows = _rows(study, store)
    values = objective_values(study, rows) if rows else np.empty((0, len(study.objectives)))
    feasible = np.asarray(rows["feasible"], dtype=bool) if rows else np.zeros(0, dtype=bool)
    candidates = np.flatnonzero(feasible)
    best = candidates[front(values[candidates])] if len(candidates) else candidates
    first = study.objectives[0].metric
    best = best[np.argsort(np.asarray(rows[first])[best], kind="stable")] if rows else best
    state = "running" if process == "running" and manifest["state"] != "complete" else state_of(store, manifest)
    return {
        "schema": SCHEMA, "run": name, "name": study.name, "chip": study.chip, "kind": "estimate", "method": study.method,
        "state": state, "message": message if state == "stopped" else "", "designs": study.designs,
        "evaluated": int(manifest.get("evaluated") or min(len(store.finished()) * _per_part(study), study.designs)),
        "stored": len(feasible), "feasible": int(feasible.sum()), "front_size": len(best),
        "objectives": [{"metric": o.metric, "larger": o.larger} for o in study.objectives],
        "constraints": [c.text for c in study.constraints],
        "knobs": [{"name": k.name, "about": FIGURES[k.name].about if k.name in FIGURES else "option"} for k in study.space.knobs],
        "front": [_design(study, rows, int(i)) for i in best[:MOST_FRONT]],
        "cloud": [_objectives(study, rows, int(i)) for i in _sample(np.setdiff1d(candidates, best))],
    }  # fmt: skip


def _per_part(study: Study) -> int:
    return study.population or study.batch


def _rows(study: Study, store: Store) -> Rows:
    if not store.finished():
        return {}
    names = ["index", "feasible", *(k.name for k in study.space.knobs)]
    metrics = [n for n in ("latency_s", "energy_j", "area_mm2", "power_w", "price_usd") if n not in names]
    asked = [o.metric for o in study.objectives]
    have = set(store.query("SELECT * FROM designs LIMIT 0"))
    columns = ", ".join(f'"{n}"' for n in dict.fromkeys([*names, *asked, *metrics]) if n in have)
    return {n: np.asarray(c) for n, c in store.query(f'SELECT {columns} FROM designs ORDER BY "index"').items()}


def _sample(indices: Any) -> Any:
    step = max(1, -(-len(indices) // MOST_CLOUD))
    return indices[::step]


def _plain(value: Any) -> Any:
    found = value.item() if isinstance(value, np.generic) else value
    return None if isinstance(found, float) and not np.isfinite(found) else found


def _objectives(study: Study, rows: Rows, row: int) -> list[float | None]:
    return [_plain(rows[o.metric][row]) for o in study.objectives]


def _design(study: Study, rows: Rows, row: int) -> dict[str, Any]:
    knobs = {k.name: _plain(rows[k.name][row]) for k in study.space.knobs}
    hidden = {"index", "feasible", *knobs}
    metrics = {n: _plain(c[row]) for n, c in rows.items() if n not in hidden}
    return {
        "index": int(rows["index"][row]), "knobs": knobs, "metrics": metrics,
        "open": dict(_requests(study, knobs)),
    }  # fmt: skip


def _requests(study: Study, knobs: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The body of a prediction of each workload on this design."""
    figures = {name: _text(value) for name, value in knobs.items() if name in FIGURES}
    base = dict(text.split("=", 1) for text in study.overrides)
    for workload in study.workloads:
        request = workload.request
        options = {n.partition(".")[2]: v for n, v in knobs.items() if n not in FIGURES and n.partition(".")[0] == workload.name}
        body = {
            "model": request.model, "chip": study.chip, "engine": request.engine, "runtime": request.runtime,
            "weights": request.weights, "kv": request.kv, "batch": request.batch, "prompt": request.prompt,
            "generate": request.generate, "depth": request.depth, "set": {**base, **figures}, **options,
        }  # fmt: skip
        yield workload.name, {k: v for k, v in body.items() if v is not None}


def _text(value: Any) -> str:
    """A bare number is SI, as `--set` reads it."""
    return str(int(value)) if float(value).is_integer() else repr(float(value))
