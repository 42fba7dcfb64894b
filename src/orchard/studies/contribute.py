"""A run as rows of the project's dataset of single operations, with provenance, checked before they are written.

The columns are those of `data/measurements/kernels.csv`; a row is the median of one microbenchmark. The check reads the
text back the way the dataset is read, so what is written is what `orchard validate --suite kernels --rows FILE` accepts.
"""

from __future__ import annotations

import csv
import io
import math
import re
from pathlib import Path

from orchard.cost.eager import Launch
from orchard.measure.store import Run, Sample
from orchard.studies.errors import StudyError

COLUMNS = (
    "id",
    "source",
    "source_ref",
    "chip",
    "engine",
    "library",
    "op",
    "shape",
    "dtype",
    "metric",
    "value",
    "notes",
)
LIBRARIES = {
    "cpu": ("cpu", "PyTorch CPU"),
    "cuda": ("gpu", "PyTorch CUDA"),
    "mps": ("gpu", "PyTorch MPS"),
    "mlx": ("gpu", "MLX"),
}
DTYPES = {"f32": "fp32", "bf16": "bf16", "f16": "fp16", "int8": "int8", "int8w": "int8", "int4w": "int4", "int": "int"}


def contribution(run: Run, chip: str, source: str) -> str:
    """CSV text. `chip`: what people call the processor; `source`: who measured, for the column `source`.

    Raises StudyError for a device without rows, and where a row breaks the dataset's rules.
    """
    device = str(run.head["device"])
    if device not in LIBRARIES:
        raise StudyError(f"{run.folder}: device {device} has no rows in the dataset of single operations")
    for label, text in (("--chip", chip), ("--source", source)):
        if not text.strip() or len(text) > 120 or not text.isprintable():
            raise StudyError(f"{label} {text[:40]!r}: expected a short text")
    rows = [_row(run, sample, index, chip, source) for index, sample in enumerate(run.benchmarks, 1)]
    out = io.StringIO()
    writer = csv.DictWriter(out, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    check_rows(out.getvalue(), str(run.folder))
    return out.getvalue()


def _row(run: Run, sample: Sample, index: int, chip: str, source: str) -> dict[str, str]:
    head = run.head
    engine, library = LIBRARIES[str(head["device"])]
    version = head["machine"]["versions"].get("mlx" if head["device"] == "mlx" else "torch", "n/a")
    main = max(sample.launches, key=lambda x: x.macs * 1e3 + x.elements + x.bytes, default=None)
    low, high = sample.timing.interval_s
    load = "" if sample.cpu_share is None else f"; CPU share {sample.cpu_share:.2f}"
    return {
        "id": f"own-{head['created'][:10]}-{index:04d}",
        "source": source,
        "source_ref": f"orchard measure {head['created']}",
        "chip": chip,
        "engine": engine,
        "library": library,
        "op": op_name(sample, main),
        "shape": shape_text(sample, main),
        "dtype": DTYPES.get(main.dtype, main.dtype) if main else "fp32",
        "metric": "ms",
        "value": f"{sample.timing.median_s * 1e3:.6g}",
        "notes": f"trust=A; {library} {version}; {head['threads']} threads; {head['clock']}; n={len(sample.timing.samples)}x"
        f"{sample.timing.inner}; 95 % of the median {low * 1e3:.4g} to {high * 1e3:.4g} ms{load}",
    }


def op_name(sample: Sample, main: Launch | None) -> str:
    """The dataset's name where it has one (gemm, conv2d, attention), else the microbenchmark's kind."""
    if main is not None and len(sample.launches) <= 3:
        known = {"gemm": "gemm", "gemv": "gemm", "conv": "conv2d", "depthwise": "conv2d", "attention": "attention"}
        if main.group in known:
            return known[main.group]
    return sample.group


def shape_text(sample: Sample, main: Launch | None) -> str:
    """`m=..,n=..,k=..` of a product; else the benchmark's name, which spells its sizes."""
    if main is not None and main.group in ("gemm", "gemv") and len(sample.launches) <= 3 and main.batch == 1.0:
        return f"m={main.rows:g},n={main.columns:g},k={main.depth:g}"
    return f"name={sample.name}"


def check_rows(text: str, where: str) -> int:
    """Number of rows. Raises StudyError naming line and field for what the dataset would refuse."""
    reader = csv.DictReader(io.StringIO(text))
    if tuple(reader.fieldnames or ()) != COLUMNS:
        raise StudyError(
            f"{where}: columns are {', '.join(reader.fieldnames or ())[:120]}; expected {', '.join(COLUMNS)}"
        )
    seen: set[str] = set()
    for number, record in enumerate(reader, 2):
        at = f"{where} line {number}"
        if None in record or any(v is None for v in record.values()):
            raise StudyError(f"{at}: expected {len(COLUMNS)} fields")
        if record["id"] in seen or not re.fullmatch(r"[\w.-]{3,60}", record["id"]):
            raise StudyError(f"{at}: id {record['id'][:60]!r} is there twice or no short name")
        seen.add(record["id"])
        _check_value(record, at)
    if not seen:
        raise StudyError(f"{where}: no rows")
    return len(seen)


def _check_value(record: dict[str, str], at: str) -> None:
    try:
        value = float(record["value"])
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value > 0):
        raise StudyError(f"{at}: value is {record['value'][:40]!r}, expected a positive number")
    if record["metric"] != "ms" or record["engine"] not in ("cpu", "gpu", "ane"):
        raise StudyError(
            f"{at}: metric {record['metric']!r} on engine {record['engine']!r}, expected ms on cpu, gpu or ane"
        )
    if not record["notes"].startswith("trust="):
        raise StudyError(f"{at}: notes start with {record['notes'][:20]!r}, expected trust=A, B or C")


def write_contribution(text: str, path: Path) -> None:
    """Raises StudyError where the file is there already or cannot be written."""
    if path.exists():
        raise StudyError(f"--output {path}: is there already; rows are never overwritten")
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise StudyError(f"--output {path}: cannot be written ({error.strerror})") from None
