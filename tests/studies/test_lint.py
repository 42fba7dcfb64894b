import pytest

from orchard.cost.eligibility import ane_findings
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
    with pytest.raises(StudyError, match="expected ane"):
        lint("resnet50", "a15", target="tpu")
