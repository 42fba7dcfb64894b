"""How many designs a second, and a ten-million-point grid: python benchmarks/explore/throughput.py [--grid]

Basket: an 8B language model (prefill and decode) and three vision networks. Prints a table.
Wall and processor time stand side by side, as other work on the machine slows the former.
"""

from __future__ import annotations

import resource
import sys
import tempfile
import time
from pathlib import Path

from orchard.search.sampling import grid, uniform
from orchard.studies.explore.evaluate import Evaluator
from orchard.studies.explore.run import Pool, explore
from orchard.studies.explore.study import read_study

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


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "study.yaml"
        path.write_text(STUDY)
        study = read_study(path)
        evaluator = Evaluator(study)
        evaluator(grid(study.space.levels, 0, 10))
        print(f"space of {study.designs:,} designs\n")
        print("| what | designs | wall s | processor s | designs per wall s | per processor s |\n|---|---|---|---|---|---|")
        for name, points in (
            ("evaluate, grid order", grid(study.space.levels, 3_000_000, 3_081_920)),
            ("evaluate, random order", uniform(study.space.levels, 0, 81_920, seed=1)),
        ):
            wall, cpu = time.perf_counter(), time.process_time()
            evaluator(points)
            row(name, len(points), time.perf_counter() - wall, time.process_time() - cpu)
        if "--grid" in sys.argv:
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            wall, cpu = time.perf_counter(), time.process_time()
            outcome = explore(study, Path(folder) / "run", pool=Pool(workers=2))
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            spent = time.process_time() - cpu + after.ru_utime - before.ru_utime
            row("whole run, two workers", outcome.evaluated, time.perf_counter() - wall, spent)
            peak = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss + 2 * after.ru_maxrss) / 2**20
            print(f"\nfront {len(outcome.front['index'])} designs; at most {peak:.2f} GiB in the driver and two workers together")


def row(name: str, designs: int, wall: float, cpu: float) -> None:
    print(f"| {name} | {designs:,} | {wall:.1f} | {cpu:.1f} | {designs / wall:,.0f} | {designs / cpu:,.0f} |", flush=True)


if __name__ == "__main__":
    main()
