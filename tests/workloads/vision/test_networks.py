import pytest

from orchard.ir import value_of
from orchard.ir.count import macs
from orchard.workloads import ModelError, load_model
from orchard.workloads.vision import NETWORKS, build_network, network

ROUNDED = {  # published with two digits only, or (starnet-s4) with normalisation counted as MACs
    "mobilenet-v4-conv-s": 0.025, "mobilenet-v4-conv-m": 0.02, "efficientnet-b0": 0.015, "repvit-m0.9": 0.02,
    "repvit-m1.0": 0.015, "repvit-m1.1": 0.03, "repvit-m1.5": 0.015, "fastvit-t8": 0.025, "fastvit-sa12": 0.025,
    "swiftformer-s": 0.02, "starnet-s4": 0.025,
}  # fmt: skip


@pytest.mark.parametrize("name", NETWORKS)
def test_parameters_and_macs_are_those_published(name):
    graph, published = build_network(name), NETWORKS[name]
    assert graph.parameters / 1e6 == pytest.approx(published.params_m, rel=0.0101 if name != "repvit-m1.1" else 0.012)
    if name.startswith("mobilenet-v3-large-0."):
        return  # published with one digit
    assert value_of(macs(graph), {"B": 1}) / 1e9 == pytest.approx(published.gmacs, rel=ROUNDED.get(name, 0.0101))


def test_at_least_25_networks_hold_to_one_percent():
    assert len(set(NETWORKS) - set(ROUNDED)) >= 25


def test_the_first_convolution_by_hand():
    graph = build_network("resnet18")
    first = next(op for op in graph.ops if op.kind == "einsum")
    (out,) = graph.outputs_of(first)
    assert out.shape[1:] == (64, 112, 112)
    from orchard.ir.count import macs_of

    assert value_of(macs_of(first, graph), {"B": 2}) == 2 * 64 * 112 * 112 * 3 * 7 * 7


def test_an_image_of_another_size_scales_the_convolutions():
    small, large = (value_of(macs(build_network("mobileone-s1", n)), {"B": 1}) for n in (224, 448))
    assert large / small == pytest.approx(4.0, rel=0.01)


def test_a_network_is_a_model_by_name():
    model = load_model("ResNet50")
    assert (model.family, model.parts) == ("network", ("network",))
    assert model.params == pytest.approx(25.5e6, rel=0.01)


def test_an_unknown_network_names_its_neighbour():
    with pytest.raises(ModelError, match=r"resnet5.*resnet50"):
        network("resnet5")
