"""Techniques on activations, structure and the cache."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor, nn

from orchard.numerics import cache, rotation, sparse
from orchard.numerics.calibrated import smoothing
from orchard.numerics.errors import NumericsError
from orchard.numerics.fixtures.tinylm import TinyLM
from orchard.numerics.methods.base import Evidence, Numeric
from orchard.numerics.methods.weights import Rtn
from orchard.numerics.surgery import change_inputs, change_outputs, linears, set_weight
from orchard.numerics.uniform import fake_quantize
from orchard.techniques.base import option


@dataclass(frozen=True, slots=True, kw_only=True)
class Rotation(Numeric):
    """Inputs and weights of each product times one orthogonal matrix: the output stays, outliers spread. One matrix per width."""

    name: ClassVar[str] = "rotation"

    def apply(self, model: nn.Module, evidence: Evidence) -> None:
        for module in linears(model).values():
            q = rotation.orthogonal(module.in_features, seed=evidence.seed)
            set_weight(module, (module.weight.double() @ q).to(module.weight.dtype))
            change_inputs(module, _times(q.to(module.weight.dtype)))
        evidence.touched()


def _times(q: Tensor):  # type: ignore[no-untyped-def]
    return lambda x: x @ q


@dataclass(frozen=True, slots=True, kw_only=True)
class Smooth(Numeric):
    """SmoothQuant: inputs divided, weights multiplied by max|x|^a / max|w|^(1-a)."""

    name: ClassVar[str] = "smooth"
    exponent: float = option(0.5, "share of the outliers that moves into the weights", least=0.0, most=1.0)

    def apply(self, model: nn.Module, evidence: Evidence) -> None:
        for name, module in linears(model).items():
            scale = smoothing(evidence.inputs[name].max_abs, [module.weight.detach()], self.exponent)
            set_weight(module, module.weight * scale)
            change_inputs(module, _divided(scale))
        evidence.touched()


def _divided(scale: Tensor):  # type: ignore[no-untyped-def]
    return lambda x: x / scale


@dataclass(frozen=True, slots=True, kw_only=True)
class Activations(Numeric):
    """Inputs of products on a symmetric grid: a scale per token, or one for the tensor fixed by calibration."""

    name: ClassVar[str] = "activations"
    bits: int = option(8, "bits of an activation", least=2, most=8)
    static: bool = option(False, "one scale from the largest calibration value, as the Neural Engine needs it")

    def apply(self, model: nn.Module, evidence: Evidence) -> None:
        for name, module in linears(model).items():
            scale = evidence.inputs[name].max_abs.max() / ((1 << (self.bits - 1)) - 1) if self.static else None
            change_inputs(module, _rounded(self.bits, scale))
        evidence.touched()


def _rounded(bits: int, scale: Tensor | None):  # type: ignore[no-untyped-def]
    return lambda x: fake_quantize(x, bits, scale=scale)


@dataclass(frozen=True, slots=True, kw_only=True)
class W8a8(Numeric):
    """8-bit weights per channel and 8-bit activations."""

    name: ClassVar[str] = "w8a8"
    weight_bits: ClassVar[int] = 8
    static: bool = option(True, "one activation scale per tensor, fixed by calibration")

    def apply(self, model: nn.Module, evidence: Evidence) -> None:
        Activations(bits=8, static=self.static).apply(model, evidence)
        Rtn(bits=self.weight_bits).apply(model, evidence)

    def bits_per_weight(self) -> float:
        return float(self.weight_bits)


@dataclass(frozen=True, slots=True, kw_only=True)
class W4a8(W8a8):
    """4-bit weights per channel and 8-bit activations."""

    name: ClassVar[str] = "w4a8"
    weight_bits: ClassVar[int] = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class ActivationSparsity(Numeric):
    """The smallest inputs of each product count as zero: a threshold per product from calibration (TEAL)."""

    name: ClassVar[str] = "activation-sparsity"
    sparsity: float = option(0.4, "share of inputs that count as zero", least=0.01, most=0.99)

    def apply(self, model: nn.Module, evidence: Evidence) -> None:
        for name, module in linears(model).items():
            sizes = evidence.inputs[name].sample.abs().flatten()[:QUANTILE_MOST]
            change_inputs(module, _cut(torch.quantile(sizes, self.sparsity)))
        evidence.touched()


QUANTILE_MOST = 1 << 23
"""torch.quantile takes at most 2^24 values."""


def _cut(threshold: Tensor):  # type: ignore[no-untyped-def]
    return lambda x: torch.where(x.abs() >= threshold, x, torch.zeros_like(x))


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerDrop(Numeric):
    """Layers whose parts add nothing any more: `layer`, or the `count` whose input and output are most alike (ShortGPT)."""

    name: ClassVar[str] = "layer-drop"
    count: int = option(1, "layers to remove", least=1, most=1000)
    layer: int = option(-1, "this one; -1: by likeness of input and output", least=-1, most=1000)

    def apply(self, model: nn.Module, evidence: Evidence) -> None:
        if not isinstance(model, TinyLM):
            raise NumericsError(f"layer-drop has numerics for the fixtures, not for {type(model).__name__}")
        if max(self.layer + 1, self.count) > len(model.blocks) - (self.layer < 0):
            raise NumericsError(
                f"layer-drop: layer={self.layer}, count={self.count}, the model has {len(model.blocks)} layers"
            )
        chosen = [self.layer] if self.layer >= 0 else _most_alike(model, evidence.rows, self.count)
        for index in chosen:
            block = model.blocks[index]
            set_weight(block.attention.o_proj, torch.zeros_like(block.attention.o_proj.weight))  # type: ignore[union-attr,arg-type]
            set_weight(block.mlp.down_proj, torch.zeros_like(block.mlp.down_proj.weight))  # type: ignore[union-attr,arg-type]
        evidence.touched()


def _most_alike(model: TinyLM, rows: Tensor, count: int) -> list[int]:
    x, cache_, alike = model.embedding(rows[:8, :-1]), None, []
    with torch.inference_mode():
        for block in model.blocks:
            y, cache_ = block(x, cache_, model.probe)
            alike.append(float(torch.cosine_similarity(x, y, dim=-1).mean()))
            x = y
    return sorted(range(len(alike)), key=lambda i: -alike[i])[:count]


@dataclass(frozen=True, slots=True, kw_only=True)
class PruneStructured(Numeric):
    """Feed-forward channels of least output go; what stays is a multiple of `multiple`."""

    name: ClassVar[str] = "prune-structured"
    keep: float = option(0.75, "share of feed-forward channels that stay", least=0.05, most=0.99)
    multiple: int = option(64, "channels are a multiple of this", among=(1, 16, 32, 64, 128))

    def apply(self, model: nn.Module, evidence: Evidence) -> None:
        found, done = linears(model), 0
        for name, down in found.items():
            ups = [
                found[n]
                for n in (name.replace("down_proj", "up_proj"), name.replace("down_proj", "gate_proj"))
                if n in found
            ]
            if not name.endswith("down_proj") or not ups:
                continue
            keep = max(self.multiple, round(self.keep * down.in_features / self.multiple) * self.multiple)
            kept = sparse.feedforward_channels(ups[0].weight, down.weight.detach(), evidence.inputs[name].gram, keep)
            mask = torch.zeros(down.in_features).index_fill_(0, kept, 1.0)
            set_weight(down, down.weight * mask)
            for up in ups:
                set_weight(up, up.weight * mask[:, None])
            done += 1
        if not done:
            raise NumericsError("prune-structured: no feed-forward with up_proj and down_proj in this model")
        evidence.touched()


@dataclass(frozen=True, slots=True, kw_only=True)
class KvQuant(Numeric):
    """Keys and values on asymmetric grids; `axis` and `rope` are those of the keys, values have a scale per token."""

    name: ClassVar[str] = "kv-quant"
    bits: int = option(8, "bits per element", among=(2, 3, 4, 8, 16))
    v_bits: int = option(0, "bits of the values; 0: as the keys", among=(0, 2, 3, 4, 8, 16))
    axis: str = option(
        "token", "keys share a scale per token, or per channel over 32 tokens", among=("token", "channel")
    )
    rope: str = option("after", "keys are rounded before or after rotary positions", among=("before", "after"))
    recent: int = option(0, "last tokens that stay exact", least=0, most=1024)

    def apply(self, model: nn.Module, evidence: Evidence) -> None:
        if isinstance(model, TinyLM):
            keys = {"keys" if self.rope == "after" else "keys_before_rope": lambda _layer, k: self._keys(k)}
            model.probe = replace(model.probe, values=lambda _layer, v: self._values(v), **keys)
        else:
            self._hook(model)
        evidence.touched()

    def _keys(self, k: Tensor) -> Tensor:
        return cache.quantize_cache(k, self.bits, axis=self.axis, recent=self.recent)  # type: ignore[arg-type]

    def _values(self, v: Tensor) -> Tensor:
        return cache.quantize_cache(v, self.v_bits or self.bits, axis="token", recent=self.recent)

    def _hook(self, model: nn.Module) -> None:
        """On another model: what comes out of k_proj and v_proj, which is before rotary positions."""
        found = linears(model)
        keys = [m for n, m in found.items() if n.endswith("k_proj")]
        values = [m for n, m in found.items() if n.endswith("v_proj")]
        width = getattr(getattr(model, "config", None), "head_dim", None)
        if not keys or not values or self.rope == "after":
            raise NumericsError(
                f"kv-quant: on {type(model).__name__} it works on products named k_proj and v_proj, before rotary positions; "
                "give rope=before"
            )
        for modules, change in ((keys, self._keys), (values, self._values)):
            for module in modules:
                change_outputs(module, _by_head(change, width or module.out_features))


def _by_head(change, width: int):  # type: ignore[no-untyped-def]
    return lambda y: change(y.unflatten(-1, (-1, width)).transpose(1, 2)).transpose(1, 2).flatten(2)


def _probe_keep(model: nn.Module, name: str, keep) -> None:  # type: ignore[no-untyped-def]
    if not isinstance(model, TinyLM):
        raise NumericsError(f"{name} has numerics for the fixtures, not for {type(model).__name__}")
    model.probe = replace(model.probe, keep=keep)


@dataclass(frozen=True, slots=True, kw_only=True)
class SlidingWindow(Numeric):
    """Every layer sees the `window` last tokens, and `sinks` first ones."""

    name: ClassVar[str] = "sliding-window"
    window: int = option(128, "tokens a layer attends to, beside sinks", least=1, most=2**20)
    sinks: int = option(0, "first tokens that stay", least=0, most=64)

    def apply(self, model: nn.Module, evidence: Evidence) -> None:
        _probe_keep(model, self.name, lambda _layer, s: cache.window_mask(s.shape[-1], self.window, self.sinks))
        evidence.touched()


@dataclass(frozen=True, slots=True, kw_only=True)
class KvEvict(Numeric):
    """Tokens leave the cache by a policy: the window, window and sinks (StreamingLLM), heavy hitters (H2O), SnapKV."""

    name: ClassVar[str] = "kv-evict"
    budget: int = option(64, "tokens kept per layer, sinks included", least=2, most=2**20)
    policy: str = option("sinks", "who stays", among=("window", "sinks", "heavy", "snap"))
    prompt: int = option(192, "tokens of the prompt, for snap", least=17, most=2**20)

    def apply(self, model: nn.Module, evidence: Evidence) -> None:
        _probe_keep(model, self.name, lambda _layer, s: self.mask(s))
        evidence.touched()

    def mask(self, scores: Tensor) -> Tensor:
        tokens = scores.shape[-1]
        if self.policy == "window":
            return cache.window_mask(tokens, self.budget)
        if self.policy == "sinks":
            sinks = min(SINKS, self.budget // 2)
            return cache.window_mask(tokens, self.budget - sinks, sinks)
        if self.policy == "heavy":
            return cache.heavy_mask(scores, self.budget)
        return cache.snap_mask(scores, self.budget, prompt=self.prompt)


SINKS = 4
"""First tokens that StreamingLLM keeps [2309.17453]."""
