"""A study: which knobs of which chip, for which workloads, to what end. Read from YAML and checked before any work."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from orchard.hw import FIGURES, HardwareError, SoC, load_chip
from orchard.studies.explore.located import Located, read_located
from orchard.studies.explore.metrics import Constraint, contradiction, metric, metric_names, parse_constraint
from orchard.studies.explore.space import Knob, Space
from orchard.studies.request import Request
from orchard.units import DIMENSIONS, OrchardError, did_you_mean, parse_quantity

METHODS = ("grid", "random", "lhs", "nsga2", "optuna")
KEEP = ("auto", "front", "all")
FIDELITIES = ("estimate", "mapped")
_TOP = ("name", "about", "chip", "set", "fidelity", "knobs", "workloads", "objectives", "constraints", "search", "keep")
_SEARCH = ("method", "designs", "seed", "population", "batch")
_OPTIONS = tuple(f.name for f in fields(Request) if f.name not in ("chip", "fidelity", "overrides", "inputs"))
_INTEGERS = ("batch", "prompt", "generate", "depth", "threads")
_MOST_DESIGNS = 10**9
_BATCH = {"estimate": 8192, "mapped": 512}
"""Designs in a batch by fidelity: a tenth of a second of work or more, and enough batches for all workers."""
KEEP_ALL_UP_TO = 200_000
"""Designs up to which `keep: auto` stores every one; above, each batch keeps its own front."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """A request with a weight in the basket: how often it runs for every run of a workload of weight 1."""

    name: str
    request: Request
    weight: float
    line: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Objective:
    """`metric`, small or large as `larger` says."""

    metric: str
    larger: bool

    @property
    def text(self) -> str:
        return f"{'max' if self.larger else 'min'} {self.metric}"


@dataclass(frozen=True, kw_only=True)
class Study:
    """Everything that determines a run's numbers."""

    name: str
    about: str
    chip: str
    overrides: tuple[str, ...]
    space: Space
    workloads: tuple[Workload, ...]
    objectives: tuple[Objective, ...]
    constraints: tuple[Constraint, ...]
    method: str
    designs: int
    seed: int
    population: int | None
    batch: int
    keep: str
    source: Mapping[str, Any]
    file: str
    fidelity: str = "estimate"

    @property
    def soc(self) -> SoC:
        return load_chip(self.chip, list(self.overrides))

    @property
    def keeps_all(self) -> bool:
        return self.keep == "all" or (self.keep == "auto" and self.designs <= KEEP_ALL_UP_TO)

    def options_of(self, workload: str) -> list[Knob]:
        """Knobs that are options of one workload."""
        return [k for k in self.space.knobs if k.name.partition(".")[0] == workload and k.name not in FIGURES]

    def requests_of(self, workload: Workload) -> list[tuple[dict[str, Any], Request]]:
        """Every combination of a workload's option knobs, with the request it makes. One entry where there are none."""
        knobs = self.options_of(workload.name)
        found = []
        for values in itertools.product(*(knob.values for knob in knobs)):
            chosen = {knob.name: value for knob, value in zip(knobs, values, strict=True)}
            options = {name.partition(".")[2]: _python(value) for name, value in chosen.items()}
            found.append((chosen, replace(workload.request, **options)))
        return found


def _python(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def read_study(path: str | Path) -> Study:
    """A study file, checked as far as it can be without evaluating a design. Raises StudyError with the offending line."""
    top = read_located(Path(path))
    keys = top.only("the study", _TOP)
    for needed in ("chip", "knobs", "workloads", "objectives"):
        if needed not in keys:
            top.fail(f"the study has no {needed!r}; expected chip, knobs, workloads and objectives")
    chip, overrides = keys["chip"].text("chip"), _overrides(keys)
    try:
        load_chip(chip, list(overrides))
    except HardwareError as error:
        keys["chip"].fail(str(error))
    workloads = read_workloads(keys["workloads"], chip, overrides)
    space = _space(keys["knobs"], workloads)
    names = [w.name for w in workloads]
    constraints = _constraints(keys.get("constraints"), names)
    objectives = _objectives(keys["objectives"], names)
    fidelity = keys["fidelity"].choice("fidelity", FIDELITIES) if "fidelity" in keys else "estimate"
    search = _search(keys.get("search"), top, space, _BATCH[fidelity])
    return Study(
        name=_plain_text(keys, "name", 100) or Path(path).stem, about=_plain_text(keys, "about", 2000),
        chip=chip, overrides=overrides, space=space, workloads=workloads, objectives=objectives, constraints=constraints,
        keep=keys["keep"].choice("keep", KEEP) if "keep" in keys else "auto", source=top.plain(), file=str(path),
        fidelity=fidelity, **search,
    )  # fmt: skip


def _plain_text(keys: Mapping[str, Located], key: str, most: int) -> str:
    """Text to be shown: no control characters, nor those that change the direction of what follows."""
    text = keys[key].text(key) if key in keys else ""
    if len(text) > most or not all(c.isprintable() or (c == "\n" and key == "about") for c in text):
        keys[key].fail(f"{key}: got {text[:40]!a}, expected at most {most:,} printable characters")
    return text


def _overrides(keys: Mapping[str, Located]) -> tuple[str, ...]:
    if "set" not in keys:
        return ()
    return tuple(f"{path}={value.text(path)}" for path, value in keys["set"].mapping("set").items())


def read_workloads(at: Located, chip: str, overrides: tuple[str, ...]) -> tuple[Workload, ...]:
    """The mapping of workloads of a study. Raises StudyError with the line."""
    found = []
    for name, entry in at.mapping("workloads").items():
        if not name.replace("-", "_").isidentifier() or name in {path.partition(".")[0] for path in FIGURES}:
            entry.fail(f"workload {name[:40]!r}: expected a plain name such as chat, not the name of a chip part")
        options = entry.only(f"workload {name}", (*_OPTIONS, "weight", "input"))
        if "model" not in options:
            entry.fail(f"workload {name} has no model, for example model: llama-3.1-8b")
        found.append(_workload(name, entry, options, chip, overrides))
    if not found:
        at.fail("workloads: got none, expected at least one such as chat: {model: llama-3.1-8b}")
    return tuple(found)


def _workload(
    name: str, entry: Located, options: Mapping[str, Located], chip: str, overrides: tuple[str, ...]
) -> Workload:
    chosen: dict[str, Any] = {}
    for key, value in options.items():
        if key in _INTEGERS:
            chosen[key] = value.whole(f"{name}.{key}", 0, 2**24)
        elif key == "input":
            texts = [v.text(key) for v in value.items(key)] if isinstance(value.value, list) else [value.text(key)]
            chosen["inputs"] = tuple(texts)
        elif key != "weight":
            chosen[key] = value.text(f"{name}.{key}")
    weight = options["weight"].number(f"{name}.weight", 1e-9, 1e9) if "weight" in options else 1.0
    try:
        request = Request(chip=chip, overrides=overrides, **chosen)
    except OrchardError as error:
        entry.fail(f"workload {name}: {error}")
    return Workload(name=name, request=request, weight=weight, line=entry.line)


def _space(at: Located, workloads: Sequence[Workload]) -> Space:
    names = [w.name for w in workloads]
    knobs = [_knob(name, entry, names) for name, entry in at.mapping("knobs").items()]
    if not knobs:
        at.fail("knobs: the space is empty; expected at least one such as gpu.cores: [8, 10, 12]")
    return Space(tuple(knobs))


def _knob(name: str, entry: Located, workloads: Sequence[str]) -> Knob:
    head, _, option = name.partition(".")
    if head in workloads:
        return _option_knob(name, option, entry)
    spec = FIGURES.get(name)
    if spec is None:
        known = [*FIGURES, *(f"{w}.{o}" for w in workloads for o in _OPTIONS)]
        entry.fail(f"knob {name[:60]!r} is no figure of a chip and no option of a workload{did_you_mean(name, known)}")
    if spec.is_text:
        entry.fail(f"knob {name} is a text ({spec.about}), expected a numeric figure")
    if isinstance(entry.value, dict):
        return _range(name, entry)
    values = tuple(_si(name, item) for item in entry.items(f"knob {name}"))
    _distinct(name, entry, values)
    return Knob(name=name, values=values, unit=spec.unit, line=entry.line)


def _distinct(name: str, entry: Located, values: tuple[Any, ...]) -> None:
    if not values:
        entry.fail(f"knob {name}: the space is empty; expected at least one value")
    if len(set(values)) != len(values):
        entry.fail(f"knob {name}: a value is there twice")


def _si(name: str, item: Located) -> float:
    """A figure's value in SI: "150GB/s", or a number in the unit the figure usually has (clocks in GHz, sizes in MiB)."""
    spec = FIGURES[name]
    positive = spec.positive
    try:
        if isinstance(item.value, str):
            return parse_quantity(item.value, spec.dimension, where=f"knob {name}", positive=positive)
    except OrchardError as error:
        item.fail(str(error))
    number = item.number(f"knob {name}", 0.0, 1e18)
    if spec.unit == "count" and number != int(number):
        item.fail(f"knob {name}: got {number:g}, expected a whole number")
    if spec.dimension not in ("count", "fraction"):
        example = DIMENSIONS[spec.dimension].example
        item.fail(f"knob {name}: got {number:g} without a unit, expected a quantity such as {example}")
    if positive and number == 0:
        item.fail(f"knob {name}: got 0, expected more")
    return number


def _range(name: str, entry: Located) -> Knob:
    keys = entry.only(f"knob {name}", ("from", "to", "steps", "scale"))
    if "from" not in keys or "to" not in keys:
        entry.fail(f"knob {name}: expected a list of values, or from and to (and steps)")
    low, high = _si(name, keys["from"]), _si(name, keys["to"])
    if not low < high:
        keys["from"].fail(f"knob {name}: from is not below to, the range is empty")
    log = "scale" in keys and keys["scale"].choice(f"knob {name}: scale", ("linear", "log")) == "log"
    if log and low <= 0:
        keys["from"].fail(f"knob {name}: a log scale needs from > 0")
    unit = FIGURES[name].unit
    if "steps" not in keys:
        if FIGURES[name].unit == "count":
            entry.fail(f"knob {name} is a count: expected steps, or a list of values")
        return Knob(name=name, low=low, high=high, log=log, unit=unit, line=entry.line)
    steps = keys["steps"].whole(f"knob {name}: steps", 2, 100_000)
    ends = np.geomspace(low, high, steps) if log else np.linspace(low, high, steps)
    values = tuple(float(v) for v in ends)
    if FIGURES[name].unit == "count" and any(v != round(v) for v in values):
        entry.fail(f"knob {name} is a count: {steps} steps from {low:g} to {high:g} are not whole numbers")
    return Knob(name=name, values=values, unit=unit, line=entry.line)


def _option_knob(name: str, option: str, entry: Located) -> Knob:
    if option not in _OPTIONS:
        entry.fail(f"knob {name[:60]!r}: a workload has no option {option[:40]!r}{did_you_mean(option, _OPTIONS)}")
    if option in _INTEGERS:
        values: tuple[Any, ...] = tuple(v.whole(f"knob {name}", 0, 2**24) for v in entry.items(f"knob {name}"))
    else:
        values = tuple(v.text(f"knob {name}") for v in entry.items(f"knob {name}"))
    _distinct(name, entry, values)
    return Knob(name=name, values=values, line=entry.line)


def _constraints(at: Located | None, workloads: Sequence[str]) -> tuple[Constraint, ...]:
    found = []
    for item in at.items("constraints") if at is not None else ():
        text = item.text("constraint")
        read = parse_constraint(text, item.line)
        if read is None:
            item.fail(f"constraint {text[:60]!r}: expected a metric, a comparison and a number such as 'area_mm2 <= 200'")
        if metric(read.metric, workloads) is None:
            item.fail(f"constraint {text[:60]!r}: no metric {read.metric!r}{_metric_hint(read.metric, workloads)}")
        found.append(read)
    pair = contradiction(found)
    if pair is not None and at is not None:
        replace_line = Located(at.value, at.file, max(pair[0].line, pair[1].line))
        replace_line.fail(f"constraints {pair[0].text!r} and {pair[1].text!r} contradict each other: no design keeps both")
    return tuple(found)


def _metric_hint(name: str, workloads: Sequence[str]) -> str:
    return did_you_mean(name, metric_names(workloads)) or "; known: area_mm2, latency_s, chat.tokens_per_s, ..."


def _objectives(at: Located, workloads: Sequence[str]) -> tuple[Objective, ...]:
    found = []
    for item in at.items("objectives"):
        text = item.text("objective").strip()
        sense, _, rest = text.partition(" ")
        name = rest.strip() if sense in ("min", "max") else text
        known = metric(name, workloads)
        if known is None:
            item.fail(f"objective {text[:60]!r}: no metric {name[:40]!r}{_metric_hint(name, workloads)}")
        larger = sense == "max" if sense in ("min", "max") else known.larger
        found.append(Objective(metric=name, larger=larger))
    if not 1 <= len(found) <= 6 or len({o.metric for o in found}) != len(found):
        at.fail(f"objectives: got {len(found)}, expected one to six different ones")
    return tuple(found)


def _search(at: Located | None, top: Located, space: Space, batch: int) -> dict[str, Any]:
    keys = at.only("search", _SEARCH) if at is not None else {}
    here = at or top
    method = keys["method"].choice("search: method", METHODS) if "method" in keys else "grid"
    size = space.size
    if method == "grid" and size is None:
        here.fail("a grid needs steps for every range; give steps, or search: {method: lhs, designs: 1000}")
    if method == "grid":
        designs = size or 0
        if "designs" in keys:
            keys["designs"].fail(f"a grid has {designs:,} designs by itself; leave 'designs' out or choose another method")
    elif "designs" not in keys:
        here.fail(f"search: method {method} needs 'designs', how many to evaluate")
    else:
        designs = keys["designs"].whole("search: designs", 1, _MOST_DESIGNS)
    if designs > _MOST_DESIGNS:
        here.fail(f"a grid of {designs:,} designs is more than {_MOST_DESIGNS:,}; use lhs, random or nsga2 (docs/explore.md)")
    return {
        "method": method, "designs": designs,
        "seed": keys["seed"].whole("search: seed", 0, 2**31) if "seed" in keys else 0,
        "population": keys["population"].whole("search: population", 4, 10_000) if "population" in keys else None,
        "batch": keys["batch"].whole("search: batch", 1, 1_000_000) if "batch" in keys else batch,
    }  # fmt: skip
