"""The old Core ML format: shapes and MACs of each layer derived by hand, weights as stored, refusals."""

import logging

import pytest

logging.disable(logging.WARNING)
ct = pytest.importorskip("coremltools")
logging.disable(logging.NOTSET)

import numpy as np  # noqa: E402
from coremltools.models import datatypes  # noqa: E402
from coremltools.models.neural_network import NeuralNetworkBuilder, quantization_utils  # noqa: E402

from orchard.ir.count import macs  # noqa: E402
from orchard.workloads.importers import ImportError_, UnsupportedOps, import_model  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")


def w(*shape):
    return np.arange(np.prod(shape), dtype=np.float32).reshape(shape) / 100


def build(inputs, make, *, exact=True):
    features = [(n, datatypes.Array(*s)) for n, s in inputs.items()]
    builder = NeuralNetworkBuilder(features, [("out", None)], disable_rank5_shape_mapping=exact)
    make(builder)
    return builder


def load(builder, tmp_path, name="m.mlmodel", **kwargs):
    path = tmp_path / name
    path.write_bytes(builder.spec.SerializeToString())
    return import_model(path, **kwargs)


def out_shape(imported):
    return imported.graph.tensors[imported.graph.outputs[0]].shape


def conv(b, **kw):
    args = {"kernel_channels": 3, "output_channels": 8, "height": 3, "width": 3, "stride_height": 2, "stride_width": 2,
            "border_mode": "same", "groups": 1, "W": w(3, 3, 3, 8), "b": None, "has_bias": False} | kw  # fmt: skip
    b.add_convolution("c", input_name="x", output_name="out", **args)


def lstm(b, both=False):
    gates = [w(5, 5)] * 4, [w(5, 7)] * 4, [w(5)] * 4
    if both:
        b.add_bidirlstm("l", *gates, *gates, 5, 7, ["x", "h", "c", "hb", "cb"], ["out", "h1", "c1", "h2", "c2"], output_all=True)
    else:
        b.add_unilstm("l", *gates, 5, 7, ["x", "h", "c"], ["out", "h1", "c1"], output_all=True)


RECURRENT = {"x": (6, 2, 7, 1, 1), "h": (1, 2, 5, 1, 1), "c": (1, 2, 5, 1, 1)}
BOTH = RECURRENT | {"hb": (1, 2, 5, 1, 1), "cb": (1, 2, 5, 1, 1)}

# name: inputs, layer, shape of the result, MACs
LAYERS = {
    "convolution": ({"x": (1, 3, 8, 8)}, conv, (1, 8, 4, 4), 8 * 4 * 4 * 27),
    "convolution 5 axes": ({"x": (2, 3, 3, 8, 8)}, conv, (2, 3, 8, 4, 4), 6 * 8 * 4 * 4 * 27),
    "depthwise": (
        {"x": (1, 8, 8, 8)},
        lambda b: conv(b, kernel_channels=1, groups=8, W=w(3, 3, 1, 8), stride_height=1, stride_width=1, border_mode="valid"),
        (1, 8, 6, 6), 8 * 36 * 9,
    ),
    "transposed": (
        {"x": (1, 4, 5, 5)},
        lambda b: conv(b, kernel_channels=4, W=w(2, 2, 4, 8), height=2, width=2, is_deconv=True, border_mode="valid"),
        (1, 8, 10, 10), 4 * 25 * 8 * 4,
    ),
    "pooling": (
        {"x": (1, 4, 9, 9)}, lambda b: b.add_pooling("p", 2, 2, 2, 2, "MAX", "INCLUDE_LAST_PIXEL", "x", "out"), (1, 4, 5, 5), 0,
    ),
    "global pooling": (
        {"x": (1, 4, 9, 9)}, lambda b: b.add_pooling("p", 9, 9, 1, 1, "AVERAGE", "VALID", "x", "out", is_global=True),
        (1, 4, 1, 1), 0,
    ),
    "inner product": (
        {"x": (3, 5, 7)}, lambda b: b.add_inner_product("f", w(4, 7), w(4), 7, 4, True, "x", "out"), (3, 5, 4), 15 * 28,
    ),
    "batched matmul": (
        {"x": (2, 3, 5), "y": (2, 7, 5)}, lambda b: b.add_batched_mat_mul("m", ["x", "y"], "out", transpose_b=True),
        (2, 3, 7), 2 * 3 * 5 * 7,
    ),
    "matmul by weight": (
        {"x": (2, 3, 5)},
        lambda b: b.add_batched_mat_mul("m", ["x"], "out", weight_matrix_rows=5, weight_matrix_columns=4, W=w(5, 4)),
        (2, 3, 4), 6 * 20,
    ),
    "embedding": (
        {"x": (6, 1)}, lambda b: b.add_embedding_nd("e", "x", "out", 10, 4, w(4, 10)), (6, 4), 0,
    ),
    "lstm": (RECURRENT, lstm, (6, 2, 5, 1, 1), 6 * 2 * 4 * 5 * (7 + 5)),
    "bidirectional lstm": (BOTH, lambda b: lstm(b, both=True), (6, 2, 10, 1, 1), 2 * 6 * 2 * 4 * 5 * (7 + 5)),
    "gru": (
        {"x": (6, 2, 7, 1, 1), "h": (1, 2, 5, 1, 1)},
        lambda b: b.add_gru("g", [w(5, 5)] * 3, [w(5, 7)] * 3, [w(5)] * 3, 5, 7, ["x", "h"], ["out", "h1"], output_all=True),
        (6, 2, 5, 1, 1), 6 * 2 * 3 * 5 * (7 + 5),
    ),
    "broadcast add": ({"x": (2, 1, 4), "y": (3, 1)}, lambda b: b.add_add_broadcastable("a", ["x", "y"], "out"), (2, 3, 4), 0),
    "upsample": ({"x": (1, 2, 4, 4)}, lambda b: b.add_upsample("u", 2, 3, "x", "out"), (1, 2, 8, 12), 0),
    "space to depth": ({"x": (1, 2, 4, 4)}, lambda b: b.add_reorganize_data("r", "x", "out"), (1, 8, 2, 2), 0),
    "reduce": (
        {"x": (2, 3, 4)}, lambda b: b.add_reduce_mean("r", "x", "out", axes=[1], keepdims=False), (2, 4), 0,
    ),
    "concat": ({"x": (2, 3), "y": (2, 5)}, lambda b: b.add_concat_nd("c", ["x", "y"], "out", 1), (2, 8), 0),
    "reshape": ({"x": (2, 6)}, lambda b: b.add_reshape_static("r", "x", "out", [3, -1]), (3, 4), 0),
    "transpose": ({"x": (2, 3, 4)}, lambda b: b.add_transpose("t", [2, 0, 1], "x", "out"), (4, 2, 3), 0),
    "slice": (
        {"x": (6, 5)},
        lambda b: b.add_slice_static(
            "s", "x", "out", [1, 0], [5, -1], [2, 1], [False, True], [False, True], squeeze_masks=[False, False]
        ),
        (2, 5), 0,
    ),
    "dynamic reshape from a shape": (
        {"x": (2, 6), "y": (3, 4)},
        lambda b: (b.add_get_shape("g", "y", "s"), b.add_reshape_dynamic("r", ["x", "s"], "out")), (3, 4), 0,
    ),
    "layer norm": (
        {"x": (2, 3, 4)}, lambda b: b.add_layer_normalization("n", "x", "out", [4], w(4), w(4)), (2, 3, 4), 0,
    ),
    "top k": ({"x": (2, 9)}, lambda b: b.add_topk("k", ["x"], ["out", "i"], k=3, axis=1), (2, 3), 0),
}  # fmt: skip


@pytest.mark.parametrize("name", LAYERS)
def test_shape_and_macs_of(name, tmp_path):
    inputs, make, shape, work = LAYERS[name]
    imported = load(build(inputs, make), tmp_path)
    assert (out_shape(imported), macs(imported.graph)) == (shape, work)


def test_rank_5_mapping_of_the_first_versions(tmp_path):
    def make(b):
        b.add_convolution("c", 3, 8, 3, 3, 2, 2, "same", 1, w(3, 3, 3, 8), w(8), True, input_name="x", output_name="c")
        b.add_activation("r", "RELU", "c", "r")
        b.add_flatten("f", 0, "r", "f")
        b.add_inner_product("d", w(10, 128), w(10), 128, 10, True, "f", "d")
        b.add_softmax("s", "d", "out")

    imported = load(build({"x": (3, 8, 8)}, make, exact=False), tmp_path)
    assert out_shape(imported) == (1, 10, 1, 1)
    assert macs(imported.graph) == 8 * 16 * 27 + 1280
    assert imported.weights.parameters == 27 * 8 + 8 + 1280 + 10
    assert [op.kind for op in imported.graph.ops if op.kind != "view"] == ["einsum", "elementwise", "einsum", "softmax"]


@pytest.mark.parametrize(
    ("bits", "mode", "format", "size"),
    [
        (16, "linear", "f16", 2 * 216),
        (8, "linear", "int8-channel", 216 + 2 * 4 * 8),  # an f32 scale and bias per channel
        (4, "linear", "int4-channel", 108 + 2 * 4 * 8),
        (6, "linear_lut", "pal6", 216 * 6 // 8 + 4 * 64),  # 64 f32 entries
    ],
)
def test_quantized_weights_are_what_is_stored(tmp_path, bits, mode, format, size):
    model = ct.models.MLModel(build({"x": (1, 3, 8, 8)}, conv).spec, skip_model_load=True)
    quantized = quantization_utils.quantize_weights(model, bits, mode)
    path = tmp_path / "q.mlmodel"
    path.write_bytes((quantized if hasattr(quantized, "SerializeToString") else quantized.get_spec()).SerializeToString())
    found = import_model(path)
    assert dict(found.weights.formats) == {format: size}
    assert found.weights.parameters == 216
    assert [t.format for t in found.graph.weights] == [format]


def test_layers_without_a_rule_are_listed_at_once(tmp_path):
    def make(b):
        for i, (source, name) in enumerate((("x", "a"), ("a", "b"), ("b", "out"))):
            layer = b.spec.neuralNetwork.layers.add()
            layer.name = f"l{i}"
            layer.input.append(source)
            layer.output.append(name)
            layer.custom.className = "Mine"

    builder = build({"x": (2, 3)}, make)
    with pytest.raises(UnsupportedOps, match=r"custom ×3"):
        load(builder, tmp_path)
    assert len(load(builder, tmp_path, assume_elementwise=["custom"]).graph.ops) == 3


def test_loops_are_refused_with_a_reason(tmp_path):
    builder = build({"x": (2, 3)}, lambda b: b.add_loop("l", max_iterations=3))
    with pytest.raises(ImportError_, match="control flow"):
        load(builder, tmp_path)


def test_a_weight_that_is_too_short_is_named(tmp_path):
    builder = build({"x": (1, 3, 8, 8)}, conv)
    del builder.spec.neuralNetwork.layers[0].convolution.weights.floatValue[5:]
    with pytest.raises(ImportError_, match="weight holds 20 bytes"):
        load(builder, tmp_path)


def test_flexible_sizes_are_symbols_and_checked(tmp_path):
    builder = build({"x": (1, 3, 8, 8)}, conv)
    kind = builder.spec.description.input[0].type.multiArrayType
    for low, high in ((1, 1), (3, 3), (8, 64), (8, -1)):
        kind.shapeRange.sizeRanges.add(lowerBound=low, upperBound=high)
    found = load(builder, tmp_path)
    assert found.graph.symbols == ("x_2", "x_3")
    assert any("(8 to 64)" in warning for warning in found.warnings)
    assert out_shape(load(builder, tmp_path, inputs={"x": (1, 3, 16, 100)})) == (1, 8, 8, 50)
    with pytest.raises(ImportError_, match=r"takes 1x3x\(8 to 64\)x\(8 to any\), got 1x3x80x8"):
        load(builder, tmp_path, inputs={"x": (1, 3, 80, 8)})


def test_tensors_have_no_type_and_are_computed_in_16_bit(tmp_path):
    """So that the Neural Engine takes them; stored weights keep their width."""
    builder = NeuralNetworkBuilder([("x", datatypes.Array(8))], [("y", None)], disable_rank5_shape_mapping=True)
    builder.add_inner_product("d", np.ones((4, 8)), np.ones(4), 8, 4, True, "x", "y")
    path = tmp_path / "m.mlmodel"
    path.write_bytes(builder.spec.SerializeToString())
    graph = import_model(path).graph
    assert {t.format for t in graph.tensors.values() if t.role != "weight"} == {"f16"}
    assert {t.format for t in graph.weights} == {"f32"}
