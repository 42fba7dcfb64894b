import pytest

from orchard.cost.eligibility import ane_findings, cpu_findings, generation_of, gpu_findings
from orchard.ir import parse_graph
from orchard.studies.errors import StudyError
from orchard.studies.lint import lint
from orchard.workloads.vision.net import Net


def rules(net, out, max_dim=16384):
    return {f.rule for f in ane_findings(net.build(out), max_dim=max_dim)}


def test_a_kernel_of_15_fits_from_the_fourth_mac_generation_on():
    def rules_of(limit):
        net = Net("one", 64, 64)
        return rules(net, net.conv(net.image, 64, 15, bias=False), limit)

    assert rules_of(16384) == {"kernel"}
    assert rules_of(65536) == set()


def test_a_short_last_axis_is_padded():
    net = Net("one", 7, 7, 64)
    assert rules(net, net.conv(net.image, 64, bias=False)) == {"padding"}


def test_language_models_have_open_sizes_and_blockers_come_first():
    report = lint("qwen3-0.6b", "m4")
    assert report.groups[0].blocks
    assert {"dynamic"} <= {g.rule for g in report.groups}


def test_networks_stay_on_the_engine():
    assert not [g for g in lint("resnet50", "a15").groups if g.blocks]


def test_an_unknown_target_is_refused():
    with pytest.raises(StudyError, match="expected ane, gpu, cpu"):
        lint("resnet50", "a15", target="tpu")


def graph_of(text):
    return parse_graph(text)


def found(text, **limits):
    given = {"max_dim": 16384, "generation": 13} | limits
    return {f.rule: f for f in ane_findings(graph_of(text), **given)}


X = 'graph "g" ()\n  %x: f16[1, 4, 64, 64] = input\n'


@pytest.mark.parametrize(
    ("line", "rule", "blocks"),
    [
        ('%y: f16[1, 4, 64, 64] = move(%x) fn="scatter"', "unsupported", True),
        ('%y: f16[1, 4, 64, 1] = reduce(%x) fn="prod" axes=(3,)', "unsupported", True),
        ('%y: f16[1, 4, 128, 128] = resize(%x) fn="bilinear"', "generation", True),
        ('%y: f16[1, 4, 64, 64] = elementwise(%x) fn="sin"', "generation", True),
        ('%y: f32[1, 4, 64, 64] = elementwise(%x) fn="relu"', "dtype", True),
        ('%y: f16[1, 4, 16, 16] = pool(%x) fn="max" kernel=(4, 4) stride=(4, 4)', "window", False),
        ('%y: f16[1, 4, 64, 8] = move(%x) fn="slice"', "padding", False),
    ],
)
def test_each_rule_fires_on_its_op(line, rule, blocks):
    finding = found(f"{X}  {line}\nreturn %y\n")[rule]
    assert finding.blocks is blocks
    assert finding.source
    assert finding.change


def test_generations_take_more():
    sine = X + '  %y: f16[1, 4, 64, 64] = elementwise(%x) fn="sin"\nreturn %y\n'
    assert "generation" in found(sine, generation=14)
    assert "generation" not in found(sine, generation=15)
    assert [generation_of(n, 16384) for n in ("a14", "m1max", "a17pro", "m4")] == [13, 13, 16, 16]


def test_matrix_products_with_channels_last_are_slow_and_convolutions_are_not():
    text = (
        'graph "g" ()\n  %x: f16[1, 64, 128] = input\n  %w: f16[256, 128] = weight\n'
        '  %y: f16[1, 64, 256] = einsum(%x, %w) spec="b t k, n k -> b t n"\nreturn %y\n'
    )
    assert "layout" in found(text)
    net = Net("one", 64, 64)
    assert "layout" not in rules(net, net.conv(net.image, 64, 1, bias=False))


def test_gains_add_up_to_the_difference():
    report = lint("llama-3.2-1b", "m4", prompt=64, weights="pal4-channel")
    assert report.fallback == "gpu"
    assert report.now_s > report.then_s > 0
    assert sum(g.gain_s for g in report.groups) == pytest.approx(report.now_s - report.then_s)
    palette = next(g for g in report.groups if g.rule == "palette")
    assert palette.gain_s >= 0
    assert [g.blocks for g in report.groups] == sorted((g.blocks for g in report.groups), reverse=True)


def test_a_float32_model_file_is_taken_as_core_ml_converts_it(tmp_path):
    torch = pytest.importorskip("torch")
    path = tmp_path / "m.pt2"
    torch.export.save(torch.export.export(torch.nn.Linear(64, 64), (torch.zeros(16, 64),)), path)
    report = lint(str(path), "m4")
    assert any("FP16" in n for n in report.notes)
    assert "dtype" not in {g.rule for g in report.groups}
    assert {g.rule for g in lint(str(path), "m4", target="gpu").groups} == {"dtype"}


def test_every_rule_of_the_gpu_and_the_cpu():
    wide = graph_of(X.replace("f16", "f64") + '  %y: f64[1, 4, 64, 64] = elementwise(%x) fn="relu"\nreturn %y\n')
    assert [f.rule for f in gpu_findings(wide)] == ["dtype"]
    half = graph_of(
        'graph "g" ()\n  %x: bf16[1, 64, 128] = input\n  %w: bf16[256, 128] = weight\n'
        '  %y: bf16[1, 64, 256] = einsum(%x, %w) spec="b t k, n k -> b t n"\nreturn %y\n'
    )
    assert [f.rule for f in cpu_findings(half, generation=13)] == ["dtype"]
    assert not list(cpu_findings(half, generation=14))


def test_open_sizes_without_a_known_name_are_findings_without_times(tmp_path):
    torch = pytest.importorskip("torch")
    free = {0: torch.export.Dim("rows", min=2)}
    program = torch.export.export(torch.nn.Linear(64, 64), (torch.zeros(4, 64),), dynamic_shapes=(free,))
    torch.export.save(program, tmp_path / "m.pt2")
    found = lint(str(tmp_path / "m.pt2"), "m1")
    assert [g.rule for g in found.groups if g.blocks] == ["dynamic"]
    assert found.now_s is None
    assert any(n.startswith("no times: input_0 open") for n in found.notes)
