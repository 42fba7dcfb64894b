"""Elasticities against single predictions and closed forms; changes term by term."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from orchard.hw import load_chip
from orchard.studies.errors import StudyError
from orchard.studies.explore.basket import basket_of
from orchard.studies.explore.sensitivity import _sobol, sensitivity
from orchard.studies.explore.study import Workload
from orchard.studies.explore.whatif import what_if
from orchard.studies.predict import predict


def basket(*models: str, **options: object) -> tuple[Workload, ...]:
    chosen: dict[str, object] = {"prompt": 64, "generate": 16, **options}
    return basket_of(models, None, "m4", (), chosen)


def latency(**overrides: float) -> float:
    found = predict("qwen3-0.6b", "m4", prompt=64, generate=16, overrides={k.replace("_", "."): v for k, v in overrides.items()})
    return found.phases["prefill"].latency_s + 16 * found.phases["decode"].latency_s


def test_slopes_are_those_of_single_predictions() -> None:
    found = {e.figure: e for e in sensitivity("m4", basket("qwen3-0.6b")).elasticities}
    own = load_chip("m4")["gpu.clock"]
    step = 0.01
    by_hand = -(math.log(latency(gpu_clock=own * (1 + step))) - math.log(latency(gpu_clock=own * (1 - step)))) / (
        math.log1p(step) - math.log1p(-step)
    )
    assert found["gpu.clock"].basket == pytest.approx(by_hand, abs=2e-3)
    cores = -(math.log(latency(gpu_cores=11)) - math.log(latency(gpu_cores=9))) / math.log(11 / 9)
    assert found["gpu.cores"].basket == pytest.approx(cores, rel=1e-9)


def test_rates_times_lambda_give_time_over_lambda() -> None:
    """Euler: latency is homogeneous of degree -1 in all rates of a GPU run together: clock (lanes, waits) and DRAM."""
    slopes = sensitivity("m4", basket("qwen3-0.6b"), figures=["gpu.clock", "dram.bandwidth"]).elasticities
    found = {e.figure: e.basket for e in slopes}
    assert found["gpu.clock"] + found["dram.bandwidth"] == pytest.approx(1.0, abs=0.02)


def test_a_figure_an_engine_does_not_read_has_none() -> None:
    found = sensitivity("m4", basket("qwen3-0.6b"), figures=["ane.clock"])
    assert found.elasticities[0].basket == 0.0


@pytest.mark.parametrize(
    ("figure", "says"), [("gpu.corez", "did you mean"), ("dram.type", "no figure"), ("gpu.matrix.fp16", "zero")]
)
def test_refusals(figure: str, says: str) -> None:
    with pytest.raises(StudyError, match=says):
        sensitivity("m4", basket("qwen3-0.6b"), figures=[figure])


def test_sobol_of_a_product_of_powers(monkeypatch: pytest.MonkeyPatch) -> None:
    """ln latency = -a ln x - b ln y over equal ranges: the shares of variance are a^2 and b^2 over their sum, no interaction."""
    pytest.importorskip("SALib")
    from orchard.studies.explore import sensitivity as module

    class Toy:
        def __init__(self, study: object = None) -> None:
            self.study = study or self
            self.soc = {"x": 10.0, "y": 2.0}

        chip, overrides, workloads = "m4", (), ()

        def __call__(self, cube: np.ndarray) -> dict[str, np.ndarray]:
            x, y = 7 + 7 * cube[:, 0], 1.4 + 1.4 * cube[:, 1]
            return {"latency_s": x**-2.0 * y**-1.0}

    monkeypatch.setattr(module, "Evaluator", Toy)
    monkeypatch.setattr(module, "study_of", lambda *_: Toy())
    found = {s.figure: s for s in _sobol(Toy(), ["x", "y"], 1024, (0.7, 1.4), 0)}  # type: ignore[arg-type]
    assert found["x"].first == pytest.approx(0.8, abs=0.05)
    assert found["y"].total == pytest.approx(0.2, abs=0.05)


def test_what_if_matches_single_predictions_and_says_what_is_joint() -> None:
    found = what_if("m4", basket("qwen3-0.6b"), ("gpu.cores=14", "dram.bandwidth=200GB/s"))
    assert found.before.basket_s == pytest.approx(latency())
    assert found.alone[0].basket_s == pytest.approx(latency(gpu_cores=14))
    assert found.after.basket_s == pytest.approx(latency(gpu_cores=14, dram_bandwidth=200e9))
    gains = [found.before.basket_s / s.basket_s for s in (*found.alone, found.after)]
    assert found.synergy == pytest.approx(gains[2] / (gains[0] * gains[1]))
    for state in (found.before, found.after):
        parts = {phase: sum(terms.values()) for phase, terms in state.terms.items()}
        assert parts["w0.prefill"] + 16 * parts["w0.decode"] == pytest.approx(state.basket_s, rel=1e-6)
    assert found.after.area_mm2 is not None
    assert found.before.area_mm2 is not None
    assert found.after.area_mm2 > found.before.area_mm2


def test_a_clock_costs_energy() -> None:
    own = load_chip("m4")["gpu.clock"]
    found = what_if("m4", basket("qwen3-0.6b", prompt=512, generate=0), (f"gpu.clock={1.2 * own}",))
    assert found.after.basket_s < found.before.basket_s
    assert sum(found.after.energy_j.values()) > sum(found.before.energy_j.values())


def test_baskets_from_files(tmp_path: Path) -> None:
    path = tmp_path / "basket.yaml"
    path.write_text("workloads:\n  chat: {model: qwen3-0.6b, prompt: 64, generate: 16, weight: 2}\n")
    found = sensitivity("m4", basket_of((), path, "m4", (), {}))
    assert found.workloads[0].weight == 2
    with pytest.raises(StudyError, match="expected one of the two"):
        basket_of(("qwen3-4b",), path, "m4", (), {})
    with pytest.raises(StudyError, match="no workload is named"):
        basket_of((), None, "m4", (), {})
