"""One setting per tensor: least loss within budgets, by mixed-integer programming, with the bound that proves it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from orchard.studies.errors import StudyError

Floats = NDArray[np.float64]
TIME_LIMIT_S = 20.0
GAP = 1e-9


@dataclass(frozen=True)
class Allocation:
    """`choice` [tensors]: which setting each has. `loss` is its sum, `bound` what no allocation can be below, `proved`
    that the two
    meet. `spent`: what it uses of each budget."""

    choice: tuple[int, ...]
    loss: float
    bound: float
    proved: bool
    spent: tuple[float, ...]


def allocate(loss: Floats, costs: Sequence[Floats], budgets: Sequence[float]) -> Allocation:
    """min sum loss[i, choice_i] with sum cost[i, choice_i] <= budget for each cost. Arrays are [tensors, settings]; a
    setting that
    a tensor cannot have is infinite. Raises StudyError where nothing fits."""
    from scipy.optimize import Bounds, LinearConstraint, milp
    from scipy.sparse import csr_array, identity, kron, vstack

    tensors, settings = loss.shape
    allowed = np.isfinite(loss)
    scale = max(1e-12, float(np.abs(loss[allowed]).max()))
    one = kron(identity(tensors), np.ones((1, settings)))
    rows = [csr_array(one)] + [csr_array(np.where(allowed, c, 0.0).reshape(1, -1) / b) for c, b in zip(costs, budgets)]
    limits = LinearConstraint(
        vstack(rows),
        np.r_[np.ones(tensors), np.full(len(costs), -np.inf)],
        np.r_[np.ones(tensors), np.ones(len(costs))],
    )
    found = milp(
        np.where(allowed, loss, 0.0).ravel() / scale, integrality=np.ones(loss.size, dtype=np.int64), bounds=Bounds(0,
        allowed.ravel().astype(float)),
        constraints=limits, options={"time_limit": TIME_LIMIT_S, "mip_rel_gap": GAP},
    )  # fmt: skip
    if found.x is None:
        least = [float(np.where(allowed, c, np.inf).min(axis=1).sum()) for c in costs]
        raise StudyError(f"no allocation fits: the budgets are {list(budgets)}, the least that can be spent is {least}")
    choice = found.x.reshape(loss.shape).argmax(axis=1)
    total = float(loss[np.arange(tensors), choice].sum())
    bound = float(found.mip_dual_bound) * scale
    spent = tuple(float(c[np.arange(tensors), choice].sum()) for c in costs)
    return Allocation(tuple(map(int, choice)), total, bound, abs(total - bound) <= 1e-6 * max(scale, abs(total)), spent)


def greedy(loss: Floats, cost: Floats, budget: float) -> tuple[int, ...]:
    """From the cheapest setting of each tensor, the upgrade with most loss saved per cost, while it fits: what sensitivity
    tables are
    usually used for. Ties go to the first tensor."""
    choice = [int(c) for c in cost.argmin(axis=1)]
    spent = float(sum(cost[i, c] for i, c in enumerate(choice)))
    while True:
        best: tuple[float, int, int] | None = None
        for i, now in enumerate(choice):
            for other in range(loss.shape[1]):
                saved, more = loss[i, now] - loss[i, other], cost[i, other] - cost[i, now]
                if saved > 0 and spent + more <= budget * (1 + 1e-12):
                    worth = saved / max(more, 1e-18)
                    if best is None or worth > best[0]:
                        best = worth, i, other
        if best is None:
            return tuple(choice)
        _, i, other = best
        spent += cost[i, other] - cost[i, choice[i]]
        choice[i] = other
