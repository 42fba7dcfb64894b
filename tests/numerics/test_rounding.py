"""Grids, GPTQ, AWQ and smoothing against torch's own rounding and against float64 least squares."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from orchard.numerics import calibrated, uniform  # noqa: E402
from orchard.numerics.errors import NumericsError  # noqa: E402
from orchard.numerics.uniform import Grid  # noqa: E402


def drawn(*shape: int, seed: int = 0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("full_range", [False, True])
@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_rounding_per_channel_is_that_of_torch(bits: int, full_range: bool) -> None:
    weight = drawn(6, 16).float()
    found = uniform.quantize(weight, Grid(bits=bits, full_range=full_range))
    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    scale = weight.abs().amax(1) / ((2**bits - 1) / 2 if full_range else high)
    expected = torch.fake_quantize_per_channel_affine(weight, scale, torch.zeros(6, dtype=torch.int32), 0, low, high)
    tie = (weight.abs() == weight.abs().amax(1, keepdim=True)) & full_range  # the largest lie half way between two levels
    assert torch.allclose(found.values[~tie], expected[~tie], atol=1e-6)
    assert (found.values - weight).abs()[tie].tolist() == pytest.approx((scale / 2).tolist() if full_range else [], rel=1e-4)


def test_asymmetric_rounding_is_that_of_torch() -> None:
    weight = drawn(6, 16).float() + 0.5
    grid = Grid(bits=4, symmetric=False)
    found = uniform.quantize(weight, grid)
    expected = torch.fake_quantize_per_channel_affine(weight, found.scale[:, 0], found.zero[:, 0].int(), 0, 0, 15)
    assert torch.allclose(found.values, expected, atol=1e-6)


def test_an_error_is_at_most_half_a_step() -> None:
    weight = drawn(8, 32)
    for block in (-1, 0, 8):
        found = uniform.quantize(weight, Grid(bits=4, block=block))
        step = found.scale.expand(found.integers.shape).reshape(weight.shape)
        assert ((weight - found.values).abs() <= step / 2 + 1e-12).all()


def test_blocks_that_do_not_divide_are_refused() -> None:
    with pytest.raises(NumericsError, match="blocks of 24 inputs do not divide 32"):
        uniform.quantize(drawn(4, 32), Grid(bits=4, block=24))


def test_half_quadratic_is_no_worse_in_its_own_norm() -> None:
    weight, grid = drawn(64, 64), Grid(bits=3, block=32, symmetric=False)
    steps = uniform.scale_zero(uniform.rows_of(weight, 32), grid)[0].expand(-1, 32).reshape(64, 64)
    plain, fitted = (
        ((weight - values) / steps).abs().pow(0.7).sum()
        for values in (uniform.round_to_nearest(weight, grid), uniform.half_quadratic(weight, grid))
    )
    assert fitted < 0.97 * plain


def correlated(rows: int, inputs: int):
    return drawn(rows, inputs, seed=1) @ drawn(inputs, inputs, seed=2)


def by_least_squares(weight, gram, grid: Grid):
    """GPTQ by definition: round input j, then move all inputs after it to the minimum of tr(D H D') with the first j fixed."""
    h, w = calibrated.damped(gram), weight.clone()
    inputs, scales = w.shape[1], None
    fixed = torch.zeros_like(w)
    for j in range(inputs):
        if grid.block <= 0 and scales is None:
            scales = uniform.scale_zero(uniform.rows_of(weight, grid.block), grid)[0].expand(len(w), 1)
        elif grid.block > 0 and j % grid.block == 0:
            scales = uniform.scale_zero(w[:, j : j + grid.block].contiguous(), grid)[0]
        low, high = grid.levels
        fixed[:, j] = (w[:, j] / scales[:, 0]).round().clamp(low, high) * scales[:, 0]
        if j + 1 < inputs:
            lost = weight[:, : j + 1] - fixed[:, : j + 1]  # what the fixed ones lost, the rest makes up for
            w[:, j + 1 :] = weight[:, j + 1 :] + torch.linalg.solve(h[j + 1 :, j + 1 :], h[j + 1 :, : j + 1] @ lost.T).T
    return fixed


@pytest.mark.parametrize("full_range", [False, True])
@pytest.mark.parametrize("block", [-1, 0, 4])
def test_gptq_is_sequential_least_squares(block: int, full_range: bool) -> None:
    weight, x = drawn(5, 12), correlated(40, 12)
    grid, gram = Grid(bits=3, block=block, full_range=full_range), x.T @ x / 40
    assert torch.allclose(calibrated.gptq(weight, gram, grid), by_least_squares(weight, gram, grid), atol=1e-8)


def test_gptq_of_independent_inputs_is_round_to_nearest_whatever_the_order() -> None:
    weight, gram = drawn(5, 12), torch.diag(torch.arange(1.0, 13.0, dtype=torch.float64))
    for grid in (Grid(bits=3), Grid(bits=3, block=4)):
        for by_activity in (False, True):
            found = calibrated.gptq(weight, gram, grid, by_activity=by_activity)
            assert torch.allclose(found, uniform.round_to_nearest(weight, grid))


def test_gptq_loses_less_at_the_output() -> None:
    weight, x = drawn(16, 32), correlated(200, 32)
    gram, grid = x.T @ x / 200, Grid(bits=3)
    plain = calibrated.output_error(weight - uniform.round_to_nearest(weight, grid), gram)
    assert calibrated.output_error(weight - calibrated.gptq(weight, gram, grid), gram) < 0.7 * plain


def test_awq_takes_the_best_exponent_of_its_grid() -> None:
    x = correlated(60, 16) * torch.logspace(-1, 1, 16, dtype=torch.float64)
    weight, grid, mean = drawn(6, 16), Grid(bits=3), x.abs().mean(0)
    found = calibrated.awq(weight, mean, x.T @ x / 60, grid)
    errors = []
    for step in range(11):
        s = mean ** (step / 10)
        s = s / (s.max() * s.min()).sqrt()
        errors.append(float(((x / s) @ uniform.round_to_nearest(weight * s, grid).T - x @ weight.T).pow(2).sum()))
    assert found.exponent == errors.index(min(errors)) / 10
    assert float((x @ (found.values - weight).T).pow(2).sum()) == pytest.approx(min(errors))
    assert min(errors) < errors[0]  # exponent 0 is round to nearest: salient inputs pay


def test_smoothing_leaves_the_product_and_levels_the_inputs() -> None:
    x, weight = drawn(50, 8) * torch.logspace(0, 2, 8, dtype=torch.float64), drawn(4, 8)
    scale = calibrated.smoothing(x.abs().amax(0), [weight])
    assert torch.allclose((x / scale) @ (weight * scale).T, x @ weight.T)
    before, after = x.abs().amax(0), (x / scale).abs().amax(0)
    assert after.max() / after.min() < (before.max() / before.min()) ** 0.75


def test_activations_round_per_token_or_by_a_given_scale() -> None:
    x = torch.tensor([[1.0, 0.5], [100.0, 3.0]])
    assert torch.allclose(uniform.fake_quantize(x, 8), x, atol=100 / 127 / 2)
    assert uniform.fake_quantize(x, 8, scale=torch.tensor(1.0)).tolist() == [[1.0, 0.0], [100.0, 3.0]]
