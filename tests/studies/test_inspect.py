"""What `inspect` counts: kinds and modules add up to the model."""

import json

import pytest

from orchard.ir import bind, parse_graph
from orchard.report.inspect import inspection_record, render_inspection
from orchard.report.schemas import SCHEMAS
from orchard.studies.errors import StudyError
from orchard.studies.inspect import inspect

MODELS = ["llama-3.2-1b", "qwen3-30b-a3b", "bert-base-uncased"]


@pytest.mark.parametrize("model", MODELS)
def test_kinds_and_modules_add_up(model):
    found = inspect(model)
    point = {"B": 2, "T": 3, "S": 7}
    values = {k: v for k, v in point.items() if k in found.symbols}
    whole = next(m for m in found.modules if m.path == "")
    top = [m for m in found.modules if m.path and "." not in m.path]
    assert sum(k.ops for k in found.kinds) == whole.ops == len(found.graph.ops)
    assert sum(bind(k.macs, values) for k in found.kinds) == bind(found.macs, values) == bind(whole.macs, values)
    assert sum(m.parameters for m in top) == whole.parameters
    assert whole.parameters + unread(found) == found.parameters
    assert sum(found.formats.values()) == sum(bind(w.elements, {}) for w in found.graph.weights)


def unread(found):
    """Elements of weights that no op reads, and of constants that are no parameters."""
    read = {name for op in found.graph.ops for name in op.inputs}
    weights = found.graph.weights
    return found.parameters - sum(bind(w.elements, {}) for w in weights if w.name in read)


def test_the_text_is_the_graph():
    found = inspect("llama-3.2-1b", weights="q4_0")
    assert parse_graph(found.text) == found.graph
    assert set(found.formats) == {"q4_0", "q6_k", "f32"}


def test_the_record_follows_its_schema():
    record = inspection_record(inspect("gpt2"))
    SCHEMAS["orchard.inspection/1"].model_validate_json(json.dumps(record))


def test_the_tree_shows_as_many_levels_as_asked():
    found = inspect("llama-3.2-1b")
    shallow, deep = (render_inspection(found, tree=True, depth=d, graph=False) for d in (1, 3))
    assert "  layers" in shallow
    assert "attn" not in shallow
    assert "attn" in deep


def test_parts_of_a_pipeline_are_inspected_one_by_one():
    whole = inspect("stable-diffusion-1.5")
    assert (whole.part, whole.parts) == ("unet", ("unet", "text_encoder", "vae_decoder"))
    decoder = inspect("stable-diffusion-1.5", part="vae_decoder")
    assert decoder.parameters == 49_490_199
    assert "part     vae_decoder; also --part unet" in render_inspection(decoder, tree=False, depth=1, graph=False)
    assert inspect("resnet18").part is None


def test_a_part_that_a_model_lacks_is_refused():
    with pytest.raises(StudyError, match="no such part; parts: encoder, decoder"):
        inspect("whisper-tiny", part="unet")
    with pytest.raises(StudyError, match="parts: only one"):
        inspect("resnet18", part="unet")
