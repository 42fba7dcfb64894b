"""Sizes against sympy and against plain integer arithmetic."""

from __future__ import annotations

import pickle
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchard.ir import (
    Expr,
    GraphError,
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

B, T, S = symbol("B"), symbol("T"), symbol("S")
NAMES = ("B", "T", "S")


class Pair:
    """A size and the function it should be, built side by side."""

    def __init__(self, size, function):
        self.size = size
        self.function = function

    def join(self, other, on_sizes, on_ints):
        return Pair(on_sizes(self.size, other.size), lambda env: on_ints(self.function(env), other.function(env)))


def leaves():
    numbers = st.integers(-6, 12).map(lambda n: Pair(n, lambda _: n))
    names = st.sampled_from(NAMES).map(lambda n: Pair(symbol(n), lambda env: env[n]))
    return numbers | names


def grown(children):
    both = st.tuples(children, children)
    small = st.integers(1, 9)
    return (
        both.map(lambda p: p[0].join(p[1], lambda a, b: a + b, lambda a, b: a + b))
        | both.map(lambda p: p[0].join(p[1], lambda a, b: a - b, lambda a, b: a - b))
        | both.map(lambda p: p[0].join(p[1], lambda a, b: a * b, lambda a, b: a * b))
        | both.map(lambda p: p[0].join(p[1], minimum, min))
        | both.map(lambda p: p[0].join(p[1], maximum, max))
        | st.tuples(children, small).map(
            lambda p: Pair(ceildiv(p[0].size, p[1]), lambda env: -(-p[0].function(env) // p[1]))
        )
        | st.tuples(children, small).map(
            lambda p: Pair(floordiv(p[0].size, p[1]), lambda env: p[0].function(env) // p[1])
        )
    )


PAIRS = st.recursive(leaves(), grown, max_leaves=8)
VALUES = st.fixed_dictionaries({name: st.integers(1, 40) for name in NAMES})


@given(PAIRS, VALUES)
@settings(max_examples=200)
def test_a_bound_size_is_what_integers_give(pair, env):
    assert bind(pair.size, env) == pair.function(env)
    assert value_of(pair.size, env) == float(pair.function(env))


@given(PAIRS)
def test_text_round_trip(pair):
    assert parse_size(str(pair.size)) == pair.size


@given(PAIRS)
def test_pickle_and_hash(pair):
    copy = pickle.loads(pickle.dumps(pair.size))
    assert copy == pair.size
    assert hash(copy) == hash(pair.size)


@given(PAIRS, st.sampled_from(NAMES), st.integers(1, 30), VALUES)
@settings(max_examples=200)
def test_binding_in_two_steps_is_binding_at_once(pair, name, value, env):
    partly = substitute(pair.size, {name: value})
    assert name not in symbols_of(partly)
    assert bind(partly, env) == pair.function({**env, name: value})
    whole = substitute(pair.size, {**env, name: value})
    assert type(whole) is int


@given(PAIRS, PAIRS, VALUES)
def test_substituting_an_expression(pair, replacement, env):
    replaced = substitute(pair.size, {"T": replacement.size})
    assert bind(replaced, env) == pair.function({**env, "T": replacement.function(env)})


@given(PAIRS, VALUES)
@settings(max_examples=25, deadline=None)
def test_sympy_agrees(pair, env):
    import sympy

    expression = to_sympy(pair.size)
    values = {sympy.Symbol(n, positive=True, integer=True): v for n, v in env.items()}
    assert int(sympy.sympify(expression).subs(values)) == pair.function(env)


POLYNOMIALS = st.recursive(
    leaves(),
    lambda c: (
        st.tuples(c, c).map(lambda p: p[0].join(p[1], lambda a, b: a + b, lambda a, b: a + b))
        | st.tuples(c, c).map(lambda p: p[0].join(p[1], lambda a, b: a * b, lambda a, b: a * b))
    ),
    max_leaves=6,
)


@given(POLYNOMIALS, POLYNOMIALS)
@settings(max_examples=25, deadline=None)
def test_equal_polynomials_have_one_form(left, right):
    import sympy

    same = sympy.expand(to_sympy(left.size) - to_sympy(right.size)) == 0
    assert (left.size == right.size) == same
    assert (str(left.size) == str(right.size)) == same


def test_one_form_however_it_is_written():
    assert (T + 1) * (T - 1) == T * T - 1
    assert str(S * B + B) == str(B * (1 + S)) == "B*S + B"
    assert T - T == 0
    assert isinstance(T - T, int)
    assert minimum(4, S) == minimum(S, 4)
    assert maximum(T, S) == maximum(S, T)
    assert str(minimum(4, S)) == "min(S, 4)"
    assert floordiv(4 * T + 8, 4) == T + 2
    assert ceildiv(T, 1) == T


def test_halves_are_exact_and_become_whole_again():
    pairs = T * (T - 1) * Fraction(1, 2)
    assert str(pairs) == "T**2/2 - T/2"
    assert bind(pairs, {"T": 7}) == 21
    assert substitute(pairs, {"T": 7}) == 21
    assert type(substitute(pairs, {"T": 7})) is int


def test_a_count_that_is_not_whole():
    with pytest.raises(GraphError, match=r"gives 0\.5, expected a whole number"):
        bind(parse_size("T/2"), {"T": 1})


def test_an_unbound_symbol_is_named():
    with pytest.raises(GraphError, match="symbol 'S' has no value \\(bound: B, T\\)"):
        bind(B * T * S, {"B": 1, "T": 2})


def test_symbols_inside_calls_are_found():
    assert symbols_of(minimum(S, ceildiv(T * B, 4))) == {"B", "S", "T"}
    assert symbols_of(7) == frozenset()


@pytest.mark.parametrize(("population", "draws", "rounds"), [(8, 2, 1), (8, 2, 5), (32, 4, 3), (6, 6, 4), (5, 1, 0)])
def test_distinct_is_the_expected_number_of_members_drawn(population, draws, rounds):
    """Each member is missed by all rounds with probability (1 - draws/population)^rounds; summed over members."""
    exact = population * (1 - (1 - Fraction(draws, population)) ** rounds)
    assert float(distinct(population, draws, rounds)) == pytest.approx(float(exact))
    assert value_of(distinct(population, draws, T), {"T": rounds}) == pytest.approx(float(exact))


def test_distinct_against_enumeration():
    from itertools import combinations
    from itertools import product as pairs_of

    hands = list(combinations(range(5), 2))
    mean = sum(len(set(a) | set(b)) for a, b in pairs_of(hands, hands)) / len(hands) ** 2
    assert float(distinct(5, 2, 2)) == pytest.approx(mean)


def test_expected_counts_keep_their_precision_in_text():
    count = distinct(64, 6, T) * 0.1
    assert parse_size(str(count)) == count


def test_product():
    assert product([]) == 1
    assert product([2, B, T, 3]) == 6 * B * T


@pytest.mark.parametrize(
    "text",
    ["", "B +", "B ** S", "B ** -1", "B ** 99", "B / S", "B / 0", "f(B)", "min(B)", "min(B, 1, 2)", "B.x", "True", "'B'",
     "lambda: 1", "__import__('os')", "B if S else T", "[B]", "B" * 3000, "(" * 500 + "B" + ")" * 500, "1e999"],
)  # fmt: skip
def test_text_that_is_no_size(text):
    with pytest.raises(GraphError, match="size"):
        parse_size(text)


@pytest.mark.parametrize(
    "text", ["((((9**16)**16)**16)**16)**16", "*".join(f"(a{i}+b{i})" for i in range(30)), "9" * 1000]
)
def test_text_that_would_explode_is_refused_at_once(text):
    with pytest.raises(GraphError, match=r"too large|too many terms"):
        parse_size(text)


def test_a_symbol_is_an_identifier():
    with pytest.raises(GraphError, match="expected an identifier"):
        symbol("2x")
    assert isinstance(symbol("seq"), Expr)
