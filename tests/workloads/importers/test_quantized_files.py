"""Packed weights of MLX functions and of Hugging Face repositories: true bytes, true formats, or a refusal."""

import json

import pytest

from orchard.workloads import weight_bytes
from orchard.workloads.importers import ImportError_, import_model

CONFIG = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 256, "intermediate_size": 512,
    "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 512, "head_dim": 64,
    "max_position_embeddings": 128, "rms_norm_eps": 1e-5, "tie_word_embeddings": False, "torch_dtype": "float16",
}  # fmt: skip
LINEAR = {"q": (256, 256), "k": (128, 256), "v": (128, 256), "o": (256, 256), "gate": (512, 256), "up": (512, 256),
          "down": (256, 512)}  # fmt: skip


def layout(method):
    """{tensor name: (dtype, shape)} as the tool of each method writes a Llama of two layers."""
    tensors = {"model.norm.weight": ("F16", (256,))}
    whole = ("model.embed_tokens", (512, 256)), ("lm_head", (512, 256))
    packed = {f"model.layers.{i}.{k}_proj": shape for i in range(2) for k, shape in LINEAR.items()}
    for name, shape in whole:
        if method == "mlx":
            packed[name] = shape
        else:
            tensors[f"{name}.weight"] = ("F16", shape)
    for i in range(2):
        tensors |= {f"model.layers.{i}.{n}_layernorm.weight": ("F16", (256,)) for n in ("input", "post_attention")}
    for name, (n, k) in packed.items():
        if method == "mlx":
            parts = {"weight": ("U32", (n, k // 8)), "scales": ("F16", (n, k // 64)), "biases": ("F16", (n, k // 64))}
        elif method in ("gptq", "awq"):
            parts = {
                "qweight": ("I32", (k // 8, n)),
                "scales": ("F16", (k // 128, n)),
                "qzeros": ("I32", (k // 128, n // 8)),
            }
        else:
            parts = {"weight": ("U8", (n * k // 2, 1)), "weight.absmax": ("F32", (n * k // 64,))}
        tensors |= {f"{name}.{part}": content for part, content in parts.items()}
    return tensors


def write(folder, tensors, **extra):
    header, at = {}, 0
    for name, (dtype, shape) in tensors.items():
        size = {"F16": 2, "F32": 4, "U32": 4, "I32": 4, "U8": 1}[dtype]
        for s in shape:
            size *= s
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + size]}
        at += size
    raw = json.dumps(header).encode()
    path = folder / "model.safetensors"
    path.write_bytes(len(raw).to_bytes(8, "little") + raw + bytes(at))
    (folder / "config.json").write_text(json.dumps(CONFIG | extra))
    return path, at


@pytest.mark.parametrize(
    ("method", "extra", "format"),
    [
        ("mlx", {"quantization": {"group_size": 64, "bits": 4}}, "int4-g64"),
        ("gptq", {"quantization_config": {"quant_method": "gptq", "bits": 4, "group_size": 128}}, "int4-b128-asym"),
        ("awq", {"quantization_config": {"quant_method": "awq", "w_bit": 4, "q_group_size": 128}}, "int4-b128-asym"),
        ("bitsandbytes", {"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}}, "int4-g64"),
    ],
)
def test_repositories_of_packed_weights(tmp_path, method, extra, format):
    path, stored = write(tmp_path, layout(method), **extra)
    found = import_model(path)
    assert {w.format for w in found.graph.weights if w.part.startswith(("attn", "ffn"))} == {format}
    assert weight_bytes(found.graph) == pytest.approx(stored, rel=0.005)
    assert found.weights.parameters == 2 * (sum(n * k for n, k in LINEAR.values()) + 512) + 256 + 2 * 512 * 256
    assert not found.warnings


@pytest.mark.parametrize(
    ("extra", "sentence"),
    [
        ({"quantization_config": {"quant_method": "vptq"}}, "packed by 'vptq', expected one of gptq, awq"),
        ({"quantization_config": {"quant_method": "gptq", "bits": 7}}, "no known number format"),
        ({"quantization": {"bits": "four"}}, "no known number format"),
        ({"quantization_config": {"quant_method": "bitsandbytes"}}, "unknown bits"),
    ],
)
def test_other_packings_are_refused(tmp_path, extra, sentence):
    path, _ = write(tmp_path, layout("gptq"), **extra)
    with pytest.raises(ImportError_, match=sentence):
        import_model(path)


def test_a_file_that_its_config_does_not_describe_is_warned_of(tmp_path):
    quantization = {"quantization_config": {"quant_method": "gptq", "bits": 8, "group_size": 128}}
    path, _ = write(tmp_path, layout("gptq"), **quantization)
    assert any("the file stores" in w for w in import_model(path).warnings)


@pytest.mark.parametrize(("bits", "group"), [(4, 64), (8, 32)])
def test_mlx_quantized_layers(tmp_path, bits, group):
    mx = pytest.importorskip("mlx.core")
    import mlx.nn as nn

    net = nn.Sequential(nn.Linear(128, 256, bias=False), nn.ReLU(), nn.Linear(256, 64, bias=False))
    nn.quantize(net, group_size=group, bits=bits)
    mx.eval(net.parameters())
    path = tmp_path / "m.mlxfn"
    mx.export_function(str(path), lambda x: net(x), mx.zeros((8, 128)))
    elements = 128 * 256 + 256 * 64
    for found in (import_model(path), import_model(net, {"x": (8, 128)})):
        assert {w.format for w in found.graph.weights} == {f"int{bits}-g{group}"}
        assert found.weights.parameters == elements
        assert weight_bytes(found.graph) == elements * bits // 8 + 4 * elements // group  # MLX: f32 scales count as f16
