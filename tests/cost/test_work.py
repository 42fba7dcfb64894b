"""Counting rules against hand-derived and enumerated counts."""

from __future__ import annotations

from itertools import product as points

import pytest

from orchard.cost.errors import NoCostRule
from orchard.cost.work import Work, work_of, work_of_graph
from orchard.ir import Builder, Graph, Op, value_of
from orchard.ir.kinds import kinds
from orchard.units import number_format
from orchard.workloads import causal_pairs, load_model, weight_bytes

COUNTED = ("macs", "vector_ops", "weight_bytes", "state_bytes", "input_bytes", "output_bytes")


def only(b: Builder, *outputs) -> Work:
    """Counts of the last op of a graph."""
    graph = b.build(list(outputs))
    return work_of(graph.ops[-1], graph)


# one op at a time


@pytest.mark.parametrize(("m", "n", "k"), [(1, 1, 1), (3, 5, 7), (128, 64, 32)])
def test_a_matrix_product_touches_each_operand_once(m: int, n: int, k: int) -> None:
    b = Builder("g")
    work = only(b, b.einsum("m k, k n -> m n", b.input("x", (m, k)), b.weight("w", (k, n), part="other")))
    assert work == Work(macs=m * n * k, weight_bytes=2 * k * n, input_bytes=2 * m * k, output_bytes=2 * m * n)
    assert work.ops == 2 * m * n * k
    assert work.bytes == 2 * (m * k + k * n + m * n)


@pytest.mark.parametrize("stride", [1, 2])
def test_a_convolution_counts_its_taps(stride: int) -> None:
    out, taps, cin, cout = 5, 3, 2, 4
    length = (out - 1) * stride + taps
    window = "(p+r)" if stride == 1 else f"({stride}*p+r)"
    b = Builder("g")
    x, w = b.input("x", (1, cin, length)), b.weight("w", (cout, cin, taps), part="other")
    (y,) = b.op("einsum", [x, w], [(1, cout, out)], attrs={"spec": f"b c {window}, m c r -> b m p"})
    work = only(b, y)
    assert work.macs == sum(1 for _ in points(range(out), range(taps), range(cin), range(cout)))
    assert work.weight_bytes == 2 * cout * cin * taps
    assert work.input_bytes == 2 * cin * length


def test_a_depthwise_convolution_does_not_mix_channels() -> None:
    b = Builder("g")
    x, w = b.input("x", (1, 8, 10)), b.weight("w", (8, 3), part="other")
    (y,) = b.op("einsum", [x, w], [(1, 8, 8)], attrs={"spec": "b c (p+r), c r -> b c p"})
    assert only(b, y).macs == 8 * 8 * 3


@pytest.mark.parametrize(("new", "context", "window"), [(4, 4, None), (1, 9, None), (3, 10, None), (6, 6, 2), (4, 9, 3)])
def test_masked_attention_counts_the_pairs_that_a_loop_finds(new: int, context: int, window: int | None) -> None:
    batch, groups, shared, dim = 2, 3, 2, 5
    past = context - new
    seen = sum(
        1
        for t in range(new)
        for s in range(context)
        if s <= past + t and (window is None or s > past + t - window)
    )  # fmt: skip
    pairs = causal_pairs(new, context) if window is None else causal_pairs(new, context, window)
    b = Builder("g")
    q, k = b.input("q", (batch, new, groups, shared, dim)), b.state("k", (batch, context, groups, dim))
    scores = b.einsum("b t g r d, b s g d -> b g r t s", q, k, pairs=pairs)
    work = only(b, scores)
    assert work.macs == batch * groups * shared * dim * seen
    assert work.state_bytes == 2 * batch * context * groups * dim
    soft = Builder("g")
    x = soft.input("x", (batch, groups, shared, new, context))
    assert only(soft, soft.softmax(x, pairs=pairs)).vector_ops == 5 * batch * groups * shared * seen


def test_softmax_and_norms_count_per_element() -> None:
    def vector_ops(kind: str, fn: str = "") -> float:
        b = Builder("g")
        x = b.input("x", (2, 3, 8))
        return only(b, b.softmax(x) if kind == "softmax" else b.norm(fn, x, b.weight("w", (8,), part="other"))).vector_ops / 48

    assert vector_ops("softmax") == 5  # max, subtract, exp, sum, divide
    assert vector_ops("norm", "rmsnorm") == 4  # square, sum, scale, multiply
    assert vector_ops("norm", "layernorm") == 7
    assert vector_ops("norm", "batchnorm") == 2


@pytest.mark.parametrize(("fn", "operands", "expected"), [("add", 2, 1), ("add", 3, 2), ("relu", 1, 1), ("silu", 1, 5)])
def test_an_elementwise_op_streams_its_operands(fn: str, operands: int, expected: int) -> None:
    b = Builder("g")
    work = only(b, b.elementwise(fn, *[b.input(f"x{i}", (4, 6)) for i in range(operands)]))
    assert work == Work(vector_ops=24 * expected, input_bytes=48 * operands, output_bytes=48)


def test_a_gather_reads_the_rows_it_looks_up() -> None:
    b = Builder("g")
    table = b.weight("table", (1000, 64), part="embedding")
    work = only(b, b.gather(table, b.input("tokens", (2, 7), format="i32")))
    assert work == Work(weight_bytes=2 * 7 * 64 * 2, input_bytes=2 * 7 * 4, output_bytes=2 * 7 * 64 * 2)


def test_an_update_moves_only_the_new_rows() -> None:
    b = Builder("g")
    cache = b.state("cache", (1, 4096, 8, 128), format="q8_0")
    work = only(b, b.update(cache, b.input("rows", (1, 3, 8, 128))))
    assert work.input_bytes == 3 * 8 * 128 * 2
    assert work.state_bytes == 3 * 8 * 128 * 34 / 32  # q8_0: 32 codes and a 2-byte scale
    assert (work.macs, work.vector_ops, work.weight_bytes) == (0, 0, 0)


def test_a_scan_reads_and_writes_its_state_once_a_call() -> None:
    b = Builder("g")
    x = b.input("x", (2, 5, 16))
    (y,) = b.op("scan", [x], [(2, 5, 16)], attrs={"fn": "gated_delta", "state": 64, "ops_per_step": 300})
    work = only(b, y)
    assert work.vector_ops == 2 * 5 * 300
    assert work.state_bytes == 2 * (2 * 64 * 4)  # read and write, sequences x elements x f32


def test_pool_and_resize_count_taps() -> None:
    b = Builder("g")
    x = b.input("x", (1, 3, 8, 8))
    (y,) = b.op("pool", [x], [(1, 3, 4, 4)], attrs={"fn": "max", "kernel": (2, 3)})
    assert only(b, y).vector_ops == 3 * 16 * 6
    b = Builder("g")
    (y,) = b.op("resize", [b.input("x", (1, 1, 2, 2))], [(1, 1, 4, 4)], attrs={"fn": "nearest"})
    assert only(b, y).vector_ops == 16


def test_a_view_is_free_and_a_move_reads_what_it_writes() -> None:
    b = Builder("g")
    assert only(b, b.view(b.input("x", (4, 6)), (24,))) == Work()
    b = Builder("g")
    (y,) = b.op("move", [b.input("x", (100, 8))], [(1, 8)], attrs={"fn": "slice"})
    assert only(b, y) == Work(input_bytes=16, output_bytes=16)


def test_a_fill_writes_without_reading() -> None:
    b = Builder("g")
    (y,) = b.op("fill", [], [(4, 8)], attrs={"fn": "constant"})
    assert only(b, y) == Work(output_bytes=64)


def test_routed_experts_touch_the_distinct_ones() -> None:
    """Expected distinct experts of independent uniform choices: E (1 - (1 - k/E)^tokens)."""
    experts, active, tokens, width, inner = 16, 2, 3, 32, 8
    b = Builder("g")
    x = b.input("x", (1, tokens, active, width))
    w = b.weight("w", (experts, width, inner), part="expert_up")
    y = b.einsum("b t e m, m f -> b t e f", x, w, routed=experts, active=active)
    work = only(b, y)
    assert float(work.macs) == tokens * active * width * inner
    expected = experts * (1 - (1 - active / experts) ** tokens) * width * inner * 2
    assert float(work.weight_bytes) == pytest.approx(expected)


# the rules as a set


def test_every_op_kind_has_a_rule() -> None:
    from orchard.cost import work

    assert set(kinds()) <= set(work._RULES)


def test_an_unknown_kind_is_named_with_what_is_known() -> None:
    b = Builder("g")
    graph = b.build([b.elementwise("add", b.input("x", (2,)), b.input("y", (2,)))])
    op = Op(name="mystery", kind="fourier", inputs=("x",), outputs=graph.ops[0].outputs)
    with pytest.raises(NoCostRule, match=r"mystery: no cost rule for 'fourier'; known: .*einsum.*softmax"):
        work_of(op, graph)


def test_work_adds_up_term_by_term() -> None:
    a, b = Work(macs=1, vector_ops=2, weight_bytes=3), Work(macs=10, state_bytes=4, input_bytes=5, output_bytes=6)
    both = Work(macs=11, vector_ops=2, weight_bytes=3, state_bytes=4, input_bytes=5, output_bytes=6)
    assert a + b == both
    assert both.bytes == 3 + 4 + 5 + 6


# whole models

SYMBOLIC = ["qwen3-0.6b", "qwen3-30b-a3b", "deepseek-v2-lite", "qwen3.5-0.8b", "gemma-3-1b", "bert-base-uncased"]


@pytest.mark.parametrize("name", SYMBOLIC)
def test_closed_forms_at_numbers_are_the_counts_of_the_bound_graph(name: str) -> None:
    graph = load_model(name).graph(weights="q4_0")
    values = {k: v for k, v in {"B": 2, "T": 5, "S": 37}.items() if k in graph.symbols}
    symbolic, bound = work_of_graph(graph), work_of_graph(graph.bind(values))
    for term in COUNTED:
        assert value_of(getattr(symbolic, term), values) == pytest.approx(float(getattr(bound, term)), rel=1e-12), term


def matmul_parameters(graph: Graph) -> int:
    """Elements of the weights that an Einsum contracts."""
    used = {n for op in graph.ops if op.kind == "einsum" for n in op.inputs}
    return sum(t.elements for t in graph.weights if t.name in used)


def test_llama_decode_counts_match_the_formulas_people_quote() -> None:
    layers, width, inner, heads, kv, dim, vocab = 32, 4096, 14336, 32, 8, 128, 128256
    matrices = layers * (2 * width * width + 2 * width * kv * dim + 3 * width * inner) + vocab * width
    graph = load_model("llama-3.1-8b").graph()
    assert matmul_parameters(graph) == matrices
    context = 1000
    work = work_of_graph(graph.bind({"B": 1, "T": 1, "S": context}))
    attention = layers * heads * dim * context * 2  # scores and values
    assert work.macs == matrices + attention
    norms = (2 * layers + 1) * width
    assert work.weight_bytes == 2 * (matrices + norms + width)  # and one row of the embedding


def test_llama_weight_bytes_are_two_bytes_per_published_parameter() -> None:
    graph = load_model("llama-3.1-8b").graph()
    assert graph.parameters == 8_030_261_248  # the figure of the model card's index
    assert weight_bytes(graph) == 2 * 8_030_261_248


@pytest.mark.parametrize(("weights", "bits"), [("q8_0", 8.5), ("q4_0", 4.5)])
def test_block_formats_weigh_their_scales(weights: str, bits: float) -> None:
    assert float(number_format(weights).bits) == bits
    b = Builder("g")
    work = only(b, b.linear(b.input("x", (1, 64)), b.weight("w", (64, 32), part="other", format=weights)))
    assert work.weight_bytes == 64 * 32 * bits / 8


def test_macs_of_a_torch_layer_match_its_own_counter() -> None:
    torch = pytest.importorskip("torch")
    from torch.utils.flop_counter import FlopCounterMode

    width, inner, tokens = 48, 96, 7
    up, down = torch.nn.Linear(width, inner, bias=False), torch.nn.Linear(inner, width, bias=False)
    with FlopCounterMode(display=False) as counter:
        down(torch.relu(up(torch.zeros(1, tokens, width))))
    b = Builder("g")
    h = b.elementwise("relu", b.linear(b.input("x", (1, tokens, width)), b.weight("u", (width, inner), part="other")))
    graph = b.build([b.linear(h, b.weight("d", (inner, width), part="other"))])
    assert 2 * work_of_graph(graph).macs == counter.get_total_flops()
