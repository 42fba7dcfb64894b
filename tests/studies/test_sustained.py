"""The simulator against sustained measurements: fitted rows within 15 points; readings from a made-up run."""

from __future__ import annotations

import pytest

from orchard.hw import load_chip
from orchard.hw.chassis import housing_names, load_housing, operating_points, usual_housing
from orchard.hw.errors import HardwareError
from orchard.studies.sustained import METRICS, compare_sustained, full_load_w, read_rows

FAST = [r for r in read_rows() if r.id in ("t-01", "t-02", "t-10", "c-01", "c-02", "c-04")]


def test_fitted_rows_are_within_fifteen_points_and_shared_engines_within_twenty() -> None:
    """The rest of the table takes longer: `orchard validate --suite sustained`."""
    for compared in compare_sustained(FAST).rows:
        assert abs(compared.error) < (0.15 if compared.row.part == "fit" else 0.2), compared


def test_rows_are_complete() -> None:
    rows = read_rows()
    assert {r.part for r in rows} == {"fit", "check"}
    assert {r.metric for r in rows} <= set(METRICS)
    assert len({r.id for r in rows}) == len(rows)
    assert all(r.source and r.value > 0 for r in rows)


def test_cpu_power_at_full_load_is_what_was_measured() -> None:
    """43.9 W for the eight fast cores of an M1 Max [amx-benchmarks], within the energy model's factor of 1.6."""
    assert 43.9 / 1.6 < full_load_w(load_chip("m1max", [])) < 43.9 * 1.6


def test_housings_and_points() -> None:
    assert set(housing_names()) == {"phone", "fanless-laptop", "fan-laptop", "desktop"}
    with pytest.raises(HardwareError, match="did you mean phone"):
        load_housing("phon")
    usual = {"a19pro": "phone", "m4": "fanless-laptop", "m4pro": "fan-laptop", "m3max": "fan-laptop", "m2ultra": "desktop"}
    assert {chip: usual_housing(load_chip(chip, [])) for chip in usual} == usual
    for chip in usual:
        for engine in ("gpu", "cpu", "ane"):
            points = operating_points(load_chip(chip, []), engine)
            assert points[0] == (1.0, 1.0)
            assert points == tuple(sorted(points, reverse=True))
            assert all(0 < clock <= 1 and 0.4 < volts <= 1 for clock, volts in points)
    assert operating_points(load_chip("m4", []), "npu") == ((1.0, 1.0),)
