"""Encoders: parameters exactly those of transformers, work in closed form, refusals."""

from __future__ import annotations

import json

import pytest

from orchard.ir import Graph, Role, bind, parse_einsum, product
from orchard.workloads import ModelError, load_model

SMALL = {"hidden_size": 48, "num_attention_heads": 4, "intermediate_size": 80, "num_hidden_layers": 3}
TEXT = {**SMALL, "vocab_size": 90, "max_position_embeddings": 40}
PICTURE = {**SMALL, "image_size": 32, "patch_size": 8}
WHISPER = {
    "d_model": 48, "encoder_layers": 2, "encoder_attention_heads": 4, "encoder_ffn_dim": 80, "decoder_layers": 3,
    "decoder_attention_heads": 4, "decoder_ffn_dim": 72, "vocab_size": 90, "num_mel_bins": 10,
    "max_source_positions": 30, "max_target_positions": 20, "pad_token_id": 0,
}  # fmt: skip
DISTILBERT = {"dim": 48, "n_heads": 4, "hidden_dim": 80, "n_layers": 3, "vocab_size": 90, "max_position_embeddings": 40}
CLIP = {"text_config": {**TEXT, "hidden_size": 32}, "vision_config": PICTURE, "projection_dim": 24}

CASES = [
    ("bert", "bert", "AutoModel", TEXT),
    ("bert classifier", "bert", "AutoModelForSequenceClassification", {**TEXT, "num_labels": 5}),
    ("roberta", "roberta", "AutoModel", TEXT),
    ("distilbert", "distilbert", "AutoModel", DISTILBERT),
    ("distilbert classifier", "distilbert", "AutoModelForSequenceClassification", {**DISTILBERT, "num_labels": 5}),
    ("vit", "vit", "AutoModel", PICTURE),
    ("vit classifier", "vit", "AutoModelForImageClassification", {**PICTURE, "num_labels": 7, "qkv_bias": False}),
    ("deit", "deit", "DeiTForImageClassification", {**PICTURE, "num_labels": 7}),
    ("clip text", "clip_text_model", "AutoModel", TEXT),
    ("clip vision", "clip_vision_model", "AutoModel", PICTURE),
    ("clip", "clip", "AutoModel", CLIP),
    ("whisper", "whisper", "AutoModelForSpeechSeq2Seq", WHISPER),
]


@pytest.mark.parametrize(("model_type", "auto", "options"), [c[1:] for c in CASES], ids=[c[0] for c in CASES])
def test_parameters_are_those_of_transformers(model_type, auto, options, tmp_path):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    config = transformers.AutoConfig.for_model(model_type, **options)
    if auto == "DeiTForImageClassification":  # has no place in the automatic table
        build = transformers.DeiTForImageClassification
    else:
        build = getattr(transformers, auto).from_config
    with torch.device("meta"):
        model = build(config)
    values = {**config.to_dict(), "architectures": [type(model).__name__]}
    (tmp_path / "config.json").write_text(json.dumps(values))
    ours = load_model(tmp_path)
    assert ours.params == sum(p.numel() for p in model.parameters())
    assert not [w for w in ours.warnings if "not understood" in w]


def macs(graph: Graph, **sizes: int) -> int:
    """Points of every Einsum's iteration space."""
    bound = graph.bind(sizes)
    total = 0
    for op in bound.ops:
        if op.kind == "einsum":
            einsum = parse_einsum(str(op.attrs["spec"]))
            shapes = [t.shape for t in bound.inputs_of(op)]
            dims = einsum.sizes(shapes, bound.outputs_of(op)[0].shape)
            total += bind(product(dims[d] for d in einsum.dims), {})
    return total


def test_bert_macs_in_closed_form():
    tokens, M, F, layers = 128, 768, 3072, 12
    per_layer = 4 * tokens * M * M + 2 * tokens * M * F + 2 * tokens * tokens * M
    pooler = M * M
    assert macs(load_model("bert-base-uncased").graph(), B=2, T=tokens) == 2 * (layers * per_layer + pooler)


def test_vit_macs_in_closed_form():
    """17.6 G multiply-adds, as public tables list ViT-B/16 at 224."""
    tokens, M, F = 197, 768, 3072
    patches = 196 * 3 * 16 * 16 * M
    layers = 12 * (4 * tokens * M * M + 2 * tokens * M * F + 2 * tokens * tokens * M)
    assert macs(load_model("vit-base-patch16-224").graph(), B=1) == patches + layers + M * 1000
    assert patches + layers == pytest.approx(17.6e9, rel=0.01)


def test_whisper_has_two_parts():
    model = load_model("whisper-base")
    assert model.parts == ("encoder", "decoder")
    encoder, decoder = model.graph(), model.graph(part="decoder", kv_format="q8_0")
    assert encoder.symbols == ("B",)
    assert decoder.symbols == ("B", "T", "S")
    assert len(encoder.outputs) == 2 * 6  # cross-attention keys and values of six decoder layers
    cross = [t for t in decoder.of_role(Role.STATE) if t.shape[1] == 1500]
    assert len(cross) == 12
    assert {t.format for t in decoder.of_role(Role.STATE)} == {"q8_0"}


def test_a_part_that_is_not_there():
    with pytest.raises(ModelError, match="no part 'decoder'; it has encoder"):
        load_model("bert-base-uncased").graph(part="decoder")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hidden_size": None}, "lacks hidden_size"),
        ({"num_attention_heads": 7}, "hidden size 48 does not divide among 7 heads"),
        ({"num_hidden_layers": 10**9}, "layers is 1000000000, expected at most 10000"),
        ({"hidden_act": "mystery"}, "hidden_act is 'mystery'"),
        ({"image_size": 4}, "4 x 4 with patches of 8"),
        ({"image_size": [1, 2, 3]}, "image_size has 3 numbers"),
        ({"patch_size": -1}, "patch_size is -1"),
    ],
)
def test_a_bad_encoder_file_is_one_sentence(tmp_path, change, message):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "vit", **PICTURE, **change}))
    with pytest.raises(ModelError, match=message):
        load_model(tmp_path)
