"""From a run to a machine that every command takes: synthetic samples, the written file, predictions, reports, rows."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from orchard.app.cli import main
from orchard.cost.eager import Launch, launch_arrays
from orchard.cost.engines.eager import eager_terms
from orchard.hw import load_chip
from orchard.measure.store import RunWriter, Sample
from orchard.measure.timer import Timing
from orchard.report.schemas import SCHEMAS
from orchard.studies.machine_fit import terms

VALUES = {t.name: t.start for t in terms()}
HEAD: dict[str, Any] = {
    "device": "cpu", "threads": 1, "suite": "quick", "created": "2026-11-25T00:00:00+00:00", "clock": "thread CPU time",
    "allocator": "pinned", "instruments": [], "state_before": {"load": 0.0, "clock_hz": None, "celsius": None},
    "machine": {
        "system": "Linux 6", "processor": "Test CPU", "cores": 2, "memory_bytes": 2**34, "l1d_bytes": 49152, "l2_bytes": 2**21,
        "l3_bytes": 2**25, "clock_hz": 2.6e9, "features": ["avx2"], "versions": {"torch": "2.13.0"},
    },
}  # fmt: skip


def sample(name: str, group: str, launches: tuple[Launch, ...], factor: float = 1.0) -> Sample:
    seconds = float(eager_terms(launch_arrays(launches), VALUES).total.sum()) * factor
    times = tuple(seconds * (1.0 + 0.002 * ((7 * i) % 5 - 2)) for i in range(12))
    operations = tuple((x.op, seconds / len(launches)) for x in launches) if group == "model" else ()
    return Sample(
        name=name, group=group, timing=Timing(samples=times), launches=launches, operations=operations, resident_bytes=10**8,
        peak_bytes=10**7, measured_bytes=115 * 10**6 if group == "model" else None, cpu_share=0.99,
    )  # fmt: skip


def product(n: int) -> Launch:
    size = 4.0 * n * n
    return Launch(
        op="aten.mm", group="gemm", rows=float(n), columns=float(n), depth=float(n), macs=float(n) ** 3, elements=float(n * n),
        reads=((size, 3 * size), (size, 3 * size)), writes=((size, 3 * size),),
    )  # fmt: skip


def stream(n: float, op: str = "aten.add") -> Launch:
    return Launch(op=op, group="pointwise", elements=n / 4.0, reads=((n, 2 * n),), writes=((n, 2 * n),))


def write_run(folder: Path, factor: float = 1.0) -> Path:
    writer = RunWriter(folder, HEAD)
    for i in range(22):
        writer.add(sample(f"mm-{16 + 24 * i}", "gemm", (product(16 + 24 * i),), factor))
        writer.add(sample(f"add-{i}", "bandwidth", (stream(4096.0 * 1.6**i),), factor))
    for i, n in enumerate((64, 200, 512)):
        writer.add(sample(f"model-{i}", "model", (product(n), stream(4.0 * n * n), product(2 * n))))
    writer.finish({"state_after": HEAD["state_before"]})
    return folder


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("measured") / "run")


@pytest.fixture(scope="module")
def machine(run_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A calibrated machine's file."""
    path = tmp_path_factory.mktemp("machines") / "desk.yaml"
    assert main(["calibrate", str(run_folder), "--name", "desk", "--output", str(path)]) == 0
    return path


def answered(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    capsys.readouterr()
    assert main([*arguments, "--json"]) == 0
    record: dict[str, Any] = json.loads(capsys.readouterr().out)
    SCHEMAS[record["schema"]].model_validate_json(json.dumps(record))
    return record


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    capsys.readouterr()
    assert main(list(arguments)) == 2
    return capsys.readouterr().err


def test_figures_say_where_they_come_from(machine: Path) -> None:
    soc = load_chip(machine)
    peak = soc.figure("cpu.neon.fp32")
    assert (peak.kind, peak.source) == ("measured", "measured 2026-11-25")
    assert "standard error" in str(peak.note)
    assert peak.si == pytest.approx(2.0 * VALUES["macs_per_s.f32"], rel=0.3)
    assert soc.figure("dram.energy").kind == "estimate"
    assert soc["dram.capacity"] == 2**34


def test_a_prediction_answers_with_the_machines_own_runtime(machine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record = answered(capsys, "predict", "distilbert-base-uncased", "--chip", str(machine), "--prompt", "64")
    phase = record["phases"]["inference"]
    assert (record["runtime"], record["engine"]) == ("pytorch", "cpu")
    assert phase["bound_s"] <= phase["interval_s"][0] <= phase["latency_s"] <= phase["interval_s"][1]


def test_formats_that_were_not_measured_are_named(machine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ("predict", "distilbert-base-uncased", "--chip", str(machine), "--weights")
    plain = answered(capsys, *asked, "f32", "--kv", "f32", "--activations", "f32")
    other = answered(capsys, *asked, "f16")
    assert not any("not measured with" in w for w in plain["warnings"])
    assert any("f16 as bf16" in w for w in other["warnings"])


def test_the_machine_is_found_by_name(machine: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    folder = tmp_path / "orchard" / "machines"
    folder.mkdir(parents=True)
    (folder / "desk.yaml").write_text(machine.read_text())
    assert load_chip("desk").runtimes["pytorch"]["model"] == "eager"


def test_models_of_a_run_are_predicted(run_folder: Path, machine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record = answered(capsys, "validate", "--measured", str(run_folder), "--chip", str(machine))
    assert record["median_error"] < 0.1  # the samples were made by the model itself, up to 0.4 % of scatter
    assert record["rank_correlation"] == pytest.approx(1.0)
    assert record["memory_median_error"] == pytest.approx(1 - 110 / 115)
    assert [m["aligned"] for m in record["models"]] == [1.0] * 3
    assert main(["validate", "--measured", str(run_folder), "--chip", str(machine), "--ops"]) == 0
    assert all(len(line) <= 80 for line in capsys.readouterr().out.splitlines())


def test_equal_runs_do_not_differ_and_slower_ones_do(
    run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    slow = write_run(tmp_path / "slow", 1.2)
    same = answered(capsys, "compare-run", str(run_folder), str(run_folder))
    assert (same["slower"], same["faster"], same["drift"]) == (0, 0, 1.0)
    found = answered(capsys, "compare-run", str(run_folder), str(slow))
    assert found["slower"] == 44  # every microbenchmark; the three models did not change
    assert found["drift"] == pytest.approx(math.exp(44 / 47 * math.log(1.2)))
    assert answered(capsys, "compare-run", str(run_folder), str(slow), "--least", "0.3")["slower"] == 0


def test_rows_for_the_dataset(run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from orchard.studies.contribute import check_rows
    from orchard.studies.kernel_rows import kernel_case

    path = tmp_path / "rows.csv"
    record = answered(capsys, "contribute", str(run_folder), "--chip", "M2 Max", "--output", str(path))
    assert record["rows"] == check_rows(path.read_text(), "rows") == 44
    import csv

    rows = list(csv.DictReader(path.open()))
    gemm = next(r for r in rows if r["shape"] == "m=40,n=40,k=40")
    assert (gemm["op"], gemm["dtype"], gemm["metric"]) == ("gemm", "fp32", "ms")
    assert not isinstance(kernel_case(gemm), str)  # the dataset's own reader makes a case of it
    assert "is there already" in refused(
        capsys, "contribute", str(run_folder), "--chip", "M2 Max", "--output", str(path)
    )


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda t: t.replace("ms,", "s,", 1), "metric"), (lambda t: t.replace("trust=A", "ok", 1), "notes start"),
        (lambda t: t.replace("id,", "key,", 1), "columns are"), (lambda t: t.splitlines()[0], "no rows"),
    ],
)  # fmt: skip
def test_rows_that_break_the_rules_are_refused(run_folder: Path, change: Any, text: str) -> None:
    from orchard.measure.store import read_run
    from orchard.studies.contribute import check_rows, contribution
    from orchard.studies.errors import StudyError

    rows = contribution(read_run(run_folder), "M2 Max", "me")
    with pytest.raises(StudyError, match=text):
        check_rows(change(rows), "rows")


def test_refusals_are_one_sentence(run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    few = RunWriter(tmp_path / "few", HEAD)
    few.add(sample("mm-1", "gemm", (product(8),)))
    cases = {
        ("measure", "--device", "coreml"): "macOS only",
        ("measure", "--device", "tpu"): "device 'tpu' is not known",
        ("measure", "--suite", "quik"): "did you mean quick",
        ("measure", "--threads", "0"): "expected 1 to 1024",
        ("measure", "resnet-51"): "did you mean resnet-50",
        ("measure", "x.mlpackage"): "needs macOS",
        ("calibrate", str(tmp_path)): "holds no run",
        ("calibrate", str(tmp_path / "few")): "expected at least 40",
        ("calibrate", str(run_folder), "--name", "m1"): "no chip of the catalogue",
        ("calibrate", str(run_folder), "--output", "x.txt"): "ends in .yaml",
        ("validate", "--measured", str(tmp_path / "few")): "holds no whole model",
        ("validate", "--measured", str(run_folder), "--chip", "m1"): "no calibrated machine",
        ("validate", "--ops"): "goes with --measured",
        ("compare-run", str(run_folder), str(tmp_path)): "holds no run",
        ("compare-run", str(run_folder), str(run_folder), "--least", "-1"): "expected a share",
        ("contribute", str(run_folder), "--chip", ""): "expected a short text",
    }
    for arguments, text in cases.items():
        error = refused(capsys, *arguments)
        assert text in error, (arguments, error)
        assert error.strip().count("\n") == 0, error
