"""What every technique with numerics keeps; a plug-in subclasses `NumericContract` in its own tests and gives `methods`.

class TestMine(NumericContract):
    methods = (Mine(), Mine(bits=3))
    preserves = False   # True: it must not change what the model computes
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import ClassVar

import torch
from torch import Tensor

from orchard.numerics.fixtures.tinylm import TinyConfig, TinyLM
from orchard.numerics.methods.base import Evidence, Numeric
from orchard.numerics.methods.registry import parse_method
from orchard.numerics.surgery import linears, log_probabilities, sequence_losses

PRESERVED = 1e-3
"""Nats per token within which a transform that preserves the function stays."""
TINY = TinyConfig(vocabulary=32, layers=2, width=32, heads=2, kv_heads=1, feedforward=64)


class NumericContract:
    """Tests by pytest. Each runs on a random model of 20,000 parameters in milliseconds."""

    methods: ClassVar[tuple[Numeric, ...]] = ()
    preserves: ClassVar[bool] = False

    def _applied(self, method: Numeric, *, seed: int = 0) -> tuple[TinyLM, TinyLM, Tensor]:
        base = TinyLM(TINY, seed=1).eval().requires_grad_(False)
        rows = torch.randint(1, 32, (4, 33), generator=torch.Generator().manual_seed(2))
        changed = copy.deepcopy(base)
        method.apply(changed, Evidence(changed, rows, seed=seed))
        return base, changed, rows

    def _each(self) -> Iterator[Numeric]:
        assert self.methods, "give `methods`: instances of the technique to test"
        yield from self.methods

    def test_answers_are_finite_and_of_the_same_shape(self) -> None:
        for method in self._each():
            base, changed, rows = self._applied(method)
            assert torch.isfinite(sequence_losses(changed, rows)).all(), method
            before, after = ({n: m.weight.shape for n, m in linears(model).items()} for model in (base, changed))
            assert before == after, method

    def test_the_same_seed_gives_the_same_model(self) -> None:
        for method in self._each():
            first, second = (
                log_probabilities(self._applied(method, seed=3)[1], self._applied(method)[2]) for _ in range(2)
            )
            assert torch.equal(first, second), method

    def test_a_copy_is_changed_and_nothing_else(self) -> None:
        for method in self._each():
            base, changed, rows = self._applied(method)
            fresh = TinyLM(TINY, seed=1)
            assert all(torch.equal(a, b) for a, b in zip(base.parameters(), fresh.parameters())), method
            if not self.preserves:
                assert not torch.equal(log_probabilities(base, rows), log_probabilities(changed, rows)), method

    def test_what_it_preserves(self) -> None:
        for method in self._each() if self.preserves else ():
            base, changed, rows = self._applied(method)
            assert (sequence_losses(base, rows) - sequence_losses(changed, rows)).abs().max() < PRESERVED, method

    def test_its_text_reads_back(self) -> None:
        for method in self._each():
            if type(method).__module__.startswith("orchard."):
                assert parse_method(str(method)) == method
