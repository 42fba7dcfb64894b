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


@dataclass(frozen=True, slots=True)
class RowPair:
    """Ids of two packaged rows, and the technique that the second one adds."""

    technique: str
    without: str
    with_it: str


def technique_pairs(cases: Sequence[Case], records: Mapping[str, Record]) -> tuple[Pair, ...]:
    """All pairs among the cases of a suite. `records`: the packaged rows by id."""
    ids = [case.row.id for case in cases]
    place = {row: position for position, row in reversed([*enumerate(ids)])}
    return tuple(
        Pair(p.technique, place[p.without], place[p.with_it]) for p in row_pairs([records[row] for row in ids])
    )


def row_pairs(records: Sequence[Record]) -> tuple[RowPair, ...]:
    """All pairs among rows of a suite; where several rows are without a technique, the first of them counts."""
    plain: dict[tuple[str, ...], str] = {}
    changed: list[tuple[str, tuple[str, ...], str]] = []
    for record in records:
        for technique, key in _roles(record):
            if technique:
                changed.append((technique, key, record["id"]))
            else:
                plain.setdefault(key, record["id"])
    return tuple(RowPair(name, plain[key], row) for name, key, row in changed if key in plain)


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
