"""Fused chains against every fused mapping of tiny ones: attention, MLPs, reductions, convolutions with kept and repeated rows.

    python benchmarks/mapping/fused.py --chains 200 --sliding 100 --seconds 1200

A difference stops it with exit code 1 and the seed; chains with more mappings than --limit are left out.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / folder) for folder in ("src", "tests/studies", "tests/cost")]

from chain_exhaustive import TooMany, brute_chain, chain_case, sliding_case  # noqa: E402

from orchard.mapping import ImpossibleSpace  # noqa: E402
from orchard.studies.fuse import map_chain  # noqa: E402

sys.path.insert(0, str(Path(__file__).parent))
from record import table, write  # noqa: E402


def same(seed: int, case: Callable[[random.Random], Any], limit: int) -> tuple[bool | None, bool, bool]:
    """(agrees, or None where there are too many mappings; the answer shares loops of a window; it keeps rows)."""
    chain, arch, objective = case(random.Random(seed))
    try:
        best, _ = brute_chain(chain, arch, objective, limit)
    except TooMany:
        return None, False, False
    try:
        mapped = map_chain(chain, arch, objective)
    except ImpossibleSpace:
        return best is None, False, False
    equal = best is not None and mapped.optimal and abs(mapped.value - best[0]) <= 1e-9 * abs(best[0])
    groups = mapped.mapping.groups
    walked = any({x.dim for x in g.loops} & {d for w in chain.windows for d in w.axis.dims} for g in groups)
    return equal, walked, any(g.kept for g in groups)


def part(name: str, case: Callable[[random.Random], Any], wanted: int, limit: int, seconds: float) -> tuple[object, ...]:
    started, found, walked, kept, seed = time.process_time(), 0, 0, 0, 0
    while found < wanted and time.process_time() < started + seconds:
        equal, slides, keeps = same(seed, case, limit)
        if equal is False:
            sys.exit(f"{name}, seed {seed}: the mapper and enumeration differ")
        found, walked, kept, seed = found + (equal is True), walked + slides, kept + keeps, seed + 1
    row = (name, found, walked, kept, seed, f"{time.process_time() - started:.0f}")
    print(*row, sep=", ", flush=True)
    return row


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--chains", type=int, default=200)
    options.add_argument("--sliding", type=int, default=100)
    options.add_argument("--limit", type=int, default=3000, help="mappings per chain (ten times that for sliding ones)")
    options.add_argument("--seconds", type=float, default=1200, help="CPU seconds for each part")
    given = options.parse_args()
    rows = [
        part("random chains", chain_case, given.chains, given.limit, given.seconds),
        part("windows through small buffers", sliding_case, given.sliding, 10 * given.limit, given.seconds),
    ]
    columns = ["what", "equal to enumeration", "share window loops", "keep rows", "seeds up to", "CPU s"]
    command = f"python benchmarks/mapping/fused.py {' '.join(sys.argv[1:])}"
    print(write("fused", "Fused chains against enumeration", [f"`{command}`", "", *table(columns, rows)]))


if __name__ == "__main__":
    main()
