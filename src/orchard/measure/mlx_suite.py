"""Microbenchmarks through MLX (Metal on a Mac, its CPU back end elsewhere). MLX is lazy: a step ends with an evaluation."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from orchard.measure.library import library
from orchard.measure.programs import Program, Step


def mlx_suite(full: bool = False) -> Iterator[Program]:
    """Copies, products, matrix-vector products with quantised weights, attention, rows and lookups."""
    for e in range(14, 27, 2 if full else 4):
        yield _program(
            f"copy-{2**e}", "bandwidth", lambda m, n=2**e // 4: _evaluated(m, lambda x: x + 0.0, m.zeros((n,)))
        )
        yield _program(f"triad-{2**e}", "bandwidth", lambda m, n=2**e // 4: _evaluated(
            m, lambda a, b: a + 2.0 * b, m.zeros((n,)), m.ones((n,))))  # fmt: skip
    for m_, n, k in ((64, 256, 256), (256, 512, 512), (512, 1024, 1024)) if full else ((64, 256, 256), (256, 512, 512)):
        yield _program(f"matmul-{m_}x{n}x{k}", "gemm", lambda m, s=(m_, n, k): _evaluated(
            m, lambda a, b: a @ b, m.zeros((s[0], s[2])), m.zeros((s[2], s[1]))))  # fmt: skip
    for n, k in ((1024, 1024), (4096, 1024)):
        yield _program(
            f"gemv-{n}x{k}",
            "gemv",
            lambda m, n=n, k=k: _evaluated(m, lambda x, w: x @ w.T, m.zeros((1, k)), m.zeros((n, k))),
        )
        for bits in (8, 4):
            yield _program(
                f"gemv-int{bits}-{n}x{k}", "narrow", lambda m, n=n, k=k, bits=bits: _quantised(m, n, k, bits)
            )
    for name, function in (("exp", "exp"), ("tanh", "tanh"), ("sigmoid", "sigmoid")):
        yield _program(
            f"{name}-262144", "pointwise", lambda m, f=function: _evaluated(m, getattr(m, f), m.zeros((2**18,)))
        )
    yield _program(
        "softmax-256x1024", "rows", lambda m: _evaluated(m, lambda x: m.softmax(x, axis=-1), m.zeros((256, 1024)))
    )
    yield _program("layernorm-256x1024", "rows", lambda m: _evaluated(
        m, lambda x, w, b: m.fast.layer_norm(x, w, b, 1e-5), m.zeros((256, 1024)),
        m.ones((1024,)), m.zeros((1024,))))  # fmt: skip
    for tokens in (64, 256):
        yield _program(f"attention-8x{tokens}x64", "attention", lambda m, t=tokens: _evaluated(
            m, lambda q, k, v: m.fast.scaled_dot_product_attention(q, k, v, scale=0.125),
            *(m.zeros((1, 8, t, 64)) for _ in range(3))))  # fmt: skip
    yield _program("gather-512x256", "indexed", lambda m: _evaluated(
        m, lambda t, i: t[i], m.zeros((10000, 256)), m.zeros((512,), dtype=m.int32)))  # fmt: skip
    yield _program("conv-32x64-32x3", "conv", lambda m: _evaluated(
        m, lambda x, w: m.conv2d(x, w, padding=1), m.zeros((1, 64, 64, 32)), m.zeros((32, 3, 3, 32))))  # fmt: skip
    yield _program("dispatch", "overheads", lambda m: _evaluated(m, lambda x: x + 1.0, m.zeros((1,))))


def _program(name: str, group: str, make: Any) -> Program:
    return Program(name=name, group=group, build=lambda: make(library("mlx.core")))


def _evaluated(m: Any, function: Callable[..., Any], *arrays: Any) -> Step:
    m.eval(*arrays)
    return Step(lambda: m.eval(function(*arrays)), lambda: iter(()))


def _quantised(m: Any, n: int, k: int, bits: int) -> Step:
    w, scales, biases = m.quantize(m.ones((n, k)), group_size=64, bits=bits)
    x = m.ones((1, k))
    return _evaluated(
        m, lambda x: m.quantized_matmul(x, w, scales, biases, transpose=True, group_size=64, bits=bits), x
    )
