import pytest

from orchard.studies.errors import StudyError
from orchard.studies.place import place
from orchard.studies.predict import predict, predict_variants
from orchard.studies.request import Request


@pytest.fixture(scope="module")
def picture():
    return predict("stable-diffusion-1.5", "m2", engine="ane", steps=10)


def test_a_picture_takes_its_components_and_so_many_steps(picture):
    p = picture.phases
    assert list(p) == ["inference", "text_encoder", "unet", "vae_decoder"]
    for term in ("latency_s", "bound_s", "energy_j", "ops", "dram_bytes"):
        parts = [getattr(p[n], term) for n in ("text_encoder", "unet", "vae_decoder")]
        assert getattr(p["inference"], term) == pytest.approx(parts[0] + 10 * parts[1] + parts[2])
    assert sum(p["inference"].bound_by.values()) == pytest.approx(1)
    assert sum(k.seconds for k in p["inference"].kernels) <= p["inference"].latency_s * 1.001
    assert picture.to_dict()["steps"] == 10


def test_twice_the_steps_add_the_time_of_the_denoiser_alone(picture):
    more = predict("stable-diffusion-1.5", "m2", engine="ane", steps=20)
    added = more.phases["inference"].latency_s - picture.phases["inference"].latency_s
    assert added == pytest.approx(10 * picture.phases["unet"].latency_s)
    assert more.memory == picture.memory


def test_all_weights_stay_in_memory(picture):
    each = [picture.model.component(p).weight_bytes("f16") for p in picture.model.parts]
    assert picture.memory.weights == picture.weight_bytes == sum(each)


def test_variants_price_the_whole_picture(picture):
    import numpy as np

    request = Request(model="stable-diffusion-1.5", chip="m2", engine="ane", steps=10)
    found = predict_variants(request, {"dram.bandwidth": np.array([102.4e9, 204.8e9])})  # its own, and twice that
    assert next(iter(found)) == "inference"
    assert found["inference"].total[0] == pytest.approx(picture.phases["inference"].latency_s, rel=1e-6)
    assert found["inference"].total[1] <= found["inference"].total[0]


def test_the_standard_number_of_steps():
    assert predict("stable-diffusion-1.5", "m2", engine="ane").steps == 20


def test_steps_of_a_model_without_any_are_refused():
    with pytest.raises(StudyError, match="resnet50 takes no steps"):
        predict("resnet50", "m2", engine="ane", steps=5)
    with pytest.raises(StudyError, match="steps: got 0, expected 1"):
        predict("stable-diffusion-1.5", "m2", steps=0)


def test_a_picture_of_another_size():
    wide = predict("stable-diffusion-1.5", "m2", engine="ane", steps=1, inputs=("image=1x3x512x768",))
    assert wide.phases["vae_decoder"].ops == pytest.approx(1.5 * 2.52e12, rel=0.02)


def test_a_t5_is_predicted_with_its_source_text():
    short, long = (predict("t5-small", "m1", prompt=n, generate=8) for n in (16, 512))
    assert long.phases["decode"].dram_bytes > short.phases["decode"].dram_bytes
    assert long.memory.kv_cache - short.memory.kv_cache == 6 * 2 * 8 * 64 * 2 * (512 - 16)  # cross keys and values
    assert short.memory.weights == short.model.weight_bytes("f16")


@pytest.mark.parametrize(
    "name",
    ["yolov8n", "detr-r50", "sam-vit-b-image", "swin-t", "mobilevit-s", "rnnoise", "wav2vec2-base-960h", "mamba-130m"],
)
@pytest.mark.parametrize("engine", ["ane", "gpu", "cpu"])
def test_families_are_predicted_on_every_engine(name, engine):
    found = predict(name, "a17pro", engine=engine, prompt=64, generate=4)
    assert found.profile.engine == engine
    assert all(phase.latency_s >= phase.bound_s > 0 for phase in found.phases.values())


def test_a_comparison_shows_whole_pictures():
    from orchard.studies.compare import compare

    found = compare(["stable-diffusion-1.5", "stable-diffusion-2.1-base"], ["m2"], engines="ane")
    assert found.shown == ("inference",)
    assert "unet" in found.phases


def test_a_placement_counts_each_part_as_often_as_it_runs() -> None:
    """One engine: `place` is `predict` of the whole picture."""
    picture = {"steps": 3, "inputs": ("image=1x3x256x256",)}
    placed = place("small-stable-diffusion-v0", "m2", engines="ane", explain=False, **picture)
    alone = predict("small-stable-diffusion-v0", "m2", engine="ane", **picture)
    assert {p.name: p.times for p in placed.phases} == {"text_encoder": 1, "unet": 3, "vae_decoder": 1}
    assert placed.total_s == alone.phases["inference"].latency_s
    assert placed.total_j == pytest.approx(alone.phases["inference"].energy_j, rel=1e-12)
    assert placed.answer.value == pytest.approx(placed.total_s, rel=1e-12)
