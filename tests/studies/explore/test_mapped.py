"""Mapped studies: the mapper's own answers within the stated gap, the same bits in any order, one answer for all that agree."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from orchard.cost.mapped import estimate
from orchard.cost.nest import count
from orchard.mapping.nest import Loop
from orchard.search.sampling import grid
from orchard.studies.errors import StudyError
from orchard.studies.explore import mapped
from orchard.studies.explore.evaluate import Evaluator
from orchard.studies.explore.mapped import GAP, Counted, Machines, dealt_out
from orchard.studies.explore.run import explore, study_hash
from orchard.studies.explore.study import Study, read_study
from orchard.studies.map_model import Space, map_model
from orchard.studies.request import Request

TEXT = """\
chip: m4
fidelity: mapped
knobs:
  ane.cores: [5, 16]
  dram.transfer_rate: [4000MT/s, 9600MT/s]
  gpu.cores: [8, 10]
  slc.size: [4MiB, 16MiB]
workloads:
  eye: {model: vit-base-patch16-224, engine: ane}
objectives: [latency_s, area_mm2]
"""


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mapped, "default_folder", lambda: folder)
        yield folder


@pytest.fixture(scope="module")
def read(tmp_path_factory: pytest.TempPathFactory) -> Study:
    path: Path = tmp_path_factory.mktemp("study") / "study.yaml"
    path.write_text(TEXT)
    return read_study(path)


@pytest.fixture(scope="module")
def columns(read: Study) -> dict[str, np.ndarray]:
    evaluator = Evaluator(read)
    evaluator.prepare(1)
    return evaluator(grid(read.space.levels, 0, read.designs))


def test_each_design_is_what_the_mapper_finds_for_it(read: Study, columns: dict[str, np.ndarray], cache: Path) -> None:
    values = read.space.decode(grid(read.space.levels, 0, read.designs))
    for row in (0, 15):
        changes = tuple(f"{name}={column[row]!s}" for name, column in values.items())
        request = Request(model="vit-base-patch16-224", engine="ane", chip="m4", overrides=changes)
        phase = map_model(request, Space(cache=mapped.MappingCache(cache))).phases[0]
        assert columns["eye.latency_s"][row] == pytest.approx(phase.attainable_s, rel=GAP)
        assert columns["eye.latency_s"][row] >= (phase.bound_s or 0.0)


def test_figures_of_other_engines_make_no_variant(read: Study, columns: dict[str, np.ndarray]) -> None:
    times = Evaluator(read).options["eye"][0].mapped
    assert times is not None
    assert set(times.figures) == {"ane.cores", "dram.transfer_rate", "slc.size"}
    gpu = read.space.decode(grid(read.space.levels, 0, read.designs))["gpu.cores"]
    assert np.array_equal(columns["eye.latency_s"][gpu == 8], columns["eye.latency_s"][gpu == 10])


def test_the_same_bits_in_any_order(read: Study, columns: dict[str, np.ndarray]) -> None:
    backwards = Evaluator(read)
    points = grid(read.space.levels, 0, read.designs)
    for row in (15, 6):
        assert backwards(points[row : row + 1])["eye.latency_s"][0] == columns["eye.latency_s"][row]


def test_more_of_a_figure_is_never_slower_beyond_the_gap(read: Study, columns: dict[str, np.ndarray]) -> None:
    latency = columns["eye.latency_s"].reshape(read.space.levels)
    for axis in range(4):
        less, more = np.take(latency, 0, axis), np.take(latency, 1, axis)
        assert (more <= less * (1 + GAP)).all()


def test_counts_side_by_side_are_those_of_one_machine(read: Study) -> None:
    """The array form against `cost.mapped.estimate`, on nests dealt out over other copies than they were found for."""
    times = Evaluator(read).options["eye"][0].mapped
    assert times is not None
    found = [times._machine(s, 16, 1.0) for s in ((5.0, 4e9, 4e6), (16.0, 9.6e9, 16e6), (7.0, 4e9, 16e6))]
    checked = 0
    for product in times._at_corners()[:6]:
        for arch in found:
            for nest in (n for first in times._portfolio(product) for n in dealt_out(first, product.problem, arch)):
                counted = Counted.of(nest, product.problem, arch)
                if counted is not None:
                    cycles, computes = counted.cycles(Machines.of([arch]), arch.compute.macs_per_cycle)
                    single = estimate(count(nest, product.problem, arch), product.problem, arch)
                    if np.isfinite(cycles[0]):
                        assert cycles[0] == pytest.approx(single.latency_cycles, rel=1e-12)
                        assert bool(computes[0]) == (single.bound_by == arch.compute.name)
                        checked += 1
    assert checked > 10


def test_loops_are_dealt_out_over_the_copies_there_are(read: Study) -> None:
    times = Evaluator(read).options["eye"][0].mapped
    assert times is not None
    product = next(p for p in times._at_corners() if any(isinstance(n, Loop) and n.axis for n in times._portfolio(p)[0].nodes))
    first = times._portfolio(product)[0]
    fewer = times._machine((5.0, 9.6e9, 16e6), 16, 1.0)
    nests = list(dealt_out(first, product.problem, fewer))
    assert nests[0] == first
    assert Counted.of(first, product.problem, fewer) is None, "found for 16 copies"
    legal = [counted for nest in nests[1:] if (counted := Counted.of(nest, product.problem, fewer)) is not None]
    assert min(c.steps for c in legal) <= 1.1 * product.problem.macs / 5
    without = replace(fewer, nodes=tuple(n for n in fewer.nodes if n.name != "cores"))
    assert list(dealt_out(first, product.problem, without)) == [first]


def test_fidelity_is_part_of_the_study(read: Study, tmp_path: Path) -> None:
    path = tmp_path / "estimate.yaml"
    path.write_text(TEXT.replace("fidelity: mapped\n", ""))
    assert study_hash(read_study(path)) != study_hash(read)
    path.write_text(TEXT.replace("fidelity: mapped", "fidelity: measured"))
    with pytest.raises(StudyError, match=r"estimate.yaml:2: fidelity 'measured' is not known.*estimate, mapped"):
        read_study(path)
    path.write_text(TEXT)
    outcome = explore(path, tmp_path / "run")
    assert outcome.study.fidelity == "mapped"
    assert all(sum(parts.values()) == pytest.approx(1.0) for parts in outcome.shares[0].values())
