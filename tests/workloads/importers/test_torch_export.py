"""torch.export: counts against torch's own counter, symbolic sizes, refusals."""

import pytest

torch = pytest.importorskip("torch")

from orchard.ir import print_graph  # noqa: E402
from orchard.ir.count import macs  # noqa: E402
from orchard.workloads.importers import ImportError_, UnsupportedOps, import_model  # noqa: E402


class Attention(torch.nn.Module):
    def __init__(self, width: int = 32, heads: int = 4, kv_heads: int = 2) -> None:
        super().__init__()
        self.heads, self.kv_heads, self.d = heads, kv_heads, width // heads
        self.q = torch.nn.Linear(width, width, bias=False)
        self.kv = torch.nn.Linear(width, 2 * kv_heads * self.d)
        self.o = torch.nn.Linear(width, width)

    def forward(self, x):
        b, t, _ = x.shape
        q = self.q(x).view(b, t, self.heads, self.d).transpose(1, 2)
        k, v = self.kv(x).view(b, t, 2, self.kv_heads, self.d).permute(2, 0, 3, 1, 4).unbind(0)
        y = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        return self.o(y.transpose(1, 2).reshape(b, t, -1))


class Nets:
    """Small networks whose every contraction torch's counter knows."""

    def linear():
        return torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.GELU(), torch.nn.Linear(16, 4)), (3, 5, 8)

    def conv():
        return torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3, 2, 1), torch.nn.BatchNorm2d(8), torch.nn.ReLU()), (
            2,
            3,
            17,
            15,
        )

    def grouped():
        return torch.nn.Conv2d(8, 12, 3, padding=1, groups=4), (1, 8, 9, 9)

    def depthwise():
        return torch.nn.Conv2d(8, 8, 5, padding=2, groups=8), (1, 8, 9, 9)

    def dilated():
        return torch.nn.Conv1d(4, 6, 3, dilation=2), (1, 4, 20)

    def volume():
        return torch.nn.Conv3d(2, 4, 3, padding=1), (1, 2, 5, 6, 7)

    def transposed_even():
        return torch.nn.ConvTranspose2d(4, 6, 4, 2, 1), (1, 4, 7, 7)

    def transposed_odd():
        return torch.nn.ConvTranspose2d(4, 6, 3, 2, 1, output_padding=1), (1, 4, 7, 7)

    def transposed_grouped():
        return torch.nn.ConvTranspose2d(4, 6, 2, 2, groups=2), (1, 4, 7, 7)

    def attention():
        return Attention(), (2, 2048, 32)


NETS = [n for n in vars(Nets) if not n.startswith("_")]


@pytest.mark.parametrize("name", NETS)
def test_macs_equal_torchs_counter_on_meta(name):
    """On the meta device, where torch counts attention too (its CPU kernel is missing from the registry)."""
    from torch.utils.flop_counter import FlopCounterMode

    with torch.device("meta"):
        net, shape = getattr(Nets, name)()
        net.eval()
        with FlopCounterMode(display=False) as counter:
            net(torch.zeros(shape))
    imported = import_model(net, {next(iter(_arguments(net))): shape})
    assert macs(imported.graph) == counter.get_total_flops() // 2
    assert imported.weights.parameters == sum(p.numel() for p in net.parameters())


def _arguments(net):
    import inspect

    return inspect.signature(net.forward).parameters


def test_attention_is_counted_on_cpu_where_torchs_counter_misses_it():
    from torch.utils.flop_counter import FlopCounterMode

    class Plain(torch.nn.Module):
        def forward(self, q):
            return torch.nn.functional.scaled_dot_product_attention(q, q, q)

    q = torch.zeros(1, 4, 64, 16)
    with FlopCounterMode(display=False) as counter:
        Plain()(q)
    assert counter.get_total_flops() == 0
    assert macs(import_model(Plain(), {"q": q.shape}).graph) == 2 * 4 * 64 * 64 * 16  # scores and values


def test_symbols_come_from_the_names_given():
    net, _ = Nets.linear()
    imported = import_model(net, {"input": ("batch", "seq", 8)})
    assert imported.graph.symbols == ("batch", "seq")
    assert str(macs(imported.graph)) == "192*batch*seq"
    assert macs(imported.graph.bind({"batch": 3, "seq": 5})) == 192 * 15


def test_convolution_text_form_keeps_windows():
    net, shape = Nets.conv()
    text = print_graph(import_model(net, {"input": shape}).graph)
    assert 'spec="n c (2*p+r) (2*q+s), k c r s -> n k p q"' in text
    assert "batchnorm" not in text  # folded into the convolution


def test_heads_split_by_views_leave_no_data_moves():
    net, shape = Nets.attention()
    kinds = [op.kind for op in import_model(net, {"x": shape}).graph.ops]
    assert kinds.count("einsum") == 5
    assert "softmax" in kinds
    assert not [op for op in import_model(net, {"x": shape}).graph.ops if op.attrs.get("fn") == "transpose"]


def test_ops_without_rule_are_listed_at_once_and_may_be_assumed_elementwise():
    class Odd(torch.nn.Module):
        def forward(self, x):
            return torch.special.i0(torch.special.i0(x)) + torch.lgamma(x)

    with pytest.raises(
        UnsupportedOps, match=r"2 op type\(s\) without a rule: aten\.special_i0 ×2, aten\.lgamma ×1"
    ) as caught:
        import_model(Odd(), {"x": (3,)})
    assert caught.value.ops == {"aten.special_i0": 2, "aten.lgamma": 1}
    imported = import_model(Odd(), {"x": (3,)}, assume_elementwise=list(caught.value.ops))
    assert len(imported.graph) == 4
    assert any("assumed" in w for w in imported.warnings)


def test_control_flow_is_refused_with_a_reason():
    class Branch(torch.nn.Module):
        def forward(self, x):
            return x + 1 if x.sum() > 0 else x - 1

    with pytest.raises(ImportError_, match="control flow"):
        import_model(Branch(), {"x": (3,)})

    class Cond(torch.nn.Module):
        def forward(self, x):
            return torch.cond(x.sum() > 0, lambda v: v + 1, lambda v: v - 1, (x,))

    with pytest.raises(ImportError_, match=r"control flow \(higher_order\.cond\)"):
        import_model(Cond(), {"x": (3,)})


def test_mixture_of_experts_is_one_routed_op():
    transformers = pytest.importorskip("transformers")
    config = transformers.Qwen3MoeConfig(
        hidden_size=32, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=1, head_dim=16, vocab_size=50,
        moe_intermediate_size=24, num_experts=8, num_experts_per_tok=2, intermediate_size=64, decoder_sparse_step=1,
    )  # fmt: skip
    with torch.device("meta"):
        model = transformers.Qwen3MoeForCausalLM(config)
    imported = import_model(model, {"input_ids": (1, 6)})
    routed = [op for op in imported.graph.ops if "routed" in op.attrs]
    assert [(op.attrs["routed"], op.attrs["active"]) for op in routed] == [(8, 2), (8, 2)]
    experts = 6 * 2 * 3 * 32 * 24  # tokens x active x (gate, up, down)
    assert experts == sum(macs_of_routed(imported.graph, op) for op in routed)
    assert imported.weights.parameters == sum(p.numel() for p in model.parameters())


def macs_of_routed(graph, op):
    from orchard.ir.count import macs_of

    return macs_of(op, graph)


def test_in_place_writes_through_views_keep_their_producers():
    class Write(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.w = torch.nn.Linear(4, 4)

        def forward(self, x):
            y = torch.zeros(2, 4)
            y[0] = self.w(x)
            return y.relu_()

    assert macs(import_model(Write(), {"x": (4,)}).graph) == 16


def test_pt2_round_trip(tmp_path):
    net, shape = Nets.conv()
    path = tmp_path / "net.pt2"
    torch.export.save(torch.export.export(net.eval(), (torch.zeros(shape),)), path)
    live = import_model(net, {"input": shape})
    stored = import_model(path)
    assert stored.source_format == "pt2"
    assert macs(stored.graph) == macs(live.graph)


def test_pickles_are_refused_with_the_alternative(tmp_path):
    path = tmp_path / "model.pth"
    torch.save({}, path)
    with pytest.raises(ImportError_, match=r"pickle.*torch\.export\.save"):
        import_model(path)


def test_a_pt2_that_is_no_archive_is_one_sentence(tmp_path):
    path = tmp_path / "model.pt2"
    path.write_bytes(b"not a zip")
    with pytest.raises(ImportError_, match=r"not a \.pt2 archive"):
        import_model(path)


def test_torchvision_beside_cpu_torch_is_explained():
    from orchard.workloads.importers.torch_export.live import _export_error

    error = _export_error("Net", RuntimeError("operator torchvision::nms does not exist"))
    assert "CUDA build of torchvision" in str(error)


def test_wrong_and_missing_inputs_name_the_argument():
    net, _ = Nets.linear()
    with pytest.raises(ImportError_, match="no argument 'y'; it takes input"):
        import_model(net, {"y": (1, 8)})
    with pytest.raises(ImportError_, match="give the shape of each input"):
        import_model(net)


def test_lstm_counts_input_and_recurrent_products():
    imported = import_model(torch.nn.LSTM(8, 16, batch_first=True), {"input": (2, 5, 8)})
    assert macs(imported.graph) == 2 * 5 * 4 * 16 * (8 + 16)


def test_control_flow_is_refused_in_a_sentence_without_torchs_log(capfd):
    class Loop(torch.nn.Module):
        def forward(self, x):
            while x.sum() > 0:
                x = x - 1
            return x

    with pytest.raises(ImportError_, match=r"Loop: forward decides by tensor contents .* control flow"):
        import_model(Loop(), {"x": (4,)})
    assert capfd.readouterr() == ("", "")
