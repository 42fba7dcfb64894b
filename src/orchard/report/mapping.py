"""A mapped op as text and as a JSON record."""

from __future__ import annotations

import textwrap
from typing import Any

from orchard.mapping.nest import print_nest
from orchard.studies.map import MappedOp


def mapping_record(mapped: MappedOp) -> dict[str, Any]:
    """The record of `orchard map --json`."""
    cost = mapped.estimate
    return {
        "schema": "orchard.mapping/1",
        "op": str(mapped.problem.einsum),
        "sizes": dict(mapped.problem.sizes),
        "arch": mapped.arch.name,
        "objective": mapped.objective,
        "energy_pj": cost.energy_pj,
        "latency_cycles": cost.latency_cycles,
        "edp": cost.edp,
        "value": mapped.value,
        "bound": mapped.bound,
        "optimal": mapped.optimal,
        "mappings_considered": mapped.mappings_considered,
        "mappings_in_space": mapped.mappings_in_space,
        "search_s": mapped.search_s,
        "energy_terms_pj": dict(cost.energy_terms_pj),
        "cycles_by": dict(cost.cycles_by),
        "bound_by": cost.bound_by,
        "lanes_used": mapped.counts.lanes_used,
        "lanes": mapped.arch.lanes,
        "counts": [
            {"level": level, "tensor": tensor, "reads": t.reads, "writes": t.writes,
             "footprint": mapped.counts.footprint[level, tensor]}
            for (level, tensor), t in mapped.counts.traffic.items()
        ],
        "loop_nest": print_nest(mapped.nest, mapped.problem, mapped.arch).splitlines(),
    }  # fmt: skip


def mapping_text(mapped: MappedOp) -> str:
    """The same for a person."""
    cost, counts = mapped.estimate, mapped.counts
    lines = [print_nest(mapped.nest, mapped.problem, mapped.arch), ""]
    lines.append(f"{'level':<14}{'tensor':<8}{'tile':>14}{'reads':>20}{'writes':>20}")
    for (level, tensor), t in counts.traffic.items():
        lines.append(f"{level:<14}{tensor:<8}{counts.footprint[level, tensor]:>14,}{t.reads:>20,}{t.writes:>20,}")
    terms = ", ".join(f"{name} {value:.4g}" for name, value in cost.energy_terms_pj.items())
    proof = "proven optimal" if mapped.optimal else f"not proven; no mapping is below {mapped.bound:.6g}"
    lines.append("")
    lines += wrapped(
        f"latency  {cost.latency_cycles:,.0f} cycles, bound by {cost.bound_by}; {counts.lanes_used} of {mapped.arch.lanes} lanes"
    )
    lines += wrapped(f"energy   {cost.energy_pj:.6g} pJ: {terms}")
    lines += wrapped(f"EDP      {cost.edp:.6g} pJ x cycles")
    lines += wrapped(f"{mapped.objective}: {mapped.value:.6g}, {proof}")
    lines += wrapped(
        f"considered {mapped.mappings_considered:,} partial mappings of a space of {mapped.mappings_in_space:.3g},"
        f" in {mapped.search_s:.2f} s"
    )
    return "\n".join(lines)


def wrapped(text: str) -> list[str]:
    """One sentence on lines of at most 80 columns."""

    return textwrap.wrap(text, 80, subsequent_indent=" " * 9)
