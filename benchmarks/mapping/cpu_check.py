"""This machine's CPU as the architecture: do predicted tilings rank like measured ones, and is the traffic what a cache sees?

Twenty tilings of one GEMM, chosen to spread over the predicted cost, are emitted as C, compiled with -O2 -march=native, and
timed (best CPU time of several runs). Predicted: MACs, rows begun and words at each cache's port, at what sums of rows cost.
Then the traffic beyond the last simulated level is compared with valgrind's cachegrind (lines fetched by misses x line size).

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

from orchard.cost.nest import Counts, count  # noqa: E402
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


STREAM = r"""
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#ifdef WRITES
#define TO row
#define FROM y
#else
#define TO y
#define FROM row
#endif
static double now(void) { struct timespec t; clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t); return t.tv_sec * 1e9 + t.tv_nsec; }
static float y[N];
int main(int argc, char **argv) {
  long rows = atol(argv[1]), rounds = atol(argv[2]); (void)argc;
  float *x = malloc(rows * N * sizeof(float)); double best = 1e300;
  for (long i = 0; i < rows * N; i++) x[i] = i % 7;
  for (int again = 0; again < 7; again++) {
    double start = now();
    for (long r = 0; r < rounds; r++)
      for (long i = 0; i < rows; i++) {
        float *row = x + i * N; float a = 1.0f + r;
        for (int j = 0; j < N; j++) TO[j] += a * FROM[j];
      }
    double each = (now() - start) / ((double)rounds * rows * N);
    if (each < best) best = each;
  }
  volatile float sink = y[1]; (void)sink;
  printf("%.6f\n", best);
}
"""
FLAGS = ("-std=gnu99", "-O2", "-march=native")


@dataclass(frozen=True)
class Costs:
    """ns per MAC with all data in L1, per inner loop begun, per word from L2 to L1 and back, and more per word from and to memory
    beyond. Measured with sums of scaled rows (`STREAM`): one row stays, the others walk a third of L1, half of L2, and
    four times L2, read, or read and written. No product of matrices is looked at."""

    mac: float
    row: float
    near: float
    near_back: float
    far: float
    far_back: float

    def seconds(self, counts: Counts, problem: Problem, rows: float) -> float:
        """Everything one after the other: a core hides little of its misses, and the figures are differences of sums."""
        memory, cache = ([counts.traffic[level, t] for t in problem.tensors] for level in ("MEM", "L2"))
        near = sum(c.reads for c in cache) - memory[-1].writes  # what L2 sends down to L1, not up to memory
        back = cache[-1].writes - memory[-1].reads
        ns = self.mac * problem.macs + self.row * rows + self.near * near + self.near_back * back
        ns += self.far * sum(m.reads for m in memory) + self.far_back * memory[-1].writes
        return ns * 1e-9


def measured(first: int, second: int, folder: Path) -> Costs:
    def each(length: int, size: int, *flags: str) -> float:
        source, binary = folder / "stream.c", folder / "stream"
        source.write_text(STREAM)
        subprocess.run(["cc", *FLAGS, *flags, f"-DN={length}", str(source), "-o", str(binary)], check=True)
        rows = max(1, size // (length * WORD))
        rounds = max(1, 40_000_000 // (rows * length))
        return float(subprocess.run([str(binary), str(rows), str(rounds)], check=True, capture_output=True, text=True).stdout)

    long, short = 960, 64
    sizes = (first // 3, second // 2, 4 * second)
    (near, middle, far), brief = (each(long, size) for size in sizes), each(short, sizes[0])
    near_back, middle_back, far_back = (each(long, size, "-DWRITES") for size in sizes)
    row = max(0.0, (brief - near) / (1 / short - 1 / long))
    down, beyond = max(0.0, middle - near), max(0.0, far - middle)
    return Costs(near - row / long, row, down, max(0.0, middle_back - near_back - down),
                 beyond, max(0.0, far_back - middle_back - beyond))  # fmt: skip


def machine(first: int, second: int) -> Architecture:
    """Memory, two caches, registers, one vector lane; only words are counted here."""
    roles = frozenset("IWO")
    return Architecture(
        name="cpu",
        nodes=(
            Level(name="MEM"),
            Level(name="L2", capacity_words=second // WORD, may_keep=roles),
            Level(name="L1", capacity_words=first // WORD, may_keep=roles),
        ),
        compute=Compute(),
        word_bits=32,
    )


@dataclass(frozen=True)
class Tiling:
    name: str
    nest: Nest
    seconds: float
    memory_bytes: float


def with_marks(loops: tuple[Loop, ...], problem: Problem, arch: Architecture) -> Nest:
    """The loops with marks where an LRU cache keeps each tensor: just outside the outermost loop that does not move the tensor
    and between whose steps no more than the cache holds is touched (`between_uses`). A tensor that no loop reuses so comes anew
    for every step: its mark stands innermost."""
    reuse = [
        {t: between_uses(t, loops, at, problem) for t in problem.tensors if loop.dim not in problem.dims_of(t)}
        for at, loop in enumerate(loops)
    ]
    before: list[list[Keep]] = [[] for _ in range(len(loops) + 1)]
    for level in arch.levels[1:]:
        for t in problem.tensors:
            fits = (at for at, some in enumerate(reuse) if some.get(t, float("inf")) <= (level.capacity_words or 0))
            before[next(fits, len(loops))].append(Keep(level.name, t))
    nodes: list[Loop | Keep] = []
    for marks, loop in zip(before, (*loops, None)):
        nodes += [*marks, *([] if loop is None else [loop])]
    return Nest(tuple(nodes))


def between_uses(tensor: str, loops: tuple[Loop, ...], at: int, problem: Problem) -> int:
    """Words, in whole lines, touched between two uses of a word of `tensor` in neighbouring steps of the loop `at`, which does
    not move it: what LRU must hold to find the word again.

    The first loop inside that moves `tensor` decides. The word is used at one of its steps; in between lie the later steps of
    this round and the earlier ones of the next. A tensor that moves along is touched once round, with that step in both; one
    that stands still there is touched whole in both rounds, which counts twice if the rounds have different tiles. Loops further
    out that leave `tensor` alone use the word at every step: only their last step of one round and first of the next count.
    """
    sizes = dict(problem.sizes)
    for loop in loops[: at + 1]:
        sizes[loop.dim] = loop.tile
    total = 0
    for other in problem.tensors:
        dims, part = problem.dims_of(other), dict(sizes)
        whole = _lines(other, part, problem)
        row = problem.access(other)[-1].dims[0]
        near = loops[at].dim == row and loops[at].tile * WORD < LINE  # the next step is mostly on the same line
        differs = loops[at].dim in dims and not near
        most = 2 * whole if differs else whole
        touched = None
        for loop in () if other == tensor else loops[at + 1 :]:
            if loop.dim in problem.dims_of(tensor):
                touched = _lines(other, part, problem) * (2 if differs and loop.dim not in dims else 1)
                if loop.dim in dims and differs:
                    touched += _lines(other, {**part, loop.dim: loop.tile}, problem)
                break
            if loop.dim in dims and part[loop.dim] != loop.tile:
                part[loop.dim], differs = loop.tile, True
        total += min(most, 2 * _lines(other, part, problem) if touched is None else touched) if other != tensor else whole
    return total


def _lines(tensor: str, sizes: dict[str, int], problem: Problem) -> int:
    return _held_words([sizes[axis.dims[0]] for axis in problem.access(tensor)])


def _held_words(shape: list[int]) -> int:
    """Words that a tile holds in a cache: whole lines of each row."""
    return shape[0] * -(-shape[1] * WORD // LINE) * LINE // WORD


def tilings(problem: Problem, arch: Architecture, costs: Costs | None = None) -> list[Tiling]:
    """Every order of the block loops x tiles x two orders inside a block; n runs innermost, along the rows of B and C. Without
    costs the bytes that cross the outermost port stand for the time."""
    found = []
    sizes = [d for d in (16, 32, 48, 64, 96, 160, 192, 240, 320, 480, 960) if problem.sizes["m"] % d == 0]
    for order, inside in itertools.product(itertools.permutations("mkn"), ("mkn", "kmn")):
        for tm, tk, tn in itertools.product(sizes, repeat=3):
            if tn < problem.sizes["n"] // 8:
                continue  # the cost of beginning a row, one figure here, differs with what is around very short ones
            tiles = {"m": tm, "k": tk, "n": tn}
            loops = tuple(Loop(d, tiles[d]) for d in order if tiles[d] < problem.sizes[d])
            nest = with_marks((*loops, *(Loop(d, 1) for d in inside)), problem, arch)
            counts = count(nest, problem, arch)
            traffic = sum(counts.traffic["MEM", t].reads + counts.traffic["MEM", t].writes for t in problem.tensors)
            name = f"{''.join(order)} {tm}x{tk}x{tn} {inside}"
            seconds = traffic if costs is None else costs.seconds(counts, problem, problem.macs / tn)
            found.append(Tiling(name, nest, seconds, traffic * WORD))
    nest_errors(found[0].nest, problem, arch)
    return found


def spread(every: list[Tiling], wanted: int) -> list[Tiling]:
    """`wanted` tilings at even steps of the logarithm of the prediction, so that cheap and dear ones are both there. Of those
    within 2 % of each other, which no prediction tells apart, one stands for all."""
    apart: dict[int, Tiling] = {}
    for tiling in sorted(every, key=lambda t: (t.seconds, t.memory_bytes, t.name)):
        apart.setdefault(int(np.log(tiling.seconds) / 0.02), tiling)
    ranked = list(apart.values())
    logs = np.log([t.seconds for t in ranked])
    places: list[int] = []
    for step in np.linspace(logs[0], logs[-1], min(wanted, len(ranked))):
        nearest = (i for i in np.argsort(np.abs(logs - step), kind="stable") if i not in places)
        places.append(int(next(nearest)))
    return [ranked[i] for i in sorted(places)]


def build(tiling: Tiling, problem: Problem, arch: Architecture, folder: Path, *flags: str) -> Path:
    source, binary = folder / "nest.c", folder / re.sub(r"\W", "_", tiling.name)
    source.write_text(emit_c(tiling.nest, problem, arch, {}))
    subprocess.run(["cc", *FLAGS, "-DELEM=float", *flags, str(source), "-o", str(binary)], check=True)
    return binary


def best_cpu_seconds(binary: Path, runs: int) -> float:
    """Least user time of `runs` processes that run the plain nest four times, less that of some that do not, per nest."""
    import resource

    best = {"0": float("inf"), "4": float("inf")}
    for _ in range(runs):
        for repeats in best:
            before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
            subprocess.run([str(binary), repeats], check=True, timeout=120)
            best[repeats] = min(best[repeats], resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before)
    return (best["4"] - best["0"]) / 4


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
    second = sizes.get(2, 1024**2)
    lines = [f"`python benchmarks/mapping/cpu_check.py {' '.join(sys.argv[1:])}`", ""]
    lines.append(f"Caches from /sys: {', '.join(f'L{k} {v // 1024} KiB' for k, v in sizes.items())}.")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        costs = measured(sizes[1], second, folder)
        arch = machine(sizes[1], second)
        lines.append(f"Measured with sums of scaled rows, in ns: {costs.mac:.4f} per MAC, {costs.row:.2f} per row, per word "
                     f"from L2 {costs.near:.4f}, to L2 {costs.near_back:.4f}, more per word from beyond {costs.far:.4f}, "
                     f"to beyond {costs.far_back:.4f}.")  # fmt: skip
        print(lines[-1], flush=True)
        rows, pairs = [], []
        for tiling in spread(tilings(problem, arch, costs), given.tilings):
            if time.monotonic() > stop:
                break
            seconds = best_cpu_seconds(build(tiling, problem, arch, folder), given.runs)
            pairs.append((tiling.seconds, seconds))
            rows.append((tiling.name, f"{tiling.seconds:.4f}", f"{tiling.memory_bytes / 1e6:.2f}", f"{seconds:.4f}"))
            print(*rows[-1], flush=True)
        rank = spearmanr(*zip(*pairs)).statistic
        lines += ["", f"Ranking, {given.m} x {given.k} x {given.n}, float, {' '.join(FLAGS[1:])}, best of {given.runs} "
                  f"(user time): **Spearman {rank:.2f}** over {len(rows)} tilings.", ""]  # fmt: skip
        lines += table(["blocks, tile, inside", "predicted s", "predicted memory MB", "measured s"], rows)
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
