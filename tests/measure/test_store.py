"""Run folders: what is written comes back, a killed run goes on, and what is no run is refused in one sentence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from orchard.cost.eager import Launch
from orchard.measure.errors import MeasureError
from orchard.measure.store import RunWriter, Sample, read_run
from orchard.measure.timer import Timing

HEAD: dict[str, Any] = {"device": "cpu", "threads": 1, "created": "2026-11-25T00:00:00+00:00"}
LAUNCH = Launch(
    op="aten.add", group="pointwise", elements=8.0, reads=((32.0, 64.0),), writes=((32.0, 64.0),), scope="a"
)


def sample(name: str, group: str = "bandwidth") -> Sample:
    return Sample(
        name=name, group=group, timing=Timing(samples=(1e-3, 2e-3), inner=3), launches=(LAUNCH, LAUNCH), module_calls=2,
        operations=(("aten.add", 1e-6),), cpu_share=0.9,
    )  # fmt: skip


def test_samples_come_back_as_they_were(tmp_path: Path) -> None:
    writer = RunWriter(tmp_path / "run", HEAD)
    writer.add(sample("a"))
    writer.add(sample("b", "model"))
    writer.finish({"seconds": 3.0})
    run = read_run(tmp_path / "run")
    assert run.samples == (sample("a"), sample("b", "model"))
    assert [s.name for s in run.models] == ["b"]
    assert run.head["seconds"] == 3.0


def test_a_killed_run_goes_on_from_the_line_before(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    RunWriter(folder, HEAD).add(sample("a"))
    with (folder / "samples.jsonl").open("a") as file:
        file.write('{"name": "torn", "grou')
    assert [s.name for s in read_run(folder).samples] == ["a"]
    writer = RunWriter(folder, HEAD)
    assert writer.done == {"a"}
    writer.add(sample("b"))
    assert [s.name for s in read_run(folder).samples] == ["a", "b"]


def test_another_device_does_not_continue_a_run(tmp_path: Path) -> None:
    RunWriter(tmp_path / "run", HEAD).add(sample("a"))
    with pytest.raises(MeasureError, match="device cpu, got mlx"):
        RunWriter(tmp_path / "run", {**HEAD, "device": "mlx"})


@pytest.mark.parametrize(
    ("files", "text"),
    [
        ({}, "holds no run"),
        ({"run.json": "{"}, "is not JSON"),
        ({"run.json": '{"schema": "other"}'}, "schema is not"),
        ({"run.json": '{"schema": "orchard.measurement-run/1"}'}, "holds no sample yet"),
        ({"run.json": '{"schema": "orchard.measurement-run/1"}', "samples.jsonl": "{}\n{}\n"}, "line 1 cannot be read"),
    ],
)
def test_what_is_no_run_is_refused(tmp_path: Path, files: dict[str, str], text: str) -> None:
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    with pytest.raises(MeasureError, match=text):
        read_run(tmp_path)


def test_a_folder_with_other_files_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(MeasureError, match="holds no run"):
        RunWriter(tmp_path, HEAD)
