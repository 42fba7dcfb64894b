"""The language-model measurements that ship with the package, and how a row becomes a request.

A row is *scored* when a prediction can answer it: a pure prefill or decode rate of a published model on a chip of the
catalogue, or an isolated layer. Others are listed with the reason. `trust` is A, B or C (C is never scored).
"""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from pathlib import Path

from orchard.studies.errors import StudyError

COLUMNS = (
    "id", "source", "source_ref", "date", "chip", "gpu_cores", "cpu_cores", "memory_gb", "bandwidth_gbps", "engine",
    "runtime", "runtime_version", "model", "params_b", "weight_format", "phase", "prompt_tokens", "context_depth",
    "gen_tokens", "batch", "metric", "value", "stddev", "notes",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One measurement; sizes are None where the source does not say."""

    id: str
    source: str
    date: str
    chip: str
    gpu_cores: float | None
    cpu_cores: float | None
    engine: str
    runtime: str
    runtime_version: str
    model: str
    weights: str
    phase: str
    prompt: int | None
    depth: int | None
    generate: int | None
    batch: int
    metric: str
    value: float
    notes: str

    @property
    def trust(self) -> str:
        return self.notes[6:7] if self.notes.startswith("trust=") else "B"

    @property
    def threads(self) -> int | None:
        """CPU threads, where the notes give them."""
        found = re.search(r"threads=(\d+)|(?<!\S)(\d+) threads", self.notes)
        return int(found[1] or found[2]) if found else None

    @property
    def seconds(self) -> float:
        """Measured time of the phase: the whole prompt for prefill, one step for decode, the pass for a component."""
        if self.metric == "ms":
            return self.value / 1e3
        return (self.batch if self.phase == "decode" else (self.prompt or 0) * self.batch) / self.value


def read_rows(path: str | Path | None = None) -> tuple[Row, ...]:
    """All rows of the packaged file, or of another file with the same columns. Raises StudyError naming line and field."""
    if path is None:
        return _packaged()
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise StudyError(f"{path}: cannot be read as text ({type(error).__name__})") from None
    return _parse(text, str(path))


@lru_cache(maxsize=1)
def _packaged() -> tuple[Row, ...]:
    text = files("orchard.data").joinpath("measurements", "llm.csv").read_text(encoding="utf-8")
    return _parse(text, "llm.csv")


def _parse(text: str, where: str) -> tuple[Row, ...]:
    reader = csv.DictReader(io.StringIO(text))
    missing = [c for c in COLUMNS if c not in (reader.fieldnames or ())]
    if missing:
        raise StudyError(f"{where}: column {missing[0]!r} is missing; expected {', '.join(COLUMNS)}")
    try:
        records = list(reader)
    except csv.Error as error:
        raise StudyError(f"{where} line {reader.line_num}: {error}") from None
    return tuple(_row(record, f"{where} line {number}") for number, record in enumerate(records, 2))


def _row(record: dict[str, str | None], where: str) -> Row:
    short = next((c for c in COLUMNS if record[c] is None), None)
    if short is not None:
        raise StudyError(f"{where}: ends before column {short!r}; expected {len(COLUMNS)} fields")
    return _checked_row({c: record[c] or "" for c in COLUMNS}, where)


def _checked_row(record: dict[str, str], where: str) -> Row:
    def number(name: str) -> float | None:
        text = record[name].strip()
        try:
            value = float(text) if text else None
        except ValueError:
            value = math.nan
        if value is not None and not 0 <= value < 1e12:
            raise StudyError(f"{where}: {name} is {text[:40]!r}, expected a number from 0")
        return value

    def whole(name: str) -> int | None:
        value = number(name)
        if value is not None and not value.is_integer():
            raise StudyError(f"{where}: {name} is {record[name]!r}, expected a whole number")
        return None if value is None else int(value)

    value = number("value")
    if not value:
        raise StudyError(f"{where}: value is {record['value']!r}, expected a positive number")
    return Row(
        id=record["id"], source=record["source"], date=record["date"], chip=record["chip"],
        gpu_cores=number("gpu_cores"), cpu_cores=number("cpu_cores"), engine=record["engine"],
        runtime=record["runtime"], runtime_version=record["runtime_version"], model=record["model"],
        weights=record["weight_format"], phase=record["phase"], prompt=whole("prompt_tokens"),
        depth=whole("context_depth"), generate=whole("gen_tokens"), batch=whole("batch") or 1, metric=record["metric"],
        value=value, notes=record["notes"],
    )  # fmt: skip


UNPUBLISHED = ("apple/on-device-foundation-model-3B", "openbmb/MiniCPM5-1B")


def why_not_scored(row: Row) -> str | None:
    """The reason a row is left out of every fit and score; None for a scored row."""
    reasons = (
        (row.trust == "C", "trust C"),
        (row.engine == "mixed", "engines mixed by the system, not stated which"),
        (row.metric not in ("tokens_per_s", "ms"), f"metric {row.metric} (energy and memory are compared elsewhere)"),
        (row.phase == "ttft", "time to first token repeats the prefill row of the same run"),
        (row.phase == "end_to_end" and row.engine != "ane", "mixes phases or drafts tokens"),
        (row.model in UNPUBLISHED, "architecture not published"),
        (row.phase in ("prefill", "end_to_end") and not row.prompt, "prompt length not stated"),
        ("7-token" in row.notes, "first call of a process: includes pipeline warm-up"),
        ("70B" in row.model and row.chip == "M1 Max", "39.6 GiB on 64 GB: swapping suspected by the source"),
        (
            row.phase == "end_to_end" and "gpt2" in row.model,
            "faster than the FP16 peak allows for 512 tokens: cached keys",
        ),
        (row.phase == "component" and row.weights == "f16", "the catalogue's ANE weight rate is this very row"),
    )
    return next((reason for holds, reason in reasons if holds), None)


def family_of(model: str) -> str:
    """Model family for leaving one out: the first word of the name, close relatives together."""
    name = model.rpartition("/")[2].lower()
    for prefix, family in (
        ("llama-2", "llama-2"), ("vicuna", "llama-2"), ("llama-7", "llama-2"), ("llama-13", "llama-2"),
        ("llama-3", "llama-3"), ("meta-llama-3", "llama-3"), ("tinyllama", "llama-3"), ("mistral", "mistral"),
        ("ministral", "mistral"), ("deepseek-r1-distill-qwen", "qwen2.5"), ("qwen2.5", "qwen2.5"), ("qwen3.", "qwen3.5"),
        ("qwen3", "qwen3"), ("gemma", "gemma"), ("pythia", "pythia"), ("gpt2", "gpt2"), ("gpt-oss", "gpt-oss"),
        ("smollm", "smollm"),
    ):  # fmt: skip
        if name.startswith(prefix):
            return family
    return name.partition("-")[0]


def scored(rows: Iterable[Row]) -> tuple[Row, ...]:
    """Rows that a prediction answers."""
    return tuple(row for row in rows if why_not_scored(row) is None)
