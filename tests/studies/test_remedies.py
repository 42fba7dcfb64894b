"""What would fit: every remedy, applied, makes the request fit, and a slightly larger one does not."""

from __future__ import annotations

from dataclasses import replace

import pytest

from orchard.hw import chip_summaries, load_chip
from orchard.studies.complexity import complexity
from orchard.studies.memory import memory_limit
from orchard.studies.predict import answer
from orchard.studies.remedies import LADDERS, remedies
from orchard.studies.request import Request

TIGHT = Request(model="llama-3.1-8b", chip="m2", weights="f16", overrides=("dram.capacity=16GiB",))
LONG = Request(model="llama-3.1-8b", chip="m2", weights="q4_k_m", overrides=("dram.capacity=16GiB",), depth=120_000, batch=4)


def test_a_request_that_fits_needs_none() -> None:
    fits = answer(replace(TIGHT, weights="q4_k_m"))
    assert fits.memory.fits
    assert remedies(fits).to_dict() == {"weights": None, "kv": None, "tokens": None, "batch": None, "chips": []}


def test_the_weight_format_has_the_most_bits_that_fit() -> None:
    found = remedies(answer(TIGHT)).weights
    assert found is not None
    fitting = [w for w in LADDERS["llama.cpp"] if answer(replace(TIGHT, weights=w)).memory.fits]
    assert found == (fitting[0], answer(replace(TIGHT, weights=fitting[0])).memory.total)


def test_fewer_tokens_fit_and_two_per_cent_more_do_not() -> None:
    need = answer(LONG)
    assert not need.memory.fits
    tokens = remedies(need).tokens
    assert tokens is not None
    rest = LONG.prompt + LONG.generate
    assert answer(replace(LONG, depth=tokens - rest)).memory.fits
    assert not answer(replace(LONG, depth=int(tokens * 1.02) + 8 - rest)).memory.fits


def test_a_smaller_batch_fits() -> None:
    small = replace(LONG, depth=40_000)
    batch = remedies(answer(small)).batch
    assert batch is not None
    assert answer(replace(small, batch=batch)).memory.fits
    assert not answer(replace(small, batch=batch + 1)).memory.fits


def test_a_smaller_cache_fits() -> None:
    middle = replace(LONG, depth=70_000, batch=1)
    found = remedies(answer(middle)).kv
    assert found is not None
    assert answer(replace(middle, kv=found[0])).memory.total == found[1]
    assert answer(replace(middle, kv=found[0])).memory.fits


@pytest.mark.parametrize("engine", ["gpu", "cpu"])
def test_the_chips_are_the_smallest_that_hold_it(engine: str) -> None:
    prediction = answer(Request(model="llama-3.1-70b", chip="m4", weights="q8_0", engine=engine))
    found = remedies(prediction).chips
    assert found
    holding = []
    for chip in chip_summaries():
        soc = load_chip(chip.id)
        if chip.base is None and memory_limit(soc, engine) >= prediction.memory.total:
            holding.append((soc["dram.capacity_max"], chip.id))
    smallest = sorted(capacity for capacity, _ in holding)[: len(found)]
    assert sorted(load_chip(name)["dram.capacity_max"] for name, _ in found) == smallest


def test_a_model_file_too_large_gets_remedies_too(tmp_path) -> None:
    onnx = pytest.importorskip("onnx")
    helper, numbers = onnx.helper, onnx.TensorProto
    product = helper.make_graph(
        [helper.make_node("MatMul", ["x", "x2"], ["y"])], "product",
        [
            helper.make_tensor_value_info("x", numbers.FLOAT, ["batch", 2**16, 64]),
            helper.make_tensor_value_info("x2", numbers.FLOAT, ["batch", 64, 2**16]),
        ],
        [helper.make_tensor_value_info("y", numbers.FLOAT, ["batch", 2**16, 2**16])],
    )  # fmt: skip
    path = tmp_path / "product.onnx"
    onnx.save(helper.make_model(product, opset_imports=[helper.make_opsetid("", 17)]), str(path))
    asked = Request(model=str(path), chip="m1", engine="gpu", batch=8)
    prediction = answer(asked)
    assert not prediction.memory.fits
    batch = remedies(prediction).batch
    assert batch is None or answer(replace(asked, batch=batch)).memory.fits
    assert remedies(prediction).chips


def test_a_model_file_has_closed_forms(tmp_path) -> None:
    onnx = pytest.importorskip("onnx")
    helper, numbers = onnx.helper, onnx.TensorProto
    weight = helper.make_tensor("w", numbers.FLOAT, [64, 32], [0.0] * 2048)
    product = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])], "product",
        [helper.make_tensor_value_info("x", numbers.FLOAT, ["batch", 64])],
        [helper.make_tensor_value_info("y", numbers.FLOAT, ["batch", 32])], [weight],
    )  # fmt: skip
    path = tmp_path / "product.onnx"
    onnx.save(helper.make_model(product, opset_imports=[helper.make_opsetid("", 17)]), str(path))
    found = complexity(Request(model=str(path), chip="m1", engine="gpu"))
    assert str(found.phases[0].ops) == "4096*batch"  # 2 x 64 x 32 per row
    assert found.machine is not None
    assert [c.phase for c in found.machine.crossings] == ["inference"]


def test_remedies_of_an_encoder_decoder_count_both_halves() -> None:
    request = Request(model="openai/whisper-large-v3", chip="m2", batch=64, overrides=("dram.capacity=16GiB",))
    found = remedies(answer(request))
    assert found.batch is not None
    assert answer(replace(request, batch=found.batch)).memory.fits
    assert not answer(replace(request, batch=found.batch + 1)).memory.fits
    assert found.tokens is None  # the audio sets its size
