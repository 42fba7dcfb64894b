"""torch rules: weights that torchao stores as integers with scales."""

from __future__ import annotations

from orchard.workloads.importers.coreml.compressed import linear_format
from orchard.workloads.importers.lowering import Value
from orchard.workloads.importers.torch_export.program import Args, Program, rule


@rule("torchao.dequantize_affine")
def _dequantize(p: Program, a: Args) -> Value:
    """Integers, a scale per block, and zero points. A symmetric grid stores zero points too: all of them are 0."""
    x, scale = a["input"], a["scale"]
    if x.producer is None and x.format in ("int8", "uint8"):
        offset = a["zero_point"] if _any(p, 3) else None
        x.format = linear_format(8, x, scale, offset)
    return p.low.one("elementwise", [x, scale], x.shape, p.out_format(), fn="dequantize")


def _any(p: Program, position: int) -> bool:
    """Whether the stored tensor that this argument names holds something other than zeros; unknown counts as yes."""
    node = p.node.args[position] if len(p.node.args) > position else None
    if node is None:
        return False
    names = p.program.graph_signature
    target = {**names.inputs_to_parameters, **names.inputs_to_buffers}.get(node.name)
    stored = p.program.state_dict.get(target)
    return stored is None or stored.is_meta or bool(stored.any())
