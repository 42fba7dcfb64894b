"""Nearest names."""

from hypothesis import given
from hypothesis import strategies as st

from orchard.units import did_you_mean, edit_distance, nearest

_WORDS = st.text(alphabet="abcd", max_size=8)


def _slow_distance(a: str, b: str) -> int:
    if not a or not b:
        return len(a) + len(b)
    same = _slow_distance(a[1:], b[1:]) + (a[0] != b[0])
    return min(same, _slow_distance(a[1:], b) + 1, _slow_distance(a, b[1:]) + 1)


@given(st.text(alphabet="abc", max_size=5), st.text(alphabet="abc", max_size=5))
def test_distance_is_the_textbook_recursion(a, b):
    assert edit_distance(a, b) == _slow_distance(a, b)


@given(_WORDS, _WORDS, st.integers(0, 8))
def test_a_limit_only_cuts_what_is_above_it(a, b, limit):
    exact = edit_distance(a, b)
    limited = edit_distance(a, b, limit)
    assert limited == exact if exact <= limit else limited > limit


def test_near_names_best_first():
    assert nearest("m4-mx", ["m4max", "m4pro", "a15", "m2ultra"])[0] == "m4max"
    assert nearest("gpu.core", ["gpu.cores", "gpu.clock", "cpu.p.cores"])[0] == "gpu.cores"
    assert nearest("zzzz", ["m4max"]) == []
    assert nearest("", ["m4max"]) == []


def test_sentence():
    assert did_you_mean("m4mux", ["m4max", "m4"]) == "; did you mean m4max or m4?"
    assert did_you_mean("m1mux", ["m1max", "m4xyz"]) == "; did you mean m1max?"
    assert did_you_mean("quite different", ["m4max"]) == ""
