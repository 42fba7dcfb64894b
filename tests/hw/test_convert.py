"""Engines as architectures: peaks, levels, and what is left out."""

import pytest

from orchard.hw import Compute, Engine, Fanout, HardwareError, Memory, chip_ids, load_chip
from orchard.hw.convert import machine_of

CHIPS = [c for c in chip_ids() if c != "a20pro"]


def peak(machine):
    arch = machine.arch
    return 2 * arch.lanes * arch.compute.macs_per_cycle * arch.clock_hz


@pytest.mark.parametrize("chip", CHIPS)
def test_every_engine_of_the_catalogue_converts_with_its_peak(chip):
    soc = load_chip(chip)
    for name, engine in soc.engines.items():
        machine = machine_of(engine, name=name)
        assert peak(machine) == pytest.approx(engine.peak("f16"))
        assert machine.arch.levels[0].bandwidth * 2 * machine.arch.clock_hz == pytest.approx(soc["dram.bandwidth"])


def test_the_m4_levels_and_what_is_not_known():
    soc = load_chip("m4")
    gpu = machine_of(soc.engine("gpu"), name="gpu")
    assert [n.name for n in gpu.arch.nodes] == ["dram", "slc", "gpu.l2", "cores", "threadgroup", "registers"]
    assert gpu.arch.level("threadgroup").keep == {"I", "W"}
    assert gpu.arch.level("slc").capacity_words == 8 * 2**20 // 2
    assert gpu.notes == ("bandwidth not known, taken as no limit: slc, gpu.l2, threadgroup, registers",)
    ane = machine_of(soc.engine("ane"), name="ane")
    assert [n.name for n in ane.arch.nodes] == ["dram", "slc", "ane.l2", "cores", "kernel_buffer"]
    assert ane.arch.level("kernel_buffer").keep == {"W"}
    cpu = machine_of(soc.engine("cpu"), name="cpu")
    assert [n.name for n in cpu.arch.nodes] == ["dram", "p.l2"]
    assert "slc is left out: p.l2 inside it is larger" in cpu.notes


def test_bits_choose_units_and_words():
    soc = load_chip("m5")
    half, byte = (machine_of(soc.engine("gpu"), name="g", bits=b) for b in (16, 8))
    assert half.arch.compute.name == byte.arch.compute.name == "matrix"
    assert peak(byte) == pytest.approx(2 * peak(half))
    assert byte.arch.level("slc").capacity_words == 2 * half.arch.level("slc").capacity_words


def tree(*units, size=1024.0):
    inner = Memory(name="l1", size_bytes=size, children=units)
    return Engine(name="npu", root=Memory(name="dram", size_bytes=1e9, children=(inner,)), clock_hz=1e9)


def test_unequal_cores_share_the_work_by_rate():
    fast = Fanout(name="p", count=2, children=(Compute(name="mac", ops_per_s={"f16": 4e9}),))
    slow = Fanout(name="e", count=4, children=(Compute(name="mac", ops_per_s={"f16": 1e9}),))
    machine = machine_of(tree(fast, slow), name="npu")
    assert [f.axes for f in machine.arch.fan_outs] == [{"p": 2}]
    assert peak(machine) == pytest.approx(2 * 4e9 + 4 * 1e9)


def test_a_level_of_unknown_size_is_left_out():
    machine = machine_of(tree(Compute(name="mac", ops_per_s={"f16": 1e9}), size=None), name="npu")
    assert [n.name for n in machine.arch.nodes] == ["dram"]
    assert machine.notes[0] == "l1 is left out: its size is not known"


def test_figures_of_a_tree_carry_over():
    memory = Memory(
        name="sram", size_bytes=4096, read_bytes_per_s=8e9, write_bytes_per_s=4e9, energy_j_per_byte=1e-12,
        children=(Compute(name="mac", ops_per_s={"int8": 2e9}),),
    )  # fmt: skip
    engine = Engine(name="npu", root=Memory(name="dram", size_bytes=1e9, children=(memory,)), clock_hz=1e9)
    level = machine_of(engine, name="npu", bits=8, joule_per_mac=2e-12).arch.level("sram")
    assert (level.read_bandwidth, level.write_bandwidth, level.read_energy_pj) == (8.0, 4.0, 1.0)


def test_nothing_that_computes_in_the_format_is_refused():
    with pytest.raises(HardwareError, match="computes in int8, not in 16 bits"):
        machine_of(tree(Compute(name="mac", ops_per_s={"int8": 1e9})), name="npu")
