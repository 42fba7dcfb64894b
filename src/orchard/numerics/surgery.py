"""Looking into a torch model and changing its products: which there are, what flows into them, what flows on instead.

Every technique works on `nn.Linear`, whatever model holds them; output heads, routers and embeddings keep their weights. A change
of the inputs is a pre-hook, so changes stack in the order they were made, and what is calibrated later sees them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from orchard.numerics.errors import NumericsError

KEPT = ("head", "lm_head", "embed_out", "classifier", "score", "router", "gate")
"""Last parts of the names of products that stay as they are. (`gate` is a router; feed-forward gates are called gate_proj.)"""
SAMPLE = 1024
"""Input rows kept of each product."""


def linears(model: nn.Module) -> dict[str, nn.Linear]:
    """Products that techniques change, by name. Raises NumericsError for a model without any."""
    found = {
        name: module for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and name.rpartition(".")[2] not in KEPT
    }  # fmt: skip
    if not found:
        raise NumericsError(
            f"{type(model).__name__} has no torch.nn.Linear to work on; expected a model made of linear layers"
        )
    return found


def logits(model: nn.Module, ids: Tensor) -> Tensor:
    """[B, L, vocabulary] in single precision, of TinyLM or of a transformers model."""
    out = model(ids)
    found: Tensor = out if isinstance(out, Tensor) else out.logits
    return found.float()


def sequence_losses(model: nn.Module, rows: Tensor, *, batch: int = 16) -> Tensor:
    """Mean loss of each sequence [sequences] in nats per token. `rows` [sequences, L + 1]."""
    with torch.inference_mode():
        return torch.cat([_losses(logits(model, part[:, :-1]), part[:, 1:]) for part in rows.split(batch)]).double()


def _losses(scores: Tensor, targets: Tensor) -> Tensor:
    """Mean over scored targets; -100 is not scored."""
    loss = F.cross_entropy(scores.transpose(1, 2), targets, reduction="none", ignore_index=-100)
    return loss.sum(dim=1) / (targets != -100).sum(dim=1).clamp(min=1)


@dataclass(frozen=True)
class Drift:
    """How far answers moved, per sequence: loss [nats/token], KL(base || changed) [nats/token], share of changed top answers."""

    loss: Tensor
    kl: Tensor
    flips: Tensor


def drift(model: nn.Module, rows: Tensor, base: Tensor, *, batch: int = 16) -> Drift:
    """`base`: log-probabilities [sequences, L, vocabulary] of the uncompressed model."""
    loss, kl, flips = [], [], []
    with torch.inference_mode():
        for part, before in zip(rows.split(batch), base.split(batch)):
            scores = logits(model, part[:, :-1])
            after = scores.log_softmax(-1)
            loss.append(_losses(scores, part[:, 1:]))
            kl.append((before.exp() * (before - after)).sum(-1).mean(1))
            flips.append((before.argmax(-1) != after.argmax(-1)).float().mean(1))
    return Drift(torch.cat(loss).double(), torch.cat(kl).double(), torch.cat(flips).double())


def log_probabilities(model: nn.Module, rows: Tensor, *, batch: int = 16) -> Tensor:
    with torch.inference_mode():
        return torch.cat([logits(model, part[:, :-1]).log_softmax(-1) for part in rows.split(batch)])


@dataclass(frozen=True)
class Inputs:
    """What flowed into a product: X'X / rows [I, I] in double precision, mean and largest magnitude [I], some rows [s, I]."""

    gram: Tensor
    mean_abs: Tensor
    max_abs: Tensor
    sample: Tensor


class _Watch:
    """Sums over calls of one product."""

    def __init__(self, width: int) -> None:
        self.gram = torch.zeros(width, width, dtype=torch.float64)
        self.total, self.most = torch.zeros(width, dtype=torch.float64), torch.zeros(width)
        self.rows, self.sample = 0, torch.zeros(0, width)

    def __call__(self, _module: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        x = arguments[0].detach().float().reshape(-1, arguments[0].shape[-1])
        self.gram += (x.T @ x).double()
        self.total += x.abs().double().sum(0)
        self.most = torch.maximum(self.most, x.abs().amax(0)) if len(x) else self.most
        self.rows += len(x)
        if len(self.sample) < SAMPLE:
            self.sample = torch.cat((self.sample, x[:: max(1, len(x) // 256)]))[:SAMPLE]

    def result(self) -> Inputs:
        rows = max(1, self.rows)
        return Inputs(self.gram / rows, (self.total / rows).float(), self.most, self.sample)


def calibrate(model: nn.Module, rows: Tensor, *, batch: int = 16) -> dict[str, Inputs]:
    """Inputs of every product over the sequences, as the model stands."""
    watches = {name: _Watch(module.in_features) for name, module in linears(model).items()}
    hooks = [module.register_forward_pre_hook(watches[name]) for name, module in linears(model).items()]
    try:
        with torch.inference_mode():
            for part in rows.split(batch):
                model(part[:, :-1])
    finally:
        for hook in hooks:
            hook.remove()
    return {name: watch.result() for name, watch in watches.items()}


def fisher(model: nn.Module, rows: Tensor) -> dict[str, Tensor]:
    """Mean square of the gradient of each weight, sequence by sequence: the diagonal of the empirical Fisher matrix."""
    weights = {name: module.weight for name, module in linears(model).items()}
    total = {name: torch.zeros_like(w) for name, w in weights.items()}
    before = {name: w.requires_grad for name, w in weights.items()}
    for w in weights.values():
        w.requires_grad_(True)
    with torch.enable_grad():
        for row in rows:
            scores = logits(model, row[None, :-1])
            loss = F.cross_entropy(scores[0], row[1:], ignore_index=-100)
            for name, grad in zip(weights, torch.autograd.grad(loss, list(weights.values()), allow_unused=True)):
                if grad is not None:
                    total[name] += grad.pow(2)
    for name, w in weights.items():
        w.requires_grad_(before[name])
    return {name: t / len(rows) for name, t in total.items()}


def set_weight(module: nn.Linear, weight: Tensor) -> None:
    """A new weight of the same shape, in place."""
    assert weight.shape == module.weight.shape
    with torch.no_grad():
        module.weight.copy_(weight)


def change_inputs(module: nn.Linear, change: Callable[[Tensor], Tensor]) -> None:
    """From now on the product reads `change(x)`."""
    module.register_forward_pre_hook(lambda _module, arguments: (change(arguments[0]), *arguments[1:]))


def change_outputs(module: nn.Module, change: Callable[[Tensor], Tensor]) -> None:
    """From now on others read `change(y)`."""
    module.register_forward_hook(lambda _module, _arguments, output: change(output))


def layer_of(name: str) -> int:
    """Number of the layer a product stands in, -1 outside any: the first whole number among the parts of its name."""
    return next((int(part) for part in name.split(".") if part.isdecimal()), -1)


def zero_share(weight: Tensor) -> float:
    return float((weight == 0).float().mean())


def weight_bits(shapes: Mapping[str, torch.Size], bits: Mapping[str, float]) -> float:
    """Mean bits per weight over products."""
    total = sum(s.numel() for s in shapes.values())
    return sum(s.numel() * bits[name] for name, s in shapes.items()) / total
