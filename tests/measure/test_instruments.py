"""Energy counters and the output of macOS tools, from recorded text in the documented formats."""

from __future__ import annotations

import plistlib
import sys
from pathlib import Path

import pytest

from orchard.measure.apple import benchmark_rows, compute_plan, require_macos, spread_over_plan
from orchard.measure.energy import ioreport_joules, powermetrics_plist, powermetrics_text, rapl
from orchard.measure.errors import MeasureError

POWERMETRICS = """
*** Sampled system activity (Mon Nov 23 10:00:00 2026 +0100) (1002.43ms elapsed) ***
**** Processor usage ****
E-Cluster Power: 43 mW
CPU Power: 1200 mW
GPU Power: 300 mW
ANE Power: 0 mW
Combined Power (CPU + GPU + ANE): 1500 mW
*** Sampled system activity (Mon Nov 23 10:00:01 2026 +0100) (1001.10ms elapsed) ***
CPU Power: 1400 mW
GPU Power: 500 mW
ANE Power: 20 mW
Combined Power (CPU + GPU + ANE): 1920 mW
"""


def test_powermetrics_text_means_over_samples() -> None:
    found = powermetrics_text(POWERMETRICS)
    assert found == pytest.approx({"cpu": 1.3, "gpu": 0.4, "ane": 0.01, "combined": 1.71})


def test_powermetrics_plist_samples_are_separated_by_nul() -> None:
    samples = [{"processor": {"cpu_power": 1000.0, "gpu_power": 200.0, "ane_power": 0.0, "combined_power": 1200.0}}] * 2
    samples[1] = {"processor": {"cpu_power": 3000.0, "gpu_power": 400.0, "ane_power": 10.0, "combined_power": 3410.0}}
    data = b"\0".join(plistlib.dumps(s) for s in samples)
    assert powermetrics_plist(data) == pytest.approx({"cpu": 2.0, "gpu": 0.3, "ane": 0.005, "combined": 2.305})


@pytest.mark.parametrize("data", [b"", b"not a plist", plistlib.dumps({"processor": {}})])
def test_powermetrics_without_power_is_refused(data: bytes) -> None:
    with pytest.raises(MeasureError, match="powermetrics"):
        powermetrics_plist(data)
    with pytest.raises(MeasureError, match="CPU Power"):
        powermetrics_text("nothing")


def test_ioreport_units() -> None:
    channels = {"CPU Energy": {"value": 1500, "unit": "mJ"}, "GPU Energy": {"value": 2_000_000, "unit": "nJ"}}
    assert ioreport_joules(channels) == pytest.approx({"CPU Energy": 1.5, "GPU Energy": 0.002})
    with pytest.raises(MeasureError, match="unit 'kWh'"):
        ioreport_joules({"x": {"value": 1, "unit": "kWh"}})


def test_rapl_reads_zones_and_knows_where_they_wrap(tmp_path: Path) -> None:
    zone = tmp_path / "intel-rapl:0"
    zone.mkdir()
    for name, text in (("name", "package-0"), ("energy_uj", "5000000"), ("max_energy_range_uj", "10000000")):
        (zone / name).write_text(text)
    (tmp_path / "intel-rapl:1").mkdir()  # a zone that this user may not read
    (meter,) = rapl(tmp_path)
    assert meter.name == "RAPL package-0"
    assert meter.read() == 5.0
    assert meter.between(9.0, 1.0) == 2.0  # 9 to the wrap at 10, then 1


PLAN = """[
 {"name": "conv_0", "operator": "ios17.conv", "preferred": "NeuralEngine",
  "supported": ["CPU", "GPU", "NeuralEngine"], "cost": 0.6},
 {"name": "softmax", "operator": "ios17.softmax", "preferred": "CPU", "supported": ["CPU"], "cost": 0.2},
 {"name": "weight", "operator": "const", "preferred": "unknown"}]"""


def test_a_compute_plan_spreads_the_measured_time() -> None:
    plan = compute_plan(PLAN)
    assert [op.device for op in plan] == ["NeuralEngine", "CPU", "unknown"]
    rows = spread_over_plan(plan, 8e-3)
    assert [s for _, _, s in rows] == pytest.approx([6e-3, 2e-3, 0.0])


@pytest.mark.parametrize("text", ["{", "{}", '[{"name": "x"}]'])
def test_a_broken_compute_plan_is_refused(text: str) -> None:
    with pytest.raises(MeasureError, match="compute plan"):
        compute_plan(text)


def test_a_plan_without_costs_cannot_spread_time() -> None:
    with pytest.raises(MeasureError, match="no operation has a cost"):
        spread_over_plan(compute_plan('[{"operator": "const"}]'), 1.0)


def test_benchmark_lines() -> None:
    assert benchmark_rows("load: 12.5 ms\nmedian: 800 us\n") == pytest.approx({"load": 0.0125, "median": 8e-4})
    with pytest.raises(MeasureError, match="no line"):
        benchmark_rows("failed")


@pytest.mark.skipif(sys.platform == "darwin", reason="says what is missing elsewhere")
@pytest.mark.parametrize("device", ["coreml", "coreai"])
def test_apple_devices_say_what_they_need(device: str) -> None:
    with pytest.raises(MeasureError, match="macOS only; it needs a Mac"):
        require_macos(device)
