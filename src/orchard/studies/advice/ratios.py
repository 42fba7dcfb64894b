"""How well ratios of times are known: the spread of (measured ratio) / (predicted ratio) over pairs of measured rows.

Two predictions of one model on one chip share most of their error, so the interval of a gain is not that of two independent
times. A pair is two measured rows that differ in one thing (weights, engine, model, attention kernel, rows at once) and in
nothing else. Predicted times come from the fits that left the chip generation of the row out. `spread` gives the 10 % and 90 %
points of ln(measured / predicted ratio) for a kind of change on an engine, and says what it rests on:

1. pairs of that kind on that engine, if there are five or more;
2. all pairs of that kind;
3. all pairs together.

The interval always holds the prediction itself, also where all measured gains of a kind were smaller (or larger) than predicted.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files

from orchard.studies.technique_pairs import row_pairs

Record = Mapping[str, str]
FEWEST = 5
"""Measured pairs of a kind below which its errors are pooled with those of all engines, then of all kinds."""
LOW, HIGH = 0.1, 0.9
"""Quantiles of the errors that an 80 % interval spans."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RatioError:
    """`low`, `high`: 10 % and 90 % points of ln(measured ratio / predicted ratio); `basis` says over which pairs."""

    low: float
    high: float
    pairs: int
    basis: str


@dataclass(frozen=True, slots=True)
class MeasuredPair:
    """Ids of two rows and the kind of change between them. `off`: ln(measured / predicted ratio of times)."""

    kind: str
    engine: str
    without: str
    with_it: str
    off: float


@lru_cache(maxsize=64)
def spread(kind: str, engine: str) -> RatioError:
    """The spread for one kind of change on one engine."""
    pairs = measured_pairs()
    tried = (
        (f"{kind} on {engine}", [p.off for p in pairs if (p.kind, p.engine) == (kind, engine)]),
        (f"{kind}, all engines", [p.off for p in pairs if p.kind == kind]),
        ("changes of every kind", [p.off for p in pairs]),
    )
    basis, found = next((name, offs) for name, offs in tried if len(offs) >= FEWEST)
    low, high = min(_quantile(found, LOW), 0.0), max(_quantile(found, HIGH), 0.0)
    return RatioError(low=low, high=high, pairs=len(found), basis=basis)


def joint(errors: Sequence[RatioError]) -> RatioError:
    """Several changes at once: independent errors of the single ratios add as squares."""
    if len(errors) == 1:
        return errors[0]
    return RatioError(
        low=-math.hypot(*(e.low for e in errors)), high=math.hypot(*(e.high for e in errors)),
        pairs=min(e.pairs for e in errors), basis="; ".join(dict.fromkeys(e.basis for e in errors)),
    )  # fmt: skip


def _quantile(values: Sequence[float], at: float) -> float:
    ordered = sorted(values)
    place = at * (len(ordered) - 1)
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)


@lru_cache(maxsize=1)
def measured_pairs() -> tuple[MeasuredPair, ...]:
    """All pairs among the packaged rows that have a left-out prediction."""
    return tuple(_suite_pairs("vision")) + tuple(_llm_pairs())


TECHNIQUES = {
    "flash attention": ("attention", "gpu"), "8-bit weights on a GPU": ("weights", "gpu"),
    "compressed weights, ANE": ("weights", "ane"), "INT8 weights and activations, ANE": ("activations", "ane"),
}  # fmt: skip
"""Pairs of `technique_pairs` as kinds of change; Winograd is a matter of the library's version and not listed."""


def _suite_pairs(suite: str) -> Iterator[MeasuredPair]:
    errors = _errors(suite)
    rows = [r for r in _rows(suite) if r["id"] in errors]
    for pair in row_pairs(rows):
        if pair.technique in TECHNIQUES:
            kind, engine = TECHNIQUES[pair.technique]
            yield MeasuredPair(kind, engine, pair.without, pair.with_it, errors[pair.without] - errors[pair.with_it])
    yield from _engine_pairs(rows, errors)


def _engine_pairs(rows: Iterable[Record], errors: Mapping[str, float]) -> Iterator[MeasuredPair]:
    """Networks whose source timed them on the GPU and on the Neural Engine."""
    groups: dict[tuple[str, ...], dict[str, str]] = {}
    for r in rows:
        engine = {"ane": "ane", "cpu+ane": "ane", "gpu": "gpu", "cpu+gpu": "gpu"}.get(r["engine"])
        if engine and r["runtime"] == "coreml":
            key = (r["source"], r["chip"], r["os_version"], r["model"], r["input_shape"], r["precision"], r["batch"])
            groups.setdefault(key, {}).setdefault(engine, r["id"])
    for found in groups.values():
        if len(found) == 2:
            off = errors[found["gpu"]] - errors[found["ane"]]
            yield MeasuredPair("engine", "ane", found["gpu"], found["ane"], off)


LLM_SAME = (
    "source", "chip", "gpu_cores", "cpu_cores", "engine", "runtime", "runtime_version", "phase", "prompt_tokens", "context_depth",
    "gen_tokens", "batch", "metric",
)  # fmt: skip
WIDEST = ("f16", "bf16", "q8_0", "mlx-8bit-g64")


def _llm_pairs() -> Iterator[MeasuredPair]:
    errors = _errors("llm")
    rows = [r for r in _rows("llm") if r["id"] in errors]
    groups: dict[tuple[str, ...], list[Record]] = {}
    for r in rows:
        groups.setdefault(tuple(r[n] for n in LLM_SAME), []).append(r)
    for found in groups.values():
        yield from _format_pairs(found, errors)
        yield from _model_pairs(found, errors)


def _format_pairs(rows: Sequence[Record], errors: Mapping[str, float]) -> Iterator[MeasuredPair]:
    """The widest format of a model against each other one."""
    by_model: dict[str, list[Record]] = {}
    for r in rows:
        by_model.setdefault(r["model"], []).append(r)
    for same in by_model.values():
        wide = next((r for f in WIDEST for r in same if r["weight_format"] == f), None)
        for r in same if wide is not None else ():
            if wide is not None and r["weight_format"] != wide["weight_format"]:
                yield MeasuredPair("weights", r["engine"], wide["id"], r["id"], errors[wide["id"]] - errors[r["id"]])


def _model_pairs(rows: Sequence[Record], errors: Mapping[str, float]) -> Iterator[MeasuredPair]:
    """Two models in one format: the larger first."""
    by_format: dict[str, dict[str, Record]] = {}
    for r in rows:
        by_format.setdefault(r["weight_format"], {}).setdefault(r["model"], r)
    for models in by_format.values():
        ordered = sorted(models.values(), key=lambda r: -float(r["params_b"] or 0))
        for large, small in zip(ordered, ordered[1:]):
            off = errors[large["id"]] - errors[small["id"]]
            yield MeasuredPair("model", large["engine"], large["id"], small["id"], off)


@lru_cache(maxsize=4)
def _rows(suite: str) -> tuple[Record, ...]:
    text = files("orchard.data").joinpath("measurements", f"{suite}.csv").read_text(encoding="utf-8")
    return tuple(csv.DictReader(text.splitlines()))


@lru_cache(maxsize=4)
def _errors(suite: str) -> Mapping[str, float]:
    """Row id: ln(predicted / measured) of the fit that did not see the chip generation of the row."""
    text = files("orchard.data").joinpath("measurements", f"{suite}_left_out.csv").read_text(encoding="utf-8")
    return {r["id"]: float(r["by_generation"]) for r in csv.DictReader(text.splitlines()) if r["by_generation"]}
