"""Which ops the Neural Engine can run, and why not: rules with their sources, stated once per op.

A rule looks at one op and its tensors and answers with what is wrong and what to change, or None. Sources are those of the chip
catalogue: bryngelson-ane (limits by generation), hollance (layers never placed), apple-ane-transformers (layout).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from orchard.ir import Graph, Op, Role, parse_einsum

MOST_AXES = 5
KERNEL_WIDEST = {16384: 13, 65536: 15}
"""Widest FP16 kernel by the largest dimension of the generation: both grew with H16 (M4, A17 Pro)."""
ALIGN_BYTES = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One reason: `blocks` says whether the op leaves the engine or only runs slower there."""

    op: str
    scope: str
    kind: str
    rule: str
    reason: str
    change: str
    blocks: bool
    source: str


def ane_findings(graph: Graph, *, max_dim: int) -> Iterator[Finding]:
    """Everything that keeps ops off the Neural Engine or slows them there. `max_dim`: the chip's `ane.max_dim`."""
    for op in graph.ops:
        if op.kind == "view":
            continue
        for rule, reason, change, blocks, source in _reasons(op, graph, max_dim):
            yield Finding(
                op=op.name, scope=op.scope, kind=op.kind, rule=rule, reason=reason, change=change, blocks=blocks, source=source
            )  # fmt: skip


def _reasons(op: Op, graph: Graph, max_dim: int) -> Iterator[tuple[str, str, str, bool, str]]:
    tensors = (*graph.inputs_of(op), *graph.outputs_of(op))
    if op.kind in ("scan", "update"):
        change = "unroll it into products, or keep it on the CPU in one segment"
        yield (
            "unsupported",
            f"{op.kind} ({op.attrs.get('fn', op.kind)}) never runs on the engine",
            change,
            True,
            "hollance",
        )
    symbols = sorted({str(s) for t in tensors for s in t.shape if not isinstance(s, int) and str(s) != "B"})
    if symbols:
        yield "dynamic", f"size {symbols[0]} is not fixed", "export with fixed shapes", True, "bryngelson-ane"
    if any(len(t.shape) > MOST_AXES for t in tensors if t.role is not Role.WEIGHT):
        yield "rank", f"more than {MOST_AXES} axes", "fold axes together", True, "own judgement"
    largest = max((s for t in tensors for s in t.shape if isinstance(s, int)), default=0)
    if largest > max_dim:
        yield (
            "dimension",
            f"an axis of {largest:,}, at most {max_dim:,}",
            "split it into chunks",
            True,
            "bryngelson-ane",
        )
    if any(t.format in ("f32", "bf16", "f64") for t in tensors if t.role is not Role.WEIGHT):
        yield "dtype", "computes in 32 bit or bfloat16", "convert to FP16", True, "bryngelson-ane"
    widest = _widest_window(op, graph)
    limit = KERNEL_WIDEST.get(max_dim, 15)
    if widest > limit:
        yield (
            "kernel",
            f"a kernel of {widest}, at most {limit}",
            "split it into smaller kernels",
            True,
            "bryngelson-ane",
        )
    last = graph.outputs_of(op)[0].shape[-1:]
    if last and isinstance(last[0], int) and 0 < last[0] * 2 < ALIGN_BYTES and op.kind != "reduce":
        waste = ALIGN_BYTES / (last[0] * 2)
        yield (
            "padding", f"the last axis of {last[0]} is padded {waste:.1f} times", "put the longest axis last: (B, C, 1, S)",
            False, "apple-ane-transformers",
        )  # fmt: skip


def _widest_window(op: Op, graph: Graph) -> int:
    if op.kind != "einsum":
        return 0
    einsum = parse_einsum(
        str(op.attrs["spec"]), str(op.attrs.get("combine", "mul")), str(op.attrs.get("reduce", "sum"))
    )
    windowed = {d for access in einsum.inputs for axis in access if len(axis.terms) > 1 for d in axis.dims}
    taps = windowed - {axis.dims[0] for axis in einsum.output}
    found = 0
    for access, tensor in zip(einsum.inputs, graph.inputs_of(op)):
        for axis, size in zip(access, tensor.shape):
            if axis.is_plain and axis.dims[0] in taps and isinstance(size, int):
                found = max(found, size)
    return found
