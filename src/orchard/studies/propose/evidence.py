"""What ideas rest on: losses, acceptance of drafts and sensitivity of single products, measured on a fixture.

Everything is asked of one `Bench` of one seed and one text, so that a winner can be asked again on another seed and text that the
search never saw.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from orchard.studies.experiment.run import Bench, Subject, bench_of

Floats = NDArray[np.float64]
ACCEPTANCE_SEQUENCES = 16
SENSITIVITY_SEQUENCES = 16
"""Sequences that are scored for a draft's acceptance and for the loss of one tensor at one width."""


@dataclass
class Evidence:
    """Measurements of one subject, each made once. `sequences`: how many are scored."""

    subject: Subject
    sequences: int = 64
    calibration: int = 32
    _losses: dict[str, Floats] = field(default_factory=dict)
    _answers: dict[str, Any] = field(default_factory=dict)
    _models: dict[str, Any] = field(default_factory=dict)

    @property
    def bench(self) -> Bench:
        return bench_of(self.subject, self.sequences)

    @property
    def label(self) -> str:
        s = self.subject
        return f"{s.fixture}, {s.scale} training, seed {s.seed}, {s.held.replace('_', ' ')} text, {self.sequences} sequences"

    def changed(self, text: str) -> Any:
        """A copy of the model after techniques; another fixture where the text names one (`fx2`)."""
        from orchard.numerics.fixtures.catalog import FIXTURES, model_of
        from orchard.numerics.methods.registry import apply_methods, parse_methods

        if text in FIXTURES:
            return model_of(text, seed=self.subject.seed, scale=self.subject.scale)  # type: ignore[arg-type]
        made = copy.deepcopy(self.bench.model)
        apply_methods(made, parse_methods(text), self.bench.evidence(self.calibration, 0).fresh(made))
        return made

    def loss(self, text: str) -> Floats:
        """Loss over the uncompressed model [sequences], nats per token."""
        from orchard.numerics.surgery import sequence_losses

        if text not in self._losses:
            found = sequence_losses(self.changed(text), self.bench.rows) - self.bench.losses
            self._losses[text] = found.numpy().astype(np.float64)
        return self._losses[text]

    def mean_loss(self, text: str) -> float:
        return float(self.loss(text).mean()) if text != "none" else 0.0

    def probabilities(self, text: str) -> Any:
        """Next-token probabilities on the first sequences [n, L, vocabulary]."""
        from orchard.numerics.surgery import log_probabilities

        if text not in self._answers:
            model = self.bench.model if text == "none" else self.changed(text)
            self._answers[text] = log_probabilities(model, self.bench.rows[:ACCEPTANCE_SEQUENCES]).exp()
        return self._answers[text]

    def acceptance(self, target: str, draft: str) -> float:
        """Mean over positions of sum min(p, q): the chance that a sampled draft token is accepted [2211.17192, theorem 3.5]."""
        import torch

        return float(torch.minimum(self.probabilities(target), self.probabilities(draft)).sum(-1).mean())

    def sensitivities(self, settings: Mapping[str, str]) -> tuple[list[str], Floats]:
        """(names, losses [products, settings]): each product changed alone by each technique, the others as they are."""
        from orchard.numerics.methods.registry import parse_methods
        from orchard.numerics.surgery import linears, sequence_losses

        bench = self.bench
        rows, base = bench.rows[:SENSITIVITY_SEQUENCES], bench.losses[:SENSITIVITY_SEQUENCES]
        names = list(linears(bench.model))
        found = np.zeros((len(names), len(settings)))
        work = copy.deepcopy(bench.model)
        evidence = bench.evidence(self.calibration, 0)
        for column, text in enumerate(settings.values()):
            method = parse_methods(text)
            for row, name in enumerate(names):
                if not method:
                    continue
                module = linears(work)[name]
                before = module.weight.detach().clone()
                module.weight.copy_(_alone(method[0], name, before, evidence))
                found[row, column] = float((sequence_losses(work, rows) - base).mean())
                module.weight.copy_(before)
        return names, found

    def mixed_loss(self, choice: Mapping[str, str]) -> Floats:
        """Loss [sequences] with a technique of its own for each product."""
        from orchard.numerics.methods.registry import parse_methods
        from orchard.numerics.surgery import linears, sequence_losses

        made, evidence = copy.deepcopy(self.bench.model), self.bench.evidence(self.calibration, 0)
        for name, module in linears(made).items():
            for method in parse_methods(choice[name]):
                module.weight.copy_(_alone(method, name, module.weight.detach().clone(), evidence))
        found: Floats = (sequence_losses(made, self.bench.rows) - self.bench.losses).numpy().astype(np.float64)
        return found


def _alone(method: Any, name: str, weight: Any, evidence: Any) -> Any:
    return method.changed(name, weight, evidence)


def interval(found: Floats, *, rounds: int = 2000) -> tuple[float, float]:
    """95 % interval of a mean over sequences."""
    from orchard.studies.experiment.statistics import interval as of_sample
    from orchard.studies.experiment.statistics import resample

    made = of_sample(found[None, :], resample(1, len(found), rounds=rounds))
    return made.low, made.high


def rank_correlation(first: Iterable[float], second: Iterable[float]) -> float:
    """Spearman's, ties at their mean rank; 1 where either does not vary and both are equal, else 0."""
    from scipy.stats import rankdata

    a, b = rankdata(list(first)), rankdata(list(second))
    if a.std() == 0 or b.std() == 0:
        return float(np.array_equal(a, b))
    return float(np.corrcoef(a, b)[0, 1])
