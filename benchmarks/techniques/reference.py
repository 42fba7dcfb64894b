"""Our numerics against the libraries that have them too: GPTQ and SparseGPT of coremltools, torchao's affine quantization,
exact one-dimensional k-means (coreai-opt carries kmeans1d). Prints a table and writes reference.json beside this file.

    PYTHONPATH=src python benchmarks/techniques/reference.py     # pip install coremltools torchao coreai-opt; a minute
"""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch

from orchard.numerics import calibrated, palette, sparse, uniform
from orchard.numerics.uniform import Grid

HERE = Path(__file__).with_name("reference.json")


def drawn() -> tuple[torch.Tensor, torch.Tensor]:
    """A weight [48, 64] and correlated inputs [512, 64]."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(48, 64, generator=generator)
    inputs = torch.randn(512, 64, generator=generator) @ torch.randn(64, 64, generator=generator)
    return weight, inputs


def loss(weight: torch.Tensor, other: torch.Tensor, inputs: torch.Tensor) -> float:
    return float((inputs @ (other - weight).T).pow(2).mean() / (inputs @ weight.T).pow(2).mean())


def coremltools_gptq() -> dict[str, Any]:
    from coremltools.optimize.torch.layerwise_compression.algorithms import GPTQ, ModuleGPTQConfig

    weight, inputs = drawn()
    out: dict[str, Any] = {}
    for bits in (4, 3):
        layer = torch.nn.Linear(64, 48, bias=False)
        layer.weight.data.copy_(weight)
        config = ModuleGPTQConfig(
            weight_dtype=f"uint{bits}", quantization_scheme="symmetric", granularity="per_channel", hessian_dampening=0.01
        )
        method = GPTQ(layer, config)
        method.add_batch(inputs[None], layer(inputs[None]))
        method.compress()
        gram = inputs.double().T @ inputs.double() / len(inputs)
        ours = calibrated.gptq(weight, gram, Grid(bits=bits))
        theirs = layer.weight.detach()
        out[f"{bits} bits"] = {
            "our_loss": loss(weight, ours, inputs),
            "their_loss": loss(weight, theirs, inputs),
            "rounding_loss": loss(weight, uniform.round_to_nearest(weight, Grid(bits=bits)), inputs),
        }
    return out


def coremltools_sparse_gpt() -> dict[str, Any]:
    from coremltools.optimize.torch.layerwise_compression.algorithms import ModuleSparseGPTConfig, SparseGPT

    weight, inputs = drawn()
    layer = torch.nn.Linear(64, 48, bias=False)
    layer.weight.data.copy_(weight)
    method = SparseGPT(layer, ModuleSparseGPTConfig(n_m_ratio=(2, 4), hessian_dampening=0.01))
    method.add_batch(inputs[None], layer(inputs[None]))
    method.compress()
    gram = inputs.double().T @ inputs.double() / len(inputs)
    ours = sparse.sparse_gpt(weight, gram, sparse.Zeros(n=2, m=4))
    theirs = layer.weight.detach()
    return {
        "our_loss": loss(weight, ours, inputs),
        "their_loss": loss(weight, theirs, inputs),
        "magnitude_loss": loss(weight, sparse.magnitude(weight, sparse.Zeros(n=2, m=4)), inputs),
        "largest_difference": float((ours - theirs).abs().max()),
    }


def torchao_affine() -> dict[str, Any]:
    from torchao.quantization.quant_primitives import (
        MappingType,
        choose_qparams_affine,
        dequantize_affine,
        quantize_affine,
    )

    weight, _ = drawn()
    out = {}
    for bits, block in ((8, 64), (4, 32), (4, 64)):
        low, high = Grid(bits=bits).levels
        scale, zero = choose_qparams_affine(
            weight, MappingType.SYMMETRIC, (1, block), torch.int8, quant_min=low, quant_max=high, eps=1e-12
        )
        q = quantize_affine(weight, (1, block), scale, zero, torch.int8, low, high)
        theirs = dequantize_affine(q, (1, block), scale, zero, torch.int8, low, high)
        ours = uniform.round_to_nearest(weight, Grid(bits=bits, block=block))
        out[f"{bits} bits, blocks of {block}"] = {
            "our_error": float((ours - weight).pow(2).mean()),
            "their_error": float((theirs - weight).pow(2).mean()),
        }
    return out


def exact_kmeans() -> dict[str, Any]:
    from coreai_opt.deps._kmeans1d.core import cluster

    weight, _ = drawn()
    values = weight.double().flatten().numpy()
    out = {}
    for bits in (2, 3, 4, 6):
        found = cluster(list(values), 1 << bits)
        best = float(((values - np.asarray(found.centroids)[np.asarray(found.clusters)]) ** 2).mean())
        ours = palette.palettize(weight, bits).values.double().flatten().numpy()
        error = float(((values - ours) ** 2).mean())
        out[f"{bits} bits"] = {"our_error": error, "least_error": best, "over": error / best - 1}
    return out


def main() -> None:
    warnings.simplefilter("ignore")
    kept: dict[str, Any] = {}
    for measure in (coremltools_gptq, coremltools_sparse_gpt, torchao_affine, exact_kmeans):
        try:
            kept[measure.__name__] = measure()
        except Exception as error:  # a library that is missing or has moved on is a result too
            kept[measure.__name__] = f"could not be compared: {type(error).__name__}: {error}"
        print(measure.__name__, kept[measure.__name__], flush=True)
    HERE.write_text(json.dumps(kept, indent=1) + "\n")


if __name__ == "__main__":
    main()
