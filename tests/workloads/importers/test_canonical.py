"""Exporters write the same network in many ways; here is one graph for all of them."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from orchard.workloads.importers import import_model  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")


def ops_of(net, shape):
    graph = import_model(net, {"x": shape}).graph
    return [f"{op.kind}.{op.attrs['fn']}" if "fn" in op.attrs else op.kind for op in graph.ops if op.kind != "view"]


class WrittenOut(torch.nn.Module):
    """An inference batch norm of the rows of a linear layer, as Core AI decomposes it."""

    def __init__(self, mean_of_two=False):
        super().__init__()
        self.linear = torch.nn.Linear(8, 6, bias=False)
        for name in ("mean", "deviation", "gain", "shift"):
            self.register_parameter(name, torch.nn.Parameter(torch.rand(6) + 1))
        self.mean_of_two = mean_of_two

    def forward(self, x):
        y = self.linear(x).reshape(10, 6)
        z = (y - self.mean) / self.deviation * self.gain
        return z + (y if self.mean_of_two else self.shift)


def test_a_batch_norm_written_out_folds_into_the_layer_before():
    assert ops_of(WrittenOut(), (2, 5, 8)) == ["einsum"]


def test_what_reads_the_layer_twice_stays():
    assert ops_of(WrittenOut(mean_of_two=True), (2, 5, 8)).count("elementwise.sub") == 1


def test_composites_are_seen_through_axes_of_one():
    class HardSwish(torch.nn.Module):
        def forward(self, x):
            y = torch.tanh(x)
            return y * torch.clamp(y.unsqueeze(0) + 3, 0, 6) / 6

    assert ops_of(HardSwish(), (4, 8)) == ["elementwise.tanh", "elementwise.hardswish"]


class Shuffle(torch.nn.Module):
    def __init__(self, order):
        super().__init__()
        self.order = order

    def forward(self, x):
        y = torch.cat([torch.relu(x), torch.tanh(x)], 1)
        return y.view(self.order).transpose(1, 2).reshape(1, 8, 3, 3)


def test_a_channel_shuffle_is_an_interleaved_concatenation():
    assert ops_of(Shuffle((1, 2, 4, 3, 3)), (1, 4, 3, 3)) == ["elementwise.relu", "elementwise.tanh", "move.concat"]


def test_another_order_of_channels_is_a_transpose():
    assert "move.transpose" in ops_of(Shuffle((1, 4, 2, 3, 3)), (1, 4, 3, 3))


@pytest.mark.parametrize(("alpha", "expected"), [(-3.0, ["hardswish"]), (0.5, ["relu", "hardswish"])])
def test_core_ml_writes_a_hard_swish_with_a_threshold(tmp_path, alpha, expected):
    ct = pytest.importorskip("coremltools")
    from coremltools.converters.mil import Builder as mb

    @mb.program(input_specs=[mb.TensorSpec((1, 8))], opset_version=ct.target.iOS16)
    def net(x):
        y = mb.thresholded_relu(x=x, alpha=np.float32(alpha))
        return mb.mul(x=y, y=mb.sigmoid_hard(x=y, alpha=np.float32(1 / 6), beta=np.float32(0.5)))

    model = ct.convert(net, minimum_deployment_target=ct.target.iOS16, skip_model_load=True,
                       compute_precision=ct.precision.FLOAT32)  # fmt: skip
    model.save(str(tmp_path / "m.mlpackage"))
    graph = import_model(tmp_path / "m.mlpackage").graph
    assert [op.attrs["fn"] for op in graph.ops if op.kind == "elementwise"] == expected
