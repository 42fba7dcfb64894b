"""What every importer lowers to: values with known shapes, nodes of the IR's kinds, and helpers per kind of op.

An importer walks its source program once and calls one method of `Lowering` per source op. The methods fill in output
shapes (so symbols survive where the source format lost them), follow small integer tensors as data (so `Shape`,
`Gather`,
`Concat` chains end as sizes), and never touch weight contents. `orchard.workloads.importers.canonical` then turns the
nodes into one canonical form, so that the same network from different sources becomes the same graph.
"""

from orchard.workloads.importers.lowering.lowering import Lowering
from orchard.workloads.importers.lowering.parts import layer_of, part_of
from orchard.workloads.importers.lowering.values import (
    SMALL,
    Data,
    Imported,
    Node,
    Value,
    WeightInfo,
    array,
    cast_data,
    clean_name,
    clean_symbol,
    is_float,
    show,
)

__all__ = [
    "SMALL",
    "Data",
    "Imported",
    "Lowering",
    "Node",
    "Value",
    "WeightInfo",
    "array",
    "cast_data",
    "clean_name",
    "clean_symbol",
    "is_float",
    "layer_of",
    "part_of",
    "show",
]
