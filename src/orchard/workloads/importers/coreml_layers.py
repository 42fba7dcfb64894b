"""Core ML's old neural-network format: layers with weights inside."""

from __future__ import annotations

from orchard.workloads.importers.common import Lowering, Value
from orchard.workloads.importers.protowire import Message, Schema
from orchard.workloads.importers.weights import WeightCount

NETWORK: Schema = {1: ("layers", [{1: ("name", "str")}])}


def lower(network: Message, description: Message, low: Lowering) -> tuple[list[Value], WeightCount]:
    raise low.fail("neural network layers are not read yet")
