"""Several models, chips, weight formats, runtimes and engines side by side: the product of all lists."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from orchard.hw import load_chip
from orchard.studies.errors import StudyError
from orchard.studies.predict import Prediction, answer
from orchard.studies.request import Request
from orchard.studies.runtimes import choose_profile, engine_name
from orchard.studies.sources import open_model
from orchard.units import OrchardError, scheme
from orchard.workloads import Model

SCHEMA = "orchard.comparison/1"
MOST_ROWS = 400
AXES = ("model", "chip", "runtime", "engine", "weights")

BEST_IS_LOW = {"latency_s": True, "energy_j": True, "tokens_per_s": False}
"""Figures of a phase that a comparison ranks, and whether less is better."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One combination: a prediction, or the sentence that says why there is none."""

    choice: Mapping[str, str | None]
    prediction: Prediction | None = None
    refusal: str | None = None

    def figure(self, phase: str, name: str) -> float | None:
        """A figure of a phase; None where this row has no such phase."""
        found = self.prediction.phases.get(phase) if self.prediction else None
        return None if found is None else float(getattr(found, name))


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Rows in the order of the request's lists (the last list runs fastest). Ratios are to the first row that has an answer."""

    rows: tuple[Row, ...]
    varied: tuple[str, ...]

    @property
    def shown(self) -> tuple[str, ...]:
        """Phases of a printed table: those of a pipeline's components are left to its own prediction."""
        models = (row.prediction.model for row in self.rows if row.prediction and row.prediction.denoiser)
        parts = {name for model in models if isinstance(model, Model) for name in model.parts}
        return tuple(p for p in self.phases if p not in parts)

    @property
    def phases(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(p for row in self.rows if row.prediction for p in row.prediction.phases))

    @property
    def reference(self) -> int:
        """Index of the row that ratios refer to."""
        return next(i for i, row in enumerate(self.rows) if row.prediction)

    def ratio(self, index: int, phase: str, name: str) -> float | None:
        """Figure of row `index` over that of the reference."""
        mine, other = self.rows[index].figure(phase, name), self.rows[self.reference].figure(phase, name)
        return None if mine is None or not other else mine / other

    def best(self, phase: str, name: str) -> int | None:
        """Index of the best row that fits in memory; the earlier one of equals; None when none has the figure."""
        scored = [
            (value if BEST_IS_LOW[name] else -value, i)
            for i, row in enumerate(self.rows)
            if row.prediction and row.prediction.memory.fits and (value := row.figure(phase, name)) is not None
        ]
        return min(scored)[1] if scored else None

    def to_dict(self) -> dict[str, Any]:
        rows = []
        for index, row in enumerate(self.rows):
            record: dict[str, Any] = {
                "choice": dict(row.choice),
                "refusal": row.refusal,
                "prediction": None,
                "ratios": {},
            }
            if row.prediction:
                record["prediction"] = row.prediction.to_dict()
                record["ratios"] = {p: {n: self.ratio(index, p, n) for n in BEST_IS_LOW} for p in row.prediction.phases}
            rows.append(record)
        return {
            "schema": SCHEMA,
            "varied": list(self.varied),
            "reference": self.reference,
            "best": {phase: {name: self.best(phase, name) for name in BEST_IS_LOW} for phase in self.phases},
            "rows": rows,
        }


def compare(
    models: str | Sequence[str],
    chips: str | Sequence[str],
    *,
    runtimes: str | Sequence[str | None] | None = None,
    engines: str | Sequence[str] = "auto",
    weights: str | Sequence[str | None] | None = None,
    **fields: Any,
) -> Comparison:
    """Predict every combination. `fields` are the other fields of `Request` (batch, prompt, kv, ...), the same for all.

    A combination that cannot be (a runtime without that engine) is a row with its reason. Raises an OrchardError for a name
    that is not known, for more than 400 combinations, and when no combination can be answered.
    """
    lists: dict[str, tuple[Any, ...]] = {
        "model": _as_tuple(models), "chip": _as_tuple(chips), "runtime": _as_tuple(runtimes), "engine": _as_tuple(engines),
        "weights": _as_tuple(weights),
    }  # fmt: skip
    for axis, values in lists.items():
        if not values:
            raise StudyError(f"compare: the list of {axis} names is empty")
    count = math.prod(len(v) for v in lists.values())
    if count > MOST_ROWS:
        raise StudyError(
            f"compare: {count} combinations, expected at most {MOST_ROWS}; name fewer or use several calls"
        )
    overrides = fields.pop("overrides", ())
    texts = tuple(f"{k}={v}" for k, v in overrides.items()) if isinstance(overrides, Mapping) else tuple(overrides)
    first = Request(model=lists["model"][0], chip=lists["chip"][0], overrides=texts, **fields)
    _check_names(lists, first)
    rows = tuple(_row(first, dict(zip(AXES, combination))) for combination in itertools.product(*lists.values()))
    if all(row.prediction is None for row in rows):
        raise StudyError(str(rows[0].refusal))
    return Comparison(rows=rows, varied=tuple(axis for axis in AXES if len(lists[axis]) > 1))


def _as_tuple(value: Any) -> tuple[Any, ...]:
    return (value,) if value is None or isinstance(value, str) else tuple(value)


def _check_names(lists: Mapping[str, tuple[Any, ...]], first: Request) -> None:
    """A name nobody knows ends the comparison; only combinations of known names may turn out impossible."""
    for model in lists["model"]:
        open_model(replace(first, model=model))
    for chip in lists["chip"]:
        load_chip(chip, list(first.overrides))
    for name in lists["weights"]:
        if name is not None:
            scheme(name)
    for name in lists["runtime"]:
        choose_profile(name, "auto")
    for name in lists["engine"]:
        engine_name(name)


def _row(first: Request, choice: dict[str, str | None]) -> Row:
    try:
        return Row(choice=choice, prediction=answer(replace(first, **choice)))  # type: ignore[arg-type]
    except OrchardError as error:
        return Row(choice=choice, refusal=str(error))
