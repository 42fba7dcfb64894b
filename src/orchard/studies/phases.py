"""From a request to forward calls: how a runtime walks through a prompt and a generation."""

from __future__ import annotations

from collections.abc import Sequence

from orchard.cost.evaluate import Call

MOST_CALLS = 32
"""A phase longer than this many chunks is sampled evenly; time per chunk is close to linear in the context."""

DECODE_SAMPLES = 3


def prefill_calls(*, prompt: int, depth: int, batch: int, chunk: int) -> list[Call]:
    """`prompt` tokens per sequence after `depth` cached ones, in chunks of at most `chunk` tokens over all sequences."""
    per_sequence = max(1, chunk // batch) if batch > 1 else chunk
    starts = list(range(0, prompt, per_sequence))
    weight = 1.0
    if len(starts) > MOST_CALLS:
        weight = len(starts) / MOST_CALLS
        step = len(starts) / MOST_CALLS
        starts = [starts[min(int((i + 0.5) * step), len(starts) - 1)] for i in range(MOST_CALLS)]
    calls = []
    for start in starts:
        tokens = min(per_sequence, prompt - start)
        calls.append(Call({"B": batch, "T": tokens, "S": depth + start + tokens}, weight))
    return calls


def decode_calls(*, generate: int, context: int, batch: int) -> list[Call]:
    """`generate` steps whose context grows from `context` + 1; weights sum to 1, so the phase is one mean step."""
    samples = min(DECODE_SAMPLES, generate)
    calls = []
    for i in range(samples):
        position = context + 1 + int((i + 0.5) / samples * generate)
        calls.append(Call({"B": batch, "T": 1, "S": position}, 1.0 / samples))
    return calls


def encoder_calls(*, batch: int, tokens: int | None, symbols: Sequence[str]) -> list[Call]:
    """One pass; `tokens` binds T and S where the graph has them."""
    bindings = {"B": batch}
    if "T" in symbols:
        bindings["T"] = tokens or 1
    if "S" in symbols:
        bindings["S"] = tokens or 1
    return [Call({k: v for k, v in bindings.items() if k in symbols})]
