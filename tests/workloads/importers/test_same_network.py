"""The same network through torch.export, ONNX, Core ML and Core AI: the same MACs, the same bytes, the same ops."""

from collections import Counter

import pytest

torch = pytest.importorskip("torch")

from orchard.ir.count import macs  # noqa: E402
from orchard.units import bytes_of, number_format  # noqa: E402
from orchard.workloads.importers import import_model  # noqa: E402


class Tiny(torch.nn.Module):
    """A convolutional stem and one attention block: what differs most between exporters."""

    def __init__(self):
        super().__init__()
        self.stem = torch.nn.Conv2d(3, 32, 3, stride=2, padding=1, bias=False)
        self.bn = torch.nn.BatchNorm2d(32)
        self.dw = torch.nn.Conv2d(32, 32, 3, padding=1, groups=32)
        self.norm = torch.nn.LayerNorm(32)
        self.qkv = torch.nn.Linear(32, 96)
        self.out = torch.nn.Linear(32, 32)
        self.up = torch.nn.Linear(32, 64)
        self.down = torch.nn.Linear(64, 32)
        self.head = torch.nn.Linear(32, 10)

    def forward(self, x):
        y = torch.nn.functional.relu6(self.bn(self.stem(x)))
        y = torch.nn.functional.silu(self.dw(y)).flatten(2).transpose(1, 2)
        b, t, c = 1, 256, 32  # coremltools 9 cannot trace `y.shape` with numpy 2.4
        q, k, v = (p.view(b, t, 4, 8).transpose(1, 2) for p in self.qkv(self.norm(y)).split(32, dim=-1))
        z = torch.nn.functional.scaled_dot_product_attention(q, k, v)
        y = y + self.out(z.transpose(1, 2).reshape(b, t, c))
        y = y + self.down(torch.nn.functional.gelu(self.up(y)))
        return self.head(y.mean(1))


SHAPE = (1, 3, 32, 32)
EXACT = 32 * 27 * 256 + 32 * 9 * 256 + 256 * 32 * (96 + 32 + 64 + 64) + 2 * 256 * 256 * 32 + 320


def traffic(graph):
    """Bytes every op that runs reads and writes; of a table only the rows."""

    def size(tensor):
        return bytes_of(number_format(tensor.format), tensor.shape)

    total = 0
    for op in graph.ops:
        if op.kind != "view":
            reads = graph.inputs_of(op)[1 if op.kind == "gather" else 0 :]
            total += sum(size(t) for t in (*reads, *graph.outputs_of(op)))
    return total


@pytest.fixture(scope="module")
def live():
    torch.manual_seed(0)
    net = Tiny().eval()
    return net, import_model(net, {"x": SHAPE})


def compare(imported, reference):
    assert macs(imported.graph) == macs(reference.graph) == EXACT
    assert traffic(imported.graph) == pytest.approx(traffic(reference.graph), rel=0.02)
    kinds = [
        Counter((op.kind, op.attrs.get("fn")) for op in i.graph.ops if op.kind != "view") for i in (imported, reference)
    ]
    assert kinds[0] == kinds[1]
    assert imported.weights.parameters == pytest.approx(reference.weights.parameters, rel=0.01)


def test_onnx(live, tmp_path):
    pytest.importorskip("onnxscript")
    net, reference = live
    path = tmp_path / "net.onnx"
    torch.onnx.export(net, (torch.zeros(SHAPE),), path, dynamo=True, external_data=False, verbose=False)
    compare(import_model(path), reference)


@pytest.mark.parametrize("target", ["iOS16", "iOS18"])
def test_coreml(live, tmp_path, target):
    ct = pytest.importorskip("coremltools")
    net, reference = live
    path = tmp_path / "net.mlpackage"
    traced = torch.jit.trace(net, torch.zeros(SHAPE))
    model = ct.convert(
        traced, inputs=[ct.TensorType(name="x", shape=SHAPE)], minimum_deployment_target=getattr(ct.target, target),
        compute_precision=ct.precision.FLOAT32, skip_model_load=True, convert_to="mlprogram",
    )  # fmt: skip
    model.save(path)
    compare(import_model(path), reference)


def test_coreai(live, tmp_path):
    converter = pytest.importorskip("coreai_torch")
    net, reference = live
    program = torch.export.export(net, (torch.zeros(SHAPE),)).run_decompositions(converter.get_decomp_table())
    path = tmp_path / "net.aimodel"
    converter.TorchConverter().add_exported_program(program).to_coreai().save_asset(path)
    compare(import_model(path), reference)
