"""`lint` and `place` charge the same for the same tensors that go from engine to engine."""

import pytest

onnx = pytest.importorskip("onnx")

from orchard.search.placement import net_cost  # noqa: E402
from orchard.studies import lint as linting  # noqa: E402
from orchard.studies.place_problem import build  # noqa: E402
from orchard.studies.request import Request  # noqa: E402


@pytest.fixture
def two_segments(tmp_path):
    """Convolution, sine (not on a Neural Engine of generation 13), convolution."""
    import numpy as np
    from onnx import TensorProto, helper, numpy_helper

    weights = [numpy_helper.from_array(np.zeros((32, c, 3, 3), np.float16), n) for n, c in (("w0", 3), ("w1", 32))]
    nodes = [
        helper.make_node("Conv", ["x", "w0"], ["a"], pads=[1] * 4),
        helper.make_node("Sin", ["a"], ["b"]),
        helper.make_node("Conv", ["b", "w1"], ["y"], pads=[1] * 4),
    ]
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT16, [1, c, 64, 64]) for n, c in (("x", 3), ("y", 32))]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], weights)
    path = tmp_path / "m.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), path)
    return str(path)


def test_hand_overs_cost_the_same(two_segments, monkeypatch):
    kept = []
    of = linting._Costs.of
    monkeypatch.setattr(linting._Costs, "of", lambda *args: kept.append(of(*args)) or kept[-1])
    report = linting.lint(two_segments, "m1max")
    assert report.fallback == "gpu"
    assert [g.rule for g in report.groups if g.blocks] == ["generation"]
    placing = build(Request(model=two_segments, chip="m1max", engine="ane"), ("ane", "gpu"), "stored")
    (part,) = placing.parts
    ane = next(o for o in placing.options if o.engine == "ane")
    where = [1 if node in part.blocked[ane] else 0 for node in range(len(part.units))]
    assert sum(where) == 1
    assert placing.options[0].engine == "ane"
    import numpy as np

    seconds = sum(net_cost(net, np.array(where)) for net in placing.seconds.nets)
    assert kept[0].handed_over_s() == pytest.approx(seconds, rel=1e-9)
    assert seconds > 0
    assert kept[0].without("generation", {report.groups[0].first}).handed_over_s() == 0
