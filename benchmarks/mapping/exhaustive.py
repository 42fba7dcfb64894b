"""The mapper's proofs against every nest of small spaces, its counts against execution: more than the suite has time for.

    python benchmarks/mapping/exhaustive.py --spaces 500 --constrained 200 --nests 10000 --seconds 1500

Stops at --seconds and goes on from there when started again. A difference stops it with exit code 1 and the seed.
"""

from __future__ import annotations

import argparse
import csv
import datetime
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / folder) for folder in ("src", "tests/studies", "tests/cost")]

import spaces as hard  # noqa: E402 - tests/studies
from exhaustive import brute, case  # noqa: E402
from test_constraints import compare  # noqa: E402
from test_nest import check, random_case  # noqa: E402

from orchard.mapping import ImpossibleSpace  # noqa: E402
from orchard.studies.map import map_op  # noqa: E402

sys.path.insert(0, str(Path(__file__).parent))
from record import RESULTS, commit, table, write  # noqa: E402


def same(seed: int, limit: int) -> bool | None:
    """Whether the mapper agrees with enumeration; None where the space is too large to enumerate."""
    problem, arch, objective = case(random.Random(seed))
    best, tried = brute(problem, arch, objective, limit)
    if tried > limit:
        return None
    try:
        mapped = map_op(problem, arch, objective)
    except ImpossibleSpace:
        return best is None
    return best is not None and mapped.optimal and abs(mapped.value - best[0]) <= 1e-9 * best[0]


def same_hard(seed: int, limit: int) -> bool | None:
    """The same for a space of `tests/studies/spaces.py`."""
    problem, arch, objective = hard.case(random.Random(seed))
    best, tried = hard.best_of_all(problem, arch, objective, limit)
    if tried > limit:
        return None
    try:
        mapped = map_op(problem, arch, objective)
    except ImpossibleSpace:
        return best is None
    return best is not None and mapped.optimal and abs(mapped.value - best) <= 1e-9 * best


def spaces(
    wanted: int, limit: int, stop: float, first: int, same: Callable[[int, int], bool | None] = same
) -> tuple[int, int]:
    """(spaces that agree, first seed that was not tried)."""
    found, seed = 0, first
    while found < wanted and time.process_time() < stop:
        answer = same(seed, limit)
        if answer is False:
            sys.exit(f"seed {seed}: the mapper and enumeration differ")
        found, seed = found + (answer is True), seed + 1
    return found, seed


def constrained(wanted: int, limit: int, stop: float, first: int) -> tuple[int, int]:
    """The same under random constraints; `compare` raises where they differ."""
    found, seed = 0, first
    while found < wanted and time.process_time() < stop:
        found, seed = found + compare(seed, limit), seed + 1
    return found, seed


def nests(wanted: int, stop: float, first: int) -> tuple[int, int]:
    """Random nests whose counts equal those of their execution; `check` raises where they differ."""
    for seed in range(first, first + wanted):
        if time.process_time() > stop:
            return seed - first, seed
        check(*random_case(random.Random(seed)))
    return wanted, first + wanted


FIELDS = ("what", "first", "next", "equal", "cpu_s", "commit", "when")
TITLES = {
    "free": "free spaces equal to enumeration",
    "hard": "hard spaces equal to enumeration",
    "constrained": "constrained spaces equal to enumeration",
    "nests": "nests whose counts equal their execution",
}


def earlier(path: Path) -> list[dict[str, str]]:
    """Pieces that were run before; a piece of another version of the mapper counts as well, its commit stands beside it."""
    return list(csv.DictReader(path.read_text().splitlines())) if path.exists() else []


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--spaces", type=int, default=500)
    options.add_argument("--hard", type=int, default=200, help="spaces of tests/studies/spaces.py")
    options.add_argument("--constrained", type=int, default=200)
    options.add_argument("--nests", type=int, default=10_000)
    options.add_argument("--limit", type=int, default=3000, help="nests per space; larger spaces are left out")
    options.add_argument("--seconds", type=float, default=1500, help="CPU seconds for each part")
    options.add_argument("--again", action="store_true", help="begin with seed 0, not where the record ends")
    given = options.parse_args()
    record = RESULTS / "exhaustive.csv"
    pieces = [] if given.again else earlier(record)
    parts: tuple[tuple[str, int, Callable[[int, float, int], tuple[int, int]]], ...] = (
        ("free", given.spaces, lambda left, stop, first: spaces(left, given.limit, stop, first)),
        ("hard", given.hard, lambda left, stop, first: spaces(left, given.limit, stop, first, same_hard)),
        ("constrained", given.constrained, lambda left, stop, first: constrained(left, given.limit, stop, first)),
        ("nests", given.nests, nests),
    )
    for name, wanted, part in parts:
        mine = [p for p in pieces if p["what"] == name]
        first, left = max((int(p["next"]) for p in mine), default=0), wanted - sum(int(p["equal"]) for p in mine)
        if left <= 0:
            continue
        started = time.process_time()
        found, seeds = part(left, started + given.seconds, first)
        spent = f"{time.process_time() - started:.0f}"
        now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")
        pieces.append(dict(zip(FIELDS, (name, str(first), str(seeds), str(found), spent, commit(), now))))
        with record.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, FIELDS, lineterminator="\n")
            writer.writeheader()
            writer.writerows(pieces)
        print(*pieces[-1].values(), sep=", ", flush=True)
    rows = []
    for name, title in TITLES.items():
        mine = [p for p in pieces if p["what"] == name]
        if mine:
            sums = [sum(int(p[k]) for p in mine) for k in ("equal", "cpu_s")]
            commits = " ".join(dict.fromkeys(p["commit"] for p in mine))
            rows.append((title, sums[0], max(int(p["next"]) for p in mine), sums[1], commits, mine[-1]["when"]))
    lines = table(["what", "equal", "seeds up to", "CPU s", "commits", "finished"], rows)
    text = f"`python benchmarks/mapping/exhaustive.py --limit {given.limit}`, in pieces (`exhaustive.csv`)"
    print(write("exhaustive", "Proofs and counts against enumeration and execution", [text, "", *lines]))


if __name__ == "__main__":
    main()
