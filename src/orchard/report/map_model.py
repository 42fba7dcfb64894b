"""A mapped model as text and as a JSON record: the list of what a better kernel would save, largest first."""

from __future__ import annotations

from typing import Any

from orchard.mapping.nest import print_nest
from orchard.report.layout import number
from orchard.studies.map_model import MappedPart, MappedPhase, ModelMapping, Row
from orchard.units import format_seconds

SHOWN = 24
"""Rows that the table shows; --json holds all."""


def model_mapping_record(found: ModelMapping) -> dict[str, Any]:
    """The record of `orchard map MODEL --json`."""
    return {
        "schema": "orchard.model-mapping/1",
        "model": found.model,
        "weights": found.weights,
        "machine": found.machine,
        "chip": found.chip,
        "engine": found.engine,
        "runtime": found.runtime,
        "objective": found.objective,
        "unique_ops": found.unique,
        "from_cache": found.from_cache,
        "phases": {phase.name: _phase(phase) for phase in found.phases},
        "notes": list(found.notes),
        "warnings": list(found.warnings),
    }


def _phase(phase: MappedPhase) -> dict[str, Any]:
    has_estimate = any(row.estimate_s is not None for row in phase.rows)
    return {
        "tokens": phase.tokens,
        "latency_s": phase.latency_s,
        "bound_s": phase.bound_s,
        "best_s": phase.best_s,
        "mapped_estimate_s": phase.mapped_estimate_s if has_estimate else None,
        "attainable_s": phase.attainable_s if has_estimate else None,
        "mapped_energy_j": phase.energy_j,
        "rows": [_row(row) for row in phase.rows],
    }


def _row(row: Row) -> dict[str, Any]:
    return {
        "name": row.name,
        "kind": row.kind,
        "count": row.count,
        "estimate_s": row.estimate_s,
        "best_s": row.best_s,
        "bound_s": row.bound_s,
        "headroom_s": row.headroom_s if row.best_s is not None and row.estimate_s is not None else None,
        "optimal": row.optimal if row.parts else None,
        "no_mapping": row.why or None,
        "mappings": [_part(part) for part in row.parts],
    }


def _part(part: MappedPart) -> dict[str, Any]:
    mapped = part.mapped
    return {
        "op": part.part.text,
        "runs": part.weight,
        "bits": {mapped.problem.role(t): mapped.problem.bits[t] for t in mapped.problem.tensors},
        "resident": [mapped.problem.role(t) for t in mapped.problem.tensors if t in mapped.problem.resident],
        "density": part.part.density,
        "latency_cycles": mapped.estimate.latency_cycles,
        "energy_pj": mapped.estimate.energy_pj,
        "edp": mapped.estimate.edp,
        "bound": mapped.bound,
        "value": mapped.value,
        "optimal": mapped.optimal,
        "bound_by": mapped.estimate.bound_by,
        "lanes_used": mapped.counts.lanes_used,
        "lanes": mapped.arch.lanes,
        "mappings_considered": mapped.mappings_considered,
        "search_s": mapped.search_s,
        "loop_nest": print_nest(mapped.nest, mapped.problem, mapped.arch).splitlines(),
    }


def model_mapping_text(found: ModelMapping, *, nests: bool = False) -> str:
    """The same for a person, 80 columns; `nests` adds the loop nest of every mapped op."""
    runtime = f", {found.runtime} on {found.engine}" if found.runtime else ""
    lines = [f"{found.model}, weights {found.weights}, on {found.machine}{runtime}"]
    for phase in found.phases:
        lines += ["", *_phase_lines(phase)]
        if nests:
            lines += _nests(phase)
    return "\n".join(lines)


def _phase_lines(phase: MappedPhase) -> list[str]:
    timed = any(row.estimate_s is not None for row in phase.rows)
    lines = [_sum(phase)] if timed else []
    head = ("now ms", "best ms", "saves") if timed else ("best ms", "mJ", "proof")
    lines.append(f"{'kernel':<15}{'x':>5}  {'product':<29}{head[0]:>9}{head[1]:>9}{head[2]:>9}")
    for row in phase.rows[:SHOWN]:
        lines.append(_line(row, timed))
    hidden = phase.rows[SHOWN:]
    if hidden:
        rest = sum(row.estimate_s or row.best_s or 0.0 for row in hidden) * 1e3
        lines.append(f"{len(hidden)} more{'':<42}{number(rest):>9}")
    proven = sum(row.optimal for row in phase.rows if row.parts)
    mapped = sum(bool(row.parts) for row in phase.rows)
    gaps = [p.mapped.value / p.mapped.bound - 1 for row in phase.rows for p in row.parts if p.mapped.bound > 0]
    open_by = f"; the others are within {max(gaps, default=0.0) * 100:.2g} % of the optimum" if proven < mapped else ""
    return [*lines, f"{proven} of {mapped} mapped kernels proven optimal{open_by}"]


def _sum(phase: MappedPhase) -> str:
    if phase.latency_s is None or phase.bound_s is None:
        return f"{phase.name}: best {format_seconds(phase.best_s)} of {format_seconds(phase.mapped_estimate_s)} now"
    return (
        f"{phase.name}: now {format_seconds(phase.latency_s)}, with best mappings {format_seconds(phase.attainable_s)}, "
        f"bound {format_seconds(phase.bound_s)}"
    )


def _line(row: Row, timed: bool) -> str:
    name, shape = row.name[:15], _shape(row)
    best = "-" if row.best_s is None else number(row.best_s * 1e3)
    count = f"{row.count:g}" if row.count == int(row.count) else number(row.count)
    start = f"{name:<15}{count:>5}  {shape[:28]:<29}"
    if timed:
        saves = "-" if row.best_s is None else number(row.headroom_s * 1e3)
        now = "-" if row.estimate_s is None else number(row.estimate_s * 1e3)
        return f"{start}{now:>9}{best:>9}{saves:>9}"
    proof = "-" if not row.parts else "optimal" if row.optimal else "open"
    return f"{start}{best:>9}{number(row.energy_j * 1e3):>9}{proof:>9}"


def _shape(row: Row) -> str:
    """`512x4096x14336`, `3x3 64>64 56x56`: what the row multiplies, short."""
    if not row.parts:
        return row.why
    text = row.parts[0].part.text
    sizes = dict(part.split("=") for part in text.partition(":")[2].split(",")) if ":" in text else {}
    more = f" +{len(row.parts) - 1}" if len(row.parts) > 1 else ""
    if text.startswith("gemm:"):
        batch = f"{sizes['b']} of " if "b" in sizes else ""
        return f"{batch}{sizes['m']} x {sizes['k']} x {sizes['n']}{more}"
    if text.startswith("conv:"):
        groups = sizes.get("groups", "")
        kind = "dw " if groups == sizes["c"] else f"{groups} of " if groups else ""
        step = f"/{sizes['stride']}" if "stride" in sizes else ""
        return f"{kind}{sizes['r']}x{sizes['s']}{step} {sizes['c']}>{sizes['k']} {sizes['p']}x{sizes['q']}{more}"
    return text


def _nests(phase: MappedPhase) -> list[str]:
    """The loop nest of every op; equal ones once."""
    distinct = {"\n".join(_nest(part)): _nest(part) for row in phase.rows for part in row.parts}
    return [line for nest in distinct.values() for line in ("", *nest)]


def _nest(part: MappedPart) -> list[str]:
    mapped = part.mapped
    proof = "proven optimal" if mapped.optimal else f"no mapping is below {mapped.bound:.6g}"
    return [
        f"{part.part.text}",
        f"{mapped.estimate.latency_cycles:,.0f} cycles, bound by {mapped.estimate.bound_by}; {proof}",
        *print_nest(mapped.nest, mapped.problem, mapped.arch).splitlines(),
    ]
