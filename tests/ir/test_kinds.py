"""Shape rules of the op kinds, each with what it accepts and what it refuses; messages name op, got and expected."""

from __future__ import annotations

import pytest

from orchard.ir import Builder, GraphError, kinds, parse_graph

HEADER = 'graph "g" (B, T)\n%x: f16[B, T, 8] = input\n%w: f16[8, 4] = weight part=ffn_up layer=0\n'


def graph_of(*lines: str, returns: str = "%y"):
    return parse_graph(HEADER + "\n".join(lines) + f"\nreturn {returns}\n")


GOOD = [
    '%y: f16[B, T, 4] = einsum(%x, %w) spec="b t m, m n -> b t n"',
    "%y: f16[B, T, 8] = elementwise(%x, %x) fn=add",
    "%y: f16[B, T, 8] = softmax(%x)",
    "%y: f16[B, T, 8] = norm(%x) fn=rmsnorm",
    "%y: f16[B, T, 8] = rope(%x) dims=4",
    "%y: f16[4, 2] = gather(%w, %i)",
    "%y: f16[B, T, 8] = update(%x, %rows)",
    "%y: f16[B, 1, 8] = move(%x) fn=slice",
    "%y: f16[B, T, 2, 4] = view(%x)",
    "%y: f16[B, 8] = reduce(%x) fn=sum axes=(1,)",
    "%y: f16[B, T, 8] = scan(%x) fn=gru state=64 ops_per_step=512",
]


@pytest.mark.parametrize("line", [g for g in GOOD if "%i" not in g and "%rows" not in g])
def test_each_kind_accepts_a_well_formed_op(line):
    assert len(graph_of(line)) == 1


def test_gather_and_update():
    i = "%i: i32[B, T] = input"
    assert len(graph_of(i, "%y: f16[B, T, 4] = gather(%w, %i)")) == 1
    rows = "%c: f16[B, 99, 8] = state\n%r: f16[B, T, 8] = input"
    assert len(graph_of(rows, "%y: f16[B, 99, 8] = update(%c, %r)")) == 1


def test_a_view_may_split_its_operand():
    assert len(graph_of("%y: f16[B, T, 2], %z: f16[B, T, 6] = view(%x)", returns="%y, %z")) == 1


BAD = [
    ("%y: f16[B, T, 8] = frobnicate(%x)", r"op y: unknown kind 'frobnicate'; known: einsum, elementwise, .*gather"),
    ('%y: f16[B, T, 5] = einsum(%x, %w) spec="b t m, m n -> b t n"', "op y: .*dim 'n' is 4 and 5"),
    ("%y: f16[B, T, 4] = einsum(%x, %w)", "expected an attribute spec"),
    ('%y: f16[B, T, 4] = einsum(%x) spec="b t m, m n -> b t n"', "expected 2 operands and one output"),
    ("%y: f16[B, T, 8] = elementwise(%x)", "expected an attribute fn"),
    ("%y: f16[B, T, 9] = elementwise(%x) fn=silu", r"output shape \[B, T, 9\], expected \[B, T, 8\]"),
    ("%y: f16[B, T, 8] = elementwise(%x, %w) fn=add", "axis 1 is T and 8, cannot broadcast"),
    ("%y: f16[B, T] = softmax(%x)", r"output shape \[B, T\], expected \[B, T, 8\]"),
    ("%y: f16[B, T, 4] = gather(%w)", "expected a table, indices and one output"),
    ("%y: f16[B, T, 8] = update(%x, %w)", "expected rows with 3 axes"),
    ("%y: f16[B, T, 8] = scan(%x) fn=gru", "expected an attribute state"),
    ("%y: f16[B, T, 2], %z: i32[B, T, 3] = topk(%x) k=2", r"output shape \[B, T, 3\], expected \[B, T, 2\]"),
    ("%y: f16[B, T, 2] = topk(%x) k=2", "expected k, one input and two outputs"),
    ("%y: f16[B, T, 9] = view(%x)", r"9\*B\*T elements out, expected 8\*B\*T"),
    ("%y: f16[B, T, 2], %z: f16[B, T, 5] = view(%x)", r"7\*B\*T elements out"),
]


@pytest.mark.parametrize(("line", "message"), BAD)
def test_each_kind_refuses(line, message):
    with pytest.raises(GraphError, match=message):
        graph_of(line, returns="%y")


def test_routed_weights_skip_their_expert_axis():
    b = Builder("moe", symbols=("T",))
    x = b.input("x", (b.sym("T"), 8))
    index = b.input("index", (b.sym("T"), 2), format="i32")
    w = b.weight("w", (16, 8, 4), part="expert_up", layer=0)
    y = b.einsum("t m, m f, t k -> t k f", x, w, index, routed=16, active=2)
    assert y.shape == (b.sym("T"), 2, 4)
    b.build([y])


def test_every_kind_is_listed_in_the_module_table():
    from orchard.ir import kinds as listed
    from orchard.ir.kinds import __doc__ as table

    assert table is not None
    assert all(f"| {kind} |" in table for kind in listed())
    assert len(kinds()) == len(set(kinds()))
