"""The mapper's proofs against every nest of small spaces, its counts against execution: more than the suite has time for.

    python benchmarks/mapping/exhaustive.py --spaces 500 --constrained 200 --nests 10000 --seconds 1500

Stops at --seconds and goes on from there when started again. A wrong answer (another value, a refusal where a nest exists, a
mapping that breaks a constraint) counts as "differs" and makes the exit code 1. The right value without a proof counts as "not
proven". Both are printed with their seed, and the run goes on.
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
from typing import Literal

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / folder) for folder in ("src", "tests/studies", "tests/cost")]

import spaces as hard  # noqa: E402 - tests/studies
from exhaustive import brute, case  # noqa: E402
from test_constraints import best_of_all, random_rules  # noqa: E402
from test_nest import check, random_case  # noqa: E402

from orchard.hw.arch import Architecture  # noqa: E402
from orchard.mapping import ImpossibleSpace, MappingError  # noqa: E402
from orchard.mapping.constraints import FREE, Constraints, constraints_from, violation  # noqa: E402
from orchard.mapping.problem import Problem  # noqa: E402
from orchard.studies.map import map_op  # noqa: E402
from orchard.studies.nest_search import Objective  # noqa: E402

sys.path.insert(0, str(Path(__file__).parent))
from record import RESULTS, commit, table, write  # noqa: E402

Answer = Literal["equal", "not proven", "differs", "too large"]
Compared = Callable[[int, int], Answer]


def answer(
    best: float | None, problem: Problem, arch: Architecture, objective: Objective, rules: Constraints = FREE
) -> Answer:
    """The mapper's answer against the best of all nests (None: there is none)."""
    try:
        mapped = map_op(problem, arch, objective, constraints=rules)
    except ImpossibleSpace:
        return "equal" if best is None else "differs"
    if best is None or abs(mapped.value - best) > 1e-9 * best or violation(mapped.nest, rules, problem, arch) is not None:
        return "differs"
    return "equal" if mapped.optimal else "not proven"


def free(seed: int, limit: int) -> Answer:
    """A space of `tests/studies/exhaustive.py`."""
    problem, arch, objective = case(random.Random(seed))
    best, tried = brute(problem, arch, objective, limit)
    return "too large" if tried > limit else answer(None if best is None else best[0], problem, arch, objective)


def difficult(seed: int, limit: int) -> Answer:
    """A space of `tests/studies/spaces.py`."""
    problem, arch, objective = hard.case(random.Random(seed))
    best, tried = hard.best_of_all(problem, arch, objective, limit)
    return "too large" if tried > limit else answer(best, problem, arch, objective)


def constrained(seed: int, limit: int) -> Answer:
    """A space under random constraints; contradictory ones, which are refused before a search, are left out."""
    rng = random.Random(seed)
    problem, arch, objective = case(rng)
    try:
        rules = constraints_from(random_rules(rng, problem, arch), problem, arch)
        best = best_of_all(problem, arch, objective, rules, limit)
    except (MappingError, OverflowError):
        return "too large"
    return answer(best, problem, arch, objective, rules)


def nest(seed: int, limit: int) -> Answer:
    """A random nest's counts against those of its execution; `check` raises where they differ."""
    del limit
    check(*random_case(random.Random(seed)))
    return "equal"


def run(name: str, compared: Compared, wanted: int, limit: int, stop: float, first: int) -> tuple[dict[Answer, int], int]:
    """How many spaces got which answer, and the first seed that was not tried."""
    found: dict[Answer, int] = dict.fromkeys(("equal", "not proven", "differs", "too large"), 0)
    seed = first
    while found["equal"] < wanted and time.process_time() < stop:
        got = compared(seed, limit)
        found[got] += 1
        if got in ("differs", "not proven"):
            print(f"{name} seed {seed}: {got}", flush=True)
        seed += 1
    return found, seed


FIELDS = ("what", "first", "next", "equal", "not_proven", "differs", "cpu_s", "commit", "when")
TITLES = {
    "free": "free spaces equal to enumeration",
    "hard": "hard spaces equal to enumeration",
    "constrained": "constrained spaces equal to enumeration",
    "nests": "nests whose counts equal their execution",
}


def earlier(path: Path) -> list[dict[str, str]]:
    """Pieces that were run before; a piece of another version of the mapper counts as well, its commit stands beside it."""
    rows = csv.DictReader(path.read_text().splitlines()) if path.exists() else []
    return [{"not_proven": "0", "differs": "0", **row} for row in rows]


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--spaces", type=int, default=500)
    options.add_argument("--hard", type=int, default=200, help="spaces of tests/studies/spaces.py")
    options.add_argument("--constrained", type=int, default=200)
    options.add_argument("--nests", type=int, default=10_000)
    options.add_argument("--limit", type=int, default=3000, help="nests per space; larger spaces are left out")
    options.add_argument("--seconds", type=float, default=1500, help="CPU seconds for each part")
    options.add_argument("--again", action="store_true", help="begin with seed 0, not where the record ends")
    options.add_argument("--parts", nargs="+", choices=TITLES, default=list(TITLES))
    options.add_argument("--first", type=int, default=0, help="seed to begin with where the record holds none of a part")
    given = options.parse_args()
    record = RESULTS / "exhaustive.csv"
    pieces = [] if given.again else earlier(record)
    parts: tuple[tuple[str, int, Compared], ...] = (
        ("free", given.spaces, free),
        ("hard", given.hard, difficult),
        ("constrained", given.constrained, constrained),
        ("nests", given.nests, nest),
    )
    for name, wanted, compared in parts:
        mine = [p for p in pieces if p["what"] == name]
        first, left = max((int(p["next"]) for p in mine), default=given.first), wanted - sum(int(p["equal"]) for p in mine)
        if left <= 0 or name not in given.parts:
            continue
        started = time.process_time()
        found, seeds = run(name, compared, left, given.limit, started + given.seconds, first)
        spent = f"{time.process_time() - started:.0f}"
        now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")
        numbers = (str(n) for n in (first, seeds, found["equal"], found["not proven"], found["differs"]))
        pieces.append(dict(zip(FIELDS, (name, *numbers, spent, commit(), now))))
        with record.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, FIELDS, lineterminator="\n")
            writer.writeheader()
            writer.writerows(pieces)
        print(*pieces[-1].values(), sep=", ", flush=True)
    rows = []
    for name, title in TITLES.items():
        mine = [p for p in pieces if p["what"] == name]
        if mine:
            *answers, spent_s = (sum(int(p[k]) for p in mine) for k in ("equal", "not_proven", "differs", "cpu_s"))
            commits = " ".join(dict.fromkeys(p["commit"] for p in mine))
            rows.append((title, *answers, max(int(p["next"]) for p in mine), spent_s, commits, mine[-1]["when"]))
    lines = table(["what", "equal", "not proven", "differs", "seeds up to", "CPU s", "commits", "finished"], rows)
    text = f"`python benchmarks/mapping/exhaustive.py --limit {given.limit}`, in pieces (`exhaustive.csv`)"
    print(write("exhaustive", "Proofs and counts against enumeration and execution", [text, "", *lines]))
    sys.exit(any(int(p["differs"]) for p in pieces))


if __name__ == "__main__":
    main()
