"""Heat of a chassis: a chain of two thermal masses, and how much power it allows at a temperature.

    package power -> [die and spreader: C1] -R1-> [case: C2] -R2-> ambient

The display and radios heat the case directly. Between control ticks the power is constant, so the step is exact (matrix
exponential), whatever its length. The allowed power falls linearly between two temperatures of each node (proportional control,
as power allocators do); the lower of the two counts.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from orchard.sim.errors import SimError


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One mass: K/W to the next one, J/K, and the temperatures between which power is cut from full to nothing (deg C)."""

    kelvin_per_w: float
    joule_per_kelvin: float
    cut_from_c: float
    cut_to_c: float

    def __post_init__(self) -> None:
        if min(self.kelvin_per_w, self.joule_per_kelvin) <= 0 or self.cut_to_c <= self.cut_from_c:
            raise SimError("thermal node: resistance and capacity must be > 0 and cut_to above cut_from")


@dataclass(frozen=True, slots=True, kw_only=True)
class Chassis:
    """A housing. `burst_w`: package power it allows when cold; `case_w`: heat of display and radios, into the case."""

    name: str
    die: Node
    case: Node
    burst_w: float
    case_w: float = 0.0
    ambient_c: float = 25.0

    def allowed_w(self, die_c: float, case_c: float) -> float:
        """Package power allowed at these temperatures, never below a fiftieth of the burst."""
        shares = [
            (node.cut_to_c - at) / (node.cut_to_c - node.cut_from_c)
            for node, at in ((self.die, die_c), (self.case, case_c))
        ]
        return self.burst_w * min(1.0, max(0.02, min(shares)))

    def steady_c(self, package_w: float) -> tuple[float, float]:
        """(die, case) temperatures that a constant package power leads to."""
        case = self.ambient_c + self.case.kelvin_per_w * (package_w + self.case_w)
        return case + self.die.kelvin_per_w * package_w, case


class Heat:
    """Temperatures of a chassis over time. It starts as the idle machine: case heat only."""

    def __init__(self, chassis: Chassis, step_s: float) -> None:
        self.chassis = chassis
        self.die_c, self.case_c = chassis.steady_c(0.0)
        self._matrix = _step_matrix(chassis, step_s)

    def step(self, package_w: float) -> None:
        """One tick at constant power."""
        goal_die, goal_case = self.chassis.steady_c(package_w)
        a, b = self.die_c - goal_die, self.case_c - goal_case
        (m00, m01), (m10, m11) = self._matrix
        self.die_c, self.case_c = goal_die + m00 * a + m01 * b, goal_case + m10 * a + m11 * b

    @property
    def allowed_w(self) -> float:
        return self.chassis.allowed_w(self.die_c, self.case_c)


def _step_matrix(chassis: Chassis, step_s: float) -> tuple[tuple[float, float], tuple[float, float]]:
    """exp(A t) of the deviations from steady state, by the two (real, negative) eigenvalues of A."""
    r1, c1 = chassis.die.kelvin_per_w, chassis.die.joule_per_kelvin
    r2, c2 = chassis.case.kelvin_per_w, chassis.case.joule_per_kelvin
    a, b = -1 / (r1 * c1), 1 / (r1 * c1)
    c, d = 1 / (r1 * c2), -(1 / r1 + 1 / r2) / c2
    half, root = (a + d) / 2, math.sqrt(((a - d) / 2) ** 2 + b * c)  # b c > 0: never complex, never equal
    fast, slow = half - root, half + root
    e_fast, e_slow = math.exp(fast * step_s), math.exp(slow * step_s)
    # Sylvester: exp = (e_slow (A - fast) - e_fast (A - slow)) / (slow - fast)
    gap = slow - fast
    same = (e_slow - e_fast) / gap
    plain = (e_fast * slow - e_slow * fast) / gap
    return (plain + same * a, same * b), (same * c, plain + same * d)
