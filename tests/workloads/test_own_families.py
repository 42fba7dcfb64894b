"""T5, wav2vec 2.0, Mamba, text encoders of CLIP and recurrent networks: parameters of transformers, work by hand."""

from __future__ import annotations

import json
import re

import pytest
import transformers

from orchard.cost.work import work_of, work_of_graph
from orchard.ir import bind, value_of
from orchard.ir.count import macs, macs_of
from orchard.workloads import ModelError, load_model

torch = pytest.importorskip("torch")

T5 = {
    "d_model": 64, "d_kv": 24, "d_ff": 96, "num_layers": 3, "num_decoder_layers": 2, "num_heads": 4, "vocab_size": 500,
    "relative_attention_num_buckets": 16,
}  # fmt: skip
WAV = {
    "num_hidden_layers": 2, "hidden_size": 64, "num_attention_heads": 4, "intermediate_size": 128, "conv_dim": [32, 32, 48],
    "conv_kernel": [10, 3, 2], "conv_stride": [5, 2, 2], "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 4,
    "vocab_size": 40,
}  # fmt: skip
MAMBA = {"hidden_size": 64, "num_hidden_layers": 3, "state_size": 8, "vocab_size": 512, "time_step_rank": 6}
CLIP = {
    "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128, "vocab_size": 300,
    "max_position_embeddings": 20, "projection_dim": 32,
}  # fmt: skip


def saved(path, config, architecture):
    (path / "config.json").write_text(json.dumps({**config.to_dict(), "architectures": [architecture]}))
    return load_model(path)


def parameters(make, config):
    with torch.device("meta"):
        return {name: p.numel() for name, p in make(config).named_parameters()}


@pytest.mark.parametrize(
    ("make", "config", "unused"),
    [
        (transformers.T5ForConditionalGeneration, transformers.T5Config(**T5), ()),
        (
            transformers.T5ForConditionalGeneration,
            transformers.T5Config(**T5, feed_forward_proj="gated-gelu", tie_word_embeddings=False), (),
        ),
        (transformers.T5EncoderModel, transformers.T5Config(**T5), ()),
        # the weight norm of the position convolution and the mask of training are folded or not run
        (transformers.Wav2Vec2ForCTC, transformers.Wav2Vec2Config(**WAV), ("original0", "masked_spec_embed")),
        (
            transformers.Wav2Vec2Model,
            transformers.Wav2Vec2Config(**WAV, feat_extract_norm="layer", conv_bias=True, do_stable_layer_norm=True),
            ("original0", "masked_spec_embed"),
        ),
        (transformers.MambaForCausalLM, transformers.MambaConfig(**MAMBA), ()),
        (transformers.MambaForCausalLM, transformers.MambaConfig(**MAMBA, use_bias=True, use_conv_bias=False), ()),
        (transformers.CLIPTextModel, transformers.CLIPTextConfig(**CLIP), ()),
        (transformers.CLIPTextModelWithProjection, transformers.CLIPTextConfig(**CLIP), ()),
    ],
)  # fmt: skip
def test_parameters_are_those_of_transformers(make, config, unused, tmp_path):
    model = saved(tmp_path, config, make.__name__)
    expected = sum(n for name, n in parameters(make, config).items() if not any(u in name for u in unused))
    assert model.params == expected


def test_a_t5_holds_its_embedding_once():
    model = load_model("t5-small")
    both = sum(model.graph(part=p).parameters for p in model.parts)
    assert both - model.params == 32128 * 512
    assert model.weight_bytes() == 2 * model.params


def test_the_t5_decoder_reads_what_its_encoder_made():
    model = load_model("t5-small")
    made = [model.graph().tensors[n] for n in model.graph().outputs]
    read = [t for t in model.graph(part="decoder").tensors.values() if t.name.endswith("_cross")]
    assert len(made) == len(read) == 2 * 6
    assert {(t.shape[2], t.shape[3]) for t in (*made, *read)} == {(8, 64)}


def test_ten_seconds_of_audio_are_499_frames():
    graph = load_model("wav2vec2-base-960h").graph()
    samples = value_of(graph.tensors["audio"].shape[2], {"B": 1, "T": 499})
    assert samples == 320 * 499 + 80  # 160,000 samples give floor((160000 - 400) / 320) + 1 = 499 frames
    assert (160_000 - 400) // 320 + 1 == 499


def test_the_selective_scan_counts_nine_operations_per_state_element():
    graph = load_model("mamba-130m").graph()
    scan = next(op for op in graph.ops if op.attrs.get("fn") == "mamba1")
    inner, state, tokens = 1536, 16, 7
    assert value_of(work_of(scan, graph).vector_ops, {"B": 2, "T": tokens, "S": tokens}) == 2 * tokens * inner * (
        9 * state + 1
    )


def test_a_mamba_holds_no_more_state_after_more_tokens():
    model = load_model("mamba-130m")
    states = [t for t in model.graph().tensors.values() if t.role == "state"]
    assert sum(bind(t.elements, {"B": 1, "T": 1, "S": 9}) for t in states) == 24 * (1536 * 16 + 3 * 1536)
    assert all("S" not in str(t.shape) for t in states)


def test_an_lstm_by_hand():
    graph = load_model("lstm-ptb-large").graph()
    work = work_of_graph(graph)
    sizes = {"B": 3, "T": 5}
    recurrent = 4 * 1500 * 1500  # gates x width x width, per step and sequence
    assert value_of(macs(graph), sizes) == 3 * 5 * (2 * 2 * recurrent + 1500 * 10_000)
    scan = next(op for op in graph.ops if op.kind == "scan")
    assert value_of(macs_of(scan, graph), sizes) == 3 * 5 * recurrent
    states = 2 * 3 * (2 * 1500) * 4 * 2  # layers, sequences, cell and output, f32, read and written
    assert value_of(work.state_bytes, sizes) == states


@pytest.mark.parametrize(("name", "published"), [("lstm-ptb-medium", 20e6), ("lstm-ptb-large", 66e6)])
def test_published_sizes_of_language_models(name, published):
    assert load_model(name).params == pytest.approx(published, rel=0.012)  # printed with two digits


def test_rnnoise_has_the_weights_its_paper_counts():
    assert load_model("rnnoise").params == 87_503


def test_a_t5_whose_sizes_are_wrong_is_refused(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "t5", **T5, "num_heads": 0}))
    with pytest.raises(ModelError, match=re.escape(str(tmp_path)) + ".*heads"):
        load_model(tmp_path)


def test_an_imported_and_a_built_in_lstm_count_the_same():
    from orchard.workloads.importers import import_model

    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.cells = torch.nn.LSTM(24, 32, batch_first=True)

        def forward(self, x):
            return self.cells(x)[0]

    graph = import_model(Net(), {"x": (2, 5, 24)}).graph
    scan = next(op for op in graph.ops if op.kind == "scan")
    work = work_of(scan, graph)
    assert value_of(work.vector_ops, {}) == 2 * 5 * (2 * 4 * 32 * 32 + 4 * 32 * 4)
    assert value_of(work.state_bytes, {}) == 2 * (2 * 32) * 4 * 2
