"""Pairs of measured rows that differ in one technique: what the technique gains, measured and predicted.

A pair shares source, chip, system build and model. Its ratio is the time without over the time with the technique, so errors that
both rows share cancel, and what remains is how well the model knows the technique.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from orchard.studies.cases import Case

Record = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Pair:
    """Positions of two cases, and the technique that the second one adds."""

    technique: str
    without: int
    with_it: int


def technique_pairs(cases: Sequence[Case], records: Mapping[str, Record]) -> tuple[Pair, ...]:
    """All pairs among the cases of a suite. `records`: the packaged rows by id."""
    plain: dict[tuple[str, ...], int] = {}
    changed: list[tuple[str, tuple[str, ...], int]] = []
    for position, case in enumerate(cases):
        for technique, key in _roles(records[case.row.id]):
            if technique:
                changed.append((technique, key, position))
            else:
                plain.setdefault(key, position)
    return tuple(Pair(name, plain[key], position) for name, key, position in changed if key in plain)


def _roles(record: Record) -> list[tuple[str, tuple[str, ...]]]:
    """(technique, what the pair shares) of a row; an empty technique marks the row without it."""
    if "library" in record:
        return _kernel_roles(record)
    same = (record["source"], record["chip"], record["os_version"], record["model"], record["input_shape"])
    variant, precision = record["variant"], record["precision"]
    if record["runtime"] == "ggml-metal":
        flash = "flash_attn=1" in variant
        return [
            ("flash attention" if flash else "", (*same, precision, "flash")),
            ("8-bit weights on a GPU" if precision == "w8" else "", (*same, str(flash), "weights")),
        ]
    if "Winograd" in variant:
        return [("Winograd where it pays" if "dispatch rule" in variant else "", (*same, "winograd"))]
    if record["source"] != "apple/coremltools docs":
        return []
    name = {"fp16": "", "w8a8": "INT8 weights and activations, ANE"}.get(precision, "compressed weights, ANE")
    return [(name, (*same, "compressed"))]


def _kernel_roles(record: Record) -> list[tuple[str, tuple[str, ...]]]:
    """Fused against separate attention of one pull request."""
    found = re.fullmatch(r"MLX (fused|unfused)", record["library"])
    if found is None:
        return []
    technique = "fused attention" if found.group(1) == "fused" else ""
    return [(technique, (record["source"], record["chip"], record["shape"], record["dtype"]))]
