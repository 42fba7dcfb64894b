"""A mapped chain as text and as a JSON record."""

from __future__ import annotations

from typing import Any

from orchard.mapping.chain import Chain, Op, VectorOp
from orchard.mapping.fused import Group, Shape, internal, print_fused
from orchard.studies.fuse import MappedChain


def fused_record(mapped: MappedChain) -> dict[str, Any]:
    """The record of `orchard map --fuse --json`."""
    cost, chain, vector = mapped.estimate, mapped.chain, mapped.arch.vector
    return {
        "schema": "orchard.fused-mapping/1",
        "chain": chain.name,
        "ops": [op_text(op) for op in chain.ops],
        "sizes": dict(chain.sizes),
        "arch": mapped.arch.name,
        "vector_overlap": None if vector is None else vector.overlap,
        "objective": mapped.objective,
        "energy_pj": cost.energy_pj,
        "latency_cycles": cost.latency_cycles,
        "edp": cost.edp,
        "value": mapped.value,
        "bound": mapped.bound,
        "optimal": mapped.optimal,
        "unfused_value": mapped.unfused,
        "gain": None if mapped.unfused is None else mapped.unfused / mapped.value,
        "mappings_considered": mapped.mappings_considered,
        "search_s": mapped.search_s,
        "energy_terms_pj": cost.energy_terms_pj,
        "cycles_by": cost.cycles_by,
        "intermediates": [_intermediate(mapped, t) for t in chain.intermediates],
        "groups": [_group(mapped, k, group) for k, group in enumerate(mapped.mapping.groups)],
        "counts": _counts(mapped),
        "loop_nest": print_fused(mapped.mapping, chain, mapped.arch).splitlines(),
    }


def op_text(op: Op) -> str:
    """`S[m,p] = Q[m,e] * K[p,e]`."""
    if isinstance(op, VectorOp):
        return str(op)
    sides = [f"{t}[{','.join(str(a).strip('()') for a in op.access(t))}]" for t in op.tensors]
    return f"{sides[-1]} = {' * '.join(sides[:-1])}"


def _home(mapped: MappedChain, tensor: str) -> tuple[str, str]:
    """The level an intermediate stays in, and how much of it: a tile, or the whole."""
    if tensor in mapped.mapping.whole:
        return mapped.mapping.level or "", "whole"
    for group in mapped.mapping.groups:
        if tensor in internal(mapped.chain, group.first, group.last):
            return mapped.mapping.level or "", "tile"
    return mapped.arch.levels[0].name, "whole"


def _intermediate(mapped: MappedChain, tensor: str) -> dict[str, Any]:
    level, part = _home(mapped, tensor)
    words = mapped.chain.elements(tensor)
    for group in mapped.mapping.groups:
        if part == "tile" and tensor in internal(mapped.chain, group.first, group.last):
            words = Shape.of(mapped.chain, group).stored(tensor, frozenset())
    return {"tensor": tensor, "level": level, "part": part, "words": words}


def _group(mapped: MappedChain, number: int, group: Group) -> dict[str, Any]:
    chain, cost = mapped.chain, mapped.estimate.groups[number]
    shape = Shape.of(chain, group)
    return {
        "ops": [chain.output(i) for i in group.ops],
        "loops": [{"dim": x.dim, "trips": shape.trips[x.dim], "tile": x.tile} for x in group.loops],
        "pinned": {t: shape.tile(t, _user(chain, group, t), depth) for t, depth in group.pins.items()},
        "kept": {t: [d for u, d in sorted(group.kept) if u == t] for t in sorted({t for t, _ in group.kept})},
        "repeats": {chain.output(i): shape.repeats(i) for i in group.ops},
        "level_words": max(mapped.estimate.counts[number].held_words.values(), default=0),
        "energy_pj": cost.energy_pj,
        "latency_cycles": cost.latency_cycles,
        "bound_by": cost.bound_by,
        "vector_ops": mapped.estimate.counts[number].vector_ops,
    }


def _user(chain: Chain, group: Group, tensor: str) -> int:
    return next(i for i in group.ops if tensor in chain.ops[i].tensors)


def _counts(mapped: MappedChain) -> list[dict[str, Any]]:
    totals: dict[tuple[str, str], list[int]] = {}
    for counted in mapped.estimate.counts:
        for key, t in counted.traffic.items():
            total = totals.setdefault(key, [0, 0])
            total[0] += t.reads
            total[1] += t.writes
    order = [level.name for level in mapped.arch.levels]
    return [
        {"level": level, "tensor": tensor, "reads": reads, "writes": writes}
        for (level, tensor), (reads, writes) in sorted(
            totals.items(), key=lambda kv: (mapped.chain.tensors.index(kv[0][1]), order.index(kv[0][0]))
        )
        if reads or writes
    ]


def fused_text(mapped: MappedChain) -> str:
    """The same for a person, within 80 columns where names are short."""
    cost, arch = mapped.estimate, mapped.arch
    lines = [print_fused(mapped.mapping, mapped.chain, arch), ""]
    lines.append(f"{'tensor':<10}{'level':<10}{'reads':>20}{'writes':>20}")
    lines += [f"{c['tensor']:<10}{c['level']:<10}{c['reads']:>20,}{c['writes']:>20,}" for c in _counts(mapped)]
    lines.append("")
    for t in mapped.chain.intermediates:
        entry = _intermediate(mapped, t)
        lines.append(f"{t} ({mapped.chain.elements(t):,} words): {entry['part']} of {entry['words']:,} words in {entry['level']}")
    by = "; ".join(f"{n} {c:,.0f}" for n, c in cost.cycles_by.items() if c)
    lines += ["", f"latency  {cost.latency_cycles:,.0f} cycles", *_wrapped(by, "; ")]
    terms = ", ".join(f"{n} {e:.4g}" for n, e in cost.energy_terms_pj.items())
    lines += [f"energy   {cost.energy_pj:.6g} pJ", *_wrapped(terms, ", ")]
    proof = "proven optimal" if mapped.optimal else f"not proven; none is below {mapped.bound:.6g}"
    lines += [f"EDP      {cost.edp:.6g} pJ x cycles", f"{mapped.objective}: {mapped.value:.6g}, {proof}"]
    if mapped.unfused is not None:
        lines.append(f"op by op through {arch.levels[0].name}: {mapped.unfused:.6g} ({mapped.unfused / mapped.value:.3g}x)")
    if arch.vector is not None:
        lines.append(f"vector unit and MACs {'overlap' if arch.vector.overlap else 'take turns'}")
    lines.append(f"considered {mapped.mappings_considered:,} partial mappings in {mapped.search_s:.2f} s")
    return "\n".join(lines)


def _wrapped(text: str, separator: str) -> list[str]:
    lines, line = [], ""
    for part in text.split(separator):
        if line and len(line) + len(part) + len(separator) > 68:
            lines.append(line)
            line = ""
        line = f"{line}{separator}{part}" if line else part
    return [f"         {x}" for x in [*lines, line] if x]
