"""Einsums: text form, sizes, and iteration counts against loops that really run."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchard.ir import Axis, GraphError, ParseError, parse_einsum, symbol

DIMS = "abcdef"


@st.composite
def plain_einsums(draw):
    """(spec, sizes) over up to six dims, every operand axis a plain dim."""
    count = draw(st.integers(1, 3))
    operands = [
        draw(st.lists(st.sampled_from(DIMS), min_size=1, max_size=4, unique=True)) for _ in range(count)
    ]  # fmt: skip
    used = sorted(set(itertools.chain(*operands)))
    output = draw(st.permutations(used)) [: draw(st.integers(0, len(used)))]  # fmt: skip
    sizes = {d: draw(st.integers(1, 4)) for d in used}
    return operands, output, sizes


def loops(operands, output, sizes, arrays):
    """The sum the text stands for, one multiply at a time; returns the result and the number of iterations."""
    dims = sorted(sizes)
    result = np.zeros([sizes[d] for d in output])
    steps = 0
    for point in itertools.product(*(range(sizes[d]) for d in dims)):
        at = dict(zip(dims, point))
        value = 1.0
        for axes, array in zip(operands, arrays):
            value *= array[tuple(at[d] for d in axes)]
        result[tuple(at[d] for d in output)] += value
        steps += 1
    return result, steps


@given(plain_einsums())
@settings(max_examples=60, deadline=None)
def test_iterations_are_those_of_the_loops_numpy_agrees_with(case):
    operands, output, sizes = case
    spec = ", ".join(" ".join(axes) for axes in operands) + " -> " + " ".join(output)
    rng = np.random.default_rng(0)
    arrays = [rng.integers(-3, 4, [sizes[d] for d in axes]).astype(float) for axes in operands]
    result, steps = loops(operands, output, sizes, arrays)
    terse = ",".join("".join(axes) for axes in operands) + "->" + "".join(output)
    assert np.array_equal(np.einsum(terse, *arrays), result)

    einsum = parse_einsum(spec)
    found = einsum.sizes([a.shape for a in arrays], result.shape)
    assert found == sizes
    assert einsum.iterations(found) == steps
    assert set(einsum.reduced_dims) == set(sizes) - set(output)


@given(plain_einsums())
def test_text_round_trip(case):
    operands, output, _ = case
    spec = ", ".join(" ".join(axes) for axes in operands) + " -> " + " ".join(output)
    einsum = parse_einsum(spec)
    assert parse_einsum(str(einsum)) == einsum


@given(st.integers(1, 3), st.integers(1, 2), st.integers(1, 3), st.integers(1, 4), st.integers(1, 3), st.integers(1, 3))
@settings(max_examples=40, deadline=None)
def test_a_convolution_touches_what_its_loops_touch(stride, dilation, kernel, out, channels, features):
    einsum = parse_einsum(f"n c ({stride}*p+{dilation}*r), k c r -> n k p")
    touched = {stride * p + dilation * r for p in range(out) for r in range(kernel)}
    extent = max(touched) + 1
    sizes = einsum.sizes([(2, channels, extent), (features, channels, kernel)], (2, features, out))
    assert einsum.iterations(sizes) == 2 * channels * features * out * kernel
    assert einsum.inputs[0][2].extent(sizes) == extent


def test_padding_may_shorten_the_operand_and_nothing_may_lengthen_it_by_a_stride():
    einsum = parse_einsum("(2*p+r), r -> p")
    assert einsum.sizes([(8,), (3,)], (4,))["p"] == 4  # unpadded extent is 9
    assert einsum.sizes([(10,), (3,)], (4,))["p"] == 4  # one leftover element
    with pytest.raises(GraphError, match=r"axis \(2\*p\+r\) spans 9, the operand has 11"):
        einsum.sizes([(11,), (3,)], (4,))


def test_symbolic_sizes():
    B, T = symbol("B"), symbol("T")
    einsum = parse_einsum("b t m, m n -> b t n")
    sizes = einsum.sizes([(B, T, 8), (8, 4)], (B, T, 4))
    assert einsum.iterations(sizes) == 32 * B * T
    with pytest.raises(GraphError, match="dim 'b' is B and T"):
        einsum.sizes([(B, T, 8), (8, 4)], (T, T, 4))


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("a b", "expected one '->'"),
        ("a -> b -> c", "expected one '->'"),
        ("a b -> c", "output dim 'c' is in no input"),
        ("a b -> a a", "stands twice in the output"),
        ("a -> (2*a+b)", "is not a plain dim"),
        ("a$b -> a", "is no dim"),
        ("(a+ -> a", "is no dim"),
        ("() -> a", "is no dim"),
        ("(a*2) -> a", "is no index term"),
        ("(0*a+b) -> b", "is no index term"),
        ("a " * 2000 + "-> a", "at most 2000"),
    ],
)
def test_text_that_is_no_einsum(spec, message):
    with pytest.raises(GraphError, match=message):
        parse_einsum(spec)


@pytest.mark.parametrize(
    ("shapes", "output", "message"),
    [
        ([(2, 3)], (2, 4), "1 operands, expected 2"),
        ([(2, 3, 1), (3, 4)], (2, 4), "operand 0 has 3 axes, expected 2"),
        ([(2, 3), (5, 4)], (2, 4), "dim 'b' is 3 and 5"),
        ([(2, 3), (3, 4)], (2, 5), "dim 'c' is 4 and 5"),
    ],
)
def test_shapes_that_do_not_fit(shapes, output, message):
    with pytest.raises(GraphError, match=message):
        parse_einsum("a b, b c -> a c").sizes(shapes, output)


def test_every_dim_needs_an_axis_of_its_own():
    with pytest.raises(GraphError, match="dim 'r' has no size"):
        parse_einsum("(p+r) -> p").sizes([(4,)], (3,))


def test_axes():
    assert str(Axis(((2, "p"), (1, "r")))) == "(2*p+r)"
    assert Axis(((1, "p"),)).is_plain
    assert not Axis(((2, "p"),)).is_plain
    assert isinstance(ParseError("x"), GraphError)
