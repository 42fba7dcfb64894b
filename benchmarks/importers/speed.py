"""Processor seconds to import a transformer from ONNX and Core ML, to predict the imported graph, and to read a large GGUF.

Run: python benchmarks/importers/speed.py

Targets: 12 layers in 2 s, a graph of 1,000 ops in 50 ms, the header of 40 GB of GGUF in 1 s. Recorded: speed.out.
"""

import tempfile
import time
from pathlib import Path

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from orchard.studies import predict
from orchard.studies.predict import make_plan
from orchard.studies.request import Request
from orchard.workloads.importers import import_model

N = helper.make_node


def transformer(layers: int, d: int = 768, heads: int = 12, t: int = 128):
    """A decomposed encoder as exporters write it: 49 nodes a layer, weights as external data that nobody opens."""
    nodes, weights = [], {}

    def w(name, *shape):
        weights[name] = shape
        return name

    constants = {
        "shape4": np.array([1, t, heads, d // heads]),
        "shape3": np.array([1, t, d]),
        "two": np.float32(2),
        "eps": np.float32(1e-5),
        "scale": np.float32(8),
        "r2": np.float32(2**0.5),
        "one": np.float32(1),
        "half": np.float32(0.5),
    }

    def norm(x, p):
        nodes.extend(
            [
                N("ReduceMean", [x], [p + "m"], axes=[-1]),
                N("Sub", [x, p + "m"], [p + "c"]),
                N("Pow", [p + "c", "two"], [p + "p"]),
                N("ReduceMean", [p + "p"], [p + "v"], axes=[-1]),
                N("Add", [p + "v", "eps"], [p + "e"]),
                N("Sqrt", [p + "e"], [p + "d"]),
                N("Div", [p + "c", p + "d"], [p + "n"]),
                N("Mul", [p + "n", w(p + "g", d)], [p + "h"]),
                N("Add", [p + "h", w(p + "b", d)], [p + "o"]),
            ]
        )
        return p + "o"

    def linear(x, p, rows, columns):
        nodes.extend(
            [
                N("MatMul", [x, w(p + "w", rows, columns)], [p + "y"]),
                N("Add", [p + "y", w(p + "b", columns)], [p + "z"]),
            ]
        )
        return p + "z"

    x = "x"
    for i in range(layers):
        p = f"l{i}_"
        h, parts = norm(x, p + "n1"), {}
        for k in "qkv":
            y = linear(h, p + k, d, d)
            nodes.append(N("Reshape", [y, "shape4"], [p + k + "r"]))
            nodes.append(N("Transpose", [p + k + "r"], [p + k + "t"], perm=[0, 2, 3, 1] if k == "k" else [0, 2, 1, 3]))
            parts[k] = p + k + "t"
        nodes.extend(
            [
                N("MatMul", [parts["q"], parts["k"]], [p + "s"]),
                N("Div", [p + "s", "scale"], [p + "sd"]),
                N("Softmax", [p + "sd"], [p + "sm"], axis=-1),
                N("MatMul", [p + "sm", parts["v"]], [p + "a"]),
                N("Transpose", [p + "a"], [p + "at"], perm=[0, 2, 1, 3]),
                N("Reshape", [p + "at", "shape3"], [p + "ar"]),
            ]
        )
        nodes.append(N("Add", [x, linear(p + "ar", p + "o", d, d)], [p + "x1"]))
        u = linear(norm(p + "x1", p + "n2"), p + "u", d, 4 * d)
        nodes.extend(
            [
                N("Div", [u, "r2"], [p + "g1"]),
                N("Erf", [p + "g1"], [p + "g2"]),
                N("Add", [p + "g2", "one"], [p + "g3"]),
                N("Mul", [u, p + "g3"], [p + "g4"]),
                N("Mul", [p + "g4", "half"], [p + "g5"]),
            ]
        )
        nodes.append(N("Add", [p + "x1", linear(p + "g5", p + "f", 4 * d, d)], [p + "x2"]))
        x = p + "x2"
    stored = [numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items()]
    for name, shape in weights.items():
        tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=shape, data_location=TensorProto.EXTERNAL)
        tensor.external_data.add(key="location", value="w.bin")
        stored.append(tensor)
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, t, d])],
        [helper.make_tensor_value_info(x, TensorProto.FLOAT, None)],
        stored,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)])


def coreml_transformer(layers: int, d: int = 256, heads: int = 4, t: int = 128):
    """A pre-norm encoder as an ML program of iOS 18, weights in the weight file; unfused softmax and GELU of one op each."""
    import coremltools as ct
    from coremltools.converters.mil import Builder as mb  # noqa: N813
    from coremltools.converters.mil.mil import types

    rng = np.random.default_rng(0)

    def linear(x, rows, columns):
        weight = rng.normal(size=(columns, rows)).astype(np.float16)
        return mb.linear(x=x, weight=weight, bias=np.ones(columns, np.float16))

    def norm(x):
        ones = rng.normal(size=d).astype(np.float16)
        return mb.layer_norm(x=x, axes=[-1], gamma=ones, beta=ones, epsilon=np.float16(1e-5))

    def split(x):
        return mb.transpose(x=mb.reshape(x=x, shape=[1, t, heads, d // heads]), perm=[0, 2, 1, 3])

    @mb.program(input_specs=[mb.TensorSpec((1, t, d), types.fp16)], opset_version=ct.target.iOS18)
    def net(x):
        for _ in range(layers):
            h = norm(x)
            q, k, v = (split(linear(h, d, d)) for _ in "qkv")
            scores = mb.matmul(x=mb.mul(x=q, y=np.float16(0.125)), y=k, transpose_y=True)
            mixed = mb.transpose(x=mb.matmul(x=mb.softmax(x=scores, axis=-1), y=v), perm=[0, 2, 1, 3])
            x = mb.add(x=x, y=linear(mb.reshape(x=mixed, shape=[1, t, d]), d, d))
            x = mb.add(x=x, y=linear(mb.gelu(x=linear(norm(x), d, 4 * d), mode="EXACT"), 4 * d, d))
        return x

    return ct.convert(
        net, minimum_deployment_target=ct.target.iOS18, skip_model_load=True, pass_pipeline=ct.PassPipeline.EMPTY
    )


def gguf_of_40_gb(path: Path) -> Path:
    """A model of 70 B as Q4_K: 80 layers, 128,256 tokens, 280,147 merges; what would be weights is a hole in the file."""
    import gguf

    d, kv, ff, vocab = 8192, 1024, 28672, 128256
    writer = gguf.GGUFWriter(path, "llama")
    for name, value in {
        "context_length": 8192, "embedding_length": d, "block_count": 80, "feed_forward_length": ff, "head_count": 64,
        "head_count_kv": 8, "vocab_size": vocab, "file_type": 15,
    }.items():  # fmt: skip
        getattr(writer, f"add_{name}")(value)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_token_list([f"token{i}" for i in range(vocab)])
    writer.add_token_merges([f"mer ge{i}" for i in range(280_147)])
    kind = gguf.GGMLQuantizationType
    block = {
        "attn_q": (d, d), "attn_k": (kv, d), "attn_v": (kv, d), "attn_output": (d, d), "ffn_gate": (ff, d), "ffn_up": (ff, d),
        "ffn_down": (d, ff), "attn_norm": (d,), "ffn_norm": (d,),
    }  # fmt: skip
    shapes = {"token_embd": (vocab, d), "output": (vocab, d), "output_norm": (d,)}
    shapes |= {f"blk.{i}.{name}": shape for i in range(80) for name, shape in block.items()}
    size = 0
    for name, shape in shapes.items():
        matrix = len(shape) == 2
        elements = int(np.prod(shape))
        stored = elements * 144 // 256 if matrix else 4 * elements  # 256 weights in 144 bytes
        packed = (*shape[:-1], shape[-1] * 144 // 256) if matrix else shape
        dtype = np.dtype(np.uint8 if matrix else np.float32)
        writer.add_tensor_info(f"{name}.weight", packed, dtype, stored, kind.Q4_K if matrix else None)
        size += stored
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()
    with path.open("r+b") as file:
        file.seek(0, 2)
        file.truncate(file.tell() + 64 + size)
    return path


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = gguf_of_40_gb(Path(folder) / "m.gguf")
        start = time.process_time()
        read = import_model(path).weights
        took = time.process_time() - start
        print(f"GGUF, {path.stat().st_size / 1e9:.1f} GB, {read.tensors} tensors, {read.parameters / 1e9:.2f} B: {took:.2f} s")
        package = Path(folder) / "12.mlpackage"
        coreml_transformer(12).save(package)
        start = time.process_time()
        ops = len(import_model(package).graph.ops)
        print(f"Core ML, 12 layers, {ops} ops: import {time.process_time() - start:.2f} s")
        for layers in (12, 80):
            path = Path(folder) / f"{layers}.onnx"
            path.write_bytes(transformer(layers).SerializeToString())
            start = time.process_time()
            graph = import_model(path).graph
            imported = time.process_time() - start
            request = Request(model=str(path), chip="m4")
            make_plan(request)
            predict._TABLES.clear()
            start = time.process_time()
            predict.answer(request)
            took = 1e3 * (time.process_time() - start)
            print(f"ONNX, {layers} layers, {len(graph.ops)} ops: import {imported:.2f} s, prediction {took:.0f} ms")


if __name__ == "__main__":
    main()
