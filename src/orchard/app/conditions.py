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
from collections.abc import Callable, Mapping
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


def _times(name: str, seconds: float) -> dict[str, float | bool]:
    return {f"{name}_s": seconds, f"{name}_ms": seconds * 1e3}
