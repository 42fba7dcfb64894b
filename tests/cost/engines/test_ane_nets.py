import numpy as np
import pytest

from orchard.cost.evaluate import engine_model
from orchard.cost.lower import lower
from orchard.cost.profile import load_profile
from orchard.hw import HardwareArrays, load_chip
from orchard.workloads.vision.net import Net

PROFILE = load_profile("coreml-ane-nets")


def compute_s(channels: int, kernel: int = 1, stride: int = 1, groups: int = 1, chip: str = "a15") -> float:
    net = Net("one", 32, 32, channels)
    graph = net.build(net.conv(net.image, channels, kernel, stride, groups=groups, bias=False))
    table = lower(graph, PROFILE.lowering)
    values = {**PROFILE.values(), "overlap_sharpness": 60.0}
    terms = engine_model(PROFILE)(table.evaluate({"B": 1}), HardwareArrays.of(load_chip(chip)), values, PROFILE.rules)
    return float(np.sum(terms.total - terms.dispatch))


def test_channels_are_dealt_to_whole_cores():
    assert compute_s(256 + 1) > compute_s(256)


def test_winograd_makes_a_3x3_cheaper_per_mac_than_its_strided_form():
    gain = PROFILE.values()["winograd_gain"]
    plain, strided = compute_s(512, 3), compute_s(512, 3, 2)
    assert plain / strided == pytest.approx(4.0 / gain, rel=0.35)


def test_a_depthwise_convolution_runs_far_below_the_array_rate():
    assert compute_s(512, 3, groups=512) > compute_s(512, 3) / 512 * 5
