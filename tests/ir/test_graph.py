"""Graphs: SSA form, binding, formats, what cannot be built; builders; pickling."""

from __future__ import annotations

import pickle

import pytest

from orchard.ir import Builder, Graph, GraphError, Op, Role, Tensor, parse_graph, symbol

TINY = """
graph "tiny" (B, T)
%x: f16[B, T, 8] = input
%w: q8_0[8, 4] = weight part=ffn_up layer=0
%c: f16[B, 32, 4] = state part=k_cache
%y: f16[B, T, 4] = einsum(%x, %w) spec="b t m, m n -> b t n" pairs={T**2/2 + T/2} @layers.0.ffn
%c2: f16[B, 32, 4] = update(%c, %y) @layers.0.attn
return %y, %c2
"""


@pytest.fixture
def tiny() -> Graph:
    return parse_graph(TINY)


def tensor(name: str, role: Role = Role.ACTIVATION, shape=(2,)) -> Tensor:
    return Tensor(name=name, shape=shape, format="f16", role=role)


def graph(tensors, ops, outputs=("y",), symbols=()) -> Graph:
    return Graph(name="g", symbols=symbols, tensors={t.name: t for t in tensors}, ops=ops, outputs=outputs)


def op(name: str, inputs, outputs) -> Op:
    return Op(name=name, kind="move", inputs=tuple(inputs), outputs=tuple(outputs))


X, Y = tensor("x", Role.INPUT), tensor("y")


@pytest.mark.parametrize(
    ("tensors", "ops", "outputs", "message"),
    [
        ([X, Y], [op("a", ["q"], ["y"])], ("y",), "op a: reads %q, which is not a tensor"),
        ([X, Y], [op("a", ["y"], ["y"])], ("y",), "op a: reads %y before it is produced"),
        ([X, Y], [op("a", ["x"], ["q"])], ("y",), "op a: produces %q, which is not a tensor"),
        ([X, Y], [op("a", ["x"], ["y"]), op("b", ["x"], ["y"])], ("y",), "op b: %y has a value already"),
        ([X, Y], [op("a", ["x"], ["x"])], ("x",), "op a: %x has a value already"),
        ([X, Y], [], ("x",), "%y is never produced"),
        ([X], [], ("z",), "output %z has no producer"),
    ],
)
def test_ssa_form(tensors, ops, outputs, message):
    with pytest.raises(GraphError, match=message):
        graph(tensors, ops, outputs)


def test_symbols_are_declared():
    with pytest.raises(GraphError, match="symbol 'S' is not declared"):
        graph([tensor("x", Role.INPUT, (symbol("S"),))], [], ("x",), symbols=("B",))


def test_tensors_are_filed_under_their_names():
    with pytest.raises(GraphError, match="filed under %z"):
        Graph(name="g", symbols=(), tensors={"z": X}, ops=(), outputs=("z",))


@pytest.mark.parametrize("size", [-1, 2.5, "B", None])
def test_a_size_is_a_whole_number_or_an_expression(size):
    with pytest.raises(GraphError, match="expected a whole number >= 0"):
        tensor("x", Role.INPUT, (4, size))


def test_an_attribute_may_not_take_the_place_of_the_name():
    with pytest.raises(GraphError, match="cannot be called 'name'"):
        Op(name="a", kind="move", inputs=(), outputs=(), attrs={"name": "b"})


def test_binding_replaces_symbols_everywhere(tiny):
    bound = tiny.bind({"T": 5})
    assert bound.symbols == ("B",)
    assert bound.tensors["y"].shape == (symbol("B"), 5, 4)
    assert bound.ops[0].attrs["pairs"] == 15
    assert type(bound.ops[0].attrs["pairs"]) is int
    assert tiny.tensors["y"].shape[1] == symbol("T")  # the original is untouched


def test_binding_to_expressions_brings_their_symbols(tiny):
    bound = tiny.bind({"T": symbol("N") + 1})
    assert set(bound.symbols) == {"B", "N"}
    assert bound.bind({"N": 4}).tensors["y"].shape == tiny.bind({"T": 5}).tensors["y"].shape


def test_binding_an_unknown_symbol(tiny):
    with pytest.raises(GraphError, match="no symbol 'Q'; it has B, T"):
        tiny.bind({"Q": 1})


def test_formats_and_parameters(tiny):
    assert tiny.parameters == 32
    assert tiny.with_formats({"w": "q4_0"}).tensors["w"].format == "q4_0"
    with pytest.raises(GraphError, match="no tensor %nope"):
        tiny.with_formats({"nope": "f16"})


def test_readers_in_program_order(tiny):
    readers = tiny.readers()
    assert [o.name for o in readers["y"]] == ["c2"]
    assert readers["c2"] == ()


def test_graphs_travel_between_processes(tiny):
    assert pickle.loads(pickle.dumps(tiny)) == tiny


def test_graphs_cannot_change(tiny):
    with pytest.raises(TypeError):
        tiny.tensors["x"] = X  # type: ignore[index]
    with pytest.raises(TypeError):
        tiny.ops[0].attrs["pairs"] = 1  # type: ignore[index]


def test_builder_scopes_and_fresh_names():
    b = Builder("b", symbols=("T",))
    x = b.input("x", (b.sym("T"), 4))
    with b.scope("layers.0"), b.scope("ffn"):
        w = b.weight("w", (4, 4), part="ffn_up", layer=0)
        y = b.elementwise("add", b.linear(x, w), b.linear(x, w))
    made = b.build([y])
    assert [o.name for o in made.ops] == ["layers.0.ffn.einsum", "layers.0.ffn.einsum_1", "layers.0.ffn.add"]
    assert {o.scope for o in made.ops} == {"layers.0.ffn"}
    assert w.name == "layers.0.ffn.w"


def test_builder_refuses_a_name_twice_and_an_undeclared_symbol():
    b = Builder("b", symbols=("T",))
    b.input("x", (4,))
    with pytest.raises(GraphError, match="%x is defined twice"):
        b.input("x", (4,))
    with pytest.raises(GraphError, match="symbol 'S' is not declared"):
        b.sym("S")
