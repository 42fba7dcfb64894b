"""A fit of synthetic programs finds the parameters that made them, says which it could not find, and its intervals hold."""

from __future__ import annotations

import math
import random
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchard.cost.eager import KNOTS_BYTES, Launch, knot_of, launch_arrays
from orchard.cost.engines.eager import eager_terms
from orchard.cost.errors import CostError
from orchard.studies.machine_file import conformal
from orchard.studies.machine_fit import FitResult, Measured, Programs, fit, terms

TABLE = terms()
TRUE = {t.name: t.start * math.exp(0.4 * math.sin(7.0 * i)) for i, t in enumerate(TABLE)}
"""Parameters that differ from where the fit starts by up to 50 %."""


def product(n: int) -> Launch:
    moved = 3 * 4.0 * n * n
    size = 4.0 * n * n
    return Launch(
        op="aten.mm", group="gemm", rows=float(n), columns=float(n), depth=float(n), macs=float(n) ** 3, elements=float(n * n),
        reads=((size, moved), (size, moved)), writes=((size, moved),),
    )  # fmt: skip


def stream(n: int) -> Launch:
    return Launch(
        op="aten.add", group="pointwise", elements=n / 4.0, reads=((float(n), 2.0 * n),), writes=((float(n), 2.0 * n),)
    )


def programs(noise: float, seed: int, values: dict[str, float] = TRUE) -> list[Measured]:
    """Products and streams over sizes; each time has a relative error of `noise`."""
    generator = random.Random(seed)
    launches = [(f"mm-{n}", product(n)) for n in (32, 64, 128, 256, 512, 1024, 2048, 4096)]
    launches += [(f"add-{e}", stream(2**e)) for e in range(10, 29)]
    made = []
    for name, launch in launches:
        seconds = float(eager_terms(launch_arrays([launch]), values).total[0])
        made.append(Measured(name, "bandwidth", (launch,), 0, seconds * math.exp(generator.gauss(0.0, noise))))
    return made


@pytest.fixture(scope="module")
def fitted() -> FitResult:
    return fit(programs(0.01, 3), TABLE, noise=0.02, most=12)


def test_rates_are_found_within_their_interval(fitted: FitResult) -> None:
    for name in ("macs_per_s.f32", "dispatch_s.pointwise", "read_s_per_byte.6", "write_s_per_byte.6"):
        assert abs(math.log(fitted.values[name] / TRUE[name])) <= 3.0 * fitted.sigmas[name] + 0.02, name
    assert abs(math.log(fitted.values["macs_per_s.f32"] / TRUE["macs_per_s.f32"])) < 0.05


def test_residuals_are_as_small_as_the_noise(fitted: FitResult) -> None:
    assert float(np.median(np.abs(fitted.residuals))) < 0.02


def test_what_no_program_touches_is_named(fitted: FitResult) -> None:
    assert {"dispatch_s.conv", "macs_per_s.int4w", "attention_share", "record_s"} <= set(fitted.undetermined)
    assert not {"macs_per_s.f32", "dispatch_s.pointwise"} & set(fitted.undetermined)


def test_an_undetermined_parameter_keeps_its_prior(fitted: FitResult) -> None:
    start = next(t.start for t in TABLE if t.name == "dispatch_s.conv")
    assert fitted.values["dispatch_s.conv"] == pytest.approx(start, rel=1e-3)


def test_one_wild_program_hardly_moves_the_fit(fitted: FitResult) -> None:
    wild = programs(0.01, 3)
    wild[6] = replace(wild[6], seconds=20.0 * wild[6].seconds)
    robust = fit(wild, TABLE, noise=0.02, begin=fitted.values, most=6)
    assert robust.values["macs_per_s.f32"] == pytest.approx(fitted.values["macs_per_s.f32"], rel=0.1)


def test_launches_of_a_program_add_up() -> None:
    one = Measured("a", "x", (stream(4096),), 0, 1.0)
    two = Measured("b", "x", (stream(4096), stream(4096)), 3, 1.0)
    single, double = Programs([one, two]).seconds(TRUE)
    assert double == pytest.approx(2.0 * single + 3.0 * TRUE["module_s"])


@given(st.floats(1.0, 1e12))
def test_a_distance_lies_between_its_knots(distance: float) -> None:
    low, share = knot_of(distance)
    assert 0 <= low < len(KNOTS_BYTES)
    assert 0.0 <= share < 1.0
    if KNOTS_BYTES[0] < distance < KNOTS_BYTES[-1]:
        upper = KNOTS_BYTES[min(low + 1, len(KNOTS_BYTES) - 1)]
        assert KNOTS_BYTES[low] * (1 - 1e-9) <= distance <= upper * (1 + 1e-9)


@given(st.floats(0.2, 5.0))
@settings(max_examples=25)
def test_slower_parameters_never_make_a_launch_faster(factor: float) -> None:
    slower = {k: v * max(factor, 1.0) if k.endswith("_s_per_byte.6") or "dispatch" in k else v for k, v in TRUE.items()}
    before = eager_terms(launch_arrays([product(64), stream(2**20)]), TRUE).total
    after = eager_terms(launch_arrays([product(64), stream(2**20)]), slower).total
    assert (after >= before * (1 - 1e-12)).all()


@given(st.lists(st.floats(-3, 3), min_size=10, max_size=300))
def test_the_conformal_interval_holds_four_fifths_of_what_it_was_made_from(errors: list[float]) -> None:
    model = conformal(errors)
    inside = sum(model.low <= e <= model.high for e in errors) / len(errors)
    assert inside >= 0.8 - 1e-9 or len(errors) < 20


def test_a_profile_without_the_parameter_says_so() -> None:
    values = {k: v for k, v in TRUE.items() if not k.startswith("macs_per_s")}
    with pytest.raises(CostError, match=r"no parameter macs_per_s\.f32"):
        eager_terms(launch_arrays([product(8)]), values)


def test_terms_have_units_and_one_name_each() -> None:
    names = [t.name for t in TABLE]
    assert len(set(names)) == len(names)
    assert all(t.unit in ("s", "s/B", "1/s", "1", "count") and t.about for t in TABLE)


def test_term_widths_scale_the_pull_of_the_prior() -> None:
    tight = tuple(replace(t, width=1e-3) for t in TABLE)
    found = fit(programs(0.0, 1)[:10], tight, most=4)
    assert found.values["macs_per_s.f32"] == pytest.approx(
        next(t.start for t in TABLE if t.name == "macs_per_s.f32"), rel=0.05
    )
