"""GGUF: exact formats per tensor, architecture from metadata and tensors, speed on large files, damaged files."""

import struct
import time

import pytest

gguf = pytest.importorskip("gguf")

import numpy as np  # noqa: E402
from hypothesis import HealthCheck, given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from orchard.units import OrchardError, find_format, number_format  # noqa: E402
from orchard.workloads.importers import ImportError_, import_model  # noqa: E402
from orchard.workloads.importers.gguf import FORMATS, read_header  # noqa: E402

Q = gguf.GGMLQuantizationType


def write(path, arch="llama", *, mixed=True, moe=False, layers=2, extra=()):
    """A tiny model: hidden 64, 4 heads, 2 key/value heads, ffn 128, vocabulary 96."""
    w = gguf.GGUFWriter(path, arch)
    w.add_name("tiny")
    w.add_block_count(layers)
    w.add_embedding_length(256)
    w.add_head_count(4)
    w.add_head_count_kv(2)
    w.add_feed_forward_length(512)
    w.add_context_length(2048)
    w.add_token_list([f"t{i}" for i in range(5000)])
    if moe:
        w.add_expert_count(8)
        w.add_expert_used_count(2)
    q4, q6 = (Q.Q4_K, Q.Q6_K) if mixed else (Q.F16, Q.F16)

    def add(name, shape, kind=Q.F32):
        if kind == Q.F32:
            w.add_tensor(name, np.zeros(shape, np.float32))
        elif kind == Q.F16:
            w.add_tensor(name, np.zeros(shape, np.float16))
        else:
            block, size = gguf.GGML_QUANT_SIZES[kind]
            raw = np.zeros((*shape[:-1], shape[-1] // block * size), np.uint8)
            w.add_tensor(name, raw, raw_dtype=kind)

    add("token_embd.weight", (96, 256), q6)
    add("output_norm.weight", (256,))
    for i in range(layers):
        b = f"blk.{i}."
        add(b + "attn_norm.weight", (256,))
        add(b + "ffn_norm.weight", (256,))
        add(b + "attn_q.weight", (256, 256), q4)
        add(b + "attn_k.weight", (128, 256), q4)
        add(b + "attn_v.weight", (128, 256), q6)
        add(b + "attn_output.weight", (256, 256), q4)
        for name, shape in extra:
            add(b + name, shape)
        if moe:
            add(b + "ffn_gate_inp.weight", (8, 256))
            for n, s in (("gate", (8, 512, 256)), ("up", (8, 512, 256)), ("down", (8, 256, 512))):
                add(b + f"ffn_{n}_exps.weight", s, q4)
        else:
            add(b + "ffn_gate.weight", (512, 256), q4)
            add(b + "ffn_up.weight", (512, 256), q4)
            add(b + "ffn_down.weight", (256, 512), q6 if i == 0 else q4)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()
    return path


def test_every_tensor_keeps_its_format(tmp_path):
    path = write(tmp_path / "m.gguf")
    imported = import_model(path)
    by_part = {(t.part, t.layer): t.format for t in imported.graph.weights}
    assert by_part["embedding", None] == "q6_k"
    assert by_part["attn_q", 0] == "q4_k"
    assert by_part["attn_v", 1] == "q6_k"
    assert (by_part["ffn_down", 0], by_part["ffn_down", 1]) == ("q6_k", "q4_k")
    assert by_part["norm", 0] == "f32"
    reader = gguf.GGUFReader(path)
    assert imported.weights.bytes == sum(t.n_bytes for t in reader.tensors)
    assert imported.weights.parameters == sum(t.n_elements for t in reader.tensors) == imported.graph.parameters
    assert not imported.warnings


def test_graph_bytes_equal_file_bytes(tmp_path):
    from orchard.workloads import weight_bytes

    imported = import_model(write(tmp_path / "m.gguf"))
    assert weight_bytes(imported.graph) == imported.weights.bytes


def test_tensors_tell_biases_and_head_norms(tmp_path):
    extra = [("attn_q.bias", (256,)), ("attn_k.bias", (128,)), ("attn_v.bias", (128,))]
    qwen2 = import_model(write(tmp_path / "a.gguf", "qwen2", extra=extra))
    assert qwen2.graph.parameters == qwen2.weights.parameters
    norms = [("attn_q_norm.weight", (64,)), ("attn_k_norm.weight", (64,))]
    qwen3 = import_model(write(tmp_path / "b.gguf", "qwen3", extra=norms))
    assert qwen3.graph.parameters == qwen3.weights.parameters


def test_mixture_of_experts(tmp_path):
    imported = import_model(
        write(
            tmp_path / "m.gguf",
            "qwen3moe",
            moe=True,
            extra=[("attn_q_norm.weight", (64,)), ("attn_k_norm.weight", (64,))],
        )
    )
    assert imported.graph.parameters == imported.weights.parameters
    assert {t.format for t in imported.graph.weights if t.part.startswith("expert")} == {"q4_k"}


def test_format_table_agrees_with_the_gguf_package():
    for value, name in FORMATS.items():
        if value in {q.value for q in gguf.GGML_QUANT_SIZES}:
            block, size = gguf.GGML_QUANT_SIZES[Q(value)]
            if name not in ("q8_1",):
                assert number_format(name).bits == size * 8 / block, name
        assert find_format(name) is not None or name == "q2_0"


def test_forty_gigabytes_read_in_a_second(benchmark_module, tmp_path):
    pytest.importorskip("onnx")  # of the module's other half
    path = benchmark_module("speed").gguf_of_40_gb(tmp_path / "big.gguf")  # sparse: takes no disk
    start = time.process_time()
    read = import_model(path).weights
    assert time.process_time() - start < 1.0
    assert path.stat().st_size > 39.6e9
    assert read.parameters == 2 * 128256 * 8192 + 80 * (2 * 8192 * (8192 + 1024) + 3 * 8192 * 28672 + 2 * 8192) + 8192


def test_unknown_architecture_lists_the_known_ones(tmp_path):
    with pytest.raises(ImportError_, match=r"architecture 'rwkv7' has no graph here; known: .*llama"):
        import_model(write(tmp_path / "m.gguf", "rwkv7"))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return write(tmp_path_factory.mktemp("gguf") / "m.gguf", layers=1).read_bytes()


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damaged_files_are_a_sentence_or_right(tiny, tmp_path, data):
    header = tiny[: len(tiny) - 200_000] if len(tiny) > 300_000 else tiny
    raw = bytearray(header[: data.draw(st.integers(0, len(header)))] if data.draw(st.booleans()) else header)
    for _ in range(data.draw(st.integers(0, 4))):
        if raw:
            raw[data.draw(st.integers(0, min(len(raw), 4000) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path / "m.gguf"
    path.write_bytes(bytes(raw))
    try:
        import_model(path)
    except OrchardError as error:
        assert "\n" not in str(error)


def test_hostile_counts_do_not_allocate(tmp_path):
    path = tmp_path / "m.gguf"
    path.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 2**63, 2**63) + bytes(64))
    with pytest.raises(ImportError_, match="damaged GGUF"):
        read_header(path)
