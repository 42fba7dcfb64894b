"""Our numerics against the libraries that have them too: GPTQ and SparseGPT of coremltools, torchao's affine quantization, AWQ,
SmoothQuant and Hadamard matrices, exact one-dimensional k-means (coreai-opt carries kmeans1d). Prints a table and writes
reference.json beside this file.

    PYTHONPATH=src python benchmarks/techniques/reference.py     # pip install coremltools torchao coreai-opt; a minute
"""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch

from orchard.numerics import calibrated, palette, rotation, sparse, uniform
from orchard.numerics.uniform import Grid

HERE = Path(__file__).with_name("reference.json")


def drawn() -> tuple[torch.Tensor, torch.Tensor]:
    """A weight [48, 64] and correlated inputs [512, 64]."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(48, 64, generator=generator)
    inputs = torch.randn(512, 64, generator=generator) @ torch.randn(64, 64, generator=generator)
    return weight, inputs


def largest_positive(weight: torch.Tensor) -> torch.Tensor:
    """Rows turned so that the largest weight of each is positive: a negative one lies half way between two levels of the grid
    2 max / (2^b - 1), where float32 and float64 round differently; a positive one is cut to the last level either way."""
    largest = weight.gather(1, weight.abs().argmax(dim=1, keepdim=True))
    return weight * largest.sign()


def loss(weight: torch.Tensor, other: torch.Tensor, inputs: torch.Tensor) -> float:
    return float((inputs @ (other - weight).T).pow(2).mean() / (inputs @ weight.T).pow(2).mean())


def coremltools_gptq() -> dict[str, Any]:
    """On its own grid (2 max / (2^b - 1)) and on ours. Theirs takes the scale of a block from weights as they stood when
    processing_group_size inputs began, ours from weights as they stand when the block begins."""
    from coremltools.optimize.torch.layerwise_compression.algorithms import GPTQ, ModuleGPTQConfig

    weight, inputs = drawn()
    weight = largest_positive(weight)
    gram = inputs.double().T @ inputs.double() / len(inputs)
    cases = {
        "4 bits": (4, 0, False, 128), "3 bits": (3, 0, False, 128), "4 bits, blocks of 32": (4, 32, False, 32),
        "3 bits, blocks of 16": (3, 16, False, 16), "3 bits, blocks of 16, by activity": (3, 16, True, 128),
        "3 bits, blocks of 16, their scales 128 inputs at a time": (3, 16, False, 128),
    }  # fmt: skip
    out: dict[str, Any] = {}
    for name, (bits, block, by_activity, at_a_time) in cases.items():
        layer = torch.nn.Linear(64, 48, bias=False)
        layer.weight.data.copy_(weight)
        config = ModuleGPTQConfig(
            weight_dtype=f"uint{bits}", quantization_scheme="symmetric", hessian_dampening=0.01,
            granularity="per_block" if block else "per_channel", block_size=block or None,
            use_activation_order_heuristic=by_activity, processing_group_size=at_a_time,
        )  # fmt: skip
        method = GPTQ(layer, config)
        method.add_batch(inputs[None], layer(inputs[None]))
        method.compress()
        theirs = layer.weight.detach()
        ours, same = (
            calibrated.gptq(weight, gram, Grid(bits=bits, block=block, full_range=full), by_activity=by_activity)
            for full in (False, True)
        )
        out[name] = {
            "their_loss": loss(weight, theirs, inputs),
            "our_loss_same_grid": loss(weight, same, inputs),
            "largest_difference_same_grid": float((same - theirs).abs().max()),
            "weights_on_another_level": float(((same - theirs).abs() > 1e-4).float().mean()),
            "our_loss_own_grid": loss(weight, ours, inputs),
            "rounding_loss_own_grid": loss(
                weight, uniform.round_to_nearest(weight, Grid(bits=bits, block=block)), inputs
            ),
        }
    return out


def coremltools_sparse_gpt() -> dict[str, Any]:
    from coremltools.optimize.torch.layerwise_compression.algorithms import ModuleSparseGPTConfig, SparseGPT

    weight, inputs = drawn()
    layer = torch.nn.Linear(64, 48, bias=False)
    layer.weight.data.copy_(weight)
    method = SparseGPT(layer, ModuleSparseGPTConfig(n_m_ratio=(2, 4), weight_dtype="float32", hessian_dampening=0.01))
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

    weight = largest_positive(drawn()[0])
    out = {}
    for bits, block in ((8, 64), (4, 32), (4, 64)):
        low, high = Grid(bits=bits).levels
        scale, zero = choose_qparams_affine(
            weight, MappingType.SYMMETRIC, (1, block), torch.int8, quant_min=low, quant_max=high, eps=1e-12
        )
        q = quantize_affine(weight, (1, block), scale, zero, torch.int8, low, high)
        theirs = dequantize_affine(q, (1, block), scale, zero, torch.int8, low, high)
        ours, same = (
            uniform.round_to_nearest(weight, Grid(bits=bits, block=block, full_range=full)) for full in (False, True)
        )
        out[f"{bits} bits, blocks of {block}"] = {
            "their_error": float((theirs - weight).pow(2).mean()),
            "our_error_same_grid": float((same - weight).pow(2).mean()),
            "largest_difference_same_grid": float((same - theirs).abs().max()),
            "our_error_own_grid": float((ours - weight).pow(2).mean()),
        }
    return out


def torchao_awq() -> dict[str, Any]:
    """Exponents i/20 as theirs (ours tries 1 as well), on the same grid, inputs of uneven size."""
    from torchao.prototype.awq.core import AWQObserver
    from torchao.quantization import IntxWeightOnlyConfig, PerAxis, PerGroup

    weight, inputs = drawn()
    weight, inputs = largest_positive(weight), inputs * torch.logspace(-1, 1, 64)
    gram, mean = inputs.double().T @ inputs.double() / len(inputs), inputs.abs().mean(0)
    out: dict[str, Any] = {}
    for bits, block in ((4, 0), (3, 0), (4, 32), (3, 32)):
        config = IntxWeightOnlyConfig(
            weight_dtype=getattr(torch, f"int{bits}"), granularity=PerGroup(block) if block else PerAxis(0)
        )
        observer = AWQObserver(weight, None, config, scale_search_space_size=20)
        observer(inputs, inputs @ weight.T)
        their_scale, grid = observer.calculate_qparams(), Grid(bits=bits, block=block, full_range=True)
        theirs = uniform.round_to_nearest(weight * their_scale, grid) / their_scale
        ours = calibrated.awq(weight, mean, gram, grid, steps=21)
        out[f"{bits} bits, {f'blocks of {block}' if block else 'by channel'}"] = {
            "our_exponent": ours.exponent,
            "largest_difference_of_scales": float((ours.scale / their_scale - 1).abs().max()),
            "our_loss": loss(weight, ours.values, inputs),
            "their_loss": loss(weight, theirs, inputs),
            "rounding_loss": loss(weight, uniform.round_to_nearest(weight, grid), inputs),
        }
    return out


def torchao_smoothing() -> dict[str, Any]:
    from torchao.prototype.smoothquant.core import SmoothQuantObserver

    weight, inputs = drawn()
    out = {}
    for exponent in (0.5, 0.8):
        observer = SmoothQuantObserver(weight, alpha=exponent)
        observer(inputs)
        theirs = observer.calculate_qparams()[0]
        ours = calibrated.smoothing(inputs.abs().amax(0), [weight], exponent)
        out[f"exponent {exponent}"] = {"largest_relative_difference": float((ours / theirs - 1).abs().max())}
    return out


def torchao_hadamard() -> dict[str, Any]:
    from torchao.prototype.spinquant.hadamard_utils import hadamard_matrix

    return {
        f"{size}": {
            "largest_difference": float((rotation.hadamard(size) - hadamard_matrix(size, "cpu").double()).abs().max())
        }
        for size in (64, 128, 1024)
    }


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
    for measure in (
        coremltools_gptq,
        coremltools_sparse_gpt,
        torchao_affine,
        torchao_awq,
        torchao_smoothing,
        torchao_hadamard,
        exact_kmeans,
    ):
        try:
            kept[measure.__name__] = measure()
        except Exception as error:  # a library that is missing or has moved on is a result too
            kept[measure.__name__] = f"could not be compared: {type(error).__name__}: {error}"
        print(measure.__name__, kept[measure.__name__], flush=True)
    HERE.write_text(json.dumps(kept, indent=1) + "\n")


if __name__ == "__main__":
    main()
