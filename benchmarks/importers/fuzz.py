"""A longer fuzz campaign over every importer than the suite has time for: damaged files, each an answer or one sentence.

Run: python benchmarks/importers/fuzz.py [SECONDS per format, 60] [SEED]     (recorded: fuzz.out)

Damages: bytes changed, cut, repeated, dropped, set to ones, numbers replaced by extreme ones, pieces swapped, and two of
these at once. A file counts as a defect when importing raises anything but Orchard's own errors, prints a sentence of
more than one line or 2,000 characters, takes more than 10 processor seconds, or adds 300 MB to the process.
"""

import contextlib
import json
import os
import random
import resource
import struct
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np

from orchard.units import OrchardError
from orchard.workloads.importers import import_model

EXTREME = [0, 1, 0x7F, 0x80, 0xFF, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**63, 2**64 - 1]


def damage(raw: bytes, rng: random.Random) -> bytes:
    data = bytearray(raw)
    for _ in range(rng.choice([1, 1, 1, 2, 3, 8])):
        if not data:
            break
        at, size = rng.randrange(len(data)), rng.randint(1, rng.choice([4, 16, 256]))
        what = rng.choice(["byte", "byte", "cut", "repeat", "drop", "ones", "zeros", "number", "swap"])
        if what == "byte":
            data[at] = rng.randrange(256)
        elif what == "cut":
            del data[at:]
        elif what == "repeat":
            data[at:at] = data[at : at + size] * rng.choice([1, 1, 2, 50])
        elif what == "drop":
            del data[at : at + size]
        elif what in ("ones", "zeros"):
            data[at : at + size] = (b"\xff" if what == "ones" else b"\0") * min(size, len(data) - at)
        elif what == "number":
            width = rng.choice(["<I", "<Q", "<B"])
            packed = struct.pack(width, rng.choice(EXTREME) & (256 ** struct.calcsize(width) - 1))
            data[at : at + len(packed)] = packed
        else:
            other = rng.randrange(len(data))
            data[at : at + size], data[other : other + size] = data[other : other + size], data[at : at + size]
    return bytes(data)


# ---- one small file per format: (path to import, file to damage)


def onnx(folder: Path):
    from onnx import TensorProto, helper, numpy_helper

    n = helper.make_node
    nodes = [
        n("Shape", ["x"], ["s"]), n("Slice", ["s", "zero", "two"], ["lead"]), n("Concat", ["lead", "tail"], ["shape"], axis=0),
        n("MatMul", ["x", "w"], ["y"]), n("Reshape", ["y", "shape"], ["z"]), n("Transpose", ["z"], ["t"], perm=[0, 2, 1, 3]),
        n("Softmax", ["t"], ["p"], axis=-1), n("ReduceMean", ["p"], ["out"], axes=[1], keepdims=0),
        n("QuantizeLinear", ["out", "scale", "zp"], ["q"]), n("Resize", ["p", "", "factors"], ["r"]),
        n("Conv", ["p", "k"], ["c"], pads=[1, 1, 1, 1], strides=[2, 2]), n("LSTM", ["x", "i", "h"], ["l"], hidden_size=4),
        n("Einsum", ["x", "x"], ["e"], equation="abc,dbc->ad"), n("TopK", ["x", "two"], ["v", "ix"]),
    ]  # fmt: skip
    weights = {
        "w": np.zeros((8, 16), np.float32), "zero": np.array([0]), "two": np.array([2]), "tail": np.array([4, 4]),
        "scale": np.float32(1), "zp": np.uint8(0), "factors": np.array([1, 1, 2, 2], np.float32),
        "k": np.zeros((2, 4, 3, 3), np.float32), "i": np.zeros((1, 16, 8), np.float32), "h": np.zeros((1, 16, 4), np.float32),
    }  # fmt: skip
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 3, 8])],
        [helper.make_tensor_value_info(o, TensorProto.FLOAT, None) for o in ("out", "q", "r", "c", "l", "e", "v")],
        [numpy_helper.from_array(np.asarray(v), k) for k, v in weights.items()],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    return write(folder / "m.onnx", model.SerializeToString())


def ml_program(folder: Path):
    import coremltools as ct
    from coremltools.converters.mil import Builder as mb  # noqa: N813

    @mb.program(input_specs=[mb.TensorSpec((1, 3, 8, 8))], opset_version=ct.target.iOS16)
    def net(x):
        y = mb.conv(x=x, weight=np.ones((8, 3, 3, 3), np.float32), strides=[2, 2], pad_type="same")
        y = mb.max_pool(x=mb.relu(x=y), kernel_sizes=[2, 2], strides=[2, 2], pad_type="valid")
        y = mb.linear(x=mb.reshape(x=y, shape=[1, 32]), weight=np.ones((4, 32), np.float32))
        return mb.softmax(x=mb.layer_norm(x=y, axes=[-1]))

    package = folder / "whole.mlpackage"
    ct.convert(net, minimum_deployment_target=ct.target.iOS16, skip_model_load=True).save(str(package))
    return write(folder / "m.mlmodel", next(package.rglob("*.mlmodel")).read_bytes())


def neural_network(folder: Path):
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
    return write(folder / "m.mlmodel", builder.spec.SerializeToString())


def manifest(folder: Path):
    package = folder / "m.mlpackage"
    (package / "Data").mkdir(parents=True)
    _, program = ml_program(folder)
    (package / "Data" / "model.mlmodel").write_bytes(program.read_bytes())
    text = {"itemInfoEntries": {"a": {"path": "model.mlmodel"}}, "rootModelIdentifier": "a"}
    return package, write(package / "Manifest.json", json.dumps(text).encode())[1]


def gguf(folder: Path):
    import gguf as library

    writer = library.GGUFWriter(folder / "m.gguf", "llama")
    for name, value in {
        "context_length": 64, "embedding_length": 64, "block_count": 1, "feed_forward_length": 64, "head_count": 2,
        "head_count_kv": 1, "vocab_size": 32,
    }.items():  # fmt: skip
        getattr(writer, f"add_{name}")(value)
    writer.add_layer_norm_rms_eps(1e-5)
    shapes = {
        "token_embd": (32, 64), "output_norm": (64,), "output": (32, 64), "blk.0.attn_norm": (64,), "blk.0.attn_q": (64, 64),
        "blk.0.attn_k": (32, 64), "blk.0.attn_v": (32, 64), "blk.0.attn_output": (64, 64), "blk.0.ffn_norm": (64,),
        "blk.0.ffn_gate": (64, 64), "blk.0.ffn_up": (64, 64), "blk.0.ffn_down": (64, 64),
    }  # fmt: skip
    for name, shape in shapes.items():
        writer.add_tensor(f"{name}.weight", np.zeros(shape, np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return folder / "m.gguf", folder / "m.gguf"


def safetensors(folder: Path):
    header = {"a.weight": {"dtype": "F16", "shape": [4, 8], "data_offsets": [0, 64]}, "__metadata__": {"format": "pt"}}
    packed = json.dumps(header).encode()
    (folder / "config.json").write_text(json.dumps({"model_type": "llama", "hidden_size": 8}))
    return write(folder / "m.safetensors", struct.pack("<Q", len(packed)) + packed + bytes(64))


def pt2(folder: Path):
    import torch

    net = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.ReLU())
    torch.export.save(torch.export.export(net, (torch.zeros(1, 4),)), folder / "m.pt2")
    return folder / "m.pt2", folder / "m.pt2"


def mlxfn(folder: Path):
    import mlx.core as mx

    weight = mx.ones((4, 4))
    mx.eval(weight)
    mx.export_function(str(folder / "m.mlxfn"), lambda x: mx.softmax(mx.tanh(x @ weight)), mx.zeros((2, 4)))
    return folder / "m.mlxfn", folder / "m.mlxfn"


def aimodel(folder: Path):
    import coreai_torch
    import torch

    net = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.LayerNorm(4))
    program = torch.export.export(net, (torch.zeros(1, 4),)).run_decompositions(coreai_torch.get_decomp_table())
    path = folder / "m.aimodel"
    coreai_torch.TorchConverter().add_exported_program(program).to_coreai().save_asset(path)
    return path, path / "main.mlirb"


FORMATS = (onnx, ml_program, neural_network, manifest, gguf, safetensors, pt2, mlxfn, aimodel)


def write(path: Path, raw: bytes):
    path.write_bytes(raw)
    return path, path


def outcome(path: Path) -> str:
    """`answer`, `sentence`, or what went wrong."""
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    told = "answer"
    try:
        import_model(path)
    except OrchardError as error:
        told = "sentence" if "\n" not in str(error).strip() and len(str(error)) < 2000 else f"long text: {str(error)[:200]!r}"
    except BaseException as error:  # a defect, whatever it is
        told = f"{type(error).__name__}: {str(error)[:200]}"
    seconds, grown = time.process_time() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    if seconds > 10:
        return f"{seconds:.0f} s"
    return f"{grown // 1024} MB more" if grown > 300 * 1024 else told


def campaign(make, seconds: float, seed: int, kept: Path) -> str:
    """One line: how many damaged files, what came of them; the file of each new defect is kept."""
    rng, counts, defects = random.Random(f"{make.__name__} {seed}"), {"answer": 0, "sentence": 0}, {}
    with tempfile.TemporaryDirectory() as folder:
        path, file = make(Path(folder))
        original = file.read_bytes()
        outcome(path)  # imports the libraries
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            raw = damage(original, rng)
            file.write_bytes(raw)
            told = outcome(path)
            if told in counts:
                counts[told] += 1
            elif told[:60] not in {d[:60] for d in defects}:
                defects[told] = kept / f"{make.__name__}-{len(defects)}{file.suffix}"
                defects[told].write_bytes(raw)
    listed = "".join(f"\n  {told}  ({path})" for told, path in defects.items())
    total = sum(counts.values()) + len(defects)
    told = f"{counts['answer']} answers, {counts['sentence']} sentences, {len(defects)} defects"
    return f"{make.__name__:15} {total:6} files: {told}{listed}"


def main(seconds: float, seed: int) -> None:
    warnings.simplefilter("ignore")
    kept = Path(tempfile.mkdtemp(prefix="fuzz-"))
    for make in FORMATS:
        with open(os.devnull, "w") as quiet, contextlib.redirect_stderr(quiet):
            line = campaign(make, seconds, seed, kept)
        print(line, flush=True)


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 60, int(sys.argv[2]) if len(sys.argv) > 2 else 0)
