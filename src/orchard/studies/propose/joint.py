"""The joint search: weights, draft, tokens drafted and skipped inputs together, on time and loss; the cache stays 16 bits.

Times come from the performance model (a pass of so many rows at so many bits), losses and acceptance from a fixture. All points
are priced at once as arrays; losses of parts are added, which the confirmation on another seed and text tests.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from orchard.studies.errors import StudyError
from orchard.studies.propose.evidence import Evidence
from orchard.studies.propose.pricing import BITS, DRAFTED, Device

DRAFTS = {0: "", 2: "palettize:bits=2", 3: "palettize:bits=3", 4: "palettize:bits=4"}
"""Bits of a draft that is the model itself at fewer bits; 0: no draft."""
SPARSE = {0.0: "none", 0.25: "activation-sparsity:sparsity=0.25"}
FLOORS = (0.005, 0.02, 0.05)
"""Losses in nats per token that somebody may accept: about 0.5, 2 and 5 % of perplexity."""


def weights_of(bits: int, engine: str) -> str:
    """Numerics of the weights at so many bits."""
    if bits == 16:
        return "none"
    return f"palettize:bits={bits}" if engine == "ane" else f"gptq:bits={bits},group=64"


@dataclass(frozen=True, kw_only=True)
class Point:
    """One combination: seconds per token (estimate) and loss (nats per token, parts added)."""

    bits: int
    draft_bits: int
    drafted: int
    sparsity: float
    acceptance: float
    seconds: float
    loss: float

    @property
    def parts(self) -> int:
        """Techniques in it."""
        return (self.bits < 16) + (self.draft_bits > 0) + (self.sparsity > 0)

    def text(self, engine: str) -> str:
        names = [weights_of(self.bits, engine)] if self.bits < 16 else []
        names += [SPARSE[self.sparsity]] if self.sparsity else []
        return " + ".join(names) or "none"

    def describe(self) -> str:
        out = f"{self.bits}-bit weights"
        if self.draft_bits:
            out += f", {self.drafted} tokens drafted by the model at {self.draft_bits} bits (acceptance {self.acceptance:.2f})"
        return out + (", a quarter of inputs skipped" if self.sparsity else "")


def points(device: Device, evidence: Evidence) -> list[Point]:
    """Every combination that the engine can run."""
    out = []
    for bits in (b for b in BITS if b in device.one):
        weights = weights_of(bits, device.engine)
        base = evidence.mean_loss(weights)
        for sparsity, text in SPARSE.items():
            if sparsity and bits not in device.sparse:
                continue
            extra = evidence.mean_loss(text)
            alone = device.sparse[bits] if sparsity else device.one[bits]
            out.append(
                Point(
                    bits=bits,
                    draft_bits=0,
                    drafted=0,
                    sparsity=sparsity,
                    acceptance=0.0,
                    seconds=alone,
                    loss=base + extra,
                )
            )
            if sparsity:
                continue  # rows of a verification pass are not zero together: 1 - s^r of the inputs are read
            out += _drafting(device, evidence, bits, weights, base)
    return out


def _drafting(device: Device, evidence: Evidence, bits: int, weights: str, loss: float) -> list[Point]:
    out = []
    for draft_bits, draft in DRAFTS.items():
        if not draft_bits or draft_bits >= bits or draft_bits not in device.one:
            continue
        acceptance = evidence.acceptance(weights, draft)
        for drafted in DRAFTED:
            if (bits, drafted + 1) not in device.rows:
                continue
            seconds = time_per_token(device, bits, draft_bits, drafted, acceptance)
            out.append(
                Point(
                    bits=bits,
                    draft_bits=draft_bits,
                    drafted=drafted,
                    sparsity=0.0,
                    acceptance=acceptance,
                    seconds=seconds,
                    loss=loss,
                )
            )
    return out


def time_per_token(device: Device, bits: int, draft_bits: int, drafted: int, acceptance: float) -> float:
    """(g t(b_d, 1) + t(b, g + 1)) / E(a, g) [techniques, idea 1]."""
    from orchard.numerics.speculation import expected_tokens

    spent = drafted * device.one[draft_bits] + device.rows[bits, drafted + 1]
    return spent / expected_tokens(acceptance, drafted)


def front(found: list[Point]) -> list[Point]:
    """Points that no other beats on both, fastest first; of equals the one with fewer parts."""
    out: list[Point] = []
    for p in sorted(found, key=lambda p: (p.seconds, p.loss, p.parts)):
        if not out or p.loss < out[-1].loss - 1e-12:
            out.append(p)
    return out


def best(found: list[Point], floor: float, *, parts: int = 9) -> Point:
    """The fastest point within a loss, of at most so many techniques. Raises StudyError where there is none."""
    able = [p for p in found if p.loss <= floor and p.parts <= parts]
    if not able:
        raise StudyError(f"no combination loses at most {floor} nats per token")
    return min(able, key=lambda p: (p.seconds, p.parts))


def gains(found: list[Point]) -> Mapping[float, float]:
    """By floor: time of the best single technique over that of the best combination."""
    return {floor: best(found, floor, parts=1).seconds / best(found, floor).seconds for floor in FLOORS}


def lag_one(won: np.ndarray) -> float:
    """Correlation of what neighbouring rounds of a stream won. `won` [rounds, streams]."""
    a, b = won[:-1].ravel().astype(float), won[1:].ravel().astype(float)
    return float(np.corrcoef(a, b)[0, 1]) if a.std() > 0 and b.std() > 0 else 0.0
