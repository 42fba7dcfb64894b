"""The suites `vision` and `kernels`: measured rows of networks and of single operations, as cases to fit and score."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files

from orchard.studies.cases import Case
from orchard.studies.kernel_rows import kernel_case, without_repeats
from orchard.studies.vision_rows import vision_case

SUITES = ("vision", "kernels")


@dataclass(frozen=True)
class Suite:
    """Cases of a suite and the rows that are not scored, by reason."""

    cases: tuple[Case, ...]
    left_out: Mapping[str, int]


@lru_cache(maxsize=4)
def load_suite(name: str) -> Suite:
    """The suite `vision` or `kernels` from the packaged rows."""
    make = {"vision": vision_case, "kernels": kernel_case}[name]
    records = suite_records(name)
    if name == "kernels":
        records = without_repeats(records)
    cases: list[Case] = []
    reasons: dict[str, int] = {}
    for record in records:
        made = make(record)
        if isinstance(made, Case):
            cases.append(made)
        else:
            reasons[made] = reasons.get(made, 0) + 1
    return Suite(tuple(cases), reasons)


def suite_records(name: str) -> list[dict[str, str]]:
    """The packaged rows of a suite as text fields."""
    text = files("orchard.data").joinpath("measurements", f"{name}.csv").read_text(encoding="utf-8")
    return list(csv.DictReader(text.splitlines()))
