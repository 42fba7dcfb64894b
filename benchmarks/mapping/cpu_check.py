"""This machine's CPU as the architecture: do predicted tilings rank like measured ones, and is the traffic what a cache sees?

Twenty tilings of one GEMM, chosen to spread over the predicted cost, are emitted as C, compiled with -O2, and timed (best CPU
time of several runs). Predicted cycles: MACs plus words at each cache's port. Then the traffic beyond the last simulated level is
compared with valgrind's cachegrind (lines fetched by read and write misses x line size).

    python benchmarks/mapping/cpu_check.py --m 960 --k 960 --n 960

The caches are fully associative with LRU in the model (see `with_marks`), 8- to 16-way in the machine and in cachegrind.
"""

from __future__ import annotations

import argparse
import itertools
import re
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "src"), str(Path(__file__).parent)]

import numpy as np  # noqa: E402
from record import table, write  # noqa: E402
from scipy.stats import spearmanr  # noqa: E402

from orchard.cost.mapped import estimate  # noqa: E402
from orchard.cost.nest import count  # noqa: E402
from orchard.hw.arch import Architecture, Compute, Level  # noqa: E402
from orchard.ir import parse_einsum  # noqa: E402
from orchard.mapping import Keep, Loop, Nest, Problem, nest_errors  # noqa: E402
from orchard.mapping.emit import emit_c  # noqa: E402

WORD = 4  # bytes: float
LINE = 64  # bytes per cache line


def cache_sizes() -> dict[int, int]:
    """Bytes per data or unified cache level of CPU 0, from /sys; 32 KiB and 1 MiB where it does not say."""
    found = {}
    for folder in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        if (folder / "type").read_text().strip() != "Instruction":
            text = (folder / "size").read_text().strip()
            found[int((folder / "level").read_text())] = int(text[:-1]) * {"K": 1024, "M": 1024**2}[text[-1]]
    return found or {1: 32 * 1024, 2: 1024**2}


def machine(first: int, second: int) -> Architecture:
    """Memory, two caches, registers, one vector lane. Transfers are added to compute (`single`): a core hides little of them.

    Words per cycle are round figures, not fitted: -O2 uses 128-bit registers, so 4 MACs and 12 words (two loads, one store)
    from L1; one line of 16 words from L2; a quarter of it from beyond.
    """
    return Architecture(
        name="cpu",
        nodes=(
            Level(name="MEM", bandwidth=4.0, buffering="single"),
            Level(name="L2", capacity_words=second // WORD, bandwidth=16.0, buffering="single", may_keep=frozenset("IWO")),
            Level(name="L1", capacity_words=first // WORD, bandwidth=12.0, buffering="single", may_keep=frozenset("IWO")),
        ),
        compute=Compute(macs_per_cycle=4.0),
        word_bits=32,
    )


@dataclass(frozen=True)
class Tiling:
    name: str
    nest: Nest
    cycles: float
    memory_bytes: float


def with_marks(loops: tuple[Loop, ...], problem: Problem, arch: Architecture) -> Nest:
    """The loops with each cache's marks where LRU would keep things: the outermost place whose tiles fit, with room for the tiles
    that the next loop outwards brings in before the stationary ones are used again."""
    size = dict(problem.sizes)
    needs = []
    for loop in (None, *loops):
        if loop is not None:
            size[loop.dim] = loop.tile
        words = {t: _held_words([size[axis.dims[0]] for axis in problem.access(t)]) for t in problem.tensors}
        moved = sum(w for t, w in words.items() if loop is not None and loop.dim in problem.dims_of(t))
        needs.append(sum(words.values()) + moved)
    nodes: list[Loop | Keep] = []
    levels = list(arch.levels[1:])
    for need, loop in zip(needs, (*loops, None)):
        while levels and need <= (levels[0].capacity_words or 0):  # type: ignore[operator]
            name = levels.pop(0).name
            nodes += [Keep(name, t) for t in problem.tensors]
        if loop is not None:
            nodes.append(loop)
    return Nest(tuple(nodes))


def _held_words(shape: list[int]) -> int:
    """Words that a tile holds in a cache: whole lines of each row."""
    return shape[0] * -(-shape[1] * WORD // LINE) * LINE // WORD


def tilings(problem: Problem, arch: Architecture) -> list[Tiling]:
    """Every order of the block loops x tiles x two orders inside a block; n runs innermost, along the rows of B and C."""
    found = []
    sizes = [d for d in (16, 32, 48, 64, 96, 160, 192, 240, 320, 480, 960) if problem.sizes["m"] % d == 0]
    for order, inside in itertools.product(itertools.permutations("mkn"), ("mkn", "kmn")):
        for tm, tk, tn in itertools.product(sizes, repeat=3):
            if tn < problem.sizes["n"] // 8:
                continue  # short rows cost loop overhead, which no memory model sees
            tiles = {"m": tm, "k": tk, "n": tn}
            loops = tuple(Loop(d, tiles[d]) for d in order if tiles[d] < problem.sizes[d])
            nest = with_marks((*loops, *(Loop(d, 1) for d in inside)), problem, arch)
            counts = count(nest, problem, arch)
            traffic = sum(counts.traffic["MEM", t].reads + counts.traffic["MEM", t].writes for t in problem.tensors)
            name = f"{''.join(order)} {tm}x{tk}x{tn} {inside}"
            found.append(Tiling(name, nest, estimate(counts, problem, arch).latency_cycles, traffic * WORD))
    nest_errors(found[0].nest, problem, arch)
    return found


def spread(every: list[Tiling], wanted: int) -> list[Tiling]:
    """`wanted` tilings at even steps of the logarithm of the predicted cycles, so that cheap and dear ones are both there."""
    ranked = sorted(every, key=lambda t: (t.cycles, t.memory_bytes, t.name))
    cycles = np.log([t.cycles for t in ranked])
    steps = np.linspace(cycles[0], cycles[-1], wanted)
    places: list[int] = []
    for step in steps:
        nearest = (i for i in np.argsort(np.abs(cycles - step), kind="stable") if i not in places)
        places.append(int(next(nearest)))
    return [ranked[i] for i in sorted(places)]


def build(tiling: Tiling, problem: Problem, arch: Architecture, folder: Path, *flags: str) -> Path:
    source, binary = folder / "nest.c", folder / re.sub(r"\W", "_", tiling.name)
    source.write_text(emit_c(tiling.nest, problem, arch, {}))
    subprocess.run(["cc", "-std=c99", "-O2", "-DELEM=float", *flags, str(source), "-o", str(binary)], check=True)
    return binary


def best_cpu_seconds(binary: Path, runs: int) -> float:
    """Least user time of a process that runs the plain nest once, of `runs` processes."""
    import resource

    best = float("inf")
    for _ in range(runs):
        before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
        subprocess.run([str(binary), "1"], check=True, timeout=120)
        best = min(best, resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before)
    return best


def cachegrind_bytes(binary: Path, first: int, last: int, ways: int) -> float:
    """Bytes of lines that miss the last simulated cache, by reads and writes of data."""
    command = ["valgrind", "--tool=cachegrind", "--cache-sim=yes", f"--D1={first},8,{LINE}", f"--LL={last},{ways},{LINE}",
               "--cachegrind-out-file=/dev/null", str(binary)]  # fmt: skip
    misses = []
    for repeats in ("0", "1"):
        ended = subprocess.run([*command, repeats], capture_output=True, text=True, check=True, timeout=500)
        match = re.search(r"LLd misses:\s+([\d,]+)", ended.stderr)
        assert match is not None, ended.stderr[-500:]
        misses.append(int(match[1].replace(",", "")))
    return (misses[1] - misses[0]) * LINE


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for dim in "mkn":
        options.add_argument(f"--{dim}", type=int, default=960)
    options.add_argument("--tilings", type=int, default=20)
    options.add_argument("--runs", type=int, default=5)
    options.add_argument("--seconds", type=float, default=900, help="wall seconds; later tilings are then left out")
    options.add_argument("--grind", type=int, default=192, help="cube that cachegrind simulates, with its own small caches")
    given = options.parse_args()
    stop = time.monotonic() + given.seconds
    einsum = parse_einsum("m k, k n -> m n")
    problem = Problem("gemm", einsum, {"m": given.m, "k": given.k, "n": given.n}, ("A", "B", "C"))
    sizes = cache_sizes()
    arch = machine(sizes[1], sizes.get(2, 1024**2))
    lines = [f"`python benchmarks/mapping/cpu_check.py {' '.join(sys.argv[1:])}`", ""]
    lines.append(f"Caches from /sys: {', '.join(f'L{k} {v // 1024} KiB' for k, v in sizes.items())}.")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = []
        for tiling in spread(tilings(problem, arch), given.tilings):
            if time.monotonic() > stop:
                break
            seconds = best_cpu_seconds(build(tiling, problem, arch, folder), given.runs)
            rows.append((tiling.name, f"{tiling.cycles:.4g}", f"{tiling.memory_bytes / 1e6:.2f}", f"{seconds:.3f}"))
            print(*rows[-1], flush=True)
        rank = spearmanr([float(r[1]) for r in rows], [float(r[3]) for r in rows]).statistic
        lines += ["", f"Ranking, {given.m} x {given.k} x {given.n}, float, -O2, best of {given.runs} (user time): "
                  f"**Spearman {rank:.2f}** over {len(rows)} tilings.", ""]  # fmt: skip
        lines += table(["blocks, tile, inside", "predicted cycles", "predicted memory MB", "measured s"], rows)
        if shutil.which("valgrind") is not None:
            lines += traffic_part(given.grind, folder, stop)
    print(write("cpu_check", "This machine's CPU as the architecture", lines))


def traffic_part(cube: int, folder: Path, stop: float) -> list[str]:
    """Predicted bytes beyond the last cache against cachegrind's, on a small cube with small caches."""
    einsum = parse_einsum("m k, k n -> m n")
    problem = Problem("gemm", einsum, dict.fromkeys("mkn", cube), ("A", "B", "C"))
    first, last = 8 * 1024, 64 * 1024
    arch = machine(first, last)
    rows, errors = [], []
    for tiling in spread(tilings(problem, arch), 12):
        if time.monotonic() > stop:
            break
        counts = count(tiling.nest, problem, arch)
        # A line that is written comes and goes; cachegrind counts the fetch only, so write-backs are left out on our side.
        fetched = sum(counts.traffic["MEM", t].reads for t in problem.inputs) + counts.traffic["MEM", "C"].writes
        binary = build(tiling, problem, arch, folder)
        full, some = (cachegrind_bytes(binary, first, last, ways) for ways in (last // LINE, 16))
        errors.append(fetched * WORD / full - 1)
        in_sets = fetched * WORD / some - 1
        rows.append((tiling.name, f"{fetched * WORD / 1e6:.3f}", f"{full / 1e6:.3f}", f"{errors[-1]:+.1%}",
                     f"{some / 1e6:.3f}", f"{in_sets:+.1%}"))  # fmt: skip
        print(*rows[-1], flush=True)
    within = sum(abs(e) <= 0.15 for e in errors)
    worst = max(errors, key=abs) if errors else float("nan")
    head = [f"Fetched beyond the last cache, {cube}^3, cachegrind with D1 {first // 1024} KiB 8-way and LL {last // 1024} KiB, "
            f"fully associative: **{within} of {len(errors)} within 15 %**, worst {worst:+.1%}.", ""]  # fmt: skip
    columns = ["blocks, tile, inside", "predicted MB", "fully associative MB", "error", "16-way MB", "error"]
    return ["", *head, *table(columns, rows)]


if __name__ == "__main__":
    main()
