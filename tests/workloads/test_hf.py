"""config.json files: what is understood, what is warned about, and one sentence for everything that cannot be used."""

from __future__ import annotations

import json

import pytest

from orchard.workloads import ModelError, hf, load_model

LLAMA = {
    "model_type": "llama", "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "vocab_size": 100,
    "num_attention_heads": 4, "num_key_value_heads": 2, "hidden_act": "silu", "tie_word_embeddings": False,
    "torch_dtype": "bfloat16", "transformers_version": "4.40.0", "bos_token_id": 1, "rope_theta": 5e5,
}  # fmt: skip


def write(folder, values) -> str:
    path = folder / "config.json"
    path.write_text(values if isinstance(values, str) else json.dumps(values))
    return str(path)


def test_a_folder_and_its_file_are_the_same_model(tmp_path):
    path = write(tmp_path, LLAMA)
    model = load_model(path)
    assert load_model(tmp_path).config == model.config
    assert model.name == tmp_path.name
    assert model.warnings == ()
    assert model.params == 100 * 64 * 2 + 2 * (2 * 64 + 64 * 64 * 2 + 64 * 32 * 2 + 3 * 64 * 128) + 64


def test_a_field_that_is_not_understood_is_named(tmp_path):
    path = write(tmp_path, {**LLAMA, "flux_capacitor": 3, "off_switch": False})
    (warning,) = load_model(path).warnings
    assert "'flux_capacitor' is not understood" in warning


def test_the_language_model_of_a_multimodal_file(tmp_path):
    nested = {"model_type": "gemma3", "text_config": {**LLAMA, "model_type": "gemma3_text"}, "vision_config": {"a": 1}}
    nested["text_config"] |= {"sliding_window": 16, "sliding_window_pattern": 2}
    config = hf.decoder_from_file(tmp_path / "x.json", nested)
    assert config.mixers == ("sliding", "full")
    assert any("vision part is not modelled" in w for w in config.warnings)


@pytest.mark.parametrize(
    ("quantization", "scheme"),
    [
        ({"group_size": 64, "bits": 4}, "mlx-4bit-g64"),
        ({"quant_method": "mxfp4"}, "mxfp4"),
        ({"quant_method": "gptq", "bits": 4, "group_size": 128}, "int4-g128"),
        ({"quant_method": "awq", "bits": 4, "group_size": 128}, "int4-g128"),
    ],
)
def test_quantized_files_name_their_weight_scheme(tmp_path, quantization, scheme):
    from orchard.units import scheme as find_scheme

    key = "quantization_config" if "quant_method" in quantization else "quantization"
    model = load_model(write(tmp_path, {**LLAMA, key: quantization}))
    assert model.default_weights == scheme
    find_scheme(scheme)


def test_an_unclear_quantization_is_a_warning(tmp_path):
    model = load_model(write(tmp_path, {**LLAMA, "quantization_config": {"quant_method": "quip#"}}))
    assert model.default_weights is None
    assert "'quip#' of the file is not understood" in model.warnings[0]


def without(key: str) -> dict[str, object]:
    return {k: v for k, v in LLAMA.items() if k != key}


BAD = [
    (without("num_hidden_layers"), r"config\.json: lacks num_hidden_layers"),
    (without("model_type"), r"config\.json: lacks model_type"),
    ({**LLAMA, "model_type": "perceptron9000"}, r"'perceptron9000' is not known; known: bert, bloom, .*, whisper"),
    ({**LLAMA, "num_hidden_layers": -4}, "num_hidden_layers is -4, expected a whole number"),
    ({**LLAMA, "num_hidden_layers": 10**12}, "layers is 1000000000000, expected a whole number from 1 to 10000"),
    (
        {**LLAMA, "num_hidden_layers": 10**12, "model_type": "qwen2", "use_sliding_window": True},
        "layers is 1000000000000",
    ),
    ({**LLAMA, "num_hidden_layers": 0}, "layers is 0"),
    ({**LLAMA, "hidden_size": "4096"}, "hidden_size is '4096', expected a whole number"),
    ({**LLAMA, "hidden_size": True}, "hidden_size is True"),
    ({**LLAMA, "hidden_size": [64] * 1000}, r"hidden_size is \[64, 64.*\.\.\., expected"),
    ({**LLAMA, "num_attention_heads": 0}, "heads is 0"),
    ({**LLAMA, "num_key_value_heads": 3}, "4 heads do not divide among 3 kv_heads"),
    ({**LLAMA, "vocab_size": 1.5}, "vocab_size is 1.5"),
    ({**LLAMA, "hidden_act": "tanhexp"}, "hidden_act is 'tanhexp', expected one of silu"),
    ({**LLAMA, "tie_word_embeddings": "yes"}, "tie_word_embeddings is 'yes', expected true or false"),
    ({**LLAMA, "model_type": "qwen3", "layer_types": ["x", "y"], "use_sliding_window": True}, "layer_types has 'x'"),
    (json.dumps(LLAMA)[:-20], "not valid JSON"),
    ('{"vocab_size": 1, "vocab_size": 2}', "key 'vocab_size' stands twice"),
    ("[" * 100_000, "nested too deeply|not valid JSON"),
    ("[1, 2]", "holds a JSON list, expected an object"),
    ("", "not valid JSON"),
    (json.dumps(LLAMA).replace("64", "NaN", 1), "hidden_size is nan"),
    ('{"a": "' + "x" * 5_000_001 + '"}', "expected a configuration of at most"),
]


@pytest.mark.parametrize(("values", "message"), BAD)
def test_a_bad_file_is_one_sentence(tmp_path, values, message):
    with pytest.raises(ModelError, match=message) as caught:
        load_model(write(tmp_path, values))
    assert len(str(caught.value)) < 1500
    assert "\n" not in str(caught.value)


def test_no_file_and_no_folder(tmp_path):
    with pytest.raises(ModelError, match="cannot be read"):
        load_model(tmp_path / "config.json")
    with pytest.raises(ModelError, match=r"holds no config\.json .*expected a model's name, a model file or the folder"):
        load_model(tmp_path)


def test_bytes_that_are_no_text(tmp_path):
    (tmp_path / "config.json").write_bytes(b"\xff\xfe\x00{")
    with pytest.raises(ModelError, match="not UTF-8"):
        load_model(tmp_path)
