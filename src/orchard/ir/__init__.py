"""Layer 1: the workload graph. Ops are Einsums over named dims or one of a few other kinds; sizes may be symbolic."""

from orchard.ir.builder import Builder
from orchard.ir.einsum import Axis, Einsum, parse_einsum
from orchard.ir.errors import GraphError, ParseError
from orchard.ir.graph import Attribute, Graph, Op, Role, Tensor
from orchard.ir.kinds import kinds, verify
from orchard.ir.size import (
    Expr,
    Size,
    bind,
    ceildiv,
    distinct,
    floordiv,
    maximum,
    minimum,
    parse_size,
    product,
    substitute,
    symbol,
    symbols_of,
    to_sympy,
    value_of,
)
from orchard.ir.text import parse_graph, print_graph

__all__ = [
    "Attribute",
    "Axis",
    "Builder",
    "Einsum",
    "Expr",
    "Graph",
    "GraphError",
    "Op",
    "ParseError",
    "Role",
    "Size",
    "Tensor",
    "bind",
    "ceildiv",
    "distinct",
    "floordiv",
    "kinds",
    "maximum",
    "minimum",
    "parse_einsum",
    "parse_graph",
    "parse_size",
    "print_graph",
    "product",
    "substitute",
    "symbol",
    "symbols_of",
    "to_sympy",
    "value_of",
    "verify",
]
