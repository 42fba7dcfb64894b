"""Whole models: rows sum to the prediction, bound <= best mapping, ranked by what a better kernel saves."""

from __future__ import annotations

import pytest

from orchard.hw import load_chip
from orchard.hw.arch import load_arch
from orchard.studies.errors import StudyError
from orchard.studies.map_cache import MappingCache
from orchard.studies.map_model import ModelMapping, Space, map_model
from orchard.studies.predict import predict
from orchard.studies.request import Request


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> MappingCache:
    return MappingCache(tmp_path_factory.mktemp("mappings"))


def mapped(cache: MappingCache, model: str, engine: str, op: str | None = None, **options: object) -> ModelMapping:
    request = Request(model=model, chip="m4", engine=engine, **options)  # type: ignore[arg-type]
    return map_model(request, Space(cache=cache, workers=1), op=op)


CASES = [("qwen3-0.6b", "gpu", "q4_0"), ("qwen3-0.6b", "cpu", "q4_0"), ("qwen3-0.6b", "ane", "f16")]


@pytest.mark.parametrize(("model", "engine", "weights"), CASES)
def test_rows_sum_to_the_prediction_and_stay_between_bound_and_estimate(
    cache: MappingCache, model: str, engine: str, weights: str
) -> None:
    found = mapped(cache, model, engine, weights=weights)
    predicted = predict(model, "m4", engine=engine, weights=weights)
    assert [p.name for p in found.phases] == ["prefill", "decode"]
    for phase in found.phases:
        assert phase.latency_s == pytest.approx(predicted.phases[phase.name].latency_s)
        assert phase.bound_s == pytest.approx(predicted.phases[phase.name].bound_s)
        assert sum(row.estimate_s or 0 for row in phase.rows) == pytest.approx(phase.latency_s)
        saved = sum(row.headroom_s for row in phase.rows)
        assert phase.attainable_s == pytest.approx((phase.latency_s or 0) - saved)
        assert (phase.bound_s or 0) <= phase.attainable_s * (1 + 1e-9)
        for row in phase.rows:
            if row.best_s is not None:
                assert (row.bound_s or 0) <= row.best_s * (1 + 1e-9), row.name
                assert row.best_s <= (row.estimate_s or 0) * (1 + 1e-6), row.name
            else:
                assert row.why
        headrooms = [row.headroom_s for row in phase.rows if row.parts]
        assert headrooms == sorted(headrooms, reverse=True)
    assert found.warnings == ()


def test_a_second_run_asks_the_mapper_nothing(cache: MappingCache) -> None:
    first = mapped(cache, "qwen3-0.6b", "gpu", weights="q4_0")
    second = mapped(cache, "qwen3-0.6b", "gpu", weights="q4_0")
    assert second.from_cache == second.unique == first.unique
    assert second.phases == first.phases


def test_a_module_and_an_op_of_any_layer(cache: MappingCache) -> None:
    whole = {r.name: r for r in mapped(cache, "qwen3-0.6b", "gpu", weights="f16").phases[0].rows}
    module = mapped(cache, "qwen3-0.6b", "gpu", op="layers.7.ffn", weights="f16").phases[0]
    assert {row.name for row in module.rows} >= {"ffn.gate", "ffn.up", "ffn.down"}
    for row in module.rows:
        assert row.count == pytest.approx(1.0)
        assert row.estimate_s == pytest.approx((whole[row.name].estimate_s or 0) / whole[row.name].count)
    (only,) = mapped(cache, "qwen3-0.6b", "gpu", op="layers.7.ffn.up", weights="f16").phases[0].rows
    assert only.best_s == pytest.approx((whole["ffn.up"].best_s or 0) / 28)
    assert module.latency_s is None


def test_on_an_architecture_there_is_energy_and_proof_but_no_estimate(cache: MappingCache) -> None:
    request = Request(model="qwen3-0.6b", chip="", prompt=64, generate=0)
    found = map_model(
        request, Space(objective="latency", factors="perfect", cache=cache, workers=1), arch=load_arch("T128")
    )
    (phase,) = found.phases
    assert found.machine == "T128"
    assert phase.latency_s is None
    assert phase.energy_j > 0
    assert all(row.estimate_s is None and row.bound_s is None for row in phase.rows)


def test_a_mapping_above_the_estimate_is_reported(cache: MappingCache) -> None:
    """Core ML's profile for networks has a Winograd rate (1.3 of the array) that the machine description lacks."""
    found = mapped(cache, "resnet18", "ane")
    slower = [r for r in found.phases[0].rows if r.headroom_s < 0]
    if slower:  # gone when the profile keeps below the peak
        assert "take longer at their best mapping than estimated" in found.warnings[0]
        assert all((r.best_s or 0) < 1.2 * (r.estimate_s or 0) for r in slower)


def test_small_weights_stay_in_the_last_level_cache(cache: MappingCache) -> None:
    assert load_chip("m4")["slc.size"] == 8 << 20
    rows = mapped(cache, "mobilenet-v2-1.0", "ane", weights="pal4").phases[0].rows  # 1.7 MB of weights
    assert all("W" in {p.mapped.problem.role(t) for t in p.mapped.problem.resident} for row in rows for p in row.parts)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"op": "layers.99.ffn"}, "is not in"),
        ({"phases": ("inference",)}, "has prefill, decode here"),
    ],
)
def test_refusals(cache: MappingCache, arguments: dict[str, object], message: str) -> None:
    request = Request(model="qwen3-0.6b", chip="m4", engine="gpu", weights="q4_0")
    with pytest.raises(StudyError, match=message):
        map_model(request, Space(cache=cache, workers=1), **arguments)  # type: ignore[arg-type]
