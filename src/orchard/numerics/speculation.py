"""Speculative decoding by real rejection sampling, many streams at once; and what closed forms say of it.

Models are functions of token ids [S, L] that give probabilities [S, L, vocabulary]; there is no cache, so that a round is the
definition and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from orchard.numerics.surgery import logits

Probabilities = Callable[[Tensor], Tensor]


def sampler(model: nn.Module, *, temperature: float = 1.0) -> Probabilities:
    """A model's next-token probabilities; temperature 0 puts all on the largest."""

    def probabilities(ids: Tensor) -> Tensor:
        with torch.inference_mode():
            scores = logits(model, ids)
        if temperature > 0:
            return (scores / temperature).softmax(-1)
        return torch.zeros_like(scores).scatter_(-1, scores.argmax(-1, keepdim=True), 1.0)

    return probabilities


@dataclass(frozen=True)
class Rounds:
    """What happened: tokens won in each round of each stream [rounds, S] (accepted and one more), proposals that were tested and
    accepted, and the streams as they stand with their lengths."""

    won: Tensor
    tested: int
    accepted: int
    ids: Tensor
    lengths: Tensor

    @property
    def acceptance(self) -> float:
        """Accepted share of tested proposals: those up to the first rejection of a round."""
        return self.accepted / max(1, self.tested)

    @property
    def tokens_per_round(self) -> float:
        return float(self.won.double().mean())


def speculate(
    target: Probabilities, draft: Probabilities, prompts: Tensor, *, tokens: int, rounds: int, seed: int = 0
) -> Rounds:
    """`rounds` rounds of `tokens` proposals each on every stream [Leviathan 2023, algorithm 1]."""
    generator = torch.Generator().manual_seed(seed)
    streams, start = prompts.shape
    ids = torch.zeros(streams, start + rounds * (tokens + 1), dtype=torch.int64)
    ids[:, :start] = prompts
    lengths = torch.full((streams,), start)
    won, tested, accepted = [], 0, 0
    for _ in range(rounds):
        span = int(lengths.max()) + tokens
        kept, was_tested = _round(target, draft, ids[:, :span], ids, lengths, tokens, generator)
        tested, accepted = tested + was_tested, accepted + int(kept.sum())
        won.append(kept + 1)
        lengths = lengths + kept + 1
    return Rounds(torch.stack(won), tested, accepted, ids, lengths)


def _round(
    target: Probabilities,
    draft: Probabilities,
    view: Tensor,
    ids: Tensor,
    lengths: Tensor,
    tokens: int,
    generator: torch.Generator,
) -> tuple[Tensor, int]:
    """(proposals kept per stream, proposals tested); `ids` gets what was won."""
    every, drafts = torch.arange(len(ids)), []
    for step in range(tokens):
        q = draft(view)[every, lengths - 1 + step]
        drafts.append(q)
        view[every, lengths + step] = _draw(q, generator)
    p = target(view)[every[:, None], lengths[:, None] - 1 + torch.arange(tokens + 1)]
    proposed = view[every[:, None], lengths[:, None] + torch.arange(tokens)]
    q = torch.stack(drafts, dim=1)
    share = p[:, :tokens].gather(2, proposed[..., None]) / q.gather(2, proposed[..., None]).clamp(min=1e-30)
    passed = torch.rand(proposed.shape, generator=generator) < share[..., 0]
    kept = passed.long().cumprod(1).sum(1)
    tested = int((kept + 1).clamp(max=tokens).sum())
    left = (p[every, kept] - torch.where((kept < tokens)[:, None], q[every, kept.clamp(max=tokens - 1)], 0.0)).clamp(
        min=0
    )
    left = torch.where(left.sum(1, keepdim=True) > 0, left, p[every, kept])  # rounding alone can leave nothing
    ids[every, lengths + kept] = _draw(left, generator)
    return kept, tested


def _draw(weights: Tensor, generator: torch.Generator) -> Tensor:
    return torch.multinomial(weights.double(), 1, generator=generator)[:, 0]


def prompt_lookup(ids: Tensor, *, vocabulary: int, match: int = 2) -> Tensor:
    """A draft without a model: after the last `match` tokens comes what came after their latest earlier place;
    where there is none, token 0. Probabilities [S, L, vocabulary] that are 0 or 1."""
    out = torch.zeros(*ids.shape, vocabulary)
    for row, stream in enumerate(ids.tolist()):
        latest: dict[tuple[int, ...], int] = {}
        for end in range(match, len(stream) + 1):
            key = tuple(stream[end - match : end])
            out[row, end - 1, stream[latest[key]] if key in latest else 0] = 1.0
            if end < len(stream):
                latest[key] = end
        out[row, : match - 1, 0] = 1.0
    return out


def expected_tokens(acceptance: float, tokens: int) -> float:
    """Tokens of a round if each proposal is accepted independently: (1 - a^(g+1)) / (1 - a) [Leviathan 2023, eq. 1]."""
    if acceptance >= 1:
        return tokens + 1.0
    return (1 - acceptance ** (tokens + 1)) / (1 - acceptance)


def density(active: Tensor, rows: int) -> float:
    """Share of inputs that at least one of `rows` neighbouring tokens needs. `active` [tokens, inputs] is true where one does."""
    used = active[: len(active) // rows * rows].reshape(-1, rows, active.shape[1]).any(dim=1)
    return float(used.double().mean())


def experts_used(chosen: Tensor, experts: int, rows: int) -> float:
    """Mean number of distinct experts over runs of `rows` tokens. `chosen` [tokens, active]."""
    runs = chosen[: len(chosen) // rows * rows].reshape(-1, rows * chosen.shape[1])
    return float(torch.nn.functional.one_hot(runs, experts).amax(dim=1).sum(dim=1).double().mean())
