"""Placements of real models: one engine is `predict`, several are never worse, and every part adds up."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest

import orchard
from orchard.ir import Graph, parse_graph
from orchard.mapping.engine_plan import plan_errors
from orchard.studies import sources
from orchard.studies.errors import StudyError
from orchard.studies.place import Placement, copied_weights, engine_list, place
from orchard.studies.place_problem import WIDE, build, in_f16
from orchard.studies.place_why import value_of_choice
from orchard.studies.request import Request

MIX = parse_graph(
    """graph "mix" ()
%x: f16[1, 64, 64, 64] = input
%w1: f16[64, 64, 3, 3] = weight part=conv
%w2: f16[64, 64, 3, 3] = weight part=conv
%a: f16[1, 64, 64, 64] = einsum(%x, %w1) spec="n c (p+r) (q+s), k c r s -> n k p q"
%b: f16[1, 64, 64, 64] = elementwise(%a) fn="relu"
%wide: f16[1, 1, 2, 131072] = view(%b)
%s: f16[1, 1, 2, 131072] = softmax(%wide)
%back: f16[1, 64, 64, 64] = view(%s)
%c: f16[1, 64, 64, 64] = einsum(%back, %w2) spec="n c (p+r) (q+s), k c r s -> n k p q"
%d: f16[1, 64, 64, 64] = elementwise(%c, %b) fn="add"
return %d
"""
)
"""Two convolutions around a softmax over an axis that no Neural Engine takes."""


FORK = parse_graph(
    """graph "fork" ()
%x: f16[1, 256, 64, 64] = input
%w: f16[256, 256, 3, 3] = weight part=conv
%a1: f16[1, 256, 64, 64] = einsum(%x, %w) spec="n c (p+r) (q+s), k c r s -> n k p q"
%b1: f16[1, 256, 64, 64] = einsum(%x, %w) spec="n c (p+r) (q+s), k c r s -> n k p q"
%a2: f16[1, 256, 64, 64] = einsum(%a1, %w) spec="n c (p+r) (q+s), k c r s -> n k p q"
%b2: f16[1, 256, 64, 64] = einsum(%b1, %w) spec="n c (p+r) (q+s), k c r s -> n k p q"
%a3: f16[1, 256, 64, 64] = einsum(%a2, %w) spec="n c (p+r) (q+s), k c r s -> n k p q"
%b3: f16[1, 256, 64, 64] = einsum(%b2, %w) spec="n c (p+r) (q+s), k c r s -> n k p q"
%y: f16[1, 256, 64, 64] = elementwise(%a3, %b3) fn="add"
return %y
"""
)
"""Two branches of three convolutions each, then a join."""


@pytest.fixture
def _own_models(monkeypatch: pytest.MonkeyPatch) -> None:
    """The model names `mix` and `mix32` are graphs of this file."""
    from orchard.studies import predict

    graphs = {"mix": MIX, "fork": FORK, "mix32": MIX.with_formats(dict.fromkeys(MIX.tensors, "f32"))}

    def opened(request: Request) -> sources.ImportedModel:
        return sources.ImportedModel(name=request.model, source="test", base=graphs[request.model])

    monkeypatch.setattr(predict, "open_model", opened)


SINGLE = [
    ("resnet50", "m4pro", "gpu", {}), ("resnet50", "a15", "ane", {}), ("bert-base-uncased", "m1", "cpu", {}),
    ("bert-base-uncased", "m2max", "ane", {}), ("qwen3-0.6b", "m4", "gpu", {"weights": "q4_k_m", "depth": 2048}),
    ("qwen3-0.6b", "a17pro", "ane", {"prompt": 1024}), ("llama-3.2-1b", "m1max", "cpu", {"weights": "q8_0"}),
    ("qwen3-30b-a3b", "m3max", "gpu", {"weights": "int4-g64", "batch": 2}), ("whisper-tiny", "m1", "gpu", {}),
    ("gemma-4-e4b", "m4max", "gpu", {"weights": "int4-g64"}),
]  # fmt: skip


@pytest.mark.parametrize(("model", "chip", "engine", "options"), SINGLE)
def test_one_engine_is_predict_to_the_last_digit(
    model: str, chip: str, engine: str, options: dict[str, object]
) -> None:
    placed = place(model, chip, engines=engine, **options)  # type: ignore[arg-type]
    predicted = orchard.predict(model, chip, engine=engine, **options)  # type: ignore[arg-type]
    assert [p.name for p in placed.phases] == list(predicted.phases)
    for phase in placed.phases:
        expected = predicted.phases[phase.name]
        assert (phase.latency_s, phase.energy_j) == (expected.latency_s, expected.energy_j)
        assert (phase.interval_s, phase.bound_s) == (expected.interval_s, expected.bound_s)
        # The additive problem that is solved says the same, up to the order of its sums.
        parts = sum(phase.engine_s.values()) + phase.call_s
        assert max(parts, phase.bound_s) == pytest.approx(expected.latency_s, rel=1e-12)
    assert placed.answer.gap == 0.0
    assert placed.memory.weights == predicted.memory.weights


@pytest.mark.usefixtures("_own_models")
def test_every_placement_of_a_small_model_is_no_better() -> None:
    for objective in ("latency", "energy", "edp"):
        found = place("mix", "m4", objective=objective)
        placing = found.placing
        allowed = [np.flatnonzero(np.isfinite(row)) for row in placing.seconds.cost]
        values = [value_of_choice(placing, np.array(c), objective) for c in itertools.product(*allowed)]
        assert found.answer.value == pytest.approx(min(values), rel=1e-9)
        assert found.answer.bound == pytest.approx(found.answer.value, rel=1e-6)


@pytest.mark.usefixtures("_own_models")
def test_parts_of_a_mixed_placement_add_up() -> None:
    found = mixed_placement()
    phase = found.phases[0]
    assert phase.plan.engines == ("gpu", "ane")
    assert not list(plan_errors(phase.plan, MIX))
    total = sum(phase.engine_s.values()) + phase.handover_s + phase.call_s
    assert phase.latency_s == pytest.approx(total, rel=1e-12)
    assert phase.latency_s == pytest.approx(found.answer.value, rel=1e-9)
    assert sum(s.seconds for s in phase.steps) == pytest.approx(sum(phase.engine_s.values()), rel=1e-9)
    assert sum(r.seconds for r in phase.runs) == pytest.approx(sum(phase.engine_s.values()), rel=1e-9)
    assert sum(r.handover_s for r in phase.runs) == pytest.approx(phase.handover_s, rel=1e-9)
    assert sum(r.ops for r in phase.runs) == len(MIX.ops)
    assert phase.bound_s < phase.interval_s[0] < phase.latency_s < phase.interval_s[1]
    assert phase.overlap.bound_s <= phase.overlap.latency_s <= phase.latency_s * (1 + 1e-12)
    assert found.total_j == pytest.approx(value_of_choice(found.placing, found.answer.choice, "energy"), rel=1e-9)


def mixed_placement() -> Placement:
    """A GPU of one core and an engine that costs little to enter: all but the softmax goes to the Neural Engine."""
    return place("mix", "m4", engines="gpu,ane", overrides=("gpu.cores=1", "ane.dispatch=1us"))


@pytest.mark.usefixtures("_own_models")
def test_moving_branches_overlaps_and_stays_above_what_no_placement_beats() -> None:
    """Two equal branches, two engines about as fast: one branch each is close to half of both on one."""
    found = place("fork", "m4", engines="gpu,ane", overrides=("ane.cores=3", "ane.dispatch=1us"), explain=False)
    phase = found.phases[0]
    assert len(phase.plan.engines) == 1
    assert phase.overlap.latency_s <= phase.latency_s * (1 + 1e-12)
    assert phase.overlap.moved_ops >= 3
    assert phase.overlap.moved_s < 0.9 * phase.latency_s
    every = least_overlapped(found)
    assert phase.overlap.least_s <= every * (1 + 1e-12)
    assert every <= phase.overlap.moved_s * (1 + 1e-12)


def least_overlapped(found: Placement) -> float:
    """Best list schedule over every choice of engines."""
    from orchard.studies.place_overlap import overlap

    units = len(found.placing.free_seconds)
    return min(overlap(found.placing, 0, np.array(c)).latency_s for c in itertools.product(range(2), repeat=units))


@pytest.mark.usefixtures("_own_models")
def test_the_op_that_forces_a_switch_is_named_and_its_price_is_right() -> None:
    found = mixed_placement()
    runs = found.phases[0].runs
    assert [r.engine for r in runs] == ["ane", "gpu", "ane"]
    assert runs[1].forced
    assert "131,072" in runs[1].why
    assert not runs[2].forced
    reason = found.restrictions[0]
    assert (reason.rule, reason.ops, reason.first) == ("dimension", 1, "s")
    alone = next(a for a in found.alternatives if a.engines == ("ane",))
    assert alone.lifted == 1
    assert reason.value == pytest.approx(alone.value, rel=1e-9)  # with the reason gone everything stays on the engine
    assert reason.saves == pytest.approx(found.answer.value - reason.value)


@pytest.mark.usefixtures("_own_models")
def test_a_tensor_is_handed_over_once_per_engine_however_many_read_it() -> None:
    plan = mixed_placement().phases[0].plan
    assert [(h.tensor, h.source, h.target) for h in plan.handovers] == [("b", "ane", "gpu"), ("s", "gpu", "ane")]
    assert plan.handovers[0].bytes == 64 * 64 * 64 * 2


@pytest.mark.usefixtures("_own_models")
def test_dearer_hand_overs_never_make_a_better_placement() -> None:
    values = [
        place(
            "mix", "m4", engines="gpu,ane", overrides=("gpu.cores=1", f"ane.dispatch={ms} ms"), explain=False
        ).answer.value
        for ms in (0.001, 0.1, 1.0, 20.0)
    ]
    assert values == sorted(values)
    assert values[0] < values[-1]


def test_more_engines_are_never_worse() -> None:
    found = place("whisper-tiny", "a17pro")
    assert len(found.alternatives) == 6
    assert all(a.value is not None and a.value >= found.answer.value * (1 - 1e-12) for a in found.alternatives)
    assert found.best_single is not None
    assert found.dear_value >= found.answer.value


def test_prefill_and_decode_on_two_engines_pay_for_the_cache() -> None:
    """Prefill held on the Neural Engine, decode on the GPU: the whole cache crosses once a request."""
    placing = build(Request(model="qwen3-0.6b", chip="m4pro", generate=4), ("gpu", "ane"), "auto")
    prefill, decode = placing.parts
    choice = np.zeros(len(placing.free_seconds), dtype=np.int64)
    choice[list(prefill.nodes)] = 1
    apart = value_of_choice(placing, choice, "latency")
    alone = sum(
        float(placing.free_seconds[list(part.nodes), o].sum()) + part.prices[placing.options[o]].call_s * part.times
        for part, o in ((prefill, 1), (decode, 0))
    )
    cache = [(i, n) for i, n in zip(placing.nets, placing.seconds.nets) if i.kind == "cache"]
    assert len(cache) == 56  # keys and values of 28 layers
    assert sum(i.dense for i, _ in cache) == 512 * 8 * 128 * 2 * 56  # tokens x heads x head dim x 2 bytes x tensors
    paid = sum(n.leave[1] + n.enter[0] for _, n in cache)
    assert paid > 0
    assert apart == pytest.approx(alone + paid, rel=1e-9)


def test_weights_read_on_two_engines_are_kept_twice() -> None:
    placing = build(Request(model="qwen3-0.6b", chip="m4pro"), ("gpu", "ane"), "auto")
    apart = np.zeros(len(placing.free_seconds), dtype=np.int64)
    assert copied_weights(placing, apart) == 0
    apart[list(placing.parts[0].nodes)] = 1
    assert copied_weights(placing, apart) == orchard.predict("qwen3-0.6b", "m4pro").weight_bytes
    assert copied_weights(placing, np.ones_like(apart)) == 0


@pytest.mark.usefixtures("_own_models")
def test_32_bit_models_may_run_in_f16_only_where_asked() -> None:
    stored = place("mix32", "m4", precision="stored", explain=False)
    assert "ane" not in stored.phases[0].plan.engines
    assert {g.precision for g in stored.phases[0].plan.groups} == {"f32"}
    free = place("mix32", "m4", explain=False)
    assert free.answer.value <= stored.answer.value
    assert any("FP16" in w for w in free.warnings) == any(g.precision == "f16" for g in free.phases[0].plan.groups)
    assert not any(t.format in WIDE for t in in_f16(MIX).tensors.values())
    half = place("mix32", "m4", precision="f16", engines="gpu")
    assert half.answer.value == pytest.approx(place("mix", "m4", engines="gpu").answer.value, rel=1e-12)


def test_a_gpu_that_cannot_wire_all_weights_gets_what_fits() -> None:
    found = place("qwen3-0.6b", "m4", engines="cpu,gpu", weights="f16", overrides=("dram.gpu_limit=1",), explain=False)
    assert found.placing.seconds.capacities
    assert set(found.phases[1].plan.engines) == {"cpu", "gpu"}
    for capacity in found.placing.seconds.capacities:
        assert capacity.usage[np.arange(len(found.answer.choice)), found.answer.choice].sum() <= capacity.limit * (
            1 + 1e-9
        )


def test_activations_are_packed_close_to_what_lives_at_once() -> None:
    for model in ("resnet50", "bert-base-uncased"):
        phase = place(model, "m1", engines="gpu").phases[0]
        assert phase.arena.bound <= phase.arena.bytes <= 1.1 * phase.arena.bound


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"objective": "speed"}, "expected latency, energy, edp"),
        ({"engines": "tpu"}, "engine 'tpu' is not known"),
        ({"engines": ""}, "engine '' is not known"),
        ({"time_limit_s": float("nan")}, "seconds above 0"),
        ({"precision": "f8"}, "expected auto, stored, f16"),
        ({"plan": "/nowhere.json"}, "No such file"),
    ],
)
def test_what_cannot_be_is_said(options: dict[str, object], sentence: str) -> None:
    with pytest.raises(orchard.OrchardError, match=sentence):
        place("resnet50", "m4", **options)  # type: ignore[arg-type]


def test_a_runtime_prices_the_engines_it_has_and_is_predict_there() -> None:
    found = place("qwen3-0.6b", "m4", engines="cpu,gpu", runtime="mlx", explain=False)
    assert {e: p.profile.name for e, p in found.placing.plans.items()} == {"cpu": "llama.cpp-cpu", "gpu": "mlx-gpu"}
    alone = place("qwen3-0.6b", "m4", engines="gpu", runtime="mlx").phase("decode")
    assert alone.latency_s == orchard.predict("qwen3-0.6b", "m4", runtime="mlx").phases["decode"].latency_s
    with pytest.raises(orchard.OrchardError, match="no profile for engine 'ane'"):
        place("qwen3-0.6b", "m4", engines="ane", runtime="mlx")
    with pytest.raises(orchard.OrchardError, match="runtime 'tensorrt' is not known"):
        place("qwen3-0.6b", "m4", runtime="tensorrt")


def test_core_ml_names_of_compute_units_are_sets_of_engines() -> None:
    assert engine_list("ALL") == engine_list(None) == engine_list("auto") == ("cpu", "gpu", "ane")
    assert engine_list("CPU_AND_NE") == ("cpu", "ane")
    assert engine_list("ane, gpu") == ("gpu", "ane")


@pytest.mark.usefixtures("_own_models")
def test_the_record_is_plain_json() -> None:
    record = mixed_placement().to_dict()
    assert json.loads(json.dumps(record, allow_nan=False)) == record
    assert sum(record["phases"]["inference"]["engine_s"].values()) > 0


def system_plan(graph: Graph, engine_of: dict[str, str]) -> dict[str, object]:
    operator = {"einsum": "ios17.conv", "softmax": "ios17.softmax", "view": "ios17.reshape"}
    return {
        "ops": [
            {"name": f"op_{i}", "operator": operator.get(op.kind, f"ios17.{op.attrs.get('fn')}"),
             "preferred": engine_of.get(op.name, "CPU"), "supported": ["CPU"], "cost": 0.1}
            for i, op in enumerate(graph.ops)
        ]
    }  # fmt: skip


@pytest.mark.usefixtures("_own_models")
def test_a_system_plan_is_priced_and_its_differences_are_listed(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    path.write_text(json.dumps(system_plan(MIX, dict.fromkeys(["a", "b", "s", "c", "d"], "NeuralEngine"))))
    found = place("mix", "m4", overrides=("gpu.cores=1", "ane.dispatch=1us"), plan=str(path), explain=False).difference
    assert found is not None
    assert (found.source, found.matched, found.planned) == ("coreml", 5, 7)
    (only,) = found.differences
    assert (only.system, only.first, only.blocked) == ("ane", "s", 1)
    path.write_text(json.dumps(system_plan(MIX, {})))
    placed = place("mix", "m4", overrides=("gpu.cores=1",), plan=str(path), explain=False)
    everything = placed.difference
    assert everything is not None
    assert everything.value > everything.best
    elsewhere = [op for op, engine in placed.phases[0].plan.engine_of().items() if engine != "cpu"]
    assert sum(d.ops for d in everything.differences) == len(elsewhere) > 0


@pytest.mark.usefixtures("_own_models")
def test_a_core_ai_plan_reads_the_same(tmp_path: Path) -> None:
    names = [
        "coreai.constant",
        "coreai.conv2d",
        "coreai.relu",
        "coreai.reshape",
        "coreai.softmax",
        "coreai.conv2d",
        "coreai.add",
    ]
    data = {
        "entries": [
            {
                "operation_id": i,
                "devices": ["NEURAL_ENGINE" if i != 4 else "GPU"],
                "residency": "PLACED",
                "validation": [],
            }
            for i in range(1, 7)
        ],
        "entry_count": 6,
        "operation_names": {str(i): n for i, n in enumerate(names)},
    }
    path = tmp_path / "plan.json"
    path.write_text(json.dumps(data))
    found = place(
        "mix", "m4", engines="gpu,ane", overrides=("gpu.cores=1", "ane.dispatch=1us"), plan=str(path)
    ).difference
    assert found is not None
    assert (found.source, found.matched, found.engines) == ("coreai", 5, {"ane": 5, "gpu": 1})
    assert found.value == pytest.approx(found.best, rel=1e-9)
    assert not found.differences


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("{", "no JSON"), ("[]", "no compute plan"), ('{"ops": [1]}', r"ops\[0\]: expected an object"),
        ('{"ops": [{"operator": "conv", "preferred": "TPU"}]}', "got 'TPU', expected CPU, GPU or NeuralEngine"),
        ('{"entries": []}', "no operation_names"), ('{"ops": []}', "0 of the model's 5 ops"),
        ('{"entries": [7], "operation_names": {}}', r"entries\[0\]"),
    ],
)  # fmt: skip
@pytest.mark.usefixtures("_own_models")
def test_what_is_no_plan_of_this_model_is_refused(tmp_path: Path, content: str, sentence: str) -> None:
    path = tmp_path / "plan.json"
    path.write_text(content)
    with pytest.raises(StudyError, match=sentence):
        place("mix", "m4", plan=str(path), explain=False)


@pytest.mark.usefixtures("_own_models")
def test_a_plan_with_an_engine_left_out_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    path.write_text(json.dumps(system_plan(MIX, {})))
    with pytest.raises(StudyError, match="runs ops on cpu, which --engines leaves out"):
        place("mix", "m4", engines="gpu,ane", plan=str(path), explain=False)
