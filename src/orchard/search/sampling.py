"""Who proposes designs: points of the unit cube, one axis per knob. What a point means, and what it is worth, others know.

A discrete axis with n levels reads a coordinate u as level floor(u n); proposals for it sit at cell centres, so equal designs
are equal points. Everything depends on the seed alone: not on how proposals are cut into batches, nor on the machine.
"""

from __future__ import annotations

import warnings
from collections.abc import Generator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
CONTINUOUS = 0
"""Number of levels of an axis without levels."""
_STREAM = 8192
"""Random points are drawn in runs of this many from a generator of their own, so any slice can be made by itself."""


def grid_size(levels: Sequence[int]) -> int:
    """Points of the full grid. Every axis has to have levels."""
    assert all(n > 0 for n in levels)
    size = 1
    for n in levels:
        size *= n
    return size


def grid(levels: Sequence[int], start: int, stop: int) -> Floats:
    """Points `start` to `stop` of the full grid [stop - start, axes], the last axis fastest."""
    index = np.arange(start, stop, dtype=np.int64)
    points = np.empty((len(index), len(levels)))
    for axis in reversed(range(len(levels))):
        index, level = np.divmod(index, levels[axis])
        points[:, axis] = (level + 0.5) / levels[axis]
    return points


def uniform(levels: Sequence[int], start: int, stop: int, *, seed: int) -> Floats:
    """Points `start` to `stop` of an endless sequence of independent draws."""
    pieces = []
    for stream in range(start // _STREAM, -(-stop // _STREAM)):
        draws = np.random.default_rng([seed, stream]).random((_STREAM, len(levels)))
        first = stream * _STREAM
        pieces.append(draws[max(start - first, 0) : stop - first])
    return snapped(np.concatenate(pieces) if pieces else np.empty((0, len(levels))), levels)


def latin_hypercube(levels: Sequence[int], designs: int, *, seed: int) -> Floats:
    """`designs` points, each axis cut into as many strips with one point in each [McKay 1979, by scipy.stats.qmc]."""
    from scipy.stats.qmc import LatinHypercube

    return snapped(LatinHypercube(len(levels), rng=np.random.default_rng(seed)).random(designs), levels)


def snapped(points: Floats, levels: Sequence[int]) -> Floats:
    """Points moved to the centre of their cell on axes with levels."""
    out = np.clip(points, 0.0, np.nextafter(1.0, 0.0))
    for axis, n in enumerate(levels):
        if n:
            out[:, axis] = (np.floor(out[:, axis] * n) + 0.5) / n
    return out


Told = tuple[Floats, Floats]
"""What a proposer is told of its points: objectives [n, m], small is good, and by how much each breaks its constraints [n]."""


def nsga2(
    levels: Sequence[int], objectives: int, *, budget: int, seed: int, population: int | None = None
) -> Generator[Floats, Told, None]:
    """NSGA-II [Deb 2002, by pymoo]: yields generations of points never proposed before, is sent what they are worth.

    The first generation is a Latin hypercube with the two corners in it. A generation with nothing new (small discrete spaces)
    is filled with unseen neighbours of the best points so far; the search ends at `budget` points or when none is left.
    """
    from pymoo.algorithms.moo.nsga2 import NSGA2
    from pymoo.core.evaluator import Evaluator
    from pymoo.core.problem import Problem
    from pymoo.core.termination import NoTermination
    from pymoo.problems.static import StaticProblem

    size = population or int(np.clip(budget // 12, 8, 100))
    size = min(size, budget)
    axes = len(levels)
    start = latin_hypercube(levels, size, seed=seed)
    start[0], start[-1] = snapped(np.zeros((1, axes)), levels)[0], snapped(np.ones((1, axes)), levels)[0]
    problem: Any = Problem(n_var=axes, n_obj=objectives, n_ieq_constr=1, xl=0.0, xu=1.0)
    algorithm: Any = NSGA2(pop_size=size, sampling=start, eliminate_duplicates=False)
    algorithm.setup(problem, termination=NoTermination(), seed=seed, verbose=False)
    seen = _Seen(levels, budget, np.random.default_rng([seed, 1]))
    while not seen.done:
        asked: Any = algorithm.ask()
        points = snapped(np.asarray(asked.get("X"), dtype=np.float64), levels)
        new = seen.fresh(points)
        if len(new) == 0:
            new = seen.neighbours(size)
            if len(new) == 0:
                return
            seen.keep(new, (yield new))
            points = new if len(new) == len(points) else np.resize(new, points.shape)
        else:
            seen.keep(new, (yield new))
            points = seen.only_known(points)
        values, broken = seen.worth(points)
        asked = asked[: len(points)]
        asked.set("X", points)
        Evaluator().eval(StaticProblem(problem, F=values, G=broken[:, None]), asked)
        algorithm.tell(infills=asked)


class _Seen:
    """Points proposed so far with their worth; what is still unseen next to the best of them."""

    def __init__(self, levels: Sequence[int], budget: int, rng: np.random.Generator) -> None:
        self.levels, self.budget, self.rng = levels, budget, rng
        self.table: dict[bytes, tuple[Floats, Floats, float]] = {}

    @property
    def done(self) -> bool:
        return len(self.table) >= self.budget

    def fresh(self, points: Floats) -> Floats:
        """Points not seen yet, each once, in order, as many as the budget still allows."""
        found: dict[bytes, Floats] = {}
        for point in points:
            key = point.tobytes()
            if key not in self.table and key not in found:
                found[key] = point
        chosen = list(found.values())[: self.budget - len(self.table)]
        return np.array(chosen).reshape(len(chosen), points.shape[1])

    def keep(self, points: Floats, told: Told) -> None:
        values, broken = told
        for point, value, by in zip(points, values, broken, strict=True):
            self.table[point.tobytes()] = (point, value, float(by))

    def only_known(self, points: Floats) -> Floats:
        return np.array([p for p in points if p.tobytes() in self.table])

    def worth(self, points: Floats) -> Told:
        rows = [self.table[p.tobytes()] for p in points]
        values = np.array([r[1] for r in rows])
        # No number at all: worse than anything, so that sorting stays defined.
        return np.where(np.isfinite(values), values, 1e30), np.array([r[2] for r in rows])

    def neighbours(self, most: int) -> Floats:
        """Unseen points one level (or a small step) away from the front so far, in random order; else from anywhere."""
        from orchard.search.pareto import front

        rows = [r for r in self.table.values() if r[2] <= 0.0] or list(self.table.values())
        best = [rows[i][0] for i in front(np.array([r[1] for r in rows]))]
        moves = []
        for point in best:
            for axis, n in enumerate(self.levels):
                step = 1.0 / n if n else 0.02
                for sign in (-1.0, 1.0):
                    moved = point.copy()
                    moved[axis] += sign * step
                    if 0.0 <= moved[axis] < 1.0:
                        moves.append(moved)
        near = self.fresh(snapped(np.array(moves).reshape(-1, len(self.levels)), self.levels))
        return near[self.rng.permutation(len(near))[:most]] if len(near) else self._anywhere(most)

    def _anywhere(self, most: int) -> Floats:
        """Unseen points at random; all of them once a space is small enough to list."""
        if all(self.levels) and grid_size(self.levels) <= 100_000:
            near = self.fresh(self.rng.permutation(grid(self.levels, 0, grid_size(self.levels))))
        else:
            near = self.fresh(snapped(self.rng.random((4 * most, len(self.levels))), self.levels))
        return near[:most]


def optuna_sampler(
    levels: Sequence[int], objectives: int, *, budget: int, seed: int, batch: int = 8
) -> Generator[Floats, Told, None]:
    """Tree-structured Parzen estimator [Bergstra 2011, by optuna], `batch` points at a time, for slow evaluations. No point is
    proposed twice: a repeat is told what is known of it. Ends early when a space of levels alone is used up."""
    tree = _Tree(levels, objectives, seed)
    left = min(budget, grid_size(levels)) if all(levels) else budget
    while left > 0:
        points = tree.ask(min(batch, left))
        if not len(points):
            return
        values, broken = yield points
        tree.tell(points, values, broken)
        left -= len(points)


_TRIES = 4
"""Proposals per point wanted, before unseen points are taken evenly: the estimator repeats itself in small spaces."""
_MOST_LISTED = 100_000
"""Points of a space that may be listed to find those not yet seen; larger ones are not used up."""


class _Tree:
    """Trials of an optuna study by the point they stand for."""

    def __init__(self, levels: Sequence[int], objectives: int, seed: int) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self.levels = levels
        self.space: dict[str, optuna.distributions.BaseDistribution] = {
            str(axis): optuna.distributions.IntDistribution(0, n - 1) if n else optuna.distributions.FloatDistribution(0.0, 1.0)
            for axis, n in enumerate(levels)
        }
        with warnings.catch_warnings():  # optuna 5 prefers a call that older ones do not have
            warnings.simplefilter("ignore", FutureWarning)
            sampler = optuna.samplers.TPESampler(seed=seed, constraints_func=lambda trial: trial.user_attrs["broken"])
        self.study = optuna.create_study(directions=["minimize"] * objectives, sampler=sampler)
        self.rng = np.random.default_rng(seed)
        self.known: dict[bytes, tuple[Floats, float]] = {}
        self.open: dict[bytes, list[Any]] = {}

    def ask(self, most: int) -> Floats:
        """At most `most` points not proposed before; none when the space is used up."""
        found: list[Floats] = []
        for _ in range(_TRIES * most):
            if len(found) == most:
                break
            self._add(found)
        for point in self._unseen(most - len(found)):
            at = {str(a): int(u * n) if n else float(u) for a, (u, n) in enumerate(zip(point, self.levels, strict=True))}
            self.study.enqueue_trial(at)
            self._add(found)
        return np.array(found).reshape(-1, len(self.levels))

    def tell(self, points: Floats, values: Floats, broken: Floats) -> None:
        for point, value, by in zip(points, values, broken, strict=True):
            key = point.tobytes()
            self.known[key] = np.where(np.isfinite(value), value, 1e30), float(by)
            for trial in self.open.pop(key):
                self._close(trial, key)

    def _add(self, found: list[Floats]) -> None:
        trial = self.study.ask(self.space)
        raw = [trial.params[name] for name in self.space]
        cube = [(x + 0.5) / n if n else x for x, n in zip(raw, self.levels, strict=True)]
        point = snapped(np.array([cube]), self.levels)[0]
        key = point.tobytes()
        if key in self.known:
            self._close(trial, key)
            return
        if key not in self.open:
            found.append(point)
        self.open.setdefault(key, []).append(trial)

    def _close(self, trial: Any, key: bytes) -> None:
        value, by = self.known[key]
        trial.set_user_attr("broken", [by])
        self.study.tell(trial, value.tolist())

    def _unseen(self, most: int) -> Floats:
        if not (most > 0 and all(self.levels) and grid_size(self.levels) <= _MOST_LISTED):
            return self.rng.random((max(most, 0), len(self.levels)))
        every = self.rng.permutation(grid(self.levels, 0, grid_size(self.levels)))
        fresh = [p for p in every if p.tobytes() not in self.known and p.tobytes() not in self.open]
        return np.array(fresh[:most]).reshape(-1, len(self.levels))
