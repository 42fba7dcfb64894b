"""Ray and Dask for real: the same study on a local cluster of two workers, one of them killed in the middle.

    python benchmarks/explore/cluster.py [loky] [dask] [ray]     prints a table; needs pip install 'orchard[dask,ray]'

Each run has to end with the digest of a run in one process.
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from orchard.studies.explore.run import Pool, explore
from orchard.studies.explore.store import Store

STUDY = """\
chip: m4
knobs:
  gpu.cores: {from: 6, to: 45, steps: 40}
  gpu.clock: {from: 1.0GHz, to: 2.0GHz, steps: 10}
  dram.transfer_rate: {from: 6000MT/s, to: 12000MT/s, steps: 13}
  ane.cores: [8, 16, 24, 32]
workloads:
  chat: {model: llama-3.1-8b, weights: q4_k_m, prompt: 512, generate: 128}
  eye: {model: resnet50, engine: ane, weight: 30}
objectives: [latency_s, area_mm2]
search: {batch: 1000}
"""


def workers_of(name: str) -> list[psutil.Process]:
    """Worker processes below this one, by what their command lines say."""
    found = []
    for child in psutil.Process().children(recursive=True):
        try:
            line = " ".join(child.cmdline())
        except psutil.Error:
            continue
        if name == "loky" and "loky" in line and "resource_tracker" not in line:
            found.append(child)
        if name == "dask" and "spawn_main" in line:
            found.append(child)
        if name == "ray" and line.startswith("ray::PoolActor"):  # not the agents of the node, also titled ray::
            found.append(child)
    return found


def killer(name: str, store: Store, done: threading.Event) -> Callable[[], None]:
    """Kills one worker once a tenth of the parts is there."""

    def run() -> None:
        while not done.is_set():
            if len(store.finished()) >= 10:
                workers = workers_of(name)
                if workers:
                    os.kill(workers[0].pid, signal.SIGKILL)
                    print(f"  killed worker {workers[0].pid} of {name}", file=sys.stderr)
                    return
            time.sleep(0.02)

    return run


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        study = Path(folder) / "study.yaml"
        study.write_text(STUDY)
        began = time.perf_counter()
        alone = explore(study, Path(folder) / "alone")
        print("| run | seconds | same bits as one process |\n|---|---|---|")
        print(f"| one process | {time.perf_counter() - began:.1f} | |")
        for name in sys.argv[1:] or ("loky", "dask", "ray"):
            for kill in (False, True):
                run = Path(folder) / f"{name}{kill}"
                done = threading.Event()
                thread = threading.Thread(target=killer(name, Store(run), done)) if kill else None
                if thread:
                    thread.start()
                began = time.perf_counter()
                try:
                    outcome = explore(study, run, pool=Pool(workers=2, backend=name))
                    same = "yes" if outcome.digest == alone.digest else "NO"
                except Exception as error:
                    same = f"failed: {type(error).__name__}: {str(error)[:80]}"
                seconds = time.perf_counter() - began
                done.set()
                if thread:
                    thread.join()
                print(f"| {name}, two workers{', one killed' if kill else ''} | {seconds:.1f} | {same} |", flush=True)


if __name__ == "__main__":
    main()
