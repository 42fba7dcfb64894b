"""A calibrated machine as one YAML file that every command takes as `--chip`: figures and the runtime's profile.

Figures carry the source "measured <date>" and their interval in the note; what nobody measured is not stated. The profile
sits under `runtimes`, so silicon and software stay apart inside one file.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from orchard.cost.eager import KNOTS_BYTES
from orchard.cost.profile import ErrorModel
from orchard.hw import machines_folder
from orchard.measure.store import Run, Sample
from orchard.studies.errors import StudyError
from orchard.studies.machine_fit import FitResult, Measured, Term, fit, terms

FOLDS = 4
"""Parts of the programs that the errors of the others' fits are taken from."""
LEAST_PROGRAMS = 40
"""Below, a run is refused: there are some 130 parameters, and priors would decide most of them."""
STRATA = ("inference", "prefill", "decode", "prefill-deep", "decode-deep", "small-batch", "training_step")


@dataclass(frozen=True)
class Calibrated:
    """A fit of a run: parameters, what they could not determine, and errors on programs that were left out."""

    run: Run
    programs: tuple[Measured, ...]
    fit: FitResult
    table: tuple[Term, ...]
    left_out: tuple[float, ...]
    error: ErrorModel

    @property
    def determined(self) -> int:
        return len(self.table) - len(self.fit.undetermined)


def measured(sample: Sample) -> Measured:
    """A sample as the fit sees it: the median of its times."""
    return Measured(sample.name, sample.group, sample.launches, sample.module_calls, sample.timing.median_s)


def fittable(run: Run) -> tuple[Measured, ...]:
    """The run's microbenchmarks as programs. Raises StudyError for a run that cannot carry a fit."""
    if run.head["device"] not in ("cpu", "cuda", "mps"):
        raise StudyError(
            f"{run.folder}: device {run.head['device']} has no traces to fit; calibrate a run of cpu, cuda or mps"
        )
    programs = tuple(measured(s) for s in run.benchmarks if s.launches)
    if len(programs) < LEAST_PROGRAMS:
        raise StudyError(
            f"{run.folder}: {len(programs)} microbenchmarks, expected at least {LEAST_PROGRAMS}; finish `orchard measure`"
        )
    return programs


def calibrate_run(run: Run) -> Calibrated:
    """Fit the eager model to a run's microbenchmarks. Raises StudyError for a run that cannot carry a fit."""
    programs = fittable(run)
    table = terms()
    whole = fit(programs, table)
    left_out = _left_out(programs, table, whole)
    return Calibrated(run, programs, whole, table, left_out, conformal(left_out))


def _left_out(programs: Sequence[Measured], table: Sequence[Term], whole: FitResult) -> tuple[float, ...]:
    """ln(measured / predicted) of every program by a fit that did not see it: every fourth is left out in turn."""
    from orchard.studies.machine_fit import Programs

    found = np.zeros(len(programs))
    for fold in range(FOLDS):
        kept = [p for i, p in enumerate(programs) if i % FOLDS != fold]
        apart = [p for i, p in enumerate(programs) if i % FOLDS == fold]
        part = fit(kept, table, begin=whole.values, most=8)
        laid = Programs(apart)
        found[fold::FOLDS] = np.log(laid.measured / laid.seconds(part.values))
    return tuple(found.tolist())


def conformal(errors: Sequence[float], coverage: float = 0.8) -> ErrorModel:
    """Interval of ln(measured / predicted) that holds `coverage` of left-out errors: the ceil((n + 1) q)-th order statistics
    (split conformal prediction, Vovk et al. 2005; Lei et al. 2018), symmetric in rank."""
    ordered = sorted(errors)
    n = len(ordered)
    tail = (1.0 - coverage) / 2.0
    low = max(0, math.floor((n + 1) * tail) - 1)
    high = min(n - 1, math.ceil((n + 1) * (1.0 - tail)) - 1)
    return ErrorModel(low=ordered[low], high=ordered[high], rows=n)


def machine_yaml(found: Calibrated, name: str) -> str:
    """The file's text."""
    import yaml

    head = found.run.head
    date = str(head["created"])[:10]
    machine = head["machine"]
    versions = machine.get("versions", {})
    data: dict[str, Any] = {
        "id": name,
        "name": f"{machine['processor']}, {head['threads']} threads of {machine['cores']}"[:200],
        "released": date,
        "note": f"measured {date} by orchard measure --device {head['device']}, calibrated by orchard calibrate",
        **_figures(found, date),
        "runtimes": {
            "pytorch": {
                "runtime": "pytorch",
                "engine": "cpu",
                "version": f"torch {versions.get('torch', '?')}",
                "model": "eager",
                "aliases": ["torch", "eager"],
                "about": f"PyTorch eager on {head['threads']} threads; clock: {head['clock']}; allocator: {head['allocator']}",
                "lowering": {"fused_attention": True, "named": True},
                "rules": {"threads": head["threads"], "measured": date},
                "parameters": _parameters(found, date),
                "errors": {stratum: _error(found.error) for stratum in STRATA},
                "rows": [f"{len(found.programs)} microbenchmarks of {head['created']}"],
            }
        },
    }
    return yaml.safe_dump(data, sort_keys=False, width=120, allow_unicode=True)


def _error(error: ErrorModel) -> dict[str, float]:
    return {"low": round(error.low, 4), "high": round(error.high, 4), "rows": error.rows}


def _parameters(found: Calibrated, date: str) -> dict[str, dict[str, Any]]:
    weak = set(found.fit.undetermined)
    return {
        t.name: {
            "value": float(f"{found.fit.values[t.name]:.5g}"),
            "unit": t.unit,
            "about": t.about,
            "prior": t.start,
            "width": t.width,
            "sigma": round(found.fit.sigmas[t.name], 3),
            "source": f"measured {date}" if t.name not in weak else "prior: the data did not determine it",
        }
        for t in found.table
    }


def _figures(found: Calibrated, date: str) -> dict[str, Any]:
    """Peaks and sizes of the machine; a peak is the fitted rate and its 95 % upper end, so that a bound stays one."""
    values, sigmas = found.fit.values, found.fit.sigmas
    machine = found.run.head["machine"]
    threads = int(found.run.head["threads"])

    def figure(value: float, unit: str, parameter: str | None = None, note: str = "") -> dict[str, Any]:
        spread = f"standard error {sigmas[parameter] * 100:.1f} %" if parameter else ""
        text = "; ".join(x for x in (note, spread) if x)
        entry = {"value": float(f"{value:.5g}"), "unit": unit, "source": f"measured {date}", "kind": "measured"}
        return {**entry, "note": text} if text else entry

    rates = {d: _upper(values, sigmas, f"macs_per_s.{d}") * 2.0 for d in ("f32", "bf16", "int8")}
    last = f"read_s_per_byte.{len(KNOTS_BYTES) - 1}"
    stream = 1.0 / (values[last] * math.exp(-2.0 * sigmas[last]))
    cpu: dict[str, Any] = {
        "p": {
            "cores": figure(threads, "count", note="threads the runtime used"),
            "clusters": figure(1, "count"),
            "neon_fp32": figure(rates["f32"] / 1e12 / threads, "TFLOPS", "macs_per_s.f32", "per thread"),
        },
        "neon": {
            "fp32": figure(rates["f32"] / 1e12, "TFLOPS", "macs_per_s.f32", "fastest products, 95 % upper end"),
            "fp16": figure(rates["f32"] / 1e12, "TFLOPS", note="half precision counted as f32"),
            "int8": figure(rates["int8"] / 1e12, "TOPS", "macs_per_s.int8", "fastest products, 95 % upper end"),
        },
        "matrix": {
            "fp32": figure(rates["f32"] / 1e12, "TFLOPS", note="no separate unit in f32"),
            "fp16": figure(rates["bf16"] / 1e12, "TFLOPS", "macs_per_s.bf16", "bf16 rate"),
            "bf16": figure(rates["bf16"] / 1e12, "TFLOPS", "macs_per_s.bf16"),
            "int8": figure(rates["int8"] / 1e12, "TOPS", "macs_per_s.int8"),
        },
        "bandwidth": figure(stream / 1e9, "GB/s", last, "reads far apart, 95 % upper end"),
    }
    clock = machine.get("clock_hz")
    cpu["p"]["clock"] = figure(
        (clock or 2.5e9) / 1e9, "GHz", note="as the system reports it" if clock else "not known; assumed"
    )
    for leaf, key, unit, size in (("l1d", "l1d_bytes", "KiB", 2**10), ("l2", "l2_bytes", "MiB", 2**20)):
        if machine.get(key):
            cpu["p"][leaf] = figure(machine[key] / size, unit, note="as the system reports it")
    dram = {"bandwidth": figure(stream / 1e9, "GB/s", last, "reads far apart, 95 % upper end")}
    dram["energy"] = {
        "value": 150.0, "unit": "pJ/B", "source": "Horowitz 2014", "kind": "estimate",
        "note": "not measured; modules of DDR memory, about 20 pJ per bit with their interface",
    }  # fmt: skip
    if machine.get("memory_bytes"):
        dram["capacity"] = figure(machine["memory_bytes"] / 2**30, "GiB", note="as the system reports it")
    slc = {
        "size": figure(
            (machine.get("l3_bytes") or 0) / 2**20, "MiB", note="last-level cache; may be shared with others"
        )
    }
    return {"cpu": cpu, "dram": dram, **({"slc": slc} if machine.get("l3_bytes") else {})}


def _upper(values: Mapping[str, float], sigmas: Mapping[str, float], name: str) -> float:
    return values[name] * math.exp(2.0 * sigmas[name])


def check_name(name: str, output: Path | None) -> None:
    """Raises StudyError for a name that --chip could not mean, or an output that is no YAML file."""
    from orchard.hw import chip_ids

    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9._-]{0,62}", name) or name in chip_ids():
        raise StudyError(f"--name {name[:80]!r}: expected letters, digits, - and _ that are no chip of the catalogue")
    if output is not None and output.suffix not in (".yaml", ".yml"):
        raise StudyError(f"--output {output}: expected a file that ends in .yaml")


def save_machine(found: Calibrated, name: str, output: Path | None) -> Path:
    """Write the file: to `output`, or under the user's configuration so that `--chip NAME` finds it."""
    check_name(name, output)
    path = output if output is not None else machines_folder() / f"{name}.yaml"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(machine_yaml(found, name), encoding="utf-8")
    except OSError as error:
        raise StudyError(f"{path}: cannot be written ({error.strerror})") from None
    return path
