"""Designs evaluated as arrays against single predictions, sums against parts, better chips against worse ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchard.hw import HardwareArrays
from orchard.search.sampling import grid, uniform
from orchard.studies.errors import StudyError
from orchard.studies.experiment.effects import quality_effects
from orchard.studies.explore.evaluate import Evaluator, refuse_hopeless
from orchard.studies.explore.study import Study, read_study
from orchard.studies.predict import predict

TEXT = """\
chip: m4
knobs:
  gpu.cores: [8, 10, 16]
  gpu.clock: {from: 1.2GHz, to: 1.8GHz}
  dram.transfer_rate: [6400MT/s, 9600MT/s]
  dram.bus_width: [128bit, 256bit]
  ane.cores: [8, 16]
  slc.size: [8MiB, 32MiB]
  chat.weights: [q4_0, q8_0]
workloads:
  chat: {model: qwen3-0.6b, prompt: 64, generate: 16, weight: 2}
  eye: {model: resnet18, engine: ane, weight: 30}
objectives: [latency_s, area_mm2]
search: {method: lhs, designs: 64}
"""


@pytest.fixture(scope="module")
def read(tmp_path_factory: pytest.TempPathFactory) -> Study:
    path: Path = tmp_path_factory.mktemp("study") / "study.yaml"
    path.write_text(TEXT)
    return read_study(path)


@pytest.fixture(scope="module")
def evaluator(read: Study) -> Evaluator:
    return Evaluator(read)


def test_equals_single_predictions(read: Study, evaluator: Evaluator) -> None:
    points = uniform(read.space.levels, 0, 6, seed=1)
    columns, knobs = evaluator(points), read.space.decode(points)
    for row in range(len(points)):
        overrides = {k: float(v[row]) for k, v in knobs.items() if not k.startswith("chat.")}
        chat = predict("qwen3-0.6b", "m4", weights=str(knobs["chat.weights"][row]), prompt=64, generate=16, overrides=overrides)
        eye = predict("resnet18", "m4", engine="ane", overrides=overrides)
        phases = chat.phases
        assert columns["chat.prefill_s"][row] == pytest.approx(phases["prefill"].latency_s, rel=1e-9)
        assert columns["chat.tokens_per_s"][row] == pytest.approx(phases["decode"].tokens_per_s, rel=1e-9)
        whole = phases["prefill"].latency_s + 16 * phases["decode"].latency_s
        assert columns["chat.latency_s"][row] == pytest.approx(whole, rel=1e-9)
        assert columns["chat.memory_bytes"][row] == chat.memory.total
        assert columns["eye.latency_s"][row] == pytest.approx(eye.phases["inference"].latency_s, rel=1e-9)


def test_energy_at_the_chips_own_clock_is_predicts(evaluator: Evaluator) -> None:
    found = evaluator._times(evaluator.options["chat"][0], HardwareArrays.of(evaluator.soc))
    whole = predict("qwen3-0.6b", "m4", weights="q4_0", prompt=64, generate=16)
    joules = whole.phases["prefill"].energy_j + 16 * whole.phases["decode"].energy_j
    assert float(found["energy_j"]) == pytest.approx(joules, rel=1e-9)


def test_a_basket_is_the_sum_of_its_parts(read: Study, evaluator: Evaluator) -> None:
    columns = evaluator(uniform(read.space.levels, 0, 50, seed=2))
    for leaf in ("latency_s", "energy_j", "edp"):
        assert columns[leaf] == pytest.approx(2 * columns[f"chat.{leaf}"] + 30 * columns[f"eye.{leaf}"], rel=1e-12)
    assert columns["power_w"] == pytest.approx(np.maximum(columns["chat.power_w"], columns["eye.power_w"]))
    assert columns["chat.power_w"] == pytest.approx(columns["chat.energy_j"] / columns["chat.latency_s"])


def test_the_unchanged_chip_has_speedup_one(evaluator: Evaluator) -> None:
    columns = {f"{w}.latency_s": np.array([t]) for w, t in evaluator.base.items()}
    columns |= {f"{w}.{leaf}": np.ones(1) for w in evaluator.base for leaf in ("energy_j", "edp", "power_w")}
    assert evaluator._basket(columns)["speedup"] == pytest.approx([1.0])


def test_one_evaluation_for_all_that_agree_changes_nothing(read: Study, evaluator: Evaluator) -> None:
    """The network on the Neural Engine does not see the GPU; the shortcut gives what evaluating each design alone gives."""
    assert not {"gpu.cores", "gpu.clock"} & evaluator.options["eye"][0].reads
    assert "ane.cores" not in evaluator.options["chat"][0].reads
    points = uniform(read.space.levels, 0, 40, seed=3)
    together = evaluator(points)
    alone = [evaluator(points[i : i + 1]) for i in range(len(points))]
    for name, column in together.items():
        assert np.array_equal(column, np.concatenate([a[name] for a in alone])), name


BETTER = ("gpu.cores", "gpu.clock", "dram.transfer_rate", "dram.bus_width", "ane.cores", "slc.size")


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10_000), st.integers(0, len(BETTER) - 1))
def test_a_design_that_is_better_in_a_figure_is_never_slower(row: int, which: int) -> None:
    study, evaluator = _cached()
    point = uniform(study.space.levels, row, row + 1, seed=9)
    axis = [k.name for k in study.space.knobs].index(BETTER[which])
    best = point.copy()
    best[0, axis] = np.nextafter(1.0, 0.0)
    columns = evaluator(np.concatenate([point, best]))
    for name in ("chat.prefill_s", "chat.decode_s", "eye.inference_s"):
        assert columns[name][1] <= columns[name][0] * (1 + 1e-12)
    assert columns["area_mm2"][1] >= columns["area_mm2"][0] - 1e-9


def _cached(_found: list[tuple[Study, Evaluator]] = []) -> tuple[Study, Evaluator]:  # noqa: B006  (one per process, on purpose)
    if not _found:
        import tempfile

        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "study.yaml"
            path.write_text(TEXT)
            study = read_study(path)
            evaluator = Evaluator(study)
            evaluator(grid((1,) * len(study.space.knobs), 0, 1))
            _found.append((study, evaluator))
    return _found[0]


def test_shares_sum_to_one(read: Study, evaluator: Evaluator) -> None:
    shares = evaluator.shares(uniform(read.space.levels, 0, 1, seed=4)[0])
    assert set(shares) == {"chat.prefill", "chat.decode", "eye.inference"}
    assert all(sum(parts.values()) == pytest.approx(1.0) for parts in shares.values())


def test_quality_is_that_of_the_records_and_refused_without_one(tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    path.write_text(TEXT.replace("objectives: [latency_s", "objectives: [quality_loss, latency_s"))
    study = read_study(path)
    points = uniform(study.space.levels, 0, 8, seed=1)
    columns, chosen = Evaluator(study)(points), study.space.decode(points)["chat.weights"]
    assert "eye.quality_loss" not in columns
    for weights, technique in (("q4_0", "rtn:bits=4,group=32"), ("q8_0", "rtn:bits=8")):
        loss = quality_effects(technique, fixture="fx1")[0].loss
        assert set(columns["quality_loss"][chosen == weights]) == {max(0.0, loss)}
    path.write_text(path.read_text().replace("q4_0, q8_0", "q4_k_m"))
    study = read_study(path)
    with pytest.raises(StudyError, match=r"study.yaml:11: workload chat: .*no experiment has measured weights 'q4_k_m'"):
        refuse_hopeless(study, Evaluator(study))
    path.write_text(TEXT.replace("objectives: [latency_s", "objectives: [eye.quality_loss, latency_s"))
    study = read_study(path)
    with pytest.raises(StudyError, match="measured for language models alone"):
        refuse_hopeless(study, Evaluator(study))
