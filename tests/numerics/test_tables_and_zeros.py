"""Rotations, palettes, zeros, ranks and caches against closed forms, libraries and exhaustive search."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from tests.numerics.test_rounding import correlated, drawn  # noqa: E402

from orchard.numerics import cache, calibrated, palette, rotation, sparse  # noqa: E402
from orchard.numerics.errors import NumericsError  # noqa: E402


def test_hadamard_by_its_definition_and_the_fast_one_is_the_matrix() -> None:
    signs = [[(-1) ** (i & j).bit_count() for j in range(16)] for i in range(16)]
    assert np.allclose(rotation.hadamard(16).numpy() * 4, signs)
    x = drawn(3, 16)
    assert torch.allclose(rotation.fast_hadamard(x), x @ rotation.hadamard(16))


@pytest.mark.parametrize("size", [1, 12, 96, 128])
def test_rotations_are_orthogonal_and_spread_one_outlier(size: int) -> None:
    q = rotation.orthogonal(size, seed=3)
    assert torch.allclose(q @ q.T, torch.eye(size, dtype=torch.float64), atol=1e-12)
    assert torch.equal(q, rotation.orthogonal(size, seed=3))
    if size == 128:
        assert q[5].abs().max() == pytest.approx(128**-0.5)  # one input of size 1 becomes 128 of 0.09


def optimal_1d(x: np.ndarray, count: int) -> float:
    """Least sum of squares over all cuts of the sorted values into runs, by dynamic programming."""
    x = np.sort(x)
    one, two = np.concatenate(([0.0], np.cumsum(x))), np.concatenate(([0.0], np.cumsum(x**2)))
    cost = lambda i, j: two[j] - two[i] - (one[j] - one[i]) ** 2 / (j - i)  # noqa: E731
    best = [cost(0, j) if j else 0.0 for j in range(len(x) + 1)]
    for _ in range(count - 1):
        best = [
            min((best[i] + cost(i, j) for i in range(1, j)), default=best[j]) if j else 0.0 for j in range(len(x) + 1)
        ]
    return best[-1]


def test_kmeans_is_close_to_the_optimum_and_never_below_it() -> None:
    x = np.random.default_rng(0).normal(size=160)
    for count in (2, 4, 8, 32):
        centres = palette.kmeans_1d(x, count, rounds=100)
        found = float(((x - centres[palette.nearest(x, centres)]) ** 2).sum())
        least = optimal_1d(x, count)
        assert least - 1e-9 <= found <= 1.15 * least


def test_a_palette_keeps_distinct_values_when_it_has_room_and_zeros_when_told() -> None:
    weight = torch.tensor([[0.0, 1.0, 2.0, 0.0], [3.0, 1.0, 0.0, 2.0]])
    assert torch.equal(palette.palettize(weight, 2).values, weight)
    pruned = torch.tensor([[0.0, 1.1, 2.0, 0.0], [3.0, 1.0, 0.0, 4.0]])
    found = palette.palettize(pruned, 1, keep_zeros=True).values
    assert (found[pruned == 0] == 0).all()
    assert (found[pruned != 0] != 0).all()


def test_finer_tables_and_sensitive_ones_do_what_they_are_for() -> None:
    weight = drawn(16, 64) * torch.logspace(-1, 1, 16, dtype=torch.float64)[:, None]
    errors = [float((weight - palette.palettize(weight, 2, group=g).values).pow(2).sum()) for g in (0, 4, 1)]
    assert errors[0] > errors[1] > errors[2]
    importance = drawn(16, 64, seed=4).pow(4)
    plain, aware = (palette.palettize(weight, 2, weights=w).values for w in (None, importance))
    assert (importance * (weight - aware).pow(2)).sum() < (importance * (weight - plain).pow(2)).sum()


def test_vector_palettes_hold_few_distinct_vectors_and_refuse_too_few() -> None:
    parts = drawn(4, 4)
    weight = parts[torch.tensor([0, 1, 2, 3, 3, 2, 1, 0])].reshape(4, 8)
    assert torch.allclose(palette.vector_palette(weight, 2, 4).values, weight)
    with pytest.raises(NumericsError, match="8 vectors of 4 weights cannot fill a table of 16"):
        palette.vector_palette(weight, 4, 4)


def test_two_of_four_stay_and_shares_are_exact() -> None:
    weight = drawn(8, 32)
    kept = sparse.magnitude(weight, sparse.Zeros(n=2, m=4)) != 0
    assert (kept.reshape(-1, 4).sum(1) == 2).all()
    assert ((sparse.magnitude(weight, sparse.Zeros(share=0.75)) != 0).sum(1) == 8).all()
    with pytest.raises(NumericsError, match="2:4 zeros need inputs in whole blocks of 4"):
        sparse.magnitude(drawn(3, 6), sparse.Zeros(n=2, m=4))


def test_wanda_of_equal_inputs_is_magnitude_and_else_looks_at_them() -> None:
    weight, zeros = drawn(4, 8), sparse.Zeros(share=0.5)
    assert torch.equal(sparse.wanda(weight, torch.eye(8, dtype=torch.float64), zeros), sparse.magnitude(weight, zeros))
    loud = torch.diag(torch.tensor([1e6] + [1.0] * 7, dtype=torch.float64))
    assert (sparse.wanda(weight, loud, zeros)[:, 0] != 0).all()


def test_sparse_gpt_is_sequential_least_squares_for_its_mask() -> None:
    weight, x = drawn(3, 8), correlated(30, 8)
    gram = x.T @ x / 30
    found = sparse.sparse_gpt(weight, gram, sparse.Zeros(n=2, m=4))
    h, w = calibrated.damped(gram), weight.clone()
    for row in range(3):
        gone = [j for j in range(8) if found[row, j] == 0]
        assert len(gone) == 4
        fixed = weight[row].clone()
        for j in range(
            8
        ):  # input j becomes zero or stays as it stands; those after it move to the least-squares optimum
            fixed[: j + 1] = torch.where(torch.tensor([i in gone for i in range(j + 1)]), 0.0, w[row, : j + 1])
            w[row, : j + 1] = fixed[: j + 1]
            if j < 7:
                lost = weight[row, : j + 1] - w[row, : j + 1]
                w[row, j + 1 :] = weight[row, j + 1 :] + torch.linalg.solve(
                    h[j + 1 :, j + 1 :], h[j + 1 :, : j + 1] @ lost
                )
    assert torch.allclose(found, w, atol=1e-8)


def test_low_rank_loses_the_tail_of_the_singular_values() -> None:
    weight, x = drawn(10, 12), correlated(50, 12)
    tall, wide = sparse.low_rank(weight, 3)
    assert float((weight - tall @ wide).pow(2).sum()) == pytest.approx(
        float(torch.linalg.svdvals(weight)[3:].pow(2).sum())
    )
    gram = x.T @ x / 50
    tall, wide = sparse.low_rank(weight, 3, gram)
    tail = torch.linalg.svdvals(weight @ torch.linalg.cholesky(calibrated.damped(gram)))[3:].pow(2).sum()
    assert calibrated.output_error(weight - tall @ wide, calibrated.damped(gram)) == pytest.approx(float(tail))
    assert sparse.rank_for(weight.shape, 1.0) == 5  # 5 (10 + 12) = 110 <= 120 < 6 (10 + 12)


def test_a_correction_only_helps() -> None:
    weight, x = drawn(10, 12), correlated(50, 12)
    rounded, gram = weight.round(), x.T @ x / 50
    before = calibrated.output_error(weight - rounded, gram)
    assert calibrated.output_error(weight - sparse.residual_low_rank(weight, rounded, 2, gram), gram) < before


def test_cache_rounding_by_token_and_by_channel() -> None:
    x = drawn(1, 1, 40, 8).float()
    x[..., 3] *= 50  # a loud channel
    token, channel = (cache.quantize_cache(x, 2, axis=axis) for axis in ("token", "channel"))
    quiet = [0, 1, 2, 4, 5, 6, 7]
    assert (x - channel)[..., quiet].pow(2).sum() < 0.1 * (x - token)[..., quiet].pow(2).sum()
    recent = cache.quantize_cache(x, 2, axis="channel", recent=8)
    assert torch.equal(recent[:, :, 32:], x[:, :, 32:])
    assert torch.equal(cache.quantize_cache(x, 16, axis="token"), x)


def test_windows_and_sinks() -> None:
    assert cache.window_mask(5, 2, 1).int().tolist() == [
        [1, 0, 0, 0, 0], [1, 1, 0, 0, 0], [1, 1, 1, 0, 0], [1, 0, 1, 1, 0], [1, 0, 0, 1, 1],
    ]  # fmt: skip


def test_heavy_hitters_keep_the_budget_and_by_hand_the_right_token() -> None:
    scores = torch.zeros(1, 1, 8, 8).masked_fill(~torch.ones(8, 8, dtype=torch.bool).tril(), -torch.inf)
    scores[..., 1] = scores[..., 1] + 5.0  # token 1 draws the attention
    mask = cache.heavy_mask(scores, 4)[0, 0]
    assert (mask.sum(1) <= 5).all()  # four kept, and the newest itself
    assert mask[1:, 1].all()
    assert not mask[7, 2]
    assert mask[7, 5:].all()


def test_snap_keeps_what_the_last_prompt_rows_look_at() -> None:
    scores = torch.zeros(1, 1, 40, 40).masked_fill(~torch.ones(40, 40, dtype=torch.bool).tril(), -torch.inf)
    scores[..., 3] = 4.0
    mask = cache.snap_mask(scores, 18, prompt=32)[0, 0]
    assert mask[:32].all()
    assert mask[32:, :16].sum(1).tolist() == [2] * 8
    assert mask[32:, 3].all()
    with pytest.raises(NumericsError, match="budget 16 of a prompt of 32"):
        cache.snap_mask(scores, 16, prompt=32)
