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


class Function(torch.nn.Module):
    def __init__(self, function, *parameters):
        super().__init__()
        self.function = function
        self.parameters_ = torch.nn.ParameterList([torch.nn.Parameter(torch.rand(s)) for s in parameters])

    def forward(self, x):
        return self.function(x, *self.parameters_)


def test_the_end_before_the_beginning_is_a_roll():
    def two_axes(x):
        y = torch.cat([x[:, 3:], x[:, :3]], 1)
        return torch.cat([y[..., 2:], y[..., :2]], 2)

    assert ops_of(Function(two_axes), (1, 8, 6)) == ["move.roll"]
    assert ops_of(Function(lambda x: torch.roll(x, (-3, -2), (1, 2))), (1, 8, 6)) == ["move.roll"]
    assert "move.concat" in ops_of(Function(lambda x: torch.cat([x[:, 3:], x[:, :2]], 1)), (1, 8, 6))  # one row is lost


def test_a_vector_over_its_length():
    assert ops_of(Function(lambda x: torch.nn.functional.normalize(x, dim=-1)), (4, 8)) == ["norm.l2norm"]


def attend(x, *tables):
    """Scores of 6 tokens by 6 with a bias of relative positions, which is a product of the queries as in SAM."""
    bias = torch.einsum("btc,kc->btk", x, tables[0])[:, :, :, None] + torch.einsum("btc,kc->btk", x, tables[1])[:, :, None]
    return (0.5 * x @ x.transpose(1, 2) + bias.reshape(2, 6, 6)).softmax(-1) @ x


def test_a_bias_of_relative_positions_belongs_to_the_softmax():
    found = ops_of(Function(attend, (2, 8), (3, 8)), (2, 6, 8))
    assert found.count("elementwise.add") == 1  # the two halves of the bias
    assert "elementwise.mul" not in found


def test_the_bias_also_where_an_axis_of_one_goes_before_the_softmax():
    """As Core AI's converter writes SAM."""

    def wide(x, bias):
        scores = x.unsqueeze(0) @ x.transpose(1, 2).unsqueeze(0)
        return (scores * 0.5 + bias[None]).squeeze(0).softmax(-1) @ x

    graph = import_model(Function(wide, (2, 6, 6)), {"x": (2, 6, 8)}).graph
    assert [op.kind for op in graph.ops if op.kind != "view"] == ["einsum", "softmax", "einsum"]
    (softmax,) = [op for op in graph.ops if op.kind == "softmax"]
    assert softmax.attrs["scale"] == 0.5
    assert [t.shape[-3:] for t in graph.inputs_of(softmax)] == [(2, 6, 6), (2, 6, 6)]


def test_a_spread_table_is_a_constant_and_a_lookup_is_none():
    def positions(places):
        return lambda x, table: x + table[places].reshape(x.shape)

    assert ops_of(Function(positions(torch.arange(12) % 5), (5, 8)), (12, 8)) == ["elementwise.add"]
    assert "gather" in ops_of(Function(positions(torch.arange(4)), (5, 8)), (4, 8))


class TwoLayouts(torch.nn.Module):
    """ConvNeXt's block: channels first for the convolution and the sum, last for the rest."""

    def __init__(self, blocks=2):
        super().__init__()
        self.first, self.last = torch.nn.LayerNorm(8), torch.nn.LayerNorm(8)
        self.depthwise = torch.nn.ModuleList(torch.nn.Conv2d(8, 8, 3, padding=1, groups=8) for _ in range(blocks))
        self.linear = torch.nn.ModuleList(torch.nn.Linear(8, 8) for _ in range(blocks))

    def forward(self, x):
        x = self.first(x).permute(0, 3, 1, 2)
        for depthwise, linear in zip(self.depthwise, self.linear):
            x = x + linear(torch.relu(depthwise(x).permute(0, 2, 3, 1))).permute(0, 3, 1, 2)
        return self.last(x.permute(0, 2, 3, 1))


def test_sums_take_the_layout_that_needs_no_transposes():
    assert not any("transpose" in op for op in ops_of(TwoLayouts(), (1, 5, 6, 8)))


def test_a_transpose_that_the_output_needs_stays():
    def turned(x, weight):
        return (torch.relu(x) @ weight + x).transpose(1, 2)

    assert ops_of(Function(turned, (8, 8)), (2, 5, 8)).count("move.transpose") == 1


def test_products_over_merged_axes_run_over_the_single_ones():
    """coremltools writes einsum("bhwc,hkc->bhwk") as a product of [h, b*w, c]."""

    def merged(x, table):
        y = torch.relu(x).permute(1, 0, 2, 3).reshape(4, 3 * 5, 8) @ table.transpose(1, 2)
        return y.reshape(4, 3, 5, 6).permute(1, 0, 2, 3)

    graph = import_model(Function(merged, (4, 6, 8)), {"x": (3, 4, 5, 8)}).graph
    kinds = [op.kind for op in graph.ops if op.kind != "view"]
    assert kinds == ["elementwise", "einsum"]
    assert graph.outputs_of(graph.ops[-1])[0].shape == (3, 4, 5, 6)


def test_sums_with_zero_and_products_with_one_go():
    assert ops_of(Function(lambda x: sum([torch.relu(x), torch.tanh(x)]) * 1), (4, 8)) == [
        "elementwise.relu", "elementwise.tanh", "elementwise.add",
    ]  # fmt: skip


def test_an_empty_cache_is_concatenated_with_nothing():
    """transformers starts a layer's cache with a tensor of shape [0], which torch.cat passes over."""
    assert ops_of(Function(lambda x: torch.cat([x.new_zeros(0), torch.relu(x)], -2)), (1, 2, 3, 4)) == ["elementwise.relu"]
