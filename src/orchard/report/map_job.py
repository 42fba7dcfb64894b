"""A mapped job as a table and as a JSON record."""

from __future__ import annotations

from typing import Any

from orchard.studies.map_job import MappedJob


def job_record(mapped: MappedJob) -> dict[str, Any]:
    """The record of `orchard map --job --json`."""
    return {
        "schema": "orchard.mapping-job/1",
        "job": mapped.job.name,
        "arch": mapped.job.arch,
        "objective": mapped.layers[0][1].objective,
        "energy_pj": mapped.energy_pj,
        "latency_cycles": mapped.latency_cycles,
        "optimal": mapped.optimal,
        "search_s": mapped.search_s,
        "layers": [
            {
                "name": op.name, "op": op.op, "count": op.count, "energy_pj": best.estimate.energy_pj,
                "latency_cycles": best.estimate.latency_cycles, "edp": best.estimate.edp, "value": best.value,
                "bound": best.bound, "optimal": best.optimal, "bound_by": best.estimate.bound_by,
                "lanes_used": best.counts.lanes_used, "search_s": best.search_s,
            }
            for op, best in mapped.layers
        ],
    }  # fmt: skip


def job_text(mapped: MappedJob) -> str:
    """One line per op and the sums over counts."""
    lines = [f"{'op':<10}{'count':>6}{'energy pJ':>13}{'cycles':>13}{'EDP':>13}{'lanes':>7}{'proof':>8}{'s':>8}"]
    for op, best in mapped.layers:
        cost = best.estimate
        lines.append(
            f"{op.name:<10}{op.count:>6}{cost.energy_pj:>13.5g}{cost.latency_cycles:>13,.0f}{cost.edp:>13.5g}"
            f"{best.counts.lanes_used:>7}{'optimal' if best.optimal else 'open':>8}{best.search_s:>8.2f}"
        )
    count = sum(op.count for op, _ in mapped.layers)
    proof = "optimal" if mapped.optimal else "open"
    lines.append(
        f"{'all':<10}{count:>6}{mapped.energy_pj:>13.5g}{mapped.latency_cycles:>13,.0f}{'':>13}{'':>7}{proof:>8}"
        f"{mapped.search_s:>8.2f}"
    )
    return "\n".join(lines)
