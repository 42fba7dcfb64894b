"""Energy is a sum of causes, each proportional to what causes it."""

from __future__ import annotations

import pytest

from orchard.cost.energy import energy_j, energy_terms
from orchard.hw import HardwareArrays, load_chip

USE = {"ops": 1e12, "dram_bytes": 1e9, "seconds": 0.5}


@pytest.mark.parametrize("engine", ["cpu", "gpu", "ane"])
def test_terms_sum_and_scale_with_their_cause(engine: str) -> None:
    hw = HardwareArrays.of(load_chip("m4max"))
    terms = energy_terms(engine, **USE, hw=hw)
    assert set(terms) == {"compute", "dram", "active"}
    assert energy_j(engine, **USE, hw=hw) == pytest.approx(sum(terms.values()))
    assert terms["dram"] == pytest.approx(1e9 * float(hw["dram.energy"]))
    for cause, changed in (("ops", "compute"), ("dram_bytes", "dram"), ("seconds", "active")):
        doubled = energy_terms(engine, **{**USE, cause: 2 * USE[cause]}, hw=hw)
        for name, joules in terms.items():
            assert doubled[name] == pytest.approx(joules * (2 if name == changed else 1))


def test_eight_bit_operands_and_matrix_units_take_less() -> None:
    new, old = (HardwareArrays.of(load_chip(c)) for c in ("m5", "m4"))
    eight = energy_terms("ane", **USE, hw=old, low_bits=True)
    assert eight["compute"] < energy_terms("ane", **USE, hw=old)["compute"]
    assert energy_terms("gpu", **USE, hw=new)["compute"] < energy_terms("gpu", **USE, hw=old)["compute"]


def test_a_gpu_at_full_load_draws_what_was_measured() -> None:
    """52 W at 9.26 TFLOPS on M1 Max, memory and idle included: the model has to land within its own spread."""
    hw = HardwareArrays.of(load_chip("m1max"))
    watts = float(energy_j("gpu", ops=9.26e12, dram_bytes=50e9, seconds=1.0, hw=hw))
    assert 52 * 0.6 < watts < 52 * 1.6
