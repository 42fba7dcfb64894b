"""Truncated and corrupted files of every format: a sentence or a right answer, within two seconds and 300 MB, never a crash."""

import json
import logging
import resource
import struct
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchard.units import OrchardError
from orchard.workloads.importers import import_model
from orchard.workloads.importers.protowire import decode

pytestmark = pytest.mark.filterwarnings("ignore")
MOST_MEMORY_KB = 300 * 1024
MOST_SECONDS = 2.0
"""Of processor time, so that a busy machine does not matter; a `.pt2` imports torch first."""
FUZZ = settings(
    max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


@st.composite
def damaged(draw, original: bytes):
    """The file cut somewhere, with bytes changed, a piece doubled, or a piece missing."""
    raw = bytearray(original)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(len(raw) - 1, 0)))
        what = draw(st.sampled_from(["byte", "cut", "repeat", "drop", "ones"]))
        size = draw(st.integers(1, 16))
        if what == "byte" and raw:
            raw[at] = draw(st.integers(0, 255))
        elif what == "cut":
            del raw[at:]
        elif what == "repeat":
            raw[at:at] = raw[at : at + size]
        elif what == "drop":
            del raw[at : at + size]
        elif raw:
            raw[at : at + size] = b"\xff" * min(size, len(raw) - at)
    return bytes(raw)


def answers(path):
    """Import a file that may be damaged: what matters is that it ends with an answer or one sentence."""
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    try:
        import_model(path)
    except OrchardError as error:
        assert "\n" not in str(error).strip()
        assert len(str(error)) < 2000
    assert time.process_time() - start < MOST_SECONDS
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < MOST_MEMORY_KB


@pytest.fixture(scope="module")
def onnx_bytes():
    onnx = pytest.importorskip("onnx")
    import numpy as np
    from onnx import TensorProto, helper, numpy_helper

    n = helper.make_node
    nodes = [
        n("Shape", ["x"], ["s"]), n("Slice", ["s", "zero", "two"], ["lead"]), n("Concat", ["lead", "tail"], ["shape"], axis=0),
        n("MatMul", ["x", "w"], ["y"]), n("Reshape", ["y", "shape"], ["z"]), n("Transpose", ["z"], ["t"], perm=[0, 2, 1, 3]),
        n("Softmax", ["t"], ["p"], axis=-1), n("ReduceMean", ["p"], ["out"], axes=[1], keepdims=0),
        n("QuantizeLinear", ["out", "scale", "zp"], ["q"]), n("Resize", ["p", "", "factors"], ["r"]),
    ]  # fmt: skip
    weights = {
        "w": np.zeros((8, 16), np.float32), "zero": np.array([0]), "two": np.array([2]), "tail": np.array([4, 4]),
        "scale": np.float32(1), "zp": np.uint8(0), "factors": np.array([1, 1, 2, 2], np.float32),
    }  # fmt: skip
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 3, 8])],
        [helper.make_tensor_value_info(o, TensorProto.FLOAT, None) for o in ("out", "q", "r")],
        [numpy_helper.from_array(np.asarray(v), k) for k, v in weights.items()],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]).SerializeToString() if onnx else b""


@FUZZ
@given(data=st.data())
def test_onnx(onnx_bytes, tmp_path, data):
    path = tmp_path / "m.onnx"
    path.write_bytes(data.draw(damaged(onnx_bytes)))
    answers(path)


@pytest.fixture(scope="module")
def coremltools():
    logging.disable(logging.WARNING)
    found = pytest.importorskip("coremltools")
    logging.disable(logging.NOTSET)
    return found


@pytest.fixture(scope="module")
def program_bytes(coremltools, tmp_path_factory):
    import numpy as np
    from coremltools.converters.mil import Builder as mb

    @mb.program(input_specs=[mb.TensorSpec((1, 3, 8, 8))], opset_version=coremltools.target.iOS16)
    def net(x):
        y = mb.conv(x=x, weight=np.ones((8, 3, 3, 3), np.float32), strides=[2, 2], pad_type="same")
        y = mb.max_pool(x=mb.relu(x=y), kernel_sizes=[2, 2], strides=[2, 2], pad_type="valid")
        return mb.softmax(x=mb.linear(x=mb.reshape(x=y, shape=[1, 32]), weight=np.ones((4, 32), np.float32)))

    model = coremltools.convert(net, minimum_deployment_target=coremltools.target.iOS16, skip_model_load=True)
    folder = tmp_path_factory.mktemp("program") / "m.mlpackage"
    model.save(str(folder))
    return next(folder.rglob("*.mlmodel")).read_bytes()


@FUZZ
@given(data=st.data())
def test_ml_program(program_bytes, tmp_path, data):
    path = tmp_path / "m.mlmodel"
    path.write_bytes(data.draw(damaged(program_bytes)))
    answers(path)


@pytest.fixture(scope="module")
def network_bytes(coremltools):
    import numpy as np
    from coremltools.models import datatypes
    from coremltools.models.neural_network import NeuralNetworkBuilder

    builder = NeuralNetworkBuilder([("x", datatypes.Array(1, 3, 8, 8))], [("out", None)], disable_rank5_shape_mapping=True)
    builder.add_convolution(
        "c", 3, 8, 3, 3, 2, 2, "same", 1, np.ones((3, 3, 3, 8)), np.ones(8), True, input_name="x", output_name="c"
    )
    builder.add_activation("r", "RELU", "c", "r")
    builder.add_pooling("p", 2, 2, 2, 2, "MAX", "VALID", "r", "p")
    builder.add_reshape_static("s", "p", "s", [1, 32])
    builder.add_inner_product("d", np.ones((4, 32)), np.ones(4), 32, 4, True, "s", "d")
    builder.add_slice_static("l", "d", "out", [0, 1], [1, 3], [1, 1], [False] * 2, [False] * 2, squeeze_masks=[False] * 2)
    return builder.spec.SerializeToString()


@FUZZ
@given(data=st.data())
def test_neural_network(network_bytes, tmp_path, data):
    path = tmp_path / "m.mlmodel"
    path.write_bytes(data.draw(damaged(network_bytes)))
    answers(path)


@FUZZ
@given(data=st.data())
def test_safetensors(tmp_path, data):
    header = json.dumps(
        {"a.weight": {"dtype": "F16", "shape": [4, 8], "data_offsets": [0, 64]}, "__metadata__": {"format": "pt"}}
    ).encode()
    path = tmp_path / "model.safetensors"
    path.write_bytes(data.draw(damaged(struct.pack("<Q", len(header)) + header + bytes(64))))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama", "hidden_size": 8}))
    answers(path)


@FUZZ
@given(data=st.data())
def test_manifest_of_a_package(program_bytes, tmp_path, data):
    folder = tmp_path / "m.mlpackage"
    (folder / "Data").mkdir(parents=True, exist_ok=True)
    (folder / "Data" / "model.mlmodel").write_bytes(program_bytes)
    manifest = {"itemInfoEntries": {"a": {"path": "model.mlmodel"}}, "rootModelIdentifier": "a"}
    (folder / "Manifest.json").write_bytes(data.draw(damaged(json.dumps(manifest).encode())))
    answers(folder)


DAMAGES = {
    "cut": lambda raw: raw[: len(raw) // 2], "front gone": lambda raw: raw[64:], "empty": lambda raw: b"",
    "zeros": lambda raw: bytes(len(raw)), "tail of ones": lambda raw: raw[:-200] + b"\xff" * 200,
}  # fmt: skip


@pytest.mark.parametrize("how", DAMAGES)
def test_pt2(how, tmp_path):
    torch = pytest.importorskip("torch")
    path = tmp_path / "m.pt2"
    torch.export.save(torch.export.export(torch.nn.Linear(4, 4), (torch.zeros(1, 4),)), path)
    import_model(path)
    path.write_bytes(DAMAGES[how](path.read_bytes()))
    answers(path)


@pytest.mark.parametrize("how", DAMAGES)
def test_mlxfn(how, tmp_path):
    mx = pytest.importorskip("mlx.core")
    path = tmp_path / "m.mlxfn"
    weight = mx.ones((4, 4))
    mx.eval(weight)
    mx.export_function(str(path), lambda x: mx.tanh(x @ weight), mx.zeros((2, 4)))
    path.write_bytes(DAMAGES[how](path.read_bytes()))
    answers(path)


@pytest.mark.parametrize(
    "change", [(b"abc,dbc->ad", b"abc,dbc->az"), (b"\x00\x00\x00\x40\x00\x00\x00\x40", b"\x00\x00\xc0\x7f" * 2)]
)
def test_letters_without_operand_and_factors_that_are_no_numbers(tmp_path, change):
    """What benchmarks/importers/fuzz.py found."""
    onnx = pytest.importorskip("onnx")
    import numpy as np
    from onnx import TensorProto, helper, numpy_helper

    factors = numpy_helper.from_array(np.array([1, 2, 2], np.float32), "f")
    nodes = [
        helper.make_node("Einsum", ["x", "x"], ["y"], equation="abc,dbc->ad"),
        helper.make_node("Resize", ["x", "", "f"], ["z"]),
    ]
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 3, 8])],
        [helper.make_tensor_value_info(o, TensorProto.FLOAT, None) for o in "yz"], [factors],
    )  # fmt: skip
    raw = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]).SerializeToString()
    assert onnx
    assert change[0] in raw
    path = tmp_path / "m.onnx"
    path.write_bytes(raw)
    import_model(path)
    path.write_bytes(raw.replace(*change))
    with pytest.raises(OrchardError, match=r"letters that no operand has|a resize by"):
        import_model(path)


@pytest.mark.parametrize("layer", ["convolution", "pooling"])
def test_a_stride_of_zero_in_the_old_format(coremltools, tmp_path, layer):
    import numpy as np
    from coremltools.models import datatypes
    from coremltools.models.neural_network import NeuralNetworkBuilder

    builder = NeuralNetworkBuilder([("x", datatypes.Array(1, 3, 8, 8))], [("y", None)], disable_rank5_shape_mapping=True)
    if layer == "convolution":
        kernel = np.ones((3, 3, 3, 8))
        builder.add_convolution("c", 3, 8, 3, 3, 2, 2, "same", 1, kernel, None, False, input_name="x", output_name="y")
    else:
        builder.add_pooling("c", 2, 2, 2, 2, "MAX", "SAME", "x", "y")
    getattr(builder.spec.neuralNetwork.layers[0], layer).stride[0] = 0
    path = tmp_path / "m.mlmodel"
    path.write_bytes(builder.spec.SerializeToString())
    with pytest.raises(OrchardError, match="stride"):
        import_model(path)


def test_an_operation_without_a_result(coremltools, program_bytes, tmp_path):
    from coremltools.proto import Model_pb2

    spec = Model_pb2.Model.FromString(program_bytes)
    (function,) = spec.mlProgram.functions.values()
    (block,) = function.block_specializations.values()
    del block.operations[0].outputs[:]
    path = tmp_path / "m.mlmodel"
    path.write_bytes(spec.SerializeToString())
    with pytest.raises(OrchardError, match="an operation without a result"):
        import_model(path)


def test_an_entry_of_a_map_without_its_value():
    """Field 1 is an entry of three bytes that has a key (field 1, one letter) and no value: an empty message by the format."""
    schema = {1: ("blocks", ("map", {1: ("name", "str"), 2: ("operations", ["str"])}))}
    found = decode(memoryview(b"\x0a\x03\x0a\x01a"), schema, "x")
    assert (found.blocks["a"].name, found.blocks["a"].operations) == ("", [])


def test_a_stride_of_zero_in_an_ml_program(coremltools, program_bytes, tmp_path):
    from coremltools.proto import Model_pb2

    spec = Model_pb2.Model.FromString(program_bytes)
    (function,) = spec.mlProgram.functions.values()
    (block,) = function.block_specializations.values()
    strides = [o for o in block.operations if o.type == "const" and o.outputs[0].name.endswith("strides_0")]
    for operation in strides:
        operation.attributes["val"].immediateValue.tensor.ints.values[0] = 0
    assert strides
    path = tmp_path / "m.mlmodel"
    path.write_bytes(spec.SerializeToString())
    with pytest.raises(OrchardError, match="stride"):
        import_model(path)
