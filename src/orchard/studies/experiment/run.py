"""Running an experiment: a folder that can be gone on with, one part per model and some cells.

Arms of one seed share the trained model, the calibration sequences and the scored sequences: that is what makes them paired. The
part of a cell depends on the experiment and its number alone, so workers and stops change nothing.
"""

from __future__ import annotations

import copy
import hashlib
import json
import os
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from orchard.studies.errors import StudyError
from orchard.studies.experiment.design import Cell
from orchard.studies.experiment.study import Experiment
from orchard.studies.explore.run import Pool, mapped
from orchard.units import OrchardError

FORMAT = "orchard.experiment-run/1"
CHUNK = 16
"""Cells of one part."""
LENGTH = 256
"""Tokens of a sequence; fewer where a model of the user's has fewer positions."""
CALIBRATION_SEED, SCORING_SEED = 11, 12
Progress = Callable[[str, int, int], None]
"""Told what is done, how many parts are done, how many there are."""


@dataclass(frozen=True, kw_only=True)
class Subject:
    """What is compressed: a fixture trained here, or the user's own model and text."""

    fixture: str
    seed: int = 0
    scale: str = "full"
    model: str = ""
    data: str = ""
    held: str = "held_out"


@dataclass(frozen=True, kw_only=True)
class Result:
    """One cell on one subject. `losses`: nats per token of each sequence; `base` those of the uncompressed model; KL and
    flips are means; `refused` says why the techniques cannot be applied, and the lists are empty then."""

    fixture: str
    seed: int
    levels: dict[str, str]
    technique: str
    losses: list[float]
    base: list[float]
    kl: float
    flips: float
    seconds: float
    refused: str = ""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """A finished run."""

    experiment: Experiment
    folder: str
    results: tuple[Result, ...]
    parameters: int
    versions: Mapping[str, str]


@dataclass(frozen=True)
class _Part:
    number: int
    subject: Subject
    cells: tuple[Cell, ...]


def run(
    experiment: Experiment, folder: Path, *, pool: Pool | None = None, progress: Progress | None = None,
    model: str = "", data: str = "",
) -> Outcome:  # fmt: skip
    """Run what is missing of an experiment in `folder`. Raises StudyError where the folder holds another one."""
    _start(experiment, folder, model, data)
    parts = _parts(experiment, model, data)
    missing = [p for p in parts if not _path(folder, p.number).is_file()]
    _train(missing, progress)
    done = len(parts) - len(missing)
    with mapped(pool or Pool(workers=1, backend="loky", address=None)) as go:
        for part, rows in zip(missing, go(evaluate, ((experiment, p.subject, p.cells) for p in missing))):
            _write(_path(folder, part.number), json.dumps([asdict(r) for r in rows]))
            done += 1
            if progress is not None:
                progress(f"{part.subject.fixture} seed {part.subject.seed}", done, len(parts))
    return load(folder)


def _train(missing: list[_Part], progress: Progress | None) -> None:
    """Fixtures are trained here, one after the other, before workers ask for them."""
    from orchard.numerics.fixtures.catalog import weights_of

    wanted = dict.fromkeys(p.subject for p in missing if not p.subject.model)
    for index, subject in enumerate(wanted):
        if progress is not None:
            progress(f"training {subject.fixture} seed {subject.seed} (once; kept on disk)", index, len(wanted))
        weights_of(subject.fixture, seed=subject.seed, scale=subject.scale)  # type: ignore[arg-type]


def _parts(experiment: Experiment, model: str, data: str) -> list[_Part]:
    """Cells that name their fixture belong to it; others belong to every fixture of the experiment."""
    out: list[_Part] = []
    cells, names = experiment.cells(), experiment.factor_names
    fixtures = (
        dict.fromkeys(experiment.setting(c, "fixture", "") for c in cells)
        if "fixture" in names
        else experiment.fixtures
    )
    for seed in (0,) if model else experiment.seeds:
        for fixture in ("own",) if model else fixtures:
            subject = Subject(
                fixture=fixture, seed=seed, scale=experiment.scale, model=model, data=data, held=experiment.held
            )
            mine = [
                c for c in cells if "fixture" not in names or model or experiment.setting(c, "fixture", "") == fixture
            ]
            for start in range(0, len(mine), CHUNK):
                out.append(_Part(len(out), subject, tuple(mine[start : start + CHUNK])))
    return out


def evaluate(experiment: Experiment, subject: Subject, cells: tuple[Cell, ...]) -> list[Result]:
    """Every cell on one subject. Deterministic but for the seconds."""
    from orchard.numerics.fixtures.catalog import one_thread

    with one_thread():
        bench = bench_of(subject, experiment.sequences)
        return [_one(experiment, subject, bench, cell) for cell in cells]


def _one(experiment: Experiment, subject: Subject, bench: Any, cell: Cell) -> Result:
    from orchard.numerics.methods.registry import apply_methods, parse_methods
    from orchard.numerics.surgery import drift

    text, started = experiment.technique(cell), time.perf_counter()
    levels = dict(zip(experiment.factor_names, cell))
    count = int(experiment.setting(cell, "calibration", str(experiment.calibration)))
    draw = int(experiment.setting(cell, "calibration_draw", "0"))
    try:
        changed = copy.deepcopy(bench.model)
        apply_methods(changed, parse_methods(text), bench.evidence(count, draw).fresh(changed))
    except OrchardError as error:
        return Result(
            fixture=subject.fixture, seed=subject.seed, levels=levels, technique=text, losses=[], base=[], kl=0.0,
            flips=0.0, seconds=0.0, refused=str(error),
        )  # fmt: skip
    moved = drift(changed, bench.rows, bench.base)
    return Result(
        fixture=subject.fixture, seed=subject.seed, levels=levels, technique=text, losses=[float(x) for x in moved.loss],
        base=[float(x) for x in bench.losses], kl=float(moved.kl.mean()), flips=float(moved.flips.mean()),
        seconds=time.perf_counter() - started,
    )  # fmt: skip


class Bench:
    """A model with the sequences it is scored on and what it answers uncompressed."""

    def __init__(self, model: Any, rows: Any, calibration: Callable[[int, int], Any], seed: int) -> None:
        from orchard.numerics.surgery import log_probabilities, sequence_losses

        self.model, self.rows, self.seed = model, rows, seed
        self.base, self.losses = log_probabilities(model, rows), sequence_losses(model, rows)
        self._calibration, self._evidence = calibration, {}  # type: ignore[var-annotated]

    def evidence(self, count: int, draw: int) -> Any:
        from orchard.numerics.methods.base import Evidence

        if (count, draw) not in self._evidence:
            self._evidence[count, draw] = Evidence(self.model, self._calibration(count, draw), seed=self.seed)
        return self._evidence[count, draw]


@lru_cache(maxsize=2)
def bench_of(subject: Subject, sequences: int) -> Bench:
    import torch

    from orchard.numerics.fixtures.catalog import model_of
    from orchard.numerics.fixtures.corpus import sequences as crops

    length = LENGTH
    if subject.model:
        from orchard.studies.experiment.own import own_bench, own_length

        model, train, held = own_bench(subject.model, subject.data)
        length = own_length(model, LENGTH)
    else:
        model = model_of(subject.fixture, seed=subject.seed, scale=subject.scale)  # type: ignore[arg-type]
        train, held = _data(subject)
    if callable(train):
        return Bench(model, held(sequences), train, subject.seed)
    first = None if subject.model else 0  # a fixture begins with token 0; another model's text is left as it is
    rows = torch.from_numpy(crops(held, sequences, length, seed=SCORING_SEED, first=first))

    def calibration(count: int, draw: int) -> Any:
        return torch.from_numpy(crops(train, count, length, seed=CALIBRATION_SEED + 1000 * draw, first=first))

    try:
        return Bench(model, rows, calibration, subject.seed)
    except (IndexError, RuntimeError, TypeError, AttributeError) as error:
        if not subject.model:
            raise
        raise StudyError(
            f"--model {subject.model}: fails on sequences of {length} token ids from {int(rows.min())} to {int(rows.max())}: "
            f"{' '.join(str(error).split())[:120]}"
        ) from None


def _data(subject: Subject) -> tuple[Any, Any]:
    """Token ids of the training and of the scored text; for generated data, functions that draw."""
    import torch

    from orchard.numerics.fixtures import tasks
    from orchard.numerics.fixtures.catalog import corpus, fixture

    kind = fixture(subject.fixture).data
    if kind == "text":
        return corpus().train, getattr(corpus(), subject.held)
    far = 10_000_000 if subject.held == "held_out" else 20_000_000  # steps no training reaches
    if kind == "back-copy":

        def drawn(count: int, step: int = 0) -> torch.Tensor:
            return torch.from_numpy(tasks.back_copy(count, seed=subject.seed, step=far + step))

        return (lambda count, draw: drawn(count, 1 + draw)), drawn
    raise StudyError(
        f"fixture {subject.fixture}: it is scored by recall, not by loss on text; use an experiment on fx1"
    )


def _start(experiment: Experiment, folder: Path, model: str, data: str) -> None:
    manifest = {
        "format": FORMAT, "experiment": asdict(experiment), "model": model, "data": _data_digest(data), "versions": versions()
    }  # fmt: skip
    place = folder / "run.json"
    if place.is_file():
        held = json.loads(place.read_text(encoding="utf-8"))
        asked = json.loads(json.dumps(manifest))
        for key in ("format", "experiment", "model", "data", "versions"):
            if held.get(key) != asked[key]:
                raise StudyError(f"{folder}: holds a run with another {key}; give another folder with --out")
        return
    try:
        (folder / "parts").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StudyError(f"{folder}: cannot be made: {error.strerror}; give another folder with --out") from None
    _write(place, json.dumps(manifest, indent=1))


def _data_digest(data: str) -> str:
    if not data:
        return ""
    try:
        return hashlib.sha256(Path(data).read_bytes()).hexdigest()[:16]
    except OSError as error:
        raise StudyError(f"--data {data}: cannot be read: {error.strerror}") from None


def versions() -> dict[str, str]:
    """What decides results beside the experiment."""
    from importlib.metadata import version

    from orchard import __version__

    return {"orchard": __version__, "torch": version("torch"), "numpy": version("numpy")}


def _path(folder: Path, number: int) -> Path:
    return folder / "parts" / f"{number:04d}.json"


def _write(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)


def load(folder: Path) -> Outcome:
    """A run as it is on disk. Raises StudyError where there is none, or it is not complete."""
    place = folder / "run.json"
    if not place.is_file():
        raise StudyError(f"{folder}: no run; expected a folder that 'orchard experiment run' wrote")
    held = json.loads(place.read_text(encoding="utf-8"))
    experiment = _experiment(held["experiment"])
    parts = _parts(experiment, held["model"], held["data"])
    missing = [p.number for p in parts if not _path(folder, p.number).is_file()]
    if missing:
        raise StudyError(
            f"{folder}: {len(missing)} of {len(parts)} parts are missing; run the experiment again to finish it"
        )
    rows = tuple(_rows(folder, len(parts)))
    return Outcome(experiment=experiment, folder=str(folder), results=rows, parameters=_parameters(held["model"], experiment),
                   versions=held["versions"])  # fmt: skip


def _rows(folder: Path, parts: int) -> Iterator[Result]:
    for number in range(parts):
        yield from (Result(**row) for row in json.loads(_path(folder, number).read_text(encoding="utf-8")))


def _parameters(model: str, experiment: Experiment) -> int:
    """Weights of the largest fixture; 0 for a model of the user's."""
    if model:
        return 0
    from orchard.numerics.fixtures.catalog import fixture
    from orchard.numerics.fixtures.tinylm import TinyLM

    names = dict.fromkeys(
        [*experiment.fixtures, *(t for f in experiment.factors if f.name == "fixture" for t in f.texts)]
    )
    return max(sum(p.numel() for p in TinyLM(fixture(n).config).parameters()) for n in names)


def _experiment(held: Mapping[str, Any]) -> Experiment:
    """What `asdict` wrote, lists as tuples again."""
    from orchard.studies.experiment.design import Factor
    from orchard.studies.experiment.study import Claim

    plain: dict[str, Any] = {
        k: tuple(v) if isinstance(v, list) else v for k, v in held.items() if k not in ("factors", "claims")
    }
    factors = tuple(Factor(f["name"], tuple(f["levels"]), tuple(f["texts"])) for f in held["factors"])
    return Experiment(**plain, factors=factors, claims=tuple(Claim(**c) for c in held["claims"]))
