"""Chains as text, and their refusals."""

from __future__ import annotations

import pytest

from orchard.mapping import MappingError
from orchard.mapping.chain_text import is_chain, parse_chain


def test_attention_names_its_intermediates() -> None:
    chain = parse_chain("attention:h=12,m=64,p=32,e=16,f=8")
    assert chain.intermediates == ("S", "P")
    assert chain.elements("S") == 12 * 64 * 32
    assert chain.macs == 12 * 64 * 32 * (16 + 8)


def test_grouped_heads_share_keys_and_values() -> None:
    chain = parse_chain("attention:h=12,kv=4,m=64,p=32,e=16")
    assert chain.elements("K") == 4 * 32 * 16
    assert chain.elements("Q") == 12 * 64 * 16
    assert parse_chain("attention:h=12,kv=1,m=64,p=32,e=16").elements("V") == 32 * 16


def test_a_gated_mlp_has_two_up_projections() -> None:
    chain = parse_chain("mlp:m=4,d=8,f=16,gated=1,act=none")
    assert [chain.output(i) for i in range(4)] == ["G", "U", "H", "Y"]
    assert chain.macs == 3 * 4 * 8 * 16


def test_convolutions_infer_what_their_readers_need() -> None:
    chain = parse_chain("convs:c=3,k=8x16,r=3,p=10,q=10,stride=1x2")
    assert (chain.sizes["p1"], chain.sizes["p2"]) == (2 * 9 + 3, 10)
    assert [(w.tensor, w.dim, str(w.axis)) for w in chain.windows] == [
        ("T1", "p1", "(2*p2+r2)"), ("T1", "q1", "(2*q2+s2)")]  # fmt: skip
    assert parse_chain("convs:c=3,k=8x16,r=1,p=10,q=10").windows == ()


def test_the_free_form_joins_dims_by_position() -> None:
    chain = parse_chain("S[m,p] = Q[m,e] * K[p,e]; O[a,f] = S[a,q] * V[q,f]; a=2,q=3,e=4,f=5")
    assert dict(chain.sizes) == {"a": 2, "q": 3, "e": 4, "f": 5}


def test_what_is_a_chain() -> None:
    assert is_chain("attention:h=1,m=2,p=3,e=4")
    assert is_chain("B[m] = relu(A[m]); m=4")
    assert not is_chain("Q[m,n] = A[m,k] * B[k,n]; m=4,k=4,n=4")
    assert not is_chain("gemm:m=4,k=4,n=4")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("attention:h=1,m=8,p=8", "e is missing"),
        ("attention:h=12,kv=5,m=8,p=8,e=8", "5 heads of K and V do not divide h=12"),
        ("attention:h=1,m=x,p=8,e=8", "m is 'x', expected a whole number"),
        ("mlp:m=4,d=4,f=4,foo=3", "unknown 'foo'"),
        ("convs:c=4,k=8x8,r=3x3x3,p=8,q=8", "r has 3 entries, expected 2"),
        ("S[m,p] = Q[m,e] * K[p,e]; O[m,f] = S[q,p] * V[p,f]; m=4,p=4,e=4,f=4", "written with 'm' and read with 'q'"),
        ("S[m,p] = Q[m,e] * K[p,e]; O[m,f] = S[m,p] * V[p,f]; m=4,p=4,e=4", "dim 'f' has no size"),
        ("S[m,p] = Q[m,e] * K[p,e]; S[m,p] = relu(S[m,p]); m=4,p=4,e=4", "read before it is written|written twice"),
        ("O[m,f] = S[m,p] * V[p,f]; S[m,p] = Q[m,e] * K[p,e]; m=4,p=4,e=4,f=4", "read before it is written"),
        ("B[m] = softmax[q](A[m]); m=4", "softmax over 'q', which is no dim of B"),
        ("B[m] = relu(A[m,k]); m=4,k=4", "reads A with 'k', which B does not have"),
        ("B[m] = relu(A[m]); m=4,z=3", "size given for 'z'"),
    ],
)  # fmt: skip
def test_refusals_say_what_was_expected(text: str, message: str) -> None:
    with pytest.raises(MappingError, match=message):
        parse_chain(text)
