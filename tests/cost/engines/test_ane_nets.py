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
    free = dict.fromkeys(("weight_share", "spill_share", "on_chip_bytes"), 1e9)  # arithmetic alone
    values = {**PROFILE.values(), **free}
    terms = engine_model(PROFILE)(table.evaluate({"B": 1}), HardwareArrays.of(load_chip(chip)), values, PROFILE.rules)
    return float(np.sum(terms.total - terms.dispatch))


def test_channels_are_dealt_to_whole_cores():
    assert compute_s(256 + 1) > compute_s(256)


def test_winograd_makes_a_3x3_cheaper_per_mac_than_its_strided_form():
    gain = PROFILE.values()["winograd_gain"]
    plain, strided = compute_s(512, 3), compute_s(512, 3, 2)
    assert plain / strided == pytest.approx(4.0 / gain, rel=0.35)


def test_a_depthwise_convolution_runs_far_below_the_array_rate():
    assert compute_s(512, 3, groups=512) > compute_s(512, 3) / 512 * 2.5


def test_attention_costs_by_scores_more_than_by_products():
    """Eight heads of 40 dims against five of 64: the same products, 1.6 times the scores (SD 1.5 against 2.1)."""
    from orchard.ir import Builder

    def seconds(heads: int, dims: int) -> float:
        b = Builder("attention", activations="f16")
        q = b.input("q", (1, 4096, heads, 1, dims))
        k, v = (b.input(n, (1, 4096, heads, dims)) for n in "kv")
        scores = b.einsum("b t g r d, b s g d -> b g r t s", q, k, pairs=4096**2)
        graph = b.build(
            [b.einsum("b g r t s, b s g d -> b t g r d", b.softmax(scores, pairs=4096**2), v, pairs=4096**2)]
        )
        table, hw = lower(graph, PROFILE.lowering), HardwareArrays.of(load_chip("m1"))
        return float(np.sum(engine_model(PROFILE)(table.evaluate({}), hw, PROFILE.values(), PROFILE.rules).total))

    assert 1.2 < seconds(8, 40) / seconds(5, 64) < 1.6


def test_int8_doubles_the_array_rate_from_a17_on():
    def seconds(chip: str, fmt: str) -> float:
        net = Net("one", 64, 64, 512)
        graph = net.build(net.conv(net.image, 512, 1, bias=False))
        graph = graph.with_formats(dict.fromkeys(graph.tensors, fmt))
        table, hw = lower(graph, PROFILE.lowering), HardwareArrays.of(load_chip(chip))
        terms = engine_model(PROFILE)(table.evaluate({"B": 1}), hw, PROFILE.values(), PROFILE.rules)
        return float(np.sum(terms.total - terms.dispatch))

    assert seconds("a17pro", "f16") / seconds("a17pro", "int8") > 1.7
    assert seconds("a16", "f16") / seconds("a16", "int8") < 1.5
