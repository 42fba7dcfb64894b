"""Every technique keeps the contract; texts, order, evidence and refusals."""

from __future__ import annotations

import copy

import pytest

torch = pytest.importorskip("torch")

from orchard.numerics.contract import PRESERVED, TINY, NumericContract  # noqa: E402
from orchard.numerics.errors import NumericsError  # noqa: E402
from orchard.numerics.fixtures.tinylm import TinyConfig, TinyLM  # noqa: E402
from orchard.numerics.methods.base import Evidence  # noqa: E402
from orchard.numerics.methods.registry import apply_methods, methods, parse_methods  # noqa: E402
from orchard.numerics.surgery import calibrate, fisher, linears, logits, sequence_losses  # noqa: E402

CHANGING = (
    "rtn:bits=3",
    "leading-bits:bits=8,kept=3", "rtn:bits=4,group=16", "gptq:bits=3,group=16", "gptq:bits=3,group=-1",
    "gptq:bits=3,group=16,full_range=true", "awq:bits=3,group=0",
    "hqq:bits=3,group=32", "palettize:bits=2", "palettize:bits=3,group=4,scale=true", "palettize:bits=2,sensitive=true",
    "palettize:bits=4,vector=2",
    "dense-and-sparse:bits=3,group=32", "low-rank-correction:bits=3,group=32,rank=2", "prune:by=sparsegpt", "prune:by=wanda",
    "prune-nm", "prune-nm:by=sparsegpt", "low-rank:keep=0.5", "low-rank:keep=0.5,whiten=false", "activations:bits=4",
    "activations:bits=8,static=true", "w8a8", "w4a8", "activation-sparsity", "layer-drop:layer=1", "layer-drop:count=1",
    "prune-structured:keep=0.5,multiple=16", "kv-quant:bits=2", "kv-quant:bits=4,v_bits=2,axis=channel,rope=before",
    "sliding-window:window=8", "kv-evict:budget=8,policy=heavy", "kv-evict:budget=18,policy=snap,prompt=24",
)  # fmt: skip


class TestChanging(NumericContract):
    methods = tuple(m for text in CHANGING for m in parse_methods(text))


class TestPreserving(NumericContract):
    methods = (*parse_methods("rotation"), *parse_methods("smooth"), *parse_methods("smooth:exponent=0.8"))
    preserves = True


def tiny() -> tuple[TinyLM, torch.Tensor]:
    rows = torch.randint(1, 32, (4, 33), generator=torch.Generator().manual_seed(2))
    return TinyLM(TINY, seed=1).eval().requires_grad_(False), rows


def applied(text: str) -> tuple[TinyLM, torch.Tensor]:
    model, rows = tiny()
    apply_methods(model, parse_methods(text), Evidence(model, rows))
    return model, rows


def test_every_technique_is_in_a_contract() -> None:
    tested = {type(m) for m in (*TestChanging.methods, *TestPreserving.methods)}
    assert set(methods().values()) == tested


def test_zeros_survive_rounding_and_palettes() -> None:
    for text in ("prune:sparsity=0.5 + rtn:bits=4", "prune-nm + palettize:bits=2"):
        model, _ = applied(text)
        for module in linears(model).values():
            assert float((module.weight == 0).float().mean()) >= 0.5


def test_a_rotation_before_rounding_rounds_the_rotated_weight() -> None:
    rotated, _ = applied("rotation")
    both, _ = applied("rotation + rtn:bits=4")
    from orchard.numerics.uniform import Grid, round_to_nearest

    for name, module in linears(both).items():
        assert torch.allclose(module.weight, round_to_nearest(linears(rotated)[name].weight, Grid(bits=4)))


def test_evidence_of_the_untouched_model_serves_its_copies_and_no_other() -> None:
    model, rows = tiny()
    evidence = Evidence(model, rows)
    seen = evidence.inputs
    twin = evidence.fresh(copy.deepcopy(model))
    assert twin.inputs is seen
    twin.touched()
    assert twin.inputs is not seen


def test_calibration_is_the_gram_matrix_of_what_flows_in() -> None:
    model, rows = tiny()
    seen = calibrate(model, rows)["blocks.0.attention.q_proj"]
    x = model.blocks[0].attention_norm(model.embedding(rows[:, :-1])).reshape(-1, 32).double()
    assert torch.allclose(seen.gram, x.T @ x / len(x), atol=1e-5)
    assert torch.allclose(seen.max_abs.double(), x.abs().amax(0))


def test_fisher_is_the_mean_square_of_gradients() -> None:
    model, rows = tiny()
    found = fisher(model, rows)["blocks.1.mlp.down_proj"]
    weight = model.blocks[1].mlp.down_proj.weight.requires_grad_(True)
    total = torch.zeros_like(found)
    for row in rows:
        loss = torch.nn.functional.cross_entropy(logits(model, row[None, :-1])[0], row[1:])
        total += torch.autograd.grad(loss, weight)[0].pow(2)
    assert torch.allclose(found, total / 4)


def test_shared_norm_gains_frozen_high_make_outliers() -> None:
    model = TinyLM(TinyConfig(vocabulary=32, layers=1, width=32, heads=2, kv_heads=1, outliers=3), seed=0)
    top = (
        calibrate(model, torch.randint(1, 32, (2, 17)))["blocks.0.attention.q_proj"]
        .mean_abs.sort(descending=True)
        .values
    )
    assert top[2] > 5 * top[3]
    weight = model.blocks[0].attention_norm.weight
    model(torch.randint(1, 32, (2, 16))).sum().backward()
    assert weight.grad is not None
    assert int((weight.grad == 0).sum()) == 3  # frozen gains do not learn


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("gtpq", "technique 'gtpq' has no numerics; did you mean gptq"),
        ("rtn:bit=4", "rtn: option 'bit=4' is not known; it takes bits, group"),
        ("rtn:bits=x", "rtn: bits=x, expected a whole number"),
        ("rtn:bits=1", "rtn: bits=1, expected 2 to 8"),
        ("prune:by=luck", "prune: by=luck, expected one of magnitude, wanda, sparsegpt"),
    ],
)
def test_bad_texts(text: str, message: str) -> None:
    with pytest.raises(Exception, match=message.replace("?", r"\?")):
        parse_methods(text)


def test_what_has_no_numerics_on_another_model_is_refused() -> None:
    other = torch.nn.Sequential(torch.nn.Linear(8, 8))
    for text in ("layer-drop", "sliding-window", "kv-quant", "prune-structured"):
        with pytest.raises(NumericsError, match=text):
            apply_methods(other, parse_methods(text), Evidence(other, torch.zeros(1, 2)))
    with pytest.raises(NumericsError, match=r"no torch\.nn\.Linear"):
        linears(torch.nn.ReLU())


def test_losses_are_means_over_scored_tokens() -> None:
    model, rows = tiny()
    expected = torch.nn.functional.cross_entropy(model(rows[:1, :-1])[0], rows[0, 1:])
    assert sequence_losses(model, rows)[0] == pytest.approx(float(expected), rel=1e-5)
    assert PRESERVED == 1e-3
