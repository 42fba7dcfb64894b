"""Core ML's old neural-network format is refused with the way out; only its layer names are parsed."""

from __future__ import annotations

from orchard.workloads.importers.lowering import Lowering, Value
from orchard.workloads.importers.protowire import Message, Schema
from orchard.workloads.importers.weights import WeightCount

NETWORK: Schema = {1: ("layers", [{1: ("name", "str")}])}


def lower(network: Message, description: Message, low: Lowering) -> tuple[list[Value], WeightCount]:
    raise low.fail(
        "it is in the old neural-network format, whose layers are not read; convert it to an ML program "
        "(coremltools.convert with convert_to='mlprogram')"
    )
