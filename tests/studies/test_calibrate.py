"""Fitting: recovers what made the data, is deterministic, and its intervals cover what they promise."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from orchard.cost.bound import phase_bound
from orchard.cost.profile import load_profile
from orchard.hw import HardwareArrays
from orchard.studies.calibrate import (
    SCALE,
    _error_model,
    all_cases,
    conformal,
    fit,
    generation,
    left_out,
    prior_values,
    start_values,
    write_left_out,
)
from orchard.studies.cases import CaseSet
from orchard.studies.phases import decode_calls
from orchard.studies.predict import predict
from orchard.studies.validate import _stored


@pytest.fixture(scope="module")
def everything() -> CaseSet:
    return all_cases()


@pytest.fixture(scope="module")
def few(everything: CaseSet) -> CaseSet:
    """Rows of one profile on several chips: decode and prefill of dense models."""
    keep = [c.profile.name == "llama.cpp-gpu-2023" and c.stratum in ("decode", "prefill") for c in everything.cases]
    return everything.subset(np.array(keep) & (np.arange(len(keep)) % 2 == 0))


def with_times(cases: CaseSet, seconds) -> CaseSet:
    return CaseSet.of(replace(c, measured_s=float(s)) for c, s in zip(cases.cases, seconds))


# cases


def test_a_case_set_prices_each_row_as_a_prediction_does(everything: CaseSet) -> None:
    values, _, _ = start_values(everything)
    seconds = everything.seconds(values)
    checked = 0
    for case, expected in list(zip(everything.cases, seconds))[::9]:
        row = case.row
        if row.phase not in ("prefill", "decode") or case.profile.engine == "cpu":
            continue
        overrides = [] if row.gpu_cores is None else [f"gpu.cores={case.soc['gpu.cores']:g}"]
        found = predict(
            row.model, case.soc.id, runtime=f"{row.runtime}@{row.date}", engine=row.engine, weights=row.weights,
            batch=row.batch, depth=row.depth or 0, overrides=overrides,
            prompt=(row.prompt or 512) if row.phase == "prefill" else 0,
            generate=(row.generate or 128) if row.phase == "decode" else 0,
        )  # fmt: skip
        assert found.phases[row.phase].latency_s == pytest.approx(max(expected, case.bound_s), rel=1e-6), row.id
        checked += 1
    assert checked > 25


def test_a_subset_keeps_times_and_order(everything: CaseSet) -> None:
    values, _, _ = start_values(everything)
    whole = everything.seconds(values)
    keep = np.arange(len(whole)) % 3 == 1
    assert np.allclose(everything.subset(keep).seconds(values), whole[keep])


def test_no_measurement_beats_the_bound(everything: CaseSet) -> None:
    assert [c.row.id for c in everything.cases if c.bound_s > c.measured_s] == []
    assert all(c.bound_s > 0 for c in everything.cases)


def test_bounds_of_cases_are_the_bounds_of_their_calls(everything: CaseSet) -> None:
    case = next(c for c in everything.cases if c.row.phase == "decode" and c.row.generate and c.profile.engine == "gpu")
    calls = decode_calls(generate=case.row.generate, context=case.row.depth or 0, batch=case.row.batch)
    hw = HardwareArrays.of(case.soc)
    slc = float(hw.get("slc.size") or 0.0)
    assert float(phase_bound(case.table, calls, hw, "gpu", slc)) == pytest.approx(case.bound_s)


# the fit


def test_a_fit_recovers_the_parameters_behind_noisy_times(few: CaseSet) -> None:
    values, free, _ = start_values(few)
    truth = dict(values)
    known = {n: next(k for k in free if k[1] == n) for n in ("stream_efficiency", "gemm_efficiency", "wait_cycles")}
    truth[known["stream_efficiency"]] = 0.78
    truth[known["gemm_efficiency"]] = 0.74
    truth[known["wait_cycles"]] = values[known["wait_cycles"]] * 1.3
    noise = np.random.default_rng(11).normal(0, 0.01, len(few.cases))
    made = with_times(few, few.seconds(truth) * np.exp(noise))
    found = fit(made, steps=12)
    for key in known.values():
        error = abs(np.log(found.values[key] / truth[key]))
        assert error < 0.04 + 2 * found.sigma[key], key
    assert abs(np.log(found.values[known["stream_efficiency"]] / 0.78)) < 0.04
    left = np.log(made.seconds(found.values) / np.array([c.measured_s for c in made.cases]))
    assert np.median(np.abs(left)) < 0.012
    assert found.values == fit(made, steps=12).values  # same rows, same numbers


def test_one_absurd_row_moves_a_fit_little(few: CaseSet) -> None:
    values, _, _ = start_values(few)
    clean = few.seconds(values)
    wrong = clean.copy()
    wrong[3] *= 10
    a, b = (fit(with_times(few, s), steps=8) for s in (clean, wrong))
    others = np.arange(len(clean)) != 3
    shift = np.log(few.seconds(b.values) / few.seconds(a.values))[others]
    assert np.median(np.abs(shift)) < 0.03


def test_left_out_rows_never_see_values_fitted_to_them(few: CaseSet, monkeypatch: pytest.MonkeyPatch) -> None:
    """A profile that loses all its rows is priced at its priors."""
    from orchard.studies import calibrate

    monkeypatch.setattr(calibrate, "fit", lambda _: calibrate.Fit(values={}, sigma={}, weak=()))
    measured = np.log([c.measured_s for c in few.cases])
    expected = np.log(few.seconds(prior_values(few))) - measured
    assert np.allclose(left_out(few, generation), expected)
    _, free, parameters = start_values(few)
    assert all(prior_values(few)[key] == parameters[key].centre for key in free)


def test_stored_values_are_the_optimum_of_the_stored_rows(everything: CaseSet) -> None:
    """Moving any fitted parameter by 2 % does not lower the objective: nobody changed a formula without a refit."""
    values, free, parameters = start_values(everything)
    centre = np.log([parameters[k].centre for k in free])
    width = np.array([parameters[k].width for k in free])
    measured = np.log([c.measured_s for c in everything.cases])
    scale = np.array([SCALE.get(c.row.trust, 0.08) for c in everything.cases])

    def objective(x) -> float:
        trial = {**values, **dict(zip(free, np.exp(x)))}
        error = (np.log(everything.seconds(trial)) - measured) / scale
        return float((np.sqrt(1 + error**2) - 1).sum() + 0.5 * (((x - centre) / width) ** 2).sum())

    stored = np.log([values[k] for k in free])
    least = objective(stored)
    assert least < 0.6 * objective(centre)
    for i, key in enumerate(free):
        for step in (-0.02, 0.02):
            moved = stored.copy()
            moved[i] += step
            assert objective(moved) > least - 0.05, key


def test_profiles_list_the_rows_they_were_fitted_to(everything: CaseSet) -> None:
    for name in {c.profile.name for c in everything.cases}:
        assert set(load_profile(name).rows) == {c.row.id for c in everything.cases if c.profile.name == name}


def test_left_out_errors_are_stored_for_every_scored_row(everything: CaseSet) -> None:
    ids = {c.row.id for c in everything.cases}
    for part, errors in _stored().items():
        assert set(errors) == ids, part
        assert all(abs(e) < 2 for e in errors.values())


def test_left_out_errors_are_written_as_they_are_read(few: CaseSet, tmp_path) -> None:
    from orchard.studies.calibrate import Calibration, Fit

    errors = np.linspace(-0.1, 0.1, len(few.cases))
    errors[0] = np.nan
    done = Calibration(fit=Fit(values={}, sigma={}, weak=()), by_generation=errors, by_family=-errors, cases=few)
    write_left_out(done, tmp_path / "e.csv")
    lines = (tmp_path / "e.csv").read_text(encoding="utf-8").splitlines()
    assert lines[0] == "id,by_generation,by_family"
    assert lines[1] == f"{few.cases[0].row.id},,"
    assert lines[-1] == f"{few.cases[-1].row.id},0.10000,-0.10000"


# intervals


@pytest.mark.parametrize(("rows", "skew"), [(12, 0.0), (40, 0.0), (40, 0.7), (200, 0.0)])
def test_a_conformal_interval_covers_four_in_five_new_errors(rows: int, skew: float) -> None:
    rng = np.random.default_rng(rows)
    covered = []
    for _ in range(600):
        sample = rng.normal(0.05, 0.1, rows + 20)
        sample = sample + skew * np.maximum(sample, 0)
        low, high = conformal(sample[:rows])
        covered.append(np.mean((low <= -sample[rows:]) & (-sample[rows:] <= high)))
    assert np.mean(covered) == pytest.approx(0.8, abs=0.025)


def test_few_errors_give_a_wider_interval_than_their_range() -> None:
    low, high = conformal([0.1, -0.2, 0.05])
    assert low < -0.1
    assert high > 0.2


def test_an_interval_holds_what_its_own_few_rows_showed() -> None:
    pool = {"decode": [0.01 * i for i in range(-10, 10)], "decode-moe": [0.5]}
    found = _error_model("decode-moe", pool, [e for errors in pool.values() for e in errors])
    assert found.low <= -0.5
    assert found.rows >= 8


