"""Profiles as data: every number with unit and meaning, none that names a chip, inheritance that says who owns what."""

from __future__ import annotations

import math
from importlib.resources import files

import pytest
import yaml

from orchard.cost.engines.formats import unpack_class
from orchard.cost.errors import ProfileError
from orchard.cost.evaluate import engine_model
from orchard.cost.profile import format_profile, load_profile, parse_profile, profile_names
from orchard.hw import chip_summaries

NAMES = profile_names()


def raw(name: str):
    return yaml.safe_load(files("orchard.cost").joinpath("profiles", f"{name}.yaml").read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", NAMES)
def test_every_parameter_says_what_it_is(name: str) -> None:
    for key, p in load_profile(name).parameters.items():
        assert p.unit, key
        assert p.about, key
        assert math.isfinite(p.value), key
        assert p.value > 0, f"{key}: fitted in the logarithm"
        assert p.centre > 0, key
        assert p.width > 0, key


@pytest.mark.parametrize("name", NAMES)
def test_no_parameter_is_about_one_chip(name: str) -> None:
    chips = {c.id for c in chip_summaries()} | {c.id.rstrip("0123456789") for c in chip_summaries()}
    words = {word for key in load_profile(name).parameters for word in key.lower().replace("_", ".").split(".")}
    assert not words & {c for c in chips if len(c) > 1}


@pytest.mark.parametrize("name", NAMES)
def test_owner_is_the_file_that_states_the_parameter(name: str) -> None:
    profile = load_profile(name)
    assert set(profile.owner) == set(profile.parameters)
    for parameter, owner in profile.owner.items():
        assert raw(owner)["parameters"][parameter]["value"] == profile.parameters[parameter].value
    own = set(raw(name).get("parameters") or {})
    assert {p for p, o in profile.owner.items() if o == name} == own


@pytest.mark.parametrize("name", NAMES)
def test_files_are_written_as_the_formatter_writes_them(name: str) -> None:
    data = raw(name)
    assert yaml.safe_load(format_profile(data)) == data


@pytest.mark.parametrize("name", NAMES)
def test_intervals_hold_the_prediction(name: str) -> None:
    for stratum, error in load_profile(name).errors.items():
        assert error.low < 0 < error.high, stratum
        assert error.rows >= 1


def test_values_and_changed_values() -> None:
    profile = load_profile("llama.cpp-gpu")
    changed = profile.with_values({"call_s": 1.0})
    assert changed.values() == {**profile.values(), "call_s": 1.0}
    assert profile.values()["call_s"] != 1.0


def test_a_profile_that_inherits_keeps_what_it_does_not_state() -> None:
    base, child = load_profile("llama.cpp-gpu"), load_profile("llama.cpp-gpu-2024")
    assert child.lowering.chains == base.lowering.chains
    assert not child.lowering.concurrent
    assert child.parameters["stream_efficiency"] == base.parameters["stream_efficiency"]
    assert child.owner["stream_efficiency"] == "llama.cpp-gpu"
    assert child.owner["state_stream_efficiency"] == "llama.cpp-gpu-2024"


def test_an_unknown_profile_names_the_nearest() -> None:
    with pytest.raises(ProfileError, match=r"'llama.cpp-gp' is not known.*llama.cpp-gpu"):
        load_profile("llama.cpp-gp")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lowering": None}, "profile p: TypeError"),
        ({"parameters": {"a": {"value": float("nan"), "unit": "s", "about": "x"}}}, "parameter 'a' is nan"),
        ({"parameters": {"a": {"value": "fast", "unit": "s", "about": "x"}}}, "parameter 'a' is fast"),
        ({"parameters": {"a": {"value": 1.0, "unit": "s", "about": "x", "colour": "red"}}}, "colour"),
        ({"parameters": {"a": {"value": 1.0}}}, "unit"),
    ],
)
def test_a_malformed_profile_names_the_field(change, message: str) -> None:
    data = {"runtime": "r", "engine": "gpu", "version": "1", "model": "gpu", "lowering": {}, "parameters": {}, **change}
    with pytest.raises(ProfileError, match=message):
        parse_profile(data, "p")


def test_an_unknown_engine_model_lists_the_known() -> None:
    data = {"runtime": "r", "engine": "tpu", "version": "1", "model": "tpu", "lowering": {}, "parameters": {}}
    with pytest.raises(ProfileError, match=r"'tpu', expected one of .*ane.*cpu.*gpu"):
        engine_model(parse_profile(data, "p"))


@pytest.mark.parametrize(
    ("fmt", "expected"),
    [
        ("f16", "float"), ("", "float"), ("q4_0", "simple"), ("q8_0", "simple"), ("q4_k", "super"), ("q6_k", "super"),
        ("iq4_xs", "table"), ("mxfp4", "table"), ("nf4", "table"), ("pal4", "palette"), ("q4_k_r4", "rows"),
    ],
)  # fmt: skip
def test_classes_of_unpacking(fmt: str, expected: str) -> None:
    assert unpack_class(fmt) == expected
