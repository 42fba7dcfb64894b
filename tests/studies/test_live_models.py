"""Live objects from Python: a torch module on the meta device, a transformers model, a function by name, an MLX function."""

import sys

import pytest

import orchard
from orchard.ir.count import macs
from orchard.studies.errors import StudyError

torch = pytest.importorskip("torch")


class Tiny(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.up, self.down = torch.nn.Linear(64, 256), torch.nn.Linear(256, 64)

    def forward(self, x):
        return self.down(torch.nn.functional.gelu(self.up(x)))


def test_a_module_on_the_meta_device():
    with torch.device("meta"):
        net = Tiny()
    found = orchard.predict(net, "m4", inputs={"x": (1, 128, 64)})
    assert found.model.name == "Tiny"
    assert found.model.params == 2 * 64 * 256 + 320
    (phase,) = found.phases.values()
    assert phase.ops > 2 * 2 * 128 * 64 * 256
    assert found.to_dict()["model"]["weight_bytes"] == 4 * found.model.params


def test_open_sizes_take_prompt_and_batch():
    short, long = (orchard.predict(Tiny(), "m4", inputs={"x": (1, "seq", 64)}, prompt=n) for n in (64, 512))
    ratio = long.phases["inference"].ops / short.phases["inference"].ops
    assert ratio == pytest.approx(8)


def test_a_transformers_model_needs_no_inputs():
    transformers = pytest.importorskip("transformers")
    config = transformers.BertConfig(hidden_size=64, num_hidden_layers=2, num_attention_heads=2, intermediate_size=128)
    with torch.device("meta"):
        model = transformers.BertModel(config)
    found = orchard.predict(model, "m4")
    assert found.model.params == sum(p.numel() for p in model.parameters())


def test_an_encoder_and_decoder_of_transformers_needs_no_inputs():
    """Whisper takes a window of features and one token: the second convolution has stride 2 over 2 x 50 frames."""
    transformers = pytest.importorskip("transformers")
    sizes = {f"{part}_{what}": n for part in ("encoder", "decoder") for what, n in
             (("layers", 1), ("attention_heads", 2), ("ffn_dim", 32))}  # fmt: skip
    config = transformers.WhisperConfig(d_model=16, vocab_size=100, max_source_positions=50, num_mel_bins=8,
                                        pad_token_id=0, decoder_start_token_id=1, **sizes)  # fmt: skip
    with torch.device("meta"):
        model = transformers.WhisperModel(config)
    graph = orchard.predict(model, "m4").model.base
    assert [t.shape for t in graph.tensors.values() if t.role == "input"] == [(1, 8, 100), (1, 1)]
    assert macs(graph) > 3 * 100 * 16 * 8 + 3 * 50 * 16 * 16


def test_a_function_by_name_returns_module_and_inputs(monkeypatch, tmp_path):
    (tmp_path / "my_nets.py").write_text(
        "import torch\n\ndef make():\n    return torch.nn.Linear(8, 4), {'input': (2, 8)}\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    try:
        assert orchard.predict("my_nets:make", "m4").model.params == 36
    finally:
        sys.modules.pop("my_nets", None)


def test_an_mlx_function():
    mx = pytest.importorskip("mlx.core")
    weight = mx.zeros((64, 32))
    mx.eval(weight)

    def project(x):
        return x @ weight

    found = orchard.predict(project, "m4", inputs={"x": (4, 64)})
    assert found.model.params == 64 * 32


def test_what_is_no_model_is_refused():
    with pytest.raises(orchard.OrchardError, match="int is no model"):
        orchard.predict(3, "m4")
    with pytest.raises(StudyError, match="expected name=shape"):
        orchard.predict(Tiny(), "m4", inputs=["x"])
