"""MACs of transformers' own classes, counted by torch on its meta device: an implementation that shares nothing with ours."""

from __future__ import annotations

import pytest
import transformers
from transformers.models.sam.modeling_sam import SamVisionEncoder

from orchard.ir import value_of
from orchard.ir.count import macs
from orchard.workloads.networks import build_network

torch = pytest.importorskip("torch")


def counted(make, config, side):
    """(parameters, MACs) of a class for one picture."""
    from torch.utils.flop_counter import FlopCounterMode

    with torch.device("meta"), torch.no_grad(), FlopCounterMode(display=False) as counter:
        module = make(config).eval()
        module(torch.empty(1, 3, side, side))
    return sum(p.numel() for p in module.parameters()), counter.get_total_flops() // 2


@pytest.mark.parametrize(
    ("name", "make", "config", "side"),
    [
        ("resnet50", transformers.ResNetForImageClassification, transformers.ResNetConfig(num_labels=1000), 224),
        ("convnext-t", transformers.ConvNextForImageClassification, transformers.ConvNextConfig(num_labels=1000), 224),
        ("swin-t", transformers.SwinForImageClassification, transformers.SwinConfig(num_labels=1000), 224),
        ("mobilevit-s", transformers.MobileViTForImageClassification, transformers.MobileViTConfig(num_labels=1000), 256),
        ("sam-vit-b-image", SamVisionEncoder, transformers.SamVisionConfig(), 1024),
    ],
)  # fmt: skip
def test_macs_are_those_of_transformers(name, make, config, side):
    parameters, products = counted(make, config, side)
    graph = build_network(name)
    assert value_of(macs(graph), {"B": 1}) == products
    # two numbers of a batch norm are one bias here, and tables of positions are unfolded constants
    assert graph.parameters == pytest.approx(parameters, rel=0.002)
