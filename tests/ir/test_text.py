"""The text form: what prints parses back to an equal graph; what is no graph is refused with its line."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchard.ir import Builder, GraphError, ParseError, maximum, minimum, parse_graph, print_graph, symbol

EXAMPLE = """graph "tiny" (B, T)
%x: f16[B, T, 8] = input
%w: q8_0[8, 4] = weight part=ffn_up layer=0
%y: f16[B, T, 4] = einsum(%x, %w) spec="b t m, m n -> b t n" @layers.0.ffn
return %y
"""


def test_printing_is_stable():
    assert print_graph(parse_graph(EXAMPLE)) == EXAMPLE


def test_comments_and_blank_lines():
    assert parse_graph("# a comment\n\n" + EXAMPLE.replace("return", "  \n# more\nreturn")) == parse_graph(EXAMPLE)


B, T = symbol("B"), symbol("T")
TEXTS = st.text(max_size=12)
ATTRIBUTES = st.one_of(
    st.integers(), st.booleans(), TEXTS, st.floats(allow_nan=False),
    st.lists(st.integers(), max_size=3).map(tuple), st.lists(TEXTS, max_size=3).map(tuple),
    st.sampled_from([B * T + 1, minimum(B, 4), maximum(T - B, 0) * 3, T * (T + 1)]),
)  # fmt: skip
KEYS = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,6}", fullmatch=True).filter(lambda k: k != "name")
SCOPES = st.from_regex(r"([a-z0-9_]+(\.[a-z0-9_]+){0,2})?", fullmatch=True)


@given(TEXTS, SCOPES, st.dictionaries(KEYS, ATTRIBUTES, max_size=4), st.integers(1, 3))
def test_round_trip(name, scope, attrs, outputs):
    b = Builder(name, symbols=("B", "T"))
    x = b.input("x", (B, minimum(T, 7), 3))
    state = b.state("cache", (B, T * B + 2), format="q8_0", part="k_cache", layer=3)
    if scope:
        with b.scope(scope):
            made = b.op("move", [x, state], [(B, T)] * outputs, name="y", attrs=attrs)
    else:
        made = b.op("move", [x, state], [(B, T)] * outputs, name="y", attrs=attrs)
    graph = b.build(made)
    again = parse_graph(print_graph(graph))
    assert again == graph
    assert [type(v) for v in again.ops[0].attrs.values()] == [type(v) for v in attrs.values()]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "line 1: expected 'graph"),
        ("hello", "line 1: 'hello': expected 'graph"),
        (EXAMPLE.replace("return %y\n", ""), "'return %...' last"),
        (EXAMPLE.replace("= input", "= intput"), "line 2: 'intput': expected input, weight, state"),
        (EXAMPLE.replace("[B, T, 8]", "[B, T, 8"), "line 2: .*closing"),
        (EXAMPLE.replace("[B, T, 8]", "[B, T, 8+]"), "line 2: size '8\\+'"),
        (EXAMPLE.replace("%w: q8_0", "%x: q8_0"), "line 3: %x is defined twice"),
        (EXAMPLE.replace("(%x, %w)", "(x, %w)"), "line 4: 'x': expected an operand"),
        (EXAMPLE.replace("@layers", "layers"), "line 4: .*expected key=value"),
        (EXAMPLE.replace('spec="b', 'spec="\\q'), "line 4: string .*JSON's escapes"),
        (EXAMPLE.replace("part=ffn_up", "part=(1, )x"), "line 3: .*expected key=value"),
        (EXAMPLE.replace("part=ffn_up", 'part=(1, "a")'), "line 3: .*tuple of whole numbers or of strings"),
        (EXAMPLE.replace("layer=0", "layer=0 layer=1"), "line 3: attribute 'layer' stands twice"),
        (EXAMPLE.replace("layer=0", "layer=nan"), "line 3: attribute value 'nan'"),
        (EXAMPLE.replace("layer=0", "layer={B**B}"), r"line 3: size 'B\*\*B'"),
        (EXAMPLE.replace("%y: f16", "y: f16"), "line 4: .*expected '%name: format"),
        (EXAMPLE + "%z: f16[2] = input\n%q", "line 7: '%q': expected '%name"),
    ],
)
def test_text_that_is_no_graph(text, message):
    with pytest.raises(ParseError, match=message):
        parse_graph(text)


@given(st.text(alphabet='graph "x"(B)\n%y:f16[,]=weinsum{}@#return+*0123456789', max_size=120))
def test_nothing_but_a_parse_error_comes_out_of_garbage(text):
    with contextlib.suppress(GraphError):
        parse_graph('graph "g" (B)\n' + text)
