"""A basket of workloads on one chip, without a search: for sensitivities and single changes."""

from __future__ import annotations

from pathlib import Path

from orchard.hw import load_chip
from orchard.studies.errors import StudyError
from orchard.studies.explore.located import read_located
from orchard.studies.explore.space import Knob, Space
from orchard.studies.explore.study import Study, Workload, read_workloads
from orchard.studies.request import Request

_IGNORED = ("name", "about", "chip", "set", "knobs", "objectives", "constraints", "search", "keep")


def read_basket(path: str | Path, chip: str, overrides: tuple[str, ...]) -> tuple[Workload, ...]:
    """The `workloads` of a study or of a file that holds only those, on another chip. Raises StudyError with file and line."""
    top = read_located(Path(path))
    keys = top.only("the basket", (*_IGNORED, "workloads"))
    if "workloads" not in keys:
        top.fail("the basket has no 'workloads', for example workloads: {chat: {model: qwen3-4b}}")
    return read_workloads(keys["workloads"], chip, overrides)


def basket_of(
    models: tuple[str, ...], workloads: Path | None, chip: str, overrides: tuple[str, ...], options: dict[str, object]
) -> tuple[Workload, ...]:
    """Workloads from model names (named after themselves) or from a file. Raises StudyError for both or neither."""
    if models and workloads is not None:
        raise StudyError(f"got the model {models[0][:60]!r} and a basket with --workloads; expected one of the two")
    if not models and workloads is None:
        raise StudyError("no workload is named: add a MODEL such as qwen3-4b, or a basket with --workloads FILE.yaml")
    if workloads is not None:
        return read_basket(workloads, chip, overrides)
    return tuple(
        Workload(name=f"w{i}", request=Request(model=m, chip=chip, overrides=overrides, **options), weight=1.0)  # type: ignore[arg-type]
        for i, m in enumerate(models)
    )


def study_of(chip: str, overrides: tuple[str, ...], workloads: tuple[Workload, ...], knobs: tuple[Knob, ...]) -> Study:
    """A study without a search, to evaluate points of `knobs` with."""
    load_chip(chip, list(overrides))
    return Study(
        name="basket", about="", chip=chip, overrides=overrides, space=Space(knobs), workloads=workloads, objectives=(),
        constraints=(), method="grid", designs=0, seed=0, population=None, batch=8192, keep="front",
        source={"chip": chip, "workloads": [w.name for w in workloads]}, file="basket",
    )  # fmt: skip
