"""One measured row of a suite as a case: a lowered graph on a chip of the catalogue with the profile that answers for it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from orchard.cost.bound import phase_bound
from orchard.cost.evaluate import Call
from orchard.cost.lower import KernelTable, lower
from orchard.cost.profile import Profile
from orchard.hw import HardwareArrays, find_chip, load_chip
from orchard.ir import Graph
from orchard.studies.cases import Case
from orchard.studies.measurements import Row
from orchard.units import OrchardError

Record = Mapping[str, str]


def suite_case(
    record: Record,
    profile: Profile,
    model: Graph | KernelTable,
    bindings: Mapping[str, int] | Sequence[Call],
    seconds: float,
    *,
    stratum: str,
    family: str,
    weights: str = "f16",
) -> Case | str:
    """The case, or why the row cannot be scored. `bindings`: symbol values of one call, or the calls of the phase."""
    try:
        soc = load_chip(chip_of(record["chip"]))
    except OrchardError:
        return f"chip {record['chip']} is not in the catalogue"
    table = lower(model, profile.lowering) if isinstance(model, Graph) else model
    calls = (Call(bindings),) if isinstance(bindings, Mapping) else tuple(bindings)
    row = Row(
        id=record["id"], source=record["source"], date=record.get("date", ""), chip=record["chip"], gpu_cores=None,
        cpu_cores=None, engine=profile.engine, runtime=profile.runtime, runtime_version="",
        model=record.get("model") or stratum, weights=weights, phase="inference", prompt=None, depth=None, generate=None,
        batch=1, metric="ms", value=seconds * 1e3, notes=record["notes"],
    )  # fmt: skip
    bound = 0.0
    if profile.rules.get("serves") != "ops":  # a single call may find its operands in a cache
        cache = float(soc.get("slc.size") or 0.0)
        bound = float(phase_bound(table, calls, HardwareArrays.of(soc), profile.engine, cache))
    return Case(
        row=row, profile=profile, soc=soc, table=table, calls=calls, measured_s=seconds, stratum=stratum,
        generation=soc.family, family=family, bound_s=bound,
    )  # fmt: skip


def chip_of(text: str) -> str:
    """`M1 Max (file label M1)`, `M4 (Air, 8-core GPU)`, `M3 Max (40-core GPU)` as the catalogue names them."""
    cores = re.search(r"(\d+)-core GPU", text)
    return find_chip(text.partition(" (")[0], float(cores.group(1)) if cores else None, None)
