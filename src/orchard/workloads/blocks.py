"""What all blocks of a model need: the sizes of this build, norms, biases and residual additions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from orchard.ir import Builder, Size, Tensor
from orchard.workloads.config import DecoderConfig


@dataclass(frozen=True, slots=True)
class Build:
    """One build of one decoder. `batch` sequences of `tokens` new tokens that attend to `context` tokens each.

    `caches` maps a mixer to the (keys, values) that later layers may share; it fills while the graph is built.
    """

    b: Builder
    config: DecoderConfig
    batch: Size
    tokens: Size
    context: Size
    kv_format: str
    caches: dict[str, tuple[Tensor, Tensor]] = field(default_factory=dict)

    def norm(self, x: Tensor, width: int, layer: int | None, name: str = "norm") -> Tensor:
        """The model's norm over the last axis, `width` long, with the parameters the model gives it."""
        config, parameters = self.config, []
        if config.norm_scale:
            parameters.append(self.b.weight(f"w_{name}", (width,), part="norm", layer=layer))
        if config.norm_bias:
            parameters.append(self.b.weight(f"b_{name}", (width,), part="norm", layer=layer))
        return self.b.norm(config.norm, x, *parameters, name=name)

    def rmsnorm(self, x: Tensor, width: int, layer: int | None, name: str) -> Tensor:
        """An RMS norm with a scale, whatever the model's own norm is."""
        return self.b.norm("rmsnorm", x, self.b.weight(f"w_{name}", (width,), part="norm", layer=layer), name=name)

    def project(
        self,
        spec: str,
        x: Tensor,
        shape: Sequence[int],
        *,
        name: str,
        part: str,
        layer: int | None,
        bias: Sequence[int] | None = None,
        format: str = "f16",
    ) -> Tensor:
        """`project` with this build's builder."""
        return project(self.b, spec, x, shape, name=name, part=part, layer=layer, bias=bias, format=format)

    def add(self, residual: Tensor, y: Tensor) -> Tensor:
        """residual + y, with the constant factor some models put on y."""
        if self.config.residual_scale:
            y = self.b.elementwise("scale", y)
        return self.b.elementwise("add", residual, y, name="residual")


def project(
    b: Builder,
    spec: str,
    x: Tensor,
    shape: Sequence[int],
    *,
    name: str,
    part: str,
    layer: int | None,
    bias: Sequence[int] | None = None,
    format: str = "f16",
) -> Tensor:
    """An Einsum of x with a fresh weight of `shape`, plus a bias of shape `bias` if one is given."""
    y = b.einsum(spec, x, b.weight(f"w_{name}", shape, part=part, layer=layer, format=format), name=name)
    if bias is None:
        return y
    return b.elementwise("add", y, b.weight(f"b_{name}", bias, part="bias", layer=layer), name=f"{name}_bias")
