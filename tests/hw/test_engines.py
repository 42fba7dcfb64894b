"""Engine trees: peaks add up to the figures, limits are where the compiler has them, own trees are data."""

import pytest

from orchard.hw import Compute, Engine, Fanout, HardwareError, Memory, chip_ids, load_chip, peak

CHIPS = [c for c in chip_ids() if c != "a20pro"]


@pytest.mark.parametrize("chip_id", CHIPS)
def test_tree_peaks_are_the_figures(chip_id):
    soc = load_chip(chip_id)
    gpu, ane, cpu = (soc.engine(name) for name in ("gpu", "ane", "cpu"))
    assert peak(gpu, "f32") == pytest.approx(soc["gpu.fp32"])
    assert peak(gpu, "f16") == pytest.approx(soc.gpu.matmul_fp16_ops_per_s_peak)
    assert peak(ane, "f16") == pytest.approx(soc["ane.fp16"])
    assert peak(cpu, "f32") == pytest.approx(max(soc["cpu.neon.fp32"], soc["cpu.matrix.fp32"]))
    assert ane.dispatch_s == soc.ane.dispatch_s


@pytest.mark.parametrize("chip_id", CHIPS)
def test_every_tree_starts_at_the_same_dram(chip_id):
    soc = load_chip(chip_id)
    for engine in soc.engines.values():
        assert engine.root.name == "dram"
        assert engine.root.read_bytes_per_s == soc["dram.bandwidth"]
        assert engine.memory("slc").size_bytes == soc["slc.size"]


def test_instances():
    gpu = load_chip("m4max").engine("gpu")
    assert [(m.name, n) for m, n in gpu.memories()] == [
        ("dram", 1), ("slc", 1), ("gpu.l2", 1), ("threadgroup", 40), ("registers", 40),
    ]  # fmt: skip
    assert [(leaf.name, n) for leaf, n in gpu.leaves()] == [("shader", 40)]
    ane = load_chip("m6").engine("ane")
    assert [(m.name, n) for m, n in ane.memories()] == [("dram", 1), ("slc", 1), ("ane.l2", 2), ("kernel_buffer", 32)]
    ((mac, count),) = ane.leaves()
    assert (count, mac.align_bytes, mac.max_dim) == (32, 64, 65536)


def test_units_of_one_name_add_up_and_others_are_alternatives():
    small, large = Compute(name="mac", ops_per_s={"f16": 1e12}), Compute(name="mac", ops_per_s={"f16": 3e12})
    other = Compute(name="vector", ops_per_s={"f16": 2e12, "f32": 1e12})
    tree = Memory(
        name="dram", size_bytes=1e9, children=(Fanout(name="cores", count=2, children=(small,)), large, other)
    )
    engine = Engine(name="npu", root=tree)
    assert engine.peak("f16") == 5e12  # 2 x 1 + 3, not plus 2
    assert engine.peak("f32") == 1e12
    assert engine.dtypes == {"f16", "f32"}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Memory(name="l1", size_bytes=0), "memory 'l1': size_bytes is 0, expected > 0"),
        (lambda: Memory(name="l1", size_bytes=float("nan")), "expected > 0"),
        (lambda: Fanout(name="cores", count=0), "fan-out 'cores': count is 0, expected >= 1"),
        (lambda: Compute(name="mac", ops_per_s={"f16": 0}), "compute 'mac': f16 rate is 0, expected > 0"),
        (lambda: Engine(name="npu", root=Memory(name="dram", size_bytes=1)), "the tree has no compute leaf"),
        (lambda: load_chip("m4max").engine("gpu").peak("f64"), "engine gpu does not compute in 'f64', it has f16, f32"),
        (
            lambda: load_chip("m4max").engine("gpu").memory("l9"),
            "no memory 'l9'; it has dram, slc, gpu.l2",
        ),
        (lambda: load_chip("m4max").engine("npu"), "m4max: no engine 'npu', expected one of cpu, gpu, ane"),
        (lambda: load_chip("a20pro").engine("ane"), "a20pro: ane.clock, the maximum ANE clock, is not known"),
    ],
)
def test_refusals(make, message):
    with pytest.raises(HardwareError) as caught:
        make()
    assert message in str(caught.value)
