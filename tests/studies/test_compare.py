"""Combinations side by side."""

from __future__ import annotations

import pytest

import orchard
from orchard.studies.compare import compare
from orchard.studies.errors import StudyError


def test_rows_are_the_predictions_of_their_choices() -> None:
    found = compare(["qwen3-4b"], ["m1", "m4max"], weights=["q4_0", "q8_0"])
    assert [(r.choice["chip"], r.choice["weights"]) for r in found.rows] == [
        ("m1", "q4_0"), ("m1", "q8_0"), ("m4max", "q4_0"), ("m4max", "q8_0"),
    ]  # fmt: skip
    assert found.varied == ("chip", "weights")
    alone = orchard.predict("qwen3-4b", "m4max", weights="q8_0")
    assert found.rows[3].prediction == alone


def test_ratios_refer_to_the_first_row() -> None:
    found = compare("qwen3-4b", ["m1", "m4max"], weights="q4_0")
    slow, fast = (row.figure("decode", "tokens_per_s") for row in found.rows)
    assert found.ratio(0, "decode", "tokens_per_s") == 1
    assert found.ratio(1, "decode", "tokens_per_s") == pytest.approx(fast / slow)  # type: ignore[operator]
    assert found.best("decode", "tokens_per_s") == 1
    assert found.best("decode", "latency_s") == 1


def test_the_best_fits() -> None:
    found = compare("llama-3.1-70b", ["m4", "m3ultra"], weights=["q4_k_m"])
    assert found.rows[0].prediction is not None
    assert not found.rows[0].prediction.memory.fits
    assert found.best("decode", "tokens_per_s") == 1
    nothing = compare("llama-3.1-70b", "m4", weights="f16")
    assert nothing.best("decode", "tokens_per_s") is None


def test_an_impossible_combination_is_a_row_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    import orchard.studies.compare as module

    real = module.answer

    def answer(request):
        if request.chip == "m1":
            raise StudyError("not on this chip")
        return real(request)

    monkeypatch.setattr(module, "answer", answer)
    found = compare("qwen3-4b", ["m1", "m2"], weights="q4_0")
    assert found.rows[0].refusal == "not on this chip"
    assert found.reference == 1
    assert found.ratio(0, "decode", "latency_s") is None
    with pytest.raises(StudyError, match="not on this chip"):
        compare("qwen3-4b", "m1", weights="q4_0")


def test_python_takes_overrides_as_a_mapping() -> None:
    found = orchard.compare("qwen3-4b", "m1", weights="q4_0", overrides={"gpu.cores": "7"}, prompt=128)
    assert found.rows[0].prediction == orchard.predict("qwen3-4b", "m1", weights="q4_0", overrides=["gpu.cores=7"], prompt=128)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"models": [], "chips": "m1"}, "list of model names is empty"),
        ({"models": "qwen3-4b", "chips": ["m1"] * 401}, "401 combinations"),
        ({"models": "qwen3-4b", "chips": "m1", "engines": "tpu"}, "tpu"),
    ],
)
def test_refusals(arguments: dict[str, object], says: str) -> None:
    with pytest.raises(StudyError, match=says):
        compare(**arguments)  # type: ignore[arg-type]
