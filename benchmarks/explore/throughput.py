"""Designs a second; two workers against one; what a batch costs on each backend; a ten-million-point grid; mapped studies.

    python benchmarks/explore/throughput.py           designs a second of one process
    python benchmarks/explore/throughput.py --all     everything (five minutes on two idle cores), the tables of results.md

Basket: an 8B language model (prefill and decode) and three vision networks. Wall and processor time stand side by side, as other
work on the machine slows the former. Mapped studies run in a cache folder of their own: once cold, once from what that left.
"""

from __future__ import annotations

import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from orchard.search.sampling import grid, latin_hypercube, uniform
from orchard.studies.explore.evaluate import Evaluator
from orchard.studies.explore.run import Pool
from orchard.studies.explore.run import mapped as mapped_over
from orchard.studies.explore.store import Part
from orchard.studies.explore.study import Study, read_study

STUDY = """\
name: ten-million
chip: m4
knobs:
  gpu.cores: {from: 6, to: 45, steps: 40}
  gpu.clock: {from: 1.0GHz, to: 2.0GHz, steps: 25}
  dram.transfer_rate: {from: 6000MT/s, to: 12000MT/s, steps: 25}
  dram.bus_width: [64bit, 128bit, 192bit, 256bit, 384bit]
  ane.cores: [8, 16, 24, 32]
  ane.clock: {from: 1.5GHz, to: 3GHz, steps: 5}
  slc.size: [4MiB, 8MiB, 16MiB, 32MiB]
workloads:
  chat: {model: llama-3.1-8b, weights: q4_k_m, prompt: 512, generate: 128}
  resnet: {model: resnet50, engine: ane, weight: 30}
  mobile: {model: mobilenet-v2-1.0, engine: ane, weight: 30}
  vit: {model: vit-base-patch16-224, engine: ane, weight: 30}
objectives: [latency_s, area_mm2, power_w]
constraints: ["area_mm2 <= 300", "power_w <= 40"]
"""


MAPPED = (
    STUDY.replace("name: ten-million", "name: mapped\nfidelity: mapped")
    .replace("{from: 6, to: 45, steps: 40}", "{from: 8, to: 24, steps: 9}")
    .replace("{from: 1.0GHz, to: 2.0GHz, steps: 25}", "{from: 1.2GHz, to: 1.8GHz, steps: 4}")
    .replace("{from: 6000MT/s, to: 12000MT/s, steps: 25}", "{from: 6400MT/s, to: 9600MT/s, steps: 3}")
    .replace("[64bit, 128bit, 192bit, 256bit, 384bit]", "[128bit, 192bit, 256bit]")
    .replace("{from: 1.5GHz, to: 3GHz, steps: 5}", "{from: 1.8GHz, to: 2.8GHz, steps: 4}")
    .replace("[4MiB, 8MiB, 16MiB, 32MiB]", "[8MiB, 16MiB, 32MiB]")
)
"""15,552 designs on 972 variants of the GPU and 432 of the Neural Engine."""
BATCHES = 1000


def main() -> None:
    print("; ".join(machine()), "\n")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        study = written(folder, "grid", STUDY)
        one_process(study)
        if "--all" in sys.argv or "--grid" in sys.argv:
            whole_runs(folder, study)
        if "--all" in sys.argv:
            overheads(folder)
        if "--all" in sys.argv or "--mapped" in sys.argv:
            mapped(folder)


def machine() -> list[str]:
    load = ", ".join(f"{x:.1f}" for x in os.getloadavg())
    return [platform.platform(), f"{os.cpu_count()} cores", f"Python {platform.python_version()}", f"load before {load}"]


def written(folder: Path, name: str, text: str) -> Study:
    path = folder / f"{name}.yaml"
    path.write_text(text)
    return read_study(path)


def one_process(study: Study) -> None:
    evaluator = Evaluator(study)
    evaluator(grid(study.space.levels, 0, 10))
    print(f"space of {study.designs:,} designs\n")
    header("what", "designs", "wall s", "processor s", "designs per wall s", "per processor s")
    for name, points in (
        ("evaluate, grid order", grid(study.space.levels, 3_000_000, 3_081_920)),
        ("evaluate, random order", uniform(study.space.levels, 0, 81_920, seed=1)),
        ("evaluate, Latin hypercube", latin_hypercube(study.space.levels, 81_920, seed=1)),
    ):
        best = min((timed(lambda points=points: evaluator(points)) for _ in range(3)), key=lambda t: t[1])
        row(name, len(points), *best)


def timed(work: Callable[[], object]) -> tuple[float, float]:
    """Wall and processor seconds, processes that ended meanwhile included."""

    def processor() -> float:
        children = resource.getrusage(resource.RUSAGE_CHILDREN)
        return time.process_time() + children.ru_utime + children.ru_stime

    wall, cpu = time.perf_counter(), processor()
    work()
    return time.perf_counter() - wall, processor() - cpu


def in_new_process(study: Study, run: Path, workers: int) -> None:
    """A run in a process of its own, so that its workers' time is counted and nothing is warm."""
    code = (
        "import sys; from pathlib import Path; from orchard.studies.explore.run import Pool, explore; "
        "explore(sys.argv[1], Path(sys.argv[2]), pool=Pool(workers=int(sys.argv[3])))"
    )
    subprocess.run([sys.executable, "-c", code, study.file, str(run), str(workers)], check=True)


def whole_runs(folder: Path, study: Study) -> None:
    """The whole grid with its front on two workers and on one process."""
    print("\nwhole runs, start of workers included\n")
    header("what", "designs", "wall s", "processor s", "designs per wall s", "per processor s")
    walls = {}
    for workers in (2, 1):
        times = timed(lambda workers=workers: in_new_process(study, folder / f"run{workers}", workers))
        row(f"whole grid, {'two workers' if workers == 2 else 'one process'}", study.designs, *times)
        walls[workers] = times[0]
        if workers == 2:
            peak = 3 * resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
    print(f"\ntwo workers give {walls[1] / walls[2]:.2f} x of one process")
    print(f"at most {peak:.2f} GiB on two workers: three times the largest of the driver and its two workers")


def overheads(folder: Path) -> None:
    """What 1,000 batches cost that do nothing but send a study and give a typical part back."""
    study = written(folder, "overhead", STUDY)
    points = grid(study.space.levels, 0, 200)
    part = Part({"index": np.arange(200), **Evaluator(study)(points)}, 8192, 8000)
    print(f"\n{BATCHES:,} batches of no work, each gives a part of 200 designs back, two workers; a real batch takes 80 ms\n")
    header("backend", "start and stop s", "ms per batch")
    for backend in ("loky", "dask", "ray"):
        began = time.perf_counter()
        try:
            with mapped_over(Pool(workers=2, backend=backend)) as run:
                list(run(give_back, ((study, part) for _ in range(4))))
                ready = time.perf_counter()
                list(run(give_back, ((study, part) for _ in range(BATCHES))))
                done = time.perf_counter()
        except Exception as error:
            print(f"| {backend} | failed: {type(error).__name__}: {str(error)[:80]} | |", flush=True)
            continue
        start_stop = time.perf_counter() - done + ready - began
        print(f"| {backend} | {start_stop:.1f} | {1e3 * (done - ready) / BATCHES:.2f} |", flush=True)


def give_back(study: Study, part: Part) -> Part:
    del study
    return part


def mapped(folder: Path) -> None:
    os.environ["XDG_CACHE_HOME"] = str(folder / "cache")
    print("\nmapped fidelity, two workers, start of workers included\n")
    header("what", "designs", "wall s", "processor s", "designs per wall s", "per processor s")
    study = written(folder, "mapped", MAPPED)
    for name in ("cold", "from the cache"):
        row(f"mapped, {name}", study.designs, *timed(lambda name=name: in_new_process(study, folder / name, 2)))


def header(*names: str) -> None:
    print("| " + " | ".join(names) + " |\n" + "|---" * len(names) + "|")


def row(name: str, designs: int, wall: float, cpu: float) -> None:
    print(f"| {name} | {designs:,} | {wall:.1f} | {cpu:.1f} | {designs / wall:,.0f} | {designs / cpu:,.0f} |", flush=True)


if __name__ == "__main__":
    main()
