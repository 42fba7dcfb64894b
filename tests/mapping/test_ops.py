"""Ops as text, and their refusals."""

from __future__ import annotations

import pytest

from orchard.mapping import MappingError
from orchard.mapping.ops import parse_op


def test_gemm() -> None:
    problem = parse_op("gemm:m=8,k=4,n=2")
    assert str(problem.einsum) == "m k, k n -> m n"
    assert problem.macs == 64


def test_einsum_by_index() -> None:
    problem = parse_op("Q[h,m,p] = A[h,m,e] * B[h,p,e]; h=2,m=3,p=4,e=5")
    assert str(problem.einsum) == "h m e, h p e -> h m p"
    assert problem.tensors == ("A", "B", "Q")


def test_window_by_index() -> None:
    assert str(parse_op("O[k,p] = I[c,2*p+r] * W[k,c,r]; k=2,c=2,p=3,r=3").einsum) == "c (2*p+r), k c r -> k p"


def test_depthwise_convolution() -> None:
    problem = parse_op("conv:c=8,k=8,p=4,q=4,r=3,s=3,groups=8,stride=2")
    assert (problem.sizes["c"], problem.sizes["k"], problem.sizes["g"]) == (1, 1, 8)
    assert str(problem.einsum.inputs[0][2]) == "(2*p+r)"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("gemm:m=8,k=4", "gemm: n is missing"),
        ("gemm:m=8,k=4,n=x", "'n=x'"),
        ("gemm:m=8,k=4,n=2,z=3", "unknown 'z'"),
        ("gemm:m=0,k=4,n=2", "dim 'm' is 0"),
        ("hello", "expected gemm"),
        ("m k, k n -> m n; m=4,k=4", "dim 'n' has no size"),
        ("conv:c=3,k=4,p=1,q=1,r=1,s=1,groups=2", "2 groups do not divide"),
        ("C[m] = A[m k]; m=2", "is no dim|has no size"),
    ],
)
def test_refusals(text: str, message: str) -> None:
    with pytest.raises(MappingError, match=message):
        parse_op(text)
