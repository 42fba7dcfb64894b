"""An inspection as text and as a record."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

from orchard.cost.eligibility import ENGINES
from orchard.ir import Size
from orchard.studies.inspect import Inspection, Residence
from orchard.units import format_bytes, format_count

SCHEMA = "orchard.inspection/1"
WIDTH = 80


def inspection_record(found: Inspection, *, graph: bool = True) -> dict[str, Any]:
    """JSON record; sizes that are not fixed are texts."""
    return {
        "schema": SCHEMA,
        "model": {"name": found.name, "family": found.family, "params": found.parameters},
        "part": found.part,
        "parts": list(found.parts),
        "weight_bytes": found.weight_bytes,
        "formats": dict(found.formats),
        "symbols": list(found.symbols),
        "inputs": {n: {"format": f, "shape": [plain(s) for s in shape]} for n, (f, shape) in found.inputs.items()},
        "outputs": {n: {"format": f, "shape": [plain(s) for s in shape]} for n, (f, shape) in found.outputs.items()},
        "macs": plain(found.macs),
        "kinds": [
            {"kind": k.kind, "ops": k.ops, "macs": plain(k.macs), "vector_ops": plain(k.vector_ops)}
            for k in found.kinds
        ],
        "modules": [
            {"path": m.path, "ops": m.ops, "params": m.parameters, "macs": plain(m.macs)} for m in found.modules
        ],
        "engines": None if found.residence is None else [_residence(r) for r in found.residence],
        "graph": found.text if graph else None,
        "warnings": list(found.warnings),
    }


def _residence(r: Residence) -> dict[str, Any]:
    return {
        "kind": r.kind, "ops": r.ops, "first": r.first, "runs_on": [e for e in ENGINES if r.runs_on(e)],
        "refusals": {e: list(why) for e, why in r.refusals.items()}, "slower": {e: list(why) for e, why in r.slow.items()},
    }  # fmt: skip


def plain(size: Size) -> int | str:
    """An int, or the expression as text."""
    return size if isinstance(size, int) else str(size)


def render_inspection(found: Inspection, *, tree: bool, depth: int, graph: bool) -> str:
    """Plain text: summary, counts per op kind, on request the module tree and the whole graph."""
    lines = [f"{found.name}  {format_count(found.parameters)} parameters, {format_bytes(found.weight_bytes)}"]
    if found.part:
        others = ", ".join(p for p in found.parts if p != found.part)
        lines.append(f"part     {found.part}; also --part {others}")
    formats = ", ".join(f"{name} {format_count(n)}" for name, n in list(found.formats.items())[:6])
    lines.append(f"weights  {formats or 'none'}")
    for title, tensors in (("input", found.inputs), ("output", found.outputs)):
        for name, (fmt, shape) in tensors.items():
            lines.append(f"{title:<8} {name}: {fmt}[{', '.join(str(s) for s in shape)}]")
    lines.append(f"sizes    {'free: ' + ', '.join(found.symbols) if found.symbols else 'all fixed'}")
    lines += ["", f"{'op kind':<28}{'ops':>6}  MACs"]
    for kind in found.kinds:
        lines += _wrapped(f"{kind.kind:<28}{kind.ops:>6}", kind.macs)
    lines += _wrapped(f"{'all':<28}{sum(k.ops for k in found.kinds):>6}", found.macs)
    if tree:
        lines += ["", f"{'module':<32}{'ops':>6}{'parameters':>14}  MACs"]
        for module in found.modules:
            level = module.path.count(".") + 1 if module.path else 0
            if level <= depth:
                label = "  " * level + (module.path.rpartition(".")[2] or found.name)
                lines += _wrapped(f"{label:<32}{module.ops:>6}{module.parameters:>14,}", module.macs)
    if found.residence is not None:
        lines += ["", *_engine_lines(found.residence)]
    if graph:
        lines += ["", found.text.rstrip()]
    return "\n".join(lines)


def _engine_lines(rows: Sequence[Residence]) -> list[str]:
    """One line per group of equal ops, with the reasons of the engines that do not take them below."""
    lines = [f"{'op kind':<28}{'ops':>6}  " + "  ".join(f"{e:<6}" for e in ENGINES) + "first"]
    for r in rows:
        marks = "  ".join(
            f"{'slower' if r.runs_on(e) and e in r.slow else 'yes' if r.runs_on(e) else 'no':<6}" for e in ENGINES
        )
        lines.append(f"{r.kind[:27]:<28}{r.ops:>6}  {marks}{r.first[-WIDTH + 60 :]}")
        for engine, reasons in (*r.refusals.items(), *r.slow.items()):
            for reason in reasons:
                lines += textwrap.wrap(f"{engine}: {reason}", WIDTH, initial_indent="    ", subsequent_indent="      ")
    return lines


def _wrapped(label: str, size: Size) -> list[str]:
    """`label` and a count; a long closed form goes on at its plus signs, indented, within 80 columns."""
    lines, rest = [label], _count(size).split(" + ")
    for i, term in enumerate(rest):
        piece = term if i == 0 else f"+ {term}"
        if len(lines[-1]) + 2 + len(piece) > WIDTH and lines[-1].strip():
            lines.append(" " * (WIDTH - 52))
        lines[-1] += ("  " if i == 0 else " ") + piece
    return lines


def _count(size: Size) -> str:
    return f"{size:,}" if isinstance(size, int) else str(size)
