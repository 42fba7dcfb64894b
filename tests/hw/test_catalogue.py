"""The catalogue: every chip loads, its numbers agree with the rules, names are found, overrides move what follows."""

import json
import pickle
import re
import time
from pathlib import Path

import pytest

import orchard.hw
from orchard.hw import FIGURES, HardwareError, chip_ids, find_chip, load_chip, observations, parameters, sources
from orchard.hw.catalogue import _built_in, _raw_chip, index_rows
from orchard.hw.figure import KINDS

DATA = Path(orchard.hw.__file__).parent


def test_the_index_is_what_the_chip_files_say():
    assert json.loads((DATA / "index.json").read_text()) == index_rows(), "run tools/write_chip_index.py"
    assert len(chip_ids()) == 54


@pytest.mark.parametrize("chip_id", chip_ids())
def test_figures_have_parents(chip_id):
    """Each known figure has unit, source and kind; each unknown one says why."""
    soc = load_chip(chip_id)
    known_sources = {*sources(), "formula"}
    for path, figure in soc.figures.items():
        assert path in FIGURES
        if figure.value is None:
            assert figure.note, path
            continue
        assert figure.source in known_sources, path
        assert figure.kind in KINDS, path
        assert figure.note or figure.source != "formula", path
        assert isinstance(figure.value, str) == FIGURES[path].is_text, path


@pytest.mark.parametrize("chip_id", chip_ids())
def test_rules_give_the_stored_numbers(chip_id):
    """A peak in a chip file and the formula that replaces it differ by rounding only."""
    soc = load_chip(chip_id)
    for path, figure in _raw_chip(chip_id).figures.items():
        if isinstance(figure.value, int | float):
            assert soc[path] == pytest.approx(figure.si, rel=2e-3), path


@pytest.mark.parametrize("chip_id", chip_ids())
def test_every_chip_has_what_a_prediction_needs(chip_id):
    soc = load_chip(chip_id)
    assert soc.dram.bytes_per_s_peak > 30e9
    assert 0.4 < soc.dram.gpu_limit_bytes / soc.dram.capacity_bytes < 0.8
    assert soc.cpu
    assert soc.matrix is not None
    if chip_id == "a20pro":  # press figures only
        return
    assert soc.gpu.fp16_ops_per_s_peak >= soc.gpu.fp32_ops_per_s_peak > 0
    assert soc.ane.fp16_ops_per_s_peak > 10e12
    assert set(soc.engines) == {"cpu", "gpu", "ane"}


def test_known_figures_of_one_chip():
    soc = load_chip("m1max")
    assert soc["gpu.cores"] == 32
    assert soc.gpu.fp32_ops_per_s_peak == pytest.approx(32 * 256 * 1.296e9)
    assert soc["dram.bandwidth"] == pytest.approx(409.6e9)
    assert soc["slc.size"] == 48 * 2**20
    assert soc.ane.fp16_ops_per_s_peak == pytest.approx(16 * 256 * 2 * 1.428e9)  # 16 cores x 256 MAC x 2 ops
    assert [(c.tier, c.cores, c.clusters) for c in soc.cpu] == [("p", 8, 2), ("e", 2, 1)]
    assert soc.figure("dram.bandwidth").kind == "derived"
    assert soc.text("dram.type") == "LPDDR5"
    assert "gpu.clock" in soc
    assert "cpu.s.clock" not in soc


def test_bins_differ_where_they_should():
    full, small = load_chip("m4max"), load_chip("m4max_cpu14_gpu32")
    assert (full.gpu.cores, small.gpu.cores) == (40, 32)
    assert small.gpu.clock_hz == full.gpu.clock_hz
    assert small["dram.bandwidth"] == pytest.approx(409.58e9, rel=1e-4)
    assert small.base == "m4max"


def test_two_die_chips():
    assert {c for c in chip_ids() if load_chip(c).dies == 2} == {
        "m1ultra", "m1ultra_gpu48", "m2ultra", "m2ultra_gpu60", "m3ultra", "m3ultra_cpu28_gpu60", "m5ultra",
    }  # fmt: skip


def test_matrix_units_and_int8():
    assert not load_chip("m4max").gpu.has_matrix_units
    m5pro = load_chip("m5pro")
    assert m5pro.gpu.matmul_fp16_ops_per_s_peak == pytest.approx(20 * 1024 * 1.62e9)
    assert m5pro.ane.int8_ops_per_s_peak == 2 * m5pro.ane.fp16_ops_per_s_peak  # W8A8 from H16 on
    m1 = load_chip("m1")
    assert m1.ane.int8_ops_per_s_peak == m1.ane.fp16_ops_per_s_peak


@pytest.mark.parametrize(
    ("path", "kind", "note"),
    [
        ("gpu.l2", "estimate", "not measured; as M2 Max"),
        ("gpu.l1", "estimate", "read on G13 and G14"),
        ("slc.size", "estimate", "not known; as M4 Max"),
        ("dram.energy", "estimate", "read on M6 for ANE weight reads, 42-46"),
    ],
)
def test_assumptions_are_labelled(path, kind, note):
    soc = load_chip("m5max")
    assert path in soc.filled
    assert soc.figure(path).kind == kind
    assert soc.figure(path).note == note


def test_gpu_share_of_memory():
    assert load_chip("m4max", ["dram.capacity=36GiB"]).dram.gpu_limit_bytes == pytest.approx(0.70 * 36 * 2**30)
    assert load_chip("m4max", ["dram.capacity=64GiB"]).dram.gpu_limit_bytes == pytest.approx(0.78 * 64 * 2**30)
    assert load_chip("a19pro").dram.gpu_limit_bytes == pytest.approx(6 * 2**30)
    raised = load_chip("m4max", ["dram.gpu_share=95%"])
    assert raised.dram.gpu_limit_bytes == pytest.approx(0.95 * 128 * 2**30)


def test_overrides_move_what_follows():
    soc = load_chip("m4max", ["gpu.cores=60", "gpu.clock=2GHz", "dram.bandwidth=800GB/s"])
    assert soc["gpu.fp16"] == pytest.approx(60 * 256 * 2e9)
    assert soc.gpu.cores == 60
    assert soc["dram.bandwidth"] == 800e9
    assert soc.figure("dram.bandwidth").source == "--set"
    assert soc.figure("dram.bandwidth").kind == "user"
    assert soc.overrides == {"gpu.cores": "60", "gpu.clock": "2GHz", "dram.bandwidth": "800GB/s"}
    assert load_chip("m4max")["gpu.cores"] == 40
    wider = load_chip("m4max", {"dram.bus_width": "1024bit"})
    assert wider["dram.bandwidth"] == pytest.approx(8533e6 * 128)
    pinned = load_chip("m4max", {"gpu.fp16": "50TFLOPS", "gpu.cores": 80})
    assert pinned["gpu.fp16"] == 50e12
    assert pinned["gpu.fp32"] == pytest.approx(80 * 256 * 1.578e9)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("gpu.core=60", "--set gpu.core: no figure has this name; did you mean gpu.cores"),
        ("gpu.cores", "--set 'gpu.cores': expected figure=value such as gpu.cores=60"),
        ("gpu.cores=", "expected figure=value"),
        ("gpu.cores=0", "--set gpu.cores: got '0', expected > 0"),
        ("gpu.cores=-4", "expected > 0"),
        ("gpu.cores=1.5", "--set gpu.cores: got 1.5, expected a whole number"),
        ("gpu.cores=nan", "expected a number"),
        ("gpu.cores=1e30", "expected GPU cores between"),
        ("gpu.clock=1.4", "a bare number is SI, so give a unit such as 1.4GHz"),
        ("dram.bandwidth=800GB", "which is in byte, expected in byte/s such as 800GB/s"),
        ("dram.bandwidth=800GBs", "is not known"),
        ("dram.type=" + "x" * 100, "expected a short text"),
        ("dram.gpu_share=2", "expected"),
    ],
)
def test_bad_overrides(override, message):
    with pytest.raises(HardwareError) as caught:
        load_chip("m4max", [override])
    assert message in str(caught.value)
    assert len(str(caught.value)) < 250


@pytest.mark.parametrize(
    ("name", "chip_id"),
    [
        ("M1 Max", "m1max"), ("m4-max", "m4max"), ("M4 MAX", "m4max"), ("Apple M3", "m3"), ("A15 Bionic", "a15"),
        ("M4 Max (40-core GPU)", "m4max"), ("M4 Max (32-core GPU)", "m4max_cpu14_gpu32"),
        ("M4 Max 32-core GPU", "m4max_cpu14_gpu32"), ("M1 Ultra (48-core GPU)", "m1ultra_gpu48"),
        ("m4max_gpu32", "m4max_cpu14_gpu32"), ("m4max-gpu40", "m4max"), ("M2 Ultra gpu60", "m2ultra_gpu60"),
        ("M4 (Air, 8-core GPU)", "m4_cpu8_gpu8"), ("M2 Pro (label M2)", "m2pro"), ("A18 Pro", "a18pro"),
        ("m2ultra_gpu60", "m2ultra_gpu60"), ("M2Ultra_GPU60", "m2ultra_gpu60"),
    ],
)  # fmt: skip
def test_names_people_write(name, chip_id):
    assert find_chip(name) == chip_id
    assert load_chip(name).id == chip_id


@pytest.mark.parametrize(
    ("name", "gpu", "cpu", "chip_id"),
    [
        ("M1 Max", 32.0, 10.0, "m1max"), ("M2 Ultra", 60.0, 24.0, "m2ultra_gpu60"), ("M4", 10.0, 10.0, "m4"),
        ("M4", 10.0, 9.0, "m4_cpu9_gpu10"), ("M1 Pro", None, 8.0, "m1pro_cpu8_gpu14"), ("M3 Max", None, None, "m3max"),
        ("M2 Max", float("nan"), 12.0, "m2max"),
        ("M1 Pro", 14.0, 10.0, "m1pro_cpu8_gpu14"),  # not a bin of the catalogue: the GPU count decides
    ],
)  # fmt: skip
def test_core_counts_choose_the_bin(name, gpu, cpu, chip_id):
    assert find_chip(name, gpu_cores=gpu, cpu_cores=cpu) == chip_id


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("m4mux", "chip 'm4mux' is not known; did you mean m4max"),
        ("A13 Bionic", "chip 'A13 Bionic' is not known; `orchard chips` lists the catalogue"),
        ("", "is not known"),
        ("x" * 10_000, "is not known"),
        ("M1 Max (33-core GPU)", "with 33 GPU cores is not known; the catalogue has m1max (32), m1max_gpu24 (24)"),
    ],
)
def test_unknown_chips(name, message):
    with pytest.raises(HardwareError) as caught:
        load_chip(name)
    assert message in str(caught.value)
    assert len(str(caught.value)) < 200


def test_a_missing_figure_is_named_with_its_remedy():
    soc = load_chip("a20pro")
    with pytest.raises(HardwareError) as caught:
        _ = soc.gpu
    assert "a20pro: gpu.clock, the maximum GPU clock, is not known" in str(caught.value)
    assert "state it with --set gpu.clock=..., for example 1.4GHz" in str(caught.value)
    assert load_chip("a20pro", ["gpu.clock=1.7GHz"]).gpu.fp16_ops_per_s_peak == pytest.approx(7 * 512 * 1.7e9)
    with pytest.raises(HardwareError, match=r"no figure is called 'gpu\.core'; did you mean gpu.cores"):
        _ = soc["gpu.core"]
    with pytest.raises(HardwareError, match=r"dram.type is the text 'LPDDR5X?', not a number"):
        _ = soc["dram.type"]


def test_reference_tables():
    assert sources()["metal-benchmarks"].trust == "high"
    for source in sources().values():
        assert re.fullmatch(r"(https?://[^\s()*]+)?", source.url), source  # an address and nothing else: pages link to it
    assert parameters()["ane_cores_per_engine"].value == 16
    assert parameters()["e_dram_total_pj_b"].unit == "pJ/B"
    assert len(parameters()) > 100
    assert len(observations()) > 100
    assert {o.chip for o in observations()} <= set(chip_ids())
    for row in (*parameters().values(), *observations()):
        assert row.source in sources()


def test_loading_one_chip_is_quick():
    """Target 5 ms on an idle machine; the bound here allows a busy one."""
    load_chip("m1")
    best = min(_seconds_to_load(chip_id) for chip_id in ("m3ultra_cpu28_gpu60", "m2max_gpu30", "m1pro_cpu8_gpu14"))
    assert best < 0.02


def _seconds_to_load(chip_id: str) -> float:
    _built_in.cache_clear()
    _raw_chip.cache_clear()
    start = time.process_time()
    load_chip(chip_id)
    return time.process_time() - start


def test_chips_are_hashable_equal_and_travel_between_processes():
    soc = load_chip("m4max", ["gpu.cores=60"])
    again = load_chip("m4max", ["gpu.cores=60"])
    assert soc == again
    assert hash(soc) == hash(again)
    assert soc != load_chip("m4max")
    _ = soc.gpu, soc.engines  # cached views travel too, or are built again
    assert pickle.loads(pickle.dumps(soc)) == soc
