"""Guards with a margin of three over what benchmarks/importers/speed.py measures, in processor seconds."""

import time

import pytest

pytest.importorskip("onnx")


@pytest.fixture(scope="module")
def speed(benchmark_module):
    return benchmark_module("speed")


@pytest.fixture(scope="module")
def transformer(speed):
    return speed.transformer


def test_a_twelve_layer_transformer_imports_in_two_seconds(transformer, tmp_path):
    from orchard.ir.count import macs
    from orchard.workloads.importers import import_model

    path = tmp_path / "m.onnx"
    path.write_bytes(transformer(12).SerializeToString())
    start = time.process_time()
    graph = import_model(path).graph
    assert time.process_time() - start < 2.0
    assert macs(graph) == 12 * 128 * (12 * 768 * 768 + 2 * 128 * 768)


def test_a_graph_of_a_thousand_ops_is_predicted_in_fifty_milliseconds(transformer, tmp_path):
    from orchard.studies import predict
    from orchard.studies.request import Request

    path = tmp_path / "m.onnx"
    path.write_bytes(transformer(56).SerializeToString())
    request = Request(model=str(path), chip="m4")
    plan = predict.make_plan(request)
    assert len(plan.graph.ops) >= 1000
    times = []
    for _ in range(3):
        predict._TABLES.clear()
        start = time.process_time()
        predict.answer(request)
        times.append(time.process_time() - start)
    assert min(times) < 0.05


@pytest.mark.filterwarnings("ignore")
def test_a_twelve_layer_core_ml_transformer_imports_in_two_seconds(speed, tmp_path):
    pytest.importorskip("coremltools")
    from orchard.ir.count import macs
    from orchard.workloads.importers import import_model

    path = tmp_path / "m.mlpackage"
    speed.coreml_transformer(12, d=64).save(path)
    start = time.process_time()
    graph = import_model(path).graph
    assert time.process_time() - start < 2.0
    assert macs(graph) == 12 * 128 * (12 * 64 * 64 + 2 * 128 * 64)
