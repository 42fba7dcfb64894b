"""Model files as models: what opens, which symbols take which option, what is refused."""

import pytest

from orchard import predict
from orchard.studies.errors import StudyError
from orchard.studies.request import Request
from orchard.studies.sources import bind_symbols, is_import, open_model, parse_inputs
from orchard.units import OrchardError

onnx = pytest.importorskip("onnx")


@pytest.fixture
def product_file(tmp_path):
    """x[batch, 64] times w[64, 32] as an ONNX file with a free batch."""
    import numpy as np
    from onnx import TensorProto, helper, numpy_helper

    weight = numpy_helper.from_array(np.zeros((64, 32), dtype=np.float32), "w")
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "product",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 64])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 32])],
        [weight],
    )
    path = tmp_path / "product.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), str(path))
    return path


def test_an_onnx_file_is_predicted_with_its_batch(product_file):
    small, large = (predict(str(product_file), "m4", engine="gpu", batch=b).phases["inference"] for b in (4, 512))
    assert small.ops == 2 * 4 * 64 * 32
    assert large.ops == 128 * small.ops
    assert large.latency_s > small.latency_s >= small.bound_s


def test_weights_stay_as_stored_unless_a_scheme_is_named(product_file):
    stored = predict(str(product_file), "m4", engine="gpu")
    halved = predict(str(product_file), "m4", engine="gpu", weights="f16")
    assert stored.weights == "as stored"
    assert stored.weight_bytes == 4 * 64 * 32
    assert halved.weight_bytes == 2 * 64 * 32


def test_a_named_shape_fixes_a_free_size(product_file):
    fixed = open_model(Request(model=str(product_file), chip="m4", inputs=("x=8x64",)))
    assert fixed.graph().symbols == ()


def test_a_changed_file_is_read_again(product_file):
    before = open_model(Request(model=str(product_file), chip="m4"))
    assert open_model(Request(model=str(product_file), chip="m4")) is before
    import os

    os.utime(product_file, (1, 1))
    assert open_model(Request(model=str(product_file), chip="m4")) is not before


@pytest.mark.parametrize("text", ["x", "x=", "=1x2", "x=1x-2", "x=1x0", "x=1.5", "x=1x" + "9" * 20])
def test_bad_shapes_are_refused_in_one_sentence(text):
    with pytest.raises(StudyError, match="--input"):
        parse_inputs((text,))


def test_shapes_may_name_sizes():
    assert parse_inputs(("ids=1xseq", "image=1x3x224x224")) == {"ids": (1, "seq"), "image": (1, 3, 224, 224)}


def test_a_size_nobody_named_is_an_error_that_says_how_to_fix_it():
    from orchard.ir import Builder

    b = Builder("net", symbols=("height",))
    x = b.input("x", (1, b.sym("height")))
    graph = b.build([b.elementwise("relu", x)])
    with pytest.raises(StudyError, match=r"height is not fixed; fix it with --input name=shape \(inputs: x\)"):
        bind_symbols(graph, Request(model="net", chip="m4"))


@pytest.mark.parametrize("name", ["llama-3.1-8b", "Qwen/Qwen3-4B", "x" * 5000, "a\0b", "config.json"])
def test_names_and_configurations_are_not_imports(name):
    assert not is_import(name)


@pytest.mark.parametrize("name", ["net.onnx", "model.gguf", "folder/net.pt2", "package.module:function"])
def test_files_and_functions_are_imports(name):
    assert is_import(name)


def test_named_shapes_of_a_built_in_model_are_refused():
    with pytest.raises(StudyError, match="--batch and --prompt"):
        predict("llama-3.2-1b", "m4", inputs={"ids": (1, 8)})


def test_a_missing_file_is_one_sentence(tmp_path):
    with pytest.raises(OrchardError, match="no such file"):
        predict(str(tmp_path / "none.onnx"), "m4")


def test_sizes_that_were_chosen_for_an_open_model_are_named(product_file):
    found = predict(str(product_file), chip="m1", batch=2)
    assert any("priced at batch=2 (" in w for w in found.warnings)
