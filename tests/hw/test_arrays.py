"""Many variants at once give what one chip at a time gives."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchard.hw import HardwareArrays, HardwareError, chip_ids, load_chip
from orchard.hw.derive import RULES


def test_without_variants_it_is_the_chip():
    soc = load_chip("m5pro")
    arrays = HardwareArrays.of(soc)
    assert dict(arrays.values) == soc.parameters()
    assert arrays.shape == ()


@pytest.mark.parametrize("chip_id", ["m1", "m2ultra", "m4max", "m5pro", "m6", "a19pro"])
def test_each_variant_equals_the_chip_loaded_with_the_override(chip_id):
    soc = load_chip(chip_id)
    cores, gib = [5, 17, 80], [8, 36, 256]
    arrays = HardwareArrays.of(soc, {"gpu.cores": cores, "dram.capacity": np.array(gib) * 2.0**30})
    assert arrays.shape == (3,)
    for i in range(3):
        one = load_chip(chip_id, {"gpu.cores": cores[i], "dram.capacity": f"{gib[i]}GiB"})
        for path, value in one.parameters().items():
            assert np.broadcast_to(arrays[path], (3,))[i] == pytest.approx(value, rel=1e-12), path


@settings(max_examples=25, deadline=None)
@given(
    st.sampled_from(chip_ids()),
    st.dictionaries(
        st.sampled_from(["gpu.clock", "ane.clock", "cpu.p.clock", "dram.transfer_rate", "dram.bandwidth"]),
        st.floats(2e8, 5e9),
        max_size=3,
    ),
)
def test_any_override_gives_the_same_either_way(chip_id, variants):
    one = load_chip(chip_id, variants)
    many = HardwareArrays.of(load_chip(chip_id), variants)
    assert {p: pytest.approx(v, rel=1e-9) for p, v in one.parameters().items()} == dict(many.values)


def test_arrays_broadcast_over_two_axes():
    arrays = HardwareArrays.of(
        load_chip("m4max"), {"gpu.cores": np.arange(1, 101)[:, None], "dram.bandwidth": np.linspace(1e11, 1e12, 100)}
    )
    assert arrays.shape == (100, 100)
    assert arrays["gpu.fp16"].shape == (100, 1)
    assert arrays["gpu.fp16"][39, 0] == pytest.approx(40 * 256 * 1.578e9)


@pytest.mark.parametrize(
    ("variants", "message"),
    [
        ({"gpu.core": 1}, "no figure has this name; did you mean gpu.cores"),
        ({"gpu.cores": [1, 0]}, "'gpu.cores': got 0, expected finite numbers > 0"),
        ({"gpu.clock": [1e9, np.nan]}, "got nan"),
        ({"gpu.clock": "fast"}, "expected numbers in SI"),
        ({"dram.type": 1}, "is a text"),
        ({"gpu.cores": [1, 2], "gpu.clock": [1e9, 1e9, 1e9]}, "do not broadcast against each other: gpu.cores (2,)"),
    ],
)
def test_refusals(variants, message):
    with pytest.raises(HardwareError) as caught:
        HardwareArrays.of(load_chip("m4max"), variants)
    assert message in str(caught.value)


def test_a_missing_parameter_is_named():
    arrays = HardwareArrays.of(load_chip("a20pro"))
    with pytest.raises(HardwareError, match=r"gpu\.fp16, the shader FP16 peak, is not known"):
        _ = arrays["gpu.fp16"]
    with pytest.raises(HardwareError, match="no figure is called"):
        _ = arrays["gpu.nonsense"]
    assert arrays.get("gpu.fp16") is None
    with pytest.raises(HardwareError, match=r"m1 has no super cores; state cpu\.s\.clock"):
        HardwareArrays.of(load_chip("m1"), {"cpu.s.cores": [0, 4]})
    filled = HardwareArrays.of(load_chip("a20pro"), {"gpu.clock": [1.6e9, 1.8e9]})
    assert filled["gpu.fp16"] == pytest.approx(7 * 512 * np.array([1.6e9, 1.8e9]))


def test_rules_are_in_order():
    """One pass suffices: what a rule reads is either stored or given by an earlier rule."""
    for position, rule in enumerate(RULES):
        assert not {later.path for later in RULES[position + 1 :]} & set(rule.inputs), rule.path
