"""What was measured, calibrated and compared: tables, and the records of `orchard measure` and its relatives."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import RenderableType
from rich.text import Text

from orchard.measure.store import Run, Sample
from orchard.report.layout import heading, number, stacked, table
from orchard.studies.compare_runs import Change, RunComparison
from orchard.studies.machine_file import Calibrated
from orchard.studies.measured import (
    TARGET_MEDIAN,
    TARGET_MEMORY,
    TARGET_RANK,
    TARGET_TRAINING,
    TARGET_WORST,
    MeasuredModel,
    MeasuredReport,
)
from orchard.studies.validate import Point

MEASUREMENT, CALIBRATION, VALIDATION, COMPARISON = (
    "orchard.measurement/1",
    "orchard.machine-calibration/1",
    "orchard.measured-validation/1",
    "orchard.measurement-comparison/1",
)
SHOWN = 12
UNITS = ((1.0, "s"), (1e-3, "ms"), (1e-6, "us"))


def duration(seconds: float) -> str:
    """Three digits in the unit that suits: "1.23 ms"."""
    factor, unit = next((u for u in UNITS if seconds >= u[0]), UNITS[-1])
    return f"{number(seconds / factor)} {unit}"


# ---- orchard measure


def measurement_record(run: Run, warnings: Sequence[str] = ()) -> dict[str, Any]:
    """`orchard.measurement/1`."""
    head = run.head
    return {
        "schema": MEASUREMENT,
        "run": str(run.folder),
        "created": head["created"],
        "device": head["device"],
        "suite": head["suite"],
        "threads": head["threads"],
        "clock": head["clock"],
        "allocator": head["allocator"],
        "machine": _machine(head["machine"]),
        "state_before": head["state_before"],
        "state_after": head.get("state_after"),
        "instruments": list(head["instruments"]),
        "programs": [_program(s) for s in run.samples],
        "warnings": list(warnings),
    }


def _machine(data: dict[str, Any]) -> dict[str, Any]:
    keys = ("system", "processor", "cores", "memory_bytes", "l1d_bytes", "l2_bytes", "l3_bytes", "clock_hz")
    return {
        **{k: data.get(k) for k in keys},
        "features": list(data.get("features", ())),
        "versions": dict(data.get("versions", {})),
    }


def _program(sample: Sample) -> dict[str, Any]:
    t = sample.timing
    amount, unit = rate(sample)
    return {
        "name": sample.name,
        "group": sample.group,
        "median_s": t.median_s,
        "interval_s": list(t.interval_s),
        "floor_s": t.floor_s,
        "spread": t.spread,
        "samples": len(t.samples),
        "inner": t.inner,
        "outliers": t.outliers,
        "rate": amount,
        "rate_unit": unit,
        "cpu_share": sample.cpu_share,
        "joules": dict(sample.joules),
        "memory_bytes": sample.measured_bytes,
        "operations": [{"op": o, "count": n, "seconds": s} for o, n, s in operations(sample)],
    }


def rate(sample: Sample) -> tuple[float | None, str | None]:
    """What the work was done at: operations per second where products dominate, else bytes per second."""
    macs = sum(x.macs for x in sample.launches)
    moved = sum(x.bytes for x in sample.launches)
    if not sample.launches or (macs == 0 and moved == 0):
        return None, None
    if 2.0 * macs > moved:
        return 2.0 * macs / sample.timing.median_s, "ops/s"
    return moved / sample.timing.median_s, "bytes/s"


def operations(sample: Sample) -> list[tuple[str, int, float]]:
    """(operation, how often, seconds of one step), longest first."""
    sums: dict[str, tuple[int, float]] = {}
    for name, seconds in sample.operations:
        count, whole = sums.get(name, (0, 0.0))
        sums[name] = (count + 1, whole + seconds)
    return sorted(((n, c, s) for n, (c, s) in sums.items()), key=lambda x: -x[2])


def render_measurement(run: Run) -> RenderableType:
    """The machine, the best rates of each group, and models with their longest operations."""
    head, machine = run.head, run.head["machine"]
    threads = f"{head['threads']} thread" + ("s" if head["threads"] != 1 else "")
    parts: list[RenderableType | None] = [
        Text(f"{machine['processor']}: device {head['device']}, {threads}", style="bold"),
        Text(
            f"{head['created']}; clock: {head['clock']}; load {_or_dash(head['state_before'].get('load'))}", style="dim"
        ),
    ]
    groups: dict[str, list[Sample]] = {}
    for sample in run.benchmarks:
        groups.setdefault(sample.group, []).append(sample)
    if groups:
        rows = [_group_row(name, samples) for name, samples in groups.items()]
        parts += [Text(), table(["group", "programs", "best rate", "of", "spread", "outliers"], rows, left=(0, 3))]
    for sample in run.models:
        parts += [Text(), heading(f"{sample.name}: {duration(sample.timing.median_s)}"), _model_table(sample)]
    parts += [Text(), Text(f"written to {run.folder}", style="dim")]
    return stacked(*parts)


def _group_row(name: str, samples: Sequence[Sample]) -> list[str]:
    found = [(r, u, s.name) for s in samples for r, u in [rate(s)] if r is not None and u is not None]
    best = max(found, default=None, key=lambda x: (x[1] == "ops/s", x[0]))
    spread = sorted(s.timing.spread for s in samples)[len(samples) // 2]
    text = "-" if best is None else f"{number(best[0] / 1e9)} G{best[1]}"
    return [
        name,
        str(len(samples)),
        text,
        "" if best is None else best[2][:28],
        f"{100 * spread:.0f} %",
        str(sum(s.timing.outliers for s in samples)),
    ]


def _model_table(sample: Sample) -> RenderableType:
    found = operations(sample)[:8]
    whole = sum(s for _, _, s in operations(sample)) or 1.0
    rows = [[o.removeprefix("aten.")[:44], str(n), duration(s), f"{100 * s / whole:.0f} %"] for o, n, s in found]
    low, high = sample.timing.interval_s
    memory = "" if sample.measured_bytes is None else f"; memory {sample.measured_bytes / 1e6:,.0f} MB"
    note = Text(
        f"median of {len(sample.timing.samples)}, 95 % {duration(low)} to {duration(high)}{memory}", style="dim"
    )
    return stacked(note, table(["operation", "runs", "time", "share"], rows) if rows else None)


def _or_dash(value: float | None) -> str:
    return "-" if value is None else number(value)


# ---- orchard calibrate RUN


def machine_record(found: Calibrated, path: str) -> dict[str, Any]:
    """`orchard.machine-calibration/1`."""
    fit = found.fit
    return {
        "schema": CALIBRATION,
        "run": str(found.run.folder),
        "file": path,
        "programs": len(found.programs),
        "median_error": _median([abs(e) for e in fit.residuals.tolist()]),
        "left_out_median_error": _median([abs(e) for e in found.left_out]),
        "interval": [found.error.low, found.error.high],
        "parameters": [
            {
                "name": t.name,
                "value": fit.values[t.name],
                "unit": t.unit,
                "sigma": fit.sigmas[t.name],
                "about": t.about,
                "determined": t.name not in fit.undetermined,
            }
            for t in found.table
        ],
        "undetermined": list(fit.undetermined),
    }


def _median(values: Sequence[float]) -> float:
    return sorted(values)[len(values) // 2]


HEADLINE = (
    "macs_per_s.f32",
    "macs_per_s.bf16",
    "read_s_per_byte.2",
    "read_s_per_byte.6",
    "write_s_per_byte.6",
    "dispatch_s.pointwise",
    "dispatch_s.view",
    "dispatch_s.gemm",
    "module_s",
    "record_s",
    "fresh_s_per_byte",
)


def render_machine(found: Calibrated, path: str, name: str) -> RenderableType:
    fit = found.fit
    table_rows = []
    about = {t.name: t for t in found.table}
    for key in HEADLINE:
        value, unit = readable(fit.values[key], about[key].unit)
        weak = "not determined" if key in fit.undetermined else f"{100 * fit.sigmas[key]:.0f} %"
        table_rows.append([key, f"{number(value)} {unit}", weak, about[key].about])
    errors = [abs(e) for e in fit.residuals.tolist()]
    return stacked(
        Text(
            f"{len(found.programs)} microbenchmarks, {found.determined} of {len(found.table)} parameters determined",
            style="bold",
        ),
        Text(
            f"median error {100 * _median(errors):.1f} % as fitted, "
            f"{100 * _median([abs(e) for e in found.left_out]):.1f} % left out"
        ),
        Text(),
        table(["parameter", "value", "+-", "meaning"], table_rows, left=(0, 3), gap=1),
        Text(),
        Text("not determined by the data (they keep their prior): " + ", ".join(fit.undetermined or ("none",))),
        Text(),
        Text(f"written to {path}; use it as --chip {name}", style="dim"),
    )


def readable(value: float, unit: str) -> tuple[float, str]:
    """A parameter as people read it: seconds per byte as a rate, rates in giga, times in microseconds."""
    if unit == "s/B":
        return 1e-9 / value, "GB/s"
    if unit == "1/s":
        return value / 1e9, "GMAC/s"
    return (value * 1e6, "us") if unit == "s" else (value, unit)


# ---- orchard validate --measured


def measured_record(report: MeasuredReport) -> dict[str, Any]:
    """`orchard.measured-validation/1`."""
    return {
        "schema": VALIDATION,
        "run": str(report.run.folder),
        "machine": report.machine,
        "device": report.run.head["device"],
        "created": report.run.head["created"],
        "median_error": report.median,
        "worst_error": report.worst,
        "rank_correlation": report.rank,
        "memory_median_error": report.memory_median,
        "training_worst_error": report.training_worst,
        "coverage80": report.coverage,
        "models": [_model_record(m) for m in report.models],
        "targets": {
            "median": TARGET_MEDIAN,
            "worst": TARGET_WORST,
            "rank": TARGET_RANK,
            "memory": TARGET_MEMORY,
            "training": TARGET_TRAINING,
        },
    }


def _model_record(m: MeasuredModel) -> dict[str, Any]:
    return {
        "name": m.name,
        "measured_s": m.measured_s,
        "measured_interval_s": list(m.measured_interval_s),
        "predicted_s": m.predicted_s,
        "interval_s": list(m.interval_s),
        "error": m.error,
        "cpu_share": m.cpu_share,
        "memory_measured_bytes": m.memory_measured,
        "memory_predicted_bytes": m.memory_predicted,
        "memory_error": m.memory_error,
        "aligned": m.aligned,
        "operations": [
            {"op": o.op, "count": o.count, "measured_s": o.measured_s, "predicted_s": o.predicted_s} for o in m.ops
        ],
    }


def measured_points(report: MeasuredReport) -> list[Point]:
    """The models as points of the plot of `orchard validate`."""
    return [
        Point(
            id=m.name,
            stratum="inference",
            chip=report.machine,
            model=m.name,
            runtime="pytorch",
            engine=str(report.run.head["device"]),
            phase="inference",
            measured_s=m.measured_s,
            predicted_s=m.predicted_s,
            low_s=m.interval_s[0],
            high_s=m.interval_s[1],
            trust="A",
        )
        for m in report.models
    ]


def render_measured(report: MeasuredReport, ops: bool = False) -> RenderableType:
    """One line a model; with `ops` the operations that miss most."""
    rows: list[list[str | Text]] = []
    for m in report.models:
        memory = "-" if m.memory_error is None else f"{100 * m.memory_error:+.0f} %"
        inside = "yes" if m.inside else "no"
        rows.append(
            [m.name, duration(m.measured_s), duration(m.predicted_s), _against(m.error, TARGET_WORST), inside, memory]
        )
    parts: list[RenderableType | None] = [
        Text(f"{len(report.models)} models that the fit did not see, on {report.machine}", style="bold"),
        table(["model", "measured", "predicted", "error", "in 80 %", "memory"], rows, gap=1),
        Text(),
        Text.assemble(
            "median ",
            _against(report.median, TARGET_MEDIAN, sign=False),
            "  worst ",
            _against(report.worst, TARGET_WORST, sign=False),
            f"  rank {report.rank:.3f}  inside the 80 % interval {100 * report.coverage:.0f} %",
        ),
    ]
    if report.memory_median is not None:
        parts.append(Text(f"peak memory: median error {100 * report.memory_median:.1f} %"))
    if ops:
        parts += [part for m in report.models for part in (Text(), heading(m.name), _ops_table(m))]
    return stacked(*parts)


def _ops_table(m: MeasuredModel) -> RenderableType:
    worst = sorted(m.ops, key=lambda o: -abs(o.measured_s - o.predicted_s))[:SHOWN]
    rows = [
        [
            o.op[:40],
            str(o.count),
            duration(o.measured_s),
            duration(o.predicted_s),
            f"{100 * (o.predicted_s / max(o.measured_s, 1e-12) - 1):+.0f} %",
        ]
        for o in worst
    ]
    return table(["operation", "runs", "measured", "predicted", "error"], rows)


def _against(value: float, target: float, *, sign: bool = True) -> Text:
    text = f"{100 * value:+.1f} %" if sign else f"{100 * value:.1f} %"
    return Text(text, style="green" if abs(value) <= target else "red")


# ---- orchard compare-run


def comparison_record(found: RunComparison) -> dict[str, Any]:
    """`orchard.measurement-comparison/1`."""
    return {
        "schema": COMPARISON,
        "a": str(found.a.folder),
        "b": str(found.b.folder),
        "drift": found.drift,
        "least": found.least,
        "slower": found.count("slower"),
        "faster": found.count("faster"),
        "same": found.count("same"),
        "only_a": found.only_a,
        "only_b": found.only_b,
        "differs": [{"what": w, "a": a, "b": b} for w, a, b in found.differs],
        "changes": [_change(c) for c in found.changes],
    }


def _change(c: Change) -> dict[str, Any]:
    return {
        "name": c.name,
        "group": c.group,
        "a_s": c.a_s,
        "b_s": c.b_s,
        "ratio": c.ratio,
        "p": c.p,
        "verdict": c.verdict,
    }


def render_comparison(found: RunComparison) -> RenderableType:
    shown = [c for c in found.changes if c.verdict != "same"][:SHOWN]
    rows = [[c.name[:34], duration(c.a_s), duration(c.b_s), f"{c.ratio:.2f}", f"{c.p:.1g}", c.verdict] for c in shown]
    heads = [[what, a[:26], b[:26]] for what, a, b in found.differs]
    return stacked(
        Text(
            f"{len(found.changes)} programs: {found.count('slower')} slower, {found.count('faster')} faster, "
            f"{found.count('same')} same",
            style="bold",
        ),
        Text(f"times change by a factor of {found.drift:.3f} (geometric mean)"),
        Text(
            f"a change counts from {100 * found.least:.0f} % on, where the Mann-Whitney test says so (false discoveries 5 %)",
            style="dim",
        ),
        Text() if heads else None,
        table(["differs in", "a", "b"], heads, left=(0, 1, 2)) if heads else None,
        Text() if rows else None,
        table(["program", "a", "b", "b / a", "p", "verdict"], rows) if rows else None,
    )
