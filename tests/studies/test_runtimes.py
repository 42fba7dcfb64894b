"""Which profile answers for a runtime, an engine and a build."""

from __future__ import annotations

import pytest

from orchard.studies.errors import StudyError
from orchard.studies.measurements import read_rows, scored
from orchard.studies.runtimes import build_date, choose_profile, engine_name, runtime_names


@pytest.mark.parametrize(
    ("runtime", "name"),
    [
        ("llama.cpp@2023-11", "llama.cpp-gpu-2023"), ("llama.cpp@2025-01", "llama.cpp-gpu-2024"),
        ("llama.cpp@2025-09", "llama.cpp-gpu"), ("llama.cpp", "llama.cpp-gpu"), ("llama.cpp@2021-05", "llama.cpp-gpu-2023"),
        ("llama.cpp@b2000", "llama.cpp-gpu-2023"), ("llama.cpp@b9000", "llama.cpp-gpu"), ("ollama", "llama.cpp-gpu"),
        ("lm-studio", "llama.cpp-gpu"), ("mlx-lm", "mlx-gpu"), ("rapid-mlx", "rapid-mlx-gpu"), ("MLX", "mlx-gpu"),
        ("vllm-mlx", "rapid-mlx-gpu"), ("coremltools", "coreml-ane"), ("ik_llama.cpp", "ik_llama.cpp-cpu"),
    ],
)  # fmt: skip
def test_builds_and_aliases(runtime: str, name: str) -> None:
    assert choose_profile(runtime, "auto").name == name


@pytest.mark.parametrize("runtime", ["ollama", "lm-studio", "llamafile", "llama.cpp"])
def test_an_alias_reaches_every_engine_of_its_runtime(runtime: str) -> None:
    assert choose_profile(runtime, "cpu").name == "llama.cpp-cpu"


@pytest.mark.parametrize(
    ("given", "engine"),
    [("ALL", "auto"), ("CPU_ONLY", "cpu"), ("CPU_AND_GPU", "gpu"), ("CPU_AND_NE", "ane"), ("cpu-and-ne", "ane")],
)
def test_compute_units_are_engines(given: str, engine: str) -> None:
    assert engine_name(given) == engine


@pytest.mark.parametrize(
    ("engine", "weights", "runtime"),
    [
        ("auto", "q4_k_m", "llama.cpp"), ("auto", "mlx-4bit-g64", "mlx"), ("gpu", "int4-g64", "mlx"),
        ("ane", "pal4", "coreml"), ("cpu", "q8_0", "llama.cpp"), ("auto", None, "llama.cpp"),
    ],
)  # fmt: skip
def test_without_a_runtime_engine_and_format_decide(engine: str, weights: str | None, runtime: str) -> None:
    assert choose_profile(None, engine, weights).runtime == runtime


def test_what_is_not_known_names_the_nearest() -> None:
    with pytest.raises(StudyError, match=r"runtime 'llama.ccp' is not known.*llama\.cpp"):
        choose_profile("llama.ccp", "gpu")
    with pytest.raises(StudyError, match=r"engine 'gpuu' is not known.*gpu"):
        engine_name("gpuu")
    with pytest.raises(StudyError, match=r"mlx has no profile for engine 'ane', only for gpu"):
        choose_profile("mlx", "ane")


@pytest.mark.parametrize("text", ["soon", "b", "x4465"])
def test_a_build_is_a_date_or_a_number(text: str) -> None:
    with pytest.raises(StudyError, match="expected a date such as 2023-11"):
        build_date(text)


def test_every_measured_runtime_resolves_to_its_engine() -> None:
    for runtime, engine, date in {(r.runtime, r.engine, r.date) for r in scored(read_rows())}:
        found = choose_profile(f"{runtime}@{date}", engine)
        assert found.engine == engine
        assert found.runtime in runtime_names()


def test_a_runtime_of_networks_alone_answers_for_whisper() -> None:
    assert choose_profile("whisper.cpp", "gpu").name == "whisper.cpp-gpu"
    assert choose_profile("whisper.cpp", "cpu").name == "whisper.cpp-cpu"
    with pytest.raises(StudyError, match=r"ncnn has no profile for engine 'gpu', only for cpu"):
        choose_profile("ncnn", "gpu", serves="network")
