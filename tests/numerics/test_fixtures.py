"""Text, training and the store: the same seed gives the same model, and a file that breaks is made again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from orchard.numerics.errors import NumericsError  # noqa: E402
from orchard.numerics.fixtures import catalog, corpus, store, tasks  # noqa: E402
from orchard.numerics.fixtures.tinylm import TinyConfig, TinyLM, rotate  # noqa: E402
from orchard.numerics.fixtures.training import rate, train  # noqa: E402

SMALL = TinyConfig(vocabulary=64, layers=2, width=16, heads=2, kv_heads=1, feedforward=32)


def test_training_learns_and_repeats() -> None:
    losses: list[float] = []
    first = train(
        SMALL, tasks.back_copy_draw(seed=0, rows=4), steps=51, seed=0, progress=lambda _step, loss: losses.append(loss)
    )
    again = train(SMALL, tasks.back_copy_draw(seed=0, rows=4), steps=51, seed=0)
    assert losses[1] < losses[0]
    assert all(torch.equal(first[k], again[k]) for k in first)


def test_rate_rises_then_falls_to_a_tenth() -> None:
    rates = [rate(s, 500) for s in range(500)]
    assert max(rates) == pytest.approx(3e-3)
    assert rates.index(max(rates)) == 49
    assert rates[-1] == pytest.approx(3e-4, rel=0.01)


@pytest.mark.parametrize(
    "sizes",
    [{"kv_heads": 1}, {"latent": 8, "kv_heads": 2}, {"share": 2}, {"window": 4}, {"experts": 4}, {"outliers": 2}],
    ids=str,
)
def test_every_variant_looks_back_only(sizes: dict[str, int]) -> None:
    model = TinyLM(TinyConfig(**{**vars_of(SMALL), **sizes}), seed=0).eval()
    ids = torch.randint(1, 64, (2, 12), generator=torch.Generator().manual_seed(0))
    other = ids.clone()
    other[:, 8:] = (other[:, 8:] + 1) % 64
    with torch.no_grad():
        assert torch.allclose(model(ids)[:, :8], model(other)[:, :8], atol=1e-6)
        assert not torch.allclose(model(ids)[:, 8:], model(other)[:, 8:], atol=1e-6)


def vars_of(config: TinyConfig) -> dict[str, int]:
    from dataclasses import asdict

    return asdict(config)


def test_rotary_scores_depend_on_distance_alone() -> None:
    q, k = torch.randn(2, 1, 1, 1, 8, generator=torch.Generator().manual_seed(0))
    q, k = rotate(q.expand(1, 1, 9, 8)), rotate(k.expand(1, 1, 9, 8))
    scores = (q @ k.transpose(-1, -2))[0, 0]
    assert torch.allclose(scores.diagonal(-2), scores[2, 0].expand(7), atol=1e-5)


def test_the_store_builds_once_and_again_after_damage(tmp_path: Path) -> None:
    built: list[int] = []

    def build() -> dict[str, torch.Tensor]:
        built.append(1)
        return {"x": torch.ones(2)}

    for _ in range(2):
        assert torch.equal(store.remembered("k", build, folder=tmp_path)["x"], torch.ones(2))
    assert len(built) == 1
    (tmp_path / "k.pt").write_bytes(b"broken")
    store.remembered("k", build, folder=tmp_path)
    assert len(built) == 2
    assert [p.name for p in tmp_path.iterdir()] == ["k.pt"]


def test_names_of_files_follow_code_and_settings() -> None:
    assert store.code_digest(("tinylm.py",)) != store.code_digest(("training.py",))
    assert store.key_of("a", (1, "x")) != store.key_of("a", (2, "x"))


def test_docstrings_of_a_file_and_crops_of_a_text(tmp_path: Path) -> None:
    path = tmp_path / "m.py"
    path.write_text('"""One."""\ndef f():\n    """Two."""\nx = 1\n')
    assert list(corpus._docstrings(path)) == ["One.", "Two."]
    path.write_text("def (")
    assert list(corpus._docstrings(path)) == []
    ids = np.arange(1000) + 1
    rows = corpus.sequences(ids, 4, 100, seed=0)
    assert rows.shape == (4, 101)
    assert (rows[:, 0] == 0).all()
    assert (np.diff(rows[:, 1:], axis=1) == 1).all()
    with pytest.raises(NumericsError, match="the text holds 9 sequences of 100 tokens, expected at least 10"):
        corpus.sequences(ids, 10, 100, seed=0)


def test_unknown_fixtures_are_named() -> None:
    with pytest.raises(NumericsError, match="fixture 'fx11' is not known"):
        catalog.fixture("fx11")
    assert catalog.fixture("FX1").config.kv_heads == 2
