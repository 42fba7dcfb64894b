"""What a worker process calculates. Each job takes the validated body of a request and returns a record of the API."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from orchard.hw import chip_ids, find_chip, load_chip
from orchard.studies.errors import StudyError
from orchard.studies.request import Request
from orchard.studies.sources import KEPT, ImportedModel, keep_model
from orchard.units import did_you_mean


@lru_cache(maxsize=1)
def built_in_models() -> frozenset[str]:
    from orchard.studies.library import list_models

    return frozenset(name for m in list_models() for name in (m.id.lower(), m.name.lower()))


def checked_model(name: str, files: Mapping[str, str]) -> str:
    """A built-in name, or the id of a file that was read before. Never a path, never a function to call."""
    if name in files:
        _keep(name, Path(files[name]))
        return name
    if name.lower() not in built_in_models():
        known = built_in_models() | set(files)
        if name.startswith(("upload:", "folder:")):
            raise StudyError(f"the model file {name.partition('/')[2][:80]!r} is not open on this server; pick it again")
        hint = did_you_mean(name[:80], known)
        raise StudyError(f"model {name[:80]!r} is not known{hint}; upload a file, or see /api/v1/models")
    return name


def checked_chip(name: str) -> str:
    """A catalogue id, also in another spelling. Never a path."""
    return name if name in chip_ids() else find_chip(name)


def _keep(name: str, record: Path) -> None:
    """Load what the importing process wrote, once."""
    if name in KEPT:
        return
    from orchard.ir import parse_graph
    from orchard.workloads import load_model

    try:
        about, graph = map(json.loads, record.read_text().split("\n"))
    except (OSError, ValueError):
        raise StudyError(f"model {name!r} is gone; upload it again") from None
    if graph is None:
        keep_model(name, load_model(about["file"]))
        return
    found = parse_graph(graph)
    keep_model(name, ImportedModel(name=about["name"], source=about["source"], base=found, warnings=tuple(about["warnings"])))


def request_of(body: Mapping[str, Any]) -> Request:
    """A `Request` of a validated body (`PredictBody`)."""
    files = body.get("files") or {}
    apart = ("files", "set", "inputs", "apply", "model", "chip", "breakdown", "place")
    chosen = {k: v for k, v in body.items() if k not in apart}
    return Request(
        model=checked_model(body["model"], files), chip=checked_chip(body["chip"]),
        overrides=tuple(f"{k}={v}" for k, v in body["set"].items()), inputs=tuple(body["inputs"]), apply=tuple(body["apply"]),
        **chosen,
    )  # fmt: skip


def predict(body: Mapping[str, Any]) -> dict[str, Any]:
    from orchard.studies.view import answered, prediction_record

    prediction, remedy = answered(request_of(body))
    return prediction_record(prediction, remedy, breakdown=bool(body.get("breakdown")))


def view(body: Mapping[str, Any]) -> dict[str, Any]:
    from orchard.studies.view import view as viewed

    record = viewed(request_of(body)).to_dict()
    return {**record, "command": _by_file(record["command"], body["model"])}


def place(body: Mapping[str, Any]) -> dict[str, Any]:
    from orchard.studies.place import answer_placement

    options = body["place"]
    found = answer_placement(
        request_of(body), objective=options["objective"], engines=options["engines"], precision=options["precision"],
        time_limit_s=options["time_limit_s"], explain=False,
    )  # fmt: skip
    return found.to_dict()


def advise(body: Mapping[str, Any]) -> dict[str, Any]:
    from orchard.studies.advise import advise as advised

    name = body["model"]
    record = advised(request_of({k: v for k, v in body.items() if k != "goal"}), body["goal"]).to_dict()
    for found in (*record["recommendations"], *filter(None, [record["combination"]])):
        found["predict"] = _by_file(found["predict"], name)
        found["how"] = [_by_file(text, name) for text in found["how"]]
    return record


def _by_file(command: str, name: str) -> str:
    """A command as it is on the machine that has the file: its name instead of its id here."""
    return command.replace(name, name.partition("/")[2]) if name in KEPT else command


def chip(body: Mapping[str, Any]) -> dict[str, Any]:
    from orchard.report.records import chip_record

    return chip_record(load_chip(checked_chip(body["chip"]), list(body["set"])))


def chips(_: Mapping[str, Any]) -> dict[str, Any]:
    from orchard.hw import chip_summaries
    from orchard.report.records import chips_record

    return chips_record(chip_summaries())


def models(_: Mapping[str, Any]) -> dict[str, Any]:
    from orchard.report.records import models_record
    from orchard.studies.library import list_models

    return models_record(list_models())


def study_check(body: Mapping[str, Any]) -> dict[str, Any]:
    """Check a study file as `orchard explore` does, and name the folder its run would have."""
    from orchard.studies.explore.run import study_hash
    from orchard.studies.explore.study import read_study

    file, source = Path(body["file"]), body["study"]
    _checked_study(source, body.get("files") or {})
    try:
        study = read_study(file)
    except StudyError as error:
        raise StudyError(str(error).replace(f"{file.parent}/", "")) from None
    slug = "".join(c if c.isalnum() or c in "-_" else "-" for c in study.name)[:60] or "study"
    return {"run": f"{slug}-{study_hash(study)[:8]}", "designs": study.designs}


def _checked_study(source: Mapping[str, Any], files: Mapping[str, str]) -> None:
    """No path and no function gets in where a study names chips and models."""
    checked_chip(str(source.get("chip")))
    for entry in (source.get("workloads") or {}).values():
        if isinstance(entry, dict) and "model" in entry:
            checked_model(str(entry["model"]), files)
    for name, values in (source.get("knobs") or {}).items():
        if str(name).endswith((".model", ".chip")) and isinstance(values, list):
            for value in values:
                checked_model(str(value), files)


def run_status(body: Mapping[str, Any]) -> dict[str, Any]:
    from orchard.app.lab.run_view import status

    return status(Path(body["folder"]), body["name"], body["process"], body["message"])


JOBS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "predict": predict, "view": view, "place": place, "advise": advise, "chip": chip, "chips": chips, "models": models,
    "study_check": study_check, "run_status": run_status,
}  # fmt: skip
