"""What a technique with numerics is: options like those of its cost side, and a change of a torch model in place."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from torch import Tensor, nn

from orchard.numerics.surgery import Inputs, calibrate, fisher, linears, set_weight
from orchard.techniques.base import Technique


class Evidence:
    """What a technique may look at: calibration sequences [n, L + 1] and what they show of the model as it stands.

    `touched` says that the model changed: what was seen before is looked at again when it is next asked for. The evidence of the
    untouched model can be handed from one copy of it to the next by `fresh`.
    """

    def __init__(self, model: nn.Module, rows: Tensor, *, seed: int = 0) -> None:
        self.model, self.rows, self.seed = model, rows, seed
        self._inputs: dict[str, Inputs] | None = None
        self._fisher: dict[str, Tensor] | None = None

    @property
    def inputs(self) -> dict[str, Inputs]:
        if self._inputs is None:
            self._inputs = calibrate(self.model, self.rows)
        return self._inputs

    @property
    def fisher(self) -> dict[str, Tensor]:
        if self._fisher is None:
            self._fisher = fisher(self.model, self.rows[:16])
        return self._fisher

    def touched(self) -> None:
        self._inputs = self._fisher = None

    def fresh(self, copy: nn.Module) -> Evidence:
        """The same evidence for an equal copy of the model."""
        made = Evidence(copy, self.rows, seed=self.seed)
        made._inputs, made._fisher = self._inputs, self._fisher
        return made


@dataclass(frozen=True, slots=True, kw_only=True)
class Numeric(Technique, ABC):
    """A technique on real tensors. The docstring of a subclass says what it computes and by which formula."""

    @abstractmethod
    def apply(self, model: nn.Module, evidence: Evidence) -> None:
        """Change the model in place. Deterministic for the seed of the evidence. Raises NumericsError where it cannot."""

    def bits_per_weight(self) -> float | None:
        """Stored bits of a weight with its scales and tables, None where the technique leaves weights alone."""
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightNumeric(Numeric, ABC):
    """A technique that gives each product another weight. Where a quarter of a weight is zero already, zeros stay zero."""

    @abstractmethod
    def changed(self, name: str, weight: Tensor, evidence: Evidence) -> Tensor:
        """The weight [O, I] as it is after the technique."""

    def apply(self, model: nn.Module, evidence: Evidence) -> None:
        found = {name: self.changed(name, module.weight.detach(), evidence) for name, module in linears(model).items()}
        for name, module in linears(model).items():
            zeros = module.weight == 0
            keep = float(zeros.float().mean()) >= SPARSE_FROM
            set_weight(module, found[name].masked_fill(zeros, 0.0) if keep else found[name])
        evidence.touched()


SPARSE_FROM = 0.25
"""Share of zeros from which a weight counts as pruned."""
