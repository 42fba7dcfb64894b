"""The denoisers and auto-encoders themselves are held to published counts by tests/workloads/vision/test_networks.py."""

from __future__ import annotations

import pytest

from orchard.ir import value_of
from orchard.ir.count import macs, macs_of
from orchard.workloads import ModelError, load_model
from orchard.workloads.diffusion.pipelines import PIPELINES, known_as
from orchard.workloads.networks import build_network


def test_the_unet_of_stable_diffusion_has_its_published_parameters_exactly():
    assert build_network("stable-diffusion-1.5-unet").parameters == 859_520_964
    assert build_network("stable-diffusion-xl-unet").parameters == 2_567_463_684


def test_a_larger_picture_pays_for_attention_with_its_square():
    small, large = (build_network("stable-diffusion-1.5-unet", n) for n in (512, 1024))

    def scores(graph):
        ops = [op for op in graph.ops if op.name.rpartition(".")[2] == "scores"]
        own = [op for op in ops if graph.inputs_of(op)[0].shape[1] == graph.inputs_of(op)[1].shape[1]]
        return sum(value_of(macs_of(op, graph), {"B": 1}) for op in own)

    assert scores(large) == 16 * scores(small)
    assert 4 < value_of(macs(large), {"B": 1}) / value_of(macs(small), {"B": 1}) < 16


def test_guidance_doubles_the_work_of_a_step():
    graph = load_model("stable-diffusion-1.5").graph(part="unet")
    assert value_of(macs(graph), {"B": 2}) == 2 * value_of(macs(graph), {"B": 1})


@pytest.mark.parametrize("name", PIPELINES)
def test_a_pipeline_is_the_sum_of_its_components(name):
    model = load_model(name)
    assert model.family == "pipeline"
    assert model.parts[0] == model.config.denoiser.part
    assert model.params == sum(model.component(part).params for part in model.parts)


def test_sides_of_pictures_are_multiples_of_64():
    from orchard.workloads.registry import load_pipeline

    with pytest.raises(ModelError, match="side of 500 pixels, expected a multiple of 64"):
        load_pipeline("stable-diffusion-1.5", 500)
    larger = load_pipeline("stable-diffusion-2.1-base", 768, 512).graph(part="unet")
    assert larger.tensors["latents"].shape[2:] == (96, 64)


def test_an_unknown_pipeline_names_its_neighbour():
    with pytest.raises(ModelError, match=r"stable-diffusion-1\.5"):
        load_model("stable-difusion-1.5")


@pytest.mark.parametrize(
    ("measured", "found"),
    [
        ("Stable Diffusion v1.5", ("stable-diffusion-1.5", None)),
        ("Stable Diffusion 2.1-base UNet", ("stable-diffusion-2.1-base", "unet")),
        ("small-stable-diffusion-v0", ("small-stable-diffusion-v0", None)), ("Stable Diffusion v9", None),
        ("ResNet50", None),
    ],
)  # fmt: skip
def test_measured_pipelines_are_built_in(measured, found):
    assert known_as(measured) == found
