"""Core AI programs: compressed weights with their true bytes, dynamic sizes, states, damaged folders."""

import pytest

torch = pytest.importorskip("torch")
converter = pytest.importorskip("coreai_torch")
pytest.importorskip("coreai_torch._compression.custom_layers")

from orchard.ir import Role  # noqa: E402
from orchard.ir.count import macs  # noqa: E402
from orchard.workloads import weight_bytes  # noqa: E402
from orchard.workloads.importers import ImportError_, import_model  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")
N, K = 256, 64


def save(module, inputs, path, **kwargs):
    program = torch.export.export(module.eval(), inputs, **kwargs)
    program = program.run_decompositions(converter.get_decomp_table())
    converter.TorchConverter().add_exported_program(program).to_coreai().save_asset(path)
    return path


class Compressed(torch.nn.Module):
    """x times a weight whose stored parts are named buffers, rebuilt by `dense`."""

    def __init__(self, dense, **parts):
        super().__init__()
        self.dense = dense
        for name, value in parts.items():
            self.register_buffer(name, value)

    def forward(self, x):
        return x @ self.dense(self).t()


def palette(bits, groups):
    torch.manual_seed(0)
    return Compressed(
        lambda m: torch.ops.coreai.lut_to_dense(m.indices, m.lut, 0),
        indices=torch.randint(0, 2**bits, (N, K), dtype=torch.uint8),
        lut=torch.randn(groups, 1, 2**bits, 1, dtype=torch.float16),
    )


def linear(blocks):
    return Compressed(
        lambda m: torch.ops.coreai.constexpr_blockwise_shift_scale(m.q, m.scale, None, None, torch.int8, torch.float16),
        q=torch.arange(N * K).reshape(N, K).to(torch.int8),
        scale=torch.linspace(0.1, 1, N * blocks).reshape(N, blocks).to(torch.float16),
    )


def sparse():
    mask = torch.arange(N * K).reshape(N, K) % 4 == 0
    return Compressed(
        lambda m: torch.ops.coreai.sparse_to_dense(m.nonzero, m.mask),
        mask=mask, nonzero=torch.randn(N * K // 4, dtype=torch.float16),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("make", "format", "size"),
    [
        (lambda: palette(4, 16), "pal4-g16", N * K // 2 + 16 * 16 * 2),  # 16 tables of 16 f16 entries
        (lambda: palette(6, 1), "pal6", N * K * 6 // 8 + 64 * 2),
        (lambda: linear(2), "int8-b32", N * K + N * 2 * 2),  # an f16 scale per block
        (sparse, "sparse75-f16", N * K // 8 + N * K // 4 * 2),  # a bit per weight and the survivors
    ],
)
def test_compressed_weights_have_their_format_and_bytes(make, format, size, tmp_path):
    found = import_model(save(make(), (torch.zeros(8, K, dtype=torch.float16),), tmp_path / "m.aimodel"))
    assert [t.format for t in found.graph.weights] == [format]
    assert found.weights.formats[format] == pytest.approx(size, abs=4)
    assert weight_bytes(found.graph) == size
    assert macs(found.graph) == 8 * N * K


def test_dynamic_sizes_are_symbols(tmp_path):
    net = torch.nn.Sequential(torch.nn.Linear(64, 128), torch.nn.GELU(), torch.nn.Linear(128, 64))
    path = tmp_path / "m.aimodel"
    save(net, (torch.zeros(1, 16, 64),), path, dynamic_shapes=({1: torch.export.Dim("seq", min=2, max=512)},))
    found = import_model(path)
    (size,) = found.graph.symbols
    assert str(macs(found.graph)) == f"{2 * 64 * 128}*{size}"
    (tensor,) = found.graph.of_role(Role.INPUT)
    assert macs(import_model(path, {tensor.name: (1, 32, 64)}).graph) == 2 * 32 * 64 * 128


def test_a_state_is_read_and_updated(tmp_path):
    class Cached(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("cache", torch.zeros(1, 32, 8))

        def forward(self, x):
            self.cache[:, 3:4] = x
            return x @ self.cache.transpose(1, 2)

    found = import_model(save(Cached(), (torch.zeros(1, 1, 8),), tmp_path / "m.aimodel"))
    (state,) = found.graph.of_role(Role.STATE)
    assert state.shape == (1, 32, 8)
    assert [op.kind for op in found.graph.ops] == ["update", "einsum"]
    assert found.graph.ops[1].inputs[1] == found.graph.ops[0].outputs[0]


@pytest.mark.parametrize("damage", ["cut", "noise", "empty"])
def test_a_damaged_program_is_one_sentence(damage, tmp_path):
    path = save(torch.nn.Linear(4, 4), (torch.zeros(1, 4),), tmp_path / "m.aimodel")
    body = path / "main.mlirb"
    data = body.read_bytes()
    body.write_bytes({"cut": data[: len(data) // 2], "noise": data[:40] + bytes(len(data)), "empty": b""}[damage])
    with pytest.raises(ImportError_, match=r"m\.aimodel"):
        import_model(path)
