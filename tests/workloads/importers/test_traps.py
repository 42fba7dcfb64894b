"""What goes wrong between frameworks, and that it does not go wrong here. The others have tests beside their importer:

| trap | test |
|---|---|
| mixture of experts has no export | test_torch_export: test_mixture_of_experts_is_one_routed_op |
| torch's counter misses attention on CPU | test_torch_export: test_attention_is_counted_on_cpu_where_torchs_counter_misses_it |
| symbolic sizes lost by onnx | test_onnx: test_symbols_survive_shape_arithmetic |
| Core AI's program behind a private attribute | test_coreai: test_dynamic_sizes_are_symbols |
"""

import pytest

from orchard.ir.count import macs
from orchard.workloads.importers import import_model
from orchard.workloads.importers.errors import ImportError_

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.mark.parametrize("where", ["raise", "def net():\n    raise"])
def test_torchvision_for_cuda_beside_torch_for_cpu(tmp_path, monkeypatch, where):
    """It takes every class of timm and transformers with it, wherever the user's module first touches one."""
    (tmp_path / "clash.py").write_text(f"{where} RuntimeError('operator torchvision::nms does not exist')")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(__import__("sys").modules, "clash", raising=False)
    with pytest.raises(ImportError_, match=r"clash:net: a CUDA build of torchvision .* install the build that matches"):
        import_model("clash:net")


@pytest.fixture(scope="module")
def gpt2():
    """One layer with transformers 5's own masks, which come out of torch.diff; returns its last hidden state."""
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    config = {"n_layer": 1, "n_embd": 32, "n_head": 2, "vocab_size": 50, "use_cache": False}

    class Last(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.net = transformers.GPT2Model(transformers.GPT2Config(**config))

        def forward(self, x):
            return self.net(input_ids=x, return_dict=False)[0]

    return Last().eval(), (1, 8), 8 * 12 * 32 * 32 + 2 * 8 * 8 * 32


def test_masks_of_transformers_5(gpt2):
    torch = pytest.importorskip("torch")
    net, shape, products = gpt2
    program = torch.export.export(net, (torch.zeros(shape, dtype=torch.long),), strict=False)
    assert macs(import_model(program).graph) == products


def test_masks_of_transformers_5_through_core_ml(networks, gpt2, tmp_path):
    """coremltools has no torch.diff and no new_ones: the lowerings that docs/models.md shows."""
    torch, _ = pytest.importorskip("torch"), pytest.importorskip("coremltools")
    net, shape, products = gpt2
    path = networks.via_coreml(net, (torch.zeros(shape, dtype=torch.long),), tmp_path)
    assert macs(import_model(path).graph) == products


def test_a_batch_asked_as_symbol_stays_one():
    """torch specialises an example of size 1, so the example is larger."""
    torch = pytest.importorskip("torch")
    imported = import_model(torch.nn.Linear(8, 4), {"input": ("batch", 8)})
    assert str(macs(imported.graph)) == "32*batch"


def test_a_size_that_the_model_fixes_is_named():
    """Chunked scans (Mamba-2, Qwen3-Next) take no free length."""
    torch = pytest.importorskip("torch")

    class Chunked(torch.nn.Module):
        def forward(self, x):
            return x.view(1, 4, 6, 8).cumsum(2)

    with pytest.raises(ImportError_, match=r"Chunked: size 'seq' of input 'x' .*give that size as a number"):
        import_model(Chunked(), {"x": (1, "seq", 8)})


def test_mlx_weights_that_were_never_evaluated(tmp_path):
    mx = pytest.importorskip("mlx.core")
    weight = mx.random.normal((8, 8))
    path = tmp_path / "m.mlxfn"
    mx.export_function(str(path), lambda x: x @ weight, mx.zeros((2, 8)))
    assert any("mx.eval(model.parameters())" in w for w in import_model(path).warnings)
    mx.eval(weight)
    mx.export_function(str(path), lambda x: x @ weight, mx.zeros((2, 8)))
    assert import_model(path).warnings == ()
    with pytest.raises(ImportError_, match="axis 0 is 2 in the model, got 5"):
        import_model(path, {"input_0": (5, 8)})


def test_mlx_kernels_that_the_cpu_trace_expands(tmp_path):
    mx = pytest.importorskip("mlx.core")

    def attend(x):
        q = mx.fast.rms_norm(x, mx.ones(8), 1e-5).reshape(1, 6, 2, 4).transpose(0, 2, 1, 3)
        return mx.fast.scaled_dot_product_attention(q, q, q, scale=0.5)

    path = tmp_path / "m.mlxfn"
    mx.export_function(str(path), attend, mx.zeros((1, 6, 8)))
    kinds = [op.kind for op in import_model(path).graph.ops if op.kind != "view"]
    assert kinds == ["norm", "einsum", "softmax", "einsum"]


LIBRARIES = [
    ("mlx", "core.py", "m.mlxfn", "libmlx.so: cannot open shared object file"),  # `pip install mlx` alone, on Linux
    ("coreai", "authoring.py", "m.aimodel", "version `GLIBC_2.34' not found"),
]


@pytest.mark.parametrize(("library", "module", "file", "why"), LIBRARIES)
@pytest.mark.parametrize("missing", [False, True])
def test_a_library_that_is_missing_or_does_not_load(tmp_path, monkeypatch, library, module, file, why, missing):
    """The reader runs in a process of its own, whose end must not read as a damaged file."""
    (tmp_path / library).mkdir()
    error = f"ModuleNotFoundError('none', name={library!r})" if missing else f"ImportError({why!r})"
    (tmp_path / library / "__init__.py").write_text(f"raise {error}" if missing else "")
    (tmp_path / library / module).write_text(f"raise {error}")
    monkeypatch.syspath_prepend(str(tmp_path))
    model = tmp_path / file
    if file.endswith("aimodel"):
        model.mkdir()
        (model / "main.mlirb").write_bytes(b"ML")
    else:
        model.write_bytes(b"x")
    how = "" if missing else ", which is there but does not load .*"
    with pytest.raises(ImportError_, match=rf"{file}: reading it needs {library}{how}.*orchard\[{library}\]"):
        import_model(model)
