"""Many questions to the mapper at once: what is known comes from the cache, the rest runs in parallel processes.

Every process stores its answer as soon as it has it, so a run that is killed loses only the ops in the works.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace

from orchard.mapping.errors import ImpossibleSpace
from orchard.studies.map import MappedOp, map_op
from orchard.studies.map_cache import MappingCache, Question

Say = Callable[[str], None]


@dataclass(frozen=True)
class Answers:
    """Answers by the key of their question; `refused` holds the sentences of those that no mapping fits."""

    found: dict[str, MappedOp]
    refused: dict[str, str]
    from_cache: int

    def of(self, question: Question) -> MappedOp | None:
        """The answer under the question's own names."""
        mapped = self.found.get(question.key)
        return None if mapped is None else replace(mapped, problem=question.problem)


def solve(question: Question, cache: MappingCache | None, say: Say = lambda _: None) -> tuple[MappedOp, bool]:
    """One answer, and whether it came from the cache. Raises ImpossibleSpace where nothing fits."""
    known = cache.get(question) if cache is not None else None
    if known is not None:
        return known, True
    mapped = map_op(
        question.problem, question.arch, question.objective, factors=question.factors,
        constraints=question.constraints, time_limit_s=question.time_limit_s, gap=question.gap, say=say,
    )  # fmt: skip
    if cache is not None:
        cache.put(question, mapped)
    return mapped, False


def _solve_one(question: Question, cache: MappingCache | None) -> MappedOp | str:
    """In a worker: the answer, or why there is none."""
    try:
        return solve(question, cache)[0]
    except ImpossibleSpace as error:
        return str(error)


def solve_all(
    questions: Sequence[Question], cache: MappingCache | None, *, workers: int | None = None, say: Say = lambda _: None
) -> Answers:
    """Answers to all questions; equal ones are answered once. The same answers for any number of workers."""
    distinct = {q.key: q for q in questions}
    found: dict[str, MappedOp] = {}
    refused: dict[str, str] = {}
    for key, question in distinct.items():
        known = cache.get(question) if cache is not None else None
        if known is not None:
            found[key] = known
    from_cache = len(found)
    left = {key: q for key, q in distinct.items() if key not in found}
    for done, (key, answer) in enumerate(_run(left, cache, workers or os.cpu_count() or 1), 1):
        say(f"mapped {done} of {len(left)} ops")
        if isinstance(answer, str):
            refused[key] = answer
        else:
            found[key] = answer
    if left and cache is not None:
        cache.trim()
    return Answers(found, refused, from_cache)


def _run(left: dict[str, Question], cache: MappingCache | None, workers: int) -> Iterator[tuple[str, MappedOp | str]]:
    """(key, answer or refusal) as they come; the ops with most MACs start first."""
    if workers == 1 or len(left) < 2:
        for key, question in left.items():
            yield key, _solve_one(question, cache)
        return
    # A forked worker starts at once; other systems cannot fork safely.
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    with ProcessPoolExecutor(min(workers, len(left)), mp_context=context) as pool:
        order = sorted(left, key=lambda key: -left[key].problem.macs)
        waiting = {pool.submit(_solve_one, left[key], cache): key for key in order}
        for future in as_completed(waiting):
            yield waiting[future], future.result()
