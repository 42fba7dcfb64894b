"""Allocations against exhaustive search; times by hand; every idea on a toy model; pages, records and refusals."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from orchard.app.cli import main  # noqa: E402
from orchard.numerics.fixtures.tinylm import TinyConfig, TinyLM  # noqa: E402
from orchard.report.propose import pages, proposal_record, render_proposal  # noqa: E402
from orchard.report.schemas import SCHEMAS  # noqa: E402
from orchard.studies.errors import StudyError  # noqa: E402
from orchard.studies.experiment.run import Bench, Subject  # noqa: E402
from orchard.studies.propose import ideas, joint, run  # noqa: E402
from orchard.studies.propose.allocate import allocate, greedy  # noqa: E402
from orchard.studies.propose.evidence import Evidence, rank_correlation  # noqa: E402
from orchard.studies.propose.pricing import BITS, DRAFTED, KINDS, Device, price  # noqa: E402
from orchard.studies.propose.sheet import Falsifier, Sheet  # noqa: E402

RANDOM = np.random.default_rng(0)


@pytest.mark.parametrize("seed", range(5))
def test_an_allocation_is_the_best_of_all_and_says_so(seed: int) -> None:
    random = np.random.default_rng(seed)
    loss, time, size = random.random((5, 3)), random.random((5, 3)), random.random((5, 3))
    budgets = [0.6 * time.max(axis=1).sum(), 0.7 * size.max(axis=1).sum()]
    found = allocate(loss, [time, size], budgets)
    every = np.arange(5)
    able = [
        float(loss[every, list(c)].sum())
        for c in itertools.product(range(3), repeat=5)
        if time[every, list(c)].sum() <= budgets[0] and size[every, list(c)].sum() <= budgets[1]
    ]
    assert found.loss == pytest.approx(min(able))
    assert found.proved
    assert found.bound == pytest.approx(found.loss, abs=1e-6)
    assert found.spent[0] <= budgets[0] + 1e-9
    hungry = greedy(loss, time, budgets[0])
    assert time[every, list(hungry)].sum() <= budgets[0] + 1e-9
    assert loss[every, list(hungry)].sum() >= allocate(loss, [time], [budgets[0]]).loss - 1e-9


def test_settings_a_tensor_cannot_have_and_budgets_nothing_fits() -> None:
    loss = np.array([[0.0, np.inf], [0.0, 1.0]])
    cost = np.array([[2.0, 1.0], [2.0, 1.0]])
    assert allocate(loss, [cost], [3.0]).choice == (0, 1)
    with pytest.raises(StudyError, match="no allocation fits"):
        allocate(loss, [cost], [2.5])


def device(**changes: object) -> Device:
    """Time goes with bits and a pass; verification costs a tenth more per row; k and v cost nothing per bit."""
    one = {b: 1.0 + b for b in BITS}
    products = {(k, b): (0.0 if k in "kv" else b / 16.0, b / 8.0) for k in KINDS for b in BITS}
    plain = {
        "chip": "toy", "engine": "gpu", "one": one, "products": products, "sparse": {b: 0.9 * one[b] for b in BITS},
        "rows": {(b, g + 1): one[b] * (1 + 0.1 * g) for b in BITS for g in DRAFTED},
    }  # fmt: skip
    return Device(**{**plain, **changes})  # type: ignore[arg-type]


def test_time_per_token_by_hand() -> None:
    """Two drafts at 3 bits (4 each) and a pass of three rows at 8 bits (9 x 1.2) win 1 + 0.5 + 0.25 tokens."""
    assert joint.time_per_token(device(), 8, 3, 2, 0.5) == pytest.approx((2 * 4 + 9 * 1.2) / 1.75)


class ToyEvidence(Evidence):
    """A random model of 20,000 parameters and random text."""

    @property
    def bench(self) -> Bench:
        return BENCHES[self.subject.seed]


def bench(seed: int) -> Bench:
    config = TinyConfig(vocabulary=32, layers=1, width=64, heads=2, kv_heads=1, feedforward=64)
    model = TinyLM(config, seed=seed).eval().requires_grad_(False)
    rows = lambda n: torch.randint(1, 32, (n, 33), generator=torch.Generator().manual_seed(seed))  # noqa: E731
    return Bench(model, rows(6), lambda n, _draw: rows(min(n, 4)), seed)


BENCHES = {seed: bench(seed) for seed in (0, 1)}


@pytest.fixture(scope="module")
def proposal() -> run.Proposal:
    patch = pytest.MonkeyPatch()
    with patch.context() as m:
        m.setattr(run, "Evidence", ToyEvidence)
        m.setattr(run, "price", lambda _model, chip, _engine, depth: device(chip=chip))  # noqa: ARG005
        m.setattr(ideas, "_won", lambda _evidence: RANDOM.integers(1, 4, (10, 8)))
        return run.propose("toy", ["a", "b", "c"], engines=["gpu"], sequences=6)


def test_every_idea_comes_to_a_verdict_that_follows_from_its_falsifiers(proposal: run.Proposal) -> None:
    assert [s.id for s in proposal.sheets] == ["I1", "I3", "I4", "I9", "I11", "I12", "J-a-gpu", "J-b-gpu", "J-c-gpu"]
    for s in proposal.sheets:
        struck = [f.struck for f in s.falsifiers]
        expected = "rejected" if True in struck else "undecided" if None in struck else "supported"
        assert s.verdict == expected
    assert {s.origin for s in proposal.sheets} == {"brief", "search"}


def test_fronts_trade_time_for_loss(proposal: run.Proposal) -> None:
    mine = [c for c in proposal.fronts if c.chip == "a"]
    assert all(x.seconds < y.seconds and x.loss > y.loss for x, y in zip(mine, mine[1:]))


def test_free_bits_finds_tensors_that_cost_no_time() -> None:
    class Sensitive(ToyEvidence):
        def sensitivities(self, settings: Mapping[str, str]) -> tuple[list[str], np.ndarray]:  # noqa: ARG002
            names = [f"blocks.0.{kind}_proj" for kind in KINDS]
            return names, np.array([[0.5**b for b in (2, 3, 4, 8)]] * len(names))  # all alike

        def mixed_loss(self, choice: Mapping[str, str]) -> np.ndarray:
            chosen.append(choice)
            return np.full(6, sum(0.5 ** int(text[10]) for text in choice.values()))  # gptq:bits=N

    chosen: list[Mapping[str, str]] = []
    seen = Sensitive(Subject(fixture="fx1", seed=0), sequences=6)
    sheet = ideas.free_bits(ideas.Setting("toy", [device()], seen, seen))
    assert sheet.verdict == "supported"
    by_time = chosen[1]
    assert by_time["blocks.0.k_proj"] == by_time["blocks.0.v_proj"] == "gptq:bits=8,group=64"  # k and v cost no time


def test_pages_and_records(proposal: run.Proposal, tmp_path: Path) -> None:
    record = proposal_record(proposal)
    SCHEMAS["orchard.proposal/1"].model_validate_json(json.dumps(record))
    assert all(len(line) <= 80 for line in render_proposal(proposal).splitlines())
    run.write(proposal, tmp_path / "ideas", pages(proposal))
    assert {p.name for p in (tmp_path / "ideas").iterdir()} == {
        "README.md", "ideas.json", *(f"{s.id}.md" for s in proposal.sheets)
    }  # fmt: skip
    assert "**Verdict: " in (tmp_path / "ideas" / "I9.md").read_text()


def test_a_switch_is_worth_nothing_where_rounds_are_alike_and_much_where_they_alternate() -> None:
    alike = np.full((10, 8), 2)
    assert ideas._switch_gains(alike, 1.5, 0.9) == (0.0, 0.0)
    waves = np.where(np.arange(40)[:, None] // 10 % 2 == 0, 1, 3) * np.ones((1, 8), dtype=int)
    known, guessed = ideas._switch_gains(waves, 1.6, 0.9)
    assert known == pytest.approx(min(1.6 * 40, 0.9 * 80) / (20 * 0.9 + 20 * 1.6) - 1)
    assert 0 < guessed <= known + 0.05


def test_prices_come_from_predictions() -> None:
    from orchard import predict

    found = price("qwen3-0.6b", "m4", "ane")
    plain = predict("qwen3-0.6b", chip="m4", engine="ane", weights="f16", prompt=64, generate=1)
    assert found.one[16] == plain.phases["decode"].latency_s
    assert found.one[4] < found.one[16]
    assert found.rows == {}
    assert sum(found.products[k, 16][0] for k in KINDS) < found.one[16]


def test_rank_correlation_with_ties() -> None:
    assert rank_correlation([1, 2, 3], [2, 4, 9]) == pytest.approx(1.0)
    assert rank_correlation([1, 1], [1, 1]) == 1.0
    assert rank_correlation([1, 1], [1, 2]) == 0.0


def test_a_falsifier_that_cannot_be_tried_leaves_an_idea_undecided() -> None:
    def sheet(*struck: bool | None) -> Sheet:
        falsifiers = tuple(Falsifier(text="t", found="f", struck=s) for s in struck)
        return Sheet(id="x", title="", origin="brief", hypothesis="", formula="", prediction="", experiment="", result="",
                     falsifiers=falsifiers, figures=(), scale="")  # fmt: skip

    assert [sheet(False).verdict, sheet(False, None).verdict, sheet(None, True).verdict] == [
        "supported",
        "undecided",
        "rejected",
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--model", "qwen3-0.6b", "--chip", "m99"), "m99"),
        (("--model", "resnet18", "--chip", "m4"), "resnet18: no language model"),
        (("--model", "qwen3-0.6b", "--chip", "m4", "--engine", "tpu"), "--engine 'tpu' is not known"),
        (("--model", "qwen3-0.6b", "--chip", "m4", "--budget", "-1"), "--budget -1.0, expected nats per token"),
        (("--model", "qwen3-0.6b", "--chip", "m4", "--scale", "big"), "--scale 'big' is not known"),
    ],
)
def test_bad_input(arguments: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["propose", *arguments]) == 2
    assert message in capsys.readouterr().err
