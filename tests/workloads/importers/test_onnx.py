"""ONNX: shape arithmetic with symbols, quantization, contrib ops, external data, and the same counts as
torch.export."""

import pytest

onnx = pytest.importorskip("onnx")

import numpy as np  # noqa: E402
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from orchard.ir import print_graph  # noqa: E402
from orchard.ir.count import macs  # noqa: E402
from orchard.workloads.importers import ImportError_, UnsupportedOps, import_model  # noqa: E402

F, I = TensorProto.FLOAT, TensorProto.INT64


def save(tmp_path, nodes, inputs, outputs, weights=None, opset=17, name="m.onnx", **kwargs):
    initializers = [
        w if isinstance(w, TensorProto) else numpy_helper.from_array(w, n) for n, w in (weights or {}).items()
    ]
    graph = helper.make_graph(
        nodes, "g",
        [helper.make_tensor_value_info(n, t, s) for n, t, s in inputs],
        [helper.make_tensor_value_info(n, F, None) for n in outputs], initializers,
    )  # fmt: skip
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)], **kwargs
    )
    path = tmp_path / name
    onnx.save(model, path)
    return path


def f32(*shape):
    return np.zeros(shape, np.float32)


def i64(*values):
    return np.array(values, np.int64)


N = helper.make_node


def test_symbols_survive_shape_arithmetic(tmp_path):
    nodes = [
        N("Shape", ["x"], ["s"]), N("Gather", ["s", "zero"], ["b"]), N("Gather", ["s", "one"], ["t"]),
        N("Unsqueeze", ["b", "ax"], ["b1"]), N("Unsqueeze", ["t", "ax"], ["t1"]),
        N("Concat", ["b1", "t1", "tail"], ["shape"], axis=0), N("MatMul", ["x", "w"], ["y"]),
        N("Reshape", ["y", "shape"], ["z"]), N("Transpose", ["z"], ["zt"], perm=[0, 2, 3, 1]),
        N("Transpose", ["z"], ["zq"], perm=[0, 2, 1, 3]), N("MatMul", ["zq", "zt"], ["out"]),
    ]  # fmt: skip
    weights = {"w": f32(8, 16), "zero": np.array(0), "one": np.array(1), "ax": i64(0), "tail": i64(4, 4)}
    path = save(tmp_path, nodes, [("x", F, ["batch", "seq", 8])], ["out"], weights)
    imported = import_model(path)
    assert str(macs(imported.graph)) == "16*batch*seq**2 + 128*batch*seq"
    assert "transpose" not in print_graph(imported.graph)
    assert macs(import_model(path, {"x": (2, 3, 8)}).graph) == 16 * 2 * 9 + 128 * 6


@pytest.mark.parametrize("opset", [11, 13, 17, 18, 21, 23])
def test_axes_as_attribute_or_operand(tmp_path, opset):
    if opset < 13:
        nodes = [N("Unsqueeze", ["x"], ["u"], axes=[0]), N("ReduceMean", ["u"], ["y"], axes=[1], keepdims=0)]
        weights = {}
    elif opset < 18:
        nodes = [N("Unsqueeze", ["x", "a"], ["u"]), N("ReduceMean", ["u"], ["y"], axes=[1], keepdims=0)]
        weights = {"a": i64(0)}
    else:
        nodes = [N("Unsqueeze", ["x", "a"], ["u"]), N("ReduceMean", ["u", "r"], ["y"], keepdims=0)]
        weights = {"a": i64(0), "r": i64(1)}
    graph = import_model(save(tmp_path, nodes, [("x", F, [4, 6])], ["y"], weights, opset)).graph
    assert graph.outputs_of(graph.ops[-1])[0].shape == (1, 6)


def test_quantize_dequantize_pairs_become_integer_tensors(tmp_path):
    nodes = [
        N("QuantizeLinear", ["x", "s", "z"], ["xq"]), N("DequantizeLinear", ["xq", "s", "z"], ["xd"]),
        N("DequantizeLinear", ["w", "ws", "wz"], ["wd"], axis=0), N("Conv", ["xd", "wd"], ["y"]),
        N("QuantizeLinear", ["y", "s", "z"], ["yq"]), N("DequantizeLinear", ["yq", "s", "z"], ["yd"]),
        N("Relu", ["yd"], ["out"]),
    ]  # fmt: skip
    weights = {
        "w": np.zeros((8, 3, 3, 3), np.int8), "ws": f32(8), "wz": np.zeros(8, np.int8),
        "s": np.float32(0.1), "z": np.int8(0),
    }  # fmt: skip
    imported = import_model(save(tmp_path, nodes, [("x", F, [1, 3, 8, 8])], ["out"], weights))
    conv = next(op for op in imported.graph.ops if op.kind == "einsum")
    x, w = imported.graph.inputs_of(conv)
    assert (x.format, w.format, imported.graph.outputs_of(conv)[0].format) == ("int8", "int8-channel", "int8")
    assert imported.weights.parameters == 8 * 27
    assert imported.weights.formats["int8"] == 8 * 27 + 8 + 1  # weights and zero points
    assert not [op for op in imported.graph.ops if op.attrs.get("fn") == "dequantize"]


def decomposed_attention():
    """Attention the way exporters write it: scaled queries, transposed keys, mask, softmax with a NaN guard."""
    return [
        N("Mul", ["q", "half"], ["qs"]), N("Transpose", ["k"], ["kt"], perm=[0, 1, 3, 2]),
        N("Mul", ["kt", "half"], ["ks"]), N("MatMul", ["qs", "ks"], ["s"]), N("Add", ["s", "mask"], ["sm"]),
        N("Softmax", ["sm"], ["p"], axis=-1), N("IsNaN", ["p"], ["n"]), N("Where", ["n", "zero", "p"], ["pg"]),
        N("MatMul", ["pg", "v"], ["out"]),
    ]  # fmt: skip


def test_decomposed_attention_is_scores_softmax_values(tmp_path):
    weights = {"half": np.float32(0.5), "zero": np.float32(0)}
    shape = [1, 2, 6, 4]
    inputs = [("q", F, shape), ("k", F, shape), ("v", F, shape), ("mask", F, [1, 1, 6, 6])]
    graph = import_model(save(tmp_path, decomposed_attention(), inputs, ["out"], weights)).graph
    assert [op.kind for op in graph.ops] == ["einsum", "softmax", "einsum"]
    assert graph.ops[1].attrs["scale"] == pytest.approx(0.25)
    assert graph.ops[1].inputs[1] == "mask"


DECOMPOSED = {
    "gelu": (
        [N("Div", ["x", "r2"], ["a"]), N("Erf", ["a"], ["b"]), N("Add", ["b", "one"], ["c"]), N("Mul", ["x", "c"],
        ["d"]),
         N("Mul", ["d", "half"], ["out"])], {"r2": np.float32(2**0.5), "one": np.float32(1), "half": np.float32(0.5)},
    ),
    "silu": ([N("Sigmoid", ["x"], ["a"]), N("Mul", ["x", "a"], ["out"])], {}),
    "hardswish": (
        [N("Add", ["x", "three"], ["a"]), N("Clip", ["a", "zero", "six"], ["b"]), N("Mul", ["x", "b"], ["c"]),
         N("Div", ["c", "six"], ["out"])], {"three": np.float32(3), "zero": np.float32(0), "six": np.float32(6)},
    ),
    "layernorm": (
        [N("ReduceMean", ["x"], ["m"], axes=[-1]), N("Sub", ["x", "m"], ["c"]), N("Pow", ["c", "two"], ["p"]),
         N("ReduceMean", ["p"], ["v"], axes=[-1]), N("Add", ["v", "eps"], ["ve"]), N("Sqrt", ["ve"], ["sd"]),
         N("Div", ["c", "sd"], ["n"]), N("Mul", ["n", "g"], ["ng"]), N("Add", ["ng", "b"], ["out"])],
        {"two": np.float32(2), "eps": np.float32(1e-5), "g": f32(8), "b": f32(8)},
    ),
    "rmsnorm": (
        [N("Mul", ["x", "x"], ["p"]), N("ReduceMean", ["p"], ["v"], axes=[-1]), N("Add", ["v", "eps"], ["ve"]),
         N("Sqrt", ["ve"], ["sd"]), N("Reciprocal", ["sd"], ["r"]), N("Mul", ["x", "r"], ["n"]), N("Mul", ["g", "n"],
         ["out"])],
        {"eps": np.float32(1e-6), "g": f32(8)},
    ),
}  # fmt: skip


@pytest.mark.parametrize("fn", DECOMPOSED)
def test_composites_are_recognised_by_value(tmp_path, fn):
    nodes, weights = DECOMPOSED[fn]
    graph = import_model(save(tmp_path, nodes, [("x", F, [2, 4, 8])], ["out"], weights)).graph
    assert [op.attrs["fn"] for op in graph.ops] == [fn]


def test_a_region_that_is_almost_gelu_stays_as_it_is(tmp_path):
    nodes, weights = DECOMPOSED["gelu"]
    weights = {**weights, "half": np.float32(0.4)}
    graph = import_model(save(tmp_path, nodes, [("x", F, [2, 8])], ["out"], weights)).graph
    assert "gelu" not in print_graph(graph)


CONTRIB = {
    "Attention": (
        [N("Attention", ["x", "w", "b"], ["out"], domain="com.microsoft", num_heads=2)],
        {"w": f32(8, 24), "b": f32(24)}, 6 * 8 * 24 + 2 * 6 * 6 * 8,
    ),
    "MultiHeadAttention": (
        [N("MultiHeadAttention", ["x", "x", "x"], ["out"], domain="com.microsoft", num_heads=2)], {}, 2 * 6 * 6 * 8,
    ),
    "GroupQueryAttention": (
        [N("Slice", ["x", "z", "four", "two"], ["kv"]),
         N("GroupQueryAttention", ["x", "kv", "kv", "", "", "n", "n"], ["out"], domain="com.microsoft", num_heads=2,
           kv_num_heads=1, do_rotary=1)],
        {"z": i64(0), "four": i64(4), "two": i64(2), "n": np.int32(6)}, 2 * 6 * 6 * 8,
    ),
    "SkipLayerNormalization": (
        [N("SkipLayerNormalization", ["x", "x", "g", "g"], ["out"], domain="com.microsoft")], {"g": f32(8)}, 0,
    ),
    "MatMulNBits": (
        [N("MatMulNBits", ["x", "w", "s"], ["out"], domain="com.microsoft", N=16, K=32, bits=4, block_size=32)],
        {"w": np.zeros((16, 1, 16), np.uint8), "s": f32(16)}, 6 * 16 * 32,
    ),
    "FastGelu": ([N("FastGelu", ["x"], ["out"], domain="com.microsoft")], {}, 0),
    "BiasGelu": ([N("BiasGelu", ["x", "g"], ["out"], domain="com.microsoft")], {"g": f32(8)}, 0),
    "EmbedLayerNormalization": (
        [N("Cast", ["x"], ["xi"], to=6), N("Squeeze", ["xi", "z"], ["ids"]),
         N("EmbedLayerNormalization", ["ids", "", "w", "p", "", "g", "g"], ["out"], domain="com.microsoft")],
        {"w": f32(50, 8), "p": f32(16, 8), "g": f32(8), "z": i64(0)}, 0,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CONTRIB)
def test_contrib_ops_of_transformers(tmp_path, name):
    nodes, weights, expected = CONTRIB[name]
    shape = [1, 6, 32] if name == "MatMulNBits" else [1, 6, 8]
    imported = import_model(save(tmp_path, nodes, [("x", F, shape)], ["out"], weights))
    assert macs(imported.graph) == expected


def test_matmul_nbits_weight_has_its_true_format(tmp_path):
    nodes, weights, _ = CONTRIB["MatMulNBits"]
    imported = import_model(save(tmp_path, nodes, [("x", F, [1, 6, 32])], ["out"], weights))
    assert imported.graph.tensors["w"].format == "int4-b32"
    assert imported.weights.parameters == 16 * 32
    assert imported.weights.bytes == 16 * 32 // 2 + 16 * 4  # packed codes and f32 scales


def test_external_data_is_not_opened(tmp_path):
    tensor = TensorProto(name="w", data_type=F, dims=[1 << 20, 4096], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="missing.bin")
    path = save(tmp_path, [N("MatMul", ["x", "w"], ["y"])], [("x", F, [1, 1 << 20])], ["y"], {"w": tensor})
    assert import_model(path).weights.bytes == 4 * (1 << 32)


def test_unknown_ops_are_listed_at_once(tmp_path):
    nodes = [
        N("Blur", ["x"], ["a"], domain="acme"),
        N("Blur", ["a"], ["b"], domain="acme"),
        N("Warp", ["b"], ["y"], domain="acme"),
    ]
    path = save(tmp_path, nodes, [("x", F, [2, 3])], ["y"])
    with pytest.raises(
        UnsupportedOps, match=r"2 op type.*acme::Blur ×2, acme::Warp ×1.*--assume-elementwise acme::Blur"
    ):
        import_model(path)
    assert len(import_model(path, assume_elementwise=["Blur", "Warp"]).graph) == 3
    assert len(import_model(path, assume_elementwise=["acme::Blur", "acme::Warp"]).graph) == 3


def test_an_assumed_op_that_the_model_does_not_hold_is_refused(tmp_path):
    path = save(tmp_path, [N("Relu", ["x"], ["y"])], [("x", F, [2, 3])], ["y"])
    with pytest.raises(ImportError_, match=r"--assume-elementwise 'Relo': no op of the model .*; did you mean Relu\?"):
        import_model(path, assume_elementwise=["Relo"])


def test_loops_are_refused_with_a_reason(tmp_path):
    body = helper.make_graph([], "body", [], [])
    path = save(tmp_path, [N("Loop", ["", "", "x"], ["y"], body=body)], [("x", F, [2])], ["y"])
    with pytest.raises(ImportError_, match="Loop; its work depends on run-time contents"):
        import_model(path)


def test_model_local_functions_are_inlined(tmp_path):
    function = helper.make_function(
        "local", "Twice", ["a"], ["c"], [N("Relu", ["a"], ["b"]), N("MatMul", ["b", "b"], ["c"])],
        [helper.make_opsetid("", 17)],
    )  # fmt: skip
    path = save(tmp_path, [N("Twice", ["x"], ["y"], domain="local")], [("x", F, [4, 4])], ["y"], functions=[function])
    assert macs(import_model(path).graph) == 64


def test_truncated_file_is_one_sentence(tmp_path):
    path = save(tmp_path, [N("MatMul", ["x", "w"], ["y"])], [("x", F, [1, 8])], ["y"], {"w": f32(8, 8)})
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(ImportError_, match="damaged or not of this format"):
        import_model(path)


def test_transformer_exported_by_torch_counts_as_the_live_one(tmp_path):
    torch = pytest.importorskip("torch")
    pytest.importorskip("onnxscript")
    transformers = pytest.importorskip("transformers")
    config = transformers.DistilBertConfig(n_layers=2, dim=64, hidden_dim=128, n_heads=4, vocab_size=100)

    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.body = transformers.DistilBertModel(config)

        def forward(self, ids):
            return self.body(ids)[0]

    net = Net().eval()
    ids = torch.zeros(1, 16, dtype=torch.long)
    path = tmp_path / "net.onnx"
    torch.onnx.export(net, (ids,), path, dynamo=True, external_data=False, verbose=False)
    live, stored = import_model(net, {"ids": ids}), import_model(path)
    assert macs(live.graph) == macs(stored.graph)
    assert [op.kind for op in live.graph.ops] == [op.kind for op in stored.graph.ops]


def test_optional_results_have_a_shape(tmp_path):
    nodes = [N("LayerNormalization", ["x", "g"], ["y", "mean", "inverse"]), N("MaxPool", ["y"], ["p", "where"], kernel_shape=[2])]
    path = save(tmp_path, nodes, [("x", F, [2, 3, 8])], ["p", "mean", "where"], {"g": f32(8)})
    graph = import_model(path).graph
    assert [graph.tensors[n].shape for n in graph.outputs] == [(2, 3, 7), (2, 3, 1), (2, 3, 7)]


def test_sequences_of_known_length_are_lists(tmp_path):
    nodes = [
        N("SplitToSequence", ["x", "two"], ["parts"], axis=0), N("SequenceAt", ["parts", "last"], ["a"]),
        N("SequenceConstruct", ["a", "x"], ["both"]), N("ConcatFromSequence", ["both"], ["y"], axis=0),
    ]  # fmt: skip
    path = save(tmp_path, nodes, [("x", F, [6, 3])], ["y"], {"two": np.int64(2), "last": np.int64(-1)})
    graph = import_model(path).graph
    assert graph.tensors[graph.outputs[0]].shape == (8, 3)
    nodes[1] = N("SequenceAt", ["parts", "x"], ["a"])
    with pytest.raises(ImportError_, match="position None of a sequence of 3"):
        import_model(save(tmp_path, nodes, [("x", F, [6, 3])], ["y"], {"two": np.int64(2)}))


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [({"auto_pad": "SAME_UPPER"}, (1, 2, 6, 6)), ({"output_shape": [8, 7], "output_padding": [1, 1]}, (1, 2, 8, 7))],
)
def test_transposed_convolutions_by_wanted_size(tmp_path, attributes, expected):
    path = save(
        tmp_path, [N("ConvTranspose", ["x", "w"], ["y"], strides=[2, 2], **attributes)], [("x", F, [1, 1, 3, 3])], ["y"],
        {"w": f32(1, 2, 3, 3)},
    )  # fmt: skip
    graph = import_model(path).graph
    assert graph.tensors[graph.outputs[0]].shape == expected
    assert macs(graph) == 9 * 2 * 9


def test_quantization_along_an_axis(tmp_path):
    nodes = [N("QuantizeLinear", ["x", "s", "z"], ["y"], axis=1)]
    path = save(tmp_path, nodes, [("x", F, [1, 3, 5])], ["y"], {"s": f32(3) + 1, "z": np.zeros(3, np.uint8)})
    graph = import_model(path).graph
    assert graph.outputs_of(graph.ops[-1])[0].format == "uint8"


def test_einsum_equations(tmp_path):
    path = save(tmp_path, [N("Einsum", ["x", "x"], ["y"], equation="bij,bkj->bik")], [("x", F, [2, 3, 4])], ["y"])
    assert macs(import_model(path).graph) == 2 * 3 * 3 * 4
