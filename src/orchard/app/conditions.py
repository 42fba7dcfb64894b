"""`--fail-if 'decode.tokens_per_s<20'`: a comparison over the answer, so that a prediction can guard a build.

    condition = name operator number, or `fits==false`
    operator  = <  <=  >  >=  ==  !=

Names are dotted: `<phase>.<figure>` for each phase of the answer, and a few for the whole request. Nothing is evaluated
as code. `facts` lists every name with its value.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from orchard.units import OrchardError, did_you_mean

_OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    "<=": operator.le, ">=": operator.ge, "==": operator.eq, "!=": operator.ne, "<": operator.lt, ">": operator.gt,
}  # fmt: skip
_SHAPE = re.compile(r"\s*([A-Za-z_][\w.]*)\s*(<=|>=|==|!=|<|>)\s*(\S+)\s*")
_EXAMPLE = "decode.tokens_per_s<20"


class ConditionError(OrchardError):
    """A --fail-if text that cannot be read, or a name the answer does not have."""


@dataclass(frozen=True, slots=True)
class Condition:
    """One comparison as the user wrote it."""

    text: str
    name: str
    relation: str
    value: float | bool

    def holds(self, known: Mapping[str, float | bool]) -> bool:
        """Raises ConditionError for a name that is not in `known`, or a truth value compared with a number."""
        if self.name not in known:
            hint = did_you_mean(self.name, known) or f"; known: {', '.join(sorted(known))}"
            raise ConditionError(f"--fail-if {self.text!r}: the answer has no {self.name!r}{hint}")
        actual = known[self.name]
        if isinstance(actual, bool) != isinstance(self.value, bool):
            wanted = "true or false" if isinstance(actual, bool) else "a number"
            raise ConditionError(f"--fail-if {self.text!r}: {self.name} compares with {wanted}")
        return _OPERATORS[self.relation](actual, self.value)


def parse_condition(text: str) -> Condition:
    """Raises ConditionError with an example for anything else than one comparison."""
    match = _SHAPE.fullmatch(text) if len(text) <= 200 else None
    if match is None:
        raise ConditionError(f"--fail-if {text[:60]!r}: expected name, comparison and number such as {_EXAMPLE!r}")
    name, relation, value = match.groups()
    if value.lower() in ("true", "false"):
        if relation not in ("==", "!="):
            raise ConditionError(f"--fail-if {text!r}: {value} compares with == or !=")
        return Condition(text.strip(), name, relation, value.lower() == "true")
    try:
        parsed = float(value)
    except ValueError:
        parsed = math.nan
    if not math.isfinite(parsed):
        raise ConditionError(f"--fail-if {text!r}: {value[:40]!r} is no number, expected one such as in {_EXAMPLE!r}")
    return Condition(text.strip(), name, relation, parsed)


def end_if_any_holds(conditions: Iterable[Condition], known: Mapping[str, float | bool]) -> None:
    """Name the conditions that hold on stderr and end with exit code 4; nothing where none does."""
    import typer

    from orchard.app.exits import CONDITION
    from orchard.app.output import note

    broken = [c for c in conditions if c.holds(known)]
    for condition in broken:
        note(f"--fail-if {condition.text!r} holds: {condition.name} is {_plain(known[condition.name])}")
    if broken:
        raise typer.Exit(CONDITION)


def _plain(value: float | bool) -> str:
    return str(value).lower() if isinstance(value, bool) else f"{value:.6g}"


def facts(answer: Mapping[str, Any]) -> dict[str, float | bool]:
    """Every name a condition may use, from an `orchard.prediction/1` mapping.

    `latency_ms` and `energy_j` alone mean the whole request: the prompt and every generated token, or the inference.
    Times also come in seconds (`latency_s`), memory also in GiB.
    """
    known: dict[str, float | bool] = {}
    latency = energy = 0.0
    for name, phase in answer["phases"].items():
        steps = phase["tokens"] if name == "decode" else 1
        latency += phase["latency_s"] * steps
        energy += phase["energy_j"] * steps
        low, high = phase["interval_s"]
        known |= {
            **_times(f"{name}.latency", phase["latency_s"]), **_times(f"{name}.low", low), **_times(f"{name}.high", high),
            **_times(f"{name}.bound", phase["bound_s"]), f"{name}.tokens_per_s": phase["tokens_per_s"],
            f"{name}.energy_j": phase["energy_j"],
        }  # fmt: skip
        known |= {f"{name}.{cause}_share": share for cause, share in phase["bound_by"].items()}
    if answer.get("ttft_s") is not None:
        known |= _times("ttft", answer["ttft_s"])
    known |= {**_times("latency", latency), "energy_j": energy, "fits": answer["memory"]["fits"]}
    for field, label in (("total", "memory"), ("weights", "weights"), ("kv_cache", "kv_cache"), ("limit", "limit")):
        size = answer["memory"][f"{field}_bytes"]
        known |= {f"{label}_gb": size / 1e9, f"{label}_gib": size / 2**30}
    return known


def simulation_facts(record: Mapping[str, Any]) -> dict[str, float | bool]:
    """Every name a condition may use, from an `orchard.simulation/1` mapping. Spaces in stream names read as `_`."""
    known: dict[str, float | bool] = {
        "saturated": record["saturated"], "energy_j": record["power"]["energy_j"], "mean_w": record["power"]["mean_w"],
        "peak_w": record["power"]["peak_w"], "memory_utilization": record["memory"]["utilization"],
    }  # fmt: skip
    if record["heat"]:
        known |= {key: record["heat"][key] for key in ("most_die_c", "most_case_c", "throttled_share")}
    for engine in record["engines"]:
        known |= {f"{engine['name']}.{key}": engine[key] for key in ("utilization", "mean_clock")}
    for stream in record["streams"]:
        name = re.sub(r"\W", "_", stream["name"])
        for quantile, seconds in stream["latency_s"].items():
            known |= _times(f"{name}.{quantile}", seconds)
        known |= {f"{name}.{key}": stream[key] for key in ("missed", "dropped", "completed", "saturated", "energy_j")}
    return known


def refuse_unknown_streams(conditions: Iterable[Condition], streams: Iterable[str], engines: Iterable[str]) -> None:
    """Raises ConditionError, before a long run, for a name that starts with neither a stream nor an engine."""
    heads = [*(re.sub(r"\W", "_", name) for name in streams), *engines]
    for condition in conditions:
        head, dot, _ = condition.name.partition(".")
        if dot and head not in heads:
            hint = did_you_mean(head, heads) or f"; known: {', '.join(heads)}"
            raise ConditionError(f"--fail-if {condition.text!r}: no stream or engine is called {head!r}{hint}")


def exploration_facts(record: Mapping[str, Any]) -> dict[str, float | bool]:
    """Every name a condition may use, from an `orchard.exploration/1` mapping: the metrics of the best design by each
    objective come as `best.<metric>`, those of the knee as `knee.<metric>`; without a feasible design there are none."""
    known: dict[str, float | bool] = {
        "evaluated": record["evaluated"], "feasible": record["feasible"], "front_size": len(record["front"]),
    }  # fmt: skip
    if record["front"]:
        knee = record["front"][record["knee"]]["metrics"]
        known |= {re.sub(r"[^\w.]", "_", f"knee.{name}"): value for name, value in knee.items()}
        for text in record["objectives"]:
            sense, _, name = text.partition(" ")
            values = [design["metrics"][name] for design in record["front"] if name in design["metrics"]]
            if values:
                known[re.sub(r"[^\w.]", "_", f"best.{name}")] = max(values) if sense == "max" else min(values)
    return known


def _times(name: str, seconds: float) -> dict[str, float | bool]:
    return {f"{name}_s": seconds, f"{name}_ms": seconds * 1e3}
