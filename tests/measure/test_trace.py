"""Traces of eager programs: operations, bytes, reuse distances and memory, counted by hand."""

from __future__ import annotations

from typing import Any

import pytest

from orchard.measure.programs import Step, calling, training
from orchard.measure.trace import Trace, trace

torch = pytest.importorskip("torch")
conv2d = torch.nn.functional.conv2d


def traced(make: Any, *, grad: bool = False) -> Trace:
    return trace(make, grad=grad)


def chain(n: int) -> Step:
    x = torch.zeros(n)
    return calling(lambda x: torch.exp(x) + 1.0, x)


def test_operations_bytes_and_distances_of_a_chain() -> None:
    found = traced(lambda: chain(1024))
    exp, add = found.launches
    assert [exp.op, add.op] == ["aten.exp", "aten.add"]
    assert (exp.group, exp.fn, exp.elements) == ("pointwise", "exp", 1024.0)
    assert exp.reads[0][0] == exp.writes[0][0] == 4096.0
    # the input was last read in the pass before: the two operands of the sum lie between, 4 KiB each
    assert exp.reads[0][1] == 8192.0
    # the sum reads what exp has just written: nothing lies between but the operation's own bytes
    assert add.reads[0][1] == 8192.0


def test_peak_memory_is_what_lives_at_once() -> None:
    found = traced(lambda: chain(1024))
    assert found.resident_bytes == 4096
    assert found.peak_bytes == 8192  # the result of exp and the sum


def test_views_touch_nothing() -> None:
    found = traced(lambda: calling(lambda x: x.view(4, 4).t(), torch.zeros(16)))
    assert {x.group for x in found.launches} == {"view"}
    assert all(x.bytes == 0 for x in found.launches)


def test_in_place_operations_make_no_storage() -> None:
    found = traced(lambda: calling(lambda x: x.mul_(2.0), torch.zeros(1024)))
    assert found.peak_bytes == 0
    assert found.launches[0].fresh_bytes == 0


def test_large_results_are_on_fresh_pages() -> None:
    size = 10 * 2**20
    found = traced(lambda: calling(lambda x: x.clone(), torch.zeros(size)))
    assert found.launches[0].fresh_bytes == 4 * size
    small = traced(lambda: calling(lambda x: x.clone(), torch.zeros(1024)))
    assert small.launches[0].fresh_bytes == 0


@pytest.mark.parametrize(
    ("make", "group", "macs"),
    [
        (lambda: calling(torch.nn.functional.linear, torch.zeros(3, 5), torch.zeros(7, 5)), "gemm", 3 * 5 * 7),
        (lambda: calling(torch.nn.functional.linear, torch.zeros(1, 5), torch.zeros(7, 5)), "gemv", 5 * 7),
        (lambda: calling(torch.bmm, torch.zeros(2, 3, 5), torch.zeros(2, 5, 7)), "gemm", 2 * 3 * 5 * 7),
        (
            lambda: calling(lambda x, w: conv2d(x, w, padding=1),
                            torch.zeros(2, 4, 8, 8), torch.zeros(6, 4, 3, 3)),
            "conv", 2 * 8 * 8 * 4 * 6 * 9,
        ),
        (
            lambda: calling(lambda x, w: conv2d(x, w, padding=1, groups=4),
                            torch.zeros(1, 4, 8, 8), torch.zeros(4, 1, 3, 3)),
            "depthwise", 8 * 8 * 4 * 9,
        ),
        (
            lambda: calling(torch.nn.functional.scaled_dot_product_attention, *(torch.zeros(1, 2, 8, 4) for _ in range(3))),
            "attention", 2 * 8 * 8 * (4 + 4),
        ),
    ],
)  # fmt: skip
def test_multiply_accumulates_by_hand(make: Any, group: str, macs: int) -> None:
    found = [x for x in traced(make).launches if x.group == group]
    assert sum(x.macs for x in found) == macs


def test_a_training_step_has_three_products_and_an_update() -> None:
    def make() -> Step:
        layer = torch.nn.Linear(8, 8, bias=False)
        optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
        x = torch.zeros(4, 8, requires_grad=True)

        def run() -> None:
            layer(x).sum().backward()
            optimizer.step()
            optimizer.zero_grad()
            x.grad = None

        return Step(run, lambda: iter((*layer.parameters(), x)))

    found = traced(make, grad=True)
    products = [x for x in found.launches if x.macs]
    assert len(products) == 3  # forward, gradient of the input, gradient of the weight
    assert all(x.macs == 4 * 8 * 8 for x in products)
    assert any(x.op == "aten.add_" for x in found.launches)
    assert all(x.graded for x in products[:1])


def test_recurrent_weights_are_read_in_every_step() -> None:
    def make() -> Step:
        layer = torch.nn.LSTM(8, 16).eval()
        x = torch.zeros(5, 2, 8)
        return Step(lambda: layer(x), lambda: iter((*layer.parameters(), x)))

    (scan,) = [x for x in traced(make).launches if x.group == "scan"]
    hidden = 64 * 16 * 4.0
    assert scan.steps == 5
    assert (5 * hidden, hidden) in scan.reads
    assert scan.macs == 5 * 2 * (64 * 8 + 64 * 16)


def test_moments_of_an_embedding_are_zero_where_no_row_was_looked_up() -> None:
    def build() -> Step:
        table = torch.nn.Embedding(100, 8)
        ids = torch.arange(25)
        optimizer = torch.optim.AdamW(table.parameters(), foreach=False)
        return training(table, optimizer, lambda: table(ids).sum(), ids)

    (root,) = (x for x in traced(build, grad=True).launches if x.op == "aten.sqrt" and x.elements > 1)
    assert root.elements == 800.0
    assert root.zeros == 600.0  # 75 of 100 rows


@pytest.mark.parametrize(("add", "zeros"), [(False, 64.0), (True, 0.0)])
def test_a_root_of_zeros_is_known_until_something_dense_is_added(add: bool, zeros: float) -> None:
    x = torch.ones(64)

    def root() -> Any:
        made = torch.zeros(64)
        return torch.sqrt(made.add_(x) if add else made)

    assert traced(lambda: calling(root)).launches[-1].zeros == zeros
