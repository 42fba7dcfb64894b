import re

import pytest

from orchard.ir import value_of
from orchard.ir.count import macs, macs_of
from orchard.workloads import ModelError, load_model
from orchard.workloads.networks import NETWORKS, SOURCES, build_network, known_as, network


def half_a_digit(text: str) -> float:
    """What rounding to the printed digits may hide."""
    return 0.5 * 10 ** -len(text.partition(".")[2])


def agrees(found: float, published: str) -> bool:
    """Within 1 %, and what rounding hides."""
    return abs(found - float(published)) <= 0.01 * float(published) + half_a_digit(published)


@pytest.mark.parametrize("name", NETWORKS)
def test_parameters_and_macs_are_those_published(name):
    graph, published = build_network(name), NETWORKS[name]
    assert agrees(graph.parameters / 1e6, published.params_m)
    if published.gmacs:
        assert agrees(value_of(macs(graph), {"B": 1}) / 1e9, published.gmacs)


def test_every_figure_has_a_source_and_every_source_is_used():
    assert {n.source for n in NETWORKS.values()} == set(SOURCES)
    assert all(n.params_m for n in NETWORKS.values())


def test_most_published_figures_have_three_digits():
    exact = [n for n in NETWORKS.values() if n.gmacs and len(n.gmacs.replace(".", "").lstrip("0")) >= 2]
    assert len(exact) >= 100


def test_the_first_convolution_by_hand():
    graph = build_network("resnet18")
    first = next(op for op in graph.ops if op.kind == "einsum")
    (out,) = graph.outputs_of(first)
    assert out.shape[1:] == (64, 112, 112)
    assert value_of(macs_of(first, graph), {"B": 2}) == 2 * 64 * 112 * 112 * 3 * 7 * 7


def test_an_image_of_another_size_scales_the_convolutions():
    small, large = (value_of(macs(build_network("mobileone-s1", n)), {"B": 1}) for n in (224, 448))
    assert large / small == pytest.approx(4.0, rel=0.01)


def test_windows_bound_the_attention_of_large_pictures():
    # iFormer-M at 512: 32 x 32 positions in the third stage, of which 3 of 4 blocks see windows of 16 x 16
    plain, windowed = (value_of(macs(build_network(n, 512)), {"B": 1}) for n in ("iformer-m", "iformer-m-faster"))
    width, positions = 192, 32 * 32
    whole = positions * positions * (width // 2 + width)  # one head: keys of half the width, values of the whole
    assert plain - windowed == 3 * (whole - whole // 4)


def test_a_shared_convolution_counts_once():
    graph = build_network("recnext-m0")
    down = [w for w in graph.weights if re.match(r"down_w(_\d+)?$", w.name)]
    assert len(down) == 2 + 2 + 9 + 1  # one per block, although applied up to four times
    assert max(len([op for op in graph.ops if w.name in op.inputs]) for w in down) == 4


def test_a_network_is_a_model_by_name():
    model = load_model("ResNet50")
    assert (model.family, model.parts) == ("network", ("network",))
    assert model.params == pytest.approx(25.5e6, rel=0.01)


def test_an_unknown_network_names_its_neighbour():
    with pytest.raises(ModelError, match=r"resnet5.*resnet50"):
        network("resnet5")


@pytest.mark.parametrize(
    ("measured", "built_in"),
    [
        ("MobileNetV2-1.4x", "mobilenet-v2-1.4"), ("MobileNetV3-L-0.75", "mobilenet-v3-large-0.75"),
        ("ResNet50 backbone", "resnet50"), ("FastViT-SA24", "fastvit-sa24"), ("iFormer-M", "iformer-m"),
        ("EfficientFormerV2-S0", "efficientformer-v2-s0"), ("MobileNetV4-Hybrid-M", "mobilenet-v4-hybrid-m"),
        ("MobileNet_V2-1.0x", "mobilenet-v2-1.0"), ("VGG16_BN", "vgg16"), ("Next-ViT-S backbone", "nextvit-s"),
        ("RepNeXt-M0E", "repnext-m0e"), ("MobileCLIP-L/14 image encoder", "mobileclip-l-14-image"),
        ("YOLOv3-Tiny", "yolov3-tiny"),
        ("DeepLabV3-MobileNetV2", "deeplab-v3-mobilenet-v2"), ("DeepLabV3+ MobileNetV2", None),
        ("ObjectDetector (Create ML)", None),
    ],
)  # fmt: skip
def test_measured_names_are_built_in_networks(measured, built_in):
    assert known_as(measured) == built_in
