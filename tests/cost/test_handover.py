"""Hand-overs: each price derived from the figures it rests on."""

from __future__ import annotations

import pytest

from orchard.cost.energy import HOST_W
from orchard.cost.handover import CPU_WAIT_S, GPU_BOUNDARY_S, HandOverPrices

HW = {
    "ane.dispatch": 1e-4, "ane.align": 64.0, "ane.activation_bandwidth": 24e9, "cpu.bandwidth": 100e9,
    "dram.bandwidth": 200e9, "dram.energy": 20e-12,
}  # fmt: skip
PRICES = HandOverPrices(HW)


def test_between_cpu_and_gpu_only_events_cost() -> None:
    assert PRICES.leave("gpu", 1e6, 1e6).seconds == GPU_BOUNDARY_S
    assert PRICES.enter("gpu", 1e6, 1e6, calls=3.0).seconds == 3 * GPU_BOUNDARY_S
    assert PRICES.leave("cpu", 1e6, 1e6).seconds == 0.0
    # The CPU's wait and a boundary together are one synchronous evaluation.
    assert PRICES.leave("gpu", 1.0, 1.0).seconds + PRICES.enter("cpu", 1.0, 1.0).seconds == pytest.approx(0.14e-3)
    assert PRICES.enter("cpu", 1.0, 1.0).joules == pytest.approx(CPU_WAIT_S * HOST_W)


def test_the_neural_engine_pays_for_the_change_of_form() -> None:
    moved = (
        1e6 / 100e9 + 2e6 / 100e9 + 2e6 / 24e9
    )  # read dense, write padded, and the engine's own pass over the padded form
    found = PRICES.enter("ane", 1e6, 2e6)
    assert found.seconds == pytest.approx(1e-4 + moved)
    assert found.joules == pytest.approx((1e6 + 2 * 2e6) * 20e-12 + found.seconds * HOST_W)
    assert PRICES.leave("ane", 1e6, 2e6).seconds == pytest.approx(moved)
    assert PRICES.enter("ane", 0.0, 0.0).seconds == 1e-4  # a cache within a phase: the event alone


def test_the_last_axis_is_padded() -> None:
    assert PRICES.padded((10, 32), 2.0) == 10 * 64
    assert PRICES.padded((10, 33), 2.0) == 10 * 128
    assert PRICES.padded((10, 1), 2.0) == 32 * (10 * 2)  # 32 times the bytes for a last axis of one
    assert PRICES.padded((), 2.0) == 64


def test_a_cast_reads_one_form_and_writes_the_other() -> None:
    assert PRICES.cast(4e6, 2e6).seconds == pytest.approx(6e6 / 200e9)
