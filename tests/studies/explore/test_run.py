"""Runs: the same numbers however they are cut, killed and resumed; refusals; comparison and export."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from orchard.search.pareto import front
from orchard.search.sampling import grid
from orchard.studies.errors import StudyError
from orchard.studies.explore import run as run_module
from orchard.studies.explore.evaluate import Evaluator
from orchard.studies.explore.run import Pool, explore, objective_values
from orchard.studies.explore.runs import compare_runs, export, list_runs
from orchard.studies.explore.store import Part, Store, digest
from orchard.studies.explore.study import read_study

pytest.importorskip("duckdb")

TEXT = """\
name: small
chip: m4
knobs:
  gpu.cores: [8, 10, 12, 14, 16]
  gpu.clock: {from: 1.2GHz, to: 1.8GHz, steps: 5}
  dram.bus_width: [128bit, 192bit, 256bit]
  slc.size: [8MiB, 16MiB]
workloads:
  chat: {model: qwen3-0.6b, weights: q4_0, prompt: 64, generate: 16}
objectives: [latency_s, area_mm2]
constraints: ["chat.power_w <= 40"]
search: {batch: 16}
"""
GUIDED = TEXT.replace("{batch: 16}", "{method: nsga2, designs: 60, seed: 2}")


def write(folder: Path, text: str = TEXT) -> Path:
    path = folder / "study.yaml"
    path.write_text(text)
    return path


def test_a_grid_gives_the_true_front(tmp_path: Path) -> None:
    study = read_study(write(tmp_path))
    outcome = explore(study, tmp_path / "run")
    points = grid(study.space.levels, 0, study.designs)
    columns = Evaluator(study)(points)
    feasible = (columns["chat.power_w"] <= 40) & (columns["chat.fits"] > 0)
    values = np.where(feasible[:, None], np.stack([columns["latency_s"], columns["area_mm2"]], 1), np.inf)
    assert outcome.front["index"].tolist() == front(values).tolist()
    assert (outcome.evaluated, outcome.feasible) == (150, int(feasible.sum()))
    assert 0 < outcome.hypervolume <= 1
    assert outcome.knee >= 0
    assert len(outcome.shares) == len(outcome.front["index"])


@pytest.mark.parametrize("text", [TEXT, GUIDED])
def test_a_run_cut_short_ends_with_the_same_numbers(tmp_path: Path, text: str) -> None:
    path = write(tmp_path, text)
    whole = explore(path, tmp_path / "whole")
    explore(path, tmp_path / "cut")
    store = Store(tmp_path / "cut")
    last = max(store.finished())
    for number in (last, 1):  # what a kill leaves: parts missing anywhere, a half-written file, the manifest of a start
        if text == TEXT or number == last:
            store.part_path(number).unlink()
    (tmp_path / "cut" / "parts" / ".part-000001.parquet.1.tmp").write_bytes(b"half")
    store.write_manifest({**store.manifest(), "state": "running"})
    resumed = explore(path, tmp_path / "cut")
    assert resumed.digest == whole.digest
    assert digest(resumed.front) == digest(whole.front)
    assert not list((tmp_path / "cut" / "parts").glob(".*"))


def test_two_and_eight_workers_give_the_same_bits(tmp_path: Path) -> None:
    pytest.importorskip("joblib")
    path = write(tmp_path, TEXT.replace("batch: 16", "batch: 5"))
    one = explore(path, tmp_path / "one")
    for workers in (2, 8):
        run = tmp_path / str(workers)
        assert explore(path, run, pool=Pool(workers=workers)).digest == one.digest
        found = compare_runs(tmp_path / "one", run)
        assert found.same_study
        assert found.same_result
        assert found.covered == (1.0, 1.0)
        assert found.hypervolume[0] == found.hypervolume[1]


def test_killed_for_real_and_resumed(tmp_path: Path) -> None:
    """A process killed with SIGKILL in the middle; what it left is resumed to the same result."""
    path = write(tmp_path, TEXT.replace("batch: 16", "batch: 5"))
    whole = explore(path, tmp_path / "whole")
    run = tmp_path / "killed"
    code = (
        "from pathlib import Path; from orchard.studies.explore.run import explore; "
        f"explore({str(path)!r}, Path({str(run)!r}))"
    )
    process = subprocess.Popen([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})
    deadline = time.monotonic() + 60
    while not list((run / "parts").glob("part-*")) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    left = len(Store(run).finished())
    assert 0 < left < 30
    assert Store(run).manifest()["state"] == "running"
    assert explore(path, run).digest == whole.digest


def test_front_only_runs_have_the_same_front(tmp_path: Path) -> None:
    kept = explore(write(tmp_path), tmp_path / "all")
    small = explore(write(tmp_path, TEXT + "keep: front\n"), tmp_path / "front")
    assert digest(kept.front) == digest(small.front)
    stored = [Store(tmp_path / name).query("SELECT count(*) AS n FROM designs")["n"][0] for name in ("all", "front")]
    assert stored[0] == 150
    assert stored[1] < 150


def test_guided_runs_report_what_they_evaluated(tmp_path: Path) -> None:
    outcome = explore(write(tmp_path, GUIDED), tmp_path / "run")
    assert outcome.evaluated == 60
    true = explore(write(tmp_path), tmp_path / "grid")
    wanted = objective_values(true.study, true.front)
    assert any((objective_values(outcome.study, outcome.front)[:, None] == wanted[None]).all(-1).any(0))


def test_one_run_folder_one_study_one_process(tmp_path: Path) -> None:
    path = write(tmp_path)
    explore(path, tmp_path / "run")
    other = tmp_path / "other.yaml"
    other.write_text(TEXT.replace("[8, 10, 12, 14, 16]", "[8]"))
    with pytest.raises(StudyError, match="another study"):
        explore(other, tmp_path / "run")
    with Store(tmp_path / "run").lock(), pytest.raises(StudyError, match="another process"):
        explore(path, tmp_path / "run")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(StudyError, match="not empty"):
        explore(path, tmp_path / "mine")


def test_a_damaged_part_is_named(tmp_path: Path) -> None:
    explore(write(tmp_path), tmp_path / "run")
    part = Store(tmp_path / "run").part_path(2)
    part.write_bytes(part.read_bytes()[:50])
    with pytest.raises(StudyError, match="part-000002"):
        explore(write(tmp_path), tmp_path / "run")


def test_a_changed_bit_in_a_part_is_found(tmp_path: Path) -> None:
    explore(write(tmp_path), tmp_path / "run")
    store = Store(tmp_path / "run")
    recorded, path = store.manifest()["digest"], store.part_path(1)
    whole = path.read_bytes()
    total = "SELECT sum(latency_s) AS total FROM designs"
    before = store.query(total)["total"][0]
    for place in range(100, len(whole), len(whole) // 7):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with suppress(StudyError):  # a bit that no number depends on may change
            assert explore(write(tmp_path), tmp_path / "run").digest == recorded
        with suppress(StudyError):
            assert store.query(total)["total"][0] == before
        assert store.manifest()["digest"] == recorded
    path.write_bytes(whole)
    part = store.read_part(1)
    part.rows["latency_s"][3] *= 1 + 1e-15
    store.write_part(1, part)  # a part with numbers of its own, whole in itself
    with pytest.raises(StudyError, match="no longer those recorded"):
        explore(write(tmp_path), tmp_path / "run")


def test_what_is_lost_of_a_complete_run_is_said(tmp_path: Path) -> None:
    explore(write(tmp_path), tmp_path / "run")
    store = Store(tmp_path / "run")
    assert store.lost(store.manifest()) == []
    store.part_path(3).unlink()
    (tmp_path / "run" / "parts" / "part-abc.parquet").touch()
    assert store.lost(store.manifest()) == [3]
    assert [r.parts for r in list_runs(tmp_path)] == [9]


@pytest.mark.parametrize("text", [TEXT, GUIDED])
def test_a_worker_that_dies_costs_no_result(tmp_path: Path, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pool that breaks once in the middle, as the pools' libraries show a killed worker."""
    path = write(tmp_path, text)
    whole = explore(path, tmp_path / "whole")
    broken: list[int] = []
    real = run_module.mapped

    @contextmanager
    def breaking(pool: Pool) -> Iterator[Any]:
        with real(pool) as run:

            def once(function: Any, arguments: Any) -> Iterator[Any]:
                for number, result in enumerate(run(function, arguments)):
                    if not broken and len(Store(tmp_path / "run").finished()) > 1 - number:
                        broken.append(number)
                        raise RuntimeError("a worker was killed")
                    yield result

            yield once

    monkeypatch.setattr(run_module, "mapped", breaking)
    assert explore(path, tmp_path / "run").digest == whole.digest
    assert len(broken) == 1


def test_parts_come_back_as_they_were(tmp_path: Path) -> None:
    rows = {
        "index": np.arange(3),
        "x": np.array([1.5, np.nan, -0.0]),
        "w": np.array(["a", "b'c", ""]),
        "feasible": np.array([True, False, True]),
    }
    store = Store(tmp_path)
    store.write_part(7, Part(rows, 10, 2))
    part = store.read_part(7)
    assert (part.evaluated, part.feasible, store.finished()) == (10, 2, {7})
    assert part.rows["w"].tolist() == rows["w"].tolist()
    assert np.array_equal(np.asarray(part.rows["x"], dtype=float), rows["x"], equal_nan=True)


@pytest.mark.parametrize("ending", ["csv", "json", "parquet"])
def test_export(tmp_path: Path, ending: str) -> None:
    explore(write(tmp_path), tmp_path / "run")
    assert export(tmp_path / "run", tmp_path / f"all.{ending}", only_front=False) == 150
    few = export(tmp_path / "run", tmp_path / f"front.{ending}", only_front=True)
    assert 0 < few < 150
    if ending == "json":
        assert len(json.loads((tmp_path / "front.json").read_text())) == few
    with pytest.raises(StudyError, match="ends with"):
        export(tmp_path / "run", tmp_path / "all.xls", only_front=False)


def test_runs_are_listed(tmp_path: Path) -> None:
    explore(write(tmp_path), tmp_path / "runs" / "a")
    (tmp_path / "runs" / "b").mkdir()
    (tmp_path / "runs" / "b" / "run.json").write_text("{")
    assert [(r.name, r.state, r.parts) for r in list_runs(tmp_path / "runs")] == [("small", "complete", 10)]
