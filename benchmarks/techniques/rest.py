"""AT15, AT16, AT18, AT20 and AT21 on trained fixtures; prints a table and writes rest.json beside this file.

PYTHONPATH=src python benchmarks/techniques/rest.py [AT15 ...]     # minutes, with training more
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import torch

from orchard.numerics import speculation, vision
from orchard.numerics.fixtures import digits
from orchard.numerics.fixtures.catalog import corpus, model_of, one_thread
from orchard.numerics.fixtures.corpus import sequences
from orchard.numerics.methods.base import Evidence
from orchard.numerics.methods.registry import apply_methods, parse_methods
from orchard.numerics.surgery import linears, sequence_losses

HERE = Path(__file__).with_name("rest.json")


def rows(count: int, length: int = 256) -> torch.Tensor:
    return torch.from_numpy(sequences(corpus().held_out, count, length, seed=12))


def changed(text: str, seed: int = 0) -> torch.nn.Module:
    model = model_of("fx1", seed=seed)
    calibration = torch.from_numpy(sequences(corpus().train, 32, 256, seed=11))
    apply_methods(model, parse_methods(text), Evidence(model, calibration, seed=seed))
    return model


def at15() -> dict[str, object]:
    """Tokens of a round against (1 - a^(g+1)) / (1 - a), sampled at temperature 1: 64 streams, 32 tokens of prompt."""
    target, prompts, cells = speculation.sampler(model_of("fx1", seed=0)), rows(64)[:, :32], {}
    drafts = {
        "fx2": model_of("fx2", seed=0),
        "3 bits": changed("palettize:bits=3"),
        "no layer 1": changed("layer-drop:layer=1"),
    }
    for name, draft in drafts.items():
        for tokens in (1, 2, 4, 8):
            rounds = max(3, 48 // (tokens + 1))
            found = speculation.speculate(
                target, speculation.sampler(draft), prompts, tokens=tokens, rounds=rounds, seed=tokens
            )
            expected = speculation.expected_tokens(found.acceptance, tokens)
            cells[f"{name}, {tokens}"] = {
                "acceptance": found.acceptance,
                "tokens_per_round": found.tokens_per_round,
                "expected": expected,
                "generated": int(found.won.sum()),
                "off": found.tokens_per_round / expected - 1,
            }
    worst = max(abs(c["off"]) for c in cells.values())
    return {"threshold": "within 10 %", "worst": worst, "met": worst <= 0.10, "cells": cells}


def at16() -> dict[str, object]:
    """First new token by speculation against the target's own probabilities, one prompt 20,000 times: chi-squared over the
    20 most
    likely tokens and the others."""
    model, draft = model_of("fx1", seed=0), model_of("fx2", seed=0)
    prompt = rows(1)[:, :24]
    p = speculation.sampler(model)(prompt)[0, -1].double()
    q = speculation.sampler(draft)(prompt)[0, -1].double()
    target, proposal = (lambda ids, d=d: d.float().expand(*ids.shape, -1) for d in (p, q))
    found = speculation.speculate(target, proposal, prompt.expand(20_000, -1), tokens=1, rounds=1, seed=0)
    counts = torch.bincount(found.ids[:, 24], minlength=1024).double()
    top = p.argsort(descending=True)[:20]
    fold = lambda x: torch.cat((x[top], (x.sum() - x[top].sum())[None]))  # noqa: E731
    expected, seen = fold(p) * 20_000, fold(counts)
    chi = float(((seen - expected) ** 2 / expected).sum())
    return {
        "threshold": "chi-squared below 37.6 (20 degrees of freedom, 1 %)",
        "chi_squared": chi,
        "met": chi < 37.6,
        "total_variation": float((counts / 20_000 - p).abs().sum() / 2),
        "of_draft": float((q - p).abs().sum() / 2),
    }


def at18() -> dict[str, object]:
    """Share of inputs that at least one of r neighbouring tokens needs, against 1 - s^r, mean over the products of fx1."""
    model, active = model_of("fx1", seed=0), {}
    hooks = [
        m.register_forward_pre_hook(lambda _m, a, n=n: active.__setitem__(n, a[0].abs().flatten(0, 1)))
        for n, m in linears(model).items()
    ]
    with torch.inference_mode():
        model(rows(8)[:, :-1])
    for hook in hooks:
        hook.remove()
    cells = {}
    for sparsity in (0.25, 0.4, 0.5):
        for count in (1, 2, 4, 8):
            kept = [
                speculation.density(x >= torch.quantile(x[:512].flatten(), sparsity), count) for x in active.values()
            ]
            expected = 1 - sparsity**count
            cells[f"s={sparsity}, r={count}"] = {
                "density": float(np.mean(kept)),
                "expected": expected,
                "off": float(np.mean(kept)) / expected - 1,
            }
    worst = max(abs(c["off"]) for c in cells.values())
    return {"threshold": "within 6 %", "worst": worst, "met": worst <= 0.06, "cells": cells}


def at20(scale: str = "quick", seeds: tuple[int, ...] = (0, 1)) -> dict[str, object]:
    """Loss of one budget of parameters by how keys and values are held."""
    scored = rows(64)
    loss = {
        kind: [float(sequence_losses(model_of(f"fx6-{kind}", seed=s, scale=scale), scored).mean()) for s in seeds]
        for kind in ("mha", "gqa", "mqa", "cla")
    }
    mean = {k: float(np.mean(v)) for k, v in loss.items()}
    return {
        "threshold": "mha <= gqa <= mqa; cla within 0.02 of gqa",
        "scale": scale,
        "seeds": list(seeds),
        "loss": loss,
        "mean": mean,
        "ordered": mean["mha"] <= mean["gqa"] <= mean["mqa"],
        "met_cla": abs(mean["cla"] - mean["gqa"]) <= 0.02,
        "met": mean["mha"] <= mean["gqa"] <= mean["mqa"] and abs(mean["cla"] - mean["gqa"]) <= 0.02,
    }


def at21() -> dict[str, object]:
    """Merged tokens cost accuracy; folding branches changes nothing; few denoising steps make worse pictures."""
    net, vit, denoiser = (digits.picture_model(n) for n in ("fx8-cnn", "fx8-vit", "fx9"))
    held = digits.digits(0)[2]
    with torch.inference_mode():
        folding = float((net(held) - vision.folded(net)(held)).abs().max())
    accuracy = {}
    for merged in (0, 4, 8, 16, 24, 32):
        vit.merge = lambda x, k, r=merged: vision.merge_tokens(x, k, r)  # type: ignore[assignment]
        accuracy[merged] = float(digits.accuracy(vit, 0).mean())
    noise = torch.randn(500, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    distance = {steps: energy_distance(digits.denoise(denoiser, noise, steps), held) for steps in (1, 2, 4, 8, 16, 50)}
    values = list(accuracy.values())
    return {
        "threshold": "accuracy never rises with merging; folding exact; 2 steps worse than 8",
        "accuracy": accuracy,
        "folding_largest_change": folding,
        "distance_to_held_out": distance,
        "cnn_accuracy": float(digits.accuracy(net, 0).mean()),
        "met_merging": all(a >= b for a, b in zip(values, values[1:])),
        "met_folding": folding < 1e-3,
        "met_steps": distance[2] > distance[8],
    }


def energy_distance(made: torch.Tensor, real: torch.Tensor) -> float:
    """2 E|x - y| - E|x - x'| - E|y - y'| over pictures: 0 for equal distributions [Szekely & Rizzo 2013]."""
    x, y = made.flatten(1), real.flatten(1)
    return float(2 * torch.cdist(x, y).mean() - torch.cdist(x, x).mean() - torch.cdist(y, y).mean())


TESTS = {"AT15": at15, "AT16": at16, "AT18": at18, "AT20": at20, "AT21": at21}


def main(names: list[str]) -> None:
    kept = json.loads(HERE.read_text()) if HERE.is_file() else {}
    with one_thread():
        for name in names or list(TESTS):
            kept[name] = TESTS[name]()
            print(name, {k: v for k, v in kept[name].items() if k not in ("cells",)}, flush=True)
            HERE.write_text(json.dumps(kept, indent=1) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
