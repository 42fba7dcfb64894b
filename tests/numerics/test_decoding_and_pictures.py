"""Speculation against closed forms and exact distributions; sparsity and expert unions; folding and merging of pictures."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from orchard.numerics import speculation, vision  # noqa: E402
from orchard.numerics.fixtures import digits, tasks  # noqa: E402


def chain(table: torch.Tensor) -> speculation.Probabilities:
    """A model whose next token depends on the last alone."""
    return lambda ids: table[ids]


def tables() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.rand(4, 4, generator=generator).softmax(-1), (3 * torch.rand(4, 4, generator=generator)).softmax(-1)


def test_speculative_sampling_gives_the_targets_distribution() -> None:
    """Chi-squared over all pairs of the first two new tokens [AT16]: 15 degrees of freedom, 30.6 once in 100."""
    target, draft = tables()
    start = torch.zeros(20_000, 1, dtype=torch.int64)
    found = speculation.speculate(chain(target), chain(draft), start, tokens=2, rounds=2, seed=1)
    pairs = found.ids[:, 1] * 4 + found.ids[:, 2]
    expected = (target[0][:, None] * target).flatten() * 20_000
    seen = torch.bincount(pairs, minlength=16)
    assert float(((seen - expected) ** 2 / expected).sum()) < 30.6
    wrong = (draft[0][:, None] * draft).flatten() * 20_000
    assert float(((seen - wrong) ** 2 / wrong).sum()) > 300  # the test would notice the draft's distribution


def test_tokens_of_a_round_follow_the_closed_form() -> None:
    """Target and draft without memory accept independently, so the formula is exact [AT15]."""
    p, q = torch.tensor([0.5, 0.3, 0.2]), torch.tensor([0.2, 0.3, 0.5])
    acceptance = float(torch.minimum(p, q).sum())
    for tokens in (1, 3):
        found = speculation.speculate(
            lambda ids: p.expand(*ids.shape, 3), lambda ids: q.expand(*ids.shape, 3), torch.zeros(2000, 1, dtype=torch.int64),
            tokens=tokens, rounds=4,
        )  # fmt: skip
        assert found.acceptance == pytest.approx(acceptance, abs=0.015)
        assert found.tokens_per_round == pytest.approx(speculation.expected_tokens(acceptance, tokens), rel=0.02)
    assert speculation.expected_tokens(1.0, 4) == 5.0


def test_a_perfect_draft_is_always_accepted_and_greedy_follows_the_target() -> None:
    target, _ = tables()
    found = speculation.speculate(
        chain(target), chain(target), torch.zeros(50, 1, dtype=torch.int64), tokens=3, rounds=2
    )
    assert found.acceptance == 1.0
    assert (found.won == 4).all()
    best = torch.zeros_like(target).scatter_(-1, target.argmax(-1, keepdim=True), 1.0)
    greedy = speculation.speculate(
        chain(best), chain(tables()[1]), torch.zeros(3, 1, dtype=torch.int64), tokens=2, rounds=3
    )
    for stream, length in zip(greedy.ids.tolist(), greedy.lengths.tolist()):
        assert all(b == int(target[a].argmax()) for a, b in zip(stream[: length - 1], stream[1:length]))


def test_prompt_lookup_proposes_what_followed_before() -> None:
    found = speculation.prompt_lookup(torch.tensor([[5, 6, 7, 5, 6]]), vocabulary=8)
    assert found[0, 4].argmax() == 7
    assert found[0, 3].argmax() == 0


def test_union_laws_of_independent_draws() -> None:
    generator = torch.Generator().manual_seed(0)
    active = torch.rand(4000, 64, generator=generator) < 0.5
    assert speculation.density(active, 4) == pytest.approx(1 - 0.5**4, abs=0.01)  # AT18
    chosen = torch.rand(4000, 8, generator=generator).argsort(dim=1)[:, :2]
    assert speculation.experts_used(chosen, 8, 3) == pytest.approx(8 * (1 - 0.75**3), rel=0.02)
    assert speculation.experts_used(chosen, 8, 1) == 2.0


def test_folded_branches_are_the_same_function() -> None:
    net = digits.RepNet(8)
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            generator = torch.Generator().manual_seed(3)
            with torch.no_grad():
                module.running_mean.copy_(torch.randn(8, generator=generator))
                module.running_var.copy_(torch.rand(8, generator=generator) + 0.5)
                module.weight.copy_(torch.randn(8, generator=generator))
    x = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    assert torch.allclose(net.eval()(x), vision.folded(net)(x), rtol=1e-4, atol=1e-5)  # AT19, AT21


def test_merging_averages_the_most_alike_and_keeps_the_first() -> None:
    x = torch.tensor([[[9.0, 9.0], [1.0, 0.0], [0.0, 1.0], [0.6, 0.8], [1.0, 0.1]]])
    assert torch.equal(vision.merge_tokens(x, x, 0), x)
    found = vision.merge_tokens(x, x, 1)  # sets: tokens 1 and 3; tokens 2 and 4. Token 1 is most like token 4
    assert torch.allclose(found, torch.tensor([[[9.0, 9.0], [0.6, 0.8], [0.0, 1.0], [1.0, 0.05]]]))


def test_generated_tasks_are_what_they_say() -> None:
    rows = tasks.back_copy(50, seed=0, step=0)
    assert np.array_equal(rows, tasks.back_copy(50, seed=0, step=0))
    before, last, after = rows[:, 1:-2], rows[:, 2:-1], rows[:, 3:]
    copies = (last >= 1) & (last <= tasks.TRIGGERS) & (before > tasks.TRIGGERS)
    assert copies.any()
    assert (after[copies] == before[copies]).all()
    inputs, targets = tasks.recall(4, seed=0, step=0)
    for row, wanted in zip(inputs, targets):
        pairs = dict(zip(row[1 : 1 + 2 * tasks.RECALL_PAIRS : 2], row[2 : 2 + 2 * tasks.RECALL_PAIRS : 2]))
        asked = wanted != tasks.IGNORED
        assert [pairs[k] for k in row[asked]] == wanted[asked].tolist()


def test_a_denoiser_that_knows_the_answer_returns_it() -> None:
    signal, clean = digits.kept_signal(), torch.full((2, 1, 8, 8), 0.5)

    def oracle(x: torch.Tensor, step: torch.Tensor) -> torch.Tensor:
        kept = signal[step][:, None, None, None]
        return (x - kept.sqrt() * clean) / (1 - kept).sqrt()

    noise = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(digits.denoise(oracle, noise, 5), clean, atol=1e-2)  # type: ignore[arg-type]
